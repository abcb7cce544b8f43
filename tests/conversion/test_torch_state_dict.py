"""State dicts of AllenNLP's Elmo without an archive, against the formulas and the original program."""

import json
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch
from allennlp_format import as_tensors, bilm_state, elmo_state
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, options_with
from places import HELPERS
from rounding import assert_within_rounding
from typer.testing import CliRunner

from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.conversion import ConversionError, convert_state_dict, is_state_dict, load_state_dict_elmo

WORDS = ["Paris", "is", "naïve", "日本", "."]
ARRAYS = random_weights(OPTIONS, seed=5)
NUMBERS = {"epoch": 3, "loss": 0.25, "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.001}]}}


def layers_of(model, words=WORDS):
    inputs = ElmoTokenizer.create()([words], is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0].numpy(), output.last_hidden_state[0].numpy()


def mixed(state, prefix, layers):
    weights = np.exp([state[f"{prefix}scalar_mix_0.scalar_parameters.{layer}"].item() for layer in range(len(layers))])
    return state[f"{prefix}scalar_mix_0.gamma"].item() * np.tensordot(weights / weights.sum(), layers, axes=1)


def save(path, content, **how):
    torch.save(content, path, **how)
    (path.parent / "options.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    return path


FORMS = {
    "of Elmo": ("", lambda state: state),
    "DataParallel": ("module.", lambda state: state),
    "in a model of one's own": ("encoder.elmo.", lambda state: state),
    "model_state_dict": ("", lambda state: {"model_state_dict": state, **NUMBERS}),
    "state_dict of Lightning": ("model.elmo.", lambda state: {"state_dict": state, "hyper_parameters": {}, **NUMBERS}),
    "deeper": ("", lambda state: {"checkpoint": {"model": state}, "step": 5}),
}


@pytest.mark.parametrize(("prefix", "wrap"), FORMS.values(), ids=FORMS)
def test_numbers(tmp_path, prefix, wrap):
    state = elmo_state(prefix)
    file = save(tmp_path / "elmo.th", wrap(state))
    assert is_state_dict(file)
    layers, representation = layers_of(load_state_dict_elmo(file))
    expected, _ = NumpyElmo(OPTIONS, ARRAYS).read(WORDS)
    assert_within_rounding(layers, expected)
    assert_within_rounding(representation, mixed(state, prefix, expected))


@pytest.mark.parametrize("old", [False, True])
def test_a_bilm_alone_and_files_of_old_torch(tmp_path, old):
    file = save(tmp_path / "weights", as_tensors(bilm_state("")), _use_new_zipfile_serialization=not old)
    assert is_state_dict(file)
    convert_state_dict(file, tmp_path / "model")
    layers, mix = layers_of(ElmoModel.from_pretrained(tmp_path / "model"))
    expected, _ = NumpyElmo(OPTIONS, ARRAYS).read(WORDS)
    assert_within_rounding(layers, expected)
    assert_within_rounding(mix, expected.mean(axis=0))


@pytest.mark.parametrize("given", ["beside", "named after it", "argument", "content"])
def test_options(tmp_path, given):
    options = options_with(activation="tanh", cell_clip=0.7, proj_clip=0.9)
    arrays = random_weights(options, seed=8)
    torch.save(elmo_state("", arrays=arrays), tmp_path / "elmo.pt")
    places = {"beside": "options.json", "named after it": "elmo_options.json", "argument": "other.json"}
    argument = options if given == "content" else None
    if given != "content":
        (tmp_path / places[given]).write_text(json.dumps(options), encoding="utf-8")
        argument = tmp_path / "other.json" if given == "argument" else None
    layers, _ = layers_of(load_state_dict_elmo(tmp_path / "elmo.pt", options=argument))
    assert_within_rounding(layers, NumpyElmo(options, arrays).read(WORDS)[0])


def test_what_is_assumed_and_left_out_is_said(tmp_path):
    torch.save(elmo_state("e.") | {"classifier.weight": torch.ones(2, 2)}, tmp_path / "elmo.pt")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "elmo.pt"), str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert "those of all published models are taken (relu, 3, with)" in result.stderr
    assert "(--options)" in result.stderr
    assert "1 arrays, such as classifier.weight, are left out" in result.stderr
    assert "a state dict of AllenNLP's Elmo" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_the_original_program(tmp_path, shared_data):
    """AllenNLP itself saves the state dict of its Elmo, with ELMo's fixture in it, and computes its vectors."""
    python = os.environ.get("HF_ELMO_ALLENNLP_PYTHON")
    if not python:
        pytest.skip("HF_ELMO_ALLENNLP_PYTHON does not name the Python of an environment with AllenNLP 2.10.1")
    elmo = shared_data / "fixtures" / "allennlp_elmo"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    arguments = [python, "-c", _ORIGINAL, elmo / "options.json", elmo / "lm_weights.hdf5", tmp_path]
    subprocess.run(arguments, check=True, env=environment, capture_output=True)
    model = load_state_dict_elmo(tmp_path / "elmo.th", options=elmo / "options.json")
    _, mix = layers_of(model)
    assert_within_rounding(mix[1:-1], np.load(tmp_path / "vectors.npy"))


_ORIGINAL = f"""
import sys
sys.path.append({str(HELPERS)!r})
from allennlp_original import Absent
sys.meta_path.insert(0, Absent())
import numpy, torch
from allennlp.modules.elmo import Elmo, batch_to_ids
options, weights, folder = sys.argv[1:]
elmo = Elmo(options, weights, 1, dropout=0).eval()
with torch.no_grad():
    for number, parameter in enumerate(elmo.scalar_mix_0.parameters()):
        parameter.fill_(0.3 * number - 0.2)
    vectors = elmo(batch_to_ids([{WORDS!r}]))["elmo_representations"][0][0]
torch.save(elmo.state_dict(), folder + "/elmo.th")
numpy.save(folder + "/vectors.npy", vectors.numpy())
"""


# --- what is refused


def _without(key):
    return lambda state: state.pop(key)


def _put(key, value):
    return lambda state: state.update({key: value})


LSTM = "_elmo_lstm._elmo_lstm.backward_layer_1."
EMBEDDING = "_elmo_lstm._token_embedder._char_embedding_weights"
MALFORMED = {
    "no embedding": (_without(EMBEDDING), "holds no ELMo of AllenNLP"),
    "no convolution": (_without("_elmo_lstm._token_embedder.char_conv_0.weight"), "char_conv_0.weight is missing"),
    "no bias": (_without("_elmo_lstm._token_embedder.char_conv_1.bias"), "missing: ", "char_conv_1.bias"),
    "no layer": (_without(LSTM + "state_projection.weight"), f"missing: {LSTM}state_projection.weight"),
    "no projection": (_without("_elmo_lstm._token_embedder._projection.weight"), "missing: ", "_projection.weight"),
    "half a mix": (_without("scalar_mix_0.gamma"), "missing: scalar_mix_0.gamma"),
    "a layer too few in a mix": (_without("scalar_mix_0.scalar_parameters.2"), "scalar_parameters.2"),
    "surplus": (_put("_elmo_lstm._elmo_lstm.peephole", torch.ones(2)), "surplus: _elmo_lstm._elmo_lstm.peephole"),
    "two ELMos": (_put("other._token_embedder._char_embedding_weights", torch.ones(262, 4)), "holds 2 ELMos"),
    "another shape": (_put(LSTM + "state_linearity.bias", torch.ones(76)), f"{LSTM}state_linearity.bias (is (76,)"),
    "no rows": (_put(EMBEDDING, torch.ones(0, 4)), "_char_embedding_weights is of shape (0, 4)"),
    "261 characters": (_put(EMBEDDING, torch.ones(261, 4)), "_char_embedding_weights (is (261, 4), expected (262, 4))"),
    "double": (_put(EMBEDDING, torch.ones(262, 4).double()), "not float32", "_char_embedding_weights (is float64)"),
    "half": (_put(LSTM + "state_linearity.bias", torch.ones(80).half()), "(is float16)"),
    "whole numbers": (_put(LSTM + "state_linearity.bias", torch.ones(80).int()), "(is int32)"),
    "NaN": (_put(LSTM + "state_linearity.bias", torch.full((80,), np.nan)), "infinite or not a number", "(80 of 80"),
    "infinite": (_put("scalar_mix_0.gamma", torch.tensor([np.inf])), "infinite or not a number"),
    "too large": (_put(LSTM + "state_linearity.bias", torch.full((80,), 3e38)), "nothing can be computed"),
    "a list": (_put(LSTM + "state_linearity.bias", [1.0] * 80), "a list, not a tensor"),
    "none": (_put(EMBEDDING, None), "a NoneType, not a tensor"),
    "sparse": (_put(EMBEDDING, torch.ones(262, 4).to_sparse()), "not stored one by one"),
    "stretched": (_put(EMBEDDING, torch.ones(1).expand(262, 4)), "claims 1,048 values"),
}


@pytest.fixture
def refuse(tmp_path):
    def check(source, *parts, **kwargs):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConversionError) as caught:
            convert_state_dict(source, tmp_path / "model", **kwargs)
        for part in (str(tmp_path), *parts):
            assert part in str(caught.value), str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.parametrize(("change", "parts"), [(case[0], case[1:]) for case in MALFORMED.values()], ids=MALFORMED)
def test_malformed(tmp_path, refuse, change, parts):
    state = elmo_state("")
    change(state)
    refuse(save(tmp_path / "elmo.th", state), *parts)


class _Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


OTHERS = {
    "nothing": (b"", "is empty"),
    "no file of torch": (b"hello", "is not a whole file of torch.save"),
    "a pickle": (pickle.dumps({"a": 1}, protocol=2), "is not a whole file of torch.save"),
    "a zip": (b"PK\x05\x06" + bytes(18), "is not a whole file of torch.save"),
    "what git left": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "is not a whole file of torch"),
}


@pytest.mark.parametrize(("content", "part"), OTHERS.values(), ids=OTHERS)
def test_other_files(tmp_path, refuse, content, part):
    (tmp_path / "elmo.th").write_bytes(content)
    assert is_state_dict(tmp_path / "elmo.th")
    refuse(tmp_path / "elmo.th", part)


def test_nothing_is_executed(tmp_path, refuse, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(save(tmp_path / "elmo.pt", elmo_state("") | {"x": _Payload()}), "it wants to call", "was not done")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [100, 2000, 9000])
def test_cut_off(tmp_path, refuse, kept):
    file = save(tmp_path / "elmo.pt", elmo_state(""))
    file.write_bytes(file.read_bytes()[:kept])
    refuse(file, "is not a whole file of torch.save")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([torch.ones(2)], "must hold a state dict"),
        ({}, "It has 0 entries"),
        ({"weight": torch.ones(2)}, "It has 1 entries: weight."),
        ({"elmo.bilstm.forward_layers.0.bias": torch.ones(2)}, "of a model of hf_elmo itself"),
        ({"bert.encoder.layer.0.attention.self.query.weight": torch.ones(2)}, "of a transformer, and no ELMo"),
        ({"a": {"b": {"c": {"d": elmo_state("")}}}}, "holds no ELMo"),
    ],
)
def test_other_contents(tmp_path, refuse, content, part):
    refuse(save(tmp_path / "elmo.pt", content), part)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"n_layers": 3}, "num_layers is 3, by the shapes in the other 2"),
        ({"filters": [[1, 4]]}, "filters is"),
        ({"activation": "gelu"}, "'gelu'"),
        ({"n_characters": 99}, "n_characters is 99"),
    ],
)
def test_options_of_another_model(tmp_path, refuse, changes, part):
    torch.save(elmo_state(""), tmp_path / "elmo.pt")
    (tmp_path / "options.json").write_text(json.dumps(options_with(**changes)), encoding="utf-8")
    refuse(tmp_path / "elmo.pt", str(tmp_path / "options.json"), part)
