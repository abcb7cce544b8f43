"""Matrix products of weights in 8 bits: a scale for each output, inputs quantised anew for each product."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


def int8_product(weight: Tensor) -> Callable[..., Tensor]:
    """As `matrix_products.packed_product`, with the weight in 8 bits, by torch's dynamic quantised linear.

    Args:
        weight: ``(out, in)``, of any floating dtype.

    Returns:
        A function of rows and, optionally, of what is to be added to their product, which it overwrites; both in any
        floating dtype, the product in float32.

    Raises:
        ValueError: if this torch has no such product.
    """
    weight = weight.detach().float()
    scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    try:
        with warnings.catch_warnings():
            # torch announces that tensors of this kind will go, and has no other way to these products yet.
            warnings.simplefilter("ignore", UserWarning)
            zeros = torch.zeros(len(weight), dtype=torch.long)
            quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            packed = torch.ops.quantized.linear_prepack(quantized, None)
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"This torch ({torch.__version__}) has no products of 8 bits on this processor ({error}): take "
            "dtype=torch.bfloat16 instead."
        ) from None

    def product(rows: Tensor, summand: Tensor | None = None) -> Tensor:
        result = torch.ops.quantized.linear_dynamic(rows.float(), packed, False)
        return result if summand is None else result.add_(summand)

    return product
