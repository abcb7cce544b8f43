"""Given words without the Rust tokenizer: the same as with it, for whatever a call may ask."""

import copy
import pickle

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, processors
from transformers import BatchEncoding

from hf_elmo import ElmoTokenizer
from hf_elmo.model import tokenization_elmo
from hf_elmo.model.tokenization_fast_path import LaterEncodings

VOCABULARY = ["the", "of", "Haus", "naïve", "x" * 60]
WORDS = [*VOCABULARY, "", "other", "y" * 70, "é" * 30, "\ud800a", "<S>", "</S>", "[PAD]", "[UNK]", "New York", "added"]


def tokenizer_of(**options) -> ElmoTokenizer:
    return ElmoTokenizer.create(VOCABULARY, **options)


def added() -> ElmoTokenizer:
    tokenizer = tokenizer_of()
    tokenizer.add_tokens(["added", AddedToken("<mark>", special=True)])
    return tokenizer


def other_template() -> ElmoTokenizer:
    tokenizer = tokenizer_of()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:1 </S>:2", pair="$A $B", special_tokens=[("</S>", 3)]
    )
    return tokenizer


TOKENIZERS = [
    tokenizer_of(),
    tokenizer_of(padding_side="left", truncation_side="left", model_max_length=6),
    tokenizer_of(max_characters_per_token=10),
    tokenizer_of(lowercase_word_ids=True),
    tokenizer_of(characters="abcxyz", word_ids_in_rows=True),
    added(),
    other_template(),
    ElmoTokenizer.create(),
]

sentences = st.lists(st.sampled_from(WORDS), max_size=7)
usual = st.lists(st.sampled_from([word for word in WORDS if word not in ("", "\ud800a", "[PAD]")]), max_size=7)
batches = st.one_of(st.lists(usual, min_size=1, max_size=4), st.lists(sentences, min_size=1, max_size=4), sentences)
options = st.fixed_dictionaries(
    {},
    optional={
        "padding": st.sampled_from([True, False, "max_length", "longest"]),
        "truncation": st.booleans(),
        "max_length": st.sampled_from([4, 8, 12]),
        "stride": st.sampled_from([0, 1]),
        "pad_to_multiple_of": st.sampled_from([1, 4]),
        "padding_side": st.sampled_from(["left", "right"]),
        "add_special_tokens": st.booleans(),
        "return_tensors": st.sampled_from(["pt", "np"]),
        "return_truncated_words": st.booleans(),
        "return_attention_mask": st.booleans(),
        "return_token_type_ids": st.booleans(),
        "return_length": st.booleans(),
        "return_offsets_mapping": st.booleans(),
        "return_special_tokens_mask": st.booleans(),
        "split_special_tokens": st.booleans(),
    },
)


def outcome(tokenizer, batch, arguments):
    try:
        return tokenizer(batch, is_split_into_words=True, **arguments)
    except (ValueError, TypeError, OverflowError) as error:
        return type(error), str(error)
    # Rust panics where a stride does not fit.
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return type(error), ""


def plain(values):
    """Fields as lists, each with its type, and that of its numbers."""
    if isinstance(values, BatchEncoding):
        return {name: plain(field) for name, field in values.items()}
    if isinstance(values, (torch.Tensor, np.ndarray)):
        # NumPy makes one of objects of rows of different lengths.
        numbers = [plain(row) for row in values] if values.dtype == object else values.tolist()
        return type(values), values.dtype, numbers
    return values


def details(encoded: BatchEncoding) -> list:
    names = ("ids", "tokens", "word_ids", "sequence_ids", "type_ids", "attention_mask", "offsets", "n_sequences")
    return [[getattr(encoding, name) for name in names] for encoding in encoded.encodings]


@examples(400)
@given(batch=batches, arguments=options, number=st.integers(0, len(TOKENIZERS) - 1))
def test_the_same_as_by_way_of_rust(batch, arguments, number):
    tokenizer = TOKENIZERS[number]
    quickly = outcome(tokenizer, batch, arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization_elmo, "plan", lambda *_: None)
        slowly = outcome(tokenizer, batch, arguments)
    assert isinstance(quickly, BatchEncoding) == isinstance(slowly, BatchEncoding)
    if not isinstance(slowly, BatchEncoding):
        assert quickly == slowly
        return
    assert type(slowly) is BatchEncoding
    assert list(quickly) == list(slowly)
    assert plain(quickly) == plain(slowly)
    assert quickly.is_fast
    assert quickly.n_sequences == slowly.n_sequences
    assert details(quickly) == details(slowly)
    for row in range(len(slowly.encodings)):
        assert quickly.word_ids(row) == slowly.word_ids(row)


ORDINARY = [["the", "New York", "of", "<S>"], ["other", "y" * 70]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": True, "return_tensors": "pt"},
        {"padding": True, "return_tensors": "np", "return_truncated_words": True},
        {"padding": "max_length", "max_length": 9, "truncation": True, "return_tensors": "pt"},
        {"truncation": True, "max_length": 9},
        {},
    ],
)
@pytest.mark.parametrize("tokenizer", [TOKENIZERS[0], TOKENIZERS[5], TOKENIZERS[6]], ids=["plain", "added", "template"])
def test_usual_calls_need_no_rust(tokenizer, arguments):
    encoded = tokenizer(ORDINARY, is_split_into_words=True, **arguments)
    assert isinstance(encoded, LaterEncodings)
    assert encoded.is_fast
    assert encoded._made is None
    assert encoded.word_ids(1)[:3] != []
    assert encoded._made is not None


def test_encodings_are_of_what_was_given():
    tokenizer = tokenizer_of()
    batch = [["the", "of"], ["Haus"]]
    encoded = tokenizer(batch, is_split_into_words=True, padding=True, return_tensors="pt")
    batch[0][0], batch[1:] = "other", []
    tokenizer.padding_side = "left"
    tokenizer.add_tokens(["Haus", "other"])
    assert [encoding.ids for encoding in encoded.encodings] == encoded["input_ids"].tolist()
    assert encoded.tokens(0) == ["<S>", "the", "of", "</S>"]
    assert encoded.tokens(1) == ["<S>", "Haus", "</S>", "[PAD]"]


def test_copies_have_encodings():
    encoded = tokenizer_of()(ORDINARY, is_split_into_words=True, padding=True, return_tensors="pt")
    for made in (pickle.loads(pickle.dumps(encoded)), copy.deepcopy(encoded), copy.copy(encoded), encoded.to("cpu")):
        assert made.keys() == encoded.keys()
        assert all(torch.equal(made[name], encoded[name]) for name in encoded)
        assert details(made) == details(encoded)
        assert made.n_sequences == 1
    assert encoded[0].tokens == encoded.tokens(0)
    assert [encoding.tokens for encoding in encoded[1:]] == [encoded.tokens(1)]
    assert (encoded | {"labels": [1]})["labels"] == [1]


def test_long_sentences_are_warned_of(caplog):
    tokenizer = tokenizer_of(model_max_length=3)
    tokenizer([["the", "of", "Haus"]], is_split_into_words=True)
    assert tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"]
