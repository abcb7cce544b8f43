"""The matrix products of `matrix_products.py`, against float64."""

import pytest
import torch
from amounts import examples
from hypothesis import example, given
from hypothesis import strategies as st

from hf_elmo.model.products import matrix_products
from hf_elmo.model.products.matrix_products import has_onednn, packed_product, widened_linear


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
