"""Modules of TensorFlow Hub, as google/elmo and DeepPavlov's: against the formulas, and written by TensorFlow."""

import json
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, options_with
from rounding import assert_within_rounding
from typer.testing import CliRunner

from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.conversion import ConversionError, convert_tfhub_module, is_tfhub_module, load_tfhub_module

WORDS = ["Paris", "is", "naïve", "日本", "."]
MIX = {"aggregation/weights": np.array([0.4, -0.3, 1.1], np.float32), "aggregation/scaling": np.float32(1.7)}
DEEPPAVLOV = {
    "aggregation/elmo_output_ELMo_W": MIX["aggregation/weights"],
    "aggregation/elmo_output_ELMo_gamma": np.array([1.7], np.float32),
}
STATES = {
    "bilm/Variable": np.zeros((9, 20), np.float32),
    "bilm/Variable_1": np.zeros((9, 6), np.float32),
    "bilm_1/Variable_3": np.zeros((9, 6), np.float32),
}

# What stands in place of the names that TensorFlow 2.21 gives, in other versions or wrappers of the graph.
SPELLINGS = {
    "prediction": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/rnn/lstm_cell/", "kernel", "bias", "projection/kernel"),
    "TensorFlow 1.0": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/rnn/lstm_cell/", "weights", "biases", "projection/weights"),
    "files of weights": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/LSTMCell/", "W_0", "B", "W_P_0"),
    "training": ("RNN_{d}/rnn/multi_rnn_cell/cell_{i}/lstm_cell/", "kernel", "bias", "projection/kernel"),
    "without a scope": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/", "kernel", "bias", "projection/kernel"),
}


def module_variables(arrays, spelling="prediction", mix=MIX, padding=True):
    scope, *kinds = SPELLINGS[spelling]
    kinds = dict(zip(("W_0", "B", "W_P_0"), kinds, strict=True))
    named = {}
    for key, array in arrays.items():
        if key.startswith("RNN_"):
            direction, _, _, cell, _, kind = key.split("/")
            key = scope.format(d=direction[-1], i=cell[4:]) + kinds[kind]
        if key == "char_embed" and padding:
            array = np.pad(array, ((1, 0), (0, 0)))
        named[f"bilm/{key}"] = array
    return named | mix | STATES


def stand_in(content):
    class Reader:
        def __init__(self, prefix):
            pass

        def get_variable_to_shape_map(self):
            return {name: list(np.shape(array)) for name, array in content.items()}

        def get_variable_to_dtype_map(self):
            return {name: np.asarray(array).dtype for name, array in content.items()}

        def get_tensor(self, name):
            # Of a scalar TensorFlow's reader returns a number of numpy.
            return content[name]

    return SimpleNamespace(train=SimpleNamespace(load_checkpoint=Reader), __spec__=None)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module's folder whose variables are as given."""

    def make(content):
        monkeypatch.setitem(sys.modules, "tensorflow", stand_in(content))
        folder = tmp_path / "module"
        (folder / "variables").mkdir(parents=True)
        for name in ("saved_model.pb", "tfhub_module.pb", "variables/variables.index"):
            (folder / name).write_bytes(b"x")
        (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"x")
        return folder

    return make


def assert_computes(model, options, arrays, mix=True):
    inputs = ElmoTokenizer.create()([WORDS], is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    layers, _ = NumpyElmo(options, arrays).read(WORDS)
    found = torch.stack(output.hidden_states)[:, 0].numpy()
    assert_within_rounding(found, layers)
    weights = np.exp(MIX["aggregation/weights"].astype(np.float64)) if mix else np.ones(len(layers))
    mixed = (1.7 if mix else 1) * np.tensordot(weights / weights.sum(), layers, axes=1)
    assert_within_rounding(output.last_hidden_state[0].numpy(), mixed)


@pytest.mark.parametrize("mix", [MIX, DEEPPAVLOV], ids=["google", "DeepPavlov"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_numbers(module, spelling, mix):
    arrays = random_weights(OPTIONS, seed=3)
    source = module(module_variables(arrays, spelling, mix))
    assert is_tfhub_module(source)
    with pytest.warns(UserWarning, match="3 states of LSTMs are left out"):
        model = load_tfhub_module(source)
    assert_computes(model, OPTIONS, arrays)


@pytest.mark.filterwarnings("ignore:.*left out", "ignore:.*does not tell")
@pytest.mark.parametrize("changes", [{"n_highway": 0}, {"n_layers": 1}, {"projection_dim": 18}, {"dim": 6}], ids=str)
def test_other_shapes(module, changes):
    options = options_with(**changes)
    arrays = random_weights(options, seed=3)
    mix = {"aggregation/weights": np.zeros(1 + options["lstm"]["n_layers"], np.float32), "aggregation/scaling": 1}
    mix["aggregation/scaling"] = np.ones(1, np.float32)
    assert_computes(load_tfhub_module(module(module_variables(arrays, mix=mix))), options, arrays, mix=False)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_options_and_no_mix_and_no_row_of_padding(module, tmp_path):
    options = options_with(activation="tanh", cell_clip=0.7, use_skip_connections=False)
    arrays = random_weights(options, seed=3)
    (tmp_path / "options.json").write_text(json.dumps(options), encoding="utf-8")
    source = module(module_variables(arrays, mix={}, padding=False))
    assert_computes(load_tfhub_module(source, options=tmp_path / "options.json"), options, arrays, mix=False)


def test_real_tensorflow(tensorflow, tmp_path):
    """A SavedModel that TensorFlow writes; and the command, for the folder, a part of it, and DeepPavlov's tar."""
    arrays = random_weights(OPTIONS, seed=4)
    np.savez(tmp_path / "arrays.npz", **module_variables(arrays))
    source = tmp_path / "module"
    tensorflow.ask("export", folder=str(source), arrays=str(tmp_path / "arrays.npz"))
    assert (source / "saved_model.pb").is_file()
    with tarfile.open(tmp_path / "elmo_ru-news_wmt11-16_1.5M_steps.tar.gz", "w:gz") as archive:
        archive.add(source, arcname=".")
    for number, path in enumerate(
        (source, source / "variables", source / "variables" / "variables.index", archive.name, str(source) + "/")
    ):
        result = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / str(number))])
        assert result.exit_code == 0, result.output
        assert "3 states of LSTMs" in result.stderr
        assert "(--options)" in result.stderr
        assert "/tmp/hf_elmo" not in result.stderr
    for folder in ("0", "3"):
        assert_computes(ElmoModel.from_pretrained(tmp_path / folder), OPTIONS, arrays)
    card = (tmp_path / "3" / "README.md").read_text(encoding="utf-8")
    assert "a module of TensorFlow Hub" in card
    assert "elmo_ru-news_wmt11-16_1.5M_steps.tar.gz" in card


# --- what is refused

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
def refuse(tmp_path):
    def check(source, *parts, **kwargs):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConversionError) as caught:
            convert_tfhub_module(source, tmp_path / "model", **kwargs)
        for part in (str(tmp_path), *parts):
            assert part in str(caught.value), str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.filterwarnings("ignore:.*left out", "ignore:.*does not tell")
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
