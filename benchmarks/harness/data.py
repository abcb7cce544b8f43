"""Where the benchmarks look for data."""

from __future__ import annotations

import os
from pathlib import Path


def shared_data(*parts: str) -> Path:
    """A file or folder of the shared data, whether or not it exists.

    The data is in the folder that the environment variable HF_ELMO_SHARED_DATA names; without it, in `shared/data`
    beside the checkout.
    """
    beside = Path(__file__).parents[3] / "shared" / "data"
    return Path(os.environ.get("HF_ELMO_SHARED_DATA", beside)).joinpath(*parts)
