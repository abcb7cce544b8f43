"""The tokenizer: what is a word, which characters it has, and that all of transformers' ways of calling it work."""

import copy
import json
import pickle
import random
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from amounts import examples
from datasets import Dataset
from datasets.fingerprint import Hasher
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import (
    AddedToken,
    AutoTokenizer,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    default_data_collator,
)

import hf_elmo.model.tokenization_elmo
from hf_elmo import ElmoConfig, ElmoTokenizer
from hf_elmo.model.tokenization_elmo import character_rows

WORDS = ["the", "read", "book", "don", "'t", "New York", "a", "\ufffd", "\ufffe", "é", "日", "don't"]


@pytest.fixture(scope="module")
def plain() -> ElmoTokenizer:
    return ElmoTokenizer.create()


@pytest.fixture(scope="module")
def tokenizer() -> ElmoTokenizer:
    return ElmoTokenizer.create(WORDS)


# ---------------------------------------------------------------------------------------------------------------------
# Characters


def characters_of(word: str | None, length: int = 50) -> list[int]:
    """A word's row, from the description of the original mapper: mark, at most length - 2 bytes, mark, filling."""
    if word is None:
        return [0] * length
    row = [259]
    if word == "<S>":
        row.append(257)
    elif word == "</S>":
        row.append(258)
    else:
        kept = 0
        for character in word:
            if 0xD800 <= ord(character) <= 0xDFFF:
                continue
            for byte in character.encode("utf-8"):
                if kept < length - 2:
                    row.append(byte + 1)
                    kept += 1
    row.append(260)
    while len(row) < length:
        row.append(261)
    return row


any_text = st.text(st.characters(exclude_categories=[]), max_size=30)
nasty_words = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "\t x",
        "\0",
        "a\0b",
        "<S>",
        "</S>",
        "a</S>b",
        "[PAD]",
        "[UNK]",
        "x[PAD]y",
        "[PAD] ",
        "[UNK][UNK]",
        "New York",
        "don't",
        "U.S.",
        "\ud800",
        "a\udfffb",
        "\ud83d\ude00",
        "😀",
        "\ufffd",
        "\ufffe",
        "\uffff",
        "\U0010ffff",
        "e\u0301\u0323",
        "\u200d",
        "x" * 48,
        "x" * 49,
        "é" * 24,
        "é" * 25,
        "a" + "é" * 24,
        "日" * 33,
        "x" * 10_000,
        "the",
    ]
)
words = st.one_of(nasty_words, any_text)
sentences = st.lists(words, max_size=8)


@examples(300)
@given(st.lists(words, max_size=12), st.integers(3, 60))
def test_character_rows_equal_the_original_mapper(words, length):
    rows, cut = character_rows(words, length)
    assert rows.dtype == np.int64
    assert rows.tolist() == [characters_of(word, length) for word in words]
    bytes_in = [sum(len(c.encode("utf-8", "ignore")) for c in word) for word in words]
    assert cut.tolist() == [
        n > length - 2 and word not in ("<S>", "</S>") for n, word in zip(bytes_in, words, strict=True)
    ]


def test_known_rows():
    rows, _ = character_rows(["é", "<S>", "</S>", "", None, "é" * 30])
    assert rows[0].tolist() == [259, 0xC3 + 1, 0xA9 + 1, 260] + [261] * 46
    assert rows[1].tolist() == [259, 257, 260] + [261] * 47
    assert rows[2].tolist() == [259, 258, 260] + [261] * 47
    assert rows[3].tolist() == [259, 260] + [261] * 48
    assert rows[4].tolist() == [0] * 50
    assert rows[5].tolist() == [259] + [0xC3 + 1, 0xA9 + 1] * 24 + [260]


def test_max_characters_per_token(tmp_path):
    tokenizer = ElmoTokenizer.create(max_characters_per_token=7)
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, ElmoTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert each.max_characters_per_token == 7
        encoded = each(
            ["abcde", "abcdef", "ab"], is_split_into_words=True, return_truncated_words=True, return_tensors="np"
        )
        assert encoded["character_ids"].shape == (1, 5, 7)
        assert encoded["character_ids"][0, 2].tolist() == [259, *(b + 1 for b in b"abcde"), 260]
        assert encoded["truncated_words"].tolist() == [[0, 0, 1, 0, 0]]


def test_truncated_words_are_told_or_logged(plain, monkeypatch):
    logged = []
    monkeypatch.setattr(hf_elmo.model.tokenization_elmo.logger, "warning_once", logged.append)
    batch = [["x" * 48, "y"], ["é" * 25]]
    encoded = plain(batch, is_split_into_words=True, padding=True, return_truncated_words=True)
    assert encoded["truncated_words"] == [[0, 0, 0, 0], [0, 1, 0, 0]]
    encoded = plain("short " + "long" * 13, return_truncated_words=True, padding="max_length", max_length=6)
    assert encoded["truncated_words"] == [0, 0, 1, 0, 0, 0]
    assert "truncated_words" not in plain([["short"]], is_split_into_words=True)
    assert logged == []
    assert "truncated_words" not in plain(batch, is_split_into_words=True)
    assert len(logged) == 1
    assert "48 bytes" in logged[0]


# ---------------------------------------------------------------------------------------------------------------------
# Words given as words


def id_of(word: str, vocabulary: dict[str, int]) -> int:
    return 1 if word == "[PAD]" else vocabulary.get(word, 1)


def assert_tokens_are_words(encoded, samples, vocabulary, origins=None, max_length=None):
    """Checks every token of an encoded batch (with offsets, no tensors) against the words it was made of.

    Args:
        samples: Tuples of one or two sentences.
        origins: The sample of each row; by default they are the rows.

    Returns:
        For each row, which words of which sentence it has.
    """
    found = []
    for row, origin in enumerate(origins or range(len(samples))):
        sample = samples[origin]
        sequences, places = encoded.sequence_ids(row), encoded.word_ids(row)
        count = len(encoded["input_ids"][row])
        assert len(sequences) == len(places) == len(encoded["character_ids"][row]) == count
        assert len(encoded["token_type_ids"][row]) == len(encoded["attention_mask"][row]) == count
        expected = []
        template = iter(["<S>", "</S>"] * len(sample))
        for sequence, place, kept in zip(sequences, places, encoded["attention_mask"][row], strict=True):
            expected.append(None if not kept else next(template) if sequence is None else sample[sequence][place])
        assert encoded["input_ids"][row] == [0 if word is None else id_of(word, vocabulary) for word in expected]
        assert encoded["character_ids"][row] == [characters_of(word) for word in expected]
        for word, sequence, (begin, end) in zip(expected, sequences, encoded["offset_mapping"][row], strict=True):
            if sequence is None:
                assert (begin, end) == (0, 0)
            else:
                # Rust has no token of no letters: the empty word's offsets are (0, 1).
                assert (begin, end) == (0, max(len(word), 1))
        if max_length is not None:
            assert count <= max_length
        found.append([(s, p) for s, p in zip(sequences, places, strict=True) if s is not None])
    return found


@examples(200, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.lists(sentences, min_size=1, max_size=4), st.booleans(), st.sampled_from(["left", "right"]))
def test_one_given_word_is_one_token(data, batch, with_vocabulary, side):
    known = [w for sentence in batch for w in sentence if not re.search("[\ud800-\udfff\U0010ffff]", w) and w]
    listed = data.draw(st.lists(st.sampled_from(known), unique=True)) if with_vocabulary and known else []
    tokenizer = ElmoTokenizer.create(listed)
    vocabulary = tokenizer.get_vocab()
    options = {"is_split_into_words": True, "return_offsets_mapping": True}

    encoded = tokenizer(batch, padding=True, padding_side=side, **options)
    everything = [[(0, place) for place in range(len(sentence))] for sentence in batch]
    assert assert_tokens_are_words(encoded, [(sentence,) for sentence in batch], vocabulary) == everything
    assert encoded["input_ids"][0].count(2) >= 1

    alone = tokenizer(batch[0], **options)
    unpadded = [i for i, kept in enumerate(encoded["attention_mask"][0]) if kept]
    assert dict(alone) == {name: [values[0][i] for i in unpadded] for name, values in encoded.items()}
    assert tokenizer.tokenize(batch[0], is_split_into_words=True) == batch[0]

    pairs = [(sentence, batch[-1]) for sentence in batch]
    for encoded in (
        tokenizer(batch, [batch[-1]] * len(batch), padding=True, padding_side=side, **options),
        tokenizer([list(pair) for pair in pairs], padding=True, padding_side=side, **options),
    ):
        everything = [[(k, place) for k in (0, 1) for place in range(len(pair[k]))] for pair in pairs]
        assert assert_tokens_are_words(encoded, pairs, vocabulary) == everything


@examples(200, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(sentences, sentences), min_size=1, max_size=3),
    st.booleans(),
    st.integers(6, 12),
    st.sampled_from([0, 1, 3]),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["only_first", "only_second", "longest_first"]),
)
def test_given_words_cut_to_a_length(pairs, paired, length, stride, side, strategy):
    tokenizer = ElmoTokenizer.create(["the", "New York"], truncation_side=side)
    if not paired:
        pairs, strategy = [(first,) for first, _ in pairs], "longest_first"
    elif strategy != "longest_first":
        # Where one side alone is cut, the other has to fit.
        kept = 1 if strategy == "only_first" else 0
        pairs = [
            tuple(s[: max(length - 4 - stride - 1, 0)] if k == kept else s for k, s in enumerate(p)) for p in pairs
        ]
        stride = min(stride, 1)
        length += stride + 1
    else:
        stride = 0
    encoded = tokenizer(
        *([list(column) for column in zip(*pairs, strict=True)]),
        is_split_into_words=True,
        truncation=strategy,
        max_length=length,
        stride=stride,
        return_overflowing_tokens=strategy != "longest_first" or not paired,
        return_offsets_mapping=True,
        padding="max_length",
    )
    origins = encoded.get("overflow_to_sample_mapping")
    found = assert_tokens_are_words(encoded, pairs, tokenizer.get_vocab(), origins, length)
    for number, pair in enumerate(pairs):
        rows = (
            found if origins is None else [row for row, origin in zip(found, origins, strict=True) if origin == number]
        )
        if origins is None:
            rows = [found[number]]
            if sum(map(len, pair)) + 2 * len(pair) <= length:
                assert rows[0] == [(k, place) for k, sentence in enumerate(pair) for place in range(len(sentence))]
            continue
        # Together the rows have every word.
        for k, sentence in enumerate(pair):
            assert {place for row in rows for s, place in row if s == k} == set(range(len(sentence)))
        if not paired and len(rows) > 1:
            room = length - 2
            whole = [place for _, place in rows[0]]
            count = len(pair[0])
            assert whole == list(range(room) if side == "right" else range(count - room, count))
            for one, other in pairwise(rows):
                assert len(set(one) & set(other)) >= stride


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_keeps_the_right_words(side):
    tokenizer = ElmoTokenizer.create(truncation_side=side)
    words = [f"w{number}" for number in range(9)]
    encoded = tokenizer(
        words, is_split_into_words=True, max_length=6, truncation=True, stride=1, return_overflowing_tokens=True
    )
    windows = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8]] if side == "right" else [[5, 6, 7, 8], [2, 3, 4, 5], [0, 1, 2]]
    assert [[place for place in encoded.word_ids(row) if place is not None] for row in range(3)] == windows
    for row, window in zip(encoded["character_ids"], windows, strict=True):
        assert row == [characters_of(word) for word in ["<S>", *(words[place] for place in window), "</S>"]]
    encoded = tokenizer("a b c d e f", truncation=True, max_length=4, return_offsets_mapping=True)
    kept = ["a", "b"] if side == "right" else ["e", "f"]
    assert encoded["character_ids"] == [characters_of(word) for word in ["<S>", *kept, "</S>"]]


def test_vocabulary_cannot_split_given_words():
    # Pieces of words have a prefix of zero bytes; a vocabulary that has such words must not make pieces of them.
    tokenizer = ElmoTokenizer.create(["do", "\0\0n't", "\0\0\0n't", "\0\0"])
    encoded = tokenizer(["don't", "do\0n't", "\0\0n't", "\0\0"], is_split_into_words=True)
    assert encoded["input_ids"] == [2, 1, 1, 5, 7, 3]
    assert tokenizer("don't", add_special_tokens=False)["input_ids"] == [1, 1]


def test_ids_are_those_of_the_vocabulary(tokenizer):
    assert [tokenizer.convert_ids_to_tokens(number) for number in range(4)] == ["[PAD]", "[UNK]", "<S>", "</S>"]
    assert tokenizer.get_vocab() == {
        word: number for number, word in enumerate(["[PAD]", "[UNK]", "<S>", "</S>", *WORDS])
    }
    assert len(tokenizer) == tokenizer.vocab_size == 4 + len(WORDS)
    assert tokenizer.convert_tokens_to_ids(["book", "</S>", "nothing"]) == [6, 3, 1]
    encoded = tokenizer([*WORDS, "nothing", "[PAD]", "<S>"], is_split_into_words=True)
    assert encoded["input_ids"] == [2, *range(4, 4 + len(WORDS)), 1, 1, 2, 3]
    assert tokenizer.decode(encoded["input_ids"][1:4]) == "the read book"
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True).startswith("the read book don 't New York")


def test_stand_ins_are_not_in_the_vocabulary(tokenizer):
    # Words that Rust cannot hold must not get the ids of what stands in for them.
    encoded = tokenizer(["\ud800", "\ud800\udc00", "", "\ufffd", "\ufffe"], is_split_into_words=True)
    assert encoded["input_ids"] == [2, 1, 1, 1, 11, 12, 3]
    text = tokenizer("\ud800 \ufffd a\udc00", add_special_tokens=False)
    assert text["input_ids"] == [1, 11, 10, 1]


# ---------------------------------------------------------------------------------------------------------------------
# Raw text


@examples(500)
@given(
    st.one_of(
        any_text, st.lists(words, max_size=6).map(" ".join), st.text("a.-'@1,:/ \n(é日_\u200d🇩👍\u0301", max_size=40)
    )
)
@example("\u0600 a")
@example("a \u0301b")
@example("\ud83d\ude00 x\ud800y")
@example("-1 (-1 .5 x-.5 1,000,a 1,,2 A.B A.B. a.b.c.d U.S.-led")
def test_every_character_of_a_text_lies_in_one_word(plain, text):
    encoded = plain(text, return_offsets_mapping=True, add_special_tokens=False)
    end_before, words = 0, []
    for begin, end in encoded["offset_mapping"]:
        assert end_before <= begin < end
        assert not text[end_before:begin].strip()
        words.append(text[begin:end])
        end_before = end
    assert not text[end_before:].strip()
    assert encoded["character_ids"] == [characters_of(word) for word in words]
    assert plain.tokenize(text) == words
    assert not any(re.search(r"\s", word) for word in words if not re.search("[\x1c-\x1f]", word))
    with_special = plain(text)
    assert with_special["character_ids"] == [characters_of(word) for word in ["<S>", *words, "</S>"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't!", "Don 't !"),
        (
            "It wasn't Murray's, it's the Olympians'.",
            "It was|n 't Murray 's , it 's the Olympians ' .".replace("was|n", "wasn"),
        ),
        ("O'Reilly's dogs of the 1990's and the '90s", "O 'Reilly 's dogs of the 1990 's and the ' 90s"),
        ("the U.S.-led force, in the U.S.", "the U.S.-led force , in the U.S."),
        ("U.S.A. J.K. Rowling, J. K. Rowling, George W. Bush", "U.S.A. J.K. Rowling , J. K. Rowling , George W. Bush"),
        ("Mr. and Ms. Winfrey met Dr. Buchholz of St. Louis.", "Mr. and Ms. Winfrey met Dr. Buchholz of St. Louis ."),
        (
            "Sunoco Inc., the firm; Sunoco Inc. said No. 5. No.",
            "Sunoco Inc . , the firm ; Sunoco Inc. said No. 5 . No .",
        ),
        ("mid-October Lashkar-e-Taiba 12-12-11", "mid-October Lashkar-e-Taiba 12-12-11"),
        ("short- and long-term", "short- and long-term"),
        ("68.88 1,000 175,000.5 .279 -5C", "68.88 1,000 175,000.5 .279 -5C"),
        ("$68.88, £5 (50%)", "$ 68.88 , £ 5 ( 50 % )"),
        ("6-3, 6-7 (5/7), at 3:30 p.m.", "6-3 , 6-7 ( 5 / 7 ) , at 3 : 30 p.m."),
        ("See https://a.b/c?d=1, or (www.x.com).", "See https://a.b/c?d=1 , or ( www.x.com ) ."),
        ("<me@x.co.uk>, you+1@y.org.", "< me@x.co.uk > , you+1@y.org ."),
        ("guardian.co.uk. Buy.com", "guardian.co.uk . Buy.com"),
        ('"Crazy Talk: [Oprah] {You}."', '" Crazy Talk : [ Oprah ] { You } . "'),
        ("“Curly” ‘quotes’ isn’t", "“ Curly ” ‘ quotes ’ isn ’t"),
        ("Well... yes... no -- maybe--or… ??", "Well ... yes ... no -- maybe -- or … ? ?"),
        ("AT&T #tag @user C++ <b>", "AT & T # tag @ user C + + < b >"),
        ("東京は café e\u0301te\u0301", "東 京 は café e\u0301te\u0301"),
        ("हिन्दी क्\u200dष می\u200cخواهم exam\u00adple", "हिन्दी क्\u200dष می\u200cخواهم exam\u00adple"),
        ("👨\u200d👩\u200d👧👍🏽🇩🇪🇫🇷 1️⃣", "👨\u200d👩\u200d👧 👍🏽 🇩🇪 🇫🇷 1️⃣"),
    ],
)
def test_words_of_a_text(plain, text, expected):
    assert plain.tokenize(text) == expected.split(" ")


def natural(words: list[str]) -> str:
    """Tokens of the benchmark as one would write them. Quotation marks open and close in turn."""
    text, quotes, joined = "", 0, True
    for word in words:
        is_opening = word == "(" or (word == '"' and quotes % 2 == 0)
        is_closing = re.fullmatch(r"[,.:;!?)/]|'\w+", word) or (word == '"' and not is_opening)
        text += word if joined or is_closing else " " + word
        joined = is_opening or word == "/"
        quotes += word == '"'
    return text


def test_sentences_of_the_benchmark(plain, shared_data):
    streams = json.loads((shared_data / "fixtures" / "allennlp_elmo" / "sentences.json").read_text(encoding="utf-8"))
    sentences = [sentence.split() for stream in streams for sentence in stream]
    assert len(sentences) == 30
    assert natural(sentences[3]) == "Don't!"
    assert [plain.tokenize(natural(sentence)) for sentence in sentences] == sentences


def test_special_words_in_a_text(tokenizer):
    encoded = tokenizer("the <S> [PAD]</S>", add_special_tokens=False)
    assert encoded["input_ids"] == [4, 2, 0, 3]
    assert encoded["attention_mask"] == [1, 1, 1, 1]
    assert encoded["character_ids"] == [characters_of(word) for word in ("the", "<S>", "[PAD]", "</S>")]
    assert tokenizer.tokenize("<S>", split_special_tokens=True) == ["<", "S", ">"]


HARD_TO_SPLIT = [
    *(
        "a",
        "1",
        "+",
        "-",
        ".",
        "'",
        "_",
        "@",
        "(",
        "\0",
        "\ufffd",
        "東",
        "🇦",
        "🏽",
        "\u200d",
        "\u0301",
        "\xad",
        "\ud800",
    ),
    *(
        "a.",
        "a.-",
        "a-",
        "a'",
        "a@",
        "+@",
        "a@a.",
        "A. ",
        "1,",
        "1,1-",
        "-1 -",
        "!\u0301",
        "\u200d☺",
        "www.)",
        "http://)",
    ),
    *("a--", "a.b@-", "Ph.D.", "a.a.-x-", "a_", "\u0600"),
]


@pytest.mark.parametrize("unit", HARD_TO_SPLIT)
def test_long_texts_are_split(plain, unit):
    # They take a fraction of a second. In quadratic time all would take many minutes, which is how one notices.
    text = unit * (60_000 // len(unit))
    assert "".join(plain.tokenize(text)) == text.replace(" ", "")


@pytest.mark.slow
def test_a_megabyte(plain):
    encoded = plain("x" * 1_000_000, return_tensors="np")
    assert encoded["character_ids"].shape == (1, 3, 50)
    assert plain(["x" * 1_000_000, "a"], is_split_into_words=True, return_tensors="np")["input_ids"].shape == (1, 4)
    text = random.Random(0).randbytes(1_000_000).decode("utf-8", errors="replace")
    assert "".join(plain.tokenize(text)) == re.sub(
        r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]", "", text
    )


# ---------------------------------------------------------------------------------------------------------------------
# The ways to call it


def test_pairs(tokenizer):
    expected_ids = [2, 4, 6, 3, 2, 10, 1, 3]
    for encoded in (
        tokenizer("the book", "a test"),
        tokenizer(["the", "book"], ["a", "test"], is_split_into_words=True),
    ):
        assert encoded["input_ids"] == expected_ids
        assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
        assert encoded.sequence_ids() == [None, 0, 0, None, None, 1, 1, None]
        assert encoded.word_ids() == [None, 0, 1, None, None, 0, 1, None]
        spoken = ["<S>", "the", "book", "</S>", "<S>", "a", "test", "</S>"]
        assert encoded["character_ids"] == [characters_of(word) for word in spoken]
    for batch in (
        tokenizer(["the book"], ["a test"]),
        tokenizer([("the book", "a test")]),
        tokenizer([["the", "book"]], [["a", "test"]], is_split_into_words=True),
        tokenizer([[["the", "book"], ["a", "test"]]], is_split_into_words=True),
    ):
        assert batch["input_ids"] == [expected_ids]
    mixed = tokenizer(["the", ("the", "a")])
    assert mixed["input_ids"] == [[2, 4, 3], [2, 4, 3, 2, 10, 3]]


def test_pairs_of_text_keep_their_offsets_when_cut(plain):
    question, context = "Who ran?", "The quick dog ran, and the cat (a big one) didn't."
    encoded = plain(
        question,
        context,
        truncation="only_second",
        max_length=12,
        stride=2,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
    )
    assert len(encoded["input_ids"]) > 2
    seen = set()
    for row, offsets in enumerate(encoded["offset_mapping"]):
        for place, sequence in enumerate(encoded.sequence_ids(row)):
            begin, end = offsets[place]
            if sequence is not None:
                word = (question, context)[sequence][begin:end]
                assert encoded["character_ids"][row][place] == characters_of(word)
                seen.add((sequence, begin, end))
    assert [context[b:e] for s, b, e in sorted(seen) if s == 1] == plain.tokenize(context)


def test_names_and_order_of_the_fields(tokenizer):
    encoded = tokenizer("the book")
    assert list(encoded) == tokenizer.model_input_names
    assert list(encoded) == ["input_ids", "character_ids", "token_type_ids", "attention_mask"]
    everything = tokenizer("the book", return_special_tokens_mask=True, return_length=True, return_offsets_mapping=True)
    assert everything["special_tokens_mask"] == [1, 0, 0, 1]
    assert everything["offset_mapping"] == [(0, 0), (0, 3), (4, 8), (0, 0)]
    assert everything["length"] == [4]
    assert list(tokenizer("the", return_attention_mask=False, return_token_type_ids=False)) == [
        "input_ids",
        "character_ids",
    ]
    bare = tokenizer(["the", "book"], is_split_into_words=True, add_special_tokens=False)
    assert bare["input_ids"] == [4, 6]
    assert len(bare["character_ids"]) == 2


@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_tensors(tokenizer, side, is_split):
    batch = [["the", "book"], ["a", "read", "book"], []]
    if not is_split:
        batch = [" ".join(sentence) for sentence in batch]
    lists = tokenizer(batch, is_split_into_words=is_split, padding=True, padding_side=side)
    for name in lists:
        assert isinstance(lists[name], list)
        assert {len(row) for row in lists[name]} == {5}
    empty = [2, 3, 0, 0, 0] if side == "right" else [0, 0, 0, 2, 3]
    assert lists["input_ids"][2] == empty
    assert lists["attention_mask"][2] == [int(number > 0) for number in empty]
    boundaries = {2: characters_of("<S>"), 3: characters_of("</S>"), 0: [0] * 50}
    assert lists["character_ids"][2] == [boundaries[number] for number in empty]
    arrays = tokenizer(batch, is_split_into_words=is_split, padding=True, padding_side=side, return_tensors="np")
    tensors = tokenizer(batch, is_split_into_words=is_split, padding=True, padding_side=side, return_tensors="pt")
    for name, values in lists.items():
        assert isinstance(arrays[name], np.ndarray)
        assert isinstance(tensors[name], torch.Tensor)
        assert arrays[name].dtype == np.int64
        assert tensors[name].dtype == torch.int64
        assert arrays[name].tolist() == tensors[name].tolist() == values
    assert tensors["character_ids"].shape == (3, 5, 50)
    multiple = tokenizer(batch, is_split_into_words=is_split, padding=True, pad_to_multiple_of=8, return_tensors="pt")
    assert multiple["character_ids"].shape == (3, 8, 50)
    assert multiple["character_ids"].any(-1).int().equal(multiple["attention_mask"].int())
    one = tokenizer(batch[0], is_split_into_words=is_split, padding="max_length", max_length=7, return_tensors="pt")
    assert one["input_ids"].shape == (1, 7)
    assert one["character_ids"].shape == (1, 7, 50)
    with pytest.raises(ValueError, match="padding"):
        tokenizer(batch, is_split_into_words=is_split, return_tensors="pt")


def test_nothing_is_cut_by_default(plain, tmp_path):
    plain.save_pretrained(tmp_path)
    for tokenizer in (plain, ElmoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.model_max_length > 10**12
        assert len(tokenizer("a " * 20_000, truncation=True)["input_ids"]) == 20_002
    short = ElmoTokenizer.create(model_max_length=5)
    assert len(short("a " * 20, truncation=True)["input_ids"]) == 5
    assert len(short(["a"] * 20, is_split_into_words=True, truncation=True)["character_ids"]) == 5
    assert len(short("a " * 20)["input_ids"]) == 22


def test_alignment_of_characters_words_and_tokens(tokenizer):
    text = "😀 the book"
    encoded = tokenizer(text)
    assert encoded.tokens() == ["<S>", "[UNK]", "the", "book", "</S>"]
    assert encoded.char_to_token(2) == encoded.char_to_token(4) == 2
    assert encoded.token_to_chars(3) == (6, 10)
    assert encoded.word_to_tokens(2) == (3, 4)


@pytest.mark.parametrize("is_split", [True, False])
def test_empty_input(plain, is_split):
    nothing = plain([] if is_split else "", is_split_into_words=is_split)
    assert nothing["input_ids"] == [2, 3]
    batch = plain([[]] if is_split else [""], is_split_into_words=is_split, return_tensors="pt")
    assert batch["character_ids"].tolist() == [[characters_of("<S>"), characters_of("</S>")]]
    bare = plain([[]] if is_split else [""], is_split_into_words=is_split, add_special_tokens=False)
    assert (bare["input_ids"], bare["character_ids"]) == ([[]], [[]])
    bare = plain(
        [[]] if is_split else [""], is_split_into_words=is_split, add_special_tokens=False, return_tensors="pt"
    )
    assert bare["character_ids"].shape == (1, 0, 50)


def test_words_without_the_switch_are_texts(tokenizer):
    assert tokenizer(["the", "book", "a test"])["input_ids"] == [[2, 4, 3], [2, 6, 3], [2, 10, 1, 3]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": [], "is_split_into_words": False}, ValueError, "the batch is empty"),
        ({"text": ["a", None], "is_split_into_words": True}, TypeError, r"at place 1 of a sentence: None \(NoneType\)"),
        ({"text": [["a"], [3]], "is_split_into_words": True}, TypeError, r"at place 0 of a sentence: 3 \(int\)"),
        ({"text": ["a", b"b"], "is_split_into_words": True}, TypeError, r"at place 1 of a sentence: b'b' \(bytes\)"),
        ({"text": [["a"], "b"], "is_split_into_words": True}, TypeError, r"a list of words, was: 'b' \(str\)"),
        ({"text": ["a", ["b"]], "is_split_into_words": True}, TypeError, r"at place 1 of a sentence: \['b'\]"),
        ({"text": "a b", "is_split_into_words": True}, TypeError, r"a list of words, was: 'a b' \(str\)"),
        ({"text": [None]}, TypeError, r"Expected a text \(str\), was: None"),
        ({"text": ["a", 3]}, TypeError, r"Expected a text \(str\), was: 3"),
        ({"text": b"a"}, TypeError, r"Expected a text \(str\), was: b'a'"),
        ({"text": [["a", "b", "c"]]}, ValueError, "Are these words"),
        ({"text": [[["a"], ["b"], ["c"]]], "is_split_into_words": True}, ValueError, "two sides, this one has 3"),
        ({"text": ["a", "b"], "text_pair": ["c"]}, ValueError, "batch of 2 needs as many pairs, there are 1"),
        ({"text": ["a"], "text_pair": "c"}, TypeError, "must be a batch too"),
        ({"text": ["a"], "text_pair": [None]}, TypeError, r"Expected a text \(str\), was: None"),
        ({"text": "a", "text_pair": 3}, TypeError, r"Expected a text \(str\), was: 3"),
    ],
)
def test_bad_input(plain, arguments, error, message):
    with pytest.raises(error, match=message):
        plain(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"vocabulary": "words.txt"}, TypeError, "was one str: 'words.txt'"),
        ({"vocabulary": ["a", 3]}, TypeError, r"behind 1 words it has: 3 \(int\)"),
        ({"vocabulary": ["a", ""]}, ValueError, "an empty word behind 1 words"),
        ({"vocabulary": ["a", "b", "a"]}, ValueError, "'a' twice"),
        ({"vocabulary": ["a\ud800"]}, ValueError, r"'a\\ud800'"),
        ({"vocabulary": ["\U0010ffff"]}, ValueError, "U\\+10FFFF is reserved"),
        ({"max_characters_per_token": 2}, ValueError, "at least 3 .* was: 2"),
        ({"max_characters_per_token": 50.0}, TypeError, r"an int, was: 50.0 \(float\)"),
        ({"max_characters_per_token": True}, TypeError, "an int, was: True"),
        ({"padding_side": "top"}, ValueError, "top"),
        ({"max_charakters": 3}, TypeError, "max_charakters"),
        ({"bos_token": "<s>"}, TypeError, "bos_token"),
    ],
)
def test_bad_arguments_of_create(arguments, error, message):
    with pytest.raises(error, match=message):
        ElmoTokenizer.create(**arguments)


def test_special_words_in_a_vocabulary_are_passed_over():
    tokenizer = ElmoTokenizer.create(line for line in ["<S>", "</S>", "<UNK>", "the", "[PAD]", "of"])
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "<S>": 2, "</S>": 3, "the": 4, "of": 5}


# ---------------------------------------------------------------------------------------------------------------------
# Keeping, copying, sharing

SAMPLE_TEXTS = ["The U.S. book isn't <S> 'read'.", "a 日本 don't\ud800 x" + "y" * 60, ""]
SAMPLE_WORDS = [["the", "book"], ["", "New York", "a</S>", "[PAD]", "E1"], []]


def everything(tokenizer) -> list:
    return [
        tokenizer(SAMPLE_TEXTS, padding=True, pad_to_multiple_of=4, return_offsets_mapping=True).data,
        tokenizer(SAMPLE_TEXTS, truncation=True, max_length=4, stride=1, return_overflowing_tokens=True).data,
        tokenizer(SAMPLE_WORDS, is_split_into_words=True).data,
        tokenizer(SAMPLE_WORDS, is_split_into_words=True, truncation=True, max_length=3, padding="max_length").data,
    ]


def test_saving_and_loading(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    ElmoConfig.from_preset("small").save_pretrained(tmp_path)
    for loaded in (ElmoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is ElmoTokenizer
        assert everything(loaded) == everything(tokenizer)
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded.is_fast
    sides = ElmoTokenizer.create(WORDS, padding_side="left", truncation_side="left", model_max_length=9)
    sides.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.padding_side, loaded.truncation_side, loaded.model_max_length) == ("left", "left", 9)
    assert everything(loaded) == everything(sides) != everything(tokenizer)


def test_copies(tokenizer):
    before = everything(tokenizer)
    for copied in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert everything(copied) == before
        copied.add_tokens(["E1"])
        assert everything(copied) != before
        assert everything(tokenizer) == before


def test_calls_leave_no_trace(tokenizer):
    before, state = Hasher.hash(tokenizer), tokenizer.backend_tokenizer.to_str()
    everything(tokenizer)
    tokenizer.tokenize("a b", truncation=True, max_length=1)
    assert tokenizer.backend_tokenizer.to_str() == state
    assert Hasher.hash(tokenizer) == before
    with_more = copy.deepcopy(tokenizer)
    with_more.add_tokens(["E1"])
    before = Hasher.hash(with_more)
    everything(with_more)
    assert Hasher.hash(with_more) == before


def test_threads(tokenizer):
    with_more = copy.deepcopy(tokenizer)
    with_more.add_tokens(["E1"])

    def work(number):
        rng = random.Random(number)
        each = (tokenizer, with_more)[number % 2]
        sentence = [f"w{number}", *rng.choices(WORDS, k=rng.randrange(30))]
        length = rng.randrange(3, 12)
        side = rng.choice(["left", "right"])
        given = each(
            [sentence, ["the"]],
            is_split_into_words=True,
            truncation=True,
            max_length=length,
            padding="max_length",
            padding_side=side,
            return_overflowing_tokens=True,
        )
        text = each([" ".join(sentence), "the"], padding=True, padding_side=side, return_offsets_mapping=True)
        return given.data, text.data

    alone = [work(number) for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == alone


def test_datasets_map(tokenizer, tmp_path):
    def encode_words(batch):
        return tokenizer(batch["words"], is_split_into_words=True, truncation=True, max_length=6)

    def encode_text(batch):
        return tokenizer(batch["text"])

    sentences = [["the", f"w{number}", "book", ""] * (number % 3 + 1) for number in range(40)]
    rows = {"words": sentences, "text": [" ".join(sentence) for sentence in sentences]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "rows")
    dataset = Dataset.load_from_disk(tmp_path / "rows")
    mapped = dataset.map(encode_words, batched=True, batch_size=7, num_proc=2)
    assert mapped[5]["input_ids"] == tokenizer(sentences[5][:4], is_split_into_words=True)["input_ids"]
    for number, sentence in enumerate(sentences):
        assert mapped[number]["character_ids"] == [characters_of(w) for w in ["<S>", *sentence[:4], "</S>"]]
    first = dataset.map(encode_text, batched=True)
    everything(tokenizer)
    assert dataset.map(encode_text, batched=True)._fingerprint == first._fingerprint
    assert dataset.map(encode_words, batched=True, batch_size=7, num_proc=2)._fingerprint == mapped._fingerprint
    arrays = dataset.map(
        lambda batch: tokenizer(batch["text"], padding=True, return_tensors="np"), batched=True, batch_size=40
    )
    assert np.array(arrays["character_ids"][3]).shape == (len(arrays["input_ids"][3]), 50)


# ---------------------------------------------------------------------------------------------------------------------
# Words added later


def test_added_words(tmp_path):
    tokenizer = ElmoTokenizer.create(["the", "food"])
    assert tokenizer.add_tokens(["foo", AddedToken("[E1]", special=True)]) == 2
    assert tokenizer.add_special_tokens({"mask_token": "[MASK]"}) == 1
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, ElmoTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert len(each) == 9
        assert each.vocab_size == 6
        words = ["foo", "[E1]", "food", "x[E1]y", "a foo", "[MASK]", "the", "[PAD]", ""]
        given = each(words, is_split_into_words=True)
        assert given["input_ids"] == [2, 6, 7, 5, 1, 1, 8, 4, 1, 1, 3]
        assert given["character_ids"] == [characters_of(word) for word in ["<S>", *words, "</S>"]]
        text = each("the[E1] food a foo [MASK]", return_special_tokens_mask=True)
        assert text["input_ids"] == [2, 4, 7, 5, 1, 6, 8, 3]
        spoken = ["<S>", "the", "[E1]", "food", "a", "foo", "[MASK]", "</S>"]
        assert text["character_ids"] == [characters_of(word) for word in spoken]
        assert each.decode(text["input_ids"], skip_special_tokens=True) == "the food foo"
    # More words after the first call.
    assert tokenizer.add_tokens(["a foo"]) == 1
    assert tokenizer(["a foo", "foo"], is_split_into_words=True)["input_ids"] == [2, 9, 6, 3]


def test_other_boundary_words(tmp_path):
    ElmoTokenizer.create(["the"]).save_pretrained(tmp_path)
    tokenizer = ElmoTokenizer.from_pretrained(tmp_path, eos_token="[END]")
    encoded = tokenizer(["the", "[END]", "</S>"], is_split_into_words=True)
    assert encoded["input_ids"] == [2, 4, 5, 3, 3]
    rows = [characters_of("<S>"), characters_of("the"), *[characters_of("</S>")] * 3]
    assert encoded["character_ids"] == rows


def test_padding_with_another_word(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = "</S>"
    encoded = tokenizer([["the", "</S>"], []], is_split_into_words=True, padding=True)
    assert encoded["input_ids"] == [[2, 4, 3, 3], [2, 3, 3, 3]]
    end, nothing = characters_of("</S>"), [0] * 50
    assert encoded["character_ids"][0][2:] == [end, end]
    assert encoded["character_ids"][1][1:] == [end, nothing, nothing]
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    number = len(tokenizer) - 1
    encoded = tokenizer([["the", "<pad>"], []], is_split_into_words=True, padding=True)
    assert encoded["input_ids"] == [[2, 4, 1, 3], [2, 3, number, number]]
    assert encoded["character_ids"][0][2] == characters_of("<pad>")
    assert encoded["character_ids"][1][2:] == [nothing, nothing]


def test_training_a_vocabulary(tokenizer, tmp_path):
    texts = ["the cat isn't the dog .", "the cat saw the \0\0 dog", "cat dog"]
    trained = tokenizer.train_new_from_iterator([texts], vocab_size=7)
    assert type(trained) is ElmoTokenizer
    assert trained.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "<S>": 2, "</S>": 3, "the": 4, "cat": 5, "dog": 6}
    assert trained("the catdog isn't")["input_ids"] == [2, 4, 1, 1, 1, 3]
    # Token classification pipelines ask the Rust model for this prefix to tell words from pieces.
    assert not trained.convert_ids_to_tokens(6).startswith(trained.backend_tokenizer.model.continuing_subword_prefix)
    trained.save_pretrained(tmp_path)
    loaded = ElmoTokenizer.from_pretrained(tmp_path)
    assert everything(loaded) == everything(trained)
    renamed = tokenizer.train_new_from_iterator([texts], 6, special_tokens_map={"<S>": "<s>", "[UNK]": "<unk>"})
    encoded = renamed(["the", "saw", "<s>"], is_split_into_words=True)
    assert encoded["input_ids"] == [2, 4, 1, 2, 3]
    assert encoded["character_ids"][0] == encoded["character_ids"][3] == characters_of("<S>")
    assert renamed.convert_ids_to_tokens([1, 2]) == ["<unk>", "<s>"]


# ---------------------------------------------------------------------------------------------------------------------
# Padding later, as collators do

KINDS = {
    "lists": lambda values: values,
    "arrays": np.asarray,
    "tensors": torch.tensor,
}


@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_pad_equals_padding_at_once(tokenizer, kind, side, multiple):
    batch = [["the", "book"], ["a", "x" * 60, "c", "d"], []]
    encoded = tokenizer(batch, is_split_into_words=True, return_truncated_words=True)
    features = [{name: KINDS[kind](encoded[name][row]) for name in encoded} for row in range(len(batch))]
    expected = tokenizer(
        batch,
        is_split_into_words=True,
        return_truncated_words=True,
        padding=True,
        padding_side=side,
        pad_to_multiple_of=multiple,
        return_tensors="pt",
    )
    padded = tokenizer.pad(features, padding_side=side, pad_to_multiple_of=multiple, return_tensors="pt")
    assert list(padded) == list(expected)
    for name in expected:
        assert padded[name].dtype == torch.int64
        assert padded[name].equal(expected[name])
    arrays = tokenizer.pad(features, padding_side=side, pad_to_multiple_of=multiple, return_tensors="np")
    same_kind = tokenizer.pad(features, padding_side=side, pad_to_multiple_of=multiple)
    kinds = {"lists": list, "arrays": np.ndarray, "tensors": torch.Tensor}
    for name in expected:
        assert isinstance(arrays[name], np.ndarray)
        assert isinstance(same_kind[name], kinds[kind])
        assert arrays[name].tolist() == expected[name].tolist()
        assert np.asarray(same_kind[name]).tolist() == expected[name].tolist()
    columns = tokenizer.pad(
        {name: [feature[name] for feature in features] for name in encoded},
        padding_side=side,
        pad_to_multiple_of=multiple,
        return_tensors="pt",
    )
    assert columns["character_ids"].equal(expected["character_ids"])


# (transformers' own pad refuses one example of arrays.)
@pytest.mark.parametrize("kind", ["lists", "tensors"])
def test_pad_one(tokenizer, kind):
    encoded = tokenizer("the book")
    one = {name: KINDS[kind](values) for name, values in encoded.items()}
    padded = tokenizer.pad(one, padding="max_length", max_length=6)
    assert np.asarray(padded["input_ids"]).tolist() == [2, 4, 6, 3, 0, 0]
    assert np.asarray(padded["character_ids"]).tolist() == [*encoded["character_ids"], [0] * 50, [0] * 50]
    assert type(padded["character_ids"]) is type(one["input_ids"])
    unpadded = tokenizer.pad(one, padding=False, return_tensors="pt")
    assert unpadded["character_ids"].tolist() == encoded["character_ids"]


def test_pad_special_cases(tokenizer):
    assert dict(tokenizer.pad({"input_ids": [], "character_ids": []})) == {"input_ids": [], "character_ids": []}
    bare = tokenizer([[], ["the"]], is_split_into_words=True, add_special_tokens=False)
    padded = tokenizer.pad(bare, return_tensors="pt")
    assert padded["character_ids"].tolist() == [[[0] * 50], [characters_of("the")]]
    ids_only = tokenizer.pad([{"input_ids": [2, 3]}, {"input_ids": [2, 4, 3]}])
    assert ids_only["input_ids"] == [[2, 3, 0], [2, 4, 3]]
    ragged = tokenizer.pad(
        [{"input_ids": [2, 3], "character_ids": [[1], [2]]}, {"input_ids": [2], "character_ids": [[3]]}], padding=False
    )
    assert ragged["character_ids"] == [[[1], [2]], [[3]]]
    with pytest.raises(ValueError, match="character_ids has 3 words where input_ids has 2"):
        tokenizer.pad({"input_ids": [2, 3], "character_ids": [[0] * 50] * 3})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_stock_collators(kind, side):
    tokenizer = ElmoTokenizer.create(WORDS, padding_side=side)
    batch = [["the", "book"], ["a", "x", "c", "d"]]
    encoded = tokenizer(batch, is_split_into_words=True)
    features = [{name: KINDS[kind](encoded[name][row]) for name in encoded} for row in range(2)]
    expected = tokenizer(batch, is_split_into_words=True, padding=True, pad_to_multiple_of=8, return_tensors="pt")

    padded = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)(features)
    assert set(padded) == set(expected)
    assert all(padded[name].equal(expected[name]) for name in expected)

    labelled = [
        {**feature, "labels": [-100, *range(len(words)), -100]} for feature, words in zip(features, batch, strict=True)
    ]
    padded = DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8)(labelled)
    assert all(padded[name].equal(expected[name]) for name in expected)
    row, missing = [-100, 0, 1, -100], [-100] * 4
    assert padded["labels"][0].tolist() == (row + missing if side == "right" else missing + row)

    padded = DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=8)(features)
    assert all(padded[name].equal(expected[name]) for name in expected)
    assert padded["labels"].equal(expected["input_ids"].masked_fill(expected["attention_mask"] == 0, -100))

    rows = [{name: KINDS[kind](values[row].tolist()) for name, values in expected.items()} for row in range(2)]
    collated = default_data_collator(rows)
    assert all(collated[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["WordPiece", "BPE"])
def test_a_folder_with_another_models_tokenizer(tmp_path, kind):
    """It would split and number as the other one, with rows of characters beside: an ELMo in no way."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "cat": 5, "##s": 6}
    if kind == "WordPiece":
        other = BertTokenizer(vocab=vocabulary)
    else:
        other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no ELMo tokenizer, but a \w+.*ElmoTokenizer\.create"):
        ElmoTokenizer.from_pretrained(tmp_path)
    ElmoTokenizer.create(["cat"]).save_pretrained(tmp_path / "ours")
    assert ElmoTokenizer.from_pretrained(tmp_path / "ours").tokenize("cat") == ["cat"]
