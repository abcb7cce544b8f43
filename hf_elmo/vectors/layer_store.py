"""Layers computed once and stored: task heads then train on them, and the biLM is not run again.

A store is one Arrow file with one row of bytes per row of the dataset, named by what went into it: the biLM and the
text. Labels, mixes and heads have no part in it, so one store serves many of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, DatasetDict
from filelock import BaseFileLock, FileLock, Timeout
from transformers.utils import logging

from ..whole_files import new_file
from .batching import evaluating, similar_lengths

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoModel, ElmoPreTrainedModel

logger = logging.get_logger(__name__)

DTYPES = ("float32", "float16")

# Raise it whenever the same biLM and text would be stored otherwise than before.
_FORMAT = 2

_CHECKSUM = struct.Struct("<I")

# Words are read in blocks of this many rows, and their layers written in windows of this many batches.
_ROWS_PER_BLOCK = 1024
_BATCHES_PER_WINDOW = 4

_SCHEMA = pa.schema([pa.field("layer_states", pa.large_binary())])
# The switches that decide about the layers besides the weights and their shapes.
_SWITCHES = ("num_layers", "activation", "use_skip_connections", "cell_clip", "proj_clip", "forget_bias")


def precompute_layers(
    dataset: Dataset | DatasetDict,
    model: ElmoPreTrainedModel,
    folder: str | os.PathLike,
    *,
    dtype: str = "float32",
    batch_words: int = 2048,
    keep_character_ids: bool = False,
) -> Dataset | DatasetDict:
    """Runs the biLM once over a tokenised dataset and stores all of its layers, for heads whose biLM is frozen.

    The result is the dataset with a column `layer_states` in place of `character_ids`: per row an array
    ``(num_layers + 1, words, 2 * projection_dim)``, BOS and EOS included, zeros for padding. It stays on disk, mapped
    into memory. `ElmoTokenizer.pad` pads it, and with it the library's collators and `Trainer`; every head takes it.
    For multiple choice give each choice a row of its own here, and put those of a question together afterwards.

    `Trainer` with `train_sampling_strategy="group_by_length"` reads all rows once before it begins, layers included, to
    learn how long they are; not so if they have a column `length` before they come here, and `remove_unused_columns` is
    off, without which it drops that column before it looks.

    The file in the folder is named by a hash of the biLM and of the text, so the next call with the same two finds it
    and computes nothing, whatever the labels, the mixes and the head. Another process that wants the same store at the
    same time waits for it. A run that is killed leaves only a hidden file `*.part`, which the next one removes.

    Args:
        dataset: With the columns that `ElmoTokenizer` makes, unpadded or padded: `input_ids` and `character_ids`; where
            they are there, `attention_mask` and `token_type_ids`. A row may hold several segments. Other columns
            are kept. A `DatasetDict` is done split by split.
        model: An `ElmoModel`, or a model on top of one (whose `base_model` it is), on any device. Its biLM is read in
            evaluation mode and left as it is.
        folder: Where the store is or will be; made if it is missing. A word takes `(num_layers + 1) * 2 *
            projection_dim` numbers: 3 kB in the small model, 12 kB in the original, half of it as float16.
        dtype: Of the stored numbers: `"float32"`, or `"float16"` (11 bits of precision, no number above 65504). The
            layers of a bfloat16 model are exact in float32, and nearly so in float16.
        batch_words: Most words in a batch of the biLM, padding included. A longer row is a batch of its own.
        keep_character_ids: Keep `character_ids`, for heads that read characters beside ELMo.

    Returns:
        A `datasets.Dataset` whose rows are decoded as they are read (`with_transform`): other formats of the input are
        not kept. Change the rows (`select`, `shuffle`, `train_test_split`) or the other columns (`map`) as you like.
        To have it again in another process, call this again instead of `save_to_disk`.

    Raises:
        TypeError: for a dataset that is not a `datasets.Dataset`, or a model that is not an ELMo.
        ValueError: for missing columns, rows whose columns do not fit each other, layers that are not finite, and other
            values of the options.
        OSError: if the folder cannot be written or is full. Nothing is kept of the attempt.

    Reading a row of the result raises a ValueError if its bytes are not those that were stored.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> from datasets import Dataset
        >>> texts = Dataset.from_dict({"text": ["I read the book.", "It rains."]})
        >>> rows = texts.map(lambda batch: tokenizer(batch["text"]), batched=True)
        >>> stored = hf_elmo.precompute_layers(rows, model, "layers")
        >>> stored[1]["layer_states"].shape == (model.config.num_layers + 1, 5, model.config.hidden_size)
        True
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, was: {dtype!r}.")
    if batch_words < 1:
        raise ValueError(f"batch_words must be at least 1, was: {batch_words}.")
    if isinstance(dataset, DatasetDict):
        return DatasetDict(
            {
                name: precompute_layers(
                    split, model, folder, dtype=dtype, batch_words=batch_words, keep_character_ids=keep_character_ids
                )
                for name, split in dataset.items()
            }
        )
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a datasets.Dataset, whose rows have an order, was: {type(dataset).__name__}.")
    bilm = getattr(model, "base_model", None)
    if bilm is None or not hasattr(bilm, "bilstm"):
        raise TypeError(f"model must be an ElmoModel or a head on top of one, was: {type(model).__name__}.")
    _check_columns(dataset, bilm.config.character_inputs)
    others = dataset.with_format(None)
    if not keep_character_ids and bilm.config.character_inputs:
        others = others.remove_columns("character_ids")
    decoder = LayerDecoder(bilm.config.num_layers + 1, bilm.config.hidden_size, dtype)
    if len(dataset) == 0:
        features = datasets.Features({**others.features, "layer_states": datasets.Value("large_binary")})
        empty = Dataset.from_dict({name: [] for name in features}, features=features, split=dataset.split)
        return empty.with_transform(decoder)
    text_hash, num_words = _hash_text(dataset)
    name = _combine(str(_FORMAT), dtype, _hash_bilm(bilm), text_hash)
    path = Path(folder) / f"layers-{name}.arrow"
    decoder = replace(decoder, path=str(path))
    store = _open(path, len(dataset))
    if store is None:
        _make_folder(path.parent)
        with _only_process(path):
            # Another process may have built it while this one waited.
            store = _open(path, len(dataset))
            if store is None:
                _build(path, dataset, bilm, decoder, batch_words, num_words)
                store = _open(path, len(dataset))
    if others._indices is not None:
        # Joining would otherwise copy both, and the layers may be many times larger than memory.
        others = others.flatten_indices()
    return datasets.concatenate_datasets([others, store], axis=1).with_transform(decoder)


@dataclass(frozen=True)
class LayerDecoder:
    """From the bytes of a store to arrays: the transform of the datasets that `precompute_layers` returns.

    Attributes:
        num_layers: The word layer and the biLSTM layers.
        dim: Size of a layer's vector, both directions.
        dtype: `"float32"` or `"float16"`, stored with the least significant byte first. Behind the numbers of a row
            stand four bytes: their CRC-32.
        path: The file, for messages.
    """

    num_layers: int
    dim: int
    dtype: str
    path: str = ""

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """A batch of a dataset with `layer_states` as arrays ``(num_layers, words, dim)``, read-only."""
        if "layer_states" not in batch:
            return batch
        return {**batch, "layer_states": [self.decode(stored) for stored in batch["layer_states"]]}

    def decode(self, stored: bytes) -> np.ndarray:
        """The layers of a row, ``(num_layers, words, dim)``, read-only.

        Raises:
            ValueError: if they are not what was stored.
        """
        if not stored:
            return np.zeros((self.num_layers, 0, self.dim), self._stored_dtype)
        data, checksum = memoryview(stored)[: -_CHECKSUM.size], memoryview(stored)[-_CHECKSUM.size :]
        if zlib.crc32(data) != _CHECKSUM.unpack(checksum)[0]:
            raise ValueError(
                f"Stored layers in {self.path or 'a store'} are damaged: their checksum is another one. Delete the "
                "file; precompute_layers then computes it anew."
            )
        return np.frombuffer(data, self._stored_dtype).reshape(self.num_layers, -1, self.dim)

    def encode(self, layers: np.ndarray) -> bytes:
        """The bytes of a row's layers, ``(num_layers, words, dim)``."""
        data = layers.astype(self._stored_dtype).tobytes()
        return data + _CHECKSUM.pack(zlib.crc32(data))

    def num_bytes(self, num_words: int) -> int:
        return num_words * self.num_layers * self.dim * self._stored_dtype.itemsize

    @property
    def _stored_dtype(self) -> np.dtype:
        return np.dtype(self.dtype).newbyteorder("<")


class _Rows(NamedTuple):
    """Some rows of a dataset, their words one after the other.

    Attributes:
        first: Number of the first row in the dataset.
        lengths: ``(rows,)``: words of each row, padding included.
        characters: ``(all words, chars)``, int32.
        mask: ``(all words,)``, bool: false for padding.
        segments: ``(all words,)``, int32: `token_type_ids`.
    """

    first: int
    lengths: np.ndarray
    characters: np.ndarray
    mask: np.ndarray
    segments: np.ndarray

    def windows(self, most_words: int) -> Iterator[_Rows]:
        """Cuts the rows into consecutive parts of at most `most_words` words, or of one row that has more."""
        ends = np.cumsum(self.lengths)
        start, words = 0, 0
        while start < len(self.lengths):
            end = max(int(np.searchsorted(ends, words + most_words, side="right")), start + 1)
            part = slice(words, int(ends[end - 1]))
            yield _Rows(
                self.first + start,
                self.lengths[start:end],
                self.characters[part],
                self.mask[part],
                self.segments[part],
            )
            start, words = end, part.stop

    def pad(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Characters, mask and segments of some of the rows, ``(batch, words, ...)``, zeros behind each row."""
        lengths = self.lengths[indices]
        starts = (np.cumsum(self.lengths) - self.lengths)[indices]
        padded = []
        for values in (self.characters, self.mask, self.segments):
            rows = np.zeros((len(indices), lengths.max(), *values.shape[1:]), values.dtype)
            for row, start, length in zip(rows, starts, lengths, strict=True):
                row[:length] = values[start : start + length]
            padded.append(rows)
        characters, mask, segments = padded
        return characters, mask, segments


def _check_columns(dataset: Dataset, character_inputs: bool) -> None:
    needed = ("input_ids", "character_ids") if character_inputs else ("input_ids",)
    missing = [name for name in needed if name not in dataset.column_names]
    if not character_inputs and "character_ids" in dataset.column_names:
        raise ValueError(
            "The dataset has character_ids, but this model reads words: tokenise the text with the model's own "
            "tokenizer."
        )
    if missing:
        raise ValueError(
            f"The dataset has no {' and no '.join(missing)}, only {', '.join(dataset.column_names) or 'no columns'}: "
            "tokenise it first, dataset.map(tokenizer, ...), and remove no column that the tokenizer adds."
        )
    if "layer_states" in dataset.column_names:
        raise ValueError("The dataset has layer_states already: pass the dataset as it was before, or remove them.")


def _read(dataset: Dataset) -> Iterator[_Rows]:
    """The text of a dataset, in blocks of rows.

    Arrow's arrays are read as they are: lists of Python would take most of the time of a second run.
    """
    names = ["input_ids", "character_ids", "attention_mask", "token_type_ids"]
    columns = dataset.select_columns([name for name in names if name in dataset.column_names]).with_format("arrow")
    first = 0
    for table in columns.iter(batch_size=_ROWS_PER_BLOCK):
        if "character_ids" not in table.column_names:
            yield _rows_of_words(table, first)
            first += table.num_rows
            continue
        lengths, words = _lists(table["character_ids"], "character_ids", first)
        widths, characters = _lists(words, "character_ids", first)
        if _is_list(characters.type):
            raise ValueError(
                "Column character_ids holds lists of texts, as rows of a multiple choice do: give each text a row of "
                "its own, and put the choices of a question together again afterwards."
            )
        chars = int(widths[0]) if len(widths) else 0
        if (widths != chars).any():
            raise ValueError(
                f"character_ids of rows {first} to {first + len(lengths) - 1} have words of {chars} and of "
                f"{int(widths[widths != chars][0])} characters: all must be as long, as ElmoTokenizer makes them."
            )
        characters = _integers(characters, "character_ids").reshape(len(widths), chars)
        yield _with_masks(table, first, "character_ids", lengths, characters)
        first += len(lengths)


def _rows_of_words(table: pa.Table, first: int) -> _Rows:
    """The text of a model that reads words: each is a row of one number, its id."""
    lengths, words = _lists(table["input_ids"], "input_ids", first)
    return _with_masks(table, first, "input_ids", lengths, _integers(words, "input_ids").reshape(-1, 1))


def _with_masks(table: pa.Table, first: int, read: str, lengths: np.ndarray, characters: np.ndarray) -> _Rows:
    """What is read of each word, of the column `read`, with the other columns beside it."""
    flat: dict[str, np.ndarray] = {}
    for name in table.column_names:
        if name != read:
            found, values = _lists(table[name], name, first)
            if (found != lengths).any():
                row = int((found != lengths).nonzero()[0][0])
                raise ValueError(f"Row {first + row} has {lengths[row]} words in {read}, but {found[row]} in {name}.")
            flat[name] = _integers(values, name)
    mask = np.asarray(flat["attention_mask"] != 0 if "attention_mask" in flat else (characters > 0).any(axis=1))
    return _Rows(first, lengths, characters, mask, flat.get("token_type_ids", np.zeros(len(mask), np.int32)))


def _lists(column: pa.ChunkedArray | pa.Array, name: str, first: int) -> tuple[np.ndarray, pa.Array]:
    """The lengths of a column's lists, int64, and their entries one after the other."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array.type, pa.ExtensionType):
        array = array.storage
    if pa.types.is_null(array.type) and len(array) == 0:
        return np.zeros(0, np.int64), array
    if not _is_list(array.type) or array.null_count:
        inside = "words of characters" if name == "character_ids" else "words"
        raise ValueError(
            f"Column {name} must hold a list of {inside} in each row, but near row {first} it holds "
            f"{'nothing (null)' if array.null_count else array.type}."
        )
    return pc.list_value_length(array).to_numpy().astype(np.int64), pc.list_flatten(array)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _integers(values: pa.Array, name: str) -> np.ndarray:
    try:
        integers = values.cast(pa.int32())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"Column {name} must hold integers; it holds {values.type}: {error}") from error
    if integers.null_count:
        raise ValueError(f"Column {name} must hold integers, but some of them are missing (null).")
    return integers.to_numpy(zero_copy_only=False)


def _hash_text(dataset: Dataset) -> tuple[str, int]:
    """A hash of what the biLM reads, however it is stored, and the number of words, padding included."""
    lengths, characters, places = hashlib.blake2b(), hashlib.blake2b(), hashlib.blake2b()
    num_words = 0
    widths: set[int] = set()
    for rows in _read(dataset):
        lengths.update(rows.lengths.data)
        characters.update(np.ascontiguousarray(rows.characters).data)
        places.update(np.ascontiguousarray(np.stack([rows.mask, rows.segments], axis=1)).data)
        num_words += len(rows.mask)
        widths |= {rows.characters.shape[1]} if len(rows.mask) else set()
    parts = (lengths.hexdigest(), characters.hexdigest(), places.hexdigest(), str(sorted(widths)))
    return _combine(*parts), num_words


def _hash_bilm(bilm: ElmoModel) -> str:
    """A hash of all that decides about a text's layers, up to rounding."""
    switches = {name: getattr(bilm.config, name) for name in _SWITCHES}
    digest = hashlib.blake2b(json.dumps(switches, sort_keys=True).encode())
    for part in ("character_encoder", "bilstm"):
        for name, weights in sorted(getattr(bilm, part).state_dict().items()):
            digest.update(f"{part}.{name} {weights.dtype} {tuple(weights.shape)} ".encode())
            digest.update(weights.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _combine(*parts: str) -> str:
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()


def _open(path: Path, num_rows: int) -> Dataset | None:
    """The store, or None if it is not there or not whole."""
    if not path.is_file():
        return None
    try:
        store = Dataset.from_file(str(path))
        # Where rows begin and end must lie within the file: else reading them reads other memory. What is in them has
        # checksums, which are compared when a row is read.
        store.data.table.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        logger.warning(f"{path} is damaged and will be made anew: {error}")
        return None
    # A file that was cut between two windows reads well.
    if len(store) != num_rows or store.column_names != _SCHEMA.names:
        logger.warning(f"{path} is damaged and will be made anew: it holds {len(store)} of {num_rows} rows.")
        return None
    return store


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(errno.ENOTDIR, "The layers need a folder, but this is a file", str(folder)) from error
    except OSError as error:
        raise _unwritable(error, folder) from error


def _only_process(path: Path) -> AbstractContextManager[BaseFileLock]:
    """A held lock, for a `with`, under which no other process builds this store. A kill releases it."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            logger.warning(f"Another process is computing {path}: waiting for it.")
            return lock.acquire()
    except OSError as error:
        raise _unwritable(error, path.parent) from error


def _unwritable(error: OSError, folder: Path) -> OSError:
    return type(error)(
        error.errno,
        f"The layers cannot be stored here ({error.strerror}); give a folder that can be written",
        str(folder),
    )


def _build(
    path: Path, dataset: Dataset, bilm: ElmoModel, decoder: LayerDecoder, batch_words: int, num_words: int
) -> None:
    """Computes and writes a store; it gets its name when it is whole."""
    size = decoder.num_bytes(num_words)
    room = shutil.disk_usage(path.parent).free
    if size > room:
        raise OSError(errno.ENOSPC, _too_full(size, f"{room / 1e9:.2f} GB are free", decoder), str(path.parent))
    try:
        with (
            new_file(path) as temporary,
            open(temporary, "wb") as file,
            pa.ipc.new_stream(file, _SCHEMA) as writer,
            datasets.utils.tqdm(total=len(dataset), unit=" rows", desc="Computing layers") as progress,
        ):
            for rows in _read(dataset):
                for window in rows.windows(_BATCHES_PER_WINDOW * batch_words):
                    encoded = _compute(bilm, window, decoder, batch_words)
                    writer.write_batch(pa.record_batch([pa.array(encoded, pa.large_binary())], schema=_SCHEMA))
                    progress.update(len(encoded))
    except OSError as error:
        raise type(error)(
            error.errno, _too_full(size, error.strerror or str(error), decoder), str(path.parent)
        ) from error


def _too_full(size: int, trouble: str, decoder: LayerDecoder) -> str:
    remedy = "make room or give another folder"
    if decoder.dtype == "float32":
        remedy += ", or store float16, which takes half of it"
    return f"The layers take {size / 1e9:.2f} GB and could not be stored ({trouble}): {remedy}"


def _compute(bilm: ElmoModel, rows: _Rows, decoder: LayerDecoder, batch_words: int) -> list[bytes]:
    """The layers of some rows, encoded."""
    encoded = [b""] * len(rows.lengths)
    for indices in similar_lengths(rows.lengths.tolist(), batch_words):
        if rows.lengths[indices].max() == 0:
            continue
        characters, mask, segments = (torch.from_numpy(array).to(bilm.device) for array in rows.pad(indices))
        # The layers are those of the weights' dtype, whatever the training loop around is in.
        with evaluating(bilm), torch.inference_mode(), torch.autocast(bilm.device.type, enabled=False):
            layers, _ = bilm.read(characters, mask, segments)
            stacked = torch.stack(layers, dim=1).float().cpu().numpy()
        for index, row in zip(indices, stacked, strict=True):
            with np.errstate(over="ignore"):
                row = row[:, : rows.lengths[index]].astype(decoder.dtype)
            if not np.isfinite(row).all():
                raise ValueError(
                    f"Row {rows.first + index} has layers that are not finite: either the model's weights are damaged, "
                    f"or {bilm.dtype} or the stored {decoder.dtype} is too narrow for them, and float32 will do."
                )
            encoded[index] = decoder.encode(row)
    return encoded


__all__ = ["LayerDecoder", "precompute_layers"]
