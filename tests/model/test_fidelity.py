"""The original programs' activations on their own test models, which they computed with TensorFlow."""

import json

import h5py
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from hf_elmo import ElmoTokenizer
from hf_elmo.conversion import convert_to_folder, load_bilm

# Of both original test suites (allennlp, `elmo_test.py`; bilm-tf, `tests/test_model.py`).
TOLERANCE = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture(
    params=[("allennlp_elmo", "sentences.json", True), ("bilm_tf", "lm_embeddings_sentences.json", False)],
    ids=["skip connections", "no skip connections"],
)
def fixture(request, shared_data):
    """A folder, its three streams of ten sentences (lists of words), and what is expected of the first stream."""
    name, sentences, has_skip_connections = request.param
    folder = shared_data / "fixtures" / name
    assert (
        json.loads((folder / "options.json").read_text(encoding="utf-8"))["lstm"]["use_skip_connections"]
        == has_skip_connections
    )
    streams = [
        [text.split() for text in stream] for stream in json.loads((folder / sentences).read_text(encoding="utf-8"))
    ]
    assert [len(stream) for stream in streams] == [10, 10, 10]
    with h5py.File(folder / "lm_embeddings_0.hdf5", "r") as file:
        expected = [file[str(number)][()] for number in range(10)]
    for words, values in zip(streams[0], expected, strict=True):
        assert values.shape == (2, len(words), 16)
    return folder, streams, expected


def run(model, tokenizer, streams, carry_state=True, order=(0, 1, 2)):
    """The top layer of the first stream, ``(2, words, 16)`` per sentence, BOS and EOS removed."""
    state, outputs = None, []
    for batch in zip(*(streams[row] for row in order), strict=True):
        inputs = tokenizer(list(batch), is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            result = model(**inputs, state=state, return_state=True, output_hidden_states=True)
        if carry_state:
            state = result.state
        row = order.index(0)
        top = result.hidden_states[-1][row, 1 : len(batch[row]) + 1]
        outputs.append(torch.stack(top.chunk(2, dim=-1)).numpy())
    return outputs


def agree(outputs, expected):
    return [np.allclose(output, values, **TOLERANCE) for output, values in zip(outputs, expected, strict=True)]


def test_activations_of_the_original_programs(fixture):
    folder, streams, expected = fixture
    model, _ = load_bilm(folder)
    tokenizer = ElmoTokenizer.create()
    assert all(agree(run(model, tokenizer, streams), expected))
    # The rows of a batch have states of their own, wherever they stand.
    assert all(agree(run(model, tokenizer, streams, order=(2, 0, 1)), expected))


def test_activations_from_the_model_folder(fixture, tmp_path):
    folder, streams, expected = fixture
    convert_to_folder(folder, tmp_path / "model", vocabulary=folder / "vocab_test.txt")
    model = AutoModel.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert all(agree(run(model, tokenizer, streams), expected))


def test_the_comparison_notices_what_is_wrong(fixture):
    folder, streams, expected = fixture
    model, _ = load_bilm(folder)
    tokenizer = ElmoTokenizer.create()
    # Without the state only the first batch, which starts from zeros, is the same.
    assert agree(run(model, tokenizer, streams, carry_state=False), expected) == [True] + [False] * 9
    model.bilstm.use_skip_connections = not model.bilstm.use_skip_connections
    assert not any(agree(run(model, tokenizer, streams), expected))
