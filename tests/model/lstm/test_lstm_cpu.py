"""The quick ways of reading on a CPU: against the plain layers, however words may lie and weights change."""

import copy
import logging
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from amounts import examples
from forced_products import forced, row_of
from hypothesis import example, given
from hypothesis import strategies as st
from low_precision import assert_as_near
from small_models import fill, random_words, small_config
from torch import nn
from torch.autograd import forward_ad

import hf_elmo
from hf_elmo import ElmoModel, ElmoState
from hf_elmo.model.character_encoder import CharacterEncoder, run, unsupported_reason
from hf_elmo.model.fingerprint import Fingerprint
from hf_elmo.model.lstm import bilstm as bilstm_module
from hf_elmo.model.lstm import lstm_cpu, prepacked_weights
from hf_elmo.model.lstm.bilstm import BiLstm
from hf_elmo.model.lstm.packing import Packing, Words
from hf_elmo.model.products.matrix_products import Int8Product
from hf_elmo.model.tokenization_elmo import character_rows
from hf_elmo.vectors.embedding import embed_sentences
from hf_elmo.vectors.word_cache import RecentWords

SIZES = [{}, {"cell_size": 5}, {"cell_clip": None, "proj_clip": None}, {"num_layers": 3, "use_skip_connections": False}]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def batch(lengths, dtype, distinct, seed, dim=5):
    """Packed words of sentences of such lengths: some distinct vectors, and the place of each word's."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths, default=0)
    mask = torch.arange(longest) < torch.tensor(lengths, dtype=torch.long).unsqueeze(1)
    packing = Packing.from_mask(mask.view(len(lengths), longest))
    words = len(packing.positions)
    vectors = torch.randn(distinct or words, dim, generator=generator).to(dtype)
    return packing, Words(vectors, torch.randint(0, distinct, (words,), generator=generator) if distinct else None)


def plain(bilstm, words, packing, state):
    """What the layers give one by one, in operations that autograd knows."""
    layers, ends = [], []
    for direction, stack in enumerate((bilstm.forward_layers, bilstm.backward_layers)):
        x, outputs, end = words.all(), [], []
        for depth, layer in enumerate(stack):
            start = state.hidden[direction, depth], state.cell[direction, depth]
            y, *last = layer.read(x, packing.batch_sizes, *start, reverse=direction == 1)
            x = x + y if bilstm.use_skip_connections and depth else y
            outputs.append(x)
            end.append(last)
        layers.append(outputs)
        ends.append(end)
    merged = [torch.cat(pair, dim=-1) for pair in zip(*layers)]
    return merged, ElmoState(*(torch.stack([torch.stack([e[i] for e in end]) for end in ends]) for i in (0, 1)))


def round_weights(bilstm):
    """Rounds weights in place to 8 bits and a scale for each row, as `quantize` does."""
    for name, parameter in bilstm.named_parameters():
        if "weight" in name:
            scale = parameter.abs().amax(dim=1, keepdim=True) / 127
            parameter.copy_((parameter / scale).round() * scale)


@examples(150)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8)
    | st.lists(st.integers(1, 3), min_size=33, max_size=64),
    sizes=st.sampled_from(SIZES),
    dtype=st.sampled_from(DTYPES),
    distinct=st.sampled_from([None, 1, 7]),
    from_state=st.booleans(),
    seed=st.integers(0, 1000),
)
@example([300, 1], {}, torch.float32, 7, True, 0)
@example([0], {}, torch.float32, None, False, 0)
@example([5], {"cell_clip": None, "proj_clip": None}, torch.bfloat16, 1, False, 208)
def test_reading_equals_the_plain_layers(lengths, sizes, dtype, distinct, from_state, seed):
    bilstm = fill(BiLstm(small_config(**sizes)), seed).to(dtype)
    packing, words = batch(lengths, dtype, distinct, seed)
    state = bilstm.initial_state(len(packing.rows), words.vectors)
    if from_state:
        state = ElmoState(*(torch.randn(x.shape, dtype=dtype) for x in state))
    with torch.no_grad():
        layers, end = bilstm(words, packing, state)
        rounded, rounded_end = plain(bilstm, words, packing, state)
        exact_words = Words(words.vectors.double(), words.index)
        exact_state = ElmoState(*(part.double() for part in state))
        exact, exact_end = plain(copy.deepcopy(bilstm).double(), exact_words, packing, exact_state)
    for ours, theirs, right in zip([*layers, *end], [*rounded, *rounded_end], [*exact, *exact_end], strict=True):
        assert ours.shape == right.shape
        assert ours.dtype == dtype
        if ours.numel():
            assert_as_near(ours, theirs, right)


def test_input_shares_in_many_runs(monkeypatch):
    """As of a large model, whose shares of all words at once would take too much memory."""
    bilstm = fill(BiLstm(small_config()))
    packing, words = batch([9, 4, 4, 1], torch.float32, 6, 1)
    with torch.no_grad():
        expected, _ = bilstm(words, packing)
        monkeypatch.setattr(lstm_cpu, "_BYTES_OF_TABLE", 0)
        monkeypatch.setattr(lstm_cpu, "_BYTES_OF_INPUT_GATES", 7 * 4 * 4 * 5)
        layers, _ = bilstm(words, packing)
    torch.testing.assert_close(layers, expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="pairs of products are taken where there is MKL")
@pytest.mark.parametrize(
    ("lengths", "threads", "small", "together"),
    [
        ([9, 6, 6, 2], 1, True, 7),  # the last steps, of small weights
        ([7], 2, False, 7),
        ([7], 3, False, 0),
        ([7, 1], 1, False, 0),
    ],
)
def test_both_directions_take_steps_together(monkeypatch, lengths, threads, small, together):
    bilstm = fill(BiLstm(small_config()))
    packing, words = batch(lengths, torch.float32, 5, 3)
    monkeypatch.setattr(prepacked_weights, "is_small", lambda numbers: small)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    # Processors differ in what they read in pairs.
    row = replace(prepacked_weights.row_in_use(), pairs=(3, 1))
    monkeypatch.setattr(prepacked_weights, "row_in_use", lambda: row)
    taken = []
    add_recurrent = prepacked_weights.PrepackedPair.add_recurrent
    monkeypatch.setattr(
        prepacked_weights.PrepackedPair, "add_recurrent", lambda *args: taken.append(1) or add_recurrent(*args)
    )
    state = bilstm.initial_state(len(lengths), words.vectors)
    with torch.no_grad():
        layers, end = bilstm(words, packing, state)
        expected, expected_end = plain(bilstm, words, packing, state)
    assert len(taken) == together * len(layers)
    torch.testing.assert_close([*layers, *end], [*expected, *expected_end], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.mul_(1.5),
        lambda p: p.data.add_(0.3),
        lambda p: p.set_(p.clone() * 0.5),
        lambda p: p.copy_(torch.ones_like(p) * 0.1),
    ],
)
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias", "weight_hr"])
def test_changed_weights_are_prepacked_anew(change, name):
    bilstm = fill(BiLstm(small_config()))
    packing, words = batch([5, 3], torch.float32, None, 2)
    with torch.no_grad():
        before, _ = bilstm(words, packing)
        change(getattr(bilstm.backward_layers[1], name))
        after, _ = bilstm(words, packing)
        expected, _ = plain(bilstm, words, packing, bilstm.initial_state(2, words.vectors))
    assert (after[1] - before[1]).abs().max() > 1e-3
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("words", [5, 70])
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias", "weight_hr"])
def test_changed_weights_of_16_bits_are_copied_anew(name, words):
    """Few words and many take different copies of the input weight."""
    bilstm = fill(BiLstm(small_config())).to(torch.bfloat16)
    packing, rows = batch([5] * (words // 5), torch.bfloat16, None, 2)
    with torch.no_grad(), forced(row_of("packed", "half"), large=True):
        before, _ = bilstm(rows, packing)
        getattr(bilstm.backward_layers[1], name).mul_(1.5)
        after, _ = bilstm(rows, packing)
        rounded, _ = plain(bilstm, rows, packing, bilstm.initial_state(words // 5, rows.vectors))
        exact = copy.deepcopy(bilstm).double()
        wide = Words(rows.vectors.double(), rows.index)
        expected, _ = plain(exact, wide, packing, exact.initial_state(words // 5, wide.vectors))
    assert (after[1] - before[1]).abs().max() > 1e-3
    for ours, theirs, right in zip(after, rounded, expected, strict=True):
        assert_as_near(ours, theirs, right)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_changed_forget_bias_is_seen(quantized):
    bilstm = fill(BiLstm(small_config(cell_size=32, projection_dim=16)))
    packing, words = batch([5, 3, 3, 1], torch.float32, None, 2, dim=16)
    state = bilstm.initial_state(4, words.vectors)
    other = copy.deepcopy(bilstm)
    for each in (bilstm, other):
        if quantized:
            for layer in (*each.forward_layers, *each.backward_layers):
                prepacked_weights.quantize_layer(layer)
    with torch.no_grad():
        before, _ = bilstm(words, packing)
        for each in (bilstm, other):
            for layer in each.backward_layers:
                layer.forget_bias = -1.5
        after, _ = bilstm(words, packing)
        fresh, _ = other(words, packing)
        assert (after[1] - before[1]).abs().max() > 1e-2
        torch.testing.assert_close(after, fresh, rtol=0, atol=0)
        if not quantized:
            torch.testing.assert_close(after, plain(bilstm, words, packing, state)[0], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_that_share_a_fresh_model_get_the_same_bits(dtype):
    """Weights are prepacked in the first calls, all at the same time."""
    weights = fill(BiLstm(small_config(cell_size=24, projection_dim=12, num_layers=3))).to(dtype)
    batches = [batch(lengths, dtype, 3, seed, dim=12) for seed, lengths in enumerate([[1], [7, 2], [3] * 6, [9, 9, 1]])]

    def read(bilstm, barrier=None):
        if barrier is not None:
            barrier.wait()
        with torch.no_grad():
            return [bilstm(words, packing)[0] for packing, words in batches]

    expected = read(copy.deepcopy(weights))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            shared = copy.deepcopy(weights)
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(read, [shared] * 8, [threading.Barrier(8)] * 8))
            for one in found:
                torch.testing.assert_close(one, expected, rtol=0, atol=0)
    finally:
        sys.setswitchinterval(interval)


def test_optimizer_steps_and_loading_are_noticed(tiny_model_folder):
    model = ElmoModel.from_pretrained(tiny_model_folder)
    inputs = random_words([6, 2], chars=50)
    other = {name: value * 0.9 for name, value in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        first = model(character_ids=inputs)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(character_ids=inputs)[0].square().sum().backward()
    optimizer.step()
    for _ in range(2):
        with torch.no_grad():
            fast = model(character_ids=inputs)[0]
        slow = model(character_ids=inputs)[0]
        torch.testing.assert_close(fast, slow.detach(), rtol=1e-5, atol=1e-5)
        assert (fast - first).abs().max() > 1e-3
        model.load_state_dict(other)


def test_copies_are_neither_saved_nor_copied(tiny_model_folder, tmp_path):
    model = ElmoModel.from_pretrained(tiny_model_folder).eval()
    inputs = random_words([4], chars=50)
    with torch.no_grad():
        expected = model(character_ids=inputs)[0]
        twin = copy.deepcopy(model)
        twin.bilstm.forward_layers[0].weight_hh.mul_(2)
        assert (twin(character_ids=inputs)[0] - expected).abs().max() > 1e-3
        torch.testing.assert_close(model(character_ids=inputs)[0], expected)
    model.save_pretrained(tmp_path)
    assert ElmoModel.from_pretrained(tmp_path).state_dict().keys() == twin.state_dict().keys()


@pytest.mark.parametrize("training", [False, True])
def test_gradients_take_the_way_of_training(training):
    bilstm = fill(BiLstm(small_config(dropout=0.0))).train(training)
    packing, words = batch([3, 2], torch.float32, None, 3)
    layers, _ = bilstm(words, packing)
    assert all(layer.requires_grad for layer in layers)
    with torch.no_grad():
        read, _ = bilstm(words, packing)
    torch.testing.assert_close(read, [layer.detach() for layer in layers], rtol=0, atol=1e-5)


def test_hooks_on_layers_are_called():
    bilstm = fill(BiLstm(small_config()))
    packing, words = batch([3, 2], torch.float32, None, 4)
    called = []
    bilstm.forward_layers[1].register_forward_hook(lambda *arguments: called.append(1))
    with torch.no_grad():
        bilstm(words, packing)
    assert called == [1]


def test_hooks_on_every_module_are_called():
    bilstm = fill(BiLstm(small_config()))
    packing, words = batch([3, 2], torch.float32, None, 4)
    called = []

    def note(module, *_):
        called.append(type(module).__name__)

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        with torch.no_grad():
            bilstm(words, packing)
    finally:
        handle.remove()
    assert called.count("LstmLayer") == 4


def test_derivatives_taken_forward_are_not_lost():
    bilstm = fill(BiLstm(small_config())).double()
    packing, words = batch([3, 2], torch.float64, None, 4)
    tangent, small = torch.ones_like(words.vectors), 1e-6
    with torch.no_grad(), forward_ad.dual_level():
        layers, _ = bilstm(forward_ad.make_dual(words.vectors, tangent), packing)
        found = forward_ad.unpack_dual(layers[-1]).tangent
    with torch.no_grad():
        more, less = (bilstm(words.vectors + sign * small * tangent, packing)[0][-1] for sign in (1, -1))
    torch.testing.assert_close(found, (more - less) / (2 * small), rtol=1e-5, atol=1e-7)


def test_it_is_said_which_way_is_taken(caplog):
    logger = logging.getLogger(bilstm_module.__name__)
    bilstm = fill(BiLstm(small_config()))
    packing, words = batch([3], torch.float32, None, 5)
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    type(bilstm_module.logger).info_once.cache_clear()
    try:
        with torch.no_grad():
            bilstm(words, packing)
            bilstm(words, packing)
            bilstm.dropout.p = 0.5
            bilstm.train()(words, packing)
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.NOTSET)
    gpu = "not by Triton kernels (the words are on cpu, which is not a CUDA GPU)"
    messages = {record.getMessage() for record in caplog.records}
    assert messages == {
        f"The biLM's LSTMs are run by the inference path for CPUs; {gpu}.",
        f"The biLM's LSTMs are run by plain operations; {gpu}; not by the inference path for CPUs (there is dropout); "
        "not by the training path for CPUs (no gradients are recorded).",
    }


encoders = st.sampled_from(
    [
        {},
        {"filters": [[2, 3]]},
        {"filters": [[1, 40], [6, 2]]},  # one product would compute far more than the convolutions
        {"num_highway_layers": 0, "activation": "tanh"},
        {"num_highway_layers": 3, "projection_dim": 7, "cell_size": 7, "filters": [[2, 7]]},
    ]
)


@examples(80)
@given(
    words=st.lists(st.text(max_size=60), min_size=1, max_size=90),
    sizes=encoders,
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    chars=st.sampled_from([8, 50]),
)
@example([""], {}, torch.float32, 8)
@example(["a" * number for number in range(61)], {}, torch.float32, 50)
def test_characters_equal_the_convolutions(words, sizes, dtype, chars):
    encoder = fill(CharacterEncoder(small_config(**sizes, max_characters_per_token=chars))).to(dtype)
    rows = torch.from_numpy(character_rows(words, chars)[0])
    with torch.no_grad():
        reason = unsupported_reason(encoder, rows)
        assert (reason is None) == (sizes.get("filters") != [[1, 40], [6, 2]]), reason
        if reason is not None:
            return
        fast, plain = run(encoder, rows), encoder.encode(rows)
        exact = copy.deepcopy(encoder).double().encode(rows)
    assert fast.dtype == dtype
    assert_as_near(fast, plain, exact)


def test_changed_highways_of_16_bits_are_copied_anew():
    encoder = fill(CharacterEncoder(small_config(num_highway_layers=2))).to(torch.bfloat16)
    rows = random_words([20])[0]
    with torch.no_grad(), forced(row_of("packed", "half"), large=True):
        before = encoder(rows)
        for layer in (encoder.highways[1].transform, encoder.projection):
            layer.weight.mul_(1.5)
            after = encoder(rows)
            assert_as_near(after, encoder.encode(rows), copy.deepcopy(encoder).double().encode(rows))
            assert (after - before).abs().max() > 1e-2
            before = after


def test_changed_filters_are_laid_out_anew():
    encoder = fill(CharacterEncoder(small_config()))
    rows = random_words([20])[0]
    with torch.no_grad():
        before = encoder(rows)
        encoder.convolutions[1].weight.data.mul_(3)
        torch.testing.assert_close(encoder(rows), encoder.encode(rows), rtol=0, atol=1e-5)
        assert (encoder(rows) - before).abs().max() > 1e-3


@examples(60)
@given(batches=st.lists(st.lists(st.integers(0, 30), max_size=20), min_size=1, max_size=8), capacity=st.integers(1, 25))
def test_recent_words_are_those_of_the_encoder(batches, capacity):
    encoder = fill(CharacterEncoder(small_config()))
    encoder.cache = RecentWords(encoder, capacity)
    table = random_words([31])[0]
    with torch.no_grad():
        expected = encoder.encode(table)
        for numbers in batches:
            found = encoder(table[numbers])
            torch.testing.assert_close(found, expected[numbers], rtol=0, atol=1e-5)
            assert len(encoder.cache) <= capacity


def test_recent_words_are_not_computed_again_until_weights_change():
    encoder = fill(CharacterEncoder(small_config()))
    cache = encoder.cache = RecentWords(encoder)
    rows = random_words([6])[0]
    computed = []
    compute = encoder._encode_rows
    encoder._encode_rows = lambda some: computed.append(len(some.unique(dim=0))) or compute(some)
    with torch.inference_mode():
        encoder(rows)
    with torch.no_grad():
        encoder(rows)
        assert computed == [len(rows.unique(dim=0))] == [len(cache)]
        encoder.projection.bias.data.add_(1)
        torch.testing.assert_close(encoder(rows), encoder.encode(rows), rtol=0, atol=1e-5)
        assert len(computed) == 2
    # What is trained is computed.
    encoder(rows)
    assert len(computed) == 3


def test_remembering_makes_no_difference(tiny_model_folder):
    model = ElmoModel.from_pretrained(tiny_model_folder).eval()
    words = random_words([7, 3], chars=50)
    with torch.no_grad():
        expected = model(character_ids=words)[0]
        assert hf_elmo.remember_words(model, 4).capacity == 4
        for _ in range(2):
            torch.testing.assert_close(model(character_ids=words)[0], expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="capacity must be at least 1, was: 0"):
        hf_elmo.remember_words(model, 0)


def test_fingerprints():
    parameters = [torch.randn(3, 70), torch.randn(5)]
    first = Fingerprint(parameters)
    assert first == Fingerprint(parameters)
    parameters[1].data += 1
    assert first != Fingerprint(parameters)
    assert first != Fingerprint([x.clone() for x in parameters])
    assert first != None  # noqa: E711 (the comparison itself is tested)


class TestQuantized:
    """Models in 8 bits."""

    @pytest.fixture
    def model(self):
        return ElmoModel.from_pretrained(hf_elmo.bundled()).eval()

    def test_vectors_are_near(self, model):
        words = random_words([12, 5, 1], chars=50, seed=3)
        with torch.no_grad():
            exact = copy.deepcopy(model).double()
            rounded = copy.deepcopy(exact)
            round_weights(rounded.bilstm)
            layers = [
                torch.stack(each(character_ids=words, output_hidden_states=True).hidden_states)
                for each in (exact, rounded, hf_elmo.quantize(model))
            ]
        right, cost, found = (each[:, (words > 0).any(dim=-1)] for each in layers)
        for depth in (1, 2):
            # Inputs and states have 7 or 8 bits, as weights have 8.
            assert (found[depth] - right[depth]).norm() <= 3 * (cost[depth] - right[depth]).norm()
        assert not torch.equal(found[1].float(), right[1].float())

    def test_quantize_returns_the_model(self, model):
        assert hf_elmo.quantize(model) is model

    def test_lstms_are_as_near_as_their_rounded_weights(self):
        """Against float64: to three times what it costs to round the weights alone; inputs are rounded to 7 bits.

        Products of 8 and 8 bits would be off by ten times as much on processors without VNNI, whose sums overflow.
        """
        bilstm = fill(BiLstm(small_config(cell_size=64, projection_dim=32, cell_clip=3.0, proj_clip=3.0)))
        packing, words = batch([12, 5, 5, 1], torch.float32, None, 7, dim=32)
        rounded = copy.deepcopy(bilstm).double()
        with torch.no_grad():
            round_weights(rounded)
            exact_words = Words(words.vectors.double())
            state = bilstm.initial_state(4, exact_words.vectors)
            exact, _ = plain(copy.deepcopy(bilstm).double(), exact_words, packing, state)
            cost, _ = plain(rounded, exact_words, packing, state)
            for layer in (*bilstm.forward_layers, *bilstm.backward_layers):
                prepacked_weights.quantize_layer(layer)
            found, _ = bilstm(words, packing)
        for ours, one, right in zip(found, cost, exact, strict=True):
            assert (ours - right).norm() <= 3 * (one - right).norm()

    @pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="pairs of products are taken where there is MKL")
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("sizes", SIZES)
    @pytest.mark.parametrize(("few", "large", "together"), [(3, False, 7), (0, False, 0), (3, True, 0)])
    def test_single_sentences_of_small_models_are_products_of_float32(self, dtype, sizes, few, large, together):
        """By copies of the weights that 8 bits have left; what comes from the state is not rounded to 8 bits then."""
        bilstm = fill(BiLstm(small_config(**sizes))).to(dtype)
        packing, words = batch([9, 6, 6, 2], dtype, 5, 3)
        rounded = copy.deepcopy(bilstm).double()
        taken = []
        add_recurrent = prepacked_weights.PrepackedPair.add_recurrent
        with (
            torch.no_grad(),
            forced(row_of("packed", "plain", pairs_of_int8=few), large),
            patch.object(
                prepacked_weights.PrepackedPair,
                "add_recurrent",
                lambda *args: taken.append(1) or add_recurrent(*args),
            ),
        ):
            for layer in (*bilstm.forward_layers, *bilstm.backward_layers):
                prepacked_weights.quantize_layer(layer)
            state = bilstm.initial_state(4, words.vectors)
            layers, end = bilstm(words, packing, state)
            one = Packing.from_mask(torch.ones(1, 9, dtype=torch.bool))
            vectors = Words(words.vectors[:1].expand(9, -1).contiguous())
            (single, *_), _ = bilstm(vectors, one, bilstm.initial_state(1, vectors.vectors))
            round_weights(rounded)
            exact_state = ElmoState(*(part.double() for part in state))
            exact, exact_end = plain(rounded, Words(words.vectors.double(), words.index), packing, exact_state)
            exact_state = rounded.initial_state(1, rounded.forward_layers[0].bias)
            (exact_single, *_), _ = plain(rounded, Words(vectors.vectors.double()), one, exact_state)
        steps = 9 if together else 0
        assert len(taken) == together * len(layers) + steps * len(layers)
        for ours, right in zip([*layers, *end, single], [*exact, *exact_end, exact_single], strict=True):
            assert ours.dtype == dtype
            assert (ours - right).norm() <= 0.05 * right.norm()

    def test_the_weight_of_a_product_is_the_one_that_it_multiplies_with(self):
        weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
        product = Int8Product(weight)
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        torch.testing.assert_close(product.weight(), (weight / scale).round() * scale, rtol=1e-6, atol=0)
        # A row with a single one, of which 7 bits keep all, gives a column of the weight.
        torch.testing.assert_close(product(torch.eye(16)).t(), product.weight(), rtol=1e-5, atol=1e-6)
        assert copy.deepcopy(product) is product

    def test_bulk_embedding_and_streams_work(self, model):
        tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        hf_elmo.quantize(model)
        sentence = next(iter(embed_sentences(model, tokenizer, ["The king left ."], layers="all")))
        assert np.isfinite(sentence.vectors).all()
        assert len(list(hf_elmo.stream(model, tokenizer, ["The", "king"]))) == 2

    def test_the_weights_are_gone(self, model):
        hf_elmo.quantize(model)
        assert all(parameter.is_meta for parameter in model.bilstm.parameters())

    def test_copies_and_pickles_read_the_same(self, model):
        """Before a sentence was read and after, when float32 copies were made."""
        hf_elmo.quantize(model)
        batches = [random_words([9], chars=50, seed=1), random_words([7, 3, 1], chars=50, seed=2)]
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        expected = [model(character_ids=batch).last_hidden_state for batch in batches]
        copies += [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for each in copies:
            found = [each(character_ids=batch).last_hidden_state for batch in batches]
            assert all(map(torch.equal, found, expected))

    def test_what_it_cannot_do_is_said(self, model, tmp_path):
        hf_elmo.quantize(model)
        with pytest.raises(ValueError, match="A quantised model has no weights to save"):
            model.save_pretrained(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        with pytest.raises(ValueError, match="not quantised yet"):
            hf_elmo.quantize(model)
        with pytest.raises(ValueError, match="a quantised model only reads"):
            model.requires_grad_(True)(character_ids=random_words([3], chars=50))

    @pytest.mark.parametrize("training", [False, True])
    def test_a_call_without_any_precaution_reads(self, model, training):
        """As in the README: no `torch.no_grad()` around it."""
        words = random_words([3, 2], chars=50)
        found = hf_elmo.quantize(model).train(training)(character_ids=words, output_hidden_states=True)
        assert not found[0].requires_grad
        with torch.no_grad():
            expected = model(character_ids=words, output_hidden_states=True)
        assert torch.equal(found.hidden_states[-1], expected.hidden_states[-1])

    @pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize(
        "name",
        ["bilstm.backward_layers.1.weight_hh", "bilstm.forward_layers.0.bias", "character_encoder.projection.weight"],
    )
    def test_weights_that_are_not_finite_are_refused(self, number, name):
        model = fill(ElmoModel(small_config()))
        model.get_parameter(name).data.view(-1)[3] = number
        with pytest.raises(ValueError, match=rf"numbers of {name} 1 are NaN or infinite.*damaged"):
            hf_elmo.quantize(model)
        # The model is as it was.
        assert not any(parameter.is_meta for parameter in model.parameters())
        model(character_ids=random_words([3]))[0].sum().backward()
