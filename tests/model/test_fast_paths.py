"""The whole model by all its quick ways at once, against the formulas word by word: lengths, words, modes, dtypes."""

import logging
from unittest.mock import patch

import pytest
import torch
from amounts import examples, first_of
from forced_products import forced, row_of
from hypothesis import assume, example, given
from hypothesis import strategies as st
from low_precision import assert_as_near_on_average
from small_models import fill, small_config

from hf_elmo import ElmoModel, ElmoState, ElmoTokenizer
from hf_elmo.model.lstm import prepacked_weights
from hf_elmo.model.lstm.lstm_layer import reference_lstm
from hf_elmo.model.products.matrix_products import PRODUCTS, has_half, has_onednn
from hf_elmo.model.tokenization_elmo import character_rows
from hf_elmo.vectors.embedding import embed_sentences

OPTIONS = [
    {},
    {"cell_size": 5},  # no projection
    {"cell_clip": None, "proj_clip": None, "num_highway_layers": 0},
    {"num_layers": 3, "use_skip_connections": False, "activation": "tanh"},
    {"num_layers": 1, "filters": [[2, 3]], "num_highway_layers": 2},
    {"filters": [[1, 40], [6, 2]], "char_embed_dim": 8, "projection_dim": 12, "cell_size": 20, "forget_bias": 0.0},
]


def sentences_of(lengths, seed):
    """Words of 0 to 60 bytes, in scripts of 1 to 4 bytes a character; about a third recur."""
    generator = torch.Generator().manual_seed(seed)

    def some(high):
        return int(torch.randint(high, (), generator=generator))

    known = ["", "a", "<S>", "x" * 60]
    sentences = []
    for length in lengths:
        sentences.append([])
        for _ in range(length):
            if some(3):
                letter = "aé語🙂"[some(4)]
                size = some(60 // len(letter.encode()) + 1)
                known.append("".join(chr(ord(letter) + some(4)) for _ in range(size)))
            sentences[-1].append(known[some(len(known))] if not some(3) else known[-1])
    return sentences


def rows_of(sentences, chars):
    """``(batch, longest, chars)``, zeros behind each sentence, and the mask ``(batch, longest)``."""
    longest = max(map(len, sentences))
    ids = torch.zeros(len(sentences), longest, chars, dtype=torch.long)
    for row, words in enumerate(sentences):
        if words:
            ids[row, : len(words)] = torch.from_numpy(character_rows(words, chars)[0])
    return ids, torch.arange(longest) < torch.tensor(list(map(len, sentences))).unsqueeze(1)


def by_the_formulas(model, ids, mask, state):
    """All layers ``(layers, batch, words, dim)`` and the state after each row: padded, one word at a time."""
    lengths = mask.sum(dim=1)
    words = model.character_encoder.encode(ids.flatten(0, 1)).unflatten(0, ids.shape[:2]) * mask.unsqueeze(-1)
    bilstm, directions, ends = model.bilstm, [], []
    for direction, stack in enumerate((bilstm.forward_layers, bilstm.backward_layers)):
        x, layers, end = words, [words], []
        for depth, layer in enumerate(stack):
            start = state.hidden[direction, depth], state.cell[direction, depth]
            y, *after = reference_lstm(layer, x, lengths, *start, reverse=direction == 1)
            x = x + y if depth and bilstm.use_skip_connections else y
            layers.append(x)
            end.append(after)
        directions.append(torch.stack(layers))
        ends.append(end)
    parts = [torch.stack([torch.stack([after[part] for after in end]) for end in ends]) for part in (0, 1)]
    return torch.cat(directions, dim=-1), ElmoState(*parts)


few_long = st.lists(st.integers(0, 120), min_size=1, max_size=3)
many_short = st.lists(st.integers(0, 9), min_size=1, max_size=64)


@examples(60)
@given(
    lengths=(few_long | many_short).filter(any),
    options=st.sampled_from(OPTIONS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    mode=st.sampled_from(["train", "eval", "no gradients", "inference mode"]),
    from_state=st.booleans(),
    seed=st.integers(0, 9),
)
@example([300, 0, 1], {}, torch.float32, "no gradients", True, 0)
@example([1] * 64, {}, torch.bfloat16, "train", False, 1)
def test_every_way_gives_what_the_formulas_give(lengths, options, dtype, mode, from_state, seed):
    # Cells without bound grow from word to word, and rounding errors with them.
    assume("cell_clip" not in options or (dtype == torch.float32 and max(lengths) < 40))
    assert_as_the_formulas(lengths, options, dtype, mode, from_state, seed)


# What float32 and 16 bits are multiplied by, and whether as large weights, of which no float32 copies are kept.
FORCED = [
    ("packed", "packed", False),
    ("plain", "plain", False),
    ("transposed", "transposed", False),
    ("packed", "half", True),
    ("packed", "widened", False),
    ("packed", "widened", True),
    ("plain", "widened", True),
    ("transposed", "widened", True),
    ("plain", "widened", False),
    ("transposed", "widened", False),
    ("transposed", "half", False),
]


@pytest.mark.parametrize(("float32", "sixteen_bits", "large"), first_of(FORCED, 8))
def test_every_product_gives_what_the_formulas_give(float32, sixteen_bits, large):
    """Each that any row of the table can choose, with all options, reading and in training."""
    widens = sixteen_bits in ("half", "widened")
    dtypes = [torch.bfloat16, torch.float16] if widens else [torch.float32, torch.bfloat16]
    made = set()

    def noted(name):
        make = PRODUCTS[name]
        return lambda weight, transposed=False: made.add((name, weight.dtype)) or make(weight, transposed)

    def at_hand(name, dtype):
        return (name if name != "packed" or has_onednn(torch.empty(1, dtype=dtype)) else "plain", dtype)

    notes = {name: noted(name) for name in PRODUCTS}
    with (
        forced(row_of(float32, sixteen_bits), large),
        patch.dict(PRODUCTS, notes),
        patch.object(prepacked_weights, "half_product", notes["half"]),
    ):
        for number, options in enumerate(OPTIONS):
            # Cells without bound grow from word to word, and rounding errors with them.
            dtype = dtypes[number % 2] if "cell_clip" not in options else torch.float32
            modes = ["no gradients"] if dtype == torch.float16 else ["no gradients", "eval"]
            for mode in modes:
                assert_as_the_formulas([7, 3, 3, 0, 1, 12], options, dtype, mode, bool(number % 3), number)
        # A single sentence.
        assert_as_the_formulas([6], {}, dtypes[0], "no gradients", True, 1)
    others = set() if widens else {at_hand(sixteen_bits, torch.bfloat16)}
    if sixteen_bits == "half" and has_half():
        # Of large weights a copy of the input weight, too, for few words.
        others = {("half", dtype) for dtype in (torch.float32, *(dtypes if large else []))}
    assert made == {at_hand(float32, torch.float32)} | others


def assert_as_the_formulas(lengths, options, dtype, mode, from_state, seed):
    """A model of these options reads sentences of these lengths as the formulas do, and learns as they do."""
    config = small_config(**options, dropout=0.0, representation_dropout=0.0)
    model = fill(ElmoModel(config), seed).to(dtype).train(mode == "train")
    plain = fill(ElmoModel(config), seed).to(dtype)
    exact = fill(ElmoModel(config), seed).to(dtype).double()
    ids, mask = rows_of(sentences_of(lengths, seed), config.max_characters_per_token)
    state = model.bilstm.initial_state(len(lengths), torch.empty(0))
    if from_state:
        generator = torch.Generator().manual_seed(seed)
        state = ElmoState(*(torch.rand(part.shape, generator=generator).sub(0.5).to(dtype).float() for part in state))
    given_state = ElmoState(*(part.to(dtype) for part in state))
    gradients = mode in ("train", "eval")
    with torch.inference_mode(mode == "inference mode"), torch.set_grad_enabled(gradients):
        output = model(ids, attention_mask=mask, state=given_state, return_state=True, output_hidden_states=True)
        layers = torch.stack(output.hidden_states)
    with torch.set_grad_enabled(gradients):
        expected, end = by_the_formulas(exact, ids, mask, ElmoState(*(part.double() for part in state)))
    with torch.no_grad():
        rounded, rounded_end = by_the_formulas(plain, ids, mask, given_state)
    for ours, theirs, right in zip((layers, *output.state), (rounded, *rounded_end), (expected, *end), strict=True):
        assert ours.dtype == dtype
        assert_as_near_on_average(ours, theirs, right)
        if dtype == torch.float32:
            torch.testing.assert_close(ours.double(), right, rtol=2e-5, atol=2e-5)
    if gradients and dtype == torch.float32:
        # Of a smooth sum that no word is too small a part of.
        for value in (layers, expected):
            value.square().mean().backward()
        for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
            if theirs.grad is not None:
                largest = max(1e-3, theirs.grad.abs().max().item())
                assert (ours.grad - theirs.grad).abs().max() < 2e-4 * largest, name


@examples(40)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=64).filter(any),
    options=st.sampled_from(OPTIONS),
    batch_words=st.sampled_from([1, 50, 4096]),
    seed=st.integers(0, 9),
)
def test_bulk_embedding_gives_what_the_formulas_give(lengths, options, batch_words, seed):
    config = small_config(**options)
    model = fill(ElmoModel(config), seed)
    tokenizer = ElmoTokenizer.create(max_characters_per_token=config.max_characters_per_token)
    sentences = sentences_of(lengths, seed)
    embedded = list(embed_sentences(model, tokenizer, sentences, layers="all", batch_words=batch_words))
    ids, mask = rows_of([["<S>", *words, "</S>"] for words in sentences], config.max_characters_per_token)
    with torch.no_grad():
        expected, _ = by_the_formulas(model, ids, mask, model.bilstm.initial_state(len(lengths), torch.empty(0)))
    for row, (result, words) in enumerate(zip(embedded, sentences, strict=True)):
        theirs = expected[:, row, 1 : len(words) + 1]
        torch.testing.assert_close(torch.as_tensor(result.vectors), theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda model: None, ["run by the inference path for CPUs", "one product for all its filters"]),
        (lambda model: model.character_encoder.projection.register_forward_hook(lambda *_: None), ["filter by filter"]),
        (lambda model: model.bilstm.forward_layers[0].register_forward_hook(lambda *_: None), ["plain operations"]),
    ],
)
def test_the_log_says_which_way_is_taken(prepare, says, caplog):
    model = fill(ElmoModel(small_config()))
    prepare(model)
    children = [
        logging.getLogger(f"hf_elmo.model.{name}") for name in ("lstm.bilstm", "lstm.lstm_cpu", "character_encoder")
    ]
    for child in children:
        child.setLevel(logging.INFO)
        child.addHandler(caplog.handler)
        type(child).info_once.cache_clear()
    try:
        with torch.no_grad():
            model(rows_of([["some", "words"]], 8)[0])
    finally:
        for child in children:
            child.removeHandler(caplog.handler)
            child.setLevel(logging.NOTSET)
    for piece in says:
        assert piece in caplog.text
