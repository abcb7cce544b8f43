"""Long documents in windows, against one call of the model on all of their words."""

import random
import tracemalloc

import numpy as np
import pytest
import torch

import hf_elmo
from hf_elmo import ElmoConfig, ElmoModel, ElmoTokenizer, embed_document

WORDS = ["I", "read", "a", "book", ".", "extraordinarily", "Ärger"]


@pytest.fixture(scope="module")
def tiny(tiny_model_folder):
    """In float64, where rounding does not hide anything: its random weights make rounding grow from word to word."""
    model = ElmoModel.from_pretrained(tiny_model_folder, dtype=torch.float64)
    return model, ElmoTokenizer.from_pretrained(tiny_model_folder)


def whole(model, tokenizer, words):
    """All layers and the mix of a sequence with its boundaries among the words."""
    encoded = tokenizer([words], is_split_into_words=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        output = model(**encoded, output_hidden_states=True)
    stacked = torch.stack(output.hidden_states, dim=1)[0].numpy()
    return {"all": stacked, "top": stacked[-1], "average": stacked.mean(0), "mix": output.last_hidden_state[0].numpy()}


@pytest.mark.parametrize("window", [1, 7, 64, 65, 66])
@pytest.mark.parametrize("layers", ["mix", "all"])
def test_windows_are_the_whole(tiny, window, layers):
    model, tokenizer = tiny
    words = random.Random(1).choices(WORDS, k=63 if window > 1 else 8)
    expected = whole(model, tokenizer, ["<S>", *words, "</S>"])[layers]
    for keep in (False, True):
        found = list(embed_document(model, tokenizer, words, layers=layers, window_words=window, keep_boundaries=keep))
        assert [len(each.words) for each in found] == [each.vectors.shape[-2] for each in found]
        assert [word for each in found for word in each.words] == (["<S>", *words, "</S>"] if keep else words)
        joined = np.concatenate([each.vectors for each in found], axis=-2)
        np.testing.assert_allclose(joined, expected if keep else expected[..., 1:-1, :], atol=2e-6)
    assert len(found) == -(-(len(words) + 2) // window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(tiny_model_folder, tiny, dtype):
    model, words = ElmoModel.from_pretrained(tiny_model_folder, dtype=dtype), WORDS * 3
    found = embed_document(model, tiny[1], words, window_words=8, keep_boundaries=True)
    expected = whole(*tiny, ["<S>", *words, "</S>"])["mix"]
    error = np.abs(np.concatenate([each.vectors for each in found]) - expected).mean() / np.abs(expected).mean()
    assert error < (1e-5 if dtype == torch.float32 else 0.05)


def test_float32_on_a_trained_model():
    model, tokenizer = ElmoModel.from_pretrained(hf_elmo.bundled()), ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    words = random.Random(1).choices(WORDS, k=300)
    expected = whole(model, tokenizer, ["<S>", *words, "</S>"])["mix"]
    for window in (7, 64):
        found = embed_document(model, tokenizer, words, window_words=window, keep_boundaries=True)
        np.testing.assert_allclose(np.concatenate([each.vectors for each in found]), expected, atol=1e-5)


def test_float32_rounds_as_it_does_in_one_call(tiny_model_folder, tiny):
    """Where rounding grows from word to word, windows and the whole are alike far from float64, and from each other."""
    model, tokenizer = ElmoModel.from_pretrained(tiny_model_folder), tiny[1]
    squares = []
    for seed in range(4):
        words = random.Random(seed).choices(WORDS, k=200)
        exact, in_one = (whole(each, tokenizer, ["<S>", *words, "</S>"])["mix"] for each in (tiny[0], model))
        found = embed_document(model, tokenizer, words, window_words=7, keep_boundaries=True)
        in_windows = np.concatenate([each.vectors for each in found])
        squares.append([((each - exact) ** 2).mean() for each in (in_windows, in_one)])
    of_windows, of_one = np.sqrt(np.mean(squares, axis=0))
    assert of_one > 1e-8
    assert of_windows < 10 * of_one


@pytest.mark.parametrize("layers", ["top", "average"])
def test_sentences(tiny, layers):
    model, tokenizer = tiny
    sentences = ["I read it.", ["Ärger", "."], "", "A book."]
    words = [
        "<S>",
        "I",
        "read",
        "it",
        ".",
        "</S>",
        "<S>",
        "Ärger",
        ".",
        "</S>",
        "<S>",
        "</S>",
        "<S>",
        "A",
        "book",
        ".",
        "</S>",
    ]
    expected = whole(model, tokenizer, words)[layers]
    found = embed_document(
        model, tokenizer, sentences, boundaries="sentences", layers=layers, window_words=4, keep_boundaries=True
    )
    np.testing.assert_allclose(np.concatenate([each.vectors for each in found]), expected, atol=2e-6)


def test_a_text_and_nothing(tiny):
    (found,) = embed_document(*tiny, "I read it.")
    assert found.words == ["I", "read", "it", "."]
    (found,) = embed_document(*tiny, [])
    assert found.vectors.shape == (0, 32)
    assert list(embed_document(*tiny, [], boundaries="sentences")) == []


def test_words_that_are_too_long(tiny):
    model, tokenizer = tiny
    long = "x" * 60
    found = list(embed_document(model, tokenizer, ["a", long, "b", long], window_words=2))
    assert [each.truncated_words for each in found] == [[], [long], [long]]


def test_memory_is_that_of_a_window(tiny):
    """Twice as long a document takes the words' own memory more, not that of vectors (128 bytes a word, by layer)."""
    peaks = []
    for count in (500, 1000):
        words = random.Random(1).choices(WORDS, k=count)
        tracemalloc.start()
        for each in embed_document(*tiny, words, window_words=50):
            del each
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 500 * 64


def test_what_is_none(tiny):
    for options, message in (
        ({"layers": "first"}, "layers must be one of"),
        ({"boundaries": "words"}, "boundaries must be one of document, sentences"),
        ({"window_words": 0}, "window_words must be at least 1"),
        ({"boundaries": "sentences"}, "give a list of sentences"),
    ):
        with pytest.raises(ValueError, match=message):
            embed_document(*tiny, "a text", **options)
    config = ElmoConfig(**{**tiny[0].config.to_dict(), "do_layer_norm": True})
    with pytest.raises(ValueError, match="normalises over all words at once"):
        embed_document(ElmoModel(config), tiny[1], "a text")
