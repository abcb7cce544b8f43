"""Writers of one shard of an embedded corpus: Parquet with lists of fixed size, safetensors, the original HDF5."""

from __future__ import annotations

import json
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..embedding import EmbeddedSentence
from ..writers import AllenNlpHdf5Writer, BilmHdf5Writer

_ROW_GROUP_BYTES = 16 * 2**20
# Numbers that Parquet's writer encodes at once: its own 1,024 are fewer than three words of elmo-mini have.
_NUMBERS_AT_ONCE = 2**16
# The table of contents of a safetensors file has this many bytes here: it is written when the vectors are.
_HEADER_BYTES = 1024
_COPIED_AT_ONCE = 2**20

#: Columns of our own, which no column that is kept may be called.
OWN_COLUMNS = ("row", "words", "vectors", "vector")


class ShardError(OSError):
    """A shard cannot be written."""


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Makes errors name the final file, not a temporary one."""
    try:
        yield
    except ShardError:
        raise
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ShardError(f"{target} cannot be written: {reason}") from error


class ShardShape(NamedTuple):
    """What the rows of all shards have in common.

    Attributes:
        dim: Size of a vector.
        num_layers: Number of layers of each vector; None if there is one vector, not one for each layer.
        is_pooled: A row has one vector, not one for each word.
        dtype: `"float32"` or `"float16"`.
        kept: Names and types of the columns that are kept.
    """

    dim: int
    num_layers: int | None
    is_pooled: bool
    dtype: str
    kept: tuple[tuple[str, pa.DataType], ...] = ()

    def schema(self) -> pa.Schema:
        """`row` (int64), the columns that are kept, and `words` and `vectors`, or `vector`.

        `vectors` has a list of fixed size for each word; with all layers, a row has a list of these. `vector` is a
        plain list, or with all layers a list of lists of fixed size: it may be null, and pyarrow before version 26
        neither writes nor reads a null among lists of fixed size.
        """
        number = pa.float16() if self.dtype == "float16" else pa.float32()
        vector = pa.list_(number, self.dim)
        if self.is_pooled:
            own = [pa.field("vector", pa.list_(number if self.num_layers is None else vector))]
        else:
            vectors = pa.list_(vector)
            own = [
                pa.field("words", pa.list_(pa.string())),
                pa.field("vectors", vectors if self.num_layers is None else pa.list_(vectors)),
            ]
        return pa.schema([pa.field("row", pa.int64()), *(pa.field(*each) for each in self.kept), *own])


def row_columns(
    shape: ShardShape, words: Sequence[Sequence[str]], vectors: Sequence[np.ndarray | None]
) -> list[pa.Array]:
    """The columns `words` and `vectors`, or `vector`, of some rows.

    Args:
        shape: The shape of their vectors.
        words: The words of each row; what Unicode cannot write (lone surrogates) becomes question marks.
        vectors: Of each row ``([layers,] words, dim)``, or pooled ``([layers,] dim)``, None where there is none.
    """
    lists = [each for each in vectors if each is not None]
    floats = pa.array(np.concatenate([each.ravel() for each in lists] or [np.zeros(0, shape.dtype)]))
    nested = pa.FixedSizeListArray.from_arrays(floats, shape.dim)
    if shape.is_pooled:
        missing = np.array([each is None for each in vectors], dtype=bool)
        # A list has numbers, or vectors of all layers.
        values, length = (floats, shape.dim) if shape.num_layers is None else (nested, shape.num_layers)
        return [pa.ListArray.from_arrays(_offsets(length * ~missing), values, mask=pa.array(missing))]
    if shape.num_layers is not None:
        lists = [layer for layers in lists for layer in layers]
    nested = pa.ListArray.from_arrays(_offsets([len(each) for each in lists]), nested)
    if shape.num_layers is not None:
        nested = pa.ListArray.from_arrays(_offsets([shape.num_layers] * len(vectors)), nested)
    texts = [[word.encode("utf-8", "replace").decode() for word in each] for each in words]
    return [pa.array(texts, pa.list_(pa.string())), nested]


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    return pa.array(np.cumsum([0, *lengths], dtype=np.int32))


class ShardWriter(ABC):
    """Writes the rows of a shard to a new file.

    Args:
        path: The file.
        shape: What its rows have.
        target: The name for messages.
    """

    suffix = ""

    def __init__(self, path: Path, shape: ShardShape, target: Path):
        self.path, self.shape, self.target = path, shape, target
        with _writing(target):
            self._open()

    @classmethod  # noqa: B027 (most formats can)
    def check(cls, shape: ShardShape) -> None:
        """Raises ValueError if the format cannot hold such rows."""

    def write(self, row: int, kept: Sequence[Any], words: list[str], vectors: np.ndarray | None) -> None:
        """Adds a row: its number, the values of the columns to keep, its words and vectors as for `row_columns`."""
        with _writing(self.target):
            self._add(row, kept, words, vectors)

    def wait(self) -> None:
        """Waits for rows that are just being written beside what the caller does."""
        with _writing(self.target):
            self._wait()

    def finish(self) -> None:
        """Completes and closes the file."""
        with _writing(self.target):
            self._finish()

    def abandon(self) -> None:
        """Closes the file as it is."""
        with suppress(Exception):
            self._abandon()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _add(self, row: int, kept: Sequence[Any], words: list[str], vectors: np.ndarray | None) -> None: ...

    def _wait(self) -> None:  # noqa: B027 (most formats write at once)
        pass

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None: ...


# Its number, the values of the columns to keep, words and vectors.
_RowToWrite = tuple[int, Sequence[Any], list[str], np.ndarray | None]


class ParquetShard(ShardWriter):
    """Parquet with the columns of `ShardShape.schema`.

    Each group of rows is encoded and written by a thread of its own while the next rows are embedded.
    """

    suffix = ".parquet"

    def _open(self) -> None:
        schema = self.shape.schema()
        texts = [field.name for field in schema if field.name not in ("vectors", "vector")]
        # Floats of vectors are next to never equal, and have next to nothing to be packed.
        packing = dict.fromkeys(_leaves(schema, texts), "zstd")
        packing |= dict.fromkeys(_leaves(schema, ["vectors", "vector"]), "none")
        self._file = pq.ParquetWriter(
            self.path,
            schema,
            use_dictionary=_leaves(schema, texts),
            compression=packing,
            write_statistics=["row"],
            write_batch_size=_NUMBERS_AT_ONCE,
        )
        self._schema = schema
        self._rows: list[_RowToWrite] = []
        self._bytes = 0
        self._thread = ThreadPoolExecutor(1, "writer of a shard")
        self._written: Future[None] | None = None

    def _add(self, row: int, kept: Sequence[Any], words: list[str], vectors: np.ndarray | None) -> None:
        self._rows.append((row, kept, words, vectors))
        self._bytes += (0 if vectors is None else vectors.nbytes) + 100 * (len(words) + 1)
        if self._bytes >= _ROW_GROUP_BYTES:
            self._begin_group()

    def _begin_group(self) -> None:
        # One group at most waits in memory, and an error of the one before comes to light here.
        self._wait()
        self._written = self._thread.submit(self._write_group, self._rows)
        self._rows, self._bytes = [], 0

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def _write_group(self, rows: list[_RowToWrite]) -> None:
        numbers, kept, words, vectors = zip(*rows)
        columns = [
            pa.array(numbers, pa.int64()),
            *(
                pa.array([_encodable(values[place]) for values in kept], kind)
                for place, (_, kind) in enumerate(self.shape.kept)
            ),
            *row_columns(self.shape, words, vectors),
        ]
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _finish(self) -> None:
        if self._rows:
            self._begin_group()
        self._wait()
        self._thread.shutdown()
        self._file.close()

    def _abandon(self) -> None:
        self._thread.shutdown()
        self._file.close()


def _leaves(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Parquet's own names of the columns that those of these names are made of."""
    found = []
    for name in names:
        if name in schema.names:
            one = pa.schema([schema.field(name)])
            sink = pa.BufferOutputStream()
            pq.write_table(one.empty_table(), sink)
            leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
            found += [leaves.column(place).path for place in range(len(leaves))]
    return found


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


class SafetensorsShard(ShardWriter):
    """safetensors: the vectors of all rows, one after the other, and where those of each row are.

    `vectors`, ``(words, [layers,] dim)``; `offsets`, int64, ``(rows + 1,)``: row i has the words from `offsets[i]` up
    to `offsets[i + 1]`. Pooled: `vectors`, ``(rows, [layers,] dim)``, NaN where a row has no words. `rows`, int64,
    ``(rows,)``: their numbers. `words`, uint8: UTF-8 with a JSON object per row, the columns that are kept and `words`.
    """

    suffix = ".safetensors"

    def _open(self) -> None:
        self._file: BinaryIO = self.path.open("wb")
        self._file.write(b"\0" * (8 + _HEADER_BYTES))
        # It has no name, so nothing remains of it, whatever happens.
        self._texts = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
        self._numbers: list[int] = []
        self._offsets = [0]

    def _add(self, row: int, kept: Sequence[Any], words: list[str], vectors: np.ndarray | None) -> None:
        shape, kind = self.shape, np.dtype(self.shape.dtype).newbyteorder("<")
        leading = () if shape.num_layers is None else (shape.num_layers,)
        if shape.is_pooled:
            array = np.full((*leading, shape.dim), np.nan, kind) if vectors is None else vectors
        else:
            assert vectors is not None, "a row without words has an empty array"
            # A word after the other, so that a row is one piece of the file.
            array = vectors if shape.num_layers is None else vectors.swapaxes(0, 1)
        self._file.write(np.ascontiguousarray(array, kind).tobytes())
        self._offsets.append(self._offsets[-1] + (1 if shape.is_pooled else len(words)))
        self._numbers.append(row)
        values = {name: value for (name, _), value in zip(shape.kept, kept)}
        self._texts.write(json.dumps(values | {"words": words}, default=str).encode() + b"\n")

    def _finish(self) -> None:
        shape, header, start = self.shape, {}, 0
        leading = () if shape.num_layers is None else (shape.num_layers,)
        arrays = {"rows": np.array(self._numbers, "<i8")}
        if not shape.is_pooled:
            arrays["offsets"] = np.array(self._offsets, "<i8")
        sizes: list[tuple[str, str, Sequence[int], int]] = [
            (
                "vectors",
                "F16" if shape.dtype == "float16" else "F32",
                (self._offsets[-1], *leading, shape.dim),
                self._file.tell() - 8 - _HEADER_BYTES,
            ),
            *((name, "I64", array.shape, array.nbytes) for name, array in arrays.items()),
            ("words", "U8", (self._texts.tell(),), self._texts.tell()),
        ]
        for name, kind, dimensions, size in sizes:
            header[name] = {"dtype": kind, "shape": list(dimensions), "data_offsets": [start, start + size]}
            start += size
        for array in arrays.values():
            self._file.write(array.tobytes())
        self._texts.seek(0)
        while part := self._texts.read(_COPIED_AT_ONCE):
            self._file.write(part)
        self._file.seek(0)
        self._file.write(struct.pack("<Q", _HEADER_BYTES) + json.dumps(header).encode().ljust(_HEADER_BYTES))
        self._abandon()

    def _abandon(self) -> None:
        self._texts.close()
        self._file.close()


class Hdf5Shard(ShardWriter):
    """HDF5 in the original layout: a dataset for each row, named by its number, float32, ``([layers,] words, dim)``."""

    suffix = ".hdf5"

    @classmethod
    def check(cls, shape: ShardShape) -> None:
        """Raises ValueError if the format cannot hold such rows."""
        if shape.is_pooled or shape.dtype != "float32" or shape.kept:
            raise ValueError(
                "The original HDF5 layout has float32 vectors of words and nothing else: leave pooling, dtype and "
                "columns out, or write parquet."
            )

    def _open(self) -> None:
        shape = self.shape
        kind = AllenNlpHdf5Writer if shape.num_layers is None else BilmHdf5Writer
        self._writer = kind(self.path, shape.dim, shape.num_layers, self.target)

    def _add(self, row: int, kept: Sequence[Any], words: list[str], vectors: np.ndarray | None) -> None:
        assert vectors is not None, "a row without words has an empty array"
        self._writer.count = row
        self._writer.write(EmbeddedSentence(words, vectors, []))

    def _finish(self) -> None:
        self._writer.finish()

    def _abandon(self) -> None:
        self._writer.abandon()


SHARDS: dict[str, type[ShardWriter]] = {"parquet": ParquetShard, "safetensors": SafetensorsShard, "hdf5": Hdf5Shard}
