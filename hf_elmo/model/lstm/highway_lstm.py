"""Stacked LSTMs with highways between their layers, as AllenNLP's task encoders have them.

`HighwayLstm` is its `stacked_bidirectional_lstm` (Zhang et al. 2016), `AlternatingLstm` its `alternating_lstm` (He et
al. 2017) and, with one layer, its `augmented_lstm`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class HighwayLstmLayer(nn.Module):
    """One direction of one layer: an LSTM whose output a gate mixes with a projection of its input.

    The mix is the output, and what the LSTM itself carries on to the next word (`allennlp/modules/augmented_lstm.py`).
    Parameters: `weight_ih` ``(6 * size, input_size)`` for the gates i, f, g, o, the highway's gate and the projection;
    `weight_hh` ``(5 * size, size)`` and `bias` ``(5 * size,)`` for the gates. Without a highway it is a plain LSTM, and
    they have 4 blocks of rows each.

    Args:
        input_size: Size of what it reads.
        size: Size of its output.
        has_highway: Whether there is the gate and the projection.
        has_input_bias: Whether `input_bias`, of as many numbers as `weight_ih` has rows, is added to the input's share.
    """

    def __init__(self, input_size: int, size: int, has_highway: bool = True, has_input_bias: bool = False):
        super().__init__()
        self.size, self.has_highway = size, has_highway
        gates = 5 if has_highway else 4
        self.weight_ih = nn.Parameter(torch.empty((gates + has_highway) * size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(gates * size, size))
        self.bias = nn.Parameter(torch.empty(gates * size))
        self.input_bias = nn.Parameter(torch.empty((gates + has_highway) * size)) if has_input_bias else None

    def forward(self, inputs: Tensor, batch_sizes: list[int], reverse: bool) -> Tensor:
        """Reads packed sentences from a state of zeros.

        Args:
            inputs: ``(all words, input_size)``, packed.
            batch_sizes: Number of sentences at each time step; falls.
            reverse: Read from the last word of each sentence to its first.

        Returns:
            ``(all words, size)``, in the order of `inputs`.
        """
        shares = self.shares(inputs)
        steps = list(zip(*(share.split(batch_sizes) for share in shares), strict=True))
        outputs = [inputs] * len(steps)
        hidden = cell = inputs.new_zeros(0 if reverse else batch_sizes[0], self.size)
        for time in reversed(range(len(steps))) if reverse else range(len(steps)):
            # Longest first: sentences that join, reading backward, or that end are the last ones.
            joining = max(0, batch_sizes[time] - len(hidden))
            hidden = F.pad(hidden[: batch_sizes[time]], (0, 0, 0, joining))
            cell = F.pad(cell[: batch_sizes[time]], (0, 0, 0, joining))
            hidden, cell = self.step(*steps[time], hidden, cell)
            outputs[time] = hidden
        return torch.cat(outputs)

    def shares(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What does not wait for the word before: the input's share of the gates, and of a highway its projection.

        ``(..., input_size)`` to ``(..., 5 * size)`` and ``(..., size)``, or to ``(..., 4 * size)`` alone.
        """
        shares = F.linear(inputs, self.weight_ih, self.input_bias)
        if not self.has_highway:
            return (shares + self.bias,)
        gates, carried = shares.split([5 * self.size, self.size], dim=-1)
        return gates + self.bias, carried

    def step(self, gates: Tensor, *carried_and_state: Tensor) -> tuple[Tensor, Tensor]:
        """One word of several sentences: what `shares` gives and a state (hidden, cell), to the next state."""
        *carried, hidden, cell = carried_and_state
        i, f, g, o, *highway = (gates + F.linear(hidden, self.weight_hh)).split(self.size, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        output = torch.sigmoid(o) * torch.tanh(cell)
        if not self.has_highway:
            return output, cell
        share = torch.sigmoid(highway[0])
        return share * output + (1 - share) * carried[0], cell


class HighwayLstm(nn.Module):
    """Layers that read in both directions, or forward only; takes and gives what `torch.nn.LSTM` does.

    Args:
        input_size: Size of a word's vector.
        size: Size of an output per direction.
        num_layers: Number of layers.
        dropout: Share of values dropped between layers.
        bidirectional: Whether each layer also reads backward.
    """

    def __init__(self, input_size: int, size: int, num_layers: int, dropout: float, bidirectional: bool):
        super().__init__()
        sizes = [input_size] + [(1 + bidirectional) * size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(HighwayLstmLayer(each, size) for each in sizes)
        self.backward_layers = nn.ModuleList(HighwayLstmLayer(each, size) for each in sizes if bidirectional)
        self.dropout = nn.Dropout(dropout)

    def forward(self, packed: PackedSequence) -> tuple[PackedSequence, None]:
        """``(all words, input_size)`` to ``(all words, directions * size)``."""
        vectors, batch_sizes = packed.data, packed.batch_sizes.tolist()
        for depth, layer in enumerate(self.forward_layers):
            if depth > 0:
                vectors = self.dropout(vectors)
            halves = [layer(vectors, batch_sizes, reverse=False)]
            if self.backward_layers:
                halves.append(self.backward_layers[depth](vectors, batch_sizes, reverse=True))
            vectors = torch.cat(halves, dim=-1)
        return PackedSequence(vectors, packed.batch_sizes), None


class AlternatingLstm(nn.Module):
    """Layers that read in turns forward and backward; takes and gives what `torch.nn.LSTM` does.

    Args:
        input_size: Size of a word's vector.
        size: Size of an output.
        num_layers: Number of layers.
        dropout: Share of values dropped between layers.
        highways: Whether a highway leads around each layer.
        begins_backward: Whether the first layer is one that reads backward.
    """

    def __init__(
        self, input_size: int, size: int, num_layers: int, dropout: float, highways: bool, begins_backward: bool
    ):
        super().__init__()
        sizes = [input_size] + [size] * (num_layers - 1)
        self.layers = nn.ModuleList(HighwayLstmLayer(each, size, highways, has_input_bias=True) for each in sizes)
        self.begins_backward = begins_backward
        self.dropout = nn.Dropout(dropout)

    def reads_backward(self, depth: int) -> bool:
        """Whether the layer of that number, from 0, reads from the last word to the first."""
        return (depth % 2 == 1) != self.begins_backward

    def forward(self, packed: PackedSequence) -> tuple[PackedSequence, None]:
        """``(all words, input_size)`` to ``(all words, size)``."""
        vectors, batch_sizes = packed.data, packed.batch_sizes.tolist()
        for depth, layer in enumerate(self.layers):
            if depth > 0:
                vectors = self.dropout(vectors)
            vectors = layer(vectors, batch_sizes, reverse=self.reads_backward(depth))
        return PackedSequence(vectors, packed.batch_sizes), None
