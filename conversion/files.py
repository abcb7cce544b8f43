"""Reading files that others made, as carefully as such files ask for."""

from __future__ import annotations

import json
import lzma
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import whole_files
from .errors import ConversionError

# The published models are of 54 to 374 MB, and the numbers in them hardly compress.
_LARGEST_MEMBER = 16 * 1024**3
_SMALL_MEMBER = 64 * 1024**2
_HIGHEST_COMPRESSION = 100

#: What the library of zip archives raises for damaged ones; all else than BadZipFile is not documented.
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class InputFile:
    """A file to read, and what messages call it (a member of an archive is read from a temporary place)."""

    path: Path
    name: str

    @classmethod
    def at(cls, path: str | Path) -> InputFile:
        """The file of that path, by that name.

        Raises:
            ConversionError: if there is none.
        """
        if not Path(path).is_file():
            raise ConversionError(f"{path} is not a file.")
        return cls(Path(path), str(path))

    @property
    def is_unpacked(self) -> bool:
        """Whether it comes out of an archive, and is gone soon."""
        return str(self.path) != self.name

    def __str__(self) -> str:
        return self.name


def paths_of(source: str | Path, files: Iterable[object]) -> list[Path]:
    """The paths of what was read: of files out of an archive the archive's; things that are no files have none."""
    inputs = [file for file in files if isinstance(file, InputFile)]
    return list(dict.fromkeys(Path(source) if file.is_unpacked else file.path for file in inputs))


def files_of_folder(folder: Path) -> dict[str, InputFile]:
    """The files of a folder by their names, hidden ones left out."""
    return {
        entry.name: InputFile(entry, str(entry))
        for entry in sorted(folder.iterdir())
        if entry.is_file() and not entry.name.startswith(".")
    }


def read_json_object(file: InputFile) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        ConversionError: if it is no JSON (where, and why), or its value is no object.
    """
    try:
        content = json.loads(file.path.read_bytes(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ConversionError(f"{file} is no JSON file: it is nested too deeply.") from None
    except ValueError as error:
        raise ConversionError(f"{file} is no JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ConversionError(f"{file} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


@contextmanager
def unpacked_zip(archive: Path, wanted: Callable[[str], bool]) -> Iterator[dict[str, InputFile]]:
    """Unpacks some files of a zip archive for a while.

    Nothing is written but plain files directly in a temporary folder, which is removed at the end. One folder around
    everything in the archive is looked through; files deeper inside are none of the archive's own.

    Args:
        archive: The archive.
        wanted: Tells by its name whether a file is needed.

    Yields:
        The wanted files by name.

    Raises:
        ConversionError: for an archive that is damaged or encrypted, that holds links, a name twice or one that leads
            out of it, or files whose declared sizes no honest archive has.
    """
    with archive.open("rb") as stream, tempfile.TemporaryDirectory(prefix="hf_elmo-") as folder:
        try:
            opened = zipfile.ZipFile(stream)
        except ZIP_DAMAGE as error:
            raise ConversionError(f"{archive} is not a whole zip archive: {error}") from None
        unpacked: dict[str, InputFile] = {}
        for name, member in _members(archive, opened).items():
            if wanted(name):
                _check_size(archive, member)
                path = Path(folder) / f"{len(unpacked)}{PurePosixPath(name).suffix}"
                _unpack(archive, opened, member, path)
                unpacked[name] = InputFile(path, f"{archive}: {member.filename}")
        yield unpacked


def _members(archive: Path, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files on the archive's top level, or in its only folder, by name; all members are checked."""
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        path = PurePosixPath(member.filename)
        shown = f"{archive}: the member {member.orig_filename!a}"
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename or member.filename[1:2] == ":"
        # The library cuts names at a zero byte.
        if outside or not path.parts or member.filename != member.orig_filename:
            raise ConversionError(f"{shown} has a name that leads out of the archive. Do not trust this archive.")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ConversionError(f"{shown} is a link or a device. Do not trust this archive.")
        if path in members:
            raise ConversionError(f"{shown} is there twice.")
        members[path] = member
    # Archives made on a Mac carry a shadow of every file.
    files = {
        path: member
        for path, member in members.items()
        if not member.is_dir() and path.parts[0] != "__MACOSX" and not path.name.startswith(".")
    }
    tops = {path.parts[0] if len(path.parts) > 1 else "" for path in files}
    depth = 2 if len(tops) == 1 and tops != {""} else 1
    return {path.name: member for path, member in files.items() if len(path.parts) == depth}


def _check_size(archive: Path, member: zipfile.ZipInfo) -> None:
    too_dense = member.file_size > max(_SMALL_MEMBER, _HIGHEST_COMPRESSION * member.compress_size)
    if too_dense or member.file_size > _LARGEST_MEMBER or member.compress_size > archive.stat().st_size:
        raise ConversionError(
            f"{archive}: the member {member.filename!a} claims to be {member.file_size:,} bytes, packed into "
            f"{member.compress_size:,}. No ELMo is like that; if this one is, unpack it yourself and give the folder."
        )


def _unpack(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    shown = f"{archive}: the member {member.filename!a}"
    if member.flag_bits & 1:
        raise ConversionError(f"{shown} is encrypted: unpack it yourself and give the folder.")
    with path.open("xb") as plain:
        for chunk in _chunks(opened, member, shown):
            plain.write(chunk)


def _chunks(opened: zipfile.ZipFile, member: zipfile.ZipInfo, shown: str) -> Iterator[bytes]:
    try:
        with opened.open(member) as packed:
            while chunk := packed.read(1024**2):
                yield chunk
    except ZIP_DAMAGE as error:
        raise ConversionError(f"{shown} is damaged: {error}") from None


def check_new_folder(destination: str | Path) -> Path:
    """The resolved path of a folder to be made.

    Raises:
        ConversionError: if there is something already: a file, or a folder that is not empty.
    """
    try:
        return whole_files.check_new_folder(destination)
    except ValueError as error:
        raise ConversionError(str(error)) from None
