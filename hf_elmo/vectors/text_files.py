"""Reading text: UTF-8 lines of a file (plain, gzip, Zstandard) or of standard input, the same for every program here.

Lines end as in the original programs, which open files as text: at a line feed, a carriage return, or both together.
Other characters that Unicode counts as ends of lines (U+2028, U+0085 ...) may stand in a line.
"""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Most bytes in a line, if the caller does not say otherwise. Embedding a line takes about 40 bytes of memory for each.
MAX_LINE_BYTES = 10_000_000

STANDARD_INPUT = "standard input"

# How packed files begin; no text in UTF-8 begins so.
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SUFFIXES = {".gz": _GZIP, ".zst": _ZSTANDARD}
_KINDS = {_GZIP: "gzip", _ZSTANDARD: "Zstandard"}


@dataclass(frozen=True)
class TextFile:
    """An open text.

    Attributes:
        stream: Its bytes, unpacked.
        name: What messages call it.
        is_packed: Whether it is unpacked while it is read, so that the size of the file is not that of the text.
        source: Its bytes as they are in the file, if there is one.
    """

    stream: BinaryIO
    name: str
    is_packed: bool
    source: BinaryIO | None = None

    def lines(
        self, on_bytes: Callable[[int], object] = lambda size: None, max_line_bytes: int = MAX_LINE_BYTES
    ) -> Iterator[str]:
        """The lines, without what ends them; a byte order mark at the beginning is left out.

        Args:
            on_bytes: Is told the size of every line.
            max_line_bytes: Most bytes in a line.

        Raises:
            ValueError: where it is not UTF-8 text, holds a zero byte or a longer line, with the line; and where it
                cannot be unpacked.
        """
        for line in self.lines_or_errors(on_bytes, max_line_bytes):
            if isinstance(line, ValueError):
                raise line
            yield line

    def lines_or_errors(
        self, on_bytes: Callable[[int], object] = lambda size: None, max_line_bytes: int = MAX_LINE_BYTES
    ) -> Iterator[str | ValueError]:
        """As `lines`, with the error in the place of a line that is not UTF-8, holds a zero byte or is too long."""
        if max_line_bytes < 1:
            raise ValueError(f"max_line_bytes must be at least 1, was: {max_line_bytes}.")
        number, rest, is_first, is_too_long = 0, b"", True, False
        while True:
            # Two bytes more for what ends the line.
            data = self.stream.readline(max_line_bytes + 2)
            on_bytes(len(data))
            is_whole = not data or data.endswith(b"\n")
            if is_first:
                data, is_first = data.removeprefix(codecs.BOM_UTF8), False
            data = rest + data
            lines, rest = _split(data, is_whole)
            for line in lines:
                # What belongs to a line that was reported already is left out.
                if not is_too_long:
                    number += 1
                    yield self._line(line, number, max_line_bytes)
                is_too_long = False
            if not data:
                return
            if is_too_long or len(rest.removesuffix(b"\r")) > max_line_bytes:
                if not is_too_long:
                    number, is_too_long = number + 1, True
                    yield self._line(rest.removesuffix(b"\r"), number, max_line_bytes)
                # A carriage return at the end is perhaps half of an end of the line.
                rest = rest[-1:] if rest.endswith(b"\r") else b""

    def _line(self, line: bytes, number: int, most: int) -> str | ValueError:
        try:
            self._check_length(line, number, most)
            return self._decoded(line, number)
        except ValueError as error:
            return error

    def _check_length(self, line: bytes, number: int, most: int) -> None:
        if len(line) > most:
            raise ValueError(
                f"{self.name}, line {number}: more than {most:,} bytes, which would need much memory. Expected one "
                "sentence, or one paragraph, per line; end lines there, or allow longer ones (max_line_bytes=...)."
            )

    def _decoded(self, line: bytes, number: int) -> str:
        if b"\0" in line:
            raise ValueError(
                f"{self.name}, line {number}: a zero byte. Expected a text in UTF-8, one sentence per line."
            )
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.name}, line {number}: the byte {line[error.start]:#04x} is no UTF-8. Expected a text in UTF-8, "
                "one sentence per line: convert it first, for example with iconv."
            ) from None


@contextmanager
def open_text(path: str | Path | None, name: str | None = None) -> Iterator[TextFile]:
    """Opens a text for reading: plain, or packed with gzip or Zstandard, which is seen from how it begins.

    Args:
        path: The file; None and `-` are standard input, which is left open afterwards.
        name: What messages call it, if not by its path.

    Raises:
        OSError: if it cannot be read.
        ValueError: for a file named `.gz` or `.zst` that is not one.
    """
    if path is None or str(path) == "-":
        if sys.stdin is None:
            raise OSError("Standard input is closed: give texts or --file.")
        yield _unpacked(sys.stdin.buffer, name or STANDARD_INPUT)
        return
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a text file.")
    with path.open("rb") as stream:
        yield _unpacked(stream, name or str(path), _SUFFIXES.get(path.suffix))


def lines_of_files(files: Iterable[str | Path], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[str]:
    """The lines of several texts, one after the other; errors as of `open_text` and `TextFile.lines`."""
    for file in files:
        with open_text(file) as text:
            yield from text.lines(max_line_bytes=max_line_bytes)


def _split(data: bytes, is_whole: bool) -> tuple[list[bytes], bytes]:
    """Lines that have ended, and what may go on: a carriage return at its end is perhaps half of an end of a line."""
    if not data:
        return [], b""
    if is_whole:
        return data.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"), b""
    place = data.rfind(b"\r", 0, len(data) - 1) + 1
    return data[:place].split(b"\r")[:-1], data[place:]


def _unpacked(stream: BinaryIO, name: str, expected: bytes | None = None) -> TextFile:
    head = _head(stream)
    kind = next((kind for kind in _KINDS if head.startswith(kind)), None)
    if expected is not None and head and kind != expected:
        raise ValueError(f"{name} is not a sound {_KINDS[expected]} file: it does not begin as one.")
    if kind is None:
        return TextFile(stream, name, False, stream)
    if kind == _GZIP:
        unpacking = gzip.GzipFile(fileobj=stream)
    else:
        import pyarrow

        unpacking = pyarrow.CompressedInputStream(stream, "zstd")
    return TextFile(io.BufferedReader(_Unpacking(unpacking, name, _KINDS[kind]), 2**20), name, True, stream)


def _head(stream: BinaryIO) -> bytes:
    """The first bytes of a stream, which remain to be read."""
    if hasattr(stream, "peek"):
        return stream.peek(4)[:4]
    place = stream.tell()
    head = stream.read(4)
    stream.seek(place)
    return head


class _Unpacking(io.RawIOBase):
    """A stream being unpacked, whose damage is a ValueError: an OSError would look like one of whatever is written."""

    def __init__(self, packed: BinaryIO | gzip.GzipFile, name: str, kind: str):
        self._packed, self._name, self._kind = packed, name, kind

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        try:
            data = self._packed.read(len(room))
        except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
            raise ValueError(f"{self._name} is not a sound {self._kind} file: {error}") from None
        except OSError as error:
            # Of damage to a Zstandard file, too; what the disk reports has a number.
            if error.errno is not None:
                raise
            raise ValueError(f"{self._name} is not a sound {self._kind} file: {error}") from None
        room[: len(data)] = data
        return len(data)
