"""biLMs of bilm-tf that read words in place of characters: read, written, and compared with formulas in numpy."""

import json
import sys

import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, read_arrays, write_arrays
from rounding import assert_within_rounding
from transformers import AutoTokenizer
from typer.testing import CliRunner
from word_input_format import LINES, WORDS, random_softmax, stand_in, variables, word_options, write_words

from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, score_sentences
from hf_elmo.commands.app import app
from hf_elmo.conversion import (
    convert_from_folder,
    convert_tf_checkpoint,
    convert_to_folder,
    convert_to_tf_checkpoint,
    load_bilm,
    load_tf_checkpoint,
    save_bilm,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")

SENTENCES = [["The", "naïve", "cat", "sat", "unbelievably"], ["日本語", "x" * 80, "."], ["mat"]]

# Each with the lines of its vocabulary.
VARIANTS = {
    "two layers": ({}, LINES),
    "one layer": ({"n_layers": 1}, LINES),
    "three layers without skip connections": ({"n_layers": 3, "use_skip_connections": False}, LINES),
    "no projection": ({"dim": 6}, LINES),
    "no clips": ({"cell_clip": None, "proj_clip": ...}, LINES),
    "special words elsewhere": ({}, ["the", "</S>", "cat", ".", "<UNK>", "naïve", "sat", "<S>", *WORDS[5:]]),
    "letters of proteins": ({}, ["<S>", "</S>", "<UNK>", *"ACDEFGHIKLMNPQRSTVWY"]),
}
variants = pytest.mark.parametrize(("changes", "lines"), VARIANTS.values(), ids=VARIANTS.keys())


def assert_layers(model, tokenizer, oracle, sentences=SENTENCES):
    inputs = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    assert "character_ids" not in inputs
    with torch.inference_mode():
        layers = torch.stack(model(**inputs, output_hidden_states=True).hidden_states).numpy()
    for row, sentence in enumerate(sentences):
        expected, _ = oracle.read(sentence)
        assert_within_rounding(layers[:, row, : len(sentence) + 2], expected)
        assert np.abs(expected).max() > 0.5


def log_probabilities(oracle, weight, bias, words):
    """Of each word after those before it, and of each before those behind it, by the lines of the vocabulary."""
    ids = [oracle.rows.get(word, oracle.rows["<UNK>"]) for word in ["<S>", *words, "</S>"]]
    top = oracle.read(words)[0][-1]
    size, last = top.shape[1] // 2, len(words) + 1

    def log_softmax(half, word):
        logits = weight.astype(np.float64) @ half + bias
        return logits[word] - logits.max() - np.log(np.exp(logits - logits.max()).sum())

    forward = [log_softmax(top[place, :size], ids[place + 1]) for place in range(last)]
    backward = [log_softmax(top[place + 1, size:], ids[place]) for place in range(last)]
    return np.array(forward), np.array(backward)


def assert_scores(model, tokenizer, oracle, weight, bias):
    for scored in score_sentences(model, tokenizer, SENTENCES):
        forward, backward = log_probabilities(oracle, weight, bias, scored.words)
        assert_within_rounding(scored.forward, forward)
        assert_within_rounding(scored.backward, backward)


# --- HDF5


@variants
def test_hdf5_there_and_back(tmp_path, changes, lines):
    options = word_options(**changes)
    arrays = random_weights(options, 3, lines)
    source = write_words(tmp_path / "original", options, arrays, lines)
    model, words = load_bilm(source)
    assert words == [line for line in lines if line not in LINES[:3]]
    sentences = SENTENCES if "cat" in lines else [list("MKVLA"), list("GX")]
    tokenizer = ElmoTokenizer.create(words, reads_characters=False)
    assert_layers(model, tokenizer, NumpyElmo(options, arrays, lines), sentences)
    save_bilm(model, tmp_path / "back", vocabulary=words)
    rows = {line: row for row, line in enumerate(lines)}
    order = [rows[line] for line in (tmp_path / "back" / "vocab.txt").read_text(encoding="utf-8").splitlines()]
    assert sorted(order) == list(range(len(lines)))
    back = read_arrays(tmp_path / "back" / "weights.hdf5")
    assert back.keys() == arrays.keys()
    for key, array in back.items():
        np.testing.assert_array_equal(array, arrays[key][order] if key == "embedding" else arrays[key])
    written = json.loads((tmp_path / "back" / "options.json").read_text(encoding="utf-8"))
    assert written == options | {"n_tokens_vocab": len(lines)}


def test_hdf5_of_a_fork_and_of_one_layer(tmp_path):
    options = word_options(n_layers=1)
    arrays = random_weights(options, 4, LINES)
    dumped = {key.replace("/MultiRNNCell/Cell0", ""): array for key, array in arrays.items()}
    dumped["embedding/embedding"] = dumped.pop("embedding")
    source = write_words(tmp_path / "original", options, dumped)
    # Vectors beside the weights are not taken for them.
    write_arrays(source / "vectors.hdf5", {"embedding": np.zeros((12, 6), np.float32)})
    convert_to_folder(source, tmp_path / "model")
    model = ElmoModel.from_pretrained(tmp_path / "model")
    assert_layers(model, AutoTokenizer.from_pretrained(tmp_path / "model"), NumpyElmo(options, arrays, LINES))
    convert_from_folder(tmp_path / "model", tmp_path / "back")
    back = read_arrays(tmp_path / "back" / "weights.hdf5")
    assert back.keys() == arrays.keys()
    for key, array in back.items():
        np.testing.assert_array_equal(array, arrays[key])
    assert (tmp_path / "back" / "vocab.txt").read_text(encoding="utf-8").splitlines() == LINES


# --- TensorFlow


@pytest.mark.parametrize("tied", [False, True], ids=["own softmax", "shared softmax"])
@pytest.mark.parametrize(("n_layers", "key"), [(2, "embedding"), (1, "embedding/embedding")])
def test_checkpoint(tmp_path, monkeypatch, n_layers, key, tied):
    options = word_options(n_layers=n_layers) | {"n_tokens_vocab": len(LINES), "share_embedding_softmax": tied}
    arrays, softmax = random_weights(options, 5, LINES), random_softmax(options, len(LINES), tied)
    content = variables(options, arrays, key) | softmax
    content |= {f"{name}/Adagrad": np.ones_like(array) for name, array in content.items()}
    content |= {"global_step": np.float32(5), "train_perplexity": np.float32(0)}
    source = write_words(tmp_path / "save_dir", options, {})
    (source / "weights.hdf5").unlink()
    (source / "model.ckpt-5.index").touch()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "tensorflow", stand_in(content))
        convert_tf_checkpoint(source, tmp_path / "model")
    model = ElmoForPreTraining.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == len(LINES) + 1
    embedding = model.elmo.character_encoder.word_embedding.weight
    assert (model.softmax.weight is embedding) == tied == model.config.tie_word_embeddings
    oracle = NumpyElmo(options, arrays, LINES)
    assert_layers(model, tokenizer, oracle)
    weight = arrays["embedding"] if tied else softmax["lm/softmax/W"]
    assert_scores(model, tokenizer, oracle, weight, softmax["lm/softmax/b"])


@pytest.mark.parametrize("kind", ["words", "shared words", "one layer of words", "characters"])
def test_real_tensorflow_there_and_back(tensorflow, tmp_path, kind):
    if kind == "characters":
        options = {**word_options(), "char_cnn": {**OPTIONS["char_cnn"], "n_characters": 261}}
    else:
        options = word_options(n_layers=1 if "one" in kind else 2)
    tied = "shared" in kind
    options |= {"n_tokens_vocab": len(LINES)} | ({"share_embedding_softmax": True} if tied else {})
    arrays, softmax = random_weights(options, 6, LINES), random_softmax(options, len(LINES), tied)
    content = variables(options, arrays) | softmax
    source = write_words(tmp_path / "save_dir", options, {})
    (source / "weights.hdf5").unlink()
    tensorflow.write(source / "model.ckpt", content, step=12)
    model, words = load_tf_checkpoint(source)
    oracle = NumpyElmo(options, arrays, LINES)
    tokenizer = ElmoTokenizer.create(words, reads_characters=kind == "characters")
    assert_scores(
        model, tokenizer, oracle, softmax.get("lm/softmax/W", arrays.get("embedding")), softmax["lm/softmax/b"]
    )
    convert_tf_checkpoint(source, tmp_path / "model")
    convert_to_tf_checkpoint(tmp_path / "model", tmp_path / "back")
    shapes = {name: list(array.shape) for name, array in content.items()}
    shapes |= {f"{name}/Adagrad": shape for name, shape in shapes.items()} | {"global_step": [], "train_perplexity": []}
    # As bilm-tf's restart.py restores its variables: by the file `checkpoint`.
    restored = tensorflow.restore(tmp_path / "back", shapes)
    for name, array in content.items():
        np.testing.assert_array_equal(restored[name], array)
        assert (restored[f"{name}/Adagrad"] == 1).all()
    assert sorted(tensorflow.ask("variables", prefix=str(tmp_path / "back" / "model.ckpt-0"))[0]) == sorted(shapes)
    written = json.loads((tmp_path / "back" / "options.json").read_text(encoding="utf-8"))
    assert written == {"all_clip_norm_val": 10.0, "n_epochs": 10, **options}
    assert (tmp_path / "back" / "vocab.txt").read_text(encoding="utf-8").splitlines() == LINES
    again, _ = load_tf_checkpoint(tmp_path / "back")
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_command_writes_a_checkpoint(tensorflow, tmp_path):
    options = word_options()
    model, words = load_bilm(write_words(tmp_path / "original", options, random_weights(options, 7, LINES)))
    whole = ElmoForPreTraining(model.config)
    whole.elmo.load_state_dict(model.state_dict())
    whole.config.forget_bias = 0.25
    whole.save_pretrained(tmp_path / "model")
    ElmoTokenizer.create(words, reads_characters=False).save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "model"), str(tmp_path / "back"), "--tensorflow"])
    assert result.exit_code == 0, result.output
    assert "model.ckpt-0.index" in result.stderr
    again, _ = load_tf_checkpoint(tmp_path / "back")
    assert torch.equal(again.softmax.weight[1:], whole.softmax.weight[1:])
    bias, ours = (each.elmo.bilstm.forward_layers[0].bias.detach() for each in (again, whole))
    torch.testing.assert_close(bias[20:40], ours[20:40] - 0.75)
    assert torch.equal(bias[:20], ours[:20])
