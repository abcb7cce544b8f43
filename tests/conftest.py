"""What all tests share: where the data is, and small models."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and original fixtures beside the project, or named by HF_ELMO_SHARED_DATA."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HF_ELMO_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no shared data: neither HF_ELMO_SHARED_DATA nor {beside} is a folder")
    return folder
