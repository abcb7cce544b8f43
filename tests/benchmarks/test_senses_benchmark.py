"""The measure of senses and neighbours, on vectors whose answer is known, and that its sentences are what it says."""

import sys
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT))

import hf_elmo
from benchmarks.quality import senses


def test_sentences_are_balanced_and_have_the_word_once():
    labels, sentences = senses.read_sentences(senses.SENTENCES)
    assert Counter(labels) == {"past": 8, "present": 8, "infinitive": 8, "noun": 8}
    assert all(words.count("read") == 1 for words in sentences)
    assert len({tuple(words) for words in sentences}) == 32
    tokenizer = hf_elmo.ElmoTokenizer.create()
    assert all(tokenizer.tokenize(" ".join(words)) == words for words in sentences)


@pytest.mark.parametrize("sense", [None, "a"])
def test_share_of_triples_is_that_of_counting_them_one_by_one(sense):
    labels = ["a", "a", "a", "b", "b", "c", "c"]
    similarities = senses.cosines(np.random.default_rng(0).normal(size=(7, 3)))
    similarities[0, 3] = similarities[0, 1]
    won = total = 0
    for anchor, same, other in permutations(range(7), 3):
        if labels[anchor] == labels[same] != labels[other] and sense in (None, labels[anchor]):
            total += 1
            difference = similarities[anchor, same] - similarities[anchor, other]
            won += 0.5 if abs(difference) <= 1e-6 else difference > 0
    assert senses.share_of_triples(similarities, labels, sense) == (pytest.approx(won / total), total)


def test_perfect_and_useless_vectors():
    labels = ["a", "a", "b", "b"]
    assert senses.share_of_triples(senses.cosines(np.eye(2)[[0, 0, 1, 1]]), labels) == (1, 8)
    assert senses.share_of_triples(senses.cosines(np.ones((4, 3))), labels) == (0.5, 8)
    assert senses.share_of_triples(senses.cosines(np.eye(2)[[0, 1, 0, 1]]), labels)[0] == pytest.approx(0.25)


def test_the_context_free_layer_knows_no_senses_and_the_others_move():
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled()).eval()
    measured = senses.measure_senses(model, tokenizer)
    # 32 anchors x 7 of the same sense x 24 others.
    assert measured["triples"][0] == 32 * 7 * 24
    shares = measured["share"]
    assert list(shares)[:3] == ["context-free layer", "biLSTM layer 1", "biLSTM layer 2"]
    assert set(shares["context-free layer"].values()) == {0.5}
    assert shares["biLSTM layer 1"]["all senses"] > 0.55
    rows = {row[2]["name"]: row[3] for row in senses.card_rows(measured)}
    assert rows == {
        f"Triples told apart in percent, {name}": pytest.approx(100 * shares[name]["all senses"], abs=0.05)
        for name in ("biLSTM layer 1", "biLSTM layer 2", "mix")
    }


def test_neighbours_are_ranked_by_cosine(tmp_path):
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled()).eval()
    (tmp_path / "a.txt").write_text("beautiful a b beautiful a beautiful , 3 beauty king", encoding="utf-8")
    words = senses.frequent_words(tokenizer, [tmp_path / "a.txt"], 4)
    assert words == ["beautiful", "a", "b", "beauty"]
    found = senses.measure_neighbours(model, tokenizer, ["beauty"], words, 2)["beauty"]
    vectors = dict(zip(words, senses.context_free_vectors(model, tokenizer, words), strict=True))
    cosines = {
        word: vector @ vectors["beauty"] / np.linalg.norm(vector) / np.linalg.norm(vectors["beauty"])
        for word, vector in vectors.items()
        if word != "beauty"
    }
    best = sorted(cosines, key=cosines.get, reverse=True)
    assert [each["word"] for each in found["nearest"]] == best[:2]
    assert found["nearest"][0]["cosine"] == pytest.approx(cosines[best[0]], rel=1e-5)
    assert [(each["word"], each["rank"]) for each in found["same first letters"]] == [
        ("beautiful", best.index("beautiful") + 1)
    ]
