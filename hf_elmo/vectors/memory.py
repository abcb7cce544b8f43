"""Memory of long runs: what the C library holds although nobody uses it goes back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    # Only glibc has it.
    except (AttributeError, OSError, TypeError):
        return None


def give_back_memory() -> None:
    """Returns to the system what was freed.

    Blocks of all sizes come and go between things that stay, and glibc keeps the gaps for later: hundreds of MB after a
    corpus, GB in a process that runs for hours. Where the C library is another one, nothing happens.
    """
    if (trim := _trim()) is not None:
        trim(0)
