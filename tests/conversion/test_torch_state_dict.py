"""State dicts of AllenNLP's Elmo without an archive, against the formulas and the original program."""

import json
import os
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
from hf_elmo.conversion import convert_state_dict, is_state_dict, load_state_dict_elmo

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
