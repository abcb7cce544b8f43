"""The bidirectional LSTM language model: two independent stacks of LSTM layers (section 3.1 and 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .lstm_cpu import is_quantized, read_stacks, why_not
from .lstm_layer import ElmoState, LstmLayer
from .packing import Packing, Words, mirrored

logger = logging.get_logger(__name__)


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
