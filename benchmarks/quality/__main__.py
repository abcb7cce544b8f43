"""Runs all tables, and makes a page of them.

    python -m benchmarks.quality --quick --results FOLDER      # small slices: shows that everything works
    python -m benchmarks.quality [--model FOLDER]              # everything, with all seeds: days of CPU time

Each table is a process of its own, so that one that fails does not take the others with it; the exit status is then 1.
With `--quick` nothing is tested on a test set, and FOLDER gets the files and the page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import hf_elmo

from . import page
from .tables import RESULTS

#: Table, module and further options; of the quick mode in the second list.
COMMANDS: dict[str, tuple[str, list[str], list[str]]] = {
    "read": ("read_occurrences", [], []),
    "words": ("words", [], []),
    "layers": ("layers", [], []),
    "state": ("state", [], []),
    "noise": ("noise", [], ["--ngram-words", "20000"]),
    "tasks": ("tasks", [], []),
    "efficiency": (
        "tasks",
        ["--tasks", "wnut17", "sst5", "--shares", "0.01", "0.1", "1"],
        ["--shares", "0.5", "1", "--tasks", "sst5"],
    ),
    "finetuning": ("finetuning", [], ["--epochs", "1"]),
    "optimizers": ("optimizers", [], []),
}
#: Tables whose command leaves models in a folder.
WITH_WORK = ("finetuning", "optimizers")


def commands(quick: bool, model: str, results: Path, work: Path, threads: int | None) -> dict[str, list[str]]:
    """The command line of each table."""
    found = {}
    for name, (module, full, small) in COMMANDS.items():
        line = [sys.executable, "-m", f"benchmarks.quality.{module}", "--model", model]
        line += [*(small if quick else full), "--output", str(results.resolve() / f"{name}.json")]
        line += ["--quick", "--seeds", "1"] if quick else []
        line += ["--threads", str(threads)] if threads else []
        line += ["--work", str(work / name)] if name in WITH_WORK else []
        found[name] = line
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the tables of a command line; returns 1 if one of them failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="small slices, into --results")
    options.add_argument("--results", type=Path, help="folder for the JSON files (default: benchmarks/results/quality)")
    options.add_argument("--model", default=hf_elmo.bundled(), help="folder of a biLM (default: the bundled elmo-mini)")
    options.add_argument("--tables", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    options = options.parse_args(arguments)
    if options.quick and options.results is None:
        raise SystemExit("With --quick give --results FOLDER: what it writes is no measurement.")
    results = options.results or RESULTS
    failed = []
    with tempfile.TemporaryDirectory() as work:
        lines = commands(options.quick, str(options.model), results, Path(work), options.threads)
        for name in options.tables:
            print(f"--- {name}", flush=True)
            if subprocess.run(lines[name], check=False, cwd=Path(__file__).parents[2]).returncode:
                failed.append(name)
    page.main(["--results", str(results), *(["--page", str(results / "quality.md")] if options.quick else [])])
    if failed:
        print(f"These tables failed: {', '.join(failed)}.", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
