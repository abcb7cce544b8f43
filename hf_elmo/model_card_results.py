"""Files of measured results, for model cards.

Such a file is JSON: one result, or a list of them. A result is an object with

- `task`: what was done, as the hub calls tasks (`"token-classification"`); `"speed"` for how fast the model is, which a
  card tells in its text only;
- `dataset`: the name of the data, for people (`"WNUT-17"`);
- `metric`: what was measured, as the hub calls metrics (`"f1"`, `"perplexity"`, `"words_per_second"`);
- `value`: a number;
- `command`: the command that measured it;
- `machine`: the machine that it ran on;

and, where there is more to say,

- `dataset_id`: the data on the hub (`"wnut_17"`; otherwise made of the name), `dataset_split` and `dataset_config`;
- `task_name` and `metric_name`: both for people;
- `deviation`: the standard deviation of several runs, and `runs`, their number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

SPEED = "speed"


@dataclass(frozen=True)
class Result:
    """A measured result; the fields are those of the files above.

    Raises:
        ValueError: if a field is empty or of a wrong type; all such fields are named.
    """

    task: str
    dataset: str
    metric: str
    value: float
    command: str
    machine: str
    dataset_id: str | None = None
    dataset_split: str | None = None
    dataset_config: str | None = None
    task_name: str | None = None
    metric_name: str | None = None
    deviation: float | None = None
    runs: int | None = None

    def __post_init__(self):
        wrong = [
            f"{each.name} must be {_kind(each)}, was {self._shown(each)}" for each in fields(self) if self._wrong(each)
        ]
        if wrong:
            raise ValueError("; ".join(wrong))

    def _wrong(self, each) -> bool:
        value = getattr(self, each.name)
        if value is None:
            return each.default is MISSING
        if each.type.startswith("str"):
            return not isinstance(value, str) or not value.strip()
        is_number = isinstance(value, int if each.type.startswith("int") else (int, float)) and not isinstance(
            value, bool
        )
        return not is_number or not math.isfinite(value) or (each.default is None and value < 0)

    def _shown(self, each) -> str:
        return json.dumps(getattr(self, each.name), default=repr)[:80]

    @property
    def figure(self) -> str:
        """The value for people, with its deviation."""
        spread = f" ± {self.deviation:g}" if self.deviation is not None else ""
        runs = f" ({self.runs} runs)" if self.runs is not None else ""
        return f"{_number(self.value)}{spread}{runs}"

    def to_eval_result(self):
        """The same as a `huggingface_hub.EvalResult`."""
        from huggingface_hub import EvalResult

        return EvalResult(
            task_type=self.task,
            task_name=self.task_name,
            dataset_type=self.dataset_id or re.sub(r"[^a-z0-9]+", "-", self.dataset.lower()).strip("-") or "unknown",
            dataset_name=self.dataset,
            dataset_config=self.dataset_config,
            dataset_split=self.dataset_split,
            metric_type=self.metric,
            metric_name=self.metric_name,
            metric_value=self.value,
        )


def _kind(each) -> str:
    if each.type.startswith("str"):
        return "a text"
    least = "" if each.default is MISSING else ", 0 or more"
    return f"a {'whole number' if each.type.startswith('int') else 'finite number'}{least}"


def _number(value: float) -> str:
    return f"{value:,}" if abs(value) >= 1000 else str(value)


def read_results(path: str | Path) -> list[Result]:
    """Reads a file of measured results.

    Raises:
        ValueError: if it is no such file: which result, which fields, what was expected.
        OSError: if it cannot be read.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise ValueError(f"{path} holds no results.")
    results = []
    for number, entry in enumerate(entries, start=1):
        try:
            results.append(_result(entry))
        except ValueError as error:
            which = f", result {number}" if isinstance(content, list) else ""
            raise ValueError(f"{path}{which}: {error}.") from None
    return results


def _result(entry: Any) -> Result:
    if not isinstance(entry, Mapping):
        raise ValueError(f"a result must be a JSON object, was {json.dumps(entry)[:80]}")
    known = {each.name: each for each in fields(Result)}
    missing = [name for name, each in known.items() if each.default is MISSING and entry.get(name) is None]
    surplus = sorted(set(entry) - set(known))
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"not known: {', '.join(map(ascii, surplus))} (there are: {', '.join(known)})"] if surplus else []
    if problems:
        raise ValueError("; ".join(problems))
    return Result(**entry)
