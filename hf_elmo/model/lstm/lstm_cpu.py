"""The biLM's LSTMs on a CPU, when nothing is to be learned: weights prepacked once, and cells updated in place.

`LstmLayer.read` is the same in plain operations. Five things are faster here:

- The recurrent weight and the projection serve every time step, so they are brought into the layout of the matrix
  product once and for all (prepacked). The copies are kept until the parameters change.
- Where few sentences are left to read, both directions take their steps together, half as many.
- In the lowest layer the input's part of the gates is computed once for each distinct word of the batch.
- A step is few operations, in place, because ``tanh`` is computed as a sigmoid (the algebra is in `_run_steps`).
- The input's part of the gates is computed for some time steps at once; for all of them it would take more memory than
  the model.

Cells and gates are in float32 at least: with weights in bfloat16 only the products are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from threading import RLock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..fingerprint import Fingerprint
from ..matrix_products import has_onednn, int8_product, linear, packed_product, plain_product
from .lstm_layer import (
    ElmoState,
    LstmInputs,
    LstmLayer,
    LstmOutputs,
    is_quantized,
    not_bare_reason,
    only_plain_operations_reason,
)
from .packing import Words

# The input's part of the gates takes at most this many bytes at once, and for distinct words at most this many.
_BYTES_OF_INPUT_GATES = 2**25
_BYTES_OF_TABLE = 3 * 2**25
# A weight that is read once for each batch is prepacked too if the copy is no larger than this.
_BYTES_TO_COPY_FREELY = 2**22
# Up to this many sentences are read faster by both directions in one product; of larger weights, and on up to this many
# threads, one sentence is.
_FEW_SENTENCES = 3
_FEW_THREADS = 2

# The product of a weight with rows, and with rows and a summand.
Product = Callable[..., Tensor]


def unsupported_reason(inputs: LstmInputs) -> str | None:
    """Why `run` cannot compute this; None if it can."""
    device = inputs.words[0].vectors.device
    if device.type != "cpu":
        return f"the words are on {device}"
    layers = inputs.all_layers()
    reason = not_bare_reason(layers)
    if reason is not None:
        return reason
    weights = [parameter for layer in layers if not is_quantized(layer) for parameter in layer.parameters()]
    tensors = [*(words.vectors for words in inputs.words), *weights]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are recorded"
    if inputs.dropout.training and inputs.dropout.p > 0:
        return "there is dropout"
    if torch.is_autocast_enabled("cpu") or any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        return "words and weights are of several dtypes"
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "not all weights are on the CPU"
    if any(weight.is_inference() for weight in weights):
        return "the weights are inference tensors, whose changes torch does not count"
    return only_plain_operations_reason([*tensors, *inputs.state])


def run(inputs: LstmInputs) -> LstmOutputs:
    """Reads packed sentences in one direction or in both. Outputs require no gradients."""
    mirror = inputs.mirror() if any(inputs.reverse) else None
    words = [
        each if mirror is None or not reverse else each.select(mirror)
        for each, reverse in zip(inputs.words, inputs.reverse)
    ]
    outputs: list[list[Tensor]] = [[] for _ in words]
    hidden: list[Tensor] = []
    cell: list[Tensor] = []
    with torch.no_grad():
        for depth, layers in enumerate(zip(*inputs.layers, strict=True)):
            start = inputs.state.hidden[:, depth], inputs.state.cell[:, depth]
            read, h, c = _run_layer(layers, words, inputs.batch_sizes, *start)
            hidden.append(h)
            cell.append(c)
            for known, y, x in zip(outputs, read, words):
                known.append(y.add_(x.vectors) if inputs.use_skip_connections and depth > 0 else y)
            words = [Words(known[-1]) for known in outputs]
    for direction, reverse in enumerate(inputs.reverse):
        if mirror is not None and reverse:
            outputs[direction] = [y.index_select(0, mirror) for y in outputs[direction]]
    return LstmOutputs(outputs, ElmoState(torch.stack(hidden, dim=1), torch.stack(cell, dim=1)))


def _run_layer(
    layers: Sequence[LstmLayer], words: Sequence[Words], batch_sizes: list[int], hidden: Tensor, cell: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """A layer of each direction.

    Args:
        layers: The layer of each direction.
        words: The words of each, in the order in which it reads (`packing.mirrored`).
        batch_sizes: Number of sentences at each time step; falls.
        hidden: ``(directions, sentences, projection_dim)``, the state to start from.
        cell: ``(directions, sentences, cell_size)``, likewise.

    Returns:
        For each direction its outputs ``(all words, projection_dim)``, in the order of its words, and the two parts of
        the state after each sentence's last word.
    """
    weights = [prepacked(layer) for layer in layers]
    dtype, width = words[0].vectors.dtype, 4 * layers[0].cell_size
    returned = torch.promote_types(dtype, cell.dtype)
    # Twice the cells, as `_run_steps` has them.
    cells = cell.to(torch.promote_types(dtype, torch.float32)) * 2
    single = len(batch_sizes) - (weights[0].paired_steps(weights[1], batch_sizes) if len(weights) == 2 else 0)
    first, rest = batch_sizes[:single], batch_sizes[single:]
    outputs: list[Tensor] = []
    ends: list[Tensor] = []
    for layer, each, x, h, c in zip(layers, weights, words, hidden.to(dtype), cells):
        y, end = _run_steps(layer, each, _input_gates(x, each, first, width), h, c)
        outputs.append(y)
        ends.append(end)
    if rest:
        n, begin = rest[0], sum(first)
        gates = _input_gates_of_both([x.behind(begin) for x in words], weights, rest, width)
        pair = weights[0].paired_with(weights[1])
        y, last = _run_steps(layers[0], pair, gates, torch.stack([h[:n] for h in ends]), cells[:, :n])
        outputs = [torch.cat(parts) for parts in zip(outputs, y)]
        ends = [torch.cat([now, before[n:]]) for now, before in zip(last, ends)]
    return outputs, torch.stack(ends), cells.mul_(0.5).to(returned)


def _run_steps(
    layer: LstmLayer,
    weights: PrepackedWeights | PrepackedPair,
    input_gates: Iterator[tuple[int, Tensor]],
    h: Tensor,
    cells: Tensor,
) -> tuple[Tensor, Tensor]:
    """The time steps of a layer's direction, or of both at once, in tensors of one more dimension.

    torch is faster at sigmoids than at ``tanh``, and one sigmoid over all four gates is faster still. Since
    ``tanh(x) = 2 * sigmoid(2 * x) - 1``, with ``g2 = sigmoid(2 * g)`` and ``C = 2 * c``:

        C' = 2 * (f * c + i * tanh(g)) = f * C + 4 * i * g2 - 2 * i
        W_hr @ (o * tanh(c')) = W_hr @ (o * (2 * sigmoid(C') - 1)) = (2 * W_hr) @ (o * (sigmoid(C') - 0.5))

    `PrepackedWeights` doubles the rows of the gate g and the projection; a factor of 2 is exact in floating point.

    Args:
        layer: The layer, for its clips.
        weights: Its weights.
        input_gates: For each time step its number of sentences, and the input's part of their gates,
            ``(..., sentences, 4 * cell_size)``.
        h: ``(..., sentences, projection_dim)``, the output before.
        cells: ``(..., sentences, cell_size)``, twice the cells before; overwritten by those after each sentence.

    Returns:
        The outputs ``(..., words, projection_dim)``, and the last one of each sentence.
    """
    dtype, exact, c = h.dtype, cells.dtype, cells
    cell_clip, proj_clip = layer.cell_clip, layer.proj_clip
    outputs, ended = [h[..., :0, :]], []
    for n, gates in input_gates:
        if n < h.shape[-2]:
            ended.append(h[..., n:, :])
            # Sentences that have ended keep their cells.
            h, c = h[..., :n, :], cells[..., :n, :]
        gates = weights.add_recurrent(h, gates)
        if gates.dtype != exact:
            gates = gates.to(exact)
        i, f, g2, o = gates.sigmoid_().chunk(4, dim=-1)
        c.mul_(f).addcmul_(i, g2, value=4).sub_(i, alpha=2)
        if cell_clip is not None:
            c.clamp_(-2 * cell_clip, 2 * cell_clip)
        h = c.sigmoid().sub_(0.5).mul_(o)
        if weights.project is None:
            h = h.mul_(2).to(dtype)
        else:
            h = weights.project(h.to(dtype)).to(dtype)
            if proj_clip is not None:
                h.clamp_(-proj_clip, proj_clip)
        outputs.append(h)
    ended.append(h)
    return torch.cat(outputs, dim=-2), torch.cat(ended[::-1], dim=-2)


def _input_gates(
    words: Words, weights: PrepackedWeights, batch_sizes: list[int], width: int
) -> Iterator[tuple[int, Tensor]]:
    """For each time step its number of sentences, and the input's part of their gates, ``(sentences, width)``."""
    vectors, index = words.vectors, words.index
    row = width * vectors.element_size()
    if batch_sizes and index is not None and len(vectors) < len(index) and len(vectors) * row <= _BYTES_OF_TABLE:
        table = weights.input_gates(vectors)
        places = index[: sum(batch_sizes)].split(batch_sizes)
        yield from ((n, table.index_select(0, some)) for n, some in zip(batch_sizes, places))
    elif batch_sizes:
        x = words.all()
        for begin, sizes in _chunks(batch_sizes, row):
            yield from zip(sizes, weights.input_gates(x[begin : begin + sum(sizes)]).split(sizes))


def _input_gates_of_both(
    words: list[Words], weights: list[PrepackedWeights], batch_sizes: list[int], width: int
) -> Iterator[tuple[int, Tensor]]:
    """As `_input_gates`, of both directions: ``(2, sentences, width)``."""
    rows = [each.all() for each in words]
    for begin, sizes in _chunks(batch_sizes, 2 * width * rows[0].element_size()):
        gates = [each.input_gates(x[begin : begin + sum(sizes)]) for each, x in zip(weights, rows)]
        yield from zip(sizes, torch.stack(gates).split(sizes, dim=1))


def _chunks(batch_sizes: list[int], row: int) -> Iterator[tuple[int, list[int]]]:
    """Time steps whose input gates are computed at once: their first word, and their numbers of sentences.

    Args:
        batch_sizes: Number of sentences at each time step.
        row: Bytes of a word's gates.
    """
    most, begin = max(_BYTES_OF_INPUT_GATES // row, 1), 0
    sizes: list[int] = []
    for step, n in enumerate(batch_sizes):
        sizes.append(n)
        if step + 1 == len(batch_sizes) or sum(sizes) + batch_sizes[step + 1] > most:
            yield begin, sizes
            begin, sizes = begin + sum(sizes), []


# Held while weights are prepacked, so that threads that share a model do not make the same copies at the same time.
_prepacking = RLock()


def _renew_lock() -> None:
    """For a forked process: whoever held the lock is not there any more."""
    global _prepacking
    _prepacking = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class PrepackedWeights:
    """The products of one layer's weights, each prepacked when it is first wanted.

    The rows of the gate g and the projection are doubled (`_run_steps` says why).

    Args:
        layer: The layer.
        prepack: Makes a weight into its product.
        prepack_input: Whether the input weight is prepacked too.
    """

    def __init__(self, layer: LstmLayer, prepack: Callable[[Tensor], Product], prepack_input: bool):
        size = layer.cell_size
        self.dtype = layer.bias.dtype
        self._prepack = prepack
        self._forget, self._new_cells = slice(size, 2 * size), slice(2 * size, 3 * size)
        weight_ih = layer.weight_ih.detach()
        self._input_product = prepack(weight_ih) if prepack_input else None
        # Where it is prepacked the weight itself is not kept alive from here.
        self._weight_ih = None if prepack_input else weight_ih
        self._weight_hh: Tensor | None = layer.weight_hh.detach()
        self._weight_hr = None if layer.weight_hr is None else layer.weight_hr.detach()
        self._raw_bias = layer.bias.detach().clone()
        self._add_recurrent: Product | None = None
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

    def input_gates(self, rows: Tensor) -> Tensor:
        """The input's part of the gates: ``(rows, projection_dim)`` to ``(rows, 4 * cell_size)``."""
        if self._input_product is not None:
            gates = self._input_product(rows).add_(self._bias)
        else:
            assert self._weight_ih is not None
            gates = linear(rows, self._weight_ih, self._bias)
        gates[:, self._new_cells].mul_(2)
        return gates

    @property
    def add_recurrent(self) -> Product:
        """Adds the part of the outputs before: ``(rows, projection_dim)`` and ``(rows, 4 * cell_size)``."""
        if self._add_recurrent is None:
            with _prepacking:
                if self._add_recurrent is None:
                    self._add_recurrent = self._prepack(self.recurrent_weight())
        return self._add_recurrent

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
        assert self._weight_hh is not None
        weight = self._weight_hh.clone()
        weight[self._new_cells] *= 2
        return weight

    def projection_weight(self) -> Tensor | None:
        """``(projection_dim, cell_size)``: a copy, doubled; None without."""
        return None if self._weight_hr is None else self._weight_hr * 2

    def finish(self) -> PrepackedWeights:
        """Prepacks all weights now, and lets go of them."""
        _ = self.add_recurrent, self.project
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
        if self._weight_hh is None or other._weight_hh is None or not torch.backends.mkl.is_available():
            return 0
        # Small weights in bfloat16 are multiplied in float32 too, in half the time.
        if 4 * self._weight_hh.numel() <= _BYTES_TO_COPY_FREELY and self.dtype in (torch.float32, torch.bfloat16):
            return sum(n <= _FEW_SENTENCES for n in batch_sizes)
        if self.dtype != torch.float32:
            return 0
        # A second copy of large weights is not worth the last steps of a batch.
        return len(batch_sizes) if batch_sizes[0] == 1 and torch.get_num_threads() <= _FEW_THREADS else 0

    def paired_with(self, other: PrepackedWeights) -> PrepackedPair:
        """The products of this layer and the other direction's."""
        kept = self._pair
        if kept is not None and kept[0] is other:
            return kept[1]
        with _prepacking:
            if self._pair is None or self._pair[0] is not other:
                self._pair = other, PrepackedPair(self, other)
            return self._pair[1]


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

    def add_recurrent(self, hidden: Tensor, gates: Tensor) -> Tensor:
        """As `PrepackedWeights.add_recurrent`, of any dtype."""
        return torch.baddbmm(gates.float(), hidden.float(), self._recurrent)


# Outside of the modules, so that the copies are never saved, moved or copied with them.
_prepacked: WeakKeyDictionary[nn.Module, tuple[Fingerprint, PrepackedWeights]] = WeakKeyDictionary()


def prepacked(layer: LstmLayer) -> PrepackedWeights:
    """A layer's prepacked weights; made anew if the parameters were changed."""
    weights = layer.quantized if isinstance(layer.quantized, PrepackedWeights) else _kept_or_made(layer)
    if weights.forget_bias != layer.forget_bias:
        weights.use_forget_bias(layer.forget_bias)
    return weights


def _kept_or_made(layer: LstmLayer) -> PrepackedWeights:
    parameters = list(layer.parameters())
    kept = _prepacked.get(layer)
    if kept is not None and kept[0].matches(parameters):
        return kept[1]
    with _prepacking:
        kept = _prepacked.get(layer)
        if kept is not None and kept[0].matches(parameters):
            return kept[1]
        # Before the copies: of weights that are changed meanwhile they are made anew.
        made_of = Fingerprint(parameters)
        prepack = packed_product if has_onednn(layer.weight_hh) else plain_product
        prepack_input = prepack is packed_product and layer.weight_ih.nbytes <= _BYTES_TO_COPY_FREELY
        weights = PrepackedWeights(layer, prepack, prepack_input)
        _prepacked[layer] = made_of, weights
        return weights


def quantize_layer(layer: LstmLayer) -> None:
    """Puts a layer's weights into 8 bits, and its parameters away; there is no way back."""
    quantized = PrepackedWeights(layer, int8_product, prepack_input=True).finish()
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
    _prepacked.pop(layer, None)
    layer.quantized = quantized
