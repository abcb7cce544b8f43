"""The fill-mask pipeline against `substitutes`, with transformers' own forms of input and output."""

import pytest
from small_models import fill, small_config
from transformers import pipeline

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, substitutes

TEXTS = ["the [MASK] sat on a mat .", "a [MASK]", "[MASK] sat on a [MASK]"]


@pytest.fixture(scope="module")
def fill_mask():
    tokenizer = ElmoTokenizer.create(["the", "cat", "sat", "on", "mat", "a", "dog", "."], max_characters_per_token=8)
    model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
    return pipeline("elmo-fill-mask", model=model, tokenizer=tokenizer)


def simplified(found):
    """Words and rounded scores, in lists as deep as those that were found."""
    if isinstance(found, list):
        return [simplified(each) for each in found]
    return found["token_str"], found["sequence"], pytest.approx(found["score"], rel=1e-4)


def test_texts_one_by_one_and_in_batches(fill_mask):
    expected = substitutes(fill_mask.model, fill_mask.tokenizer, TEXTS, 5)
    assert list(expected[0][0])[:1] == ["score"]
    assert {"score", "token", "token_str", "sequence"} < expected[0][0].keys()
    assert simplified(fill_mask(TEXTS[0])) == simplified(expected[0])
    assert simplified(fill_mask(TEXTS[2])) == simplified(expected[2])
    assert simplified(fill_mask(TEXTS)) == simplified(expected)
    assert simplified(fill_mask(TEXTS, batch_size=2)) == simplified(expected)
    assert simplified(fill_mask(TEXTS[:1])) == simplified(expected[0])
    assert simplified(list(fill_mask(text for text in TEXTS))) == simplified(expected)


def test_options(fill_mask):
    model, tokenizer = fill_mask.model, fill_mask.tokenizer
    for options in ({"top_k": 2}, {"targets": ["cat", "dog"]}, {"prior": None, "special_words": True}):
        expected = substitutes(model, tokenizer, TEXTS[0], **{"top_k": 5, **options})
        assert simplified(fill_mask(TEXTS[0], **options)) == simplified(expected)
    everywhere = substitutes(model, tokenizer, "a cat sat", 5, word_index="all")
    assert simplified(fill_mask("a cat sat", word_index="all")) == simplified(everywhere)
    at_start = pipeline("elmo-fill-mask", model=model, tokenizer=tokenizer, top_k=1)
    assert len(at_start(TEXTS[0])) == 1


def test_bad_input_is_told(fill_mask):
    with pytest.raises(ValueError, match=r"has no \[MASK\]"):
        fill_mask("the cat")
    with pytest.raises(ValueError, match="The option 'topk' is unknown"):
        fill_mask(TEXTS[0], topk=3)
    with pytest.raises(ValueError, match="ElmoModel does not predict words"):
        pipeline("elmo-fill-mask", model=fill(ElmoModel(small_config())), tokenizer=fill_mask.tokenizer)


def test_targets_outside_of_the_vocabulary_are_warned_of(fill_mask, caplog):
    """As transformers' fill-mask does for targets that it cannot replace; `substitutes` refuses them."""
    expected = simplified(substitutes(fill_mask.model, fill_mask.tokenizer, TEXTS[0], 5, targets=["cat", "dog"]))
    assert simplified(fill_mask(TEXTS[0], targets=["gnu", "cat", "dog", "[UNK]"])) == expected
    for word in ("gnu", "[UNK]"):
        assert f"The target `{word}` is not a word of the model's vocabulary: it is left out." in caplog.text
    for targets in (["gnu"], "gnu", []):
        with pytest.raises(ValueError, match="targets has no word of the model's vocabulary"):
            fill_mask(TEXTS[0], targets=targets)
    caplog.clear()
    assert len(fill_mask(TEXTS[0], targets="cat")) == 1
    assert not caplog.text
    with pytest.raises(ValueError, match="targets must be words of the vocabulary, which these are not: gnu"):
        substitutes(fill_mask.model, fill_mask.tokenizer, TEXTS[0], targets=["gnu"])


def test_a_folder_is_enough():
    found = pipeline("elmo-fill-mask", model=hf_elmo.bundled())("He died on 12 [MASK] 1950 .", top_k=12)
    assert "March" in [each["token_str"] for each in found]
