"""Unpacking tar archives that others made: plain files only, and no more of them than an honest archive holds."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from .errors import ConversionError
from .files import InputFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Weights hardly compress, and are most of an archive.
_HIGHEST_COMPRESSION = 100
_SMALL_ARCHIVE = 64 * 1024**2
_LARGEST_ARCHIVE = 16 * 1024**3
_MOST_MEMBERS = 10_000

_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OSError, ValueError, OverflowError)


def is_tar(path: Path) -> bool:
    """Whether a file is a gzip file (in which a tar archive is to be expected), or a plain tar archive."""
    with path.open("rb") as stream:
        begin = stream.read(265)
    return begin.startswith(b"\x1f\x8b") or begin[257:262] == b"ustar"


def first_name(archive: Path, wanted: Callable[[str], bool]) -> str | None:
    """The path of the first file in an archive that is wanted; None if there is none, or none before some damage."""
    with archive.open("rb") as stream:
        try:
            with _opened(archive, stream) as (opened, _):
                return next((path for path, _ in _files(archive, opened) if wanted(path)), None)
        except (*_DAMAGE, ConversionError):
            return None


@contextmanager
def _opened(archive: Path, stream: BinaryIO) -> Iterator[tuple[tarfile.TarFile, io.BufferedReader[_Bounded]]]:
    """The archive, and the stream that it is read from, which gives no more than an honest archive holds."""
    is_gzip = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    plain: gzip.GzipFile | BinaryIO = gzip.GzipFile(fileobj=stream) if is_gzip else stream
    bounded = io.BufferedReader(_Bounded(archive, plain), 1024**2)
    with tarfile.open(fileobj=bounded, mode="r|") as opened:
        yield opened, bounded


@contextmanager
def unpacked_tar(archive: Path, wanted: Callable[[str], bool]) -> Iterator[dict[str, InputFile]]:
    """Unpacks some files of a tar archive, gzipped or plain, for a while.

    Nothing is written but plain files, under names of our own, in a temporary folder, which is removed at the end.

    Args:
        archive: The archive.
        wanted: Tells by its path in the archive whether a file is needed.

    Yields:
        The wanted files by their paths.

    Raises:
        ConversionError: for an archive that is damaged, that holds links, devices or sparse files, a name twice or one
            that leads out of it, or more than an honest archive of its size does.
    """
    with tempfile.TemporaryDirectory(prefix="hf_elmo-") as folder, archive.open("rb") as stream:
        unpacked: dict[str, InputFile] = {}
        try:
            with _opened(archive, stream) as (opened, bounded):
                for path, member in _files(archive, opened):
                    if wanted(path):
                        target = Path(folder) / str(len(unpacked))
                        _write(archive, opened, member, target)
                        unpacked[path] = InputFile(target, f"{archive}: {path}")
                # The checksum of what was read stands behind it.
                while bounded.read(1024**2):
                    pass
        except _DAMAGE as error:
            if isinstance(error, ConversionError):
                raise
            raise ConversionError(f"{archive} is not a whole tar archive: {error}") from None
        yield unpacked


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than an archive of that size may hold."""

    def __init__(self, archive: Path, stream: gzip.GzipFile | BinaryIO):
        self._archive, self._stream = archive, stream
        size = archive.stat().st_size
        self._most = min(_LARGEST_ARCHIVE, max(_SMALL_ARCHIVE, _HIGHEST_COMPRESSION * size))
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        data = self._stream.read(len(room))
        self._given += len(data)
        if self._given > self._most:
            raise ConversionError(
                f"{self._archive} unpacks to more than {self._most:,} bytes. No archive of a model is like that; if "
                "this one is, unpack it yourself and give the folder."
            )
        room[: len(data)] = data
        return len(data)


def _files(archive: Path, opened: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files of an archive by their paths; every member is checked."""
    seen: set[PurePosixPath] = set()
    for count, member in enumerate(opened):
        shown = f"{archive}: the member {member.name!a}"
        path = PurePosixPath(member.name)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.name or member.name[1:2] == ":"
        if outside or "\0" in member.name:
            raise ConversionError(f"{shown} has a name that leads out of the archive. Do not trust this archive.")
        if member.issparse() or not (member.isreg() or member.isdir()):
            raise ConversionError(f"{shown} is a link, a device or a sparse file. Do not trust this archive.")
        if count >= _MOST_MEMBERS:
            raise ConversionError(
                f"{archive} has more than {_MOST_MEMBERS:,} members: that is not an archive of a model."
            )
        if member.isreg():
            if path in seen:
                raise ConversionError(f"{shown} is there twice.")
            seen.add(path)
            yield str(path), member


def _write(archive: Path, opened: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    rest = member.size
    packed = opened.extractfile(member)
    assert packed is not None, "only regular files come here"
    with target.open("xb") as plain:
        while rest > 0:
            chunk = packed.read(min(rest, 1024**2))
            if not chunk:
                raise ConversionError(f"{archive}: the member {member.name!a} is cut off: {rest:,} bytes are missing.")
            plain.write(chunk)
            rest -= len(chunk)
