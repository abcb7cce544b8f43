"""Where the figures of a file come from: the command, the commit, and the machine in the file's name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Options whose values name a place. (A table names its model besides, with a fingerprint.)
PLACES = ("--output", "--work", "--text", "--model")


def command_of(module: str, arguments: Sequence[object] | None) -> str:
    """The command of a measurement, without what names a place on one machine.

    Args:
        module: The benchmark's module.
        arguments: What it was called with; None: what the process was.
    """
    kept: list[str] = []
    remaining = iter(map(str, sys.argv[1:] if arguments is None else arguments))
    for each in remaining:
        if each in PLACES:
            next(remaining, None)
        elif each.partition("=")[0] not in PLACES:
            kept.append(each)
    return shlex.join(["python", "-m", module, *kept])


def commit() -> str | None:
    """The commit of the checkout, with a "+" if files have changed since; None where git cannot say."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True)
    except OSError:
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "") if head.returncode == 0 else None


def file_name(facts: dict) -> str:
    """A name for the results of a machine: its processor and the day, as `amd-epyc-9r14-2026-11-30.json`."""
    words = re.sub(r"\((r|tm)\)|\b(cpu|processor|\d+-core)\b|@.*", " ", facts["processor"].lower())
    return "-".join([*re.findall(r"[a-z0-9.]+", words), facts["date"][:10]]) + ".json"
