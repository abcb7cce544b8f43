"""Characters decoded from the bytes that ELMo reads, networks over them, and words looked up in lower case."""

import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from small_models import fill, small_config

from hf_elmo import ElmoConfig, ElmoForTokenClassification, ElmoTokenizer
from hf_elmo.model.heads.task_encoder import TaskEncoder
from hf_elmo.model.heads.unicode_characters import UnicodeCharacterCnn, UnicodeCharacterLstm, code_points
from hf_elmo.model.lstm.highway_lstm import HighwayLstm, HighwayLstmLayer
from hf_elmo.model.tokenization_elmo import character_rows

WORDS = ["", "a", "naïve", "日本語", "🙂x", "é" * 30, "<S>", "the"]


def rows_of(words, length=50):
    return torch.from_numpy(character_rows(words, length, boundaries={})[0])


@examples(200)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=15), min_size=1, max_size=8))
def test_characters_are_those_of_the_bytes(words):
    points, lengths = code_points(rows_of(words, 70))
    for row, length, word in zip(points.tolist(), lengths.tolist(), words, strict=True):
        # 15 characters have 60 bytes at most: no word is cut.
        assert row[:length] == [ord(character) for character in word]


@pytest.mark.parametrize("length", range(3, 9))
def test_a_character_that_was_cut_is_none(length):
    points, lengths = code_points(rows_of(["x日🙂"], length))
    whole = [120, 0x65E5, 0x1F642]
    # Of the eight bytes so many are left; the last of a character makes it whole.
    left = length - 2
    expected = whole[: sum(left >= end for end in (1, 4, 8))] + ([-1] if left not in (1, 4, 8) else [])
    assert points[0, : int(lengths)].tolist() == expected


@pytest.mark.parametrize(
    "make", [lambda a: UnicodeCharacterCnn(a, 3, [[2, 4], [3, 5]], "relu"), lambda a: UnicodeCharacterLstm(a, 3, 4)]
)
def test_a_word_alone_and_among_others(make):
    """A word's vector does not depend on its batch; characters outside of the alphabet are one."""
    network = fill(make("aeht日"))
    rows = rows_of(WORDS)
    together = network(rows.view(2, 4, -1)).view(8, -1)
    for number, word in enumerate(WORDS):
        torch.testing.assert_close(network(rows_of([word]))[0], together[number], atol=1e-6, rtol=0)
    assert not together[0].any()
    torch.testing.assert_close(network(rows_of(["xyt"])), network(rows_of(["öqt"])))
    assert not torch.allclose(network(rows_of(["xyt"])), network(rows_of(["hyt"])))


def test_a_sentence_mark_is_spelled():
    network = fill(UnicodeCharacterCnn("<S>/", 3, [[2, 4]], "relu"))
    marks = torch.from_numpy(character_rows(["<S>", "</S>"])[0])
    torch.testing.assert_close(network(marks), network(rows_of(["<S>", "</S>"])))


def test_short_words_have_zeros_for_wide_windows():
    network = fill(UnicodeCharacterCnn("ab", 3, [[1, 2], [3, 5]], "tanh"))
    [vector] = network(rows_of(["ab"]))
    assert vector[:2].all()
    assert not vector[2:].any()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_highways_read_each_sentence_alone(bidirectional):
    encoder = TaskEncoder(5, 3, 2, dropout=0.0, bidirectional=bidirectional, highways=True)
    assert isinstance(encoder.lstm, HighwayLstm)
    fill(encoder)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(3, 6, 5, generator=generator)
    lengths = [4, 6, 1]
    mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    together = encoder(vectors, mask)
    assert together.shape == (3, 6, 6 if bidirectional else 3)
    for row, length in enumerate(lengths):
        alone = encoder(vectors[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=0)
        assert not together[row, length:].any()
    together.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_a_new_tagger_of_these_parts_learns(tmp_path):
    """Every parameter of a fresh one has numbers, and a gradient; it is saved and read again."""
    torch.manual_seed(0)
    config = small_config(
        max_characters_per_token=50,
        num_labels=3,
        task_encoder_highways=True,
        task_feedforward_sizes=[4],
        char_lstm_size=3,
        char_cnn_characters="abc",
        freeze_bilm=False,
        task_dropout=0.0,
        representation_dropout=0.0,
    )
    model = ElmoForTokenClassification(config)
    layer = next(module for module in model.modules() if isinstance(module, HighwayLstmLayer))
    assert 0 < layer.weight_ih.abs().max() < 2
    inputs = ElmoTokenizer.create()([["ab", "cd"]], is_split_into_words=True, return_tensors="pt")
    model(**inputs, labels=torch.tensor([[-100, 1, 2, -100]])).loss.backward()
    own = {name: parameter for name, parameter in model.named_parameters() if not name.startswith("elmo.")}
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in own.values())
    model.eval().save_pretrained(tmp_path)
    again = ElmoForTokenClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"char_cnn_characters": "aa"}, "a str of different characters, was: 'aa'"),
        ({"char_cnn_characters": ["a"]}, "a str of different characters"),
        ({"char_lstm_size": 4}, "needs char_cnn_characters"),
        (
            {"char_lstm_size": 4, "char_cnn_characters": "a", "char_cnn_filters": [[3, 4]]},
            "the place of char_cnn_filters",
        ),
        ({"task_feedforward_sizes": [4, 0]}, "a size of task_feedforward_sizes must be a whole number of at least 1"),
        ({"task_feedforward_activation": "maxout"}, "must be one of relu, .*, was: 'maxout'"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        ElmoConfig(**fields)


def test_words_looked_up_in_lower_case(tmp_path):
    words = ["paris", "i̇stanbul", "the"]
    tokenizer = ElmoTokenizer.create(words, lowercase_word_ids=True)
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, ElmoTokenizer.from_pretrained(tmp_path)):
        given = ["Paris", "THE", "İstanbul", "the", "Rome", "[PAD]", "<S>", "\ud800", ""]
        encoded = each([given, ["the"]], is_split_into_words=True, padding=True)
        assert encoded["input_ids"][0] == [2, 4, 6, 5, 6, 1, 1, 2, 1, 1, 3]
        assert encoded["input_ids"][1] == [2, 6, 3] + [0] * 8
        as_written = ElmoTokenizer.create(words)([given, ["the"]], is_split_into_words=True, padding=True)
        assert encoded["character_ids"] == as_written["character_ids"]
        assert each("Paris the PARIS")["input_ids"] == [2, 4, 6, 4, 3]
        assert each("Paris", "THE")["input_ids"] == [2, 4, 3, 2, 6, 3]
    assert not ElmoTokenizer.create(words).lowercase_word_ids
