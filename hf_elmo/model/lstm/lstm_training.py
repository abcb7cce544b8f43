"""Training the biLM's LSTMs on a CPU: a layer's passes forward and backward written out, not a graph per word.

`LstmLayer.read` is the same in plain operations, each of which autograd notes down for every time step; then a weight's
gradient is a sum of as many products as there are steps, each as large as the weight. Here the step's part of the
backward pass only finds the gradients of the gates. Those of the weights, the bias and the inputs follow from them in
one matrix product each, over all words. And because a weight serves all steps of a pass, it pays to prepack it for the
product (`product_of`).

With gradient checkpointing the layer is read twice, as any `GradientCheckpointingLayer`: between its two passes it
keeps nothing but its inputs and the states to start from.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ..fingerprint import only_plain_operations_reason
from ..products.matrix_products import Product, choose, linear, plain_product, product_of
from ..products.processor import row_in_use
from .lstm_layer import LstmInputs, LstmLayer, LstmOutputs, run_layers

# From this many steps on, prepacking a weight takes less time than it saves: about so on a Zen 4, in float32, at
# elmo-mini's size and the original's.
_STEPS_TO_PACK = 5
# The same for a weight to be transposed on the way, which takes longer.
_STEPS_TO_PACK_TRANSPOSED = 15

_ACTIVATIONS = torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid

T = TypeVar("T")


def unsupported_reason(inputs: LstmInputs) -> str | None:
    """Why `run` cannot compute this; None if it can."""
    device = inputs.words[0].vectors.device
    if device.type != "cpu":
        return f"the words are on {device}"
    weights = [parameter for layer in inputs.all_layers() for parameter in layer.parameters()]
    tensors = [*(words.vectors for words in inputs.words), *inputs.state, *weights]
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return "no gradients are recorded"
    if any(tensor.device != device for tensor in tensors):
        return "not all states and weights are on the CPU"
    dtypes = {tensor.dtype for tensor in tensors}
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        if torch.float64 in dtypes or inputs.state.cell.dtype != dtype:
            return f"cells of {inputs.state.cell.dtype} are read under autocast to {dtype}"
    elif len(dtypes) > 1:
        return f"words, states and weights have several dtypes ({', '.join(sorted(map(str, dtypes)))})"
    if inputs.state.hidden.shape[2] != inputs.batch_sizes[0]:
        return "there are states of sentences without words"
    return only_plain_operations_reason(tensors)


def run(inputs: LstmInputs) -> LstmOutputs:
    """Reads packed sentences. Outputs have first derivatives; second ones raise an error."""
    return run_layers(inputs, read_layer)


def read_layer(
    layer: LstmLayer, inputs: Tensor, batch_sizes: list[int], hidden: Tensor, cell: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What `LstmLayer.read` returns, within rounding, and so are its gradients.

    Args:
        layer: The layer.
        inputs: ``(all words, projection_dim)``, packed; this and all others as `unsupported_reason` accepts them.
        batch_sizes: Number of sentences at each time step; falls.
        hidden: ``(sentences, projection_dim)``, the state to start from.
        cell: ``(sentences, cell_size)``, likewise.
        reverse: Read from the last word of each sentence to its first.
    """
    options = _Options(batch_sizes, reverse, layer.forget_bias, layer.cell_clip, layer.proj_clip)
    tensors = [inputs, layer.weight_ih, layer.weight_hh, layer.bias, layer.weight_hr, hidden, cell]
    device = inputs.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = [None if tensor is None else tensor.to(dtype) for tensor in tensors]
    with torch.autocast(device, enabled=False):
        outputs: tuple[Tensor, Tensor, Tensor] = _Layer.apply(options, *tensors)
    return outputs


class _Options(NamedTuple):
    """How a layer reads packed sentences.

    Attributes:
        sizes: Number of sentences at each time step; falls.
        reverse: Whether the last step is read first.
        forget_bias: Added to the forget gate.
        cell_clip: Bound of the cells, or None.
        proj_clip: Bound of the projected outputs, or None.
    """

    sizes: list[int]
    reverse: bool
    forget_bias: float
    cell_clip: float | None
    proj_clip: float | None

    def in_order(self, steps: list[T]) -> list[T]:
        """What there is of each time step, in the order in which they are read."""
        return steps[::-1] if self.reverse else steps


class _Context(FunctionCtx):
    """What the pass forward leaves for the pass backward."""

    options: _Options
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _Layer(torch.autograd.Function):
    """The layer as one node of autograd's graph."""

    @staticmethod
    def forward(
        ctx: _Context,
        options: _Options,
        inputs: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        weight_hr: Tensor | None,
        hidden: Tensor,
        cell: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        words, size = len(inputs), cell.shape[1]
        bias = bias.clone()
        bias[size : 2 * size] += options.forget_bias
        gates = linear(inputs, weight_ih, bias)
        # Both as they are before they are clipped: what is beyond its bound has no gradient.
        raw_cells = inputs.new_empty(words, size)
        raw_outputs = inputs.new_empty(words, hidden.shape[1])
        sizes = options.sizes
        project = None if weight_hr is None else _product(weight_hr, sizes)
        recur = _product(weight_hh, sizes)
        of_steps = zip(gates.split(sizes), raw_cells.split(sizes), raw_outputs.split(sizes), strict=True)
        h, c = hidden[:0], cell[:0]
        ended: list[tuple[Tensor, Tensor]] = []
        for activated, raw_cell, raw_output in options.in_order(list(of_steps)):
            count = len(activated)
            if count < len(h):
                ended.append((h[count:], c[count:]))
            h, c = _resized(h, hidden, count), _resized(c, cell, count)
            i, f, g, o = activated.chunk(4, dim=1)
            for function, summed, gate in zip(_ACTIVATIONS, recur(h, activated).chunk(4, dim=1), (i, f, g, o)):
                function(summed, out=gate)
            c = _clipped(torch.mul(f, c, out=raw_cell).addcmul_(i, g), options.cell_clip)
            if project is None:
                h = torch.mul(c.tanh(), o, out=raw_output)
            else:
                h = _clipped(raw_output.copy_(project(c.tanh().mul_(o))), options.proj_clip)
        ended.append((h, c))
        last_hidden, last_cell = (torch.cat(parts) for parts in zip(*reversed(ended)))
        outputs = raw_outputs if weight_hr is None else _clipped(raw_outputs, options.proj_clip)
        ctx.options = options
        # None can be saved too, whatever torch's annotation says.
        saved = inputs, weight_ih, weight_hh, weight_hr, hidden, cell, gates, raw_cells, raw_outputs
        ctx.save_for_backward(*saved)  # type: ignore[arg-type]
        return outputs, last_hidden, last_cell

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return _backward(ctx, *gradients)


def _backward(
    ctx: _Context, d_outputs: Tensor, d_last_hidden: Tensor, d_last_cell: Tensor
) -> tuple[Tensor | None, ...]:
    inputs, weight_ih, weight_hh, weight_hr, hidden, cell, gates, raw_cells, raw_outputs = ctx.saved_tensors
    _, of_inputs, of_ih, of_hh, of_bias, of_hr, of_hidden, of_cell = ctx.needs_input_grad
    options: _Options = ctx.options
    sizes = options.sizes
    proj_clip = None if weight_hr is None else options.proj_clip
    cells, outputs = _clipped(raw_cells, options.cell_clip), _clipped(raw_outputs, proj_clip)
    inside = None if proj_clip is None else torch.eq(raw_outputs, outputs, out=torch.empty_like(outputs))
    # Before the projection, for the gradient of its weight.
    unprojected = torch.empty_like(cells) if of_hr else None
    d_projected = torch.empty_like(outputs) if of_hr else None
    d_gates = torch.empty_like(gates)
    recur = _product(weight_hh, sizes, transposed=True)
    project = None if weight_hr is None else _product(weight_hr, sizes, transposed=True)
    of_words = d_outputs, gates, d_gates, cells, raw_cells, inside, unprojected, d_projected
    of_steps = zip(*([None] * len(sizes) if part is None else part.split(sizes) for part in of_words), strict=True)
    steps = options.in_order(list(of_steps))
    dh, dc = d_last_hidden[:0], d_last_cell[:0]
    of_starts: list[tuple[Tensor, Tensor]] = []
    for number in reversed(range(len(steps))):
        d_output, gate, d_gate, c, raw_cell, inside_step, unprojected_step, d_projected_step = steps[number]
        count = len(gate)
        if count < len(dh):
            of_starts.append((dh[count:], dc[count:]))
        dh = _resized(dh, d_last_hidden, count) + d_output
        dc = _resized(dc, d_last_cell, count)
        if inside_step is not None:
            dh *= inside_step
        if d_projected_step is not None:
            d_projected_step.copy_(dh)
        if project is not None:
            dh = project(dh)
        i, f, g, o = gate.chunk(4, dim=1)
        d_i, d_f, d_g, d_o = d_gate.chunk(4, dim=1)
        tanh_c = c.tanh()
        if unprojected_step is not None:
            torch.mul(o, tanh_c, out=unprojected_step)
        torch.mul(dh, tanh_c, out=d_o).mul_(_slope(o))
        dc = dc + torch.ops.aten.tanh_backward(dh.mul_(o), tanh_c)
        if options.cell_clip is not None:
            dc *= torch.eq(raw_cell, c, out=tanh_c)
        before = _resized(steps[number - 1][3] if number else cell[:0], cell, count)
        torch.mul(dc, g, out=d_i).mul_(_slope(i))
        torch.mul(dc, before, out=d_f).mul_(_slope(f))
        torch.ops.aten.tanh_backward.grad_input(dc * i, g, grad_input=d_g)
        dc *= f
        # What comes before the first word needs no gradient if the sentences started from zeros.
        if number or of_hidden:
            dh = recur(d_gate)
    of_starts.append((dh, dc))
    d_hidden, d_cell = zip(*reversed(of_starts))
    return (
        None,
        linear(d_gates, weight_ih.t()) if of_inputs else None,
        d_gates.t() @ inputs if of_ih else None,
        d_gates.t() @ _before(outputs, hidden, options) if of_hh else None,
        d_gates.sum(dim=0) if of_bias else None,
        None if d_projected is None or unprojected is None else d_projected.t() @ unprojected,
        torch.cat(d_hidden) if of_hidden else None,
        torch.cat(d_cell) if of_cell else None,
    )


def _resized(state: Tensor, start: Tensor, count: int) -> Tensor:
    """The state of the next step's sentences: without those that ended, or with the first of those that begin."""
    if count <= len(state):
        return state[:count]
    return torch.cat([state, start[len(state) : count]]) if len(state) else start[:count]


def _clipped(values: Tensor, bound: float | None) -> Tensor:
    return values if bound is None else values.clamp(-bound, bound)


def _slope(gate: Tensor) -> Tensor:
    """The derivative of the sigmoid where it has these values (`sigmoid_backward` is slow in bfloat16)."""
    return torch.addcmul(gate, gate, gate, value=-1)


def _before(outputs: Tensor, hidden: Tensor, options: _Options) -> Tensor:
    """The outputs before each word, in the order of words: those of the step before, or the state to start from."""
    parts, previous = [], outputs[:0]
    for step in options.in_order(list(outputs.split(options.sizes))):
        parts.append(_resized(previous, hidden, len(step)))
        previous = step
    return torch.cat(options.in_order(parts))


def _product(weight: Tensor, sizes: list[int], transposed: bool = False) -> Product:
    """A weight's product with the rows of each step.

    Args:
        weight: ``(out, in)``.
        sizes: Number of rows at each step.
        transposed: For ``rows @ weight``, not ``rows @ weight.t()``.

    Returns:
        A function of rows and, optionally, of what is to be added to their product.
    """
    steps, words = len(sizes), sum(sizes)
    choice = choose(weight, -(-words // max(steps, 1)), words)
    pays = steps >= (_STEPS_TO_PACK_TRANSPOSED if transposed else _STEPS_TO_PACK)
    if transposed and weight.dtype == torch.float32:
        pays = pays and row_in_use().backward == "packed"
    return product_of(weight, choice, transposed) if pays or choice.widens else plain_product(weight, transposed)
