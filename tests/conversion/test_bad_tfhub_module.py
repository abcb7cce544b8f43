"""Modules of TensorFlow Hub that are no ELMo, or a spoilt one: one error, and nothing left behind."""

import gzip
import io
import json
import sys
import tarfile

import numpy as np
import pytest
from numpy_elmo import random_weights
from original_format import OPTIONS, options_with
from tfhub_format import module_variables
from typer.testing import CliRunner

from hf_elmo.commands.app import app
from hf_elmo.conversion import convert_tfhub_module, is_tfhub_module

pytestmark = pytest.mark.filterwarnings("ignore:.*left out", "ignore:.*does not tell")


CELL = "bilm/RNN_1/RNN/MultiRNNCell/Cell1/rnn/lstm_cell/"


def _without(key):
    return lambda content: content.pop(key)


def _put(key, value):
    return lambda content: content.update({key: np.asarray(value)})


ONES = np.ones((262, 4), np.float32)
MALFORMED = {
    "no characters": (_without("bilm/char_embed"), "no variable bilm/char_embed"),
    "no filter": (_without("bilm/CNN/W_cnn_0"), "bilm/CNN/W_cnn_0 is missing"),
    "no bias of a filter": (_without("bilm/CNN/b_cnn_1"), "missing: bilm/CNN/b_cnn_1"),
    "no last filter": (_without("bilm/CNN/W_cnn_2"), "surplus: bilm/CNN/b_cnn_2"),
    "half a highway": (_without("bilm/CNN_high_1/b_transform"), "missing: bilm/CNN_high_1/b_transform"),
    "no projection": (_without("bilm/CNN_proj/W_proj"), "missing: bilm/CNN_proj/W_proj"),
    "no kernel": (_without(CELL + "kernel"), "missing: bilm/RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_0"),
    "no first kernel": (_without(CELL.replace("1", "0") + "kernel"), "Cell0/LSTMCell/W_0 is missing"),
    "no projection of a cell": (_without(CELL + "projection/kernel"), "missing: bilm/RNN_1"),
    "no weights of the mix": (_without("aggregation/weights"), "missing: aggregation/weights"),
    "no gamma": (_without("aggregation/scaling"), "missing: aggregation/scaling"),
    "four weights": (
        _put("aggregation/weights", np.ones(4, np.float32)),
        "aggregation/weights (is (4,)",
    ),
    "two gammas": (_put("aggregation/scaling", np.ones(2, np.float32)), "aggregation/scaling (is (2,), expected (1,))"),
    "a second mix": (_put("aggregation/x_ELMo_W", np.ones(3, np.float32)), "surplus: aggregation/"),
    "surplus": (_put("bilm/softmax", ONES), "surplus: bilm/softmax"),
    "of another model": (_put("dense/kernel", ONES), "surplus: dense/kernel"),
    "a kernel twice": (_put(CELL.replace("lstm_cell/", "") + "W_0", ONES), "two variables for RNN_1/RNN/MultiRNNCell/"),
    "263 characters": (
        _put("bilm/char_embed", np.ones((263, 4), np.float32)),
        "char_embed (is (263, 4), exp",
    ),
    "a flat table": (_put("bilm/char_embed", np.ones(262, np.float32)), "char_embed is of shape (262,), expected 2"),
    "an empty table": (_put("bilm/char_embed", np.ones((262, 0), np.float32)), "char_embed is of shape (262, 0)"),
    "another kernel": (_put(CELL + "kernel", np.ones((12, 76), np.float32)), "(is (12, 76), expected (12, 80))"),
    "half precision": (_put("bilm/char_embed", ONES.astype(np.float16)), "not float32: bilm/char_embed (is float16)"),
    "double precision": (_put("aggregation/weights", np.ones(3)), "not float32: aggregation/weights (is float64)"),
    "NaN": (_put("aggregation/scaling", np.float32(np.nan)), "infinite or not a number: aggregation/scaling"),
    "infinite": (_put(CELL + "bias", np.full(80, np.inf, np.float32)), "infinite or not a number: bilm/RNN_1"),
    "too large": (_put(CELL + "bias", np.full(80, 3e38, np.float32)), "nothing can be computed"),
    "nothing": (lambda content: content.clear(), "no variable bilm/char_embed", "There are 0"),
}


@pytest.fixture
def refuse(refused_by):
    return refused_by(convert_tfhub_module)


@pytest.mark.parametrize(("change", "parts"), [(case[0], case[1:]) for case in MALFORMED.values()], ids=MALFORMED)
def test_malformed(module, refuse, change, parts):
    content = module_variables(random_weights(OPTIONS, seed=3))
    change(content)
    refuse(module(content), *parts)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"n_layers": 3}, "num_layers is 3, by the shapes in the other 2"),
        ({"filters": [[1, 4]]}, "filters is"),
        ({"activation": "gelu"}, "'gelu'"),
        ({"n_characters": 9}, "n_characters is 9"),
    ],
)
def test_options_of_another_model(module, refuse, tmp_path, changes, part):
    (tmp_path / "options.json").write_text(json.dumps(options_with(**changes)), encoding="utf-8")
    source = module(module_variables(random_weights(OPTIONS, seed=3)))
    refuse(source, str(tmp_path / "options.json"), part, options=tmp_path / "options.json")


def test_half_a_module(module, refuse, tmp_path, monkeypatch):
    source = module({})
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    refuse(source, "is a checkpoint of TensorFlow, which is needed to read it")
    (source / "variables" / "variables.index").unlink()
    assert is_tfhub_module(source)
    refuse(source, "has no variables/variables.index", "is it whole?")
    with tarfile.open(tmp_path / "elmo.tar.gz", "w:gz") as archive:
        archive.add(source / "saved_model.pb", arcname="saved_model.pb")
    assert is_tfhub_module(tmp_path / "elmo.tar.gz")
    refuse(tmp_path / "elmo.tar.gz", "has no variables/variables.index in it")
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for name in ("a/variables/variables.index", "b/variables/variables.index"):
            archive.add(source / "saved_model.pb", arcname=name)
    refuse(tmp_path / "two.tar", "has several modules in it")


def test_the_command_names_what_is_of_no_use(module, tmp_path):
    source = module({})
    result = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "x"), "--vocabulary", "vocab.txt"])
    assert result.exit_code == 2
    assert "has no vocabulary" in result.stderr


CONTENT = module_variables(random_weights(OPTIONS, seed=3))
# What names the ELMo, and counts its parts, is missed otherwise than by its name.
COUNTED = {
    "bilm/char_embed": "no variable bilm/char_embed",
    "bilm/CNN/W_cnn_1": "surplus: bilm/CNN/W_cnn_2",
    "bilm/CNN/W_cnn_2": "surplus: bilm/CNN/b_cnn_2",
    "bilm/CNN_high_0/W_carry": "surplus: bilm/CNN_high_0/W_transform",
    "bilm/CNN_high_1/W_carry": "surplus: bilm/CNN_high_1/W_transform",
    "bilm/RNN_0/RNN/MultiRNNCell/Cell1/rnn/lstm_cell/kernel": "surplus: bilm/RNN_0/RNN/MultiRNNCell/Cell1",
}


@pytest.mark.parametrize("key", sorted(key for key in CONTENT if "Variable" not in key))
def test_a_missing_variable(module, refuse, key):
    content = {name: value for name, value in CONTENT.items() if name != key}
    # A cell's arrays are named as HDF5 files of weights have them.
    cell = "/".join(key.split("/")[:5])
    refuse(module(content), COUNTED.get(key, cell if "Cell" in key else key))


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("bilm/CNN/W_cnn_0", (1, 1, 5, 4)),
        ("bilm/CNN/b_cnn_1", (7,)),
        ("bilm/CNN_high_0/W_transform", (18, 17)),
        ("bilm/CNN_high_1/b_carry", ()),
        ("bilm/CNN_proj/W_proj", (6, 18)),
        ("bilm/CNN_proj/b_proj", (0,)),
        (CELL + "bias", (76,)),
        (CELL + "projection/kernel", (6, 20)),
        ("aggregation/weights", (1, 3)),
        ("aggregation/scaling", (0,)),
    ],
)
def test_another_shape(module, refuse, key, shape):
    refuse(module(CONTENT | {key: np.ones(shape, np.float32)}), f"{key} (is {shape}, expected")


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64", "S4"])
def test_another_dtype(module, refuse, dtype):
    shown = "bytes32" if dtype == "S4" else dtype
    content = CONTENT | {CELL + "bias": np.ones(80).astype(dtype)}
    refuse(module(content), f"not float32: {CELL}bias (is {shown})")


def test_names_that_no_terminal_shows(module, refuse):
    refuse(module(CONTENT | {"\x1b[31mred": np.ones(1, np.float32)}), r"surplus: '\x1b[31mred'")


def test_all_problems_at_once(module, refuse):
    content = CONTENT | {"zebra": np.ones(1, np.float32), "bilm/CNN/b_cnn_1": np.ones(7, np.float32)}
    del content["bilm/CNN_proj/b_proj"]
    refuse(
        module(content), "missing: bilm/CNN_proj/b_proj\n", "surplus: zebra\n", "of another shape: bilm/CNN/b_cnn_1 "
    )


class _Failing(dict):
    """Variables of which one cannot be read, as TensorFlow says where a part is missing."""

    def __getitem__(self, key):
        if key == "bilm/CNN_proj/b_proj":
            raise RuntimeError("DataLossError: truncated")
        return super().__getitem__(key)


def test_values_that_cannot_be_read(module, refuse):
    refuse(module(_Failing(CONTENT)), "the values of bilm/CNN_proj/b_proj cannot be read", "truncated")


def test_an_index_that_is_none(module, refuse, monkeypatch):
    source = module(CONTENT)

    def fail(prefix):
        raise RuntimeError("not an sstable (bad magic number)")

    monkeypatch.setattr(sys.modules["tensorflow"].train, "load_checkpoint", fail)
    refuse(source, "variables.index is damaged, or not an index", "bad magic number")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is no JSON file"),
        ("[]", "must hold a JSON object"),
        ('{"lstm": 3, "char_cnn": {}}', "is missing"),
        (json.dumps(options_with(n_layers=10**9)), "lstm.n_layers is 1000000000"),
        (json.dumps(options_with(dim=10**17)), "expected no more than 1,000,000"),
    ],
)
def test_no_options(module, refuse, tmp_path, text, part):
    (tmp_path / "options.json").write_text(text, encoding="utf-8")
    refuse(module(CONTENT), str(tmp_path / "options.json"), part, options=tmp_path / "options.json")


def _tar(path, *names, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = (1 if kind == tarfile.REGTYPE else 0), kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO(b"x"))
    return path


def test_archives(refuse, tmp_path):
    index = "variables/variables.index"
    refuse(_tar(tmp_path / "out.tar.gz", f"../{index}"), "out.tar.gz", "leads out of the archive")
    refuse(_tar(tmp_path / "link.tar.gz", index, kind=tarfile.SYMTYPE), "link.tar.gz")
    refuse(_tar(tmp_path / "twice.tar.gz", index, index), "twice.tar.gz", "twice")
    refuse(_tar(tmp_path / "none.tar.gz", "saved_model.pb"), "has no variables/variables.index in it")
    whole = _tar(tmp_path / "whole.tar.gz", index, "variables/variables.data-00000-of-00001").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    refuse(tmp_path / "cut.tar.gz", "cut.tar.gz")
    (tmp_path / "crc.tar.gz").write_bytes(whole[:-8] + bytes(8))
    refuse(tmp_path / "crc.tar.gz", "crc.tar.gz")
    (tmp_path / "text.tar.gz").write_bytes(gzip.compress(b"<html>" * 200, mtime=0))
    refuse(tmp_path / "text.tar.gz", "text.tar.gz")


def test_places(module, refuse, tmp_path):
    source = module(CONTENT)
    refuse(tmp_path / "nowhere", "nowhere")
    refuse(source, "nowhere.json is not a file", options=tmp_path / "nowhere.json")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").touch()
    refuse(source, "model is not empty")
