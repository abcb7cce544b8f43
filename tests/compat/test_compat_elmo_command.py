"""`hf-elmo elmo`, which is AllenNLP's `elmo` command: its options, its file, and its refusals."""

import json

import h5py
import numpy as np
import pytest
from published_elmo import DIM, LAYERS, TOLERANCE, PublishedElmo
from transformers.utils import logging
from typer.testing import CliRunner

from hf_elmo.commands.app import app
from hf_elmo.conversion import convert_to_folder

LINES = [
    "Michael went to the store to buy some eggs .",
    "test / this is\ta first  sentence",
    "naïve",
    "Michael went to the store to buy some eggs .",
]
COMBINE = {
    "--all": lambda layers: layers,
    "--top": lambda layers: layers[-1],
    "--average": lambda layers: layers.mean(axis=0),
}


@pytest.fixture(autouse=True)
def libraries_as_loud_as_before():
    """Commands silence the libraries, for the whole process."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    yield
    logging.set_verbosity(verbosity)
    if has_bars:
        logging.enable_progress_bar()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return PublishedElmo(tmp_path_factory.mktemp("published"))


@pytest.fixture
def run(published, tmp_path, monkeypatch):
    """Runs the command in an empty folder, on a text with some white space around its lines."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, lines=LINES, status=0, files=True):
        (tmp_path / "in.txt").write_bytes("".join(f" {line}\r\n" for line in lines).encode())
        paths = ["--options-file", published.options, "--weight-file", published.weights] if files else []
        result = CliRunner().invoke(app, ["elmo", "in.txt", "out.hdf5", *map(str, [*paths, *arguments])])
        assert result.exit_code == status, result.output
        assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]
        if status:
            assert "Traceback" not in result.output
        return result

    return run


def same_vectors(dataset, layers):
    assert dataset.dtype == np.float32
    assert dataset.shape == layers.shape
    np.testing.assert_allclose(dataset[...], layers, **TOLERANCE)


@pytest.mark.parametrize("option", COMBINE)
def test_vectors_and_index(run, published, tmp_path, option):
    run(option, "--batch-size", 2)
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert set(file) == {"0", "1", "2", "3", "sentence_to_index"}
        for number, line in enumerate(LINES):
            same_vectors(file[str(number)], COMBINE[option](published.words(line.split())))
        # The last of equal lines counts, and lines are as they were written.
        assert file["sentence_to_index"].shape == (1,)
        assert json.loads(file["sentence_to_index"][0]) == {LINES[0]: "3", LINES[1]: "1", LINES[2]: "2"}


def test_sentences_are_forgotten(run, tmp_path):
    run("--top", "--forget-sentences")
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert set(file) == {"0", "1", "2", "3"}


def test_sentences_as_keys(run, published, tmp_path):
    run("--all", "--use-sentence-keys", lines=LINES[:3])
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert "sentence_to_index" not in file
        for line in LINES[:3]:
            same_vectors(file[line], published.words(line.split()))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (LINES, "Line 3 cannot be a key: it is there twice"),
        (["a / b", "a"], None),
        (["a", "a/b"], "Line 1 cannot be a key: another line is its beginning, before a slash"),
        (["a/b", "a"], "Line 1 cannot be a key: it is there twice, or another one goes on behind it"),
        (["a", "./."], "Line 1 cannot be a key: HDF5 has no keys of that form"),
    ],
)
def test_sentences_that_cannot_be_keys(run, tmp_path, lines, message):
    (tmp_path / "out.hdf5").write_text("before", encoding="utf-8")
    result = run("--top", "--use-sentence-keys", lines=lines, status=0 if message is None else 1)
    if message is not None:
        assert message in result.stderr
        # Nothing is lost by an attempt that fails.
        assert (tmp_path / "out.hdf5").read_text(encoding="utf-8") == "before"


def test_a_file_that_is_there_is_replaced(run, tmp_path):
    run("--top")
    run("--all", lines=["a b"])
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert set(file) == {"0", "sentence_to_index"}
        assert file["0"].shape == (LAYERS, 2, DIM)


def test_a_model_folder(run, published, tmp_path):
    convert_to_folder(published.folder, tmp_path / "model")
    run("--top", "--model", "model", files=False)
    with h5py.File(tmp_path / "out.hdf5") as file:
        same_vectors(file["0"], published.words(LINES[0].split())[-1])


def test_the_state_as_allennlp_carries_it(run, published, tmp_path):
    run("--top", "--stateful", "--batch-size", 1)
    state = None
    with h5py.File(tmp_path / "out.hdf5") as file:
        for number, line in enumerate(LINES):
            layers, state = published.read_on(line.split(), state)
            same_vectors(file[str(number)], layers[-1, 1:-1])


def test_options_that_did_nothing_are_taken(run):
    result = run(
        "--top", "--file-friendly-logging", "--vocab-path", "v.txt", "--include-package", "p", "--cuda-device=-1"
    )
    assert "have none here" in result.stderr
    assert "out.hdf5: 4 sentences" in result.stderr


def test_wrong_usage(run):
    for options in ((), ("--all", "--top")):
        assert "give one of them" in run(*options, status=2).stderr
    assert "nothing is downloaded here" in " ".join(
        run("--all", files=False, status=2).stderr.replace("│", " ").split()
    )
    run("--all", "--model", "elmo-mini", status=2)
    run("--all", "--batch-size", 0, status=2)


def test_wrong_input(run, tmp_path):
    result = run("--all", lines=["a", "", "b", " "], status=1)
    assert "empty lines, counted from 0: 1, 3. Remove them." in result.stderr
    result = run("--all", lines=[], status=1)
    assert "no sentence" in result.stderr
    assert not (tmp_path / "out.hdf5").exists()
    result = run("--all", "--weight-file", "nothing.hdf5", status=1)
    assert "nothing.hdf5 does not exist" in result.stderr
