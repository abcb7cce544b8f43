"""Reading word by word against the model on whole sentences, and generation against reading all anew for each word."""

import itertools
import math

import numpy as np
import pytest
import torch
from small_models import fill, small_config

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, ForwardReader, generate, stream
from hf_elmo.language_model.generation import _draw

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "."]
SENTENCE = ["the", "zebra", "don't", "sat on", "", "the", "mat", "."]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(WORDS, max_characters_per_token=8)


@pytest.fixture(scope="module")
def model(tokenizer):
    return fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))


def forward_layers(model, tokenizer, words):
    """``(words, layers, projection_dim)`` from one call on the whole sentence, boundaries left out."""
    with torch.no_grad():
        inputs = tokenizer([words], is_split_into_words=True, return_tensors="pt")
        layers = model.base_model(**inputs, output_hidden_states=True).hidden_states
    return torch.stack([layer[0, 1:-1].chunk(2, dim=-1)[0] for layer in layers], dim=1)


@pytest.mark.parametrize("fields", [{}, {"use_skip_connections": False, "num_layers": 3, "proj_clip": None}])
def test_a_stream_has_the_forward_vectors_of_the_whole_sentence(tokenizer, fields):
    model = fill(ElmoModel(small_config(**fields)))
    expected = forward_layers(model, tokenizer, SENTENCE)
    streamed = list(stream(model, tokenizer, iter(SENTENCE)))
    assert len(streamed) == len(SENTENCE)
    assert streamed[0].shape == (model.config.num_layers + 1, model.config.projection_dim)
    torch.testing.assert_close(torch.stack(streamed), expected, atol=1e-5, rtol=0)
    assert (expected[1:] - expected[:-1]).abs().amax(dim=(0, 2)).min() > 0.1


def test_a_stream_gives_each_vector_before_it_asks_for_the_next_word(model, tokenizer):
    asked = []

    def words():
        for word in itertools.cycle(SENTENCE):
            asked.append(word)
            yield word

    vectors = stream(model, tokenizer, words())
    for number in range(1, 20):
        next(vectors)
        assert len(asked) == number


def test_each_word_is_read_once(model, tokenizer):
    rows = []
    hook = model.elmo.character_encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    try:
        list(stream(model, tokenizer, SENTENCE))
        assert rows == [1] * (1 + len(SENTENCE))
        rows.clear()
        drawn = list(generate(model, tokenizer, "the cat", 4, generator=torch.Generator().manual_seed(3)))
        assert len(drawn) == 4
        # Nothing follows the last word.
        assert rows == [3] + [1] * 3
    finally:
        hook.remove()


def test_a_reader_goes_on_where_another_was(model, tokenizer):
    reader = ForwardReader(model, tokenizer)
    reader.read(["<S>", *SENTENCE[:3]])
    middle = reader.state
    assert middle.hidden.shape == (1, 2, 1, 5)
    assert middle.cell.shape == (1, 2, 1, 7)
    expected = forward_layers(model, tokenizer, SENTENCE)[3:]
    first = reader.read(SENTENCE[3:])
    again = ForwardReader(model, tokenizer, middle).read(SENTENCE[3:])
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=0)
    assert torch.equal(first, again)
    with torch.no_grad():
        inputs = tokenizer([SENTENCE], is_split_into_words=True, return_tensors="pt")
        whole = model.elmo(character_ids=inputs["character_ids"][:, :-1], return_state=True).state
    torch.testing.assert_close(reader.state.hidden, whole.hidden[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(reader.state.cell, whole.cell[:1], atol=1e-5, rtol=0)


def test_reading_leaves_a_model_in_training_as_it_was(tokenizer):
    model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer), dropout=0.5)))
    expected = forward_layers(model, tokenizer, SENTENCE)
    greedy = list(generate(model, tokenizer, "the", 5, temperature=0))
    model.train()
    for vector, other in zip(stream(model, tokenizer, SENTENCE), expected, strict=True):
        assert model.elmo.bilstm.training
        torch.testing.assert_close(vector, other, atol=1e-5, rtol=0)
    assert list(generate(model, tokenizer, "the", 5, temperature=0)) == greedy


def log_probabilities(model, tokenizer, words):
    """Of the next word, ``(vocab_size,)``, by reading all anew; nothing for words that are never drawn."""
    with torch.no_grad():
        characters = tokenizer([words], is_split_into_words=True, return_tensors="pt")["character_ids"]
        logits = model(character_ids=characters[:, :-1]).logits[0, -1].double().numpy()
    logits[[0, 1, 2]] = -np.inf
    return logits - np.log(np.exp(logits).sum())


def test_the_likeliest_words_are_those_of_reading_all_anew(model, tokenizer):
    words = ["the", "zebra"]
    expected = []
    while len(expected) < 12:
        best = int(log_probabilities(model, tokenizer, words + expected).argmax())
        if best == tokenizer.eos_token_id:
            break
        expected.append(tokenizer.convert_ids_to_tokens(best))
    assert expected
    assert list(generate(model, tokenizer, "the zebra", 12, temperature=0)) == expected
    assert list(generate(model, tokenizer, words, 12, top_k=1)) == expected
    assert list(generate(model, tokenizer, words, 12, temperature=1e-9)) == expected
    assert list(generate(model, tokenizer, words, 1, temperature=0)) == expected[:1]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3)])
def test_words_are_drawn_as_often_as_the_softmax_says(model, tokenizer, temperature, top_k):
    weights = np.exp(log_probabilities(model, tokenizer, ["the"]) / temperature)
    if top_k is not None:
        weights[np.argsort(-weights)[top_k:]] = 0
    expected = weights / weights.sum()
    generator = torch.Generator().manual_seed(0)
    draws = 2000
    logits = torch.from_numpy(log_probabilities(model, tokenizer, ["the"]))
    drawn = [_draw(logits, temperature, top_k, generator) for _ in range(draws)]
    counts = np.bincount(drawn, minlength=len(tokenizer))
    for seed in range(20):
        first = _draw(logits, temperature, top_k, torch.Generator().manual_seed(seed))
        chance = torch.Generator().manual_seed(seed)
        words = list(generate(model, tokenizer, "the", 1, temperature=temperature, top_k=top_k, generator=chance))
        # Without a word: the sentence ended.
        assert words == tokenizer.convert_ids_to_tokens([first] * (first != tokenizer.eos_token_id))
    likely = expected > 0
    assert counts[~likely].sum() == 0
    chi_square = ((counts - draws * expected)[likely] ** 2 / (draws * expected[likely])).sum()
    # With a right sampler it is beyond this once in 1,000 seeds or less (9 classes: 8 degrees of freedom).
    assert chi_square < 26.1


def test_a_seed_gives_the_same_words_again(model, tokenizer):
    def drawn(seed):
        return list(generate(model, tokenizer, "the", 30, generator=torch.Generator().manual_seed(seed)))

    assert drawn(5) == drawn(5)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1
    with torch.random.fork_rng():
        torch.manual_seed(7)
        first = list(generate(model, tokenizer, "the", 30))
        torch.manual_seed(7)
        assert list(generate(model, tokenizer, "the", 30)) == first


def test_the_end_of_the_sentence_ends_it(tokenizer):
    model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
    with torch.no_grad():
        model.softmax.bias[tokenizer.eos_token_id] = 50
    assert list(generate(model, tokenizer, "the")) == []
    with torch.no_grad():
        model.softmax.bias.fill_(0)[[0, 1, 2]] = 50
    assert set(generate(model, tokenizer, "", 50)) <= set(WORDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or a positive number, was: -1"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"max_words": 0}, "max_words must be at least 1"),
        ({"prompt": 3}, "must be a text or a list of words"),
    ],
)
def test_bad_options_are_told_at_once(model, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, tokenizer, **options)


def test_bad_input_is_told(model, tokenizer):
    with pytest.raises(ValueError, match="ElmoModel does not predict words"):
        generate(fill(ElmoModel(small_config())), tokenizer, "the")
    with pytest.raises(ValueError, match="words is one text"):
        stream(model, tokenizer, "the cat")
    with pytest.raises(ValueError, match="Word 1 must be a str, was: int 3"):
        list(stream(model, tokenizer, ["the", 3]))


def test_the_bundled_model_writes_and_streams():
    model = ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
    tokenizer = ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    words = ["The", "king", "of", "England", "wrote", "a", "letter", "."]
    expected = forward_layers(model, tokenizer, words)
    torch.testing.assert_close(torch.stack(list(stream(model, tokenizer, words))), expected, atol=1e-5, rtol=0)
    written = list(generate(model, tokenizer, "In the United", 3, temperature=0))
    assert written[0] == "States"
