"""What the tests of several formats share: a process with TensorFlow."""

import sys

import pytest
from tensorflow_process import PYTHON, TensorFlowProcess, find_python


@pytest.fixture(scope="session")
def process(tmp_path_factory):
    """A process with TensorFlow."""
    python = find_python()
    if python is None:
        pytest.skip(f"no TensorFlow: it is not installed here, and {PYTHON} names no Python that has it")
    process = TensorFlowProcess(python, tmp_path_factory.mktemp("tensorflow"))
    yield process
    process.close()


@pytest.fixture
def tensorflow(process, monkeypatch):
    """That process, which also reads and writes for this one if it has no TensorFlow of its own."""
    if find_python() != sys.executable:
        monkeypatch.setitem(sys.modules, "tensorflow", process.stand_in())
    return process
