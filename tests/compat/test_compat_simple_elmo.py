"""simple_elmo's interface: its shapes and keys, its old numbers where they were right, and not its faults."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from places import HELPERS
from published_elmo import DIM, LAYERS, TOLERANCE, PublishedElmo
from small_models import fill, small_config

from hf_elmo import ElmoForPreTraining, ElmoTokenizer
from hf_elmo.compat.simple_elmo import ElmoModel
from hf_elmo.conversion import ConversionError, convert_to_folder

TEXTS = [["The", "cat", "sat", "."], ["Yes"], ["naïve", "x" * 60], [], ["and", "so", "on"]]
COMBINE = {
    "average": lambda layers: layers.mean(axis=0),
    "top": lambda layers: layers[-1],
    "all": lambda layers: layers,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return PublishedElmo(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def model(published):
    model = ElmoModel()
    assert model.load(published.folder, max_batch_size=2) == "The model is now loaded."
    return model


# --- Vectors


def test_what_is_known_after_loading(model):
    assert (model.batch_size, model.max_chars, model.vector_size, model.n_layers) == (2, 50, DIM, LAYERS)


@pytest.mark.parametrize("layers", COMBINE)
def test_vectors_of_words(model, published, layers):
    vectors = model.get_elmo_vectors(TEXTS, layers=layers)
    assert vectors.dtype == np.float32
    assert vectors.shape == ((5, LAYERS, 4, DIM) if layers == "all" else (5, 4, DIM))
    for array, words in zip(vectors, TEXTS, strict=True):
        np.testing.assert_allclose(array[..., : len(words), :], COMBINE[layers](published.words(words)), **TOLERANCE)
        assert not array[..., len(words) :, :].any()


@pytest.mark.parametrize("layers", COMBINE)
def test_mean_vectors_of_sentences(model, published, layers):
    means = model.get_elmo_vector_average(TEXTS, layers=layers)
    assert means.shape == ((5, LAYERS, DIM) if layers == "all" else (5, DIM))
    for array, words in zip(means, TEXTS, strict=True):
        if words:
            mean = COMBINE[layers](published.words(words)).mean(axis=-2)
            np.testing.assert_allclose(array, mean / np.linalg.norm(mean), **TOLERANCE)
        else:
            assert not array.any()
    # The neighbours that it is read with change nothing.
    alone = np.concatenate([model.get_elmo_vector_average([words], layers=layers) for words in TEXTS])
    np.testing.assert_allclose(alone, means, atol=1e-6)


def test_no_sentences(model):
    assert model.get_elmo_vectors([]).shape == (0, 0, DIM)
    assert model.get_elmo_vectors([], layers="all").shape == (0, LAYERS, 0, DIM)
    assert model.get_elmo_vector_average([]).shape == (0, DIM)


@pytest.mark.parametrize("warmup", [True, False])
def test_the_state_as_the_original_carries_it(published, warmup):
    model = ElmoModel(stateful=True)
    model.load(published.folder, max_batch_size=2)
    for _ in range(2):  # Each call begins anew.
        vectors = model.get_elmo_vectors(TEXTS, warmup=warmup, layers="top")
        states = {}
        if warmup:
            states = {row: published.read_on(words, None)[1] for row, words in enumerate(TEXTS[:2])}
        for number, words in enumerate(TEXTS):
            layers, states[number % 2] = published.read_on(words, states.get(number % 2))
            np.testing.assert_allclose(vectors[number, : len(words)], layers[-1, 1:-1], **TOLERANCE)


def test_wrong_use(model):
    with pytest.raises(ValueError, match="layers must be one of all, top, average, was: 'mean'"):
        model.get_elmo_vectors(TEXTS, layers="mean")
    for texts in ("The cat", ["The cat"], [["The"], "cat"]):
        with pytest.raises(ValueError, match="each a list of words"):
            model.get_elmo_vectors(texts)
    with pytest.raises(ValueError, match="no sessions"):
        model.get_elmo_vector_average(TEXTS, session=object())
    with pytest.raises(ValueError, match="call load first"):
        ElmoModel().get_elmo_vectors(TEXTS)
    with pytest.raises(ValueError, match="call load"):
        model.get_elmo_substitutes(["The cat"])


# --- Places of a model


def test_every_place_of_a_model(published, tmp_path):
    nlpl = tmp_path / "nlpl"
    nlpl.mkdir()
    shutil.copy(published.options, nlpl)
    shutil.copy(published.weights, nlpl / "model.hdf5")
    (nlpl / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nThe\n", encoding="utf-8")
    archive = shutil.make_archive(str(tmp_path / "210"), "zip", nlpl)
    # Of several files the original takes the one of this name.
    shutil.copy(published.weights, nlpl / "another.hdf5")
    convert_to_folder(published.folder, tmp_path / "ours")
    for place in (nlpl, str(nlpl), archive, published.weights, tmp_path / "ours"):
        model = ElmoModel()
        model.load(place)
        np.testing.assert_allclose(
            model.get_elmo_vectors([TEXTS[0]], layers="all")[0], published.words(TEXTS[0]), **TOLERANCE
        )


def test_what_cannot_be_loaded(published, tmp_path):
    with pytest.raises(ConversionError, match="does not exist"):
        ElmoModel().load(tmp_path / "nothing")
    with pytest.raises(ConversionError, match="not a model folder, which full=True needs"):
        ElmoModel().load(published.folder, full=True)
    convert_to_folder(published.folder, tmp_path / "ours")
    with pytest.raises(ConversionError, match=r"has no language model: softmax\.bias, softmax\.weight is missing"):
        ElmoModel().load(tmp_path / "ours", full=True)


# --- Substitutes


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A folder of a language model of ten words, the model and its tokenizer."""
    folder = tmp_path_factory.mktemp("language") / "model"
    words = ["the", "cat", "sat", "on", "a", "mat", "."]
    tokenizer = ElmoTokenizer.create(words, max_characters_per_token=8)
    model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


@pytest.mark.parametrize("nodelimiters", [True, False])
def test_substitutes(language_model, nodelimiters):
    folder, language_model, tokenizer = language_model
    model = ElmoModel()
    model.load(folder, max_batch_size=2, full=True)
    sentences = ["the cat sat", "", "a dog on the mat .", "cat"]
    found = model.get_elmo_substitutes(sentences, topn=4, nodelimiters=nodelimiters)
    assert [[place["word"] for place in places] for places in found] == [sentence.split() for sentence in sentences]
    never = [0, 2, 3] if nodelimiters else [0]
    for sentence, places in zip(sentences, found, strict=True):
        encoded = tokenizer([sentence.split()], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            output = language_model(**encoded)
        for number, place in enumerate(places, start=1):
            assert list(place) == ["word", "forward", "backward"]
            # What is expected at a word stands at the word before it, or behind it.
            for direction, logits in (
                ("forward", output.logits[0, number - 1]),
                ("backward", output.backward_logits[0, number + 1]),
            ):
                scores = dict(enumerate(logits.tolist()))
                best = sorted(set(scores) - set(never), key=lambda word: -scores[word])[:4]
                assert place[direction]["candidates"] == best
                words = [tokenizer.convert_ids_to_tokens(word).replace("[UNK]", "<UNK>") for word in best]
                assert place[direction]["candidate_words"] == words
                np.testing.assert_allclose(place[direction]["logp"], [scores[word] for word in best], atol=1e-4)
    # All that there is, where more are wanted.
    (place,) = model.get_elmo_substitutes(["cat"], topn=100, nodelimiters=nodelimiters)[0]
    assert len(place["forward"]["candidates"]) == 11 - len(never)
    # The vectors of a language model's folder are there, too.
    assert model.get_elmo_vectors([["the", "cat"]]).shape == (1, 2, 10)


def test_substitutes_of_wrong_inputs(language_model):
    model = ElmoModel()
    model.load(language_model[0], full=True)
    with pytest.raises(ValueError, match="must be a list of sentences"):
        model.get_elmo_substitutes("the cat")
    with pytest.raises(ValueError, match="topn must be at least 1"):
        model.get_elmo_substitutes(["the cat"], topn=0)


# --- simple_elmo itself


@pytest.mark.slow
def test_calls_of_simple_elmo(published, tmp_path):
    python = os.environ.get("HF_ELMO_SIMPLE_ELMO_PYTHON")
    if not python:
        pytest.skip("HF_ELMO_SIMPLE_ELMO_PYTHON names no Python that has simple_elmo 0.9.2")
    shutil.copy(published.options, tmp_path)
    shutil.copy(published.weights, tmp_path / "model.hdf5")
    texts = [["The", "cat", "sat", "."], ["Yes"], ["and", "so", "on"], ["x" * 60, "naïve"], ["c"]]
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    script = HELPERS / "compat_simple_elmo_original.py"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([python, script, tmp_path], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    model = ElmoModel(stateful=True)
    model.load(tmp_path, max_batch_size=2)
    with np.load(tmp_path / "results.npz") as results:
        for layers in COMBINE:
            for warmup in (False, True):
                theirs = results[f"{layers} {warmup}"]
                ours = model.get_elmo_vectors(texts, warmup=warmup, layers=layers)
                assert ours.shape == theirs.shape
                for words, array, values in zip(texts, ours, theirs, strict=True):
                    np.testing.assert_allclose(array[..., : len(words), :], values[..., : len(words), :], **TOLERANCE)
        # Its mean of a sentence is right where that is the longest of its batch, and there only.
        ours = model.get_elmo_vector_average(texts, warmup=False)
        assert [np.allclose(*pair, atol=1e-5) for pair in zip(ours, results["mean"])] == [
            True,
            False,
            True,
            False,
            True,
        ]
