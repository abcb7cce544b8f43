"""`hf-elmo info`: what a model folder holds, without loading its weights."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .console import in_bytes, printable, say


def info(
    folder: Annotated[
        str | None, typer.Argument(help="Model folder, or a bundled model. [default: elmo-mini]", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the sizes and switches of a model, its parameters, vocabulary and files."""
    from ..hub.folders import READS, WRITES, describe, find_folder

    facts = describe(find_folder(folder, (READS, WRITES)))
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    for title, values in facts.items():
        if not isinstance(values, dict):
            say(f"{title}: {printable(str(values), 200)}")
            continue
        say(f"{title}:")
        width = max(map(len, values), default=0)
        for name, value in values.items():
            say(f"  {name:<{width}}  {_for_people(title, value)}")


def _for_people(title: str, value: Any) -> str:
    if title == "files":
        return in_bytes(value)
    return f"{value:,}" if title == "parameters" else printable(str(value), 200)
