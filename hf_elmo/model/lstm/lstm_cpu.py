"""The biLM's LSTMs on a CPU, when nothing is to be learned: weights prepacked once, and cells updated in place.

`LstmLayer.read` is the same in plain operations. Five things are faster here:

- The recurrent weight and the projection serve every time step, so they are brought into the layout of the matrix
  product once and for all (prepacked). The copies are kept until the parameters change.
- Where few sentences are left to read, both directions take their steps together, half as many.
- In the lowest layer the input's part of the gates is computed once for each distinct word of the batch.
- A step is few operations, in place, because ``tanh`` is computed as a sigmoid (the algebra is in `_run_steps`).
- The input's part of the gates is computed for some time steps at once; for all of them it would take more memory than
  the model.

Cells and gates are in float32 at least: with weights in bfloat16 only the products are, and where the processor
multiplies float32 faster (`choose`) not even those. Then a layer is read in float32, by copies of its weights that are
made in the same memory for one layer after the other (`Widening`); its outputs are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..fingerprint import only_plain_operations_reason
from ..products.matrix_products import Choice, choose
from .lstm_layer import (
    ElmoState,
    LstmInputs,
    LstmLayer,
    LstmOutputs,
    is_quantized,
    not_bare_reason,
)
from .packing import Words
from .prepacked_weights import Gates, PrepackedPair, PrepackedWeights, Widening, each_gate, prepacked

# The input's part of the gates takes at most this many bytes at once, and for distinct words at most this many.
_BYTES_OF_INPUT_GATES = 2**25
_BYTES_OF_TABLE = 3 * 2**25


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
    widening = Widening()
    with torch.no_grad():
        for depth, layers in enumerate(zip(*inputs.layers, strict=True)):
            start = inputs.state.hidden[:, depth], inputs.state.cell[:, depth]
            read, h, c = _run_layer(layers, words, inputs.batch_sizes, *start, widening)
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
    layers: Sequence[LstmLayer],
    words: Sequence[Words],
    batch_sizes: list[int],
    hidden: Tensor,
    cell: Tensor,
    widening: Widening,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """A layer of each direction.

    Args:
        layers: The layer of each direction.
        words: The words of each, in the order in which it reads (`packing.mirrored`).
        batch_sizes: Number of sentences at each time step; falls.
        hidden: ``(directions, sentences, projection_dim)``, the state to start from.
        cell: ``(directions, sentences, cell_size)``, likewise.
        widening: Memory for weights that are widened for this batch.

    Returns:
        For each direction its outputs ``(all words, projection_dim)``, in the order of its words, and the two parts of
        the state after each sentence's last word.
    """
    dtype, width = words[0].vectors.dtype, 4 * layers[0].cell_size
    returned, exact = (torch.promote_types(dtype, other) for other in (cell.dtype, torch.float32))
    choice = _choice(layers[0], batch_sizes)
    computed = exact if choice.widens else dtype
    kept = [] if widening.serves(layers[0], choice) else [prepacked(layer, choice) for layer in layers]
    words = [Words(each.vectors.to(computed), each.index) for each in words]
    # Twice the cells, as `_run_steps` has them.
    cells = cell.to(exact) * 2
    single = len(batch_sizes) - (kept[0].paired_steps(kept[1], batch_sizes) if len(kept) == 2 else 0)
    first, rest = batch_sizes[:single], batch_sizes[single:]
    outputs: list[Tensor] = []
    ends: list[Tensor] = []
    for number, (layer, x, h, c) in enumerate(zip(layers, words, hidden.to(computed), cells)):
        weights = kept[number] if kept else widening.weights(layer, choice)
        y, end = _run_steps(layer, weights, _input_gates(x, weights, first, width, widening), h, c)
        outputs.append(y)
        ends.append(end)
    if rest:
        n, begin = rest[0], sum(first)
        gates = _input_gates_of_both([x.behind(begin) for x in words], kept, rest, width, widening)
        pair = kept[0].paired_with(kept[1])
        y, last = _run_steps(layers[0], pair, gates, torch.stack([h[:n] for h in ends]), cells[:, :n])
        outputs = [torch.cat(parts) for parts in zip(outputs, y)]
        ends = [torch.cat([now, before[n:]]) for now, before in zip(last, ends)]
    return [y.to(dtype) for y in outputs], torch.stack(ends).to(dtype), cells.mul_(0.5).to(returned)


def _choice(layer: LstmLayer, batch_sizes: list[int]) -> Choice:
    """How a layer's weights are multiplied in a batch, by the steps' average number of rows.

    One choice for all steps: each product needs a copy of the weights of its own.
    """
    if is_quantized(layer):
        return Choice("plain", widens=False)
    count = sum(batch_sizes)
    return choose(layer.weight_hh, -(-count // max(len(batch_sizes), 1)), count, keeps_half=True)


def _run_steps(
    layer: LstmLayer,
    weights: PrepackedWeights | PrepackedPair,
    input_gates: Iterator[tuple[int, Gates]],
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
        if gates[0].dtype != exact:
            gates = [part.to(exact) for part in gates]
        for part in gates:
            part.sigmoid_()
        i, f, g2, o = each_gate(gates)
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
    words: Words, weights: PrepackedWeights, batch_sizes: list[int], width: int, widening: Widening
) -> Iterator[tuple[int, Gates]]:
    """For each time step its number of sentences, and the input's part of their gates, ``(sentences, width)``."""
    vectors, index = words.vectors, words.index
    row = width * vectors.element_size()
    if batch_sizes and index is not None and len(vectors) < len(index) and len(vectors) * row <= _BYTES_OF_TABLE:
        tables = weights.input_product(len(vectors), widening)(vectors)
        for n, places in zip(batch_sizes, index[: sum(batch_sizes)].split(batch_sizes)):
            yield n, [table.index_select(0, places) for table in tables]
    elif batch_sizes:
        x = words.all()
        product = weights.input_product(sum(batch_sizes), widening)
        for begin, sizes in _chunks(batch_sizes, row):
            gates = product(x[begin : begin + sum(sizes)])
            yield from zip(sizes, zip(*(part.split(sizes) for part in gates)))


def _input_gates_of_both(
    words: list[Words], weights: list[PrepackedWeights], batch_sizes: list[int], width: int, widening: Widening
) -> Iterator[tuple[int, Gates]]:
    """As `_input_gates`, of both directions: ``(2, sentences, width)``."""
    rows = [each.all() for each in words]
    # Weights that two directions share are not widened for a batch, and keep all gates in one tensor.
    products = [each.input_product(sum(batch_sizes), widening) for each in weights]
    for begin, sizes in _chunks(batch_sizes, 2 * width * rows[0].element_size()):
        gates = [of_all for product, x in zip(products, rows) for of_all in product(x[begin : begin + sum(sizes)])]
        # The gates of a step of one sentence lie in one piece.
        yield from zip(sizes, zip(part.transpose(0, 1) for part in torch.stack(gates, dim=1).split(sizes)))


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
