"""Bulk embedding gives, for each sentence, what the model gives for that sentence alone."""

import itertools
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from low_precision import assert_as_near_on_average, double, rounded

from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.vectors import embedding
from hf_elmo.vectors.embedding import LAYERS, embed_sentences

SENTENCES = [
    "I read a book .",
    "",
    "She read it yesterday , and he will read it too .",
    "Yes !",
    "   ",
    "Ärger in 東京",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return ElmoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture
def model(tiny_model_folder):
    return ElmoModel.from_pretrained(tiny_model_folder)


def alone(model, tokenizer, words, layers):
    """The vectors of one sentence, boundaries included, by a plain call of the model."""
    inputs = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**inputs, output_hidden_states=True)
    stack = np.stack([layer[0].float().numpy() for layer in output.hidden_states])
    return {
        "mix": output.last_hidden_state[0].float().numpy(),
        "top": stack[-1],
        "all": stack,
        "average": stack.sum(axis=0) / len(stack),
        "sum": stack.sum(axis=0),
    }[layers]


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("keep_boundaries", [False, True])
def test_every_kind_of_layers_equals_a_plain_call(model, tokenizer, layers, keep_boundaries):
    sentences = [tokenizer.tokenize(text) for text in SENTENCES]
    embedded = list(embed_sentences(model, tokenizer, sentences, layers, keep_boundaries, batch_words=20))
    assert len(embedded) == len(sentences)
    for words, result in zip(sentences, embedded, strict=True):
        expected = alone(model, tokenizer, words, layers)
        if not keep_boundaries:
            expected = expected[..., 1:-1, :]
        assert result.words == (["<S>", *words, "</S>"] if keep_boundaries else words)
        assert result.vectors.dtype == np.float32
        assert result.vectors.shape == expected.shape
        np.testing.assert_allclose(result.vectors, expected, atol=1e-5, rtol=0)


words_of_any_sort = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)


@examples(40)
@given(
    sentences=st.lists(st.lists(words_of_any_sort, max_size=12), max_size=12),
    batch_words=st.integers(1, 60),
    layers=st.sampled_from(LAYERS),
)
def test_batches_and_order_change_nothing(tiny_model_folder, tokenizer, sentences, batch_words, layers):
    model = ElmoModel.from_pretrained(tiny_model_folder)
    embedded = list(embed_sentences(model, tokenizer, sentences, layers, batch_words=batch_words))
    assert [result.words for result in embedded] == sentences
    for words, result in zip(sentences, embedded, strict=True):
        expected = alone(model, tokenizer, words, layers)[..., 1:-1, :]
        np.testing.assert_allclose(result.vectors, expected, atol=1e-5, rtol=0)
        assert result.truncated_words == [word for word in words if len(word.encode()) > 48]


def test_texts_and_their_words_give_the_same(model, tokenizer):
    texts = ["Dr. Smith didn't read it.", "U.S. <S> [PAD] a\ud800b", "", "don't"]
    from_texts = list(embed_sentences(model, tokenizer, texts))
    from_words = list(embed_sentences(model, tokenizer, [tokenizer.tokenize(text) for text in texts]))
    assert from_texts[0].words == ["Dr.", "Smith", "didn", "'t", "read", "it", "."]
    for a, b in zip(from_texts, from_words, strict=True):
        assert a.words == b.words
        np.testing.assert_array_equal(a.vectors, b.vectors)


def test_an_empty_sentence_has_no_rows_and_keeps_its_place(model, tokenizer):
    shapes = [result.vectors.shape for result in embed_sentences(model, tokenizer, ["", "a b", [], " "])]
    assert shapes == [(0, 32), (2, 32), (0, 32), (0, 32)]
    (everything,) = embed_sentences(model, tokenizer, [[]], "all")
    assert everything.vectors.shape == (3, 0, 32)
    assert list(embed_sentences(model, tokenizer, [])) == []


def batch_shapes(model):
    """The (batch, words) of every call of the model from now on, collected in a list."""
    shapes = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["attention_mask"].shape)), with_kwargs=True
    )
    return shapes


def test_batches_hold_sentences_of_similar_length_and_few_words(model, tokenizer):
    shapes = batch_shapes(model)
    lengths = [3, 30, 4, 3, 28, 100, 5, 29, 3, 4] * 2
    sentences = [["word"] * length for length in lengths]
    assert [len(each.words) for each in embed_sentences(model, tokenizer, sentences, batch_words=96)] == lengths
    words = sum(lengths) + 2 * len(lengths)
    assert all(batch * width <= 96 for batch, width in shapes if batch > 1)
    assert sum(batch * width for batch, width in shapes) < 1.1 * words
    assert len(shapes) < len(lengths)
    assert (1, 102) in shapes


def test_sentences_are_read_as_they_are_needed(model, tokenizer):
    taken = itertools.count()
    endless = ([f"word{next(taken)}"] * 8 for _ in itertools.count())
    embedded = embed_sentences(model, tokenizer, endless, batch_words=50)
    first = [next(embedded).words[0] for _ in range(100)]
    assert first == [f"word{number}" for number in range(100)]
    # Eight batches of 50 words are 40 sentences of 8 words and 2 boundaries.
    assert next(taken) <= 140


def test_endless_empty_sentences_do_not_fill_memory(model, tokenizer):
    embedded = embed_sentences(model, tokenizer, itertools.repeat([]), batch_words=50)
    assert [next(embedded).words for _ in range(500)] == [[]] * 500


def test_a_sentence_that_is_kept_keeps_no_others_alive(model, tokenizer):
    for layers in LAYERS:
        for result in embed_sentences(model, tokenizer, ["a b c", "d", "e f"], layers):
            assert result.vectors.base is None
            assert result.vectors.flags.c_contiguous


@pytest.mark.parametrize(("batch_words", "times"), [(26, 1), (28, 0)])
def test_memory_is_given_back_after_many_words(model, tokenizer, monkeypatch, batch_words, times):
    called = []
    monkeypatch.setattr(embedding, "give_back_memory", lambda: called.append(1))
    for _ in embed_sentences(model, tokenizer, [["a", "b"], ["c"] * 11], batch_words=batch_words):
        assert not called
    assert len(called) == times


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library is known to keep so much")
def test_memory_that_was_freed_goes_back_to_the_system():
    """In a process of its own: blocks too small to be mapped one by one, and one above them that stays."""
    program = """
from hf_elmo.vectors.memory import give_back_memory
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
kept = [b"x" * 100_000 for _ in range(500)]
last = b"y" * 100_000
full = resident()
kept.clear()
before = resident()
give_back_memory()
print(full - before, before - resident())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    by_itself, given_back = map(int, done.stdout.split())
    assert by_itself < 5_000 < 40_000 < given_back  # of 49,000 kB


def test_training_mode_makes_no_difference_and_is_left_as_it_was(model, tokenizer):
    model.eval()
    (expected,) = embed_sentences(model, tokenizer, ["I read a book ."])
    model.train()
    model.bilstm.eval()
    modes = [module.training for module in model.modules()]
    assert model.dropout.p > 0
    assert model.dropout.training
    (result,) = embed_sentences(model, tokenizer, ["I read a book ."])
    np.testing.assert_array_equal(result.vectors, expected.vectors)
    assert [module.training for module in model.modules()] == modes


def test_layer_normalisation_does_not_look_at_the_neighbours(tiny_model_folder, tokenizer):
    model = ElmoModel.from_pretrained(tiny_model_folder, do_layer_norm=True)
    assert model.scalar_mixes[0].do_layer_norm
    sentences = [text.split() for text in SENTENCES]
    for words, result in zip(sentences, embed_sentences(model, tokenizer, sentences), strict=True):
        expected = alone(model, tokenizer, words, "mix")[1:-1]
        np.testing.assert_allclose(result.vectors, expected, atol=1e-5, rtol=0)


def test_padding_on_the_left_makes_no_difference(model, tokenizer, tiny_model_folder):
    left = ElmoTokenizer.from_pretrained(tiny_model_folder, padding_side="left")
    for a, b in zip(embed_sentences(model, tokenizer, SENTENCES), embed_sentences(model, left, SENTENCES), strict=True):
        np.testing.assert_allclose(a.vectors, b.vectors, atol=1e-5, rtol=0)


def test_a_model_on_top_of_the_bilm_gives_the_bilms_vectors(model, tokenizer, tiny_model_folder):
    language_model = ElmoForPreTraining.from_pretrained(tiny_model_folder)
    (expected,) = embed_sentences(model, tokenizer, ["I read a book ."])
    (result,) = embed_sentences(language_model, tokenizer, ["I read a book ."])
    np.testing.assert_array_equal(result.vectors, expected.vectors)


def test_half_precision_comes_as_float32(model, tokenizer):
    inputs = tokenizer(["I read a book ."], return_tensors="pt")
    with torch.no_grad():
        exact = double(model)(**inputs).last_hidden_state[0, 1:-1]
        cost = rounded(model, torch.bfloat16, **inputs).last_hidden_state[0, 1:-1]
    (result,) = embed_sentences(model.to(torch.bfloat16), tokenizer, ["I read a book ."])
    assert result.vectors.dtype == np.float32
    assert_as_near_on_average(torch.from_numpy(result.vectors), cost, exact, torch.bfloat16)


def test_words_that_were_cut_are_told_also_beside_others(model, tokenizer):
    long = ["x" * 49, "é" * 25]
    sentences = [["a", long[0], "b"], [], ["x" * 48, "é" * 24], [long[1], long[0], long[1]]]
    truncated = [result.truncated_words for result in embed_sentences(model, tokenizer, sentences)]
    assert truncated == [[long[0]], [], [], [long[1], long[0], long[1]]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "best"}, "layers must be one of mix, top, all, average, sum, was: 'best'"),
        ({"batch_words": 0}, "batch_words must be at least 1, was: 0"),
        ({"sentences": "one text"}, "sentences is one text"),
        ({"sentences": [["a"], None]}, "Sentence 1 must be a text or a list of words, was: NoneType"),
        ({"sentences": [[["a"]]]}, "Sentence 0 must consist of words"),
        ({"sentences": [b"bytes"]}, "Sentence 0 must be a text or a list of words"),
    ],
)
def test_bad_input_is_told(model, tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        list(embed_sentences(**{"model": model, "tokenizer": tokenizer, "sentences": ["a"], **arguments}))


def test_bad_options_are_told_before_the_first_vector_is_asked_for(model, tokenizer):
    with pytest.raises(ValueError, match="layers"):
        embed_sentences(model, tokenizer, ["a"], layers="best")


def test_vectors_that_are_not_finite_are_told(model, tokenizer):
    with torch.no_grad():
        # Only words with an "x" meet the damage.
        model.character_encoder.char_embedding.weight[ord("x") + 1] = float("nan")
    embedded = embed_sentences(model, tokenizer, ["a", "b", "a box", "c"], batch_words=1)
    with pytest.raises(ValueError, match="Sentence 2 has vectors that are not finite"):
        list(embedded)
