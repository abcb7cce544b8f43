"""The bidirectional LSTM language model: two independent stacks of LSTM layers (section 3.1 and 3.4).

`BiLstm` owns the layers and chooses how they are run: `WAYS` lists the ways, README.md in this folder tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..configuration_elmo import ElmoConfig
from .lstm_cpu import run as run_on_cpu
from .lstm_cpu import unsupported_reason as cpu_reason
from .lstm_gpu import run as run_on_gpu
from .lstm_gpu import unsupported_reason as gpu_reason
from .lstm_layer import ElmoState, LstmInputs, LstmLayer, LstmOutputs
from .lstm_layer import run as run_plainly
from .lstm_layer import unsupported_reason as plain_reason
from .lstm_training import run as run_training
from .lstm_training import unsupported_reason as training_reason
from .packing import Packing, Words, mirrored

logger = logging.get_logger(__name__)


class Way(NamedTuple):
    """One way of running the LSTMs.

    Attributes:
        name: What the log calls it.
        unsupported_reason: Why it cannot run something; None if it can.
        run: Runs it.
    """

    name: str
    unsupported_reason: Callable[[LstmInputs], str | None]
    run: Callable[[LstmInputs], LstmOutputs]


#: All ways, the first choice first.
WAYS = (
    Way("Triton kernels", gpu_reason, run_on_gpu),
    Way("the inference path for CPUs", cpu_reason, run_on_cpu),
    Way("the training path for CPUs", training_reason, run_training),
    Way("plain operations", plain_reason, run_plainly),
)


class BiLstm(nn.Module):
    """Two stacks of `LstmLayer` that never meet: one reads each sentence forward, the other backward.

    With skip connections every layer but the first adds its input to its output; the state that an LSTM carries is its
    own output, before that addition. In training, dropout falls on the input of each layer, skip connection included
    (as bilm-tf wraps its cells).
    """

    def __init__(self, config: ElmoConfig):
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
        if state is None:
            state = self.initial_state(len(packing.rows), words[0].vectors)
        outputs = run_first_that_applies(
            LstmInputs(
                layers=(self._layers(0), self._layers(1)),
                reverse=(False, True),
                words=words,
                batch_sizes=packing.batch_sizes,
                state=state,
                use_skip_connections=self.use_skip_connections,
                dropout=self.dropout,
                mirror=lambda: packing.mirror,
            )
        )
        return [torch.cat(pair, dim=-1) for pair in zip(*outputs.layers, strict=True)], outputs.state

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
        outputs = run_first_that_applies(
            LstmInputs(
                layers=(self._layers(direction),),
                reverse=(bool(direction),),
                words=(words,),
                batch_sizes=batch_sizes,
                state=ElmoState(hidden[None], cell[None]),
                use_skip_connections=self.use_skip_connections,
                dropout=self.dropout,
                mirror=lambda: mirrored(batch_sizes).to(words.vectors.device),
            )
        )
        return outputs.layers[0], outputs.state.hidden[0], outputs.state.cell[0]

    def _layers(self, direction: int) -> tuple[LstmLayer, ...]:
        """The layers of a direction (0 for forward, 1 for backward), lowest first, or what an adapter made of them."""
        return cast("tuple[LstmLayer, ...]", tuple(self.backward_layers if direction else self.forward_layers))

    def initial_state(self, batch: int, like: Tensor) -> ElmoState:
        """Zeros for a batch of that many sentences, in the dtype and on the device of `like`."""
        shape = (2, len(self.forward_layers), batch)
        return ElmoState(*(like.new_zeros(*shape, size) for size in self.state_sizes))


def run_first_that_applies(inputs: LstmInputs) -> LstmOutputs:
    """Runs the LSTMs by the first of `WAYS` that supports this, and says in the log which one it is and why.

    Raises:
        ValueError: if none does.
    """
    # A compiler knows plain operations best, and could not write to the log. Without words there is nothing to choose.
    chooses = bool(inputs.batch_sizes) and not torch.compiler.is_compiling()
    refused: list[str] = []
    for way in WAYS if chooses else WAYS[-1:]:
        reason = way.unsupported_reason(inputs)
        if reason is None:
            if chooses:
                logger.info_once("; ".join([f"The biLM's LSTMs are run by {way.name}", *refused]) + ".")
            return way.run(inputs)
        refused.append(f"not by {way.name} ({reason})")
    raise ValueError("; ".join(["The biLM's LSTMs cannot be run", *refused]) + ".")
