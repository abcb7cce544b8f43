"""The biLM's LSTMs on a CPU, when nothing is to be learned: weights laid out once, and cells updated in place.

`LstmLayer.read` is the same in plain operations. Four things are quicker here:

- The recurrent weight and the projection serve every time step, so they are laid out for the product once and for all
  (`matrix_products.py`). The copies are kept until the parameters change.
- In the lowest layer the input's share of the gates is computed once for each distinct word of the batch.
- A step is few operations, in place. All its gates are one sigmoid, and ``tanh(x)`` is ``2 * sigmoid(2 * x) - 1``,
  because torch is quicker at sigmoids. The factors 2 stand in the laid out weights, where they are exact.
- The input's share is computed for some time steps at once; for all of them it would take more memory than the model.

Cells and gates are in float32 at least: with weights in bfloat16 only the products are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .int8_products import int8_product
from .matrix_products import Fingerprint, has_onednn, linear, packed_product, plain_product

if TYPE_CHECKING:
    from .bilstm import LstmLayer, Words

logger = logging.get_logger(__name__)

# The input's share of the gates takes at most so many bytes at once, and for distinct words at most so many.
_BYTES_OF_SHARES = 2**25
_BYTES_OF_TABLE = 3 * 2**25
# A weight that is read once for each batch is laid out too if the copy is no larger.
_BYTES_TO_COPY_FREELY = 2**22


class _Packed(NamedTuple):
    """What one layer's weights were made into.

    Attributes:
        share: The input's share of the gates of rows, ``(rows, projection_dim)`` to ``(rows, 4 * cell_size)``.
        recur: Adds the share of the outputs before.
        project: The projection, of halves of outputs; None without.
    """

    share: Callable[[Tensor], Tensor]
    recur: Callable[[Tensor, Tensor], Tensor]
    project: Callable[[Tensor], Tensor] | None


# Outside of the modules, so that the copies are never saved, moved or copied with them.
_packed: WeakKeyDictionary[nn.Module, tuple[Fingerprint, _Packed]] = WeakKeyDictionary()


def why_not(layers: Sequence[LstmLayer], words: Words) -> str | None:
    """Why `read_stack` does not serve these layers and words; None if it does."""
    learned = [parameter for layer in layers if not is_quantized(layer) for parameter in layer.parameters()]
    if torch.is_grad_enabled() and any(x.requires_grad for x in (words.vectors, *learned)):
        return "gradients are recorded"
    if torch.is_autocast_enabled("cpu") or any(parameter.dtype != words.vectors.dtype for parameter in learned):
        return "words and weights are of several dtypes"
    if any(parameter.device.type != "cpu" for parameter in learned):
        return "not all weights are on the CPU"
    if any(parameter.is_inference() for parameter in learned):
        return "the weights are inference tensors, whose changes torch does not count"
    return None


def read_stack(
    layers: Sequence[LstmLayer], words: Words, batch_sizes: list[int], hidden: Tensor, cell: Tensor, skips: bool
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Reads packed sentences in one direction.

    Args:
        layers: The layers of that direction.
        words: The words, in the order in which the direction reads (`mirrored`).
        batch_sizes: Number of sentences at each time step; falls.
        hidden: ``(layers, sentences, projection_dim)``, the state to start from, in packed order.
        cell: ``(layers, sentences, cell_size)``, likewise.
        skips: Whether layers above the first add their input to their output.

    Returns:
        The layers' outputs, ``(all words, projection_dim)`` each, in the order of `words`, and the two parts of the
        state after each sentence's last word, in packed order.
    """
    x, outputs, last_hidden, last_cell = words, [], [], []
    with torch.no_grad():
        for depth, layer in enumerate(layers):
            y, h, c = _read(layer, x, batch_sizes, hidden[depth], cell[depth])
            if skips and depth > 0:
                y += x.vectors
            outputs.append(y)
            last_hidden.append(h)
            last_cell.append(c)
            x = type(x)(y)
    return outputs, torch.stack(last_hidden), torch.stack(last_cell)


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
            h = packed.project(half.to(dtype)).to(dtype)
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


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer has weights in 8 bits, and no others."""
    return "quantized" in layer.__dict__


def quantize_layer(layer: LstmLayer) -> None:
    """Puts a layer's weights into 8 bits, and its parameters away; there is no way back."""
    quantized = _made(layer, int8_product, lays_out_all=True)
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
    layer.quantized = quantized


def _pack(layer: LstmLayer) -> _Packed:
    """A layer's weights, laid out; anew if they were changed."""
    if is_quantized(layer):
        return layer.quantized
    made_of = Fingerprint(layer.parameters())
    kept = _packed.get(layer)
    if kept is not None and kept[0] == made_of:
        return kept[1]
    make = packed_product if has_onednn(layer.weight_hh) else plain_product
    kind = "oneDNN's" if make is packed_product else "torch's own"
    logger.info_once(f"The biLM's LSTMs are read by weights laid out once, in {layer.bias.dtype}, {kind} products.")
    packed = _made(layer, make, make is packed_product and layer.weight_ih.nbytes <= _BYTES_TO_COPY_FREELY)
    _packed[layer] = made_of, packed
    return packed


def _made(layer: LstmLayer, make: Callable[[Tensor], Callable[..., Tensor]], lays_out_all: bool) -> _Packed:
    size = layer.cell_size
    new_cells = slice(2 * size, 3 * size)
    weight_ih, bias = layer.weight_ih.detach(), layer.bias.detach().clone()
    bias[size : 2 * size] += layer.forget_bias
    of_inputs = make(weight_ih) if lays_out_all else None

    def share(rows: Tensor) -> Tensor:
        gates = linear(rows, weight_ih, bias) if of_inputs is None else of_inputs(rows).add_(bias)
        gates[:, new_cells].mul_(2)
        return gates

    weight_hh = layer.weight_hh.detach().clone()
    weight_hh[new_cells] *= 2
    project = None if layer.weight_hr is None else make(layer.weight_hr.detach() * 2)
    if lays_out_all:
        # Not to be kept alive by `share`.
        weight_ih = None
    return _Packed(share, make(weight_hh), project)
