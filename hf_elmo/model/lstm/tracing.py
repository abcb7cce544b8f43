"""The model's recurrences as a graph can hold them: padded rows and masks, one scan over the words.

Elsewhere words travel packed (`packing.Packing`), and the work depends on the lengths of the sentences. A graph that is
to serve sentences of any length, that of `torch.export` or of `torch.compile(fullgraph=True)`, reads padded rows
instead: each recurrence is one `scan`, which passes over padding and begins afresh with every sentence. The results are
the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..character_encoder import CharacterEncoder
from ..word_encoder import WordEncoder
from .bilstm import BiLstm
from .highway_lstm import AlternatingLstm, HighwayLstm, HighwayLstmLayer
from .lstm_layer import ElmoState, LstmLayer


def is_traced_whole() -> bool:
    """Whether a graph that must hold everything is being made: `torch.export`, `torch.compile(fullgraph=True)`.

    A plain `torch.compile` may leave its graph for what runs faster outside of it, and does so in this package.
    """
    if torch.compiler.is_exporting():
        return True
    return torch.compiler.is_compiling() and _must_be_one_graph()


@torch.compiler.assume_constant_result
def _must_be_one_graph() -> bool:
    # torch has no public function for this. Without an answer the compiler itself says what it cannot trace.
    try:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        tracer = InstructionTranslator.current_tx()
        return bool(tracer.one_graph or tracer.error_on_graph_break)
    except (ImportError, AttributeError):
        return False


class ReadingOrder(NamedTuple):
    """How one direction reads padded rows, word by word: ``(words, batch, 1)``, bool, in the order that it reads.

    Attributes:
        keep: True for words; where there is none the state stays as it is.
        fresh: True for the first word of every sentence of a row but the row's first one, which begins with the given
            state.
    """

    keep: Tensor
    fresh: Tensor


def reading_orders(mask: Tensor, segments: Tensor | None) -> tuple[ReadingOrder, ReadingOrder]:
    """The orders of the forward and of the backward direction.

    Args:
        mask: ``(batch, words)``, bool: true for words.
        segments: ``(batch, words)``, integers. Where it changes within a row, another sentence begins. None: a row is
            one sentence.
    """
    turned = mask.flip(1)
    if segments is None:
        fresh = torch.zeros_like(mask), torch.zeros_like(mask)
    else:
        fresh = begins(mask, segments), begins(turned, segments.flip(1))
    forward, backward = (
        ReadingOrder(keep.t().unsqueeze(-1), starts.t().unsqueeze(-1))
        for keep, starts in zip((mask, turned), fresh, strict=True)
    )
    return forward, backward


def begins(mask: Tensor, segments: Tensor) -> Tensor:
    """Words that are of another segment than the word before them, ``(batch, words)``, bool.

    Words that the mask leaves out do not count. The first word of a row, which has none before it, is not among them.
    """
    # Segments of the words alone, moved to the front of their row behind one place for all that is not a word.
    place = mask.cumsum(dim=1)
    moved = F.pad(torch.zeros_like(segments), (1, 0)).scatter(1, place * mask, segments)
    before = moved.gather(1, (place - 1).clamp(min=0))
    return mask & (place > 1) & (before != segments)


def scan_rows(
    steps: Sequence[Callable[..., tuple[Tensor, ...]]],
    inputs: Sequence[tuple[Tensor, ...]],
    orders: Sequence[ReadingOrder],
    states: Sequence[tuple[Tensor, ...]],
) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """Runs recurrences over padded rows side by side, one per direction.

    Args:
        steps: Per direction what one word does: its inputs ``(batch, ...)`` and a state ``(batch, ...)`` to the next
            state.
        inputs: Per direction, ``(words, batch, ...)`` each, in the order of reading. At least one word.
        orders: Per direction the order of reading. A fresh sentence begins with a state of zeros.
        states: Per direction the state to start from, ``(batch, ...)`` each.

    Returns:
        Per direction the first part of the state after every word, ``(words, batch, ...)`` in the order of reading,
        zeros where there is no word, and the state after the last word.
    """
    from torch._higher_order_ops.scan import scan

    def read_word(
        carried: tuple[tuple[Tensor, ...], ...], word: tuple[tuple[Any, ...], ...]
    ) -> tuple[tuple[tuple[Tensor, ...], ...], tuple[Tensor, ...]]:
        following, outputs = [], []
        for step, parts, (keep, fresh), state in zip(steps, *word, carried, strict=True):
            begun = [torch.where(fresh, 0, part) for part in state]
            after = step(*parts, *begun)
            state = tuple(torch.where(keep, new.to(old.dtype), old) for new, old in zip(after, state, strict=True))
            following.append(state)
            # A scan wants its state and what it puts out to be two tensors.
            outputs.append(state[0].clone())
        return tuple(following), tuple(outputs)

    # Nor may two of its inputs be views of one tensor.
    start = tuple(tuple(part.clone() for part in state) for state in states)
    words = (tuple(map(tuple, inputs)), tuple((order.keep, order.fresh) for order in orders))
    last, outputs = scan(read_word, start, words)
    masked = [output.masked_fill(~order.keep, 0) for output, order in zip(outputs, orders, strict=True)]
    return masked, list(last)


def read_padded(
    bilstm: BiLstm, words: tuple[Tensor, Tensor], mask: Tensor, segments: Tensor | None, state: ElmoState
) -> tuple[list[Tensor], ElmoState]:
    """What `BiLstm` computes, for padded rows.

    Args:
        bilstm: The biLSTM.
        words: What each direction reads, ``(batch, words, projection_dim)``, words in their order.
        mask: ``(batch, words)``, bool: true for words.
        segments: ``(batch, words)``, as in `reading_orders`.
        state: The state to start from, ``(2, layers, batch, ...)``.

    Returns:
        The layers' outputs, ``(batch, words, 2 * projection_dim)`` each, zeros where there is no word, and the state
        after each row's last word.
    """
    if mask.shape[1] == 0:
        empty = words[0].new_zeros(*mask.shape, 2 * words[0].shape[-1])
        return [empty for _ in bilstm.forward_layers], state
    orders = reading_orders(mask, segments)
    x = [words[0].transpose(0, 1), words[1].transpose(0, 1).flip(0)]
    outputs, hidden, cell = [], [], []
    for depth, pair in enumerate(zip(bilstm.forward_layers, bilstm.backward_layers, strict=True)):
        layers = cast("tuple[LstmLayer, LstmLayer]", pair)
        x = [bilstm.dropout(each) for each in x]
        gates = [(F.linear(each, layer.weight_ih, layer.bias),) for each, layer in zip(x, layers, strict=True)]
        start = [(state.hidden[direction, depth], state.cell[direction, depth]) for direction in (0, 1)]
        y, last = scan_rows([layer.step for layer in layers], gates, orders, start)
        x = [a + b for a, b in zip(x, y, strict=True)] if bilstm.use_skip_connections and depth > 0 else y
        outputs.append(torch.cat([x[0], x[1].flip(0)], dim=-1).transpose(0, 1))
        hidden.append(torch.stack([last[0][0], last[1][0]]))
        cell.append(torch.stack([last[0][1], last[1][1]]))
    return outputs, ElmoState(torch.stack(hidden, dim=1), torch.stack(cell, dim=1))


def encode_padded(encoder: CharacterEncoder | WordEncoder, character_ids: Tensor) -> Tensor:
    """What the encoder computes, one computation per row: ``(..., chars)`` to ``(..., projection_dim)``."""
    if isinstance(encoder, WordEncoder):
        return encoder.word_embedding(character_ids[..., 0].long())
    rows, word_ids = encoder._split(character_ids.flatten(0, -2).long())
    characters = encoder.char_embedding(rows)
    features = []
    for convolution in cast("Iterable[nn.Conv1d]", encoder.convolutions):
        # A product over windows, because a convolution asks how many rows there are, and gets graphs of its own for it.
        width = convolution.kernel_size[0]
        count = rows.shape[1] - width + 1
        windows = torch.cat([characters[:, first : first + count] for first in range(width)], dim=-1)
        weight = convolution.weight.transpose(1, 2).flatten(1)
        features.append(encoder.activation(F.linear(windows, weight, convolution.bias).amax(dim=1)))
    vectors = torch.cat(features, dim=-1)
    for highway in encoder.highways:
        vectors = highway(vectors)
    if encoder.word_embedding is not None:
        vectors = torch.cat([encoder.word_embedding(word_ids), vectors], dim=-1)
    if encoder.projection is not None:
        vectors = encoder.projection(vectors)
    return vectors.unflatten(0, character_ids.shape[:-1])


def read_layers_padded(
    encoder: CharacterEncoder | WordEncoder,
    bilstm: BiLstm,
    character_ids: Tensor,
    mask: Tensor,
    segments: Tensor | None,
    state: ElmoState | None,
    backward_character_ids: Tensor | None,
) -> tuple[list[Tensor], ElmoState]:
    """What `ElmoModel.read` computes, for padded rows, from the model's parts and the same arguments.

    The state is returned in any case.

    What depends on values is not checked: ids that have no embedding, and a state given to rows of several sentences.
    """
    kept = mask.unsqueeze(-1)
    words = encode_padded(encoder, character_ids).masked_fill(~kept, 0)
    backward = words
    if backward_character_ids is not None:
        backward = encode_padded(encoder, backward_character_ids).masked_fill(~kept, 0)
    if state is None:
        state = bilstm.initial_state(mask.shape[0], words)
    else:
        state = ElmoState(*(part.to(words) for part in state))
    layers, state = read_padded(bilstm, (words, backward), mask, segments, state)
    return [torch.cat([words, backward], dim=-1), *layers], state


def read_task_padded(
    lstm: nn.RNNBase | HighwayLstm | AlternatingLstm, vectors: Tensor, mask: Tensor, segments: Tensor | None
) -> Tensor:
    """What the LSTM of a `TaskEncoder` computes, for padded rows.

    Args:
        lstm: The LSTM, GRU or RNN of torch, or one with highways.
        vectors: ``(batch, words, input_size)``, at least one word.
        mask: ``(batch, words)``, bool: true for words.
        segments: ``(batch, words)``, as in `reading_orders`.

    Returns:
        ``(batch, words, directions * size)``, zeros where there is no word.
    """
    orders = reading_orders(mask, segments)
    between = lstm.dropout.p if isinstance(lstm.dropout, nn.Dropout) else lstm.dropout
    # The output, and of an LSTM the cell.
    parts = 2 if isinstance(lstm, (nn.LSTM, HighwayLstm, AlternatingLstm)) else 1
    x = vectors.transpose(0, 1)
    for depth, layers in enumerate(_task_layers(lstm)):
        if depth > 0:
            x = F.dropout(x, between, lstm.training)
        used = [orders[layer.backward] for layer in layers]
        inputs = [layer.project(x.flip(0) if layer.backward else x) for layer in layers]
        states = [tuple(x.new_zeros(mask.shape[0], layer.size) for _ in range(parts)) for layer in layers]
        outputs, _ = scan_rows([layer.step for layer in layers], inputs, used, states)
        turned = [each.flip(0) if layer.backward else each for layer, each in zip(layers, outputs, strict=True)]
        x = torch.cat(turned, dim=-1)
    return x.transpose(0, 1)


class _Direction(NamedTuple):
    """One direction of one layer of a task's encoder.

    Attributes:
        project: Inputs to each word's share of the work.
        step: That share and a state of one word to the next state.
        size: Size of the state.
        backward: Whether it reads from the last word to the first.
    """

    project: Callable[[Tensor], tuple[Tensor, ...]]
    step: Callable[..., tuple[Tensor, ...]]
    size: int
    backward: bool


def _task_layers(lstm: nn.RNNBase | HighwayLstm | AlternatingLstm) -> list[list[_Direction]]:
    """The directions of every layer, in the order in which their outputs stand side by side."""
    if isinstance(lstm, AlternatingLstm):
        return [[_own_layer(layer, lstm.reads_backward(depth))] for depth, layer in enumerate(lstm.layers)]
    if isinstance(lstm, HighwayLstm):
        depths = zip(lstm.forward_layers, lstm.backward_layers) if lstm.backward_layers else zip(lstm.forward_layers)
        return [[_own_layer(layer, direction == 1) for direction, layer in enumerate(layers)] for layers in depths]
    suffixes = ["", "_reverse"] if lstm.bidirectional else [""]
    return [
        [_Direction(*_torch_layer(lstm, f"_l{depth}{suffix}"), lstm.hidden_size, suffix != "") for suffix in suffixes]
        for depth in range(lstm.num_layers)
    ]


def _own_layer(layer: nn.Module, backward: bool) -> _Direction:
    of = cast("HighwayLstmLayer", layer)
    return _Direction(of.shares, of.step, of.size, backward)


def _torch_layer(lstm: nn.RNNBase, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    weight_ih, weight_hh, bias_ih, bias_hh = (
        getattr(lstm, kind + name) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )

    if not isinstance(lstm, nn.LSTM):
        return _torch_layer_without_cell(lstm, weight_ih, weight_hh, bias_ih, bias_hh)

    def project(inputs: Tensor) -> tuple[Tensor]:
        return (F.linear(inputs, weight_ih, bias_ih + bias_hh),)

    def step(gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (gates + F.linear(hidden, weight_hh)).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    return project, step


def _torch_layer_without_cell(
    rnn: nn.RNNBase, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def project(inputs: Tensor) -> tuple[Tensor]:
        return (F.linear(inputs, weight_ih, bias_ih),)

    def step_of_gru(shares: Tensor, hidden: Tensor) -> tuple[Tensor]:
        own = F.linear(hidden, weight_hh, bias_hh)
        (reset, update, new), (own_reset, own_update, own_new) = shares.chunk(3, dim=-1), own.chunk(3, dim=-1)
        candidate = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
        kept = torch.sigmoid(update + own_update)
        return ((1 - kept) * candidate + kept * hidden,)

    bend = torch.relu if rnn.mode == "RNN_RELU" else torch.tanh

    def step_of_rnn(shares: Tensor, hidden: Tensor) -> tuple[Tensor]:
        return (bend(shares + F.linear(hidden, weight_hh, bias_hh)),)

    return project, step_of_gru if isinstance(rnn, nn.GRU) else step_of_rnn
