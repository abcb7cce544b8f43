"""The biLM's LSTMs on a CPU, when nothing is to be learned: weights laid out once, and cells updated in place.

`LstmLayer.read` is the same in plain operations. Five things are quicker here:

- The recurrent weight and the projection serve every time step, so they are laid out for the product once and for all
 . The copies are kept until the parameters change.
- Where few sentences are left to read, both directions take their steps together, half as many.
- In the lowest layer the input's share of the gates is computed once for each distinct word of the batch.
- A step is few operations, in place. All its gates are one sigmoid, and ``tanh(x)`` is ``2 * sigmoid(2 * x) - 1``,
  because torch is quicker at sigmoids. The factors 2 stand in the laid out weights and in the cells, where they are
  exact.
- The input's share is computed for some time steps at once; for all of them it would take more memory than the model.

Cells and gates are in float32 at least: with weights in bfloat16 only the products are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..fingerprint import Fingerprint
from ..matrix_products import has_onednn, int8_product, linear, packed_product, plain_product
from .lstm_layer import LstmLayer
from .packing import Words

logger = logging.get_logger(__name__)

# The input's share of the gates takes at most so many bytes at once, and for distinct words at most so many.
_BYTES_OF_SHARES = 2**25
_BYTES_OF_TABLE = 3 * 2**25
# A weight that is read once for each batch is laid out too if the copy is no larger.
_BYTES_TO_COPY_FREELY = 2**22
# So few sentences are read quicker by both directions in one product; of larger weights, and on few threads, one is.
_FEW_SENTENCES = 3
_FEW_THREADS = 2

# A product, and one that is added to its second argument.
Product = Callable[..., Tensor]


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
            words = [Words(known[-1]) for known, x in zip(outputs, words)]
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
    return Words(vectors[begin:]) if index is None else Words(vectors, index[begin:])


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
