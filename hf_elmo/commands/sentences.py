"""Sentences from the command line, a file or standard input."""

from __future__ import annotations

import codecs
import gzip
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def lines_of_arguments(texts: Iterable[str]) -> Iterator[str]:
    """The lines of texts that were typed.

    Raises:
        ValueError: for one whose bytes are no UTF-8.
    """
    for text in texts:
        # Python marks bytes of arguments that it could not decode as lone surrogates.
        if any("\udc80" <= letter <= "\udcff" for letter in text):
            raise ValueError(f"The text {text!a:.60} is not in UTF-8.")
        yield from text.split("\n")


def open_input(path: Path | None) -> tuple[BinaryIO, str]:
    """The file (or standard input, for None and `-`), opened for reading bytes, and its name for messages.

    Raises:
        OSError: if it cannot be read.
    """
    if path is None or str(path) == "-":
        if sys.stdin is None:
            raise OSError("Standard input is closed: give texts or --file.")
        return sys.stdin.buffer, "standard input"
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a text file.")
    return path.open("rb"), str(path)


@contextmanager
def open_texts(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """As `open_input`, closed afterwards; a file whose name ends in `.gz` is unpacked while it is read.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it cannot be unpacked, also where that turns out in the `with` block.
    """
    stream, name = open_input(path)
    if stream is (sys.stdin and sys.stdin.buffer):
        yield stream, name
        return
    with stream:
        if path.suffix != ".gz":
            yield stream, name
            return
        try:
            with gzip.open(stream, "rb") as unpacked:
                yield unpacked, name
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{name} is no sound gzip file: {error}") from None


def read_lines(stream: BinaryIO, name: str, on_bytes: Callable[[int], object] = lambda size: None) -> Iterator[str]:
    """The lines of a UTF-8 text, ended by line feeds (with or without carriage returns) only.

    Args:
        stream: The text.
        name: Its name for messages.
        on_bytes: Is told the size of every line.

    Raises:
        ValueError: where it is no UTF-8 text, with the line.
    """
    for number, line in enumerate(stream, start=1):
        on_bytes(len(line))
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if b"\0" in line:
            raise ValueError(f"{name}, line {number}: a zero byte. Expected a text in UTF-8, one sentence per line.")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}, line {number}: the byte {line[error.start]:#04x} is no UTF-8. Expected a text in UTF-8, one "
                "sentence per line: convert it first, for example with iconv."
            ) from None
        yield text.removesuffix("\n").removesuffix("\r")


def sentences_of(
    lines: Iterable[str], pretokenized: bool = False, split_sentences: bool = False
) -> Iterator[str | list[str]]:
    """Lines as sentences for `embed_sentences`.

    Args:
        lines: Each a sentence.
        pretokenized: Words are what stands between spaces and tabs; other white space may be part of a word.
        split_sentences: A line may hold several sentences, or none.
    """
    for line in lines:
        if pretokenized:
            yield re.findall(r"[^ \t]+", line)
        elif split_sentences:
            from nupunkt import sent_tokenize

            yield from sent_tokenize(line)
        else:
            yield line
