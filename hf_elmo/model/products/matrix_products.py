"""Matrix products on the CPU: those that torch has, behind one interface, and the choice between them.

`choose` takes the product that the processor at hand is quickest at, by a table (`processor_table.py`, where the
products are told), and `product_of` makes it. torch's own `F.linear` goes to MKL in fp32, which is slow for few rows on
processors that are not Intel's, and in bf16 to oneDNN with a weight that is laid out anew each time. The operators by
which torch reaches oneDNN directly are private: they are tried out before they are used, and where they are missing
everything is computed by public ones.

MKL's own layout of a weight (`torch.ops.mkl`) is no choice: torch uses it for the one number of rows that it was made
for, and a step has as many as there are sentences left.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from .processor import row_in_use
from .processor_table import is_small

logger = logging.get_logger(__name__)

#: Where a weight of 16 bits that all words are multiplied with at once has the product `half`, that is for fewer words
#: than these; for more it is widened.
WORDS_TO_WIDEN = 64
# At most this many bytes of a weight are transposed at once.
_BYTES_TO_TRANSPOSE = 2**22
# At most this many numbers of a weight that is read once are widened at once: a gate's, whose products need not be put
# together then.
_NUMBERS_TO_WIDEN = 2**21
# Without VNNI the pairs of products of 8 and 8 bits run over the 16 bits that they are added up in, and torch silently
# takes the largest number there is: then inputs take 7 bits.
_HAS_VNNI = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()


# The product of a weight with rows, and with rows and a summand.
Product = Callable[..., Tensor]


class Choice(NamedTuple):
    """How a weight is multiplied.

    Attributes:
        product: ``packed``, ``plain``, ``transposed`` or ``half``.
        widens: Whether a weight of 16 bits is multiplied with rows of float32, by a float32 copy of it or by ``half``.
    """

    product: str
    widens: bool


def choose(weight: Tensor, rows: int, words: int | None = None, once: bool = False, keeps_half: bool = False) -> Choice:
    """The product of a weight that this processor is quickest at, of those that torch has.

    Args:
        weight: The weight, which is not looked into.
        rows: How many rows it is multiplied with at once, on average.
        words: How many rows it is multiplied with in all. None: what is made of it is kept.
        once: Whether it is multiplied with all of them at once.
        keeps_half: Whether a copy of 16 bits is kept even if others are not.
    """
    dtype, numbers = str(weight.dtype).removeprefix("torch."), weight.numel()
    row = row_in_use()
    name = row.product(dtype, numbers, rows)
    # To lay a weight out costs more than to widen it.
    may_be_half = (keeps_half or words is None) and has_half()
    if name == "half" and not may_be_half:
        name = "widened"
    fewest = row.words_to_widen_once if once else row.words_to_widen
    if name == "widened" and words is not None and not is_small(numbers) and words < fewest:
        # The first band may be of widened weights itself.
        name = row.product(dtype, numbers, 1)
        if name == "half" and not may_be_half:
            name = "plain"
    widens = name in ("half", "widened")
    if name == "widened":
        name = row.product("float32", numbers, rows)
    if name == "packed" and not has_onednn(weight, torch.float32 if widens else None):
        name = "plain"
    return Choice(name, widens)


def product_of(weight: Tensor, choice: Choice, transposed: bool = False) -> Product:
    """A weight's product with rows.

    Args:
        weight: ``(out, in)``.
        choice: Which one.
        transposed: For ``rows @ weight``, not ``rows @ weight.t()``.

    Returns:
        A function of rows and, optionally, of what is to be added to their product, in the dtype of the weight. It may
        overwrite what is to be added.
    """
    make = PRODUCTS[choice.product]
    if not choice.widens:
        return make(weight, transposed)
    dtype, of_copy = weight.dtype, make(weight.float(), transposed)

    def product(rows: Tensor, summand: Tensor | None = None) -> Tensor:
        return of_copy(rows.float(), None if summand is None else summand.float()).to(dtype)

    return product


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of many rows, by a weight that is used once: ``(rows, in)`` and ``(out, in)`` to ``(rows, out)``."""
    choice = choose(weight, len(inputs), len(inputs), once=True)
    if choice.widens:
        return widened_linear(inputs.float(), weight, None if bias is None else bias.float()).to(inputs.dtype)
    if choice.product == "packed" and inputs.dtype == torch.float32:
        return _onednn_operators()[0](inputs, weight, bias, "none", [], "")
    return F.linear(inputs, weight, bias)


def widened_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `linear`, of inputs (and a bias) in float32 and a weight of 16 bits; the result is in float32.

    The weight is widened a part after the other in the same memory, since fresh memory takes longer to fill.
    """
    height = max(_NUMBERS_TO_WIDEN // weight.shape[1], 1)
    memory = inputs.new_empty(min(height, len(weight)), weight.shape[1])
    results = []
    for begin in range(0, len(weight), height):
        part = weight[begin : begin + height]
        some = None if bias is None else bias[begin : begin + height]
        results.append(linear(inputs, memory[: len(part)].copy_(part), some))
    return results[0] if len(results) == 1 else torch.cat(results, dim=1)


def plain_product(weight: Tensor, transposed: bool = False) -> Product:
    """As `packed_product`, without another layout."""
    factor = weight if transposed else weight.t()

    def product(rows: Tensor, summand: Tensor | None = None) -> Tensor:
        # In place, which saves a copy of the gates of all sentences.
        return rows @ factor if summand is None else summand.addmm_(rows, factor)

    return product


def transposed_product(weight: Tensor, transposed: bool = False) -> Product:
    """As `packed_product`, of a copy whose rows are the parts of sums."""
    # For `rows @ weight` those of the weight are already.
    copy = weight if transposed else weight.t().clone(memory_format=torch.contiguous_format)
    return plain_product(copy, transposed=True)


def packed_product(weight: Tensor, transposed: bool = False) -> Product:
    """A weight's product with rows, by oneDNN, whose layout of the weight is a copy that many products are to share.

    Args:
        weight: ``(out, in)``, of a kind for which `has_onednn`.
        transposed: For ``rows @ weight``, not ``rows @ weight.t()``.

    Returns:
        A function of rows and, optionally, of what is to be added to their product.
    """
    if not transposed:
        packed = _packed(weight)
        return lambda rows, summand=None: _product_of_packed(rows, packed, summand)
    # In parts that stay in the cache from one copy to the next.
    count = -(-weight.numel() * weight.element_size() // _BYTES_TO_TRANSPOSE)
    first, *others = (_packed(part.t().contiguous()) for part in weight.chunk(count))
    widths = [part.shape[1] for part in (first, *others)]

    def product(rows: Tensor, summand: Tensor | None = None) -> Tensor:
        columns = rows.split(widths, dim=1)
        result = _product_of_packed(columns[0], first, summand)
        for part, some in zip(others, columns[1:], strict=True):
            result = _product_of_packed(some, part, result)
        return result

    return product


def half_product(weight: Tensor, transposed: bool = False) -> Product:
    """As `packed_product`, of rows in float32 and a copy of the weight in float16, which FBGEMM widens as it reads it.

    With few rows a product takes as long as its weight takes to be read, which is half as long as in float32. bfloat16
    has more range than float16, so a weight that would lose more by it than float32 loses is scaled by a power of two.
    """
    copy = (weight.t() if transposed else weight).detach().float()
    largest = float(copy.abs().max()) if copy.numel() else 0.0
    if not math.isfinite(largest):
        # FBGEMM would take the largest number of float16.
        return plain_product(copy)
    # Below 2**-14 float16 is right to 2**-25.
    scale = 1.0 if largest == 0 or 0.5 <= largest < 2**15 else 2.0 ** min(15 - math.frexp(largest)[1], 100)
    packed = torch.ops.quantized.linear_prepack_fp16(copy if scale == 1 else copy * scale)
    # Looking it up takes as long as some operators on few numbers.
    multiply = torch.ops.quantized.linear_dynamic_fp16.default

    def product(rows: Tensor, summand: Tensor | None = None) -> Tensor:
        result = multiply(rows if scale == 1 else rows / scale, packed)
        return result if summand is None else result.add_(summand)

    return product


@lru_cache
def has_half() -> bool:
    """Whether torch has the product `half_product`."""
    weight = torch.tensor([[1.0, 2.0**-24, 0.0], [-3.5, 0.0, 2.0**-20]])
    try:
        with torch.inference_mode(False), torch.no_grad():
            return all(torch.equal(half_product(some)(torch.eye(3)), some.t()) for some in (weight, weight * 2**20))
    except (AttributeError, RuntimeError) as error:
        logger.info_once(f"torch's products of weights in float16 are not there ({error}): they are widened.")
        return False


def _product_of_packed(rows: Tensor, packed: Tensor, summand: Tensor | None) -> Tensor:
    product_with, add_product_to = _onednn_operators()
    if summand is None:
        return product_with(rows, packed, None, "none", [], "")
    return add_product_to(rows, summand, packed, None, "add")


@lru_cache
def _onednn_operators() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    # Not found out anew with each call, which takes as long as a small product.
    operator = torch.ops.mkldnn._linear_pointwise
    return operator.default, operator.binary


def _packed(weight: Tensor) -> Tensor:
    # oneDNN lays a weight out for a number of rows, if it is told one; else for a single row, which suits no others.
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 32)


#: The products by their names.
PRODUCTS: dict[str, Callable[..., Product]] = {
    "packed": packed_product,
    "plain": plain_product,
    "transposed": transposed_product,
    "half": half_product,
}


def has_onednn(tensor: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether the private operators by which torch reaches oneDNN are there and work for this kind of tensor.

    Args:
        tensor: The tensor.
        dtype: Its dtype, if it is to be brought to another.
    """
    if tensor.device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    return _onednn_works(dtype or tensor.dtype)


@lru_cache
def _onednn_works(dtype: torch.dtype) -> bool:
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    rows, weight = torch.ones(3, 8, dtype=dtype), torch.eye(16, 8, dtype=dtype)
    try:
        with torch.inference_mode(False), torch.no_grad():
            for product in (packed_product(weight, False), packed_product(weight.t().contiguous(), True)):
                if not torch.equal(product(rows, torch.ones(3, 16, dtype=dtype)), rows @ weight.t() + 1):
                    return False
            by_onednn = _onednn_operators()[0](rows, weight, None, "none", [], "")
            return torch.equal(by_onednn, rows @ weight.t())
    except (AttributeError, RuntimeError) as error:
        logger.info_once(f"oneDNN's products of {dtype} are not there ({error}): torch's own are taken.")
        return False


class Int8Product:
    """As `packed_product`, with the weight in 8 bits, by torch's dynamic quantised linear.

    Called with rows and, optionally, with what is to be added to their product, both in any floating dtype; the product
    is in float32.

    Args:
        weight: ``(out, in)``, of any floating dtype.

    Raises:
        ValueError: if this torch has no such product.
    """

    def __init__(self, weight: Tensor):
        weight = weight.detach().float()
        self._quantize(weight, weight.abs().amax(dim=1).clamp(min=1e-12) / 127)

    def _quantize(self, weight: Tensor, scales: Tensor) -> None:
        try:
            with warnings.catch_warnings():
                # torch announces that tensors of this kind will go, and has no other way to these products yet.
                warnings.simplefilter("ignore", UserWarning)
                zeros = torch.zeros(len(weight), dtype=torch.long)
                quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
                self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        except (AttributeError, RuntimeError) as error:
            raise ValueError(
                f"This torch ({torch.__version__}) has no products of 8 bits on this processor ({error}): take "
                "dtype=torch.bfloat16 instead."
            ) from None
        # Looking it up takes as long as some operators on few numbers.
        self._multiply = torch.ops.quantized.linear_dynamic.default

    def __call__(self, rows: Tensor, summand: Tensor | None = None) -> Tensor:
        result = self._multiply(rows.float(), self._packed, not _HAS_VNNI)
        return result if summand is None else result.add_(summand)

    def __deepcopy__(self, memo: dict[int, object]) -> Int8Product:
        # Nothing in it ever changes.
        return self

    def __getstate__(self) -> dict[str, Tensor]:
        quantized = self._unpacked()
        return {"numbers": quantized.int_repr(), "scales": quantized.q_per_channel_scales()}

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        scales = state["scales"]
        self._quantize((state["numbers"] * scales[:, None]).float(), scales)

    def weight(self) -> Tensor:
        """The weight that it multiplies with, ``(out, in)``, float32: what 8 bits have left of the given one."""
        return self._unpacked().dequantize()

    def _unpacked(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.ops.quantized.linear_unpack(self._packed)[0]


class Int8Linear(nn.Module):
    """A linear layer whose weight is in 8 bits, and which is only read: ``(rows, in)`` to ``(rows, out)``."""

    bias: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.product = Int8Product(linear.weight)
        self.register_buffer("bias", linear.bias.detach().clone(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.product(inputs).to(inputs.dtype).add_(self.bias)
