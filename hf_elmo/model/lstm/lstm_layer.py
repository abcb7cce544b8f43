"""One direction of one layer of the biLM, a clipped and projected LSTM, in plain operations (section 3.1 and 3.4).

The formulas (`LstmLayer.step`) are those of TensorFlow's `LSTMCell(num_proj, cell_clip, proj_clip)`, with which every
published ELMo was trained. `torch.nn.LSTM(proj_size=...)` has the projection but not the two clips.

`unsupported_reason` and `run` are the way of running that serves where no faster one does (README.md in this folder).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration_elmo import ElmoConfig
from ..fingerprint import is_bare
from .packing import Words


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


@dataclass(frozen=True)
class LstmInputs:
    """What each way of running gets: layers, packed words and a state, of one direction or of both.

    Attributes:
        layers: For each direction its layers, lowest first. An adapter may have wrapped them (PEFT's
            target_parameters): what needs a layer's own attributes asks `not_bare_reason` first.
        reverse: For each direction whether it reads from the last word of each sentence to its first.
        words: For each direction its words, packed in the order of the sentences.
        batch_sizes: Number of sentences at each time step; falls.
        state: ``(directions, layers, sentences, ...)``, the state to start from, in packed order.
        use_skip_connections: Whether layers above the first add their input to their output.
        dropout: Falls on the input of each layer.
        mirror: Gives `packing.mirrored` of the batch sizes, on the device of the words.
    """

    layers: tuple[tuple[LstmLayer, ...], ...]
    reverse: tuple[bool, ...]
    words: tuple[Words, ...]
    batch_sizes: list[int]
    state: ElmoState
    use_skip_connections: bool
    dropout: nn.Dropout
    mirror: Callable[[], Tensor]

    def all_layers(self) -> list[LstmLayer]:
        """The layers of all directions."""
        return [layer for layers in self.layers for layer in layers]


class LstmOutputs(NamedTuple):
    """What each way of running returns.

    Attributes:
        layers: For each direction its layers' outputs, ``(all words, projection_dim)`` each, packed as the words were.
        state: ``(directions, layers, sentences, ...)``, the state after each sentence, in packed order.
    """

    layers: list[list[Tensor]]
    state: ElmoState


#: Computes one layer: takes it and the arguments of `LstmLayer.read`, and returns what that returns.
LayerFunction = Callable[["LstmLayer", Tensor, list[int], Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor]]


class LstmLayer(GradientCheckpointingLayer):
    """One direction of one layer: an LSTM with projection and clips.

    Parameters carry torch's names and gate order (i, f, g, o): `weight_ih` ``(4 * cell, projection)``, `weight_hh`
    ``(4 * cell, projection)``, `bias` ``(4 * cell,)``, `weight_hr` ``(projection, cell)`` or None. `forget_bias` is not
    part of `bias`.
    """

    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.cell_size: int = config.cell_size
        self.cell_clip: float | None = config.cell_clip
        self.proj_clip: float | None = config.proj_clip
        self.forget_bias: float = config.forget_bias
        self.weight_ih = nn.Parameter(torch.empty(4 * config.cell_size, config.projection_dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * config.cell_size, config.projection_dim))
        self.bias = nn.Parameter(torch.empty(4 * config.cell_size))
        self.weight_hr = (
            nn.Parameter(torch.empty(config.projection_dim, config.cell_size)) if config.has_lstm_projection else None
        )
        #: The weights in 8 bits, if the layer was quantised (`prepacked_weights.quantize_layer`).
        self.quantized: object | None = None

    def __call__(self, *args: object, **kwargs: object) -> tuple[Tensor, Tensor, Tensor]:
        if self.training and getattr(self, "gradient_checkpointing", False) and hasattr(self, "parametrizations"):
            # PEFT's are gone when the layer is computed again.
            raise ValueError(
                "Gradient checkpointing computes a layer twice, but an adapter on its parameters (target_parameters) "
                "is there the first time alone: turn gradient checkpointing off, or adapt modules (target_modules)."
            )
        outputs: tuple[Tensor, Tensor, Tensor] = super().__call__(*args, **kwargs)
        return outputs

    def forward(
        self,
        inputs: Tensor,
        batch_sizes: list[int],
        hidden: Tensor,
        cell: Tensor,
        reverse: bool,
        compute: LayerFunction | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads packed sentences.

        Args:
            inputs: ``(all words, projection_dim)``, packed.
            batch_sizes: Number of sentences at each time step; falls.
            hidden: ``(sentences, projection_dim)``, the state to start from.
            cell: ``(sentences, cell_size)``, likewise.
            reverse: Read from the last word of each sentence to its first.
            compute: What computes the layer. None: `read`.

        Returns:
            Outputs ``(all words, projection_dim)`` in the order of `inputs`, and the state after each sentence.
        """
        if compute is None:
            return self.read(inputs, batch_sizes, hidden, cell, reverse)
        return compute(self, inputs, batch_sizes, hidden, cell, reverse)

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


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer has weights in 8 bits, and no others."""
    return getattr(layer, "quantized", None) is not None


def unsupported_reason(inputs: LstmInputs) -> str | None:
    """Why `run` cannot compute this; None if it can."""
    if inputs.batch_sizes and any(map(is_quantized, inputs.all_layers())):
        return "a quantised model only reads, on a CPU, uncompiled: load it anew for anything else"
    return None


def run(inputs: LstmInputs) -> LstmOutputs:
    """Reads packed sentences in plain operations, which autograd, compilers and transforms know, on any device."""
    return run_layers(inputs, None)


def run_layers(inputs: LstmInputs, compute: LayerFunction | None) -> LstmOutputs:
    """Reads packed sentences one direction after the other, one layer after the other.

    Layers are called as modules, so that hooks, adapters and gradient checkpointing take part.

    Args:
        inputs: Layers, words and state.
        compute: What computes a layer. None: `LstmLayer.read`.
    """
    outputs: list[list[Tensor]] = []
    hidden: list[Tensor] = []
    cell: list[Tensor] = []
    for direction, (layers, reverse, words) in enumerate(zip(inputs.layers, inputs.reverse, inputs.words, strict=True)):
        x = words.all()
        own: list[Tensor] = []
        ends: list[tuple[Tensor, Tensor]] = []
        for depth, layer in enumerate(layers):
            x = inputs.dropout(x)
            start = inputs.state.hidden[direction, depth], inputs.state.cell[direction, depth]
            y, h, c = layer(x, inputs.batch_sizes, *start, reverse=reverse, compute=compute)
            x = x + y if inputs.use_skip_connections and depth > 0 else y
            own.append(x)
            ends.append((h, c))
        outputs.append(own)
        hidden.append(torch.stack([h for h, _ in ends]))
        cell.append(torch.stack([c for _, c in ends]))
    return LstmOutputs(outputs, ElmoState(torch.stack(hidden), torch.stack(cell)))


def not_bare_reason(layers: Iterable[nn.Module]) -> str | None:
    """Why layers must be called as modules; None if their weights tell all that they compute."""
    if not all(is_bare(layer, (LstmLayer,)) for layer in layers):
        return "an adapter, a hook or a class of another's stands between layers and weights"
    return None


def reference_lstm(
    layer: LstmLayer, inputs: Tensor, lengths: Tensor, hidden: Tensor, cell: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What `LstmLayer.read` computes, in the simplest way: padded, one word at a time. For tests.

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
