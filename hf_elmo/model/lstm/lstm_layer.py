"""One layer of the biLM in one direction: a clipped, projected LSTM in plain operations (section 3.1 and 3.4).

The formulas are those of TensorFlow's `LSTMCell(num_proj, cell_clip, proj_clip)`, with which every published ELMo was
trained. `torch.nn.LSTM(proj_size=...)` has the projection but not the two clips.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .lstm_training import is_served, read_for_training


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
