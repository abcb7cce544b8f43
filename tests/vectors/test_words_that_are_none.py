"""Something else among given words: every entry says where it is and what."""

import pytest
from datasets import Dataset
from small_models import fill, small_config

from hf_elmo import ElmoForPreTraining, ElmoTokenizer, embed_sentences, generate, perplexity, substitutes
from hf_elmo.compat.allennlp import batch_to_ids
from hf_elmo.explore.word_comparison import compare_words
from hf_elmo.language_model.scoring import score_sentences
from hf_elmo.training.corpus import Corpus, word_counts, words_of

VALUES = {"None": None, "number": 3, "nan": float("nan"), "bytes": b"x", "list": ["cat"]}


@pytest.fixture(scope="module")
def loaded():
    tokenizer = ElmoTokenizer.create(["the", "cat"], max_characters_per_token=8)
    return fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer)))).eval(), tokenizer


ENTRIES = {
    "tokenizer": lambda loaded, words: loaded[1]([words], is_split_into_words=True),
    "embed_sentences": lambda loaded, words: list(embed_sentences(*loaded, [words])),
    "score_sentences": lambda loaded, words: list(score_sentences(*loaded, [words])),
    "perplexity": lambda loaded, words: perplexity(*loaded, [words]),
    "substitutes": lambda loaded, words: substitutes(*loaded, words, word_index=0, is_split_into_words=True),
    "substitutes of texts": lambda loaded, words: substitutes(*loaded, [words], word_index=0, is_split_into_words=True),
    "targets": lambda loaded, words: substitutes(*loaded, "the [MASK]", targets=words),
    "generate": lambda loaded, words: list(generate(*loaded, words)),
    "compare_words": lambda loaded, words: compare_words(*loaded, words, ["the"]),
    "batch_to_ids": lambda loaded, words: batch_to_ids([words, ["a", "b", "c", "d"]]),
    "vocabulary": lambda loaded, words: ElmoTokenizer.create(words),
    "corpus": lambda loaded, words: Corpus.save([words], "corpus", {}),
    "word_counts": lambda loaded, words: word_counts([words]),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_the_place_and_the_kind_are_said(loaded, tmp_path, monkeypatch, entry, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError), match=f"(place|behind) 1 .*{type(value).__name__}"):
        entry(loaded, ["the", value, "cat"])
    assert list(tmp_path.iterdir()) == []


def test_missing_words_of_a_dataset():
    with pytest.raises(ValueError, match=r"Sentence 1 .*place 1 .*NoneType"):
        word_counts(words_of(Dataset.from_dict({"tokens": [["a"], ["a", None]]})))


def test_words_as_they_are(loaded):
    """Any str is a word, subclasses included, in lists and tuples."""
    word = type("Word", (str,), {})("cat")
    (single,) = embed_sentences(*loaded, [("the", word)])
    assert single.words == ["the", "cat"]
    assert batch_to_ids([["the", word], ()]).shape == (2, 2, 50)
