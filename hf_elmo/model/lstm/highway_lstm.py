"""A stacked LSTM with highways between its layers (AllenNLP's `stacked_bidirectional_lstm`; Zhang et al. 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class HighwayLstmLayer(nn.Module):
    """One direction of one layer: an LSTM whose output a gate mixes with a projection of its input.

    The mix is the output, and what the LSTM itself carries on to the next word (`allennlp/modules/augmented_lstm.py`).
    Parameters: `weight_ih` ``(6 * size, input_size)`` for the gates i, f, g, o, the highway's gate and the projection;
    `weight_hh` ``(5 * size, size)`` and `bias` ``(5 * size,)`` for the gates.
    """

    def __init__(self, input_size: int, size: int):
        super().__init__()
        self.size = size
        self.weight_ih = nn.Parameter(torch.empty(6 * size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(5 * size, size))
        self.bias = nn.Parameter(torch.empty(5 * size))

    def forward(self, inputs: Tensor, batch_sizes: list[int], reverse: bool) -> Tensor:
        """Reads packed sentences from a state of zeros.

        Args:
            inputs: ``(all words, input_size)``, packed.
            batch_sizes: Number of sentences at each time step; falls.
            reverse: Read from the last word of each sentence to its first.

        Returns:
            ``(all words, size)``, in the order of `inputs`.
        """
        gates, carried = self.shares(inputs)
        steps = list(zip(gates.split(batch_sizes), carried.split(batch_sizes), strict=True))
        outputs = [carried] * len(steps)
        hidden = cell = inputs.new_zeros(0 if reverse else batch_sizes[0], self.size)
        for time in reversed(range(len(steps))) if reverse else range(len(steps)):
            # Longest first: sentences that join, reading backward, or that end are the last ones.
            joining = max(0, batch_sizes[time] - len(hidden))
            hidden = F.pad(hidden[: batch_sizes[time]], (0, 0, 0, joining))
            cell = F.pad(cell[: batch_sizes[time]], (0, 0, 0, joining))
            hidden, cell = self.step(*steps[time], hidden, cell)
            outputs[time] = hidden
        return torch.cat(outputs)

    def shares(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What does not wait for the word before: the input's share of the gates, and its projection.

        ``(..., input_size)`` to ``(..., 5 * size)`` and ``(..., size)``.
        """
        gates, carried = F.linear(inputs, self.weight_ih).split([5 * self.size, self.size], dim=-1)
        return gates + self.bias, carried

    def step(self, gates: Tensor, carried: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One word of several sentences: the input's share of the gates, its projection and a state, to the next."""
        i, f, g, o, highway = (gates + F.linear(hidden, self.weight_hh)).chunk(5, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        share = torch.sigmoid(highway)
        return share * torch.sigmoid(o) * torch.tanh(cell) + (1 - share) * carried, cell


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
