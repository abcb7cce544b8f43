"""The packed biLSTM: against a padded loop, against torch's own LSTM, and on every way in which words may lie."""

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_models import fill, mask_of, small_config
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_elmo.model.lstm.bilstm import BiLstm
from hf_elmo.model.lstm.lstm_layer import ElmoState, LstmLayer, reference_lstm
from hf_elmo.model.lstm.packing import Packing


def inputs_for(lengths, config, seed=0, dtype=torch.float32):
    """Random padded inputs ``(batch, longest, projection_dim)`` and a random state of the size of one layer's."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(len(lengths), max(lengths), config.projection_dim, generator=generator)
    hidden = torch.randn(len(lengths), config.projection_dim, generator=generator)
    cell = torch.randn(len(lengths), config.cell_size, generator=generator)
    return inputs.to(dtype), hidden.to(dtype), cell.to(dtype)


@examples(200)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    reverse=st.booleans(),
    from_state=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    sizes=st.sampled_from([(7, 5), (5, 5)]),
    clips=st.sampled_from([(0.6, 0.5), (3.0, 3.0), (None, None)]),
    seed=st.integers(0, 1000),
)
@example([0, 0], False, True, torch.float64, (7, 5), (0.6, 0.5), 0)
@example([3, 0, 3, 20, 1], True, True, torch.float32, (7, 5), (0.6, 0.5), 0)
def test_packed_layer_equals_padded_loop(lengths, reverse, from_state, dtype, sizes, clips, seed):
    config = small_config(cell_size=sizes[0], projection_dim=sizes[1], cell_clip=clips[0], proj_clip=clips[1])
    layer = fill(LstmLayer(config), seed).to(dtype)
    inputs, hidden, cell = inputs_for(lengths, config, seed, dtype)
    if not from_state:
        hidden, cell = hidden * 0, cell * 0
    packing = Packing.from_mask(mask_of(lengths))
    with torch.no_grad():
        expected = reference_lstm(layer, inputs, torch.tensor(lengths), hidden, cell, reverse)
        outputs, end_hidden, end_cell = layer(
            packing.pack(inputs), packing.batch_sizes, hidden[packing.rows], cell[packing.rows], reverse
        )
    # A row without words has no part in the packing: its state is as before.
    got = (
        packing.unpack(outputs),
        hidden.index_copy(0, packing.rows, end_hidden),
        cell.index_copy(0, packing.rows, end_cell),
    )
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_without_clips_it_is_torchs_lstm(projected, reverse):
    config = small_config(cell_size=7 if projected else 5, cell_clip=None, proj_clip=None, forget_bias=0.75)
    layer = fill(LstmLayer(config)).double()
    lengths = torch.tensor([4, 1, 6, 6, 2])
    inputs, hidden, cell = inputs_for(lengths.tolist(), config, dtype=torch.float64)
    theirs = nn.LSTM(5, config.cell_size, proj_size=5 if projected else 0, bidirectional=reverse, batch_first=True)
    theirs = theirs.double()
    suffix = "_reverse" if reverse else ""
    with torch.no_grad():
        for name, value in layer.named_parameters():
            if name != "bias":
                getattr(theirs, f"{name}_l0{suffix}").copy_(value)
        # torch has two biases and no forget bias.
        getattr(theirs, f"bias_ih_l0{suffix}").copy_(layer.bias)
        getattr(theirs, f"bias_hh_l0{suffix}").zero_()[config.cell_size : 2 * config.cell_size] = 0.75
        start = (hidden[None].repeat(1 + reverse, 1, 1), cell[None].repeat(1 + reverse, 1, 1))
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        expected, (expected_hidden, expected_cell) = theirs(packed, start)
        packing = Packing.from_mask(mask_of(lengths.tolist()))
        outputs, end_hidden, end_cell = layer(
            packing.pack(inputs), packing.batch_sizes, hidden[packing.rows], cell[packing.rows], reverse
        )
    expected = pad_packed_sequence(expected, batch_first=True)[0][..., -5:]
    torch.testing.assert_close(packing.unpack(outputs), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(end_hidden, expected_hidden[-1][packing.rows], rtol=0, atol=1e-12)
    torch.testing.assert_close(end_cell, expected_cell[-1][packing.rows], rtol=0, atol=1e-12)


def test_clips_bound_outputs_and_cells():
    config = small_config()
    layer = fill(LstmLayer(config))
    inputs, hidden, cell = inputs_for([12] * 3, config)
    packing = Packing.from_mask(mask_of([12] * 3))
    with torch.no_grad():
        outputs, _, end_cell = layer(packing.pack(inputs), packing.batch_sizes, hidden, cell, reverse=False)
    assert outputs.abs().max() == config.proj_clip
    assert end_cell.abs().max() == pytest.approx(config.cell_clip)
    assert 0.05 < (outputs.abs() == config.proj_clip).float().mean() < 0.8


def test_projection_clip_has_no_part_without_projection():
    """As TensorFlow's LSTMCell, which clips what it projects."""
    layer = fill(LstmLayer(small_config(cell_size=5, cell_clip=None, proj_clip=0.01)))
    assert layer.weight_hr is None
    inputs, hidden, cell = inputs_for([5], small_config(cell_size=5))
    outputs, *_ = layer(inputs[0], [1] * 5, hidden, cell, reverse=False)
    assert outputs.abs().max() > 0.05


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(4, 2), (3, 3)])
def test_gradients_of_a_layer(sizes, reverse):
    config = small_config(cell_size=sizes[0], projection_dim=sizes[1], cell_clip=0.6, proj_clip=0.3)
    layer = fill(LstmLayer(config)).double()
    inputs, hidden, cell = inputs_for([4, 3, 1], config, dtype=torch.float64)
    packing = Packing.from_mask(mask_of([4, 3, 1]))
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(packed, hidden, cell, *parameters):
        arguments = (packed, packing.batch_sizes, hidden, cell, reverse)
        return functional_call(layer, dict(zip(names, parameters, strict=True)), arguments)

    variables = [value.detach().clone().requires_grad_() for value in (packing.pack(inputs), hidden, cell, *values)]
    outputs, _, cells = run(*variables)
    assert (cells.abs() == 0.6).any()
    assert sizes[0] == sizes[1] or (outputs.abs() == 0.3).any()
    assert torch.autograd.gradcheck(run, variables)


def sentences_by_hand(mask, segments):
    """The sentences of a batch in the order of reading: (row, [columns])."""
    sentences = []
    for row in range(mask.shape[0]):
        before = None
        for column in range(mask.shape[1]):
            if not mask[row, column]:
                continue
            here = (row, None if segments is None else segments[row, column])
            if here == before:
                sentences[-1][1].append(column)
            else:
                sentences.append((row, [column]))
            before = here
    return sentences


masks = hnp.arrays(bool, st.tuples(st.integers(0, 6), st.integers(0, 9)))


@examples(300)
@given(masks, st.booleans(), st.randoms(use_true_random=False))
def test_packing_of_any_mask(mask, with_segments, random):
    segments = None
    if with_segments:
        segments = np.array([random.randint(0, 2) for _ in range(mask.size)], dtype=np.int64).reshape(mask.shape)
    packing = Packing.from_mask(torch.from_numpy(mask), None if segments is None else torch.from_numpy(segments))
    sentences = sorted(sentences_by_hand(mask, segments), key=lambda sentence: -len(sentence[1]))
    longest = len(sentences[0][1]) if sentences else 0
    steps = [[(row, columns[t]) for row, columns in sentences if t < len(columns)] for t in range(longest)]
    assert packing.rows.tolist() == [row for row, _ in sentences]
    assert packing.batch_sizes == [len(step) for step in steps]
    assert packing.positions.tolist() == [row * mask.shape[1] + column for step in steps for row, column in step]
    assert packing.shape == mask.shape

    padded = torch.randn(*mask.shape, 3)
    packed = packing.pack(padded)
    assert packed.shape == (mask.sum(), 3)
    torch.testing.assert_close(packing.unpack(packed), padded * torch.from_numpy(mask)[..., None], rtol=0, atol=0)
    assert packing.pack(padded[..., 0]).shape == (mask.sum(),)


def test_no_words_at_all():
    bilstm = fill(BiLstm(small_config()))
    packing = Packing.from_mask(torch.zeros(3, 4, dtype=torch.bool))
    layers, state = bilstm(torch.zeros(0, 5), packing)
    assert [layer.shape for layer in layers] == [(0, 10), (0, 10)]
    assert state.hidden.shape == (2, 2, 0, 5)
    assert state.cell.shape == (2, 2, 0, 7)
    assert packing.unpack(layers[0]).shape == (3, 4, 10)


def test_an_empty_batch_of_the_reference_keeps_its_shape():
    config = small_config()
    hidden, cell = torch.randn(2, 5), torch.randn(2, 7)
    outputs, *state = reference_lstm(
        fill(LstmLayer(config)), torch.zeros(2, 0, 5), torch.tensor([0, 0]), hidden, cell, False
    )
    assert outputs.shape == (2, 0, 5)
    torch.testing.assert_close(state, [hidden, cell], rtol=0, atol=0)


def run_padded(bilstm, inputs, mask, state=None, **kwargs):
    packing = Packing.from_mask(mask)
    if state is not None:
        state = ElmoState(*(part.index_select(2, packing.rows) for part in state))
    layers, end = bilstm(packing.pack(inputs), packing, state, **kwargs)
    by_row = ElmoState(*(part[:, :, packing.rows.argsort()] for part in end))
    return [packing.unpack(layer) for layer in layers], by_row


@pytest.mark.parametrize("skip", [False, True])
def test_state_reads_on(skip):
    """A sentence in two pieces: the forward half is that of the whole; from the other end so is the backward one."""
    bilstm = fill(BiLstm(small_config(num_layers=3, use_skip_connections=skip))).double()
    inputs = torch.randn(2, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask, cut = mask_of([9, 7]), 4
    with torch.no_grad():
        whole, end = run_padded(bilstm, inputs, mask)
        left, left_state = run_padded(bilstm, inputs[:, :cut], mask[:, :cut])
        right, right_state = run_padded(bilstm, inputs[:, cut:], mask[:, cut:])
        right_after_left, forward_end = run_padded(bilstm, inputs[:, cut:], mask[:, cut:], left_state)
        left_before_right, backward_end = run_padded(bilstm, inputs[:, :cut], mask[:, :cut], right_state)
    for depth, layer in enumerate(whole):
        forward = torch.cat([left[depth], right_after_left[depth]], dim=1)[..., :5]
        backward = torch.cat([left_before_right[depth], right[depth]], dim=1)[..., 5:]
        torch.testing.assert_close(torch.cat([forward, backward], dim=-1), layer, rtol=0, atol=1e-12)
        assert (right[depth][..., :5] - right_after_left[depth][..., :5]).abs().max() > 0.01
    for part, at_once in zip(zip(forward_end, backward_end, strict=True), end, strict=True):
        torch.testing.assert_close(part[0][0], at_once[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(part[1][1], at_once[1], rtol=0, atol=1e-12)


def test_the_directions_do_not_meet():
    bilstm = fill(BiLstm(small_config()))
    one, other = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    mask = mask_of([6, 4, 6])
    packing = Packing.from_mask(mask)
    mixed, _ = run_padded(bilstm, one, mask, backward_inputs=packing.pack(other))
    of_one, _ = run_padded(bilstm, one, mask)
    of_other, _ = run_padded(bilstm, other, mask)
    for depth in range(2):
        torch.testing.assert_close(mixed[depth][..., :5], of_one[depth][..., :5], rtol=0, atol=0)
        torch.testing.assert_close(mixed[depth][..., 5:], of_other[depth][..., 5:], rtol=0, atol=0)


@pytest.mark.parametrize("skip", [False, True])
def test_dropout_falls_on_the_input_of_each_layer_and_on_its_skip_connection(skip):
    """By hand: bilm-tf puts the dropout outside of the skip connection, so that what is added was dropped as well."""
    bilstm = fill(BiLstm(small_config(num_layers=3, dropout=0.4, use_skip_connections=skip))).train()
    batch, words = 3, 4
    inputs = torch.randn(batch, words, 5, generator=torch.Generator().manual_seed(3))
    packing = Packing.from_mask(mask_of([words] * batch))
    torch.manual_seed(11)
    layers, _ = bilstm(packing.pack(inputs), packing)

    torch.manual_seed(11)
    expected = []
    for direction, stack in enumerate((bilstm.forward_layers, bilstm.backward_layers)):
        x, outputs = inputs.transpose(0, 1).flatten(0, 1), []
        for depth, layer in enumerate(stack):
            x = nn.functional.dropout(x, 0.4).unflatten(0, (words, batch))
            hidden, cell, out = torch.zeros(batch, 5), torch.zeros(batch, 7), [torch.empty(0)] * words
            for t in range(words) if direction == 0 else range(words)[::-1]:
                hidden, cell = layer.step(nn.functional.linear(x[t], layer.weight_ih, layer.bias), hidden, cell)
                out[t] = hidden + x[t] if skip and depth > 0 else hidden
            x = torch.cat(out)
            outputs.append(x)
        expected.append(outputs)
    for layer, forward, backward in zip(layers, *expected, strict=True):
        torch.testing.assert_close(layer, torch.cat([forward, backward], dim=-1), rtol=0, atol=1e-5)

    bilstm.eval()
    torch.testing.assert_close(bilstm(packing.pack(inputs), packing)[0], bilstm(packing.pack(inputs), packing)[0])


def test_initial_state_is_zeros_like_the_input():
    bilstm = BiLstm(small_config(num_layers=3))
    state = bilstm.initial_state(4, torch.zeros(1, dtype=torch.bfloat16))
    assert state.hidden.shape == (2, 3, 4, 5)
    assert state.cell.shape == (2, 3, 4, 7)
    assert {part.dtype for part in state} == {torch.bfloat16}
    assert not any(part.any() for part in state)


def test_detached_state_has_no_graph():
    bilstm = fill(BiLstm(small_config()))
    _, state = run_padded(bilstm, torch.randn(1, 2, 5), mask_of([2]))
    assert state.hidden.requires_grad
    detached = state.detach()
    assert isinstance(detached, ElmoState)
    assert not any(part.requires_grad for part in detached)
    torch.testing.assert_close(list(detached), [part.detach() for part in state], rtol=0, atol=0)
