"""The task's own encoder between ELMo and a head: stacked biLSTMs (the paper's NER has two of 200)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..lstm.highway_lstm import AlternatingLstm, HighwayLstm
from ..lstm.packing import Packing
from ..lstm.tracing import is_traced_whole, read_task_padded

_KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
    "relu_rnn": partial(nn.RNN, nonlinearity="relu"),
}


class TaskEncoder(nn.Module):
    """`num_layers` biLSTMs of `size` per direction, with dropout before, between and behind them.

    Args:
        input_size: Size of a word's vector.
        size: Size of an LSTM's output per direction.
        num_layers: Number of layers; with 0 the vectors pass through, dropout aside.
        dropout: Share of values dropped in training.
        input_dropout: Share of the input's values dropped; None: as many. 0 for vectors that come with dropout.
        bidirectional: False for LSTMs that read forward only.
        highways: Whether a highway leads around each LSTM (`HighwayLstm`).
        kind: `"lstm"`, `"gru"`, `"rnn"`, `"relu_rnn"` or `"alternating_lstm"` (`AlternatingLstm`, not bidirectional):
            the recurrent layers, under the name `lstm` in any case.
        begins_backward: Whether the first of alternating layers reads backward.
    """

    def __init__(
        self,
        input_size: int,
        size: int,
        num_layers: int,
        dropout: float,
        input_dropout: float | None = None,
        bidirectional: bool = True,
        highways: bool = False,
        kind: str = "lstm",
        begins_backward: bool = False,
    ):
        super().__init__()
        self.lstm: nn.RNNBase | HighwayLstm | AlternatingLstm | None = None
        if num_layers > 0:
            between = dropout if num_layers > 1 else 0.0
            sizes = input_size, size, num_layers
            if kind == "alternating_lstm":
                self.lstm = AlternatingLstm(*sizes, between, highways, begins_backward)
            else:
                layers = HighwayLstm if highways else _KINDS[kind]
                self.lstm = layers(*sizes, dropout=between, bidirectional=bidirectional)
        self.input_dropout = nn.Dropout(dropout if input_dropout is None else input_dropout)
        self.dropout = nn.Dropout(dropout)
        self.output_size = input_size if self.lstm is None else (1 + bidirectional) * size

    def forward(self, vectors: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """Reads sentences in their words only, wherever the padding is.

        Args:
            vectors: ``(batch, words, input_size)``.
            mask: ``(batch, words)``, bool: true for words.
            segments: ``(batch, words)``: where it changes within a row, another sentence begins. None: a row is one.

        Returns:
            ``(batch, words, output_size)``, zeros where there is no word if there are layers.
        """
        read = self._read_padded if is_traced_whole() else self._read_packed
        return read(vectors, mask, segments)

    def _read_padded(self, vectors: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
        vectors = self.input_dropout(vectors)
        if self.lstm is None:
            return vectors
        return self.dropout(read_task_padded(self.lstm, vectors, mask, segments))

    # One graph per sentence length would be compiled otherwise.
    @torch.compiler.disable
    def _read_packed(self, vectors: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
        vectors = self.input_dropout(vectors)
        if self.lstm is None:
            return vectors
        packing = Packing.from_mask(mask, segments)
        if not packing.batch_sizes:
            return vectors.new_zeros(*mask.shape, self.output_size)
        # A Packing is laid out as torch's own packed sequences are.
        packed = PackedSequence(packing.pack(vectors), torch.tensor(packing.batch_sizes))
        return self.dropout(packing.unpack(self.lstm(packed)[0].data))
