"""The weights of the biLM's layers, prepacked for the inference path for CPUs (`lstm_cpu.py`).

The copies are kept beside the layers until the parameters change. Where weights of 16 bits are multiplied in float32
(`choose`), those of small layers are kept, too; those of large layers are made for each batch, in the same memory for
one layer after the other (`Widening`), and a gate at a time: that takes blocks of 8 MB, which the allocator hands out
again, while it asks the system anew for each of 32 MB. Or the copies are of 16 bits, and are kept (`HalfWeights`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from threading import RLock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..fingerprint import Fingerprint, layout_of
from ..products.matrix_products import (
    PRODUCTS,
    WORDS_TO_WIDEN,
    Choice,
    Int8Product,
    Product,
    half_product,
    has_onednn,
    linear,
    packed_product,
)
from ..products.processor import row_in_use
from ..products.processor_table import is_small
from .lstm_layer import LstmLayer

#: The gates i, f, g, o: one tensor of all, or one of each.
Gates = Sequence[Tensor]

# A weight that is read once for each batch is prepacked too if the copy is no larger than this.
_BYTES_TO_COPY_FREELY = 2**22
# Large weights are read faster by both directions in one product on up to this many threads.
_FEW_THREADS = 2

# Held while weights are prepacked, so that threads that share a model do not make the same copies at the same time.
_prepacking = RLock()


def _renew_lock() -> None:
    """For a forked process: whoever held the lock is not there any more."""
    global _prepacking
    _prepacking = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def each_gate(gates: Gates) -> Gates:
    """The gates i, f, g, o in a tensor of each, which may be views."""
    return gates if len(gates) == 4 else gates[0].chunk(4, dim=-1)


class PrepackedWeights:
    """The products of one layer's weights, each prepacked when it is first wanted.

    The rows of the gate g and the projection are doubled (`_run_steps` says why).

    Args:
        layer: The layer.
        prepack: Makes a weight into its product.
        prepack_input: Makes the input weight into its product. None: it is read where it lies.
        dtype: What they are computed in. None: their own dtype.
        copy: Makes the copies, in that dtype, of weights of these names. None: each in memory of its own. With it the
            input weight is not copied, but widened for each batch, and each gate has products of its own.
    """

    def __init__(
        self,
        layer: LstmLayer,
        prepack: Callable[[Tensor], Product],
        prepack_input: Callable[[Tensor], Product] | None,
        dtype: torch.dtype | None = None,
        copy: Callable[[Tensor, str], Tensor] | None = None,
    ):
        size = layer.cell_size
        self.dtype = dtype or layer.bias.dtype
        self._numbers = layer.weight_hh.numel()
        self._copy = copy
        self._prepack = prepack
        self._forget, self._new_cells = slice(size, 2 * size), slice(2 * size, 3 * size)
        weight_ih = layer.weight_ih.detach()
        self._input_product = None if prepack_input is None else prepack_input(weight_ih.to(self.dtype))
        # Where it is prepacked the weight itself is not kept alive from here.
        self._weight_ih = weight_ih if prepack_input is None else None
        self._weight_hh: Tensor | None = layer.weight_hh.detach()
        self._weight_hr = None if layer.weight_hr is None else layer.weight_hr.detach()
        self._raw_bias = layer.bias.detach().to(self.dtype, copy=True)
        self._recurrent: tuple[Product, ...] | None = None
        self._project: Product | None = None
        self._pair: tuple[PrepackedWeights, PrepackedPair] | None = None
        self.use_forget_bias(layer.forget_bias)

    def use_forget_bias(self, forget_bias: float) -> None:
        """Adds another forget bias to the bias from now on."""
        bias = self._raw_bias.clone()
        bias[self._forget] += forget_bias
        # In this order: another thread that sees the number finds the bias there.
        self._bias = bias
        self.forget_bias = forget_bias

    def input_product(self, words: int, widening: Widening) -> Callable[[Tensor], Gates]:
        """The input's part of the gates: ``(rows, projection_dim)`` to ``(rows, 4 * cell_size)``.

        Args:
            words: How many rows there are in all.
            widening: Memory for the weight, if it is widened: the product is good until another's is made.
        """
        products = self._input_products(words, widening)

        def gates_of(rows: Tensor) -> Gates:
            gates = [product(rows) for product in products]
            each_gate(gates)[2].mul_(2)
            return gates

        return gates_of

    def _input_products(self, words: int, widening: Widening) -> list[Callable[[Tensor], Tensor]]:
        if self._input_product is not None:
            product, bias = self._input_product, self._bias
            return [lambda rows: product(rows).add_(bias)]
        assert self._weight_ih is not None
        if self._copy is None:
            self._weight_ih = self._weight_ih.to(self.dtype)
            return [_linear(self._weight_ih, self._bias)]
        wide = widening.widened(self._weight_ih, "weight_ih")
        return [_linear(*part) for part in zip(wide.chunk(4), self._bias.chunk(4))]

    def add_recurrent(self, hidden: Tensor, gates: Gates) -> Gates:
        """Adds the part of the outputs before: ``(rows, projection_dim)`` and ``(rows, 4 * cell_size)``.

        The given gates may be overwritten.
        """
        products = self._recurrent_products()
        if len(products) == 1:
            # A small model's steps are so short that a loop over one product shows.
            return (products[0](hidden, gates[0]),)
        return [product(hidden, part) for product, part in zip(products, gates, strict=True)]

    def _recurrent_products(self) -> tuple[Product, ...]:
        if self._recurrent is None:
            with _prepacking:
                if self._recurrent is None:
                    self._recurrent = tuple(self._prepack(weight) for weight in self._recurrent_weights())
        return self._recurrent

    def _recurrent_weights(self) -> Iterator[Tensor]:
        """`recurrent_weight`; with `copy` that of each gate, good until the next."""
        if self._copy is None:
            yield self.recurrent_weight()
            return
        assert self._weight_hh is not None
        for gate, weight in zip("ifgo", self._weight_hh.chunk(4), strict=True):
            copied = self._copied(weight, f"weight_hh of {gate}")
            yield copied.mul_(2) if gate == "g" else copied

    @property
    def project(self) -> Product | None:
        """The projection, of halves of outputs; None without."""
        if self._project is None and self._weight_hr is not None:
            with _prepacking:
                weight = self.projection_weight()
                if self._project is None and weight is not None:
                    self._project = self._prepack(weight)
        return self._project

    def recurrent_weight(self) -> Tensor:
        """``(4 * cell_size, projection_dim)``: a copy, doubled for the gate g."""
        if self._int8_product is not None:
            return self._int8_product.weight()
        assert self._weight_hh is not None
        weight = self._copied(self._weight_hh, "weight_hh")
        weight[self._new_cells] *= 2
        return weight

    def projection_weight(self) -> Tensor | None:
        """``(projection_dim, cell_size)``: a copy, doubled; None without."""
        if isinstance(self._project, Int8Product):
            return self._project.weight()
        return None if self._weight_hr is None else self._copied(self._weight_hr, "weight_hr").mul_(2)

    def _copied(self, weight: Tensor, name: str) -> Tensor:
        return weight.to(self.dtype, copy=True) if self._copy is None else self._copy(weight, name)

    @property
    def _int8_product(self) -> Int8Product | None:
        """The recurrent weight's product, if that is in 8 bits."""
        product = None if self._recurrent is None else self._recurrent[0]
        return product if isinstance(product, Int8Product) else None

    def __getstate__(self) -> dict[str, object]:
        # What both directions share is made again where it is wanted.
        return {**self.__dict__, "_pair": None}

    def finish(self) -> PrepackedWeights:
        """Prepacks all weights now, and lets go of them."""
        _ = self._recurrent_products(), self.project
        self._weight_hh = self._weight_hr = None
        return self

    def paired_steps(self, other: PrepackedWeights, batch_sizes: list[int]) -> int:
        """How many of the last steps are read faster in one product with those of the other direction.

        Args:
            other: The other direction's weights.
            batch_sizes: Number of sentences at each time step; falls.

        Only where there is MKL, whose product of a pair of matrices gives each a thread and reads the weights of a
        single row about as fast as the memory lets it, which neither its other products nor oneDNN's do.
        """
        if not torch.backends.mkl.is_available():
            return 0
        row = row_in_use()
        few_of_small, few_of_large = row.pairs
        if self._int8_product is not None:
            return sum(n <= row.pairs_of_int8 for n in batch_sizes) if is_small(self._numbers) else 0
        # Small weights in bfloat16 are multiplied in float32 too, in half the time.
        if is_small(self._numbers) and self.dtype in (torch.float32, torch.bfloat16):
            return sum(n <= few_of_small for n in batch_sizes)
        if self.dtype != torch.float32:
            return 0
        # A second copy of large weights is not worth the last steps of a batch.
        is_few = batch_sizes[0] <= few_of_large and torch.get_num_threads() <= _FEW_THREADS
        return len(batch_sizes) if is_few else 0

    def paired_with(self, other: PrepackedWeights) -> PrepackedPair:
        """The products of this layer and the other direction's."""
        kept = self._pair
        if kept is not None and kept[0] is other:
            return kept[1]
        with _prepacking:
            if self._pair is None or self._pair[0] is not other:
                self._pair = other, PrepackedPair(self, other)
            return self._pair[1]


class HalfWeights(PrepackedWeights):
    """The products of a large layer of 16 bits by copies of 16 bits (`half_product`), computed in float32.

    That of the input weight is made for few words only: for many it is faster to widen it.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: LstmLayer):
        super().__init__(layer, half_product, None, torch.float32)
        self._input_of_few: Product | None = None

    def _input_products(self, words: int, widening: Widening) -> list[Callable[[Tensor], Tensor]]:
        assert self._weight_ih is not None
        if words >= WORDS_TO_WIDEN:
            return [_linear(widening.widened(self._weight_ih, "weight_ih"), self._bias)]
        if self._input_of_few is None:
            with _prepacking:
                if self._input_of_few is None:
                    self._input_of_few = half_product(self._weight_ih)
        product, bias = self._input_of_few, self._bias
        return [lambda rows: product(rows).add_(bias)]

    def paired_steps(self, other: PrepackedWeights, batch_sizes: list[int]) -> int:
        return 0


class PrepackedPair:
    """The products of a layer's two directions, of ``(2, rows, ...)`` each, in float32.

    Args:
        forward: The weights of the forward direction.
        backward: The weights of the other.

    Attributes:
        project: As `PrepackedWeights.project`, of any dtype.
    """

    def __init__(self, forward: PrepackedWeights, backward: PrepackedWeights):
        # Rows of this layout are the parts of sums: MKL's fastest for few rows.
        self._recurrent = torch.stack([one.recurrent_weight().float().t() for one in (forward, backward)])
        self.project: Product | None = None
        projections = [one.projection_weight() for one in (forward, backward)]
        if all(one is not None for one in projections):
            projection = torch.stack([one.float() for one in projections if one is not None]).transpose(1, 2)
            self.project = lambda halves: torch.bmm(halves.float(), projection)

    def add_recurrent(self, hidden: Tensor, gates: Gates) -> Gates:
        """As `PrepackedWeights.add_recurrent`, of any dtype."""
        of_all = gates[0].float()
        # Where numbers do not lie in one piece torch takes two products, not one of MKL's.
        add = Tensor.baddbmm_ if of_all.is_contiguous() else Tensor.baddbmm
        return [add(of_all, hidden.float(), self._recurrent)]


class Widening:
    """Makes the weights of one layer after the other for one batch, in float32, from weights of 16 bits.

    They take each other's place in memory, because fresh memory takes six times as long to fill.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    @staticmethod
    def serves(layer: LstmLayer, choice: Choice) -> bool:
        """Whether a layer's weights are widened for each batch: they are large, so that no copies of them are kept."""
        return choice.widens and choice.product != "half" and not is_small(layer.weight_hh.numel())

    def weights(self, layer: LstmLayer, choice: Choice) -> PrepackedWeights:
        """The weights of a layer, good until the next call."""

        def copy(weight: Tensor, name: str) -> Tensor:
            # What is prepacked is copied once more, so the next weight may take its place.
            return self.widened(weight, name if choice.product == "plain" else "")

        return PrepackedWeights(layer, PRODUCTS[choice.product], None, torch.float32, copy).finish()

    def widened(self, weight: Tensor, place: str) -> Tensor:
        """A copy of a weight, good until another one takes this place."""
        memory = self._memory.get(place)
        if memory is None or memory.numel() < weight.numel():
            memory = self._memory[place] = torch.empty(weight.numel(), dtype=torch.float32)
        return memory[: weight.numel()].view(weight.shape).copy_(weight)


def _linear(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda rows: linear(rows, weight, bias)


# Outside of the modules, so that the copies are never saved, moved or copied with them.
_prepacked: WeakKeyDictionary[nn.Module, dict[Choice, tuple[Fingerprint, PrepackedWeights]]] = WeakKeyDictionary()


def prepacked(layer: LstmLayer, choice: Choice) -> PrepackedWeights:
    """A layer's prepacked weights; made anew if the parameters were changed."""
    weights = layer.quantized if isinstance(layer.quantized, PrepackedWeights) else _kept_or_made(layer, choice)
    if weights.forget_bias != layer.forget_bias:
        weights.use_forget_bias(layer.forget_bias)
    return weights


def _kept_or_made(layer: LstmLayer, choice: Choice) -> PrepackedWeights:
    dtype = torch.float32 if choice.widens else None
    # The input weight has more rows than the others: those of many steps.
    prepacks_input = has_onednn(layer.weight_ih, dtype) and layer.weight_ih.nbytes <= _BYTES_TO_COPY_FREELY
    copies_input = prepacks_input or choice.widens
    copied = [layer.weight_hh, layer.bias, *([] if layer.weight_hr is None else [layer.weight_hr])]
    if copies_input:
        copied.append(layer.weight_ih)
    # An input weight that is not copied is read where it lies: its values are always those of now.
    used = () if copies_input else layout_of(layer.weight_ih)
    kept = _prepacked.get(layer, {}).get(choice)
    if kept is not None and kept[0].matches(copied, used):
        return kept[1]
    with _prepacking:
        of_layer = _prepacked.get(layer, {})
        kept = of_layer.get(choice)
        if kept is not None and kept[0].matches(copied, used):
            return kept[1]
        # Before the copies: a change in between is then seen at the next call.
        made_of = Fingerprint(copied, used)
        prepack_input = packed_product if prepacks_input else None
        if choice.product == "half" and not is_small(layer.weight_hh.numel()):
            weights: PrepackedWeights = HalfWeights(layer)
        else:
            weights = PrepackedWeights(layer, PRODUCTS[choice.product], prepack_input, dtype)
        # What other choices have kept of changed weights is let go.
        others = {} if kept is not None else of_layer
        _prepacked[layer] = {**others, choice: (made_of, weights)}
        return weights


def quantize_layer(layer: LstmLayer) -> None:
    """Puts a layer's weights into 8 bits, and its parameters away; there is no way back."""
    quantized = PrepackedWeights(layer, Int8Product, Int8Product).finish()
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
    _prepacked.pop(layer, None)
    layer.quantized = quantized
