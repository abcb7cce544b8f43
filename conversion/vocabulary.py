"""Word vocabularies of foreign formats: one word per line, most frequent first."""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

from ..vectors.text_files import open_text
from .errors import ConversionError
from .files import InputFile

#: The special words of bilm-tf, which begin its vocabulary files, in this order.
BILM_SPECIAL_WORDS = ("<S>", "</S>", "<UNK>")

# Neither a word of the vocabulary in the original (bilm-tf, bilm/data.py) nor in any other program: they have uses of
# their own here.
_NO_WORDS = {*BILM_SPECIAL_WORDS, "[PAD]", "[UNK]"}

# The largest vocabulary that anyone told of has 13 million words.
_LARGEST = 1024**3
_LONGEST_WORD = 1_000_000


def read_vocabulary_lines(file: InputFile) -> list[str]:
    """The lines of a vocabulary file, plain or packed with gzip or Zstandard, in UTF-8.

    Read as bilm-tf does: stripped, and without `!!!MAXTERMID`. A line's place is the word's id in the original program.

    Raises:
        ConversionError: if the file is not UTF-8 text (with the line), cannot be unpacked, has a line of more than a
            million bytes, or is larger than 1 GiB.
    """
    lines, size = [], 0

    def count(line: int) -> None:
        nonlocal size
        size += line
        if size > _LARGEST:
            raise ConversionError(f"{file} holds more than {_LARGEST:,} bytes: that is no vocabulary of words.")

    try:
        with open_text(file.path, str(file)) as text:
            for line in text.lines(count, _LONGEST_WORD):
                if line.strip() != "!!!MAXTERMID":
                    lines.append(line.strip())
    except ValueError as error:
        message = str(error).split(" Expected ")[0]
        raise ConversionError(f"{message} Expected one word per line, in UTF-8.") from None
    return lines


def read_text(file: InputFile) -> str:
    """The text of a file, plain or gzipped, in UTF-8.

    Raises:
        ConversionError: if the file is no UTF-8 text (with the line), a damaged gzip file, or larger than 1 GiB.
    """
    with file.path.open("rb") as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(file.path) if is_gzip else file.path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConversionError(f"{file} is a damaged gzip file: {error}") from None
    if len(data) > _LARGEST:
        raise ConversionError(f"{file} holds more than {_LARGEST:,} bytes: that is no vocabulary of words.")
    if b"\0" in data:
        raise ConversionError(f"{file}, line {_line(data, data.index(0))}: a zero byte; expected a text file in UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConversionError(
            f"{file}, line {_line(data, error.start)}: the byte {data[error.start]:#x} is no UTF-8. Expected one word "
            "per line, in UTF-8: convert the file first (for example with iconv)."
        ) from None


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def distinct_words(lines: Iterable[str], name: object) -> list[str]:
    """The words of a vocabulary: special words left out, and blank and repeated lines too (with a warning).

    Args:
        lines: As `read_vocabulary_lines` gives them.
        name: The file, as the warning is to name it.
    """
    words: dict[str, None] = {}
    dropped: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line in _NO_WORDS:
            continue
        if not line or line in words:
            dropped.append(f"word {number}, {line!a}")
        else:
            words[line] = None
    if dropped:
        warnings.warn(
            f"{name}: {len(dropped)} of its words are blank or were there before, and are left out (the first is "
            f"{dropped[0]}).",
            stacklevel=2,
        )
    return list(words)


def write_bilm_vocabulary(words: Iterable[str], path: Path) -> None:
    """Writes a vocabulary file for bilm-tf: its special words, then the words.

    Raises:
        ConversionError: for a word that the format cannot hold.
    """
    lines = [*BILM_SPECIAL_WORDS, *(word for word in words if word not in _NO_WORDS)]
    for line in lines:
        if (
            line != line.strip()
            or not line
            or "\n" in line
            or "\r" in line
            or line.encode("utf-8", "ignore").decode() != line
        ):
            raise ConversionError(
                f"The word {line!a} cannot be written to {path.name}, which holds one word per line, in UTF-8, without "
                "spaces around it: leave the vocabulary out, or that word."
            )
    path.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")
