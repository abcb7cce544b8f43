"""The configuration: presets, options.json both ways, and a reason with a remedy for what cannot be."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_config
from transformers import AutoConfig

from hf_elmo import ElmoConfig, ElmoModel

# The options of the published "original" model, as its file has them.
ORIGINAL = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 512,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 4096,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "embedding": {"dim": 16},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}

# What bin/train_elmo.py writes besides: keys for the training program alone.
TRAINING = {
    **copy.deepcopy(ORIGINAL),
    "bidirectional": True,
    "dropout": 0.1,
    "all_clip_norm_val": 10.0,
    "n_epochs": 10,
    "n_train_tokens": 768648884,
    "batch_size": 128,
    "n_tokens_vocab": 793471,
    "unroll_steps": 20,
    "n_negative_samples_batch": 8192,
}
TRAINING["char_cnn"]["n_characters"] = 261


def edited(options, path, value):
    """A copy of the options with another value at `path` ("lstm.dim"), or without it if the value is `...`."""
    options = copy.deepcopy(options)
    *sections, key = path.split(".")
    section = options
    for name in sections:
        section = section[name]
    if value is ...:
        del section[key]
    else:
        section[key] = value
    return options


@pytest.mark.parametrize(
    ("preset", "published"), [("small", 13_593_312), ("medium", 28_027_744), ("original", 93_600_864)]
)
def test_presets_have_the_published_parameter_counts(preset, published):
    with torch.device("meta"):
        model = ElmoModel(ElmoConfig.from_preset(preset))
    mixes = sum(parameter.numel() for parameter in model.scalar_mixes.parameters())
    assert mixes == 4
    assert sum(parameter.numel() for parameter in model.parameters()) - mixes == published


def test_the_default_is_the_original():
    assert ElmoConfig().to_options() == ORIGINAL
    assert ElmoConfig().to_dict() == ElmoConfig.from_preset("original").to_dict()


def test_preset_with_other_fields():
    config = ElmoConfig.from_preset("small", num_layers=3, vocab_size=100)
    assert (config.cell_size, config.num_layers, config.vocab_size) == (1024, 3, 100)
    with pytest.raises(ValueError, match="no preset 'large'; the presets are small, medium, original"):
        ElmoConfig.from_preset("large")


def test_presets_do_not_share_their_filters():
    ElmoConfig().filters[0][1] = 5
    ElmoConfig.from_preset("small").filters.append([8, 8])
    assert ElmoConfig().to_options() == ORIGINAL


def test_options_are_read():
    config = ElmoConfig.from_options(TRAINING)
    assert config.char_embed_dim == 16
    assert config.filters == ORIGINAL["char_cnn"]["filters"]
    assert config.num_filters == 2048
    assert config.num_highway_layers == 2
    assert config.activation == "relu"
    assert config.max_characters_per_token == 50
    assert config.char_vocab_size == 262
    assert (config.cell_size, config.projection_dim, config.num_layers) == (4096, 512, 2)
    assert (config.cell_clip, config.proj_clip, config.forget_bias) == (3, 3, 1)
    assert config.use_skip_connections is True
    assert config.dropout == 0.1
    assert config.hidden_size == 1024
    assert config.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("path", "field", "expected"),
    [
        ("lstm.use_skip_connections", "use_skip_connections", False),
        ("lstm.cell_clip", "cell_clip", None),
        ("lstm.proj_clip", "proj_clip", None),
        ("lstm.n_layers", "num_layers", 1),
        ("char_cnn.n_highway", "num_highway_layers", 0),
        ("char_cnn.n_characters", "char_vocab_size", 262),
        ("dropout", "dropout", 0.1),
    ],
)
def test_absent_options_mean_what_they_mean_to_bilm_tf(path, field, expected):
    options = edited(TRAINING, path, ...)
    config = ElmoConfig.from_options(options)
    assert getattr(config, field) == expected
    if path != "char_cnn.n_characters":
        assert config.to_options() == options


def test_every_key_and_value_survives():
    """Also keys that nothing here knows, at every level; and numbers and nulls as they were written."""
    options = edited(edited(edited(TRAINING, "lstm.note", [1, {"a": None}]), "char_cnn.extra", "x"), "mine", {"b": 2})
    options = edited(edited(options, "lstm.use_skip_connections", None), "char_cnn.n_highway", None)
    before = copy.deepcopy(options)
    written = ElmoConfig.from_options(options).to_options()
    assert json.dumps(written, sort_keys=True) == json.dumps(before, sort_keys=True)
    assert options == before


def test_what_was_changed_is_written():
    config = ElmoConfig.from_options(TRAINING, num_layers=4, cell_clip=None)
    config.proj_clip = 2.5
    config.filters = [[1, 8]]
    options = config.to_options()
    expected = edited(TRAINING, "lstm.n_layers", 4)
    for path, value in (("lstm.cell_clip", None), ("lstm.proj_clip", 2.5), ("char_cnn.filters", [[1, 8]])):
        expected = edited(expected, path, value)
    assert options == expected
    options["char_cnn"]["filters"].append([9, 9])
    assert config.filters == [[1, 8]]


def test_options_are_copied_on_the_way_in_and_out():
    options = copy.deepcopy(TRAINING)
    config = ElmoConfig.from_options(options)
    options["char_cnn"]["filters"].append([9, 9])
    options["n_epochs"] = 99
    config.to_options()["n_epochs"] = 98
    config.to_options()["lstm"]["dim"] = 1
    assert config.to_options() == TRAINING


optional = {
    "lstm.use_skip_connections": st.sampled_from([..., None, False, True]),
    "lstm.cell_clip": st.sampled_from([..., None, 3, 3.0, 0.5]),
    "lstm.proj_clip": st.sampled_from([..., None, 3, 3.0, 0.5]),
    "lstm.n_layers": st.sampled_from([..., 1, 2, 5]),
    "lstm.projection_dim": st.sampled_from([512, 4096, 1]),
    "char_cnn.n_highway": st.sampled_from([..., None, 0, 1, 2]),
    "char_cnn.n_characters": st.sampled_from([261, 262]),
    "char_cnn.activation": st.sampled_from(["relu", "tanh"]),
    "char_cnn.max_characters_per_token": st.sampled_from([7, 50, 100]),
    "dropout": st.sampled_from([..., None, 0, 0.1, 0.5]),
}


@settings(deadline=None)
@given(st.fixed_dictionaries(optional))
def test_round_trip_of_any_options(values):
    options = copy.deepcopy(TRAINING)
    for path, value in values.items():
        options = edited(options, path, value)
    config = ElmoConfig.from_options(options)
    assert json.dumps(config.to_options(), sort_keys=True) == json.dumps(options, sort_keys=True)
    again = ElmoConfig.from_dict(json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    assert json.dumps(again.to_options(), sort_keys=True) == json.dumps(options, sort_keys=True)


@pytest.mark.parametrize(
    "path",
    [
        "lstm",
        "char_cnn.embedding",
        "char_cnn.embedding.dim",
        "char_cnn.filters",
        "char_cnn.activation",
        "char_cnn.max_characters_per_token",
        "lstm.dim",
        "lstm.projection_dim",
    ],
)
def test_missing_options(path):
    with pytest.raises(ValueError, match=rf"options\.json: the key {path}[.\w]* is missing"):
        ElmoConfig.from_options(edited(ORIGINAL, path, ...))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("char_cnn.n_characters", 260, r"n_characters is 260; an ELMo of UTF-8 bytes has 261 .* or 262"),
        ("char_cnn.n_characters", None, r"n_characters is None"),
        ("char_cnn", [1], r"options\.json: char_cnn must be a JSON object, was: \[1\]"),
        ("char_cnn.embedding", 16, r"options\.json: char_cnn\.embedding must be a JSON object, was: 16"),
        ("lstm.dim", "4096", "cell_size must be a whole number of at least 1, was: '4096'"),
        ("lstm.dim", 4096.5, "cell_size must be a whole number of at least 1, was: 4096.5"),
        ("lstm.n_layers", 0, "num_layers must be a whole number of at least 1, was: 0"),
        ("lstm.projection_dim", True, "projection_dim must be a whole number of at least 1, was: True"),
        ("lstm.cell_clip", -3, "cell_clip must be a number above 0, or None for no clipping, was: -3"),
        ("char_cnn.n_highway", -1, "num_highway_layers must be a whole number of at least 0, was: -1"),
        ("char_cnn.activation", "selu", "activation must be 'relu' or 'tanh', was: 'selu'"),
        ("dropout", "0.1", "dropout must be at least 0 and below 1, was: '0.1'"),
        ("dropout", 1, "dropout must be at least 0 and below 1, was: 1"),
        ("char_cnn.filters", [], r"filters must be a list of \[width, count\] pairs, was: \[\]"),
        ("char_cnn.filters", [[60, 2]], "width 60 does not fit into a word of 50 characters: raise max_characters"),
    ],
)
def test_impossible_options(path, value, message):
    with pytest.raises(ValueError, match=message):
        ElmoConfig.from_options(edited(ORIGINAL, path, value))


@pytest.mark.parametrize("options", [[], None, "{}", 3])
def test_options_that_are_no_object(options):
    with pytest.raises(ValueError, match=f"must hold a JSON object, but holds {type(options).__name__}"):
        ElmoConfig.from_options(options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection_dim": 8}, r"projection_dim \(8\) is larger than cell_size \(7\).*lower projection_dim, or make"),
        ({"hidden_size": 12}, r"hidden_size is 12, but it is twice projection_dim \(5\).*set projection_dim to 6"),
        ({"filters": "1,2"}, r"filters must be a list of \[width, count\] pairs, was: '1,2'"),
        ({"filters": [[1, 2, 3]]}, r"one entry is \[1, 2, 3\]"),
        ({"filters": [5]}, "one entry is 5"),
        ({"filters": [[0, 2]]}, "a filter's width must be a whole number of at least 1, was: 0"),
        ({"filters": [[1, 0]]}, "a filter's count must be a whole number of at least 1, was: 0"),
        ({"filters": [[9, 2]]}, "width 9 does not fit into a word of 8 characters: raise .* or take narrower filters"),
        ({"max_characters_per_token": 2}, "max_characters_per_token must be a whole number of at least 3, was: 2"),
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1, was: 0"),
        ({"char_vocab_size": 0}, "char_vocab_size must be a whole number of at least 1, was: 0"),
        ({"char_embed_dim": -4}, "char_embed_dim must be a whole number of at least 1, was: -4"),
        ({"num_representations": 0}, "num_representations must be a whole number of at least 1, was: 0"),
        ({"activation": "gelu"}, "activation must be 'relu' or 'tanh', was: 'gelu'"),
        ({"cell_clip": 0}, "cell_clip must be a number above 0, or None for no clipping, was: 0"),
        ({"proj_clip": float("inf")}, "proj_clip must be a number above 0, or None for no clipping, was: inf"),
        ({"proj_clip": "3"}, "proj_clip must be a number above 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, was: 1.0"),
        ({"representation_dropout": -0.1}, "representation_dropout must be at least 0 and below 1, was: -0.1"),
        ({"forget_bias": float("nan")}, "forget_bias must be a finite number, was: nan"),
        ({"scalar_mix_parameters": [0.0, 1.0]}, "must be 3 numbers, one for the word layer and one for each of the 2"),
        ({"scalar_mix_parameters": [0.0, 1.0, None]}, "scalar_mix_parameters must be 3 numbers"),
        ({"scalar_mix_parameters": 1.0}, "scalar_mix_parameters must be 3 numbers"),
    ],
)
def test_wrong_combinations(fields, message):
    with pytest.raises(ValueError, match=message):
        small_config(**fields)


def test_to_options_of_other_characters():
    with pytest.raises(ValueError, match="with 262 characters; this one has 300, and cannot be written"):
        small_config(char_vocab_size=300).to_options()


def test_saving_and_loading(tmp_path):
    config = ElmoConfig.from_options(
        TRAINING, num_representations=2, scalar_mix_parameters=[0.5, 1.0, -2.0], vocab_size=50, do_layer_norm=True
    )
    config.save_pretrained(tmp_path)
    for loaded in (ElmoConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is ElmoConfig
        ours, theirs = config.to_dict(), loaded.to_dict()
        assert {key: value for key, value in theirs.items() if key != "_name_or_path"} == {
            key: value for key, value in ours.items() if key != "_name_or_path"
        }
        assert loaded.to_options() == TRAINING
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "elmo"


def test_hidden_size_follows_from_the_projection():
    assert small_config().hidden_size == 10
    assert small_config(hidden_size=10).hidden_size == 10
    assert small_config(projection_dim=7).hidden_size == 14


def test_projections_are_absent_where_sizes_agree():
    assert small_config().has_lstm_projection
    assert small_config().has_character_projection
    equal = small_config(cell_size=10, projection_dim=10)
    assert not equal.has_lstm_projection
    assert not equal.has_character_projection
