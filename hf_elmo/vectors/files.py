"""Files of word vectors: which format a name asks for, and a writer of a new file in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..whole_files import new_file
from .writers import (
    AllenNlpHdf5Writer,
    BilmHdf5Writer,
    NpzWriter,
    ParquetWriter,
    SafetensorsWriter,
    VectorWriter,
)

FORMATS: dict[str, type[VectorWriter]] = {
    "npz": NpzWriter,
    "safetensors": SafetensorsWriter,
    "hdf5": AllenNlpHdf5Writer,
    "bilm-hdf5": BilmHdf5Writer,
    "parquet": ParquetWriter,
}


def format_of(path: str | Path) -> str:
    """The format that a file's name asks for.

    Raises:
        ValueError: if it asks for none of them.
    """
    for name, writer in FORMATS.items():
        if Path(path).suffix.lower() in writer.suffixes:
            return name
    suffixes = ", ".join(suffix for writer in FORMATS.values() for suffix in writer.suffixes)
    raise ValueError(f"{path}: no format of vectors has this name; known are {suffixes}. Or name a format.")


@contextmanager
def open_vector_file(
    path: str | Path, format: str | None = None, *, dim: int, num_layers: int | None = None, overwrite: bool = False
) -> Iterator[VectorWriter]:
    """A writer for a new file, which gets its name when it is complete: at the end of the `with` block.

    After an error in the block, or in writing, there is no new file, and one that was there before is as it was.

    Args:
        path: The file to be.
        format: One of `FORMATS`; None: the one that the name asks for.
        dim: Size of a vector.
        num_layers: Number of layers if they are written all; None if each word has one vector.
        overwrite: Replace a file of this name.

    Raises:
        ValueError: for an unknown format, or one that cannot hold such vectors.
        OSError: if the file exists, or cannot be written. The error names it.
    """
    format = format or format_of(path)
    if format not in FORMATS:
        raise ValueError(f"There is no format {format!r}; there are {', '.join(FORMATS)}.")
    with new_vector_file(path, FORMATS[format], dim=dim, num_layers=num_layers, overwrite=overwrite) as writer:
        yield writer


@contextmanager
def new_vector_file(
    path: str | Path,
    make_writer: Callable[..., VectorWriter],
    *,
    dim: int,
    num_layers: int | None = None,
    overwrite: bool = False,
) -> Iterator[VectorWriter]:
    """As `open_vector_file`, with any writer: a class of writers, or what else takes its arguments."""
    with new_file(path, overwrite=overwrite) as temporary:
        writer = make_writer(temporary, dim, num_layers, target=Path(path))
        try:
            yield writer
            writer.finish()
        except BaseException:
            # What stood in the way of writing stands in the way of closing, too; the first error is the one to tell.
            with suppress(Exception):
                writer.abandon()
            raise
