"""Substitutes against a plain computation: one call of the model per direction, the whole softmax, its product."""

import numpy as np
import pytest
import torch
from small_models import fill, small_config

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, substitutes

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", ".", "She", "letter", "wrote"]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(WORDS, max_characters_per_token=8)


@pytest.fixture(scope="module")
def model(tokenizer):
    return fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def brute_force(model, tokenizer, before, behind):
    """``(vocab_size,)`` each: probabilities by the words before a place alone, and by those behind it alone."""
    with torch.no_grad():
        left = tokenizer([before], is_split_into_words=True, return_tensors="pt")["character_ids"][:, :-1]
        right = tokenizer([behind], is_split_into_words=True, return_tensors="pt")["character_ids"][:, 1:]
        forward = model(character_ids=left).logits[0, -1].double().numpy()
        backward = model(character_ids=right).backward_logits[0, 0].double().numpy()
    # [PAD] is no word.
    return [np.concatenate([[0], softmax(logits[1:])]) for logits in (forward, backward)]


def check(found, model, tokenizer, before, behind, prior, top_k=3, offered=slice(4, None)):
    forward, backward = brute_force(model, tokenizer, before, behind)
    product = np.zeros_like(forward)
    product[offered] = (forward * backward / prior)[offered]
    product /= product.sum()
    best = np.argsort(-product)[:top_k]
    assert [each["token"] for each in found] == best.tolist()
    assert [each["token_str"] for each in found] == tokenizer.convert_ids_to_tokens(best.tolist())
    for field, expected in (("score", product), ("forward_score", forward), ("backward_score", backward)):
        np.testing.assert_allclose([each[field] for each in found], expected[best], rtol=1e-4)


def check_same(found, expected):
    """The same dictionaries, in lists of any depth; scores but for the rounding that depends on the batch."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if isinstance(a, list):
            check_same(a, b)
        else:
            assert a == {key: pytest.approx(value, rel=1e-4) if "score" in key else value for key, value in b.items()}


RANK = 1 / np.array([1, 1, 1, 1, *range(1, len(WORDS) + 1)])


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_scores_are_the_product_of_both_directions_over_the_prior(model, padding_side):
    tokenizer = ElmoTokenizer.create(WORDS, max_characters_per_token=8, padding_side=padding_side)
    texts = ["She [MASK] the letter.", "[MASK] sat", "the zebra sat on a [MASK]", "[MASK]"]
    results = substitutes(model, tokenizer, texts, top_k=3)
    contexts = [(["She"], ["the", "letter", "."]), ([], ["sat"]), (["the", "zebra", "sat", "on", "a"], []), ([], [])]
    for text, found, (before, behind) in zip(texts, results, contexts, strict=True):
        check(found, model, tokenizer, before, behind, RANK)
        assert [each["sequence"] for each in found] == [text.replace("[MASK]", each["token_str"]) for each in found]
        check_same(substitutes(model, tokenizer, text, top_k=3), found)


def test_priors(model, tokenizer):
    before, behind = ["She"], ["the", "letter"]
    text = "She [MASK] the letter"
    check(substitutes(model, tokenizer, text, 5, prior=None), model, tokenizer, before, behind, 1, top_k=5)
    counts = {"the": 100, "wrote": 3, "zebra": 40, "lion": 2}
    numbers = np.array([0, 42, 0, 0, 100, *[0] * 9, 3])
    prior = (numbers + 1) / (numbers.sum() + len(tokenizer))
    check(substitutes(model, tokenizer, text, 5, prior=counts), model, tokenizer, before, behind, prior, top_k=5)


def test_special_words_are_offered_on_demand_and_padding_never(model, tokenizer):
    found = substitutes(model, tokenizer, "the [MASK] sat", 100, special_words=True, prior=None)
    check(found, model, tokenizer, ["the"], ["sat"], 1, top_k=len(tokenizer) - 1, offered=slice(1, None))
    assert {"[UNK]", "<S>", "</S>"} < {each["token_str"] for each in found}
    found = substitutes(model, tokenizer, "the [MASK] sat", 100)
    assert sorted(each["token_str"] for each in found) == sorted(WORDS)
    assert sum(each["score"] for each in found) == pytest.approx(1, rel=1e-5)


def test_targets_choose_among_scores_and_change_none(model, tokenizer):
    everything = {each["token_str"]: each for each in substitutes(model, tokenizer, "the [MASK] sat", 100)}
    found = substitutes(model, tokenizer, "the [MASK] sat", targets=["dog", "cat", "dog"])
    assert found == sorted((everything["dog"], everything["cat"]), key=lambda each: -each["score"])
    assert substitutes(model, tokenizer, "the [MASK] sat", targets="a") == [everything["a"]]


def test_the_word_itself_is_read_by_neither_direction(model, tokenizer):
    results = [
        substitutes(model, tokenizer, f"the {word} sat on the mat", word_index=1) for word in ("cat", "zebra", "[MASK]")
    ]
    # Sums of other batches may be rounded otherwise.
    scores = "score", "forward_score", "backward_score"
    for found in results[1:]:
        assert [each["token_str"] for each in found] == [each["token_str"] for each in results[0]]
        for one, other in zip(found, results[0], strict=True):
            assert [one[name] for name in scores] == pytest.approx([other[name] for name in scores], rel=1e-5)
    assert results[0][0]["sequence"] == f"the {results[0][0]['token_str']} sat on the mat"


def test_every_word_of_a_sentence_and_chosen_ones(model, tokenizer):
    words = ["the", "zebra", "sat", "on", "mat"]
    everywhere = substitutes(model, tokenizer, " ".join(words), 3, word_index="all")
    assert len(everywhere) == len(words)
    for place, found in enumerate(everywhere):
        check(found, model, tokenizer, words[:place], words[place + 1 :], RANK)
        filled = [*words[:place], found[0]["token_str"], *words[place + 1 :]]
        assert found[0]["sequence"] == " ".join(filled)
    text = " ".join(words)
    check_same(substitutes(model, tokenizer, text, 3, word_index=[3, 0]), [everywhere[3], everywhere[0]])
    check_same(substitutes(model, tokenizer, text, 3, word_index=2), everywhere[2])
    check_same(substitutes(model, tokenizer, words, 3, word_index="all", is_split_into_words=True), everywhere)
    check_same(substitutes(model, tokenizer, [words], 3, word_index=2, is_split_into_words=True), [everywhere[2]])


def test_of_several_masks_each_is_filled_on_its_own_beside_words_without_letters(model, tokenizer):
    first, second = substitutes(model, tokenizer, "She [MASK] a [MASK] .", 3)
    check(first, model, tokenizer, ["She"], ["a", "", "."], RANK)
    check(second, model, tokenizer, ["She", "", "a"], ["."], RANK)
    assert first[0]["sequence"] == f"She {first[0]['token_str']} a [MASK] ."
    assert second[0]["sequence"] == f"She [MASK] a {second[0]['token_str']} ."


def test_words_stay_as_they_are(model, tokenizer):
    words = ["the cat", "[MASK]", "don't"]
    found = substitutes(model, tokenizer, words, 3, is_split_into_words=True)
    check(found, model, tokenizer, ["the cat"], ["don't"], RANK)
    assert found[0]["sequence"] == f"the cat {found[0]['token_str']} don't"


def test_a_mask_stands_where_a_word_would(model, tokenizer):
    (found,) = substitutes(model, tokenizer, "([MASK]'s cat)", 1)
    assert found["sequence"] == f"({found['token_str']}'s cat)"
    check([found], model, tokenizer, ["("], ["'s", "cat", ")"], RANK, top_k=1)


def test_the_softmax_is_taken_in_parts(model, tokenizer, monkeypatch):
    text = "She wrote the letter on the mat with a cat ."
    expected = substitutes(model, tokenizer, text, 4, word_index="all")
    rows = []
    monkeypatch.setattr("hf_elmo.language_model.scoring.MOST_LOGITS", 8 * len(tokenizer))
    monkeypatch.setattr("hf_elmo.language_model.scoring.FEWEST_ROWS", 1)
    hook = model.softmax.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    try:
        found = substitutes(model, tokenizer, text, 4, word_index="all")
    finally:
        hook.remove()
    assert rows == [2] * 10 + [1] * 2
    check_same(found, expected)


def test_a_model_in_training_gives_the_same_and_stays_in_training(tokenizer):
    model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer), dropout=0.5)))
    expected = substitutes(model, tokenizer, "the [MASK] sat")
    model.train()
    assert substitutes(model, tokenizer, "the [MASK] sat") == expected
    assert model.training
    assert model.elmo.bilstm.training


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("She wrote the letter", {}, r"'She wrote the letter' has no \[MASK\]"),
        ("", {}, "'' has no words"),
        (" \n", {"word_index": "all"}, "has no words"),
        ("", {"word_index": 0}, "has no words"),
        ([], {"is_split_into_words": True}, "has no words"),
        ("a well-[MASK] cat", {}, r"must stand for a whole word, but it is part of 'well-\[MASK\]'"),
        ("the cat", {"word_index": 2}, "word_index 2 is not in the text, which has the words 0 to 1"),
        ("the cat", {"word_index": [0, -1]}, "word_index -1 is not in the text"),
        ("the cat", {"word_index": "each"}, "word_index must be"),
        ("the [MASK]", {"top_k": 0}, "top_k must be at least 1, was: 0"),
        ("the [MASK]", {"batch_words": 0}, "batch_words must be at least 1"),
        ("the [MASK]", {"targets": ["cat", "zebra", "[PAD]"]}, r"which these are not: zebra, \[PAD\]"),
        ("the [MASK]", {"targets": []}, "targets has no words"),
        ("the [MASK]", {"prior": {"zebra": 3}}, "no word of the vocabulary"),
        ("the [MASK]", {"prior": "zipf"}, "prior must be"),
        (3, {}, "text"),
        ([["the", "[MASK]"]], {}, "A text must be a string"),
        ("the [MASK]", {"is_split_into_words": True}, "is a list of words"),
    ],
)
def test_bad_input_is_told(model, tokenizer, text, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        substitutes(model, tokenizer, text, **options)


def test_models_and_tokenizers_that_do_not_fit_are_told(model, tokenizer):
    with pytest.raises(ValueError, match="ElmoModel does not predict words"):
        substitutes(fill(ElmoModel(small_config())), tokenizer, "the [MASK]")
    with pytest.raises(ValueError, match="vocabulary has 4 words"):
        substitutes(model, ElmoTokenizer.create(), "the [MASK]")
    empty = fill(ElmoForPreTraining(small_config(vocab_size=4)))
    with pytest.raises(ValueError, match="no words but the special ones"):
        substitutes(empty, ElmoTokenizer.create(max_characters_per_token=8), "the [MASK]")


def test_the_bundled_model_finds_words_that_fit():
    model = ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
    tokenizer = ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    places = [each["token_str"] for each in substitutes(model, tokenizer, "He was born in [MASK] , England .")]
    assert "London" in places
    months = {"January", "February", "March", "April", "May", "June", "July"}
    months |= {"August", "September", "October", "November", "December"}
    found = [each["token_str"] for each in substitutes(model, tokenizer, "He died on 12 [MASK] 1950 .", 5)]
    assert set(found) <= months
