"""The scalar mix against its formula (Peters et al. 2018, equation 1)."""

import math

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from low_precision import assert_as_near, assert_as_near_on_average, double
from small_models import mask_of
from torch.func import functional_call

from hf_elmo.model.scalar_mix import ScalarMix


def random_layers(count=3, shape=(2, 4, 5), dtype=torch.float64):
    """Layers of unlike means and spreads, so that it matters how they are normalised."""
    generator = torch.Generator().manual_seed(count)
    return [(torch.randn(shape, generator=generator) * (k + 1) + 2 * k).to(dtype) for k in range(count)]


def normalized_by_hand(layer, mask):
    """As AllenNLP: one mean and variance of all elements that the mask keeps; but padding, which it shifts, is 0."""
    kept = layer.numpy()[mask.numpy()]
    return (layer.numpy() - kept.mean()) / np.sqrt(kept.var() + 1e-12) * mask.numpy()[..., None]


@examples(50)
@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=5), st.floats(-3, 3, width=32), st.booleans())
def test_formula(weights, gamma, do_layer_norm):
    mix = ScalarMix(len(weights), do_layer_norm=do_layer_norm).double()
    with torch.no_grad():
        mix.weights.copy_(torch.tensor(weights))
        mix.gamma.fill_(gamma)
    layers, mask = random_layers(len(weights)), mask_of([4, 2])
    arrays = [normalized_by_hand(layer, mask) if do_layer_norm else layer.numpy() for layer in layers]
    shares = [math.exp(weight) for weight in weights]
    expected = gamma * sum(share / sum(shares) * array for share, array in zip(shares, arrays, strict=True))
    np.testing.assert_allclose(mix(layers, mask).detach(), expected, rtol=0, atol=1e-10)


def test_it_starts_as_the_mean():
    layers = random_layers()
    torch.testing.assert_close(ScalarMix(3).double()(layers), sum(layers) / 3)


@pytest.mark.parametrize("initial", [[0.5, -1.0, 2.0], [0, 1, 0]])
def test_initial_weights(initial):
    mix = ScalarMix(3, initial_weights=initial)
    assert mix.weights.tolist() == initial
    assert mix.weights.dtype == torch.float32
    assert mix.gamma.tolist() == [1]


def test_one_layer_alone_with_a_large_weight():
    layers = random_layers()
    torch.testing.assert_close(ScalarMix(3, initial_weights=[0.0, 1e4, 0.0]).double()(layers), layers[1])


@pytest.mark.parametrize("do_layer_norm", [False, True])
def test_gradients(do_layer_norm):
    mix = ScalarMix(2, do_layer_norm=do_layer_norm)
    mask = mask_of([3, 1])

    def run(first, second, weights, gamma):
        return functional_call(mix, {"weights": weights, "gamma": gamma}, ([first, second], mask))

    variables = [
        *random_layers(2, (2, 3, 2)),
        torch.tensor([0.3, -0.2], dtype=torch.float64),
        torch.tensor([1.7], dtype=torch.float64),
    ]
    assert torch.autograd.gradcheck(run, [value.requires_grad_() for value in variables])


@pytest.mark.parametrize("lengths", [[0, 0], [1, 0]])
def test_layer_norm_of_few_words_is_finite(lengths):
    layers, mask = random_layers(3, (2, 1, 4)), torch.tensor(lengths).unsqueeze(1) > 0
    assert ScalarMix(3, do_layer_norm=True).double()(layers, mask).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layer_norm_in_half_precision(dtype):
    """A batch has more elements than float16 can count to (65,504)."""
    layers, mask = random_layers(3, (4, 40, 512), torch.float32), mask_of([40, 30, 40, 1])
    mix = ScalarMix(3, do_layer_norm=True)
    exact = double(mix)(double(layers), mask)
    # What the rounding of the layers and of the result costs by themselves.
    cost = double(mix)([layer.to(dtype).double() for layer in layers], mask).to(dtype)
    mixed = mix.to(dtype)([layer.to(dtype) for layer in layers], mask)
    assert mixed.dtype == dtype
    assert_as_near(mixed, cost, exact)
    assert_as_near_on_average(mixed, cost, exact)


def test_errors():
    mix = ScalarMix(3)
    with pytest.raises(ValueError, match="weights for 3 layers, but was given 2"):
        mix(random_layers(2))
    with pytest.raises(ValueError, match="do_layer_norm needs the mask"):
        ScalarMix(3, do_layer_norm=True)(random_layers(3))
