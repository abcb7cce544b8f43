"""What the tests of several formats share: a process with TensorFlow, modules of TF-Hub, and how files are refused."""

import sys

import pytest
from tensorflow_process import PYTHON, TensorFlowProcess, find_python
from tfhub_format import stand_in, write_module

from hf_elmo.conversion import ConversionError


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


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module's folder whose variables are as given."""

    def make(content):
        monkeypatch.setitem(sys.modules, "tensorflow", stand_in(content))
        return write_module(tmp_path / "module")

    return make


@pytest.fixture
def refused_by(tmp_path):
    """Of a conversion: what expects it to refuse, with a message that has all parts, and to leave nothing."""

    def of(convert):
        def check(source, *parts, **kwargs):
            before = sorted(tmp_path.rglob("*"))
            with pytest.raises(ConversionError) as caught:
                convert(source, tmp_path / "model", **kwargs)
            for part in (str(tmp_path), *parts):
                assert part in str(caught.value), str(caught.value)
            assert sorted(tmp_path.rglob("*")) == before

        return check

    return of
