"""The biLM's LSTMs on a CPU, when nothing is to be learned: weights laid out once, and cells updated in place.

`LstmLayer.read` is the same in plain operations. Five things are quicker here:

- The recurrent weight and the projection serve every time step, so they are laid out for the product once and for all
  (`lstm_weights.py`). The copies are kept until the parameters change.
- Where few sentences are left to read, both directions take their steps together, half as many.
- In the lowest layer the input's share of the gates is computed once for each distinct word of the batch.
- A step is few operations, in place. All its gates are one sigmoid, and ``tanh(x)`` is ``2 * sigmoid(2 * x) - 1``,
  because torch is quicker at sigmoids. The factors 2 stand in the laid out weights and in the cells, where they are
  exact.
- The input's share is computed for some time steps at once; for all of them it would take more memory than the model.

Cells and gates are in float32 at least: with weights in bfloat16 only the products are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .lstm_weights import LaidOut, Together, is_quantized, laid_out

if TYPE_CHECKING:
    from .bilstm import LstmLayer, Words

# The input's share of the gates takes at most so many bytes at once, and for distinct words at most so many.
_BYTES_OF_SHARES = 2**25
_BYTES_OF_TABLE = 3 * 2**25


def why_not(layers: Iterable[LstmLayer], words: Sequence[Words]) -> str | None:
    """Why `read_stacks` does not serve these layers and words; None if it does."""
    learned = [parameter for layer in layers if not is_quantized(layer) for parameter in layer.parameters()]
    tensors = [*(each.vectors for each in words), *learned]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are recorded"
    if torch.is_autocast_enabled("cpu") or any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        return "words and weights are of several dtypes"
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "not all weights are on the CPU"
    if any(parameter.is_inference() for parameter in learned):
        return "the weights are inference tensors, whose changes torch does not count"
    return None


def read_stacks(
    stacks: Sequence[Sequence[LstmLayer]],
    words: Sequence[Words],
    batch_sizes: list[int],
    hidden: Tensor,
    cell: Tensor,
    skips: bool,
) -> tuple[list[list[Tensor]], Tensor, Tensor]:
    """Reads packed sentences in one direction or in both.

    Args:
        stacks: The layers of each direction.
        words: The words of each, in the order in which it reads (`mirrored`).
        batch_sizes: Number of sentences at each time step; falls.
        hidden: ``(directions, layers, sentences, projection_dim)``, the state to start from, in packed order.
        cell: ``(directions, layers, sentences, cell_size)``, likewise.
        skips: Whether layers above the first add their input to their output.

    Returns:
        For each direction its layers' outputs, ``(all words, projection_dim)`` each, in the order of its words; and the
        two parts of the state after each sentence's last word, as they came.
    """
    outputs: list[list[Tensor]] = [[] for _ in stacks]
    ends = []
    with torch.no_grad():
        for depth, layers in enumerate(zip(*stacks, strict=True)):
            read, *end = _read(layers, words, batch_sizes, hidden[:, depth], cell[:, depth])
            ends.append(end)
            for known, y, x in zip(outputs, read, words):
                known.append(y.add_(x.vectors) if skips and depth > 0 else y)
            words = [type(x)(known[-1]) for known, x in zip(outputs, words)]
    last_hidden, last_cell = (torch.stack(parts, dim=1) for parts in zip(*ends))
    return outputs, last_hidden, last_cell


def _read(
    layers: Sequence[LstmLayer], words: Sequence[Words], batch_sizes: list[int], hidden: Tensor, cell: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """A layer of each direction: outputs, and the state after each sentence."""
    weights = [laid_out(layer) for layer in layers]
    dtype, width = words[0].vectors.dtype, 4 * layers[0].cell_size
    returned = torch.promote_types(dtype, cell.dtype)
    # Twice the cells: so their tanh takes an operation less.
    cells = cell.to(torch.promote_types(dtype, torch.float32)) * 2
    alone = len(batch_sizes) - (weights[0].steps_with(weights[1], batch_sizes) if len(weights) == 2 else 0)
    first, rest = batch_sizes[:alone], batch_sizes[alone:]
    outputs, ends = [], []
    for layer, each, x, h, c in zip(layers, weights, words, hidden.to(dtype), cells):
        y, end = _walk(layer, each, _shares(x, each, first, width), h, c)
        outputs.append(y)
        ends.append(end)
    if rest:
        n, begin = rest[0], sum(first)
        pair = weights[0].together_with(weights[1])
        shares = _shares_of_both([_from(x, begin) for x in words], pair, rest, width)
        y, end = _walk(layers[0], pair, shares, torch.stack([h[:n] for h in ends]), cells[:, :n])
        outputs = [torch.cat(parts) for parts in zip(outputs, y)]
        ends = [torch.cat([now, before[n:]]) for now, before in zip(end, ends)]
    return outputs, torch.stack(ends), cells.mul_(0.5).to(returned)


def _walk(
    layer: LstmLayer, weights: LaidOut | Together, shares: Iterator[tuple[int, Tensor]], h: Tensor, cells: Tensor
) -> tuple[Tensor, Tensor]:
    """The time steps of a layer's direction, or of both at once, in tensors of one more dimension.

    Args:
        layer: The layer, for its clips.
        weights: Its weights.
        shares: For each time step its number of sentences, and the input's share of their gates,
            ``(..., sentences, 4 * cell_size)``.
        h: ``(..., sentences, projection_dim)``, the output before.
        cells: ``(..., sentences, cell_size)``, twice the cells before; overwritten by those after each sentence.

    Returns:
        The outputs ``(..., words, projection_dim)``, and the last one of each sentence.
    """
    dtype, exact, c = h.dtype, cells.dtype, cells
    cell_clip, proj_clip = layer.cell_clip, layer.proj_clip
    outputs, ended = [h[..., :0, :]], []
    for n, share in shares:
        if n < h.shape[-2]:
            ended.append(h[..., n:, :])
            # Sentences that have ended keep their cells.
            h, c = h[..., :n, :], cells[..., :n, :]
        gates = weights.recur(h, share)
        if gates.dtype != exact:
            gates = gates.to(exact)
        i, f, g, o = gates.sigmoid_().chunk(4, dim=-1)
        c.mul_(f).addcmul_(i, g, value=4).sub_(i, alpha=2)
        if cell_clip is not None:
            c.clamp_(-2 * cell_clip, 2 * cell_clip)
        h = c.sigmoid().sub_(0.5).mul_(o)
        h = weights.project(h.to(dtype)).to(dtype) if layer.weight_hr is not None else h.mul_(2).to(dtype)
        if proj_clip is not None and layer.weight_hr is not None:
            h.clamp_(-proj_clip, proj_clip)
        outputs.append(h)
    ended.append(h)
    return torch.cat(outputs, dim=-2), torch.cat(ended[::-1], dim=-2)


def _shares(words: Words, weights: LaidOut, batch_sizes: list[int], width: int) -> Iterator[tuple[int, Tensor]]:
    """For each time step its number of sentences, and the input's share of their gates, ``(sentences, width)``."""
    vectors, index = words
    row = width * vectors.element_size()
    if batch_sizes and index is not None and len(vectors) < len(index) and len(vectors) * row <= _BYTES_OF_TABLE:
        table = weights.share(vectors)
        places = index[: sum(batch_sizes)].split(batch_sizes)
        yield from ((n, table.index_select(0, some)) for n, some in zip(batch_sizes, places))
    elif batch_sizes:
        x = words.all()
        for begin, run in _runs(batch_sizes, row):
            yield from zip(run, weights.share(x[begin : begin + sum(run)]).split(run))


def _shares_of_both(
    words: list[Words], weights: Together, batch_sizes: list[int], width: int
) -> Iterator[tuple[int, Tensor]]:
    """As `_shares`, of both directions: ``(2, sentences, width)``."""
    rows = [each.all() for each in words]
    for begin, run in _runs(batch_sizes, 2 * width * rows[0].element_size()):
        yield from zip(run, weights.share([x[begin : begin + sum(run)] for x in rows]).split(run, dim=1))


def _runs(batch_sizes: list[int], row: int) -> Iterator[tuple[int, list[int]]]:
    """Time steps to compute the shares of at once, if one takes so many bytes: where they begin, and their sizes."""
    most, begin = max(_BYTES_OF_SHARES // row, 1), 0
    run: list[int] = []
    for step, n in enumerate(batch_sizes):
        run.append(n)
        if step + 1 == len(batch_sizes) or sum(run) + batch_sizes[step + 1] > most:
            yield begin, run
            begin, run = begin + sum(run), []


def _from(words: Words, begin: int) -> Words:
    """Packed words from a place on."""
    vectors, index = words
    return type(words)(vectors[begin:]) if index is None else type(words)(vectors, index[begin:])
