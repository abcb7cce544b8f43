"""Files of measured results, for model cards.

A file holds a JSON object, or a list of such:

    {
      "task": {"type": "token-classification", "name": "Entities"},
      "dataset": {"type": "leondz/wnut_17", "name": "WNUT-17", "split": "test"},
      "metric": {"type": "f1", "name": "F1 of entities"},
      "value": 27.32,
      "command": "python -m benchmarks.quality.wnut17 --threads 1",
      "machine": "AMD EPYC, one core"
    }

Where only the type matters, it may stand for the object: `"task": "token-classification"`. Types are the hub's names of
tasks, datasets and metrics. The task `speed` is for times and rates, which stand in the card's text only, not in its
metadata. The benchmarks write such files with `--results FILE`, and `hf-elmo card FOLDER --results FILE` reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..whole_files import new_file

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

SPEED = "speed"
_PARTS = {
    "task": ("type", "name"),
    "dataset": ("type", "name", "config", "split", "revision"),
    "metric": ("type", "name"),
}
_FIELDS = (*_PARTS, "value", "command", "machine")


@dataclass(frozen=True)
class Result:
    """A figure, and how it was measured, as far as that is known.

    Attributes:
        task: Its `type`, and perhaps `name`; so for `dataset` and `metric`.
        command: How it was measured; empty if that is not known, like `machine`.
    """

    task: dict[str, str]
    dataset: dict[str, str]
    metric: dict[str, str]
    value: float
    command: str
    machine: str

    @property
    def is_speed(self) -> bool:
        """Whether it is about the machine as much as about the model."""
        return self.task["type"] == SPEED

    @classmethod
    def from_eval_result(cls, result: EvalResult) -> Result:
        """What a `huggingface_hub.EvalResult` tells: nothing of command and machine."""
        parts = {
            name: {key: value for key in keys if (value := getattr(result, f"{name}_{key}", None)) is not None}
            for name, keys in _PARTS.items()
        }
        return cls(**parts, value=result.metric_value, command="", machine="")

    def as_eval_result(self) -> EvalResult:
        """The same as `huggingface_hub.EvalResult`."""
        from huggingface_hub import EvalResult

        return EvalResult(
            task_type=self.task["type"],
            task_name=self.task.get("name"),
            dataset_type=self.dataset["type"],
            dataset_name=self.dataset.get("name", self.dataset["type"]),
            dataset_config=self.dataset.get("config"),
            dataset_split=self.dataset.get("split"),
            dataset_revision=self.dataset.get("revision"),
            metric_type=self.metric["type"],
            metric_name=self.metric.get("name"),
            metric_value=self.value,
        )


def read_results(results: Iterable[str | Path | Result]) -> list[Result]:
    """Reads files of results; what is a `Result` already stays.

    Raises:
        ValueError: if a file is not one of results: the file, the entry, and the fields that are missing or wrong.
        OSError: if one cannot be read.
    """
    read: list[Result] = []
    for item in results:
        read += [item] if isinstance(item, Result) else _read_file(Path(item))
    return read


def write_results(results: Iterable[Result], path: str | Path) -> None:
    """Writes a file of results, which replaces one of this name when it is complete.

    Raises:
        ValueError: if a result has something that `read_results` would not take: the fields that are wrong.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    entries = [asdict(result) for result in results]
    for number, entry in enumerate(entries, 1):
        _result(entry, f"Result {number} for {path}")
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8", newline="\n")


def _read_file(path: Path) -> list[Result]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise ValueError(f"{path} has no results.")
    return [_result(entry, f"{path}, result {number}") for number, entry in enumerate(entries, 1)]


def _result(entry: Any, place: str) -> Result:
    if not isinstance(entry, dict):
        raise ValueError(f"{place} must be a JSON object, but is a {type(entry).__name__}.")
    missing = [name for name in _FIELDS if name not in entry]
    unknown = sorted(set(entry) - set(_FIELDS))
    problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
    if problems:
        raise ValueError(f"{place} has fields {'; '.join(problems)}. Expected are {', '.join(_FIELDS)}.")
    parts = {name: _part(entry[name], f"{place}, {name}", names) for name, names in _PARTS.items()}
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{place}: value must be a finite number, but is {value!r}.")
    for name in ("command", "machine"):
        _check_text(entry[name], f"{place}: {name}")
    return Result(**parts, value=value, command=entry["command"], machine=entry["machine"])


def _part(value: Any, place: str, names: Iterable[str]) -> dict[str, str]:
    part = {"type": value} if isinstance(value, str) else value
    if not isinstance(part, dict) or "type" not in part or set(part) - set(names):
        raise ValueError(
            f"{place} must be a text, or an object with type and perhaps {', '.join(names)}; it is {value!r}."
        )
    for name, text in part.items():
        _check_text(text, f"{place}: {name}")
    return part


def _check_text(value: Any, place: str) -> None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{place} must be a line of text that is not empty, but is {value!r}.")
