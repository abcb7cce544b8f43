"""Processes that answer lines of JSON with lines of JSON, such as `contestant.py`."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

#: Seconds after which an answer is waited for no longer.
PATIENCE = 900


class Ended(Exception):
    """A process has ended, or was ended for being late."""


class Process:
    """A process that answers lines of JSON with lines of JSON.

    Args:
        command: What to run.
        environment: Its environment variables.
        log: Gets its standard error.
    """

    def __init__(self, command: list, environment: dict[str, str], log: Path):
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                encoding="utf-8",
                cwd=Path(__file__).parents[2],
            )

    def ask(self, do: str, **arguments) -> dict:
        """The answer to a request.

        Raises:
            Ended: if there is none.
        """
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Ended(f"ended without an answer to {do!r}: {' '.join(last) or 'no message'}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *details) -> None:
        self.close()
