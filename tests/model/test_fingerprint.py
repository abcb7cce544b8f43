"""Whether changed weights are seen: certain for rows, columns and slices along an axis, likely for sparse changes."""

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from small_models import fill, random_words, small_config

import hf_elmo
from hf_elmo import ElmoModel
from hf_elmo.model.fingerprint import Fingerprint

SHAPES = [(24, 5), (5, 24), (7, 7), (6, 3, 4), (4, 3, 16), (9,), (1, 1), (1, 30), (64, 64), (130, 2), (3, 200)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def vectors(model, words):
    with torch.no_grad():
        return torch.stack(model(character_ids=words, output_hidden_states=True).hidden_states)


def triple_but_first_column(parameter):
    parameter.data[:, 1:] *= 3


def triple_last_row(parameter):
    parameter.data[-1] *= 3


def through_numpy(parameter):
    view = parameter.detach().numpy()
    view[:, -1] += 0.5


class TestModel:
    """What a model returns after a change that torch does not count is what a fresh model of those weights returns."""

    @pytest.mark.parametrize("change", [triple_but_first_column, triple_last_row, through_numpy])
    @pytest.mark.parametrize(
        "name",
        [
            "bilstm.forward_layers.0.weight_hh",
            "bilstm.backward_layers.1.weight_hr",
            "bilstm.forward_layers.1.weight_ih",
            "character_encoder.projection.weight",
            "character_encoder.highways.0.transform.weight",
        ],
    )
    @pytest.mark.parametrize("remembers", [False, True])
    def test_a_change_of_data_is_seen(self, change, name, remembers):
        model = fill(ElmoModel(small_config(cell_size=24, projection_dim=12))).eval()
        if remembers:
            hf_elmo.remember_words(model)
        words = random_words([6, 3])
        before = vectors(model, words)
        change(model.get_parameter(name))
        fresh = ElmoModel(model.config).eval()
        fresh.load_state_dict(model.state_dict())
        after, expected = vectors(model, words), vectors(fresh, words)
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-4)
        assert (after - before).abs().max() > 1e-2

    def test_a_filter(self):
        model = fill(ElmoModel(small_config())).eval()
        words = random_words([6, 3])
        before = vectors(model, words)
        model.character_encoder.convolutions[1].weight.data[:, :, 1] += 0.5
        fresh = ElmoModel(model.config).eval()
        fresh.load_state_dict(model.state_dict())
        after = vectors(model, words)
        torch.testing.assert_close(after, vectors(fresh, words), rtol=0, atol=1e-4)
        assert (after - before).abs().max() > 1e-2

    @pytest.mark.parametrize("remembers", [False, True])
    def test_single_numbers_are_seen_after_forget_weights(self, remembers):
        model = fill(ElmoModel(small_config(cell_size=24, projection_dim=12))).eval()
        if remembers:
            hf_elmo.remember_words(model)
        words = random_words([6, 3])
        before = vectors(model, words)
        for parameter in model.parameters():
            parameter.data.view(-1)[parameter.numel() // 2] += 0.5
        hf_elmo.forget_weights(model)
        fresh = ElmoModel(model.config).eval()
        fresh.load_state_dict(model.state_dict())
        after = vectors(model, words)
        torch.testing.assert_close(after, vectors(fresh, words), rtol=0, atol=1e-4)
        assert (after - before).abs().max() > 1e-2


@examples(150)
@given(st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.data())
def test_every_changed_slice_is_seen(shape, dtype, data):
    weight, other = torch.ones(shape, dtype=dtype), torch.zeros(3)
    axis = data.draw(st.integers(0, len(shape) - 1))
    place = data.draw(st.integers(0, shape[axis] - 1))
    known = Fingerprint([other, weight])
    assert known.matches([other, weight])
    assert known == Fingerprint([other, weight])
    weight.data.select(axis, place).add_(1)
    assert not known.matches([other, weight])
    assert known != Fingerprint([other, weight])


def test_all_but_the_first_column_of_the_bundled_size():
    """Places at equal distances, a multiple of the row's length, would all be in one column."""
    weight = torch.ones(2560, 192)
    known = Fingerprint([weight])
    weight.data[:, 1:] *= 3
    assert known != Fingerprint([weight])


@pytest.mark.parametrize("changed", [20, 60, 120])
def test_sparse_changes_are_seen_with_the_stated_probability(changed):
    """Of k numbers changed at random in (rows, columns) with rows >= columns all are missed in exp(-k / columns)."""
    rows, columns = 120, 40
    generator = np.random.default_rng(0)
    weight = torch.ones(rows, columns)
    known, missed, tries = Fingerprint([weight]), 0, 500
    for _ in range(tries):
        places = torch.from_numpy(generator.choice(rows * columns, changed, replace=False))
        weight.data.view(-1)[places] = 2
        missed += known == Fingerprint([weight])
        weight.data.fill_(1)
    assert abs(missed / tries - np.exp(-changed / columns)) < 0.07


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_that_are_views_of_others(axis):
    """A parameter need not be contiguous."""
    base = torch.ones(30, 40)
    weight = base.t()[3:20, ::2]
    known = Fingerprint([weight])
    base.data[5:8, 4] = 2
    assert known.matches([weight]) == known.__eq__(Fingerprint([weight]))
    base.data.fill_(1)
    for place in range(weight.shape[axis]):
        weight.data.select(axis, place).add_(1)
        assert not known.matches([weight])
        weight.data.select(axis, place).sub_(1)
        assert known.matches([weight])


def test_other_layouts_and_versions_are_others():
    square = torch.randn(6, 6)
    known = Fingerprint([square])
    assert known == Fingerprint([square])
    assert known != Fingerprint([square.t()])
    assert known != Fingerprint([square.clone()])
    assert known != Fingerprint([square[:5]])
    assert known != Fingerprint([square, square])
    square[:0].zero_()
    assert known != Fingerprint([square])
    assert known != None  # noqa: E711 (the comparison itself is tested)


def test_settings_count():
    weight = torch.randn(3, 2)
    assert Fingerprint([weight], 1.0) == Fingerprint([weight], 1.0)
    assert Fingerprint([weight], 1.0) != Fingerprint([weight], 0.0)


def test_numbers_that_are_none_are_the_same_again():
    weight = torch.full((4, 4), torch.nan)
    assert Fingerprint([weight]) == Fingerprint([weight])


def test_forgetting_leaves_weights_as_they_are():
    model = fill(ElmoModel(small_config()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hf_elmo.forget_weights(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
