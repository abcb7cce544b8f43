"""What the commands of all tables share: options, models, and the JSON file of a table.

A file has the figures under `"rows"`, and what they were made with: the command, seeds, versions, machine, a
fingerprint of the model's weights, and CPU seconds. `benchmarks.quality.page` makes the page of these files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
import transformers

import hf_elmo
from hf_elmo.whole_files import new_file

from ..harness.machine import facts
from ..harness.origin import command_of

RESULTS = Path(__file__).parents[1] / "results" / "quality"
LIBRARIES = ("torch", "transformers", "numpy", "scikit-learn")


def cpu_seconds() -> float:
    """CPU time of this process, and of those that it has waited for."""
    return sum(os.times()[:4])


def parser(description: str, seeds: Sequence[int] = (1, 2, 3)) -> argparse.ArgumentParser:
    """The options that all tables have.

    Args:
        description: Of the module.
        seeds: The seeds of a full run.
    """
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default=hf_elmo.bundled(), help="folder of a biLM (default: the bundled elmo-mini)")
    options.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    options.add_argument("--quick", action="store_true", help="small slices: shows that it works, and measures nothing")
    options.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    options.add_argument("--output", type=Path, help="JSON file of the results, for benchmarks.quality.page")
    options.set_defaults(started=cpu_seconds(), given=None)
    return options


def read_options(options: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Parses a command line, and sets torch's threads."""
    read = options.parse_args(arguments)
    read.given = sys.argv[1:] if arguments is None else arguments
    transformers.logging.set_verbosity_error()
    if read.threads is not None:
        torch.set_num_threads(read.threads)
    return read


def load(folder: str) -> tuple[hf_elmo.ElmoTokenizer, hf_elmo.ElmoModel]:
    """The tokenizer and the model of a folder, for inference."""
    return hf_elmo.ElmoTokenizer.from_pretrained(folder), hf_elmo.ElmoModel.from_pretrained(folder).eval()


def load_language_model(folder: str) -> tuple[hf_elmo.ElmoTokenizer, hf_elmo.ElmoForPreTraining]:
    """The tokenizer and the language model of a folder, for inference."""
    model = hf_elmo.ElmoForPreTraining.from_pretrained(folder).eval()
    return hf_elmo.ElmoTokenizer.from_pretrained(folder), model


def random_model(folder: str, seed: int) -> hf_elmo.ElmoModel:
    """A model of the same sizes as a folder's, with fresh random weights, for inference."""
    torch.manual_seed(seed)
    return hf_elmo.ElmoModel(hf_elmo.ElmoConfig.from_pretrained(folder)).eval()


def weights_fingerprint(folder: str) -> str | None:
    """The first 12 hex digits of SHA-256 of a folder's weights; None if it is not a local folder of one file."""
    path = Path(folder) / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else None


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation (0 for one value) and number of values."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "spread": spread, "runs": len(values)}


def write_table(path: Path | None, name: str, rows: dict, options: argparse.Namespace, module: str) -> dict:
    """Writes a table's JSON file, whole or not at all, and returns what is in it.

    Args:
        path: The file; None: nowhere.
        name: The table's name, by which the page finds it.
        rows: The figures.
        options: Of `read_options`.
        module: The name of the table's module, for the command.
    """
    table = {
        "table": name,
        "command": command_of(module, options.given),
        "quick": options.quick,
        "seeds": options.seeds,
        "model": {"name": Path(options.model).name, "weights_sha256": weights_fingerprint(options.model)},
        "versions": {"python": platform.python_version(), "hf_elmo": hf_elmo.__version__}
        | {each: metadata.version(each) for each in LIBRARIES},
        "machine": facts() | {"threads": torch.get_num_threads()},
        "cpu_seconds": round(cpu_seconds() - options.started, 1),
        "rows": rows,
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            temporary.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return table
