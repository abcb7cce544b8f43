"""The LSTMs' weights as the steps of reading on a CPU want them: laid out once for many products.

The new cells' gates are doubled in them, and so are the projections' inputs: ``tanh(x)`` is then
``2 * sigmoid(2 * x) - 1`` at no cost, and exactly so (`lstm_inference.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..fingerprint import Fingerprint
from ..matrix_products import has_onednn, int8_product, linear, packed_product, plain_product

if TYPE_CHECKING:
    from .bilstm import LstmLayer

logger = logging.get_logger(__name__)

# A weight that is read once for each batch is laid out too if the copy is no larger.
_BYTES_TO_COPY_FREELY = 2**22
# So few sentences are read quicker by both directions in one product; of larger weights, and on few threads, one is.
_FEW_SENTENCES = 3
_FEW_THREADS = 2

# A product, and one that is added to its second argument.
Product = Callable[..., Tensor]


class LaidOut:
    """What one layer's weights were made into; what is made when it is first wanted is made of the same weights.

    Args:
        layer: The layer.
        make: Makes a weight into its product.
        lays_out_all: Whether the input weight gets a layout too.

    Attributes:
        dtype: That of the weights.
        has_projection: Whether there is a projection.
    """

    def __init__(self, layer: LstmLayer, make: Callable[[Tensor], Product], lays_out_all: bool):
        self.dtype = layer.bias.dtype
        self._make = make
        self._weight_hh, self._weight_hr = layer.weight_hh.detach(), layer.weight_hr
        if self._weight_hr is not None:
            self._weight_hr = self._weight_hr.detach()
        self.has_projection = self._weight_hr is not None
        size = layer.cell_size
        self._new_cells = new_cells = slice(2 * size, 3 * size)
        weight_ih, bias = layer.weight_ih.detach(), layer.bias.detach().clone()
        bias[size : 2 * size] += layer.forget_bias
        of_inputs = make(weight_ih) if lays_out_all else None
        self._pair: tuple[LaidOut, Together] | None = None

        def share(rows: Tensor) -> Tensor:
            gates = linear(rows, weight_ih, bias) if of_inputs is None else of_inputs(rows).add_(bias)
            gates[:, new_cells].mul_(2)
            return gates

        if lays_out_all:
            # Not to be kept alive by `share`.
            weight_ih = None
        #: The input's share of the gates of rows, ``(rows, projection_dim)`` to ``(rows, 4 * cell_size)``.
        self.share = share

    @cached_property
    def recur(self) -> Product:
        """Adds the share of the outputs before: ``(rows, projection_dim)`` and ``(rows, 4 * cell_size)``."""
        return self._make(self.recurrent_weight())

    @cached_property
    def project(self) -> Product | None:
        """The projection, of halves of outputs; None without."""
        return self._make(self.projection_weight()) if self.has_projection else None

    def recurrent_weight(self) -> Tensor:
        """``(4 * cell_size, projection_dim)``: a copy, doubled for the new cells."""
        weight = self._weight_hh.clone()
        weight[self._new_cells] *= 2
        return weight

    def projection_weight(self) -> Tensor:
        """``(projection_dim, cell_size)``: a copy, doubled."""
        return self._weight_hr * 2

    def finish(self) -> LaidOut:
        """Makes all now, and lets go of the weights."""
        _ = self.recur, self.project
        self._weight_hh = self._weight_hr = None
        return self

    def steps_with(self, other: LaidOut, batch_sizes: list[int]) -> int:
        """How many of the last steps are read quicker in one product with those of the other direction.

        Args:
            other: The other direction's weights.
            batch_sizes: Number of sentences at each time step; falls.

        Only where there is MKL, whose product of a pair of matrices gives each a thread and reads the weights of a
        single row about as fast as the memory lets it, which neither its other products nor oneDNN's do.
        """
        if self._weight_hh is None or other._weight_hh is None or not torch.backends.mkl.is_available():
            return 0
        # Small weights in bfloat16 are multiplied in float32 too, in half the time.
        if 4 * self._weight_hh.numel() <= _BYTES_TO_COPY_FREELY and self.dtype in (torch.float32, torch.bfloat16):
            return sum(n <= _FEW_SENTENCES for n in batch_sizes)
        if self.dtype != torch.float32:
            return 0
        # A second copy of large weights is not worth the last steps of a batch.
        return len(batch_sizes) if batch_sizes[0] == 1 and torch.get_num_threads() <= _FEW_THREADS else 0

    def together_with(self, other: LaidOut) -> Together:
        """The products of this layer and the other direction's."""
        if self._pair is None or self._pair[0] is not other:
            logger.info_once("The biLM's directions take the steps of few sentences together, in MKL's products.")
            self._pair = other, Together(self, other)
        return self._pair[1]


class Together:
    """The products of a layer's two directions, of ``(2, rows, ...)`` each, in float32.

    Args:
        forward: The weights of the forward direction.
        backward: The weights of the other.

    Attributes:
        recur: As `LaidOut.recur`, of either dtype.
        project: As `LaidOut.project`, of either dtype.
    """

    def __init__(self, forward: LaidOut, backward: LaidOut):
        both = forward, backward
        # Rows of this layout are the parts of sums: MKL's fastest for so few rows.
        recurrent = torch.stack([one.recurrent_weight().float().t() for one in both])
        self.recur: Product = lambda hidden, shares: torch.baddbmm(shares.float(), hidden.float(), recurrent)
        self.project: Product | None = None
        if forward.has_projection:
            projection = torch.stack([one.projection_weight().float() for one in both]).transpose(1, 2)
            self.project = lambda halves: torch.bmm(halves.float(), projection)
        self._shares = [one.share for one in both]

    def share(self, rows: list[Tensor]) -> Tensor:
        """As `LaidOut.share`, of both directions' rows: to ``(2, rows, 4 * cell_size)``."""
        return torch.stack([share(each) for share, each in zip(self._shares, rows)])


# Outside of the modules, so that the copies are never saved, moved or copied with them.
_laid_out: WeakKeyDictionary[nn.Module, tuple[Fingerprint, LaidOut]] = WeakKeyDictionary()


def laid_out(layer: LstmLayer) -> LaidOut:
    """A layer's weights, laid out; anew if they were changed."""
    if is_quantized(layer):
        return layer.quantized
    made_of = Fingerprint(layer.parameters())
    kept = _laid_out.get(layer)
    if kept is not None and kept[0] == made_of:
        return kept[1]
    make = packed_product if has_onednn(layer.weight_hh) else plain_product
    kind = "oneDNN's" if make is packed_product else "torch's own"
    logger.info_once(f"The biLM's LSTMs are read by weights laid out once, in {layer.bias.dtype}, {kind} products.")
    lays_out_all = make is packed_product and layer.weight_ih.nbytes <= _BYTES_TO_COPY_FREELY
    weights = LaidOut(layer, make, lays_out_all)
    _laid_out[layer] = made_of, weights
    return weights


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer has weights in 8 bits, and no others."""
    return "quantized" in layer.__dict__


def quantize_layer(layer: LstmLayer) -> None:
    """Puts a layer's weights into 8 bits, and its parameters away; there is no way back."""
    quantized = LaidOut(layer, int8_product, lays_out_all=True).finish()
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
    _laid_out.pop(layer, None)
    layer.quantized = quantized
