"""What the files of weights in a model folder hold, told by their tables of contents: nothing is loaded."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# Beginnings of parameters' names (in a model on top of the biLM, "elmo." comes before the first three).
_PARTS = {
    "character_encoder.": "character encoder",
    "bilstm.": "biLSTM",
    "scalar_mixes.": "scalar mixes",
    "softmax.": "softmax",
}


def table_of_contents(folder: Path) -> list[tuple[str, str, int]]:
    """Name, dtype and number of elements of every tensor in a model folder's weights.

    Raises:
        ValueError: if a file of weights is missing or damaged.
    """
    return [tensor for path in weight_files(folder) for tensor in _tensors(path)]


def count_parameters(tensors: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Parameters of each part. The biLM's, mixes and softmax left out, is the number that is published for an ELMo.

    Args:
        tensors: As `table_of_contents` gives them.

    Returns:
        The number of `"biLM"`, of each part that there is, and of `"all"`.
    """
    counts: Counter[str] = Counter()
    for name, _, size in tensors:
        name = name.removeprefix("elmo.")
        counts[next((part for start, part in _PARTS.items() if name.startswith(start)), "task head")] += size
    parts = {part: counts[part] for part in (*_PARTS.values(), "task head") if part in counts}
    return {"biLM": counts["character encoder"] + counts["biLSTM"], **parts, "all": counts.total()}


def weight_files(folder: Path) -> list[Path]:
    """The file of weights, or the several that a large model is saved in.

    Raises:
        ValueError: if one is missing.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{index} is no index of files of weights: {error!r}") from None
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no weights: {name} is missing.")
    return [folder / name for name in names]


def _tensors(path: Path) -> list[tuple[str, str, int]]:
    """Name, dtype and number of elements of every tensor in a safetensors file.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    # The library says of a file that may not be read that there is none.
    path.open("rb").close()
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return [(name, each.get_dtype(), math.prod(each.get_shape())) for name, each in slices.items()]
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
