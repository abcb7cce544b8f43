"""Reading HDF5 files that others made: what is in them, without following links out of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import numpy as np

from .errors import ConversionError
from .files import InputFile
from .foreign_files import describe_beginning
from .key_map import ArrayInfo, show_key

#: What h5py raises for damaged files.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)

# Weights hardly compress; a large array that does is a trap, or was never filled.
_SMALL_ARRAY = 64 * 1024**2
_HIGHEST_COMPRESSION = 100


@contextmanager
def opened_hdf5(file: InputFile) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading.

    Raises:
        ConversionError: if it is another kind of file, or cut off.
    """
    if not h5py.is_hdf5(file.path):
        with file.path.open("rb") as stream:
            begin = stream.read(24)
        if not begin:
            raise ConversionError(f"{file} is empty.")
        raise ConversionError(
            f"{file} is not an HDF5 file: it begins with {begin!r}. {describe_beginning(begin)}".strip()
        )
    try:
        opened = h5py.File(file.path, "r")
    except DAMAGE as error:
        raise ConversionError(f"{file} cannot be opened as an HDF5 file; is it whole? ({error})") from None
    with opened:
        yield opened


def list_arrays(file: InputFile, opened: h5py.File) -> dict[str, ArrayInfo]:
    """Everything in an HDF5 file by its full key: its datasets, and what should not be there as faults.

    Nothing is followed that leads elsewhere: links, external storage, virtual datasets. A group without content counts
    as a key too, with a slash behind its name.

    Raises:
        ConversionError: if the file is damaged.
    """
    found: dict[str, ArrayInfo] = {}
    groups: list[tuple[str, h5py.Group]] = [("", opened)]
    try:
        seen = {_address(opened)}
        while groups:
            prefix, group = groups.pop()
            for name in group:
                # h5py gives names that are no UTF-8 as bytes.
                key = prefix + (name if isinstance(name, str) else name.decode("utf-8", "backslashreplace"))
                try:
                    link = group.get(name, getlink=True)
                    content = group[name] if isinstance(link, h5py.HardLink) else link
                    if isinstance(content, h5py.Dataset):
                        found[key] = _info(content)
                    elif not isinstance(content, h5py.Group):
                        found[key] = ArrayInfo(None, "", _no_array(content))
                    elif _address(content) in seen:
                        found[key] = ArrayInfo(None, "", "a second name of another group")
                    elif len(content) == 0:
                        found[key + "/"] = ArrayInfo(None, "", "a group without content")
                    else:
                        seen.add(_address(content))
                        groups.append((key + "/", content))
                except DAMAGE as error:
                    found[key] = ArrayInfo(None, "", f"damaged: {error}")
    except DAMAGE as error:
        raise ConversionError(f"{file} is damaged: its keys cannot be listed ({error}).") from None
    return found


def _address(content: h5py.HLObject) -> tuple:
    info = h5py.h5o.get_info(content.id)
    return info.fileno, info.addr


def _no_array(content: object) -> str:
    path = getattr(content, "path", None)
    return f"a {type(content).__name__}{'' if path is None else f' to {path!a}'}, not a dataset"


def _info(dataset: h5py.Dataset) -> ArrayInfo:
    shape, dtype, fault = dataset.shape, dataset.dtype.newbyteorder("=").name, None
    if dataset.external or dataset.is_virtual:
        fault = "its values lie in other files"
    elif shape is None:
        fault = "a dataset without shape"
    elif dataset.size:
        stored = dataset.id.get_storage_size()
        # bilm-tf makes a dataset first and fills it then: a program that was stopped in between leaves such ones.
        if stored == 0:
            fault = "its values were never written"
        elif dataset.nbytes > max(_SMALL_ARRAY, _HIGHEST_COMPRESSION * stored):
            fault = f"claims {dataset.nbytes:,} bytes, packed into {stored:,}"
    return ArrayInfo(shape, dtype, fault)


def read_float32(file: InputFile, opened: h5py.File, key: str) -> np.ndarray:
    """The values of a float32 dataset, in the machine's byte order.

    Raises:
        ConversionError: if they cannot be read.
    """
    dataset = opened[key]
    values = np.empty(dataset.shape, dtype=np.float32)
    try:
        dataset.read_direct(values)
    except DAMAGE as error:
        raise ConversionError(f"{file}: the values of {show_key(key)} cannot be read ({error}).") from None
    return values
