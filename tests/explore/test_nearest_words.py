"""The nearest words of a vocabulary, by spelling and by use."""

import numpy as np
import pytest
import torch
from small_models import fill, small_config

from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.explore.demo_page import render
from hf_elmo.explore.explorer import Explorer
from hf_elmo.explore.nearest_words import NearestWords

WORDS = ["the", "cat", "cats", "sat", "on", "mat", "a", "dog"]


@pytest.fixture(scope="module")
def loaded():
    tokenizer = ElmoTokenizer.create(WORDS, max_characters_per_token=8)
    return fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer)))), tokenizer


def ranked(vectors, vector, words, word):
    """Words by cosine, written out."""
    cosines = {
        each: float(np.dot(row, vector) / np.linalg.norm(row) / np.linalg.norm(vector))
        for each, row in zip(words, vectors, strict=True)
        if each != word
    }
    return sorted(cosines.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("word", ["cat", "catalogue"])
def test_by_spelling_is_the_context_free_layer(loaded, word):
    model, tokenizer = loaded
    inputs = tokenizer([[each] for each in [word, *WORDS]], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        own, *vectors = model.elmo(**inputs, output_hidden_states=True).hidden_states[0][:, 1].double().numpy()
    expected = ranked(vectors, own, WORDS, word)
    found = NearestWords(model, tokenizer).by_spelling(word, None)
    assert [each.word for each in found] == [each for each, _ in expected]
    assert [each.cosine for each in found] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)


def test_by_use_is_the_rows_of_the_softmax(loaded):
    model, tokenizer = loaded
    rows = model.softmax.weight.detach().double().numpy()
    # Special words have the first four numbers.
    expected = ranked(rows[4:], rows[4 + WORDS.index("cat")], WORDS, "cat")
    found = NearestWords(model, tokenizer).by_use("cat", 3)
    assert [each.word for each in found] == [each for each, _ in expected[:3]]
    assert [each.cosine for each in found] == pytest.approx([cosine for _, cosine in expected[:3]], abs=1e-5)


def test_only_the_most_frequent_words_are_looked_at(loaded):
    nearest = NearestWords(*loaded, most_words=3)
    assert nearest.words == WORDS[:3]
    assert {each.word for each in nearest.by_spelling("dog", None)} == set(WORDS[:3])
    assert {each.word for each in nearest.by_use("dog", None)} == set(WORDS[:3])
    with pytest.raises(ValueError, match="most_words must be at least 1, was: 0"):
        NearestWords(*loaded, most_words=0)


def test_words_and_models_without_a_row_have_no_uses(loaded):
    model, tokenizer = loaded
    nearest = NearestWords(model, tokenizer)
    assert nearest.has_uses
    assert nearest.by_use("catalogue") is None
    assert nearest.by_use("<S>") is None
    bare = NearestWords(ElmoModel(model.config).eval(), tokenizer)
    assert not bare.has_uses
    assert bare.by_use("cat") is None
    assert len(bare.by_spelling("cat")) == len(WORDS) - 1


def test_the_demo_shows_both_lists(loaded):
    explorer = Explorer(*loaded, examples=[])
    found = explorer.explore(["the", "cat", "sat"], ["a", "catalogue"], (1, 1), count=2)
    by_use, none = found.by_use
    assert [each.word for each in by_use] == [each.word for each in NearestWords(*loaded).by_use("cat", 2)]
    assert none is None
    page = render(found)
    assert "by spelling · cat, sentence 1" in page
    assert "by use · cat, sentence 1" in page
    assert "The word is not one that the model predicts." in page
