"""The files of a model folder, looked at before anything is loaded from them: plain files, JSON, tables of contents."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

#: The largest absolute value of a weight. No ELMo comes near it, and products of two such numbers fit into float32.
LARGEST_WEIGHT = 1e15

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# The library's own bound.
_LARGEST_HEADER = 100_000_000
_FLOATS = ("F64", "F32", "F16", "BF16")


class StoredTensor(NamedTuple):
    """What a file of weights says of a tensor.

    Attributes:
        dtype: As safetensors calls it: `"F32"`, `"BF16"` ...
        shape: Its sizes.
        path: The file that holds it.
    """

    dtype: str
    shape: tuple[int, ...]
    path: Path


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a JSON file in UTF-8.

    Raises:
        ValueError: if it is not JSON (where, and why), or its value is not an object.
        OSError: if it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except RecursionError:
        raise ValueError(f"{path} is not a JSON file: it is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The file of weights of a model folder, or the several that a large model is saved in.

    Raises:
        ValueError: if one is missing, is not a regular file directly in the folder, or the index is not an index.
    """
    folder = Path(folder)
    if (folder / _WEIGHTS).exists() or not (folder / _INDEX).exists():
        names = [_WEIGHTS]
    else:
        # Opening a pipe would wait for a writer.
        _check_regular(folder / _INDEX, folder)
        places = read_json_object(folder / _INDEX).get("weight_map")
        if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
            raise ValueError(
                f"{folder / _INDEX} is not an index of files of weights: weight_map must be an object from the names "
                f"of weights to those of files, was: {places!r:.80}."
            )
        names = sorted(set(places.values()))
    for name in names:
        if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
            raise ValueError(
                f"{folder / _INDEX} names the file {name!a:.80}, but weights must lie in the folder itself: do not "
                "trust this model."
            )
        _check_regular(folder / name, folder)
    return [folder / name for name in names]


def _check_regular(path: Path, folder: Path) -> None:
    if not path.exists():
        raise ValueError(f"{folder} has no weights: {path.name} is missing.")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file.")


def stored_tensors(folder: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """What the files of weights of a model folder hold, from their tables of contents.

    Raises:
        ValueError: as `weight_files`; for a damaged file; and for weights that are not floating-point numbers.
        OSError: if a file cannot be read.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        content, size = _table_of_contents(path)
        for name, entry in content.items():
            try:
                tensor = StoredTensor(str(entry["dtype"]), tuple(map(int, entry["shape"])), path)
                begin, end = map(int, entry["data_offsets"])
            except (LookupError, TypeError, ValueError):
                raise ValueError(f"{path} is damaged: its table of contents says of {name}: {entry!r:.80}.") from None
            if not 0 <= begin <= end <= size:
                raise ValueError(f"{path} is damaged: it ends before the numbers of {name}.")
            if tensor.dtype not in _FLOATS:
                raise ValueError(
                    f"{path}: the weights {name} are of the type {tensor.dtype}, expected {', '.join(_FLOATS)}: save "
                    "the model in one of these (model.float() and its like), for it would be read as other numbers."
                )
            tensors[name] = tensor
    return tensors


def _table_of_contents(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file (8 bytes with its size, then JSON), and how many bytes of numbers follow it."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 < size <= min(_LARGEST_HEADER, path.stat().st_size):
            raise ValueError(f"{path} is damaged: it does not begin as a file of safetensors.")
        header = file.read(size)
    try:
        content = json.loads(header)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its table of contents is not JSON ({error}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: its table of contents is a {type(content).__name__}.")
    content.pop("__metadata__", None)
    return content, path.stat().st_size - 8 - size


def check_local_weights(name: object, subfolder: str = "", variant: str | None = None) -> None:
    """Checks the weights of a model that is to be loaded from a local folder; all else is left to the library.

    Raises:
        ValueError: as `stored_tensors`.
    """
    if variant is not None or not isinstance(name, (str, os.PathLike)) or not os.path.isdir(name):
        return
    folder = Path(name) / subfolder
    if (folder / _WEIGHTS).exists() or (folder / _INDEX).exists():
        stored_tensors(folder)


def check_numbers(model: nn.Module, source: object) -> None:
    """Checks that a model can be computed with: clips and gates would hide it from the results.

    Args:
        model: One that was loaded.
        source: From where, for the message.

    Raises:
        ValueError: if a parameter holds NaN, or a number beyond `LARGEST_WEIGHT`.
    """
    import torch

    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point() or not parameter.numel():
            continue
        low, high = torch.aminmax(parameter.detach())
        largest = max(-float(low), float(high))
        if not math.isfinite(largest):
            raise ValueError(f"{name} holds numbers that are not finite: the weights in {source} are damaged.")
        if largest > LARGEST_WEIGHT:
            raise ValueError(
                f"{name} holds numbers up to {largest:.3g}, with which nothing can be computed (weights are at most "
                f"{LARGEST_WEIGHT:.0e}): the weights in {source} are damaged."
            )
