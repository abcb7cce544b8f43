"""Fresh weights, saved weights, and weights that are partly missing."""

import json
import logging
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import fill, random_words, small_config
from transformers import AutoModel, AutoModelForPreTraining
from transformers.utils import logging as transformers_logging

from hf_elmo import ElmoForPreTraining, ElmoModel

# Large enough for statistics, in seconds: some 10,000 numbers in each kind of weight.
SIZES = {
    "vocab_size": 300,
    "char_embed_dim": 16,
    "filters": [[1, 40], [3, 60]],
    "num_highway_layers": 2,
    "cell_size": 96,
    "projection_dim": 64,
    "num_representations": 2,
}


def assert_uniform(values, bound):
    """Of a uniform distribution on [-bound, bound]: its range, its mean and its variance, within five deviations."""
    values = values.detach().double().flatten()
    assert values.abs().max() <= bound
    assert values.abs().max() > bound * (1 - 20 / len(values))
    assert values.mean().abs() < 5 * bound / math.sqrt(3 * len(values))
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(len(values)))


def assert_normal(values, deviation):
    """Of a normal distribution: its mean and variance, within five deviations, and numbers beyond any uniform one."""
    values = values.detach().double().flatten()
    assert values.mean().abs() < 5 * deviation / math.sqrt(len(values))
    assert values.std() == pytest.approx(deviation, rel=5 / math.sqrt(len(values)))
    assert values.abs().max() > 2.2 * deviation


def assert_fresh_base(model, config, but=()):
    """The initialisation of bilm-tf (bilm/training.py), of all parts but those named."""
    encoder = model.character_encoder
    if "char_embedding" not in but:
        assert not encoder.char_embedding.weight[0].any()
        assert_uniform(encoder.char_embedding.weight[1:], 1)
    if "convolutions" not in but:
        for layer, (width, _) in zip(encoder.convolutions, config.filters, strict=True):
            if config.activation == "relu":
                assert_uniform(layer.weight, 0.05)
            else:
                assert_normal(layer.weight, 1 / math.sqrt(width * config.char_embed_dim))
            assert not layer.bias.any()
    if "highways" not in but:
        assert len(encoder.highways) == config.num_highway_layers
        for highway in encoder.highways:
            for part, bias in ((highway.transform, 0), (highway.carry, -2)):
                assert_normal(part.weight, 1 / math.sqrt(config.num_filters))
                assert (part.bias == bias).all()
    if "projection" not in but and config.has_character_projection:
        assert_normal(encoder.projection.weight, 1 / math.sqrt(config.num_filters))
        assert not encoder.projection.bias.any()
    if "bilstm" not in but:
        size, dim = config.cell_size, config.projection_dim
        for layer in (*model.bilstm.forward_layers, *model.bilstm.backward_layers):
            # TensorFlow has one kernel (input + output, 4 * cell), whose joint fan counts.
            for weight in (layer.weight_ih, layer.weight_hh):
                assert_uniform(weight, math.sqrt(6 / (2 * dim + 4 * size)))
            assert not layer.bias.any()
            if config.has_lstm_projection:
                assert_uniform(layer.weight_hr, math.sqrt(6 / (size + dim)))
    if "scalar_mixes" not in but:
        for mix in model.scalar_mixes:
            assert mix.weights.tolist() == (config.scalar_mix_parameters or [0.0] * (config.num_layers + 1))
            assert mix.gamma.tolist() == [1.0]


def assert_fresh_softmax(model):
    assert_normal(model.softmax.weight, 1 / math.sqrt(model.config.projection_dim))
    assert not model.softmax.bias.any()


def assert_same_parameters(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name


@pytest.fixture
def messages():
    """What transformers logs during a test, warnings and worse."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger = transformers_logging.get_logger("transformers")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


class TestFreshWeights:
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    @pytest.mark.parametrize("changes", [{}, {"num_highway_layers": 0, "projection_dim": 100, "cell_size": 100}])
    def test_as_in_the_original(self, activation, changes):
        torch.manual_seed(0)
        config = small_config(**{**SIZES, "activation": activation, **changes})
        model = ElmoForPreTraining(config)
        assert_fresh_base(model.elmo, config)
        assert_fresh_softmax(model)

    @pytest.mark.parametrize("given", [[0.5, -1.0, 2.0], [0, 1, 0]])
    def test_given_mix_weights(self, given):
        config = small_config(scalar_mix_parameters=given, num_representations=2)
        for mix in ElmoModel(config).scalar_mixes:
            assert mix.weights.tolist() == given

    def test_a_seed_repeats_them(self):
        torch.manual_seed(3)
        one = ElmoForPreTraining(small_config(vocab_size=20))
        torch.manual_seed(3)
        assert_same_parameters(one, ElmoForPreTraining(small_config(vocab_size=20)))


class TestSavedWeights:
    @pytest.mark.parametrize("kind", [ElmoModel, ElmoForPreTraining])
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"num_representations": 3, "num_layers": 3, "activation": "tanh"},
            {"num_highway_layers": 0, "projection_dim": 10, "cell_size": 10, "cell_clip": None},
        ],
    )
    def test_bit_identical(self, tmp_path, kind, fields):
        model = fill(kind(small_config(vocab_size=20, **fields)))
        model.save_pretrained(tmp_path)
        loaded, info = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values())
        assert not loaded.training
        assert_same_parameters(loaded, model)
        # Where weights lie in memory decides which instructions compute with them, and so the last bit of a result;
        # in a file they lie otherwise than in a fresh model, so they are moved to one first.
        moved = kind(loaded.config).eval()
        moved.load_state_dict(loaded.state_dict())
        ids = random_words([4, 2])
        one, other, third = (m(character_ids=ids, output_hidden_states=True) for m in (model, moved, loaded))
        assert torch.equal(one[0], other[0])
        assert all(map(torch.equal, one.hidden_states, other.hidden_states))
        torch.testing.assert_close(third.hidden_states, one.hidden_states, rtol=0, atol=1e-5)

    def test_bit_identical_in_half_precision(self, tmp_path):
        model = fill(ElmoModel(small_config())).bfloat16()
        model.save_pretrained(tmp_path)
        loaded = ElmoModel.from_pretrained(tmp_path)
        assert loaded.dtype == torch.bfloat16
        assert_same_parameters(loaded, model)
        assert ElmoModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32

    def test_through_auto_classes(self, tmp_path):
        model = fill(ElmoForPreTraining(small_config(vocab_size=20)))
        model.save_pretrained(tmp_path)
        language_model = AutoModelForPreTraining.from_pretrained(tmp_path)
        assert type(language_model) is ElmoForPreTraining
        assert_same_parameters(language_model, model)
        base = AutoModel.from_pretrained(tmp_path)
        assert type(base) is ElmoModel
        assert_same_parameters(base, model.elmo)

    def test_base_model_of_a_language_model_is_quiet(self, tmp_path, messages, capsys):
        model = fill(ElmoForPreTraining(small_config(vocab_size=20)))
        model.save_pretrained(tmp_path)
        loaded, info = ElmoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert_same_parameters(loaded, model.elmo)
        assert not any(info.values())
        assert messages == []
        printed = capsys.readouterr()
        assert "softmax" not in printed.out + printed.err

    def test_a_surplus_weight_is_not_passed_over(self, tmp_path, messages):
        """The softmax alone is: the check above would be worth nothing if all were."""
        model = fill(ElmoModel(small_config()))
        model.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        save_file({**weights, "tagger.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
        _, info = ElmoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert info["unexpected_keys"] == {"tagger.weight"}
        assert any("tagger.weight" in message for message in messages)


class TestMissingWeights:
    def save_without(self, folder, model, prefix):
        model.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
        assert len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        return kept

    def test_softmax_of_a_base_model_is_fresh(self, tmp_path, messages):
        base = fill(ElmoModel(small_config(**SIZES)))
        base.save_pretrained(tmp_path)
        torch.manual_seed(0)
        model, info = ElmoForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
        assert info["missing_keys"] == {"softmax.weight", "softmax.bias"}
        assert any("softmax.weight" in message for message in messages)
        assert_same_parameters(model.elmo, base)
        assert_fresh_softmax(model)

    @pytest.mark.parametrize(
        "part",
        [
            "character_encoder.char_embedding",
            "character_encoder.convolutions",
            "character_encoder.highways",
            "character_encoder.projection",
            "bilstm",
            "scalar_mixes",
        ],
    )
    @pytest.mark.parametrize("given", [None, [0.5, -1.0, 2.0]])
    def test_a_missing_part_is_fresh_and_the_others_are_as_saved(self, tmp_path, part, given):
        config = small_config(**SIZES, scalar_mix_parameters=given)
        kept = self.save_without(tmp_path, fill(ElmoModel(config)), part)
        torch.manual_seed(0)
        loaded = ElmoModel.from_pretrained(tmp_path)
        for name, value in kept.items():
            assert torch.equal(loaded.state_dict()[name], value), name
        all_parts = {"char_embedding", "convolutions", "highways", "projection", "bilstm", "scalar_mixes"}
        assert_fresh_base(loaded, config, but=all_parts - {part.split(".")[-1]})

    def test_one_missing_matrix_leaves_its_neighbours_as_saved(self, tmp_path):
        config = small_config(**SIZES)
        kept = self.save_without(tmp_path, fill(ElmoModel(config)), "bilstm.forward_layers.0.weight_hh")
        torch.manual_seed(0)
        loaded = ElmoModel.from_pretrained(tmp_path)
        for name, value in kept.items():
            assert torch.equal(loaded.state_dict()[name], value), name
        fresh = loaded.bilstm.forward_layers[0].weight_hh
        assert_uniform(fresh, math.sqrt(6 / (2 * config.projection_dim + 4 * config.cell_size)))

    def test_more_mixes_than_saved(self, tmp_path):
        """Weights of AllenNLP's several representations: those that are there are kept, the others start afresh."""
        base = fill(ElmoModel(small_config(num_representations=1)))
        base.save_pretrained(tmp_path)
        loaded = ElmoModel.from_pretrained(tmp_path, num_representations=2)
        assert torch.equal(loaded.scalar_mixes[0].weights, base.scalar_mixes[0].weights)
        assert loaded.scalar_mixes[1].weights.tolist() == [0, 0, 0]
        assert loaded.scalar_mixes[1].gamma.tolist() == [1]


class TestFreezing:
    def test_given_mix_weights_stay_frozen(self, tmp_path):
        model = ElmoModel(small_config(scalar_mix_parameters=[0.5, -1.0, 2.0], num_representations=2))
        model.save_pretrained(tmp_path)
        for each in (model, ElmoModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
            for name, parameter in each.named_parameters():
                assert parameter.requires_grad == (not name.startswith("scalar_mixes")), name
        loaded, _ = ElmoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not loaded.scalar_mixes[0].weights.requires_grad

    def test_learned_mix_weights_are_trained(self, tmp_path):
        model = ElmoModel(small_config())
        model.save_pretrained(tmp_path)
        for each in (model, ElmoModel.from_pretrained(tmp_path)):
            assert all(parameter.requires_grad for parameter in each.parameters())

    def test_language_model_trains_all_but_the_mix(self, tmp_path):
        model = ElmoForPreTraining(small_config(vocab_size=20))
        model.save_pretrained(tmp_path)
        for each in (model, ElmoForPreTraining.from_pretrained(tmp_path)):
            for name, parameter in each.named_parameters():
                assert parameter.requires_grad == ("scalar_mixes" not in name), name
            # What the next model makes of the same configuration is its own affair.
            assert each.config.scalar_mix_parameters is None


def test_saved_configuration_is_readable(tmp_path):
    ElmoForPreTraining(small_config(vocab_size=20)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "elmo"
    assert saved["architectures"] == ["ElmoForPreTraining"]
    assert saved["cell_size"] == 7
    assert saved["vocab_size"] == 20


def test_embeddings_are_found():
    model = ElmoForPreTraining(small_config(vocab_size=20))
    assert model.get_input_embeddings() is model.elmo.character_encoder.char_embedding
    assert model.get_output_embeddings() is model.softmax


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (math.nan, "holds numbers that are not finite"),
        (-math.inf, "holds numbers that are not finite"),
        (1e38, r"holds numbers up to 1e\+38, with which nothing can be computed \(weights are at most 1e\+15\)"),
    ],
)
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForPreTraining])
def test_weights_with_which_nothing_can_be_computed(tmp_path, number, message, auto_class):
    """Gates and clips make ordinary numbers of what such a weight gives."""
    fill(ElmoForPreTraining(small_config(vocab_size=9))).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["elmo.bilstm.backward_layers.1.weight_hh"][2, 1] = number
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"bilstm\.backward_layers\.1\.weight_hh {message}"):
        auto_class.from_pretrained(tmp_path)


def test_a_character_model_ties_nothing():
    config = small_config(vocab_size=9)
    # The configuration itself refuses this where it is made.
    config.tie_word_embeddings = True
    model = ElmoForPreTraining(config)
    assert not model.all_tied_weights_keys
    assert "softmax.weight" in model.state_dict()
