"""Writers of word vectors, one per file format: NumPy, safetensors, two layouts of HDF5, and Parquet.

A sentence is found by its number, from 0, in every format. Vectors go to the file as they come; what stays in memory
until the end is the table of contents (some hundred bytes per sentence) for npz and safetensors, the text for
AllenNLP's HDF5, and one row group for Parquet.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .embedding import EmbeddedSentence

if TYPE_CHECKING:
    import pyarrow as pa

# The library refuses headers that are longer (safetensors, `MAX_HEADER_SIZE`).
_LONGEST_SAFETENSORS_HEADER = 100_000_000

_ROW_GROUP_BYTES = 32 * 2**20


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Makes errors name the final file, not a temporary one."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OSError(f"{target} cannot be written: {reason}") from error


class VectorWriter(ABC):
    """Writes sentences, one after the other, to a file of one format.

    Args:
        path: The file, which is made anew.
        dim: Size of a vector.
        num_layers: Number of layers where sentences come as ``(layers, words, dim)``; None for ``(words, dim)``.
        target: The name for error messages, if `path` is a temporary one.
    """

    suffixes: tuple[str, ...] = ()

    def __init__(self, path: Path, dim: int, num_layers: int | None = None, target: Path | None = None):
        self.path, self.dim, self.num_layers, self.target = path, dim, num_layers, target or path
        self.count = 0
        with writing(self.target):
            self._open()

    def write(self, sentence: EmbeddedSentence) -> None:
        """Adds a sentence.

        Raises:
            ValueError: if its vectors have another shape or dtype than the file is for.
            OSError: if the file cannot be written.
        """
        vectors = sentence.vectors
        leading = () if self.num_layers is None else (self.num_layers,)
        if vectors.shape != (*leading, len(sentence.words), self.dim) or vectors.dtype != np.float32:
            raise ValueError(
                f"Sentence {self.count} must have float32 vectors {(*leading, len(sentence.words), self.dim)}, was: "
                f"{vectors.dtype} {vectors.shape}."
            )
        with writing(self.target):
            self._add(str(self.count), sentence)
        self.count += 1

    def finish(self) -> None:
        """Completes and closes the file.

        Raises:
            OSError: if it cannot be written.
        """
        with writing(self.target):
            self._finish()

    @abstractmethod
    def abandon(self) -> None:
        """Closes the file as it is, incomplete. This may raise what closing a broken file raises."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _add(self, key: str, sentence: EmbeddedSentence) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...


class NpzWriter(VectorWriter):
    """NumPy's archive, as from `numpy.savez`: arrays `"0"`, `"1"`, ..., float32, ``([layers,] words, dim)``.

    The words of all sentences are in `"words"`, uint8: UTF-8 text with a JSON list of words per line.
    """

    suffixes = (".npz",)

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self.path, "w", allowZip64=True)
        self._words = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def _add(self, key: str, sentence: EmbeddedSentence) -> None:
        with self._archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, sentence.vectors, allow_pickle=False)
        self._words.write(_json_line(sentence.words))

    def _finish(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._words.tell(),)}
        self._words.seek(0)
        with self._words, self._archive, self._archive.open("words.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            shutil.copyfileobj(self._words, entry)

    def abandon(self) -> None:
        self._words.close()
        self._archive.close()


class SafetensorsWriter(VectorWriter):
    """safetensors: tensors `"0"`, `"1"`, ..., float32, ``([layers,] words, dim)``, and `"words"` as in `NpzWriter`.

    The format has its table of contents first, which bounds it to about a million sentences; and it needs room for the
    vectors twice while the file is made.
    """

    suffixes = (".safetensors",)

    def _open(self) -> None:
        self._data = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
        self._words = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
        self._entries: list[str] = []
        self._header_bytes = 1000

    def _add(self, key: str, sentence: EmbeddedSentence) -> None:
        start = self._data.tell()
        self._data.write(sentence.vectors.astype("<f4", copy=False).tobytes())
        self._enter(key, "F32", sentence.vectors.shape, start, self._data.tell())
        self._words.write(_json_line(sentence.words))
        if self._header_bytes > _LONGEST_SAFETENSORS_HEADER:
            raise ValueError(
                f"safetensors cannot hold more than {self.count} sentences: write hdf5 or parquet, or several files."
            )

    def _enter(self, key: str, dtype: str, shape: tuple[int, ...], start: int, end: int) -> None:
        entry = json.dumps({key: {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}})[1:-1]
        self._entries.append(entry)
        self._header_bytes += len(entry) + 1

    def _finish(self) -> None:
        end = self._data.tell()
        length = self._words.tell()
        self._enter("words", "U8", (length,), end, end + length)
        header = ("{" + ",".join(self._entries) + "}").encode()
        header += b" " * (-len(header) % 8)
        with open(self.path, "wb") as file, self._data, self._words:
            file.write(len(header).to_bytes(8, "little") + header)
            for part in (self._data, self._words):
                part.seek(0)
                shutil.copyfileobj(part, file)

    def abandon(self) -> None:
        self._data.close()
        self._words.close()


class Hdf5Writer(VectorWriter):
    """HDF5: datasets `"0"`, `"1"`, ..., float32, ``([layers,] words, dim)``."""

    def _open(self) -> None:
        from .hdf5_output import Hdf5Output

        self._output = Hdf5Output(self.path)

    def _add(self, key: str, sentence: EmbeddedSentence) -> None:
        self._output.file.create_dataset(key, data=sentence.vectors, dtype="float32")
        self._output.check()

    def _finish(self) -> None:
        self._output.close()

    def abandon(self) -> None:
        self._output.close()


class BilmHdf5Writer(Hdf5Writer):
    """HDF5 as bilm-tf's `dump_bilm_embeddings`: datasets `"0"`, `"1"`, ..., float32, ``(layers, words, dim)``."""

    def _open(self) -> None:
        if self.num_layers is None:
            raise ValueError("bilm-tf's HDF5 layout holds all layers of a sentence: embed with layers='all'.")
        super()._open()


class AllenNlpHdf5Writer(Hdf5Writer):
    """HDF5 as the `allennlp elmo` command's: datasets `"0"`, `"1"`, ..., float32, ``([layers,] words, dim)``.

    The dataset `"sentence_to_index"` holds one JSON object: a sentence, its words joined by spaces, to its key. Of
    equal sentences the last one counts, as there.
    """

    suffixes = (".hdf5", ".h5")

    def _open(self) -> None:
        super()._open()
        self._keys: dict[str, str] = {}

    def _add(self, key: str, sentence: EmbeddedSentence) -> None:
        super()._add(key, sentence)
        self._keys[self.text_of(key, sentence)] = key

    def text_of(self, key: str, sentence: EmbeddedSentence) -> str:
        """The name of a sentence in the index."""
        return " ".join(sentence.words)

    def _finish(self) -> None:
        import h5py

        index = self._output.file.create_dataset("sentence_to_index", (1,), dtype=h5py.string_dtype())
        index[0] = json.dumps(self._keys)
        super()._finish()


class ParquetWriter(VectorWriter):
    """Parquet: a row per sentence with `sentence` (int64), `words` (list of strings) and `vectors`.

    `vectors` is a list of float32 vectors of fixed size, one for each word; or a list of such lists, one for each
    layer. Lone surrogates, which Parquet's text cannot hold, become question marks in `words`.
    """

    suffixes = (".parquet",)

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        vectors = pa.list_(pa.list_(pa.float32(), self.dim))
        if self.num_layers is not None:
            vectors = pa.list_(vectors)
        self._schema = pa.schema([("sentence", pa.int64()), ("words", pa.list_(pa.string())), ("vectors", vectors)])
        # Floats of vectors are next to never equal: a dictionary of them only costs time.
        self._file = pq.ParquetWriter(self.path, self._schema, use_dictionary=["words.list.element"])
        self._pending: list[EmbeddedSentence] = []
        self._pending_bytes = 0
        self._written = 0

    def _add(self, key: str, sentence: EmbeddedSentence) -> None:
        self._pending.append(sentence)
        self._pending_bytes += sentence.vectors.nbytes + 100 * (len(sentence.words) + 1)
        if self._pending_bytes >= _ROW_GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa

        words = [[word.encode("utf-8", "replace").decode() for word in each.words] for each in self._pending]
        columns = [
            pa.array(range(self._written, self._written + len(words)), type=pa.int64()),
            pa.array(words, type=self._schema.field("words").type),
            self._nested_vectors(),
        ]
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._written += len(words)
        self._pending, self._pending_bytes = [], 0

    def _nested_vectors(self) -> pa.ListArray:
        import pyarrow as pa

        lists = [each.vectors for each in self._pending]
        if self.num_layers is not None:
            lists = [layer for layers in lists for layer in layers]
        floats = pa.array(np.concatenate([vectors.ravel() for vectors in lists]))
        words = pa.FixedSizeListArray.from_arrays(floats, self.dim)
        nested = pa.ListArray.from_arrays(_offsets([len(vectors) for vectors in lists]), words)
        if self.num_layers is not None:
            nested = pa.ListArray.from_arrays(_offsets([self.num_layers] * len(self._pending)), nested)
        return nested

    def _finish(self) -> None:
        if self._pending:
            self._write_group()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


def _json_line(words: list[str]) -> bytes:
    return json.dumps(words).encode() + b"\n"


def _offsets(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int32)
