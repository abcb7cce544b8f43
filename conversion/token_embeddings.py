"""Files of the words' context-free vectors: bilm-tf's token embeddings (HDF5), and GloVe's text format.

bilm-tf writes the first with `dump_token_embeddings` (`bilm/model.py`), to read tokens instead of characters; AllenNLP
the second with `create_elmo_embeddings_from_vocab.py`, for its `Embedding` and for `_ElmoBiLm` without characters.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.modeling_elmo import ElmoPreTrainedModel
from ..model.tokenization_elmo import ElmoTokenizer
from ..vectors.hdf5_output import Hdf5Output
from ..vectors.word_cache import WordCache, cache_words, word_vectors
from ..whole_files import check_target, new_file
from .errors import ConversionError
from .files import InputFile
from .hdf5_arrays import list_arrays, opened_hdf5, read_float32
from .key_map import SAME, Link, check_arrays, raise_problems
from .vocabulary import BILM_SPECIAL_WORDS, read_vocabulary_lines

KEY = "embedding"
HDF5_SUFFIXES, TEXT_SUFFIXES = (".hdf5", ".h5"), (".txt", ".txt.gz")

# AllenNLP's first entry of a vocabulary, and where its program puts the boundaries of sentences.
_ALLENNLP_SPECIAL_WORDS = ("@@UNKNOWN@@", "<S>", "</S>")
# How far vectors of the same weights may be apart, in float32.
_TOLERANCE = 1e-3


class TokenEmbeddings(NamedTuple):
    """Words and their vectors.

    Attributes:
        words: The words, special ones included, in the order of their ids in bilm-tf.
        vectors: float32, ``(words, projection_dim)``.
    """

    words: list[str]
    vectors: np.ndarray


def read_token_embeddings(path: str | Path, vocabulary: str | Path) -> TokenEmbeddings:
    """Reads bilm-tf's file of token embeddings.

    Args:
        path: The HDF5 file, with one dataset, `embedding`.
        vocabulary: The vocabulary that it was made with, plain or gzipped: a row for each line.

    Raises:
        ConversionError: if it is another file, damaged, or not of that vocabulary.
        OSError: if a file cannot be read.
    """
    file, lines_file = InputFile.at(path), InputFile.at(vocabulary)
    words = read_vocabulary_lines(lines_file)
    if not words:
        raise ConversionError(f"{lines_file} is empty: expected a word on each line.")
    with opened_hdf5(file) as opened:
        found = list_arrays(file, opened)
        shape = found[KEY].shape if KEY in found else None
        dim = shape[1] if shape is not None and len(shape) == 2 else 1
        hint = (
            "This looks like the weights of a biLM, which hf-elmo convert reads."
            if "char_embed" in found
            else f"There is to be a row for each of the {len(words)} lines of {lines_file}."
        )
        check_arrays(file, [Link(KEY, (KEY,), (len(words), dim), SAME)], found, hint=hint)
        vectors = read_float32(file, opened, KEY)
    bad = int((~np.isfinite(vectors)).any(axis=1).sum())
    listed = [f"{KEY} ({bad} of {len(vectors)} rows)"] if bad else []
    raise_problems(f"{file} holds no usable vectors", {"infinite or not a number": listed})
    return TokenEmbeddings(words, vectors)


def load_word_cache(
    model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, path: str | Path, vocabulary: str | Path
) -> WordCache:
    """Makes a model look words up in a file of token embeddings instead of reading their characters.

    Words that are not in the file are computed from their characters, where bilm-tf took them for `<UNK>`.

    Args:
        model: An `ElmoModel`, or a model with one inside.
        tokenizer: Its `ElmoTokenizer`.
        path: As in `read_token_embeddings`.
        vocabulary: Likewise.

    Returns:
        The cache, as `cache_words` returns it.

    Raises:
        ConversionError: as `read_token_embeddings`, and for vectors that are not those of this model.
    """
    words, vectors = read_token_embeddings(path, vocabulary)
    dim = model.config.projection_dim
    if vectors.shape[1] != dim:
        raise ConversionError(
            f"{path}: {KEY} has vectors of {vectors.shape[1]} numbers, but those of the model have {dim}."
        )
    places = sorted({int(place) for place in np.linspace(0, len(words) - 1, 32)})
    own = torch.cat(list(word_vectors(model, tokenizer, [words[place] for place in places]))).float().numpy()
    scale = max(1.0, float(np.abs(own).max()))
    for place, vector in zip(places, own, strict=True):
        if np.abs(vector - vectors[place]).max() > _TOLERANCE * scale:
            raise ConversionError(
                f"{path}: row {place} of {KEY} is not the vector that the model has for {words[place]!a}: is it of "
                f"another model, or another vocabulary than {vocabulary}?"
            )
    return cache_words(model, tokenizer, words, torch.from_numpy(vectors))


def write_token_embeddings(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    words: Sequence[str],
    destination: str | Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Writes the context-free vectors of words, and beside them the vocabulary whose lines they belong to.

    Args:
        model: An `ElmoModel`, or a model with one inside, on any device.
        tokenizer: Its `ElmoTokenizer`.
        words: The words, without special words: these come first, as the program that is to read the file has them.
        destination: The file. `.hdf5` or `.h5`: bilm-tf's format. `.txt` or `.txt.gz`: GloVe's text format, with
            AllenNLP's `@@UNKNOWN@@`, numbers that are exact in float32.
        overwrite: Replace files of these names.

    Returns:
        The path of the vocabulary, `<name>.vocabulary.txt`.

    Raises:
        ValueError: for another name of the file, no words, or words that the formats cannot hold.
        OSError: if a file is there already or cannot be written. Nothing is left of it then.
    """
    destination = Path(destination)
    suffix = next((end for end in HDF5_SUFFIXES + TEXT_SUFFIXES[::-1] if destination.name.lower().endswith(end)), None)
    if suffix is None:
        raise ValueError(
            f"{destination}: the name is to end in {', '.join(HDF5_SUFFIXES)} (bilm-tf's token embeddings) or "
            f"{', '.join(TEXT_SUFFIXES)} (GloVe's text format)."
        )
    is_hdf5 = suffix in HDF5_SUFFIXES
    special = BILM_SPECIAL_WORDS if is_hdf5 else _ALLENNLP_SPECIAL_WORDS
    lines = [*special, *(word for word in words if word not in special)]
    _check_words(lines, len(special))
    vocabulary = destination.with_name(destination.name[: -len(suffix)] + ".vocabulary.txt")
    for path in (destination, vocabulary):
        check_target(path, overwrite)
    batches = word_vectors(model, tokenizer, lines)
    with (
        new_file(destination, overwrite=overwrite) as vectors_path,
        new_file(vocabulary, overwrite=overwrite) as vocabulary_path,
    ):
        if is_hdf5:
            _write_hdf5(vectors_path, batches, (len(lines), model.config.projection_dim))
        else:
            _write_text(vectors_path, lines, batches, is_gzip=suffix.endswith("gz"))
        vocabulary_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return vocabulary


def _check_words(lines: Sequence[str], first: int) -> None:
    if len(lines) == first:
        raise ValueError("There are no words to write the vectors of.")
    seen: set[str] = set()
    for line in lines:
        if (
            not line
            or any(character.isspace() for character in line)
            or line.encode("utf-8", "ignore").decode() != line
        ):
            raise ValueError(
                f"The word {line!a} cannot be written: it is empty, has white space, or is no Unicode text."
            )
        if line in seen:
            raise ValueError(f"The word {line!a} stands twice in the vocabulary.")
        seen.add(line)


def _write_hdf5(path: Path, batches: Iterable[Tensor], shape: tuple[int, int]) -> None:
    output = Hdf5Output(path)
    try:
        dataset = output.file.create_dataset(KEY, shape, dtype="float32")
        begin = 0
        for batch in batches:
            dataset[begin : begin + len(batch)] = batch.float().numpy()
            begin += len(batch)
            output.check()
    finally:
        output.close()


def _write_text(path: Path, lines: Sequence[str], batches: Iterable[Tensor], is_gzip: bool) -> None:
    words = iter(lines)
    with path.open("wb") as raw:
        packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb") if is_gzip else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text:
            for batch in batches:
                for vector in batch.float().numpy():
                    text.write(f"{next(words)} {' '.join(map(str, vector))}\n")
