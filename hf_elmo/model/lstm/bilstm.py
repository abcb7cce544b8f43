"""The bidirectional LSTM language model: two independent stacks of clipped, projected LSTMs (section 3.1 and 3.4).

The formulas are those of TensorFlow's `LSTMCell(num_proj, cell_clip, proj_clip)`, with which every published ELMo was
trained. `torch.nn.LSTM(proj_size=...)` has the projection but not the two clips.

Words travel packed: only real words, as one matrix ``(all words of the batch, dim)`` ordered by time step, and within a
step by falling length of their sentence (`Packing`). No padded step is ever computed, and a sentence's vectors cannot
depend on how its batch was padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from .lstm_inference import read_stacks, why_not
from .lstm_training import is_served, read_for_training
from .lstm_weights import is_quantized

logger = logging.get_logger(__name__)


class ElmoState(NamedTuple):
    """What the LSTMs carry from word to word: pass it on to read the next batch as a continuation of this one.

    Attributes:
        hidden: ``(directions, layers, batch, projection_dim)``, the (clipped) output before any skip connection.
        cell: ``(directions, layers, batch, cell_size)``.

    Direction 0 is forward, 1 is backward. The backward state is the one at the first word.
    """

    hidden: Tensor
    cell: Tensor

    def detach(self) -> ElmoState:
        """The same state, cut from the graph (for truncated backpropagation through time)."""
        return ElmoState(self.hidden.detach(), self.cell.detach())


class Words(NamedTuple):
    """The vectors of packed words.

    Attributes:
        vectors: ``(all words, dim)``; or, with an index, those of the distinct words, ``(distinct words, dim)``.
        index: ``(all words,)``, int64: where the vector of each word is; None: in its own place.
    """

    vectors: Tensor
    index: Tensor | None = None

    def all(self) -> Tensor:
        """``(all words, dim)``."""
        # F.embedding, because its gradient is deterministic where that of `vectors[index]` is not.
        return self.vectors if self.index is None else F.embedding(self.index, self.vectors)

    def select(self, places: Tensor) -> Words:
        """Words in another order: those at some places."""
        if self.index is None:
            return Words(self.vectors.index_select(0, places))
        return Words(self.vectors, self.index.index_select(0, places))


@dataclass(frozen=True)
class Packing:
    """Where the words of a padded batch stand when packed.

    Attributes:
        positions: ``(all words,)``: the word's index in the flattened ``(batch * words)``, ordered by time step, then
            by falling length of the sentence.
        batch_sizes: Number of sentences with a word at each time step; falls.
        rows: ``(sentences,)``: the batch row of each sentence, in packed order (longest first).
        shape: ``(batch, words)`` of the padded batch.
    """

    positions: Tensor
    batch_sizes: list[int]
    rows: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_mask(cls, mask: Tensor, segments: Tensor | None = None) -> Packing:
        """Packs the words that the mask keeps, wherever the padding is.

        Args:
            mask: ``(batch, words)``, bool: true for words.
            segments: ``(batch, words)``, integers. Where it changes within a row, another sentence begins. None: a row
                is one sentence.
        """
        batch, width = mask.shape
        index = mask.flatten().nonzero().squeeze(1)
        row = index // width
        starts = torch.ones_like(row, dtype=torch.bool)
        starts[1:] = row[1:] != row[:-1]
        if segments is not None:
            kind = segments.flatten().index_select(0, index)
            starts[1:] |= kind[1:] != kind[:-1]
        sentence = starts.cumsum(0) - 1
        first = starts.nonzero().squeeze(1)
        step = torch.arange(len(index), device=index.device) - first.index_select(0, sentence)
        lengths = torch.bincount(sentence, minlength=len(first))
        by_length = torch.argsort(lengths, descending=True, stable=True)
        rank = torch.empty_like(by_length)
        rank[by_length] = torch.arange(len(by_length), device=rank.device)
        order = torch.argsort(step * len(first) + rank.index_select(0, sentence))
        return cls(
            positions=index.index_select(0, order),
            batch_sizes=torch.bincount(step).tolist(),
            rows=row.index_select(0, first).index_select(0, by_length),
            shape=(batch, width),
        )

    @cached_property
    def mirror(self) -> Tensor:
        """``(all words,)``, int64: `mirrored` of the batch."""
        return mirrored(self.batch_sizes).to(self.positions.device)

    def pack(self, padded: Tensor) -> Tensor:
        """``(batch, words, ...)`` to ``(all words, ...)``."""
        return padded.flatten(0, 1).index_select(0, self.positions)

    def unpack(self, packed: Tensor) -> Tensor:
        """``(all words, ...)`` to ``(batch, words, ...)``, zeros where there is no word."""
        padded = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return padded.index_copy(0, self.positions, packed).unflatten(0, self.shape)


def mirrored(batch_sizes: list[int]) -> Tensor:
    """For each packed word the packed place of the one as far from its sentence's other end, ``(all words,)``, int64.

    What it selects are the sentences turned round, packed as they were: the order in which the backward direction
    reads. It is its own inverse.

    Args:
        batch_sizes: Number of sentences at each time step; falls.
    """
    sizes = torch.tensor(batch_sizes, dtype=torch.long)
    starts = sizes.cumsum(0) - sizes
    step = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    rank = torch.arange(len(step)) - starts[step]
    lengths = torch.bincount(rank)
    return starts[lengths[rank] - 1 - step] + rank


class LstmLayer(GradientCheckpointingLayer):
    """One direction of one layer: an LSTM with projection and clips.

    Parameters carry torch's names and gate order (i, f, g, o): `weight_ih` ``(4 * cell, projection)``, `weight_hh`
    ``(4 * cell, projection)``, `bias` ``(4 * cell,)``, `weight_hr` ``(projection, cell)`` or None. `forget_bias` is not
    part of `bias`.
    """

    def __init__(self, config):
        super().__init__()
        self.cell_size = config.cell_size
        self.cell_clip = config.cell_clip
        self.proj_clip = config.proj_clip
        self.forget_bias = config.forget_bias
        self.weight_ih = nn.Parameter(torch.empty(4 * config.cell_size, config.projection_dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * config.cell_size, config.projection_dim))
        self.bias = nn.Parameter(torch.empty(4 * config.cell_size))
        self.weight_hr = (
            nn.Parameter(torch.empty(config.projection_dim, config.cell_size)) if config.has_lstm_projection else None
        )

    def __call__(self, *args, **kwargs):
        if self.training and getattr(self, "gradient_checkpointing", False) and hasattr(self, "parametrizations"):
            # PEFT's are gone when the layer is computed again.
            raise ValueError(
                "Gradient checkpointing computes a layer twice, but an adapter on its parameters (target_parameters) "
                "is there the first time alone: turn gradient checkpointing off, or adapt modules (target_modules)."
            )
        return super().__call__(*args, **kwargs)

    def forward(
        self, inputs: Tensor, batch_sizes: list[int], hidden: Tensor, cell: Tensor, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads packed sentences.

        Args:
            inputs: ``(all words, projection_dim)``, packed.
            batch_sizes: Number of sentences at each time step; falls.
            hidden: ``(sentences, projection_dim)``, the state to start from.
            cell: ``(sentences, cell_size)``, likewise.
            reverse: Read from the last word of each sentence to its first.

        Returns:
            Outputs ``(all words, projection_dim)`` in the order of `inputs`, and the state after each sentence.
        """
        if is_served(self, inputs, batch_sizes, hidden, cell):
            return read_for_training(self, inputs, batch_sizes, hidden, cell, reverse)
        return self.read(inputs, batch_sizes, hidden, cell, reverse)

    def read(
        self, inputs: Tensor, batch_sizes: list[int], hidden: Tensor, cell: Tensor, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, in operations that autograd, compilers and transforms know."""
        if not batch_sizes:
            return inputs, hidden, cell
        # The input's share of all gates of all words is one matrix product, outside of the recurrence.
        gates = F.linear(inputs, self.weight_ih, self.bias)
        steps = list(gates.split(batch_sizes))
        outputs: list[Tensor] = [gates] * len(steps)
        ended: list[tuple[Tensor, Tensor]] = []
        if reverse:
            # Longest first, so the sentences that join at an earlier word are always the next ones in order.
            h, c = hidden[:0], cell[:0]
            for t in reversed(range(len(steps))):
                if batch_sizes[t] > len(h):
                    h = torch.cat([h, hidden[len(h) : batch_sizes[t]].to(h.dtype)])
                    c = torch.cat([c, cell[len(c) : batch_sizes[t]].to(c.dtype)])
                h, c = self.step(steps[t], h, c)
                outputs[t] = h
            return torch.cat(outputs), h, c
        h, c = hidden, cell
        for t in range(len(steps)):
            if batch_sizes[t] < len(h):
                ended.append((h[batch_sizes[t] :], c[batch_sizes[t] :]))
                h, c = h[: batch_sizes[t]], c[: batch_sizes[t]]
            h, c = self.step(steps[t], h, c)
            outputs[t] = h
        ended.append((h, c))
        last_h, last_c = (torch.cat(parts) for parts in zip(*reversed(ended)))
        return torch.cat(outputs), last_h, last_c

    def step(self, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One word of several sentences: the input's share of the gates and a state, to the next state."""
        i, f, g, o = (gates + F.linear(hidden, self.weight_hh)).chunk(4, dim=-1)
        cell = torch.sigmoid(f + self.forget_bias) * cell + torch.sigmoid(i) * torch.tanh(g)
        if self.cell_clip is not None:
            cell = cell.clamp(-self.cell_clip, self.cell_clip)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        if self.weight_hr is not None:
            hidden = F.linear(hidden, self.weight_hr)
            if self.proj_clip is not None:
                hidden = hidden.clamp(-self.proj_clip, self.proj_clip)
        return hidden, cell


class BiLstm(nn.Module):
    """Two stacks of `LstmLayer` that never meet: one reads each sentence forward, the other backward.

    With skip connections every layer but the first adds its input to its output; the state that an LSTM carries is its
    own output, before that addition. In training, dropout falls on the input of each layer, skip connection included
    (as bilm-tf wraps its cells).
    """

    def __init__(self, config):
        super().__init__()
        self.use_skip_connections = config.use_skip_connections
        # Not asked of the layers, which an adapter (PEFT's target_parameters) may have wrapped.
        self.state_sizes = config.projection_dim, config.cell_size
        self.forward_layers = nn.ModuleList(LstmLayer(config) for _ in range(config.num_layers))
        self.backward_layers = nn.ModuleList(LstmLayer(config) for _ in range(config.num_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        inputs: Tensor | Words,
        packing: Packing,
        state: ElmoState | None = None,
        backward_inputs: Tensor | Words | None = None,
    ) -> tuple[list[Tensor], ElmoState]:
        """Reads packed sentences in both directions.

        Args:
            inputs: ``(all words, projection_dim)``, packed; or the vectors of the distinct ones, and their places.
            packing: How they are packed.
            state: State of the sentences to start from, in packed order: ``(2, layers, sentences, ...)``. None: zeros.
            backward_inputs: Like `inputs`, if the backward stack is to read other words (as in training on streams).

        Returns:
            The layers' outputs, one ``(all words, 2 * projection_dim)`` per layer (forward half first), and the state
            after the sentences, in packed order.
        """
        both = (inputs, inputs if backward_inputs is None else backward_inputs)
        words = tuple(each if isinstance(each, Words) else Words(each) for each in both)
        sizes = packing.batch_sizes
        if state is None:
            state = self.initial_state(len(packing.rows), words[0].vectors)
        if words[0].vectors.device.type == "cuda" and self._serves_on_gpu(words, sizes):
            # Triton takes long to import, and is not everywhere.
            from .lstm_gpu import read_both

            layers, end = read_both(self, (words[0].all(), words[1].select(packing.mirror).all()), sizes, state)
            return [torch.cat([y[0], y[1].index_select(0, packing.mirror)], dim=-1) for y in layers], end
        stacks = self.forward_layers, self.backward_layers
        if self._serves_on_cpu(stacks, words, sizes):
            both = words[0], words[1].select(packing.mirror)
            layers, *end = read_stacks(stacks, both, sizes, state.hidden, state.cell, self.use_skip_connections)
            pairs = zip(layers[0], (y.index_select(0, packing.mirror) for y in layers[1]))
            return [torch.cat(pair, dim=-1) for pair in pairs], ElmoState(*end)
        halves, hidden, cell = zip(
            *(
                self.read_stack(direction, each, sizes, state.hidden[direction], state.cell[direction])
                for direction, each in enumerate(words)
            )
        )
        merged = [torch.cat(pair, dim=-1) for pair in zip(*halves, strict=True)]
        return merged, ElmoState(torch.stack(hidden), torch.stack(cell))

    def read_stack(
        self, direction: int, inputs: Tensor | Words, batch_sizes: list[int], hidden: Tensor, cell: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Reads packed sentences in one direction, which knows nothing of the other.

        Args:
            direction: 0 for forward, 1 for backward.
            inputs: As in `forward`.
            batch_sizes: Number of sentences at each time step (`Packing.batch_sizes`); falls.
            hidden: ``(layers, sentences, projection_dim)``, the state to start from, in packed order.
            cell: ``(layers, sentences, cell_size)``, likewise.

        Returns:
            The layers' outputs, ``(all words, projection_dim)`` each, and the two parts of the state after the
            sentences, in packed order.

        Raises:
            ValueError: if the model was quantised and is to be trained, or compiled.
        """
        words = inputs if isinstance(inputs, Words) else Words(inputs)
        layers = (self.forward_layers, self.backward_layers)[direction]
        if self._serves_on_cpu([layers], [words], batch_sizes):
            mirror = mirrored(batch_sizes) if direction == 1 else None
            if mirror is not None:
                words = words.select(mirror)
            (outputs,), *state = read_stacks(
                [layers], [words], batch_sizes, hidden[None], cell[None], self.use_skip_connections
            )
            return outputs if mirror is None else [y.index_select(0, mirror) for y in outputs], *(x[0] for x in state)
        if batch_sizes and any(map(is_quantized, layers)):
            raise ValueError("A quantised model only reads, on a CPU, uncompiled: load it anew for anything else.")
        x, outputs, last_hidden, last_cell = words.all(), [], [], []
        for depth, layer in enumerate(layers):
            x = self.dropout(x)
            y, h, c = layer(x, batch_sizes, hidden[depth], cell[depth], reverse=direction == 1)
            x = x + y if self.use_skip_connections and depth > 0 else y
            outputs.append(x)
            last_hidden.append(h)
            last_cell.append(c)
        return outputs, torch.stack(last_hidden), torch.stack(last_cell)

    def _serves_on_cpu(self, stacks: Sequence[nn.ModuleList], words: Sequence[Words], batch_sizes: list[int]) -> bool:
        """Whether `lstm_inference` reads these words; what is trained does so by itself (`lstm_training`)."""
        if not batch_sizes or words[0].vectors.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        layers = list(chain.from_iterable(stacks))
        reason = why_not(layers, words) if all(map(_is_bare, layers)) else "something stands between layer and weights"
        if reason is None and self.training and self.dropout.p > 0:
            reason = "there is dropout"
        if reason is not None and not torch.is_grad_enabled():
            logger.info_once(f"The biLM's LSTMs are read by plain operations: {reason}.")
        return reason is None

    def _serves_on_gpu(self, words: tuple[Words, Words], batch_sizes: list[int]) -> bool:
        """Whether `lstm_triton` reads these words."""
        if not batch_sizes or torch.compiler.is_compiling():
            return False
        from .lstm_gpu import why_not

        is_bare = all(map(_is_bare, chain(self.forward_layers, self.backward_layers)))
        reason = why_not(self, tuple(each.vectors for each in words), batch_sizes) if is_bare else "of an adapter"
        if reason is not None:
            logger.info_once(f"The biLM's LSTMs are read by plain operations: {reason}.")
        return reason is None

    def initial_state(self, batch: int, like: Tensor) -> ElmoState:
        """Zeros for a batch of that many sentences, in the dtype and on the device of `like`."""
        shape = (2, len(self.forward_layers), batch)
        return ElmoState(*(like.new_zeros(*shape, size) for size in self.state_sizes))


def _is_bare(layer: nn.Module) -> bool:
    """Whether nothing stands between a layer and its weights: no adapter, no offloading, no hook."""
    if type(layer) is not LstmLayer or "forward" in layer.__dict__:
        return False
    return not (layer._forward_hooks or layer._forward_pre_hooks)


def reference_lstm(
    layer: LstmLayer, inputs: Tensor, lengths: Tensor, hidden: Tensor, cell: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What `LstmLayer.forward` computes, in the simplest way: padded, one word at a time. For tests.

    Args:
        layer: The layer.
        inputs: ``(batch, words, projection_dim)``, padded on the right.
        lengths: ``(batch,)``.
        hidden: ``(batch, projection_dim)``, the state to start from.
        cell: ``(batch, cell_size)``, likewise.
        reverse: Read from the last word of each sentence to its first.

    Returns:
        Outputs ``(batch, words, projection_dim)``, zeros behind each sentence, and the state after each sentence.
    """
    words = inputs.shape[1]
    outputs = [torch.zeros_like(hidden)] * words
    for t in reversed(range(words)) if reverse else range(words):
        gates = F.linear(inputs[:, t], layer.weight_ih, layer.bias)
        next_hidden, next_cell = layer.step(gates, hidden, cell)
        here = (t < lengths).unsqueeze(1)
        hidden, cell = torch.where(here, next_hidden, hidden), torch.where(here, next_cell, cell)
        outputs[t] = torch.where(here, hidden, 0)
    return torch.stack(outputs, dim=1) if words else inputs, hidden, cell
