"""The comparison of words against vectors taken from plain calls of the model."""

import numpy as np
import pytest
import torch

from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.explore.word_comparison import compare_words


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return ElmoModel.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return ElmoTokenizer.from_pretrained(tiny_model_folder)


def plain_layers(model, tokenizer, words):
    """The layers and, last, the mix: ``(layers + 1, words, dim)``, without boundaries."""
    with torch.no_grad():
        output = model(**tokenizer([words], is_split_into_words=True, return_tensors="pt"), output_hidden_states=True)
    return np.stack([layer[0, 1:-1].double().numpy() for layer in (*output.hidden_states, output.last_hidden_state)])


def test_cosines_of_every_pair_of_occurrences(model, tokenizer):
    first = ["I", "read", "what", "you", "read", "."]
    second = ["You", "read", "it", ",", "and", "read", "it", "aloud", "."]
    comparisons = compare_words(model, tokenizer, first, second, "read")
    assert [each.places for each in comparisons] == [(1, 1), (1, 5), (4, 1), (4, 5)]
    a, b = plain_layers(model, tokenizer, first), plain_layers(model, tokenizer, second)
    for each in comparisons:
        assert each.word == "read"
        for cosine, x, y in zip((*each.layers, each.mix), a[:, each.places[0]], b[:, each.places[1]], strict=True):
            assert cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-5)
        assert each.layers[0] == pytest.approx(1, abs=1e-6)
        assert each.layers[1] < 0.999
        assert each.layers[2] < 0.999


def test_the_same_sentence_twice(model, tokenizer):
    comparisons = compare_words(model, tokenizer, "a b", "a b")
    assert [each.word for each in comparisons] == ["a", "b"]
    for each in comparisons:
        assert (*each.layers, each.mix) == pytest.approx((1, 1, 1, 1), abs=1e-6)


def test_without_a_word_all_shared_words_are_compared(model, tokenizer):
    comparisons = compare_words(model, tokenizer, "the cat saw the dog", "a dog saw a cat")
    assert [(each.word, each.places) for each in comparisons] == [("cat", (1, 4)), ("saw", (2, 2)), ("dog", (4, 1))]


def test_a_missing_word_is_told_with_the_words_that_are_there(model, tokenizer):
    with pytest.raises(ValueError, match=r"'read' is not in the second sentence, whose words are: 'He', 'wrote', '\.'"):
        compare_words(model, tokenizer, "I read .", "He wrote .", "read")
    with pytest.raises(ValueError, match="'Read' is not in the first sentence"):
        compare_words(model, tokenizer, "I read .", "Read it .", "Read")
    with pytest.raises(ValueError, match=r"have no word in common: 'a', and \(none\)"):
        compare_words(model, tokenizer, "a", "")
    with pytest.raises(ValueError, match="and 1,950 more"):
        compare_words(model, tokenizer, "a", ["b"] * 2000, "a")
