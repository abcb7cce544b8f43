"""Perplexity and log-probabilities against plain computations: one word at a time, the full softmax of its logits."""

import math

import numpy as np
import pytest
import torch
from small_models import fill, small_config

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, perplexity
from hf_elmo.language_model import scoring as language_model
from hf_elmo.language_model.scoring import score_sentences, target_log_probabilities

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "."]
SENTENCES = ["the cat sat on the mat .", "a dog", "the zebra sat .", "cat", "a cat sat on a dog on a mat on a cat ."]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(WORDS, max_characters_per_token=8)


@pytest.fixture(scope="module")
def model(tokenizer):
    return fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))


def log_softmax(logits):
    """In double precision; the last axis, of which [PAD] (0) is no word."""
    logits = logits.detach().double().numpy().copy()
    logits[..., 0] = -np.inf
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def brute_force(model, tokenizer, sentence):
    """Each word from a call of its own, that sees nothing but what is before it, or behind it."""
    encoded = tokenizer([tokenizer.tokenize(sentence)], is_split_into_words=True, return_tensors="pt")
    ids, characters = encoded["input_ids"][0], encoded["character_ids"][0]
    forward, backward = [], []
    with torch.no_grad():
        for place in range(1, len(ids)):
            logits = model(character_ids=characters[None, :place]).logits[0, -1]
            forward.append(log_softmax(logits)[ids[place]])
        for place in range(len(ids) - 1):
            logits = model(character_ids=characters[None, place + 1 :]).backward_logits[0, 0]
            backward.append(log_softmax(logits)[ids[place]])
    return np.array(forward), np.array(backward)


@pytest.mark.parametrize("batch_words", [1, 12, 2048])
def test_every_word_has_the_log_probability_of_a_plain_computation(model, tokenizer, batch_words):
    scored = list(score_sentences(model, tokenizer, SENTENCES, batch_words=batch_words))
    assert [sentence.words for sentence in scored] == [sentence.split() for sentence in SENTENCES]
    for text, sentence in zip(SENTENCES, scored, strict=True):
        forward, backward = brute_force(model, tokenizer, text)
        np.testing.assert_allclose(sentence.forward, forward, rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(sentence.backward, backward, rtol=1e-6, atol=2e-6)
        assert sentence.unknown.tolist() == [word == "zebra" for word in sentence.words]


def test_perplexity_is_over_the_whole_text_and_no_mean_of_means(model, tokenizer):
    result = perplexity(model, tokenizer, SENTENCES, batch_words=20)
    expected = [brute_force(model, tokenizer, sentence) for sentence in SENTENCES]
    forward, backward = (np.concatenate(direction) for direction in zip(*expected, strict=True))
    assert result.forward == pytest.approx(math.exp(-forward.mean()), rel=1e-6)
    assert result.backward == pytest.approx(math.exp(-backward.mean()), rel=1e-6)
    assert result.mean == pytest.approx(math.exp(-(forward.mean() + backward.mean()) / 2), rel=1e-6)
    means = [direction.mean() for direction, _ in expected]
    assert result.forward != pytest.approx(math.exp(-np.mean(means)), rel=1e-3)
    assert (result.words, result.sentences) == (len(forward), 5)
    assert result.unknown == pytest.approx(1 / len(forward))


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("batch_words", [1, 12, 2048])
def test_running_text_is_read_as_one_sequence_in_each_direction(model, tokenizer, batch_words, padding_side):
    tokenizer = ElmoTokenizer.create(WORDS, max_characters_per_token=8, padding_side=padding_side)
    scored = list(score_sentences(model, tokenizer, SENTENCES, carry_state=True, batch_words=batch_words))
    # The forward direction reads every word but the ends of sentences; where an end would be read, it is predicted.
    encoded = [tokenizer(sentence, return_tensors="pt") for sentence in SENTENCES]
    ids, characters = ([each[name][0] for each in encoded] for name in ("input_ids", "character_ids"))
    with torch.no_grad():
        forward = model(character_ids=torch.cat([rows[:-1] for rows in characters])[None]).logits[0]
        backward = model(character_ids=torch.cat([rows[1:] for rows in characters])[None]).backward_logits[0]
    for logits, targets, name in (
        (forward, torch.cat([row[1:] for row in ids]), "forward"),
        (backward, torch.cat([row[:-1] for row in ids]), "backward"),
    ):
        expected = log_softmax(logits)[np.arange(len(targets)), targets.numpy()]
        found = np.concatenate([getattr(sentence, name) for sentence in scored])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
    assert [sentence.words for sentence in scored] == [sentence.split() for sentence in SENTENCES]


def test_state_is_carried_to_every_sentence_but_the_first_one_of_a_direction(model, tokenizer):
    apart = list(score_sentences(model, tokenizer, SENTENCES))
    running = list(score_sentences(model, tokenizer, SENTENCES, carry_state=True))
    np.testing.assert_allclose(running[0].forward, apart[0].forward, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(running[-1].backward, apart[-1].backward, rtol=1e-6, atol=2e-6)
    for a, b in zip(running[1:], apart[1:], strict=True):
        assert np.abs(a.forward - b.forward).max() > 1e-2
    for a, b in zip(running[:-1], apart[:-1], strict=True):
        assert np.abs(a.backward - b.backward).max() > 1e-2
    alone = perplexity(model, tokenizer, SENTENCES[:1])
    assert perplexity(model, tokenizer, SENTENCES[:1], carry_state=True).mean == pytest.approx(alone.mean, rel=1e-6)


def test_words_stay_as_they_are_and_what_looks_special_is_read_as_such(model, tokenizer):
    sentence = ["the", "cat sat", "<S>", "[PAD]", ""]
    (scored,) = score_sentences(model, tokenizer, [sentence])
    (running,) = score_sentences(model, tokenizer, [sentence], carry_state=True)
    assert scored.words == sentence
    assert scored.unknown.tolist() == [False, True, False, True, True]
    np.testing.assert_allclose(running.forward, scored.forward, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(running.backward, scored.backward, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("carry_state", [False, True])
def test_sentences_without_words_are_passed_over(model, tokenizer, carry_state):
    with_blanks = ["", SENTENCES[0], "  \n", [], SENTENCES[1]]
    result = perplexity(model, tokenizer, with_blanks, carry_state=carry_state)
    assert result == perplexity(model, tokenizer, SENTENCES[:2], carry_state=carry_state)
    with pytest.raises(ValueError, match="no sentence to score: the text has no words"):
        perplexity(model, tokenizer, ["", " "], carry_state=carry_state)
    with pytest.raises(ValueError, match="no sentence to score"):
        perplexity(model, tokenizer, [], carry_state=carry_state)


def test_scoring_leaves_the_model_as_it_was(tokenizer):
    model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer), dropout=0.5)))
    quiet = perplexity(model, tokenizer, SENTENCES)
    model.train()
    assert perplexity(model, tokenizer, SENTENCES) == quiet
    assert perplexity(model, tokenizer, SENTENCES, carry_state=True).mean > 0
    assert model.training
    assert model.elmo.bilstm.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sentences_are_scored_as_they_are_needed(model, tokenizer):
    def endless():
        while True:
            yield from SENTENCES

    scored = score_sentences(model, tokenizer, endless(), batch_words=16)
    assert [next(scored).words for _ in range(7)] == [s.split() for s in (SENTENCES * 2)[:7]]


def test_memory_does_not_grow_with_the_number_of_words(monkeypatch):
    seen = []

    class Softmax(torch.nn.Linear):
        def forward(self, inputs):
            seen.append(len(inputs) * self.out_features)
            return super().forward(inputs)

    monkeypatch.setattr(language_model, "MOST_LOGITS", 1000)
    monkeypatch.setattr(language_model, "FEWEST_ROWS", 2)
    generator = torch.Generator().manual_seed(0)
    softmax = Softmax(4, 30)
    top, targets = torch.randn(100, 4, generator=generator), torch.randint(30, (100,), generator=generator)
    with torch.no_grad():
        scores = target_log_probabilities(softmax, top, targets)
        expected = softmax(top).log_softmax(dim=-1)[torch.arange(100), targets]
    torch.testing.assert_close(scores, expected)
    assert max(seen[:-1]) <= 1000
    assert target_log_probabilities(softmax, top[:0], targets[:0]).shape == (0,)
    assert language_model.rows_at_once(10**6) == 2


def test_bad_input_is_told(model, tokenizer):
    base = fill(ElmoModel(small_config()))
    with pytest.raises(ValueError, match=r"ElmoModel does not predict words: load .* ElmoForPreTraining"):
        perplexity(base, tokenizer, SENTENCES)
    with pytest.raises(ValueError, match="vocabulary has 4 words, special ones included, and the model predicts 12"):
        perplexity(model, ElmoTokenizer.create(), SENTENCES)
    with pytest.raises(ValueError, match="one text"):
        perplexity(model, tokenizer, "the cat")
    with pytest.raises(ValueError, match="Sentence 1 must be a text or a list of words, was: int"):
        perplexity(model, tokenizer, ["the cat", 3])
    with pytest.raises(ValueError, match="batch_words must be at least 1, was: 0"):
        score_sentences(model, tokenizer, SENTENCES, batch_words=0)
    broken = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
    with torch.no_grad():
        broken.softmax.weight[5] = math.nan
    with pytest.raises(ValueError, match="Sentence 0 has scores that are not numbers"):
        perplexity(broken, tokenizer, SENTENCES)


def test_the_bundled_model_predicts_english():
    model = ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
    tokenizer = ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    text = ["The city is the capital of the country .", "He was elected president in 1998 ."]
    shuffled = ["the . country of capital city The is the", "president 1998 was in . elected He"]
    result, worse = perplexity(model, tokenizer, text), perplexity(model, tokenizer, shuffled)
    assert 5 * result.forward < worse.forward
    assert 5 * result.backward < worse.backward
    sentence = next(score_sentences(model, tokenizer, text))
    forward, backward = brute_force(model, tokenizer, text[0])
    np.testing.assert_allclose(sentence.forward, forward, atol=1e-4)
    np.testing.assert_allclose(sentence.backward, backward, atol=1e-4)
