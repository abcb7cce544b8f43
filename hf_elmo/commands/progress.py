"""A progress bar on stderr."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..vectors.text_files import TextFile


class Progress:
    """How much of the input is read, and how many sentences and words are done.

    Args:
        source: The input; its size is the bar's length where it has one.
        shown: None: if stderr is a terminal.
    """

    def __init__(self, source: TextFile | None, shown: bool | None):
        from tqdm import tqdm

        if shown is None:
            shown = sys.stderr is not None and sys.stderr.isatty()
        self._bar = tqdm(total=_size(source), unit="B", unit_scale=True, disable=not shown, file=sys.stderr)
        self._sentences = self._words = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.close()

    def read(self, size: int) -> None:
        """Some bytes of input more are read."""
        self._bar.update(size)

    def done(self, words: int) -> None:
        """One more sentence, of this many words, is done."""
        self._sentences += 1
        self._words += words
        self._bar.set_postfix_str(f"{self._sentences:,} sentences, {self._words:,} words", refresh=False)
        self._bar.update(0)


def _size(source: TextFile | None) -> int | None:
    """The bytes of a regular file; None for a pipe or a packed file, whose end nobody knows."""
    if source is None or source.is_packed:
        return None
    try:
        status = os.fstat(source.stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
