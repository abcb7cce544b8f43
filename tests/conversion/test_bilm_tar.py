"""The original format in tar archives, as the German and CLARIN's models are published."""

import dataclasses
import hashlib
import tarfile

import pytest
from huggingface_hub import ModelCard
from numpy_elmo import random_weights
from original_format import OPTIONS, write_original
from typer.testing import CliRunner

from hf_elmo.commands.app import app
from hf_elmo.conversion import ConversionError, convert_to_folder, is_allennlp_archive
from hf_elmo.hub import published_models


@pytest.fixture
def original(tmp_path):
    return write_original(tmp_path / "source", OPTIONS, random_weights(OPTIONS, seed=7))


def pack(path, original, inside="", mode="w:gz", weights="weights.hdf5"):
    with tarfile.open(path, mode) as archive:
        archive.add(original / "options.json", f"{inside}options.json")
        archive.add(original / "weights.hdf5", inside + weights)
        archive.add(original / "options.json", f"{inside}deeper/options.json")
        # Archives made on a Mac carry a shadow of every file.
        archive.add(original / "options.json", f"{inside}._weights.hdf5")
        archive.add(original / "options.json", f"{inside}model.ckpt-5265680.index")
    return path


def convert(source, destination, status=0):
    result = CliRunner().invoke(app, ["convert", str(source), str(destination)])
    assert result.exit_code == status, result.output
    return ModelCard.load(destination / "README.md") if status == 0 else result.stderr


@pytest.mark.parametrize("inside", ["", "./", "slovenian/"])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_it_is_read_as_a_folder_is(original, tmp_path, inside, mode):
    source = pack(tmp_path / "slovenian-elmo.tar.gz", original, inside, mode, "slovenian-elmo-weights.hdf5")
    assert not is_allennlp_archive(source)
    card = convert(source, tmp_path / "out")
    assert card.data.language == "sl"
    assert hashlib.sha256(source.read_bytes()).hexdigest() in card.text
    convert_to_folder(original, tmp_path / "plain")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_published_checksum_is_recognised(original, tmp_path, monkeypatch):
    """The names inside the German archive are those of any model: its checksum tells, and so a wrong one does."""
    source = pack(tmp_path / "bilm-output-result.tgz", original)
    german = published_models.published_models()["de"]
    assert convert(source, tmp_path / "before").data.language is None
    checksum = {"file": source.name, "sha1": hashlib.sha1(source.read_bytes()).hexdigest()}
    known = {"de": dataclasses.replace(german, checksums=(checksum,), parameters=None)}
    monkeypatch.setattr(published_models, "published_models", lambda: known)
    card = convert(source, tmp_path / "after")
    assert card.data.language == "de"
    assert "checksum" in card.text


def test_weights_in_several_folders(original, tmp_path):
    source = tmp_path / "two.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        archive.add(original, "a")
        archive.add(original, "b")
    with pytest.raises(ConversionError, match="has weights in several folders: a, b"):
        convert_to_folder(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_cut_off(original, tmp_path):
    source = pack(tmp_path / "elmo.tar.gz", original)
    source.write_bytes(source.read_bytes()[:-2000])
    assert "is not a whole tar archive" in convert(source, tmp_path / "out", status=1)
    assert not (tmp_path / "out").exists()


def test_without_options(original, tmp_path):
    source = tmp_path / "elmo.tar"
    with tarfile.open(source, "w") as archive:
        archive.add(original / "weights.hdf5", "weights.hdf5")
    assert "has no options.json" in convert(source, tmp_path / "out", status=1)
