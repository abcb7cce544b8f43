"""The matrix products of `matrix_products.py`, against float64."""

import pytest
import torch
from amounts import examples
from hypothesis import example, given
from hypothesis import strategies as st

from hf_elmo.model.products import matrix_products
from hf_elmo.model.products.matrix_products import (
    PRODUCTS,
    half_product,
    has_half,
    has_onednn,
    packed_product,
    widened_linear,
)

needs_half = pytest.mark.skipif(not has_half(), reason="this torch has no products of weights in float16")


@examples(50)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans())
def test_packed_products(rows, inside, outside, transposed, adds):
    weight = torch.randn(outside, inside)
    if not has_onednn(weight):
        pytest.skip("this torch has no oneDNN")
    x = torch.randn(rows, outside if transposed else inside)
    expected = x @ (weight if transposed else weight.t())
    summand = torch.randn_like(expected) if adds else None
    product = packed_product(weight, transposed)(x, summand)
    torch.testing.assert_close(product, expected + (summand if adds else 0), rtol=1e-4, atol=1e-5)


@examples(30)
@given(
    rows=st.integers(1, 70),
    inside=st.integers(1, 40),
    outside=st.integers(1, 40),
    numbers=st.integers(1, 500),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    has_bias=st.booleans(),
    is_transposed=st.booleans(),
)
@example(3, 7, 5, 7 * 5, torch.bfloat16, True, False)
def test_a_weight_that_is_widened_in_parts(rows, inside, outside, numbers, dtype, has_bias, is_transposed):
    """Of 16 bits nothing but the weight's own rounding is left: rows and results are in float32."""
    weight = torch.randn(inside, outside).to(dtype).t() if is_transposed else torch.randn(outside, inside).to(dtype)
    x, bias = torch.randn(rows, inside), torch.randn(outside) if has_bias else None
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(matrix_products, "_NUMBERS_TO_WIDEN", numbers)
        found = widened_linear(x, weight, bias)
    expected = x.double() @ weight.double().t() + (bias if has_bias else 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


@needs_half
@examples(60)
@given(
    rows=st.integers(0, 70),
    inside=st.integers(1, 40),
    outside=st.integers(1, 40),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    size=st.integers(-100, 100),
    is_transposed=st.booleans(),
    adds=st.booleans(),
)
@example(3, 7, 5, torch.bfloat16, 0, False, False)
@example(3, 7, 5, torch.bfloat16, -40, True, True)
@example(3, 7, 5, torch.bfloat16, 40, False, True)
def test_a_weight_of_16_bits_by_a_copy_in_float16(rows, inside, outside, dtype, size, is_transposed, adds):
    """Nothing but the weight's own rounding is left, as large or small as its numbers are, and from 1 to 2**-40."""
    if dtype == torch.float16:
        size = size // 10
    numbers = torch.randn(outside, inside) * 2.0 ** -torch.randint(0, 40, (outside, inside)) * 2.0**size
    weight = numbers.to(dtype)
    x = torch.randn(rows, outside if is_transposed else inside)
    expected = x.double() @ (weight if is_transposed else weight.t()).double()
    summand = torch.randn(expected.shape) * 2.0**size if adds else None
    if summand is not None:
        expected += summand
    found = half_product(weight.float(), is_transposed)(x, None if summand is None else summand.clone())
    assert found.dtype == torch.float32
    # Of the sum of all parts' sizes, as a sum in float32 is.
    largest = weight.double().abs().max() * x.abs().sum(dim=1, keepdim=True).clamp(min=1) + 2.0**size * 5 * adds
    assert ((found - expected).abs() <= 2e-7 * largest).all()


@needs_half
@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_a_weight_that_is_not_finite_is_not_made_finite(number):
    """FBGEMM takes the largest number of float16, 65,504, for an infinite one."""
    weight = torch.eye(3)
    weight[0, 0] = number
    x = torch.ones(2, 3)
    torch.testing.assert_close(half_product(weight)(x), x @ weight.t(), equal_nan=True)


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_a_product_may_overwrite_what_is_added_but_nothing_else(name):
    weight, x, summand = torch.randn(9, 4), torch.randn(3, 4), torch.randn(3, 9)
    if (name == "packed" and not has_onednn(weight)) or (name == "half" and not has_half()):
        pytest.skip(f"this torch has no product {name}")
    kept = weight.clone(), x.clone()
    product = PRODUCTS[name](weight)
    expected = product(x) + summand
    torch.testing.assert_close(product(x, summand.clone()), expected)
    assert torch.equal(weight, kept[0])
    assert torch.equal(x, kept[1])
