"""The character encoder: its short cuts change nothing, and its formulas are those of the paper."""

import math

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from small_models import fill, random_words, small_config
from torch.func import functional_call

from hf_elmo.model.character_encoder import CharacterEncoder, Highway, distinct_rows


def word_rows(words, chars):
    """Rows as the tokenizer makes them: mark, bytes, mark, filling."""
    rows = torch.full((len(words), chars), 261)
    for row, word in zip(rows, words, strict=True):
        inside = [byte + 1 for byte in word][: chars - 2]
        row[: len(inside) + 2] = torch.tensor([259, *inside, 260])
    return rows


rows_of_any_sort = st.integers(1, 12).flatmap(
    lambda chars: st.lists(
        st.one_of(
            st.lists(st.integers(0, 261), min_size=chars, max_size=chars),
            # Few distinct characters, repeated at the end: what trimming looks for.
            st.lists(st.integers(259, 261), min_size=chars, max_size=chars),
            st.tuples(st.integers(0, chars), st.integers(0, 261)).map(
                lambda head: [7] * head[0] + [head[1]] * (chars - head[0])
            ),
        ),
        min_size=0,
        max_size=6,
    ).map(lambda rows: torch.tensor(rows, dtype=torch.long).reshape(-1, chars))
)


@examples(300)
@given(rows_of_any_sort, st.integers(1, 5), st.sampled_from(["relu", "tanh"]))
def test_trimmed_and_distinct_words_have_the_plain_vectors(rows, widest, activation):
    widest = min(widest, rows.shape[1])
    filters = [[1, 3], [widest, 4]]
    length = max(rows.shape[1], 3)
    rows = torch.cat([rows, rows[:, -1:].expand(-1, length - rows.shape[1])], dim=1)
    config = small_config(filters=filters, activation=activation, max_characters_per_token=length)
    encoder = fill(CharacterEncoder(config)).double()
    with torch.no_grad():
        torch.testing.assert_close(encoder(rows), encoder.encode(rows), rtol=0, atol=1e-13)
        torch.testing.assert_close(encoder.encode(encoder.trim(rows)), encoder.encode(rows), rtol=0, atol=1e-13)


@examples(100)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=10))
def test_words_as_the_tokenizer_makes_them(words):
    encoder = fill(CharacterEncoder(small_config(max_characters_per_token=50, filters=[[1, 4], [2, 3], [5, 4]])))
    rows = word_rows(words, 50)
    with torch.no_grad():
        torch.testing.assert_close(encoder(rows), encoder.encode(rows), rtol=0, atol=1e-5)
    # What trimming is for: short words cost few characters.
    longest = min(max(map(len, words)), 48) + 2
    assert encoder.trim(rows).shape[1] <= min(longest + 5, 50)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 3), (0, 3), (2, 0), ()])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_leading_dimensions_and_integer_types(shape, dtype):
    encoder = fill(CharacterEncoder(small_config()))
    rows = torch.randint(1, 262, (*shape, 8), generator=torch.Generator().manual_seed(0)).to(dtype)
    vectors = encoder(rows)
    assert vectors.shape == (*shape, 5)
    for row, vector in zip(rows.reshape(-1, 8), vectors.reshape(-1, 5), strict=True):
        torch.testing.assert_close(encoder.encode(row.long()[None])[0], vector, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_row_of_padding_is_made_of_the_biases_alone(activation):
    """Layer 0 is not zero there: whoever uses it has to mask it."""
    encoder = fill(CharacterEncoder(small_config(activation=activation, num_highway_layers=0)))
    squash = {"relu": lambda x: max(x, 0), "tanh": math.tanh}[activation]
    features = torch.tensor([squash(bias) for layer in encoder.convolutions for bias in layer.bias.tolist()])
    expected = features @ encoder.projection.weight.T + encoder.projection.bias
    torch.testing.assert_close(encoder(torch.zeros(1, 8, dtype=torch.long))[0], expected)
    assert expected.abs().max() > 0.1


def test_highway():
    """The gate multiplies the transformed input: `y = g * t + (1 - g) * x` (bilm-tf, bilm/model.py)."""
    highway = fill(Highway(6)).double()
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    p = {name: value.detach().numpy() for name, value in highway.named_parameters()}
    gate = 1 / (1 + np.exp(-(x.numpy() @ p["carry.weight"].T + p["carry.bias"])))
    transformed = np.maximum(x.numpy() @ p["transform.weight"].T + p["transform.bias"], 0)
    expected = gate * transformed + (1 - gate) * x.numpy()
    np.testing.assert_allclose(highway(x).detach(), expected, rtol=0, atol=1e-13)


def test_parts_are_absent_where_the_options_have_none():
    full = CharacterEncoder(small_config(num_highway_layers=2))
    assert len(full.highways) == 2
    assert full.projection.weight.shape == (5, 10)
    assert full.char_embedding.weight.shape == (262, 3)
    assert [tuple(layer.weight.shape) for layer in full.convolutions] == [(4, 3, 1), (6, 3, 3)]
    bare = CharacterEncoder(small_config(num_highway_layers=0, projection_dim=10, cell_size=12))
    assert len(bare.highways) == 0
    assert bare.projection is None
    assert bare(torch.ones(2, 8, dtype=torch.long)).shape == (2, 10)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients(activation):
    config = small_config(char_vocab_size=6, filters=[[1, 2], [3, 3]], projection_dim=2, activation=activation)
    encoder = fill(CharacterEncoder(config), seed=3).double()
    rows = random_words([3], characters=6)[0]
    names, values = zip(*encoder.named_parameters(), strict=True)

    def encode(*parameters):
        # `encode` cannot be called through functional_call, which calls `forward`.
        with torch.nn.utils.stateless._reparametrize_module(encoder, dict(zip(names, parameters, strict=True))):
            return encoder.encode(rows)

    def forward(*parameters):
        return functional_call(encoder, dict(zip(names, parameters, strict=True)), (rows,))

    variables = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(encode, variables)
    assert torch.autograd.gradcheck(forward, variables)


def test_gradients_of_words_that_recur_add_up():
    encoder = fill(CharacterEncoder(small_config())).double()
    rows = random_words([9, 4])
    weights = torch.randn(2, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    assert len(rows.flatten(0, 1).unique(dim=0)) < 13
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    ours = torch.autograd.grad((encoder(rows) * weights).sum(), parameters)
    plain = torch.autograd.grad((encoder.encode(rows.flatten(0, 1)) * weights.flatten(0, 1)).sum(), parameters)
    for name, one, other in zip(names, ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_padding_is_not_trained():
    encoder = fill(CharacterEncoder(small_config()))
    rows = word_rows([b"a", b""], 8)
    rows[1, 4:] = 0
    encoder(rows).sum().backward()
    gradient = encoder.char_embedding.weight.grad
    assert not gradient[0].any()
    assert gradient[[259, 260]].any(dim=-1).all()


@examples(200)
@given(
    st.integers(1, 4).flatmap(
        lambda columns: st.lists(st.lists(st.integers(-1, 2), min_size=columns, max_size=columns), max_size=20).map(
            lambda rows: torch.tensor(rows, dtype=torch.long).reshape(-1, columns)
        )
    )
)
def test_distinct_rows(rows):
    distinct, index = distinct_rows(rows)
    assert torch.equal(distinct[index], rows)
    assert sorted(distinct.tolist()) == sorted(map(list, {tuple(row) for row in rows.tolist()}))


@pytest.mark.parametrize("rows", [[[1, 2], [2, 1], [1, 2]], [[0, 3], [3, 0], [1, 2], [2, 1], [0, 3]]])
def test_distinct_rows_with_one_hash(rows, monkeypatch):
    """Rows whose hashes meet are still told apart: with all factors 1 the hash is a mere sum."""
    rows = torch.tensor(rows)
    monkeypatch.setattr(torch, "randint", lambda low, high, size, generator: torch.ones(size, dtype=torch.long))
    assert len(rows.sum(dim=1).unique()) == 1
    distinct, index = distinct_rows(rows)
    assert torch.equal(distinct[index], rows)
    assert len(distinct) == len({tuple(row) for row in rows.tolist()})


def test_finding_distinct_rows_leaves_the_seed_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    distinct_rows(torch.ones(5, 3, dtype=torch.long))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("wrong", [-1, 262, 1000])
def test_unknown_character(wrong):
    encoder = fill(CharacterEncoder(small_config()))
    rows = torch.ones(2, 8, dtype=torch.long)
    rows[1, 3] = wrong
    with pytest.raises(ValueError, match=rf"from {min(wrong, 1)} to {max(wrong, 1)}.*characters 0 to 261.*tokenizer"):
        encoder(rows)


@pytest.mark.parametrize("chars", [0, 2, 7, 9])
def test_rows_of_another_width(chars):
    encoder = fill(CharacterEncoder(small_config()))
    with pytest.raises(ValueError, match=f"rows of {chars} characters, but this model reads 8"):
        encoder(torch.ones(2, chars, dtype=torch.long))
