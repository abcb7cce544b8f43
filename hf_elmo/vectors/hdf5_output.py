"""HDF5 files on disks that may become full."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Hdf5Output:
    """A new HDF5 file, all of whose write errors are raised.

    h5py itself loses errors of data that the library still holds back when a dataset is closed, and may crash with the
    process (seen with 3.16 on a full disk). So the library writes to a file that never fails, and that remembers.

    Attributes:
        file: The `h5py.File`. Call `check` after adding to it.
    """

    def __init__(self, path: str | Path):
        self._disk = _Disk(path)
        self.file = h5py.File(self._disk, "w")

    def check(self) -> None:
        """Raises the first OSError of writing, if there was one."""
        if self._disk.error is not None:
            raise self._disk.error

    def close(self) -> None:
        """Closes the file, and raises as `check`."""
        self.file.close()
        self._disk.close()
        self.check()


class _Disk(io.RawIOBase):
    """The file below, as h5py's driver for file objects uses it: seek, then write or read the whole of a buffer."""

    def __init__(self, path: str | Path):
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115
        self.error: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        rest = memoryview(data).cast("B")
        while len(rest) and self.error is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error
        super().close()
