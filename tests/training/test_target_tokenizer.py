"""The tokenizer of targets."""

import pytest

from hf_elmo import ElmoTokenizer, train_target_tokenizer

TEXTS = ["Ein Hund rennt .", "Zwei Hunde rennen im Park .", "Ein Mädchen läuft im Park ."]


def test_special_tokens_are_those_of_elmo():
    target, source = train_target_tokenizer(TEXTS, vocab_size=300), ElmoTokenizer.create()
    for name in ("pad_token", "unk_token", "bos_token", "eos_token"):
        assert getattr(target, name) == getattr(source, name)
        assert getattr(target, f"{name}_id") == getattr(source, f"{name}_id")
    assert [target.convert_ids_to_tokens(number) for number in range(4)] == ["[PAD]", "[UNK]", "<S>", "</S>"]
    assert len(target) <= 300


@pytest.mark.parametrize("text", ["Ein Hund rennt .", "  two  spaces\n", "日本語 🙂 é\u0301", "", "a \"b\" 'c'"])
def test_any_text_comes_back_as_it_was(text):
    target = train_target_tokenizer(TEXTS, vocab_size=280)
    ids = target(text)["input_ids"]
    assert ids[-1] == 3
    assert ids.count(1) == 0
    assert target.decode(ids, skip_special_tokens=True) == text


def test_words_that_are_frequent_are_few_tokens(tmp_path):
    target = train_target_tokenizer(iter(TEXTS * 3), vocab_size=330, model_max_length=5)
    assert len(target("Hund rennt", add_special_tokens=False)["input_ids"]) < len("Hund rennt") / 2
    assert len(target("Zwei Hunde rennen im Wald .", truncation=True)["input_ids"]) == 5
    target.save_pretrained(tmp_path)
    again = type(target).from_pretrained(tmp_path)
    assert again("Ein Wald")["input_ids"] == target("Ein Wald")["input_ids"]


def test_bad_texts():
    with pytest.raises(TypeError, match="texts must be several texts, was one str"):
        train_target_tokenizer("Ein Hund")
    with pytest.raises(ValueError, match="vocab_size is 200, but the special tokens and all bytes are 260"):
        train_target_tokenizer(TEXTS, vocab_size=200)
    with pytest.raises(ValueError, match="no texts to train a tokenizer on"):
        train_target_tokenizer(iter(()))
