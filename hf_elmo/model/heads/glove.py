"""Pretrained word vectors in the text format of GloVe (https://nlp.stanford.edu/projects/glove/)."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..model_files import LARGEST_WEIGHT

# Bytes of a line for its word, and for each number. A line of any length would take any amount of memory.
_LONGEST_WORD, _LONGEST_NUMBER = 1_000_000, 100


def read_word_vectors(path: str | Path, words: Iterable[str], size: int) -> dict[str, np.ndarray]:
    """Reads the vectors of some words from a file of one word a line: the word, and its numbers behind spaces.

    The header of word2vec's text format (number of words, size) is passed over. Words of the file may have spaces in
    them, as some of glove.840B do. Where a word stands twice the first one counts. Lines with fewer numbers are passed
    over with a warning, as in AllenNLP.

    Args:
        path: The file, UTF-8; unpacked while it is read if its name ends in `.gz`.
        words: The words whose vectors are wanted.
        size: Size of the file's vectors.

    Returns:
        The vector of each word that the file has, ``(size,)``, float32.

    Raises:
        ValueError: for vectors of another size, and for a line whose numbers are none, are not finite or too large.
        OSError: for a file that cannot be read.
    """
    # Bytes, because some words of glove.840B are characters at which Python would end a line.
    wanted = {word.encode("utf-8", "surrogatepass"): word for word in words}
    vectors: dict[str, np.ndarray] = {}
    opener = gzip.open if str(path).endswith(".gz") else open
    most = _LONGEST_WORD + _LONGEST_NUMBER * size
    short: list[int] = []
    with opener(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), start=1):
            if len(line) > most:
                raise ValueError(f"{path}, line {number}: more than {most:,} bytes: {_beginning(line[:100])}.")
            fields = line.rstrip(b" \r\n").split(b" ")
            if number == 1:
                _check_size(path, fields, size)
                if _is_header(fields):
                    continue
            if len(fields) <= size:
                short.append(number)
                continue
            word = wanted.get(b" ".join(fields[:-size]))
            if word is not None and word not in vectors:
                vectors[word] = _numbers(path, number, line, fields[-size:])
    if short:
        warnings.warn(
            f"{path}: {len(short)} of its lines are no word and {size} numbers, and are passed over (the first is line "
            f"{short[0]}).",
            stacklevel=2,
        )
    return vectors


def look_up(word: str, vectors: dict[str, np.ndarray]) -> np.ndarray | None:
    """The vector of a word, or else that of the word in lower case (most GloVe files are all lower case)."""
    return vectors.get(word, vectors.get(word.lower()))


def _numbers(path: str | Path, number: int, line: bytes, fields: list[bytes]) -> np.ndarray:
    try:
        vector = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        vector = np.full(1, np.nan)
    if not np.isfinite(vector).all():
        raise ValueError(f"{path}, line {number}: these are not {len(fields)} finite numbers: {_beginning(line)}.")
    if np.abs(vector).max() > LARGEST_WEIGHT:
        raise ValueError(f"{path}, line {number}: these numbers are too large to compute with: {_beginning(line)}.")
    return vector


def _is_header(fields: list[bytes]) -> bool:
    return len(fields) == 2 and all(field.isdigit() for field in fields)


def _check_size(path: str | Path, fields: list[bytes], size: int) -> None:
    """Checks the first line for vectors of another size; that of a file of one number a word is taken for a header."""
    in_file = int(fields[1]) if _is_header(fields) else sum(map(_is_number, fields[1:]))
    if in_file != size:
        raise ValueError(
            f"{path}: the vectors seem to be of size {in_file}, but {size} was expected: is it a file of word vectors "
            "in the text format of GloVe? If so, set word_vector_size to its vectors' size."
        )


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _beginning(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip()
    return repr(text if len(text) <= 60 else text[:60] + "...")
