"""What people take for an ELMo: the sentence that each gets from the command line."""

import json
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
from numpy_elmo import random_weights
from original_format import OPTIONS, write_original
from typer.testing import CliRunner

from hf_elmo.commands.app import app

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 374434792\n"
MXNET = struct.pack("<QQQ", 0x112, 0, 1) + bytes(40)


def flair_model():
    """What `torch.save` makes of a dict with an object of Flair's in it, without Flair."""
    return b"\x80\x02}q\0X\x0a\0\0\0embeddingsq\1cflair.embeddings.token\nStackedEmbeddings\nq\2)\x81q\3s."


def torch_zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


FILES = {
    "a pointer of Git LFS": ("weights.hdf5", LFS, "fetch the file itself with git lfs pull"),
    "a pointer in place of a state dict": ("elmo.th", LFS, "fetch the file itself with git lfs pull"),
    "a web page": ("weights.hdf5", b"\n<!DOCTYPE html><html>", "download the file again"),
    "GluonNLP": ("elmo_2x1024_128_2048cnn_1xhighway_gbw.params", MXNET, "MXNet's parameters, as GluonNLP has them"),
    "options": ("weights.hdf5", json.dumps(OPTIONS).encode(), "give the file of its weights"),
    "a pickle": ("elmo.pkl", pickle.dumps([1]), "is a pickle, which may run anything, and is not read"),
}


def run(source, tmp_path):
    result = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "new")])
    assert result.exit_code == 1, result.output
    assert not (tmp_path / "new").exists()
    # Once, and of the file that was given.
    assert result.stderr.count("hf-elmo:") == 1
    assert str(tmp_path) in result.stderr
    return result.stderr


@pytest.mark.parametrize(("name", "content", "sentence"), FILES.values(), ids=FILES)
def test_files(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    assert sentence in run(tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["pos-multi.pt", "best-model.pt"])
def test_flair(tmp_path, name):
    torch_zip(tmp_path / name, flair_model())
    told = run(tmp_path / name, tmp_path)
    assert "is a model of Flair" in told
    assert "Do not trust it" not in told


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precision(tmp_path, dtype):
    folder = write_original(tmp_path / "model", OPTIONS, random_weights(OPTIONS, seed=1))
    with h5py.File(folder / "weights.hdf5", "r+") as file:
        values = file["char_embed"][()]
        del file["char_embed"]
        file["char_embed"] = values.astype(dtype)
    told = run(folder, tmp_path)
    assert f"not float32: char_embed (is {dtype})" in told
    assert f"somebody made these {dtype}: take the original file" in told


def test_vectors(tmp_path):
    folder = write_original(tmp_path / "model", OPTIONS, {"0": np.ones((3, 4, 12)), "1": np.ones((3, 2, 12))})
    assert "like a file of vectors that an ELMo computed" in run(folder, tmp_path)


def test_a_state_dict_alone_in_a_folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "elmo.th").write_bytes(b"x")
    assert "give it itself" in run(tmp_path / "model", tmp_path)


def test_the_command_names_its_options(tmp_path):
    folder = write_original(tmp_path / "model", OPTIONS, random_weights(OPTIONS, seed=1))
    (folder / "options.json").unlink()
    told = run(folder, tmp_path)
    assert "(--options)" in told
    assert "=..." not in told
