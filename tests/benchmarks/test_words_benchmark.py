"""Ranks of related words."""

import json
import sys
from collections import Counter

import numpy as np
import pytest
from places import CHECKOUT
from small_models import fill, small_config

import hf_elmo

sys.path.insert(0, str(CHECKOUT))

from benchmarks.quality import words

VOCABULARY = ["walk", "walked", "walking", "talk", "colour", "color", "the"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = hf_elmo.ElmoTokenizer.create(VOCABULARY, max_characters_per_token=10)
    config = small_config(vocab_size=len(tokenizer), max_characters_per_token=10)
    fill(hf_elmo.ElmoForPreTraining(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_pairs_are_of_the_bundled_vocabulary():
    pairs = words.read_pairs()
    counts = Counter(kind for kind, _, _ in pairs)
    assert list(counts) == ["derivation", "inflection", "spelling variant", "misspelling"]
    assert sum(counts.values()) == len(set(pairs)) == 147
    assert min(counts.values()) >= 12
    known = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled()).get_vocab()
    for kind, word, right in pairs:
        assert right in known
        assert (word in known) == (kind != "misspelling")


def test_rank_counts_better_words_and_shares_ties():
    cosines = {"a": 0.9, "b": 0.5, "c": 0.5, "d": 0.5, "e": 0.1}
    assert [words.rank(cosines, each) for each in cosines] == [1, 3, 3, 3, 5]


def test_ngram_cosines_by_hand():
    """ " ab " has " ab", "ab " and " ab "; " abc " has " ab", "abc", "bc ", " abc", "abc ", " abc "."""
    cosines = words.ngram_cosines(["ab", "abc", "xyz"], ["ab", "AB"])
    assert cosines[0] == pytest.approx([1, 1 / np.sqrt(3 * 6), 0])
    assert cosines[1] == pytest.approx([0, 0, 0])


def test_ranks_of_small_models(folder, tmp_path, monkeypatch):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("# A remark\ninflection\twalk\twalked\nmisspelling\tcolouer\tcolour\n", encoding="utf-8")
    monkeypatch.setattr(words.read_pairs, "__defaults__", (pairs,))
    table = words.main(["--model", str(folder), "--output", str(tmp_path / "words.json")])
    assert json.loads((tmp_path / "words.json").read_text(encoding="utf-8")) == table
    first, second = table["rows"]["pairs"]
    # "walked" and "walking" share n-grams with "walk"; "colouer" shares most with "colour".
    assert first[words.NGRAMS] in (1, 2)
    assert second[words.NGRAMS] == 1
    assert second["by use"] is None
    assert table["rows"]["kinds"]["misspelling"]["by use"] is None
    assert table["rows"]["kinds"]["all"]["by spelling"]["pairs"] == 2
    for row in (first, second):
        assert 1 <= row["by spelling"] <= len(VOCABULARY)
    tokenizer, model = words.load_language_model(str(folder))
    near = [each for each, _ in words.NearestWords(model, tokenizer).by_use("walk", None)]
    assert first["by use"] == near.index("walked") + 1


def test_pairs_outside_of_the_vocabulary_are_refused(folder):
    tokenizer, model = words.load_language_model(str(folder))
    with pytest.raises(ValueError, match="'cities' is not among the model's 7 most frequent words"):
        words.measure(model, tokenizer, [("inflection", "walk", "cities")])


def test_malformed_pairs_are_refused(tmp_path):
    (tmp_path / "pairs.tsv").write_text("inflection\twalk\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"pairs\.tsv, line 1: kind, word and related word"):
        words.read_pairs(tmp_path / "pairs.tsv")
