"""Files of torch that are no state dict of AllenNLP's Elmo, or a spoilt one: one error, and nothing left behind."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from allennlp_format import elmo_state
from original_format import OPTIONS, options_with

from hf_elmo.conversion import ConversionError, convert_state_dict, is_state_dict


def save(path, content, **how):
    torch.save(content, path, **how)
    (path.parent / "options.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    return path


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


# What names the ELMo, and counts its parts, is missed otherwise than by its name.
COUNTED = {
    "_elmo_lstm._token_embedder._char_embedding_weights": "holds no ELMo",
    "_elmo_lstm._elmo_lstm.forward_layer_1.state_linearity.weight": "num_layers is 2, by the shapes in the other 1",
    "_elmo_lstm._token_embedder.char_conv_1.weight": "by the shapes in the other [[1, 4]]",
    "_elmo_lstm._token_embedder.char_conv_2.weight": "by the shapes in the other [[1, 4], [2, 6]]",
    "_elmo_lstm._token_embedder._highways._layers.0.weight": "num_highway_layers is 2, by the shapes in the other 0",
    "_elmo_lstm._token_embedder._highways._layers.1.weight": "num_highway_layers is 2, by the shapes in the other 1",
}
KEYS = sorted(elmo_state(""))


@pytest.fixture
def refuse(refused_by):
    return refused_by(convert_state_dict)


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


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key(tmp_path, refuse, key):
    state = elmo_state("")
    del state[key]
    refuse(save(tmp_path / "elmo.th", state), COUNTED.get(key, key))


@pytest.mark.parametrize(
    "place", ["_elmo_lstm._token_embedder.", "_elmo_lstm._elmo_lstm.", "scalar_mix_0.", "_elmo_lstm."]
)
def test_a_surplus_key(tmp_path, refuse, place):
    state = elmo_state("") | {f"{place}zebra": torch.ones(1)}
    refuse(save(tmp_path / "elmo.th", state), f"surplus: {place}zebra")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("_elmo_lstm._token_embedder.char_conv_0.weight", (4, 4)),
        ("_elmo_lstm._token_embedder.char_conv_2.bias", (7,)),
        ("_elmo_lstm._token_embedder._highways._layers.0.weight", (36, 17)),
        ("_elmo_lstm._token_embedder._highways._layers.1.bias", ()),
        ("_elmo_lstm._token_embedder._projection.weight", (18, 6)),
        ("_elmo_lstm._elmo_lstm.forward_layer_0.input_linearity.weight", (80, 7)),
        ("_elmo_lstm._elmo_lstm.forward_layer_0.state_projection.weight", (20, 6)),
        ("scalar_mix_0.gamma", ()),
        ("scalar_mix_0.scalar_parameters.1", (2,)),
    ],
)
def test_another_shape(tmp_path, refuse, key, shape):
    refuse(save(tmp_path / "elmo.th", elmo_state("") | {key: torch.ones(shape)}), key, str(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.bool, torch.uint8])
def test_another_dtype(tmp_path, refuse, dtype):
    state = elmo_state("")
    state[LSTM + "state_linearity.bias"] = torch.ones(80).to(dtype)
    refuse(save(tmp_path / "elmo.th", state), f"not float32: {LSTM}state_linearity.bias (is {str(dtype)[6:]})")


def test_a_cut_off_file_of_old_torch(tmp_path, refuse):
    file = save(tmp_path / "elmo.th", elmo_state(""), _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-2000])
    refuse(file, "is not a whole file of torch.save")


@pytest.mark.parametrize("old", [True, False])
def test_a_payload(tmp_path, refuse, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    refuse(save(tmp_path / "elmo.pt", _Payload(), _use_new_zipfile_serialization=not old), "elmo.pt")
    assert not (tmp_path / "executed").exists()


def test_packed_parts(tmp_path, refuse):
    file, stream = save(tmp_path / "elmo.pt", elmo_state("")), io.BytesIO()
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member))
    file.write_bytes(stream.getvalue())
    refuse(file, "is packed", "torch.save never")


def test_damaged_bytes(tmp_path):
    """Some hit values, which nothing tells from others; every other one is refused, and never otherwise."""
    whole = save(tmp_path / "elmo.pt", elmo_state("")).read_bytes()
    refused = 0
    for place in [*range(4), *range(30, 1200, 60), *range(len(whole) - 22, len(whole), 3)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "elmo.pt").write_bytes(damaged)
        try:
            convert_state_dict(tmp_path / "elmo.pt", tmp_path / f"model-{place}")
        except ConversionError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("text", "part"), [("", "is no JSON file"), ("[]", "must hold a JSON object"), ('{"lstm": 3}', "options.json")]
)
def test_no_options(tmp_path, refuse, text, part):
    file = save(tmp_path / "elmo.pt", elmo_state(""))
    (tmp_path / "options.json").write_text(text, encoding="utf-8")
    refuse(file, part)


def test_places(tmp_path, refuse):
    file = save(tmp_path / "elmo.pt", elmo_state(""))
    refuse(tmp_path / "nowhere.pt", "nowhere.pt is not a file")
    refuse(file, "nowhere.json is not a file", options=tmp_path / "nowhere.json")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").touch()
    refuse(file, "model is not empty")
