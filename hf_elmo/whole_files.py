"""Files and folders that are whole or not there: written under another name, brought to the disk, then renamed.

A reader never sees half of one, an error leaves what was there before, and what has got its name survives a crash of
the machine. A killed process leaves a hidden file or folder that ends in `.part`; the next one that writes the same
file or folder on that machine removes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path


@contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """A path to write a file at, which becomes `path` at the end of the `with` block.

    After an error there is no new file, and one that was there before is as it was. Of a symbolic link the file that
    it points to is replaced.

    Args:
        path: The file to be; its folder must exist.
        overwrite: Replace a file of this name, also one that another process has written meanwhile.

    Yields:
        A path in the same folder, where there is nothing yet.

    Raises:
        FileExistsError: if the file is there and must not be replaced.
        OSError: if the folder is missing, or the file cannot be written.
    """
    check_target(path, overwrite)
    target = Path(os.path.realpath(path))
    temporary = _aside(target)
    try:
        yield temporary
        try:
            _to_disk(temporary)
            if overwrite:
                os.replace(temporary, target)
            else:
                _rename_to_new(temporary, target)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            # The file that was asked for, not the temporary one.
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        _to_disk(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(destination: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `destination` at the end of the `with` block, and vanishes after an error.

    A destination that exists (empty) keeps its own permissions and may be a mount point or the current folder: it is
    filled rather than replaced.

    Args:
        destination: The folder to be; missing folders above it are made.
        overwrite: Replace a folder of this name and all that is in it.

    Yields:
        The folder to fill, on the same file system.

    Raises:
        ValueError: if `destination` is there, is not an empty folder, and must not be replaced.
        OSError: if it cannot be written.
    """
    path = Path(destination).resolve() if overwrite else check_new_folder(destination)
    is_filled = path.is_dir() and not overwrite
    made = [parent for parent in (path, *path.parents)[1:] if not parent.exists()]
    parent = path if is_filled else path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = _aside(parent / path.name)
        temporary.mkdir()
        try:
            yield temporary
            try:
                if is_filled:
                    move_content(temporary, path)
                else:
                    move_folder(temporary, path, overwrite=overwrite)
            except FileExistsError:
                raise ValueError(
                    f"{destination} is not empty any more: another process has written it meanwhile. Nothing of it was "
                    "replaced; name another folder."
                ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        for folder in made:
            # Another process may have put something there meanwhile.
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def move_folder(source: Path, destination: Path, *, overwrite: bool = True) -> None:
    """Renames a folder whose files are complete; a folder of the new name is replaced, as a whole.

    Args:
        source: On the same file system.
        destination: The new name.
        overwrite: Replace a folder that is not empty.

    Raises:
        FileExistsError: if the folder is there, is not empty and must not be replaced.
        OSError: if it cannot be renamed. A folder that was to be replaced is there as before.
    """
    _all_to_disk(source)
    if not overwrite or not destination.is_dir() or not any(destination.iterdir()):
        try:
            source.replace(destination)
        except OSError as error:
            # The system's own answer, for another process may write the folder at this moment.
            if destination.exists() and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.ENOTDIR):
                raise FileExistsError(str(destination)) from None
            raise
    else:
        old = _aside(destination)
        destination.rename(old)
        try:
            source.rename(destination)
        except BaseException:
            old.rename(destination)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _to_disk(destination.parent)


def move_content(source: Path, destination: Path, *, overwrite: bool = False) -> None:
    """Moves what a folder holds, when it is complete, into another one.

    Args:
        source: On the same file system; left empty.
        destination: A folder.
        overwrite: Replace files of the same names. Each is whole at any time, but after an error some are new.

    Raises:
        FileExistsError: if something of a name is there, and must not be replaced.
        OSError: if something cannot be moved. Without `overwrite` the destination is as before then.
    """
    _all_to_disk(source)
    moved: list[Path] = []
    try:
        for entry in sorted(source.iterdir()):
            target = destination / entry.name
            if not overwrite and os.path.lexists(target):
                raise FileExistsError(str(target))
            moved.append(entry.replace(target) if overwrite else entry.rename(target))
    except BaseException:
        for entry in [] if overwrite else moved:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise
    _to_disk(destination)


def check_target(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Checks that a file can be made, without making it.

    Args:
        path: The file to be.
        overwrite: A file of this name may be replaced.

    Raises:
        OSError: if it cannot: the error names the file, the reason and the remedy.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it.")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{path} is not a regular file, and cannot be replaced by one.")
    if target.exists() and not overwrite:
        raise _exists(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {target.parent}.")


def check_new_folder(destination: str | os.PathLike[str]) -> Path:
    """The resolved path of a folder to be made.

    Raises:
        ValueError: if there is something already: a file, or a folder that is not empty.
    """
    path = Path(destination).resolve()
    if path.is_dir():
        _remove_leftovers(path / path.name)
        if any(path.iterdir()):
            raise ValueError(f"{destination} is not empty: name a folder that does not exist yet, or an empty one.")
    elif path.exists():
        raise ValueError(f"{destination} is a file: name a folder that does not exist yet, or an empty one.")
    return path


def _exists(path: str | os.PathLike[str]) -> FileExistsError:
    return FileExistsError(f"{path} exists already: give another name, or overwrite it (overwrite=True).")


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Gives a file a name that is free. FileExistsError if not, even if another process takes it at this moment."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no hard links.
        if target.exists():
            raise FileExistsError(target) from None
        os.replace(temporary, target)


def _aside(target: Path) -> Path:
    """A new hidden name beside a file or folder; what dead processes have left under such names is removed."""
    _remove_leftovers(target)
    return target.with_name(f"{_mark(target)}{os.getpid()}-{secrets.token_hex(4)}.part")


def _mark(target: Path) -> str:
    """How hidden names for a file or folder begin, on this machine."""
    # The machine is part of it, for on a shared disk the process may be another machine's. Names may be 255 bytes long,
    # so the target's is told by a hash.
    mark = hashlib.blake2b(f"{platform.node()}\0{target.name}".encode(errors="surrogateescape"), digest_size=6)
    return f".{mark.hexdigest()}-"


def _remove_leftovers(target: Path) -> None:
    """Removes what dead processes have left while they wrote a file or folder."""
    start = _mark(target)
    for entry in target.parent.glob(f"{start}*.part"):
        process = entry.name.removeprefix(start).partition("-")[0]
        if process.isdecimal() and not _is_running(int(process)):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()


def _is_running(process: int) -> bool:
    """Whether there is a process of this number; where that cannot be told, True."""
    if os.name != "posix":
        # Elsewhere os.kill ends a process rather than ask for it.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk."""
    is_folder = path.is_dir()
    # Windows does not open folders, and some file systems have nothing to wait for there.
    with suppress(OSError) if is_folder else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _all_to_disk(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            _to_disk(path)
    _to_disk(folder)
