"""Modules of TensorFlow Hub, as google/elmo and DeepPavlov's: against the formulas, and written by TensorFlow."""

import json
import tarfile

import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, options_with
from rounding import assert_within_rounding
from tfhub_format import DEEPPAVLOV, MIX, SPELLINGS, module_variables
from typer.testing import CliRunner

from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.conversion import is_tfhub_module, load_tfhub_module

WORDS = ["Paris", "is", "naïve", "日本", "."]


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
