"""What a benchmark leaves for a model card: `hf-elmo card FOLDER --results FILE` puts it in."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from hf_elmo.hub.measured_results import Result, write_results

from .machine import facts


def write_card_results(
    path: Path, rows: Iterable[tuple[dict, dict, dict, float]], module: str, arguments: Sequence[str] | None
) -> None:
    """Writes results, with the command and the machine.

    Args:
        path: The file.
        rows: Task, dataset, metric and value of each, as `hf_elmo.hub.measured_results` has them.
        module: The name of the benchmark's module.
        arguments: What it was called with; None: what the process was.
    """
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", module, *map(str, given)])
    machine = f"{facts()['processor']}, torch {torch.__version__} with {torch.get_num_threads()} threads"
    write_results([Result(*row, command, machine) for row in rows], path)
