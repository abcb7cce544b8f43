"""The biLM's LSTMs on a CPU, when nothing is to be learned: weights laid out once, and cells updated in place.

`LstmLayer.read` is the same in plain operations. Four things are quicker here:

- The recurrent weight and the projection serve every time step, so they are laid out for the product once and for all
  (`matrix_products.py`). The copies are kept until the parameters change.
- In the lowest layer the input's share of the gates is computed once for each distinct word of the batch.
- A step is few operations, in place. All its gates are one sigmoid, and ``tanh(x)`` is ``2 * sigmoid(2 * x) - 1``, for
  which torch needs a fifth of the time (Zen 4). The factors 2 stand in the laid out weights, where they are exact.
- The input's share is computed for some time steps at once; for all of them it would take more memory than the model.

Cells and gates are in float32 at least: with weights in bfloat16 only the products are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .int8_products import int8_product
from .matrix_products import Fingerprint, has_onednn, linear, packed_product, plain_product

if TYPE_CHECKING:
    from .bilstm import BiLstm, ElmoState, LstmLayer, Words

logger = logging.get_logger(__name__)

# The input's share of the gates takes at most so many bytes at once, and for distinct words at most so many.
_BYTES_OF_SHARES = 2**25
_BYTES_OF_TABLE = 3 * 2**25
# A weight that is read once for each batch is laid out too if the copy is no larger.
_BYTES_TO_COPY_FREELY = 2**22


class _Packed(NamedTuple):
    """What one layer's weights were made into.

    Attributes:
        made_of: The parameters.
        share: The input's share of the gates of rows, ``(rows, projection_dim)`` to ``(rows, 4 * cell_size)``.
        recur: Adds the share of the outputs before.
        project: The projection, of halves of outputs; None without.
    """

    made_of: Fingerprint
    share: Callable[[Tensor], Tensor]
    recur: Callable[[Tensor, Tensor], Tensor]
    project: Callable[[Tensor], Tensor] | None


# Outside of the modules, so that the copies are never saved, moved or copied with them.
_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


def why_not(bilstm: BiLstm, words: tuple[Words, Words]) -> str | None:
    """Why `read_both` does not serve here; None if it does."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*(w.vectors for w in words), *bilstm.parameters())):
        return "gradients are recorded"
    if bilstm.training and bilstm.dropout.p > 0:
        return "there is dropout"
    dtype = words[0].vectors.dtype
    if not all(parameter.device.type == "cpu" for parameter in bilstm.parameters()):
        return "not all weights are on the CPU"
    if any(parameter.dtype != dtype for parameter in bilstm.parameters()) or torch.is_autocast_enabled("cpu"):
        return "words and weights are of several dtypes"
    if any(parameter.is_inference() for parameter in bilstm.parameters()):
        return "the weights are inference tensors, whose changes torch does not count"
    return None


def read_both(
    bilstm: BiLstm, words: tuple[Words, Words], batch_sizes: list[int], state: ElmoState
) -> tuple[list[Tensor], ElmoState]:
    """Reads packed sentences in both directions.

    Args:
        bilstm: The layers.
        words: For the forward and for the backward direction, each in the order in which its direction reads
            (`Packing.mirror`).
        batch_sizes: Number of sentences at each time step; falls.
        state: The state to start from, in packed order.

    Returns:
        Per layer the outputs ``(2, all words, projection_dim)`` in the orders of `words`, and the state after each
        sentence's last word, in packed order.
    """
    stacks, hidden, cell = [], [], []
    with torch.no_grad():
        for direction, layers in enumerate((bilstm.forward_layers, bilstm.backward_layers)):
            x, outputs = words[direction], []
            for depth, layer in enumerate(layers):
                y, h, c = _read(layer, x, batch_sizes, state.hidden[direction, depth], state.cell[direction, depth])
                if bilstm.use_skip_connections and depth > 0:
                    y += x.vectors
                outputs.append(y)
                hidden.append(h)
                cell.append(c)
                x = type(x)(y)
            stacks.append(outputs)
        shape = (2, len(bilstm.forward_layers))
        end = (torch.stack(parts).unflatten(0, shape) for parts in (hidden, cell))
        return [torch.stack(pair) for pair in zip(*stacks, strict=True)], type(state)(*end)


def _read(
    layer: LstmLayer, words: Words, batch_sizes: list[int], hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of one layer: outputs, and the state after each sentence."""
    packed = _pack(layer)
    dtype = words.vectors.dtype
    exact = torch.promote_types(dtype, torch.float32)
    returned = torch.promote_types(dtype, cell.dtype)
    cell = cell.to(exact, copy=True)
    h = hidden.to(dtype)
    outputs: list[Tensor] = [h[:0]]
    ended: list[Tensor] = []
    for n, share in _shares(words, packed, batch_sizes, 4 * layer.cell_size):
        if n < len(h):
            ended.append(h[n:])
            h = h[:n]
        gates = packed.recur(h, share).to(exact).sigmoid_()
        i, f, g, o = gates.chunk(4, dim=1)
        # Sentences that have ended keep their cells: the buffer is the state after all of them.
        c = cell[:n].mul_(f).addcmul_(i, g, value=2).sub_(i)
        if layer.cell_clip is not None:
            c.clamp_(-layer.cell_clip, layer.cell_clip)
        half = torch.mul(c, 2).sigmoid_().sub_(0.5).mul_(o)
        if packed.project is None:
            h = half.mul_(2).to(dtype)
        else:
            h = packed.project(half.to(dtype))
            if layer.proj_clip is not None:
                h = h.clamp_(-layer.proj_clip, layer.proj_clip)
        outputs.append(h)
    ended.append(h)
    return torch.cat(outputs), torch.cat(ended[::-1]), cell.to(returned)


def _shares(words: Words, packed: _Packed, batch_sizes: list[int], width: int) -> Iterator[tuple[int, Tensor]]:
    """For each time step its number of sentences, and the input's share of their gates, ``(sentences, width)``."""
    vectors, index = words
    row = width * vectors.element_size()
    if index is not None and len(vectors) < len(index) and len(vectors) * row <= _BYTES_OF_TABLE:
        table = packed.share(vectors)
        for n, places in zip(batch_sizes, index.split(batch_sizes)):
            yield n, table.index_select(0, places)
        return
    x = words.all()
    most, begin = max(_BYTES_OF_SHARES // row, 1), 0
    run: list[int] = []
    for step, n in enumerate(batch_sizes):
        run.append(n)
        if step + 1 == len(batch_sizes) or sum(run) + batch_sizes[step + 1] > most:
            end = begin + sum(run)
            yield from zip(run, packed.share(x[begin:end]).split(run))
            begin, run = end, []


def _pack(layer: LstmLayer) -> _Packed:
    """A layer's weights, laid out; anew if they were changed."""
    kept = _packed.get(layer)
    made_of = Fingerprint(layer.parameters())
    if kept is not None and kept.made_of == made_of:
        return kept
    quantized = getattr(layer, "int8", False)
    make = int8_product if quantized else packed_product if has_onednn(layer.weight_hh) else plain_product
    kind = {int8_product: "int8", packed_product: "oneDNN", plain_product: "torch"}[make]
    logger.info_once(f"The biLM's LSTMs are read with weights laid out once ({kind}'s products, {layer.bias.dtype}).")
    size = layer.cell_size
    bias = layer.bias.detach().clone()
    bias[size : 2 * size] += layer.forget_bias
    new_cells = slice(2 * size, 3 * size)
    weight_ih = layer.weight_ih.detach()
    copies_freely = weight_ih.nbytes <= _BYTES_TO_COPY_FREELY and make is packed_product
    of_inputs = make(weight_ih) if copies_freely or quantized else None

    def share(rows: Tensor) -> Tensor:
        if of_inputs is None:
            gates = linear(rows, weight_ih, bias)
        else:
            gates = of_inputs(rows).add_(bias)
        gates[:, new_cells].mul_(2)
        return gates

    weight_hh = layer.weight_hh.detach().clone()
    weight_hh[new_cells] *= 2
    packed = _Packed(
        made_of,
        share,
        make(weight_hh),
        None if layer.weight_hr is None else make(layer.weight_hr.detach() * 2),
    )
    _packed[layer] = packed
    return packed
