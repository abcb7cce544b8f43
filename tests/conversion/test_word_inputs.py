"""biLMs of bilm-tf that read words in place of characters: read, written, and compared with formulas in numpy."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, read_arrays, write_arrays, write_original
from rounding import assert_within_rounding
from transformers import AutoTokenizer
from typer.testing import CliRunner

from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, score_sentences
from hf_elmo.commands.app import app
from hf_elmo.conversion import (
    ConversionError,
    convert_from_folder,
    convert_tf_checkpoint,
    convert_to_folder,
    convert_to_tf_checkpoint,
    load_bilm,
    load_tf_checkpoint,
    save_bilm,
    save_tf_checkpoint,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")

WORDS = ["the", ".", "cat", "naïve", "sat", "日本語", "The", "on", "mat"]
LINES = ["<S>", "</S>", "<UNK>", *WORDS]
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


def word_options(**changes):
    """What bilm-tf's training writes for a model without `char_cnn`."""
    lstm = {key: value for key, value in {**OPTIONS["lstm"], **changes}.items() if value is not ...}
    return {"lstm": lstm, "bidirectional": True, "dropout": 0.1, "batch_size": 128, "unroll_steps": 20}


def write_words(folder, options, arrays, lines=LINES):
    write_original(folder, options, arrays)
    (folder / "vocab.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def random_softmax(options, lines, tied=False):
    rng = np.random.default_rng(8)
    size = options["lstm"]["projection_dim"]
    weights = {"lm/softmax/W": rng.normal(0, 2 / np.sqrt(size), (lines, size)), "lm/softmax/b": rng.normal(0, 1, lines)}
    return {name: array.astype(np.float32) for name, array in weights.items() if not (tied and name.endswith("W"))}


def variables(options, arrays, key="embedding"):
    """Arrays of an HDF5 file under the names of bilm-tf's training."""
    renamed = {}
    for name, array in arrays.items():
        if name.startswith("RNN_"):
            direction, _, _, cell, _, weight = name.split("/")
            stack = f"multi_rnn_cell/cell_{cell[4:]}/" if options["lstm"]["n_layers"] > 1 else ""
            weight = {"W_0": "kernel", "B": "bias", "W_P_0": "projection/kernel"}[weight]
            name = f"{direction}/rnn/{stack}lstm_cell/{weight}"
        renamed[f"lm/{key if name == 'embedding' else name}"] = array
    return renamed


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


def stand_in(content):
    """A module that reads what TensorFlow would have read."""

    class Reader:
        def __init__(self, prefix):
            pass

        def get_variable_to_shape_map(self):
            return {name: list(array.shape) for name, array in content.items()}

        def get_variable_to_dtype_map(self):
            return {name: array.dtype for name, array in content.items()}

        def get_tensor(self, name):
            return content[name]

    return SimpleNamespace(train=SimpleNamespace(load_checkpoint=Reader), __spec__=None)


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


# --- what is refused


@pytest.fixture
def folder(tmp_path):
    """A good model, to be spoilt."""
    options = word_options() | {"n_tokens_vocab": len(LINES)}
    return write_words(tmp_path / "original", options, random_weights(options, 3, LINES))


@pytest.fixture
def refuse(tmp_path):
    """Converts, expects one error with all the given parts, and nothing left behind."""

    def check(convert, source, *parts, **kwargs):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConversionError) as caught:
            convert(source, tmp_path / "new", **kwargs)
        for part in parts:
            assert part in str(caught.value), str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    return check


def _arrays(change):
    def spoil(folder):
        arrays = read_arrays(folder / "weights.hdf5")
        change(arrays)
        write_arrays(folder / "weights.hdf5", arrays)

    return spoil


def _options(change):
    def spoil(folder):
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
        change(options)
        (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")

    return spoil


def _lines(lines):
    return lambda folder: (folder / "vocab.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _set(key, value):
    return _arrays(lambda arrays: arrays.update({key: value}))


def _one_bad(value):
    array = np.ones((12, 6), np.float32)
    array[3, 1] = value
    return _set("embedding", array)


CELL = "RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell"
MALFORMED = {
    "no vocabulary": (lambda folder: (folder / "vocab.txt").unlink(), "reads words", "vocab.txt", "vocabulary=..."),
    "a line too many": (_lines([*LINES, "more"]), "has 13 lines, but embedding", "12 rows"),
    "a line too few": (_lines(LINES[:-1]), "has 11 lines, but embedding"),
    "no special words": (_lines(WORDS), "no line <S>, </S>, <UNK>"),
    "our unknown word": (_lines(["<S>", "</S>", "[UNK]", *WORDS]), "no line <UNK>"),
    "an empty vocabulary": (lambda folder: (folder / "vocab.txt").write_bytes(b""), "no line <S>"),
    "no text": (lambda folder: (folder / "vocab.txt").write_bytes(b"\xff\xfe\x00"), "vocab.txt"),
    "no table": (_arrays(lambda arrays: arrays.pop("embedding")), "missing: embedding"),
    "no cell": (_arrays(lambda arrays: arrays.pop(f"{CELL}/W_P_0")), f"missing: {CELL}/W_P_0"),
    "no direction": (
        _arrays(lambda arrays: [arrays.pop(key) for key in list(arrays) if key.startswith("RNN_1")]),
        "missing: RNN_1/RNN/MultiRNNCell/Cell0/LSTMCell/B, ",
    ),
    "surplus": (_set("softmax/W", np.ones(3)), "surplus: softmax/W"),
    "both tables": (_set("char_embed", np.ones((261, 4))), "surplus: char_embed", "options have no char_cnn"),
    "narrow": (_set("embedding", np.ones((12, 5))), "embedding (is (12, 5), expected (12, 6))"),
    "turned": (_set("embedding", np.ones((6, 12))), "embedding", "has 6 rows"),
    "flat": (_set("embedding", np.ones(12)), "embedding (is (12,), expected (12, 6))"),
    "a number": (_set("embedding", np.ones(())), "embedding (is (), expected (12, 6))"),
    "with a row of padding": (_set("embedding", np.ones((13, 6))), "embedding", "has 13 rows", "n_tokens_vocab"),
    "another cell": (_set(f"{CELL}/B", np.ones(76)), f"{CELL}/B (is (76,), expected (80,))"),
    "NaN": (_one_bad(np.nan), "infinite or not a number: embedding (1 of 72 values)"),
    "infinite": (_one_bad(-np.inf), "infinite or not a number: embedding"),
    "too large": (_one_bad(3e38), "embedding"),
    "characters in the options": (
        _options(lambda options: options.update(char_cnn=OPTIONS["char_cnn"])),
        "reads words (embedding), but the options describe one that reads characters",
    ),
    "another number of words": (_options(lambda options: options.update(n_tokens_vocab=99)), "n_tokens_vocab", "99"),
    "no sizes": (_options(lambda options: options.pop("lstm")), "options.json", "lstm.dim is missing"),
    "a wide projection": (_options(lambda options: options["lstm"].update(projection_dim=21)), "projection_dim (21)"),
    "a layer more": (
        _options(lambda options: options["lstm"].update(n_layers=3)),
        "missing: RNN_0/RNN/Mult",
    ),
    "a layer less": (
        _options(lambda options: options["lstm"].update(n_layers=1)),
        "surplus: RNN_0/RNN/Mult",
    ),
    "a billion layers": (
        _options(lambda options: options["lstm"].update(n_layers=10**9)),
        "lstm.n_layers is 1000000000",
    ),
    "no LSTM": (_options(lambda options: options.update(lstm=3)), "options.json", "lstm must be a JSON object"),
    "sharing, in words": (
        _options(lambda options: options.update(share_embedding_softmax="yes")),
        "share_embedding_softmax is 'yes'",
    ),
    "sharing characters": (
        _options(lambda options: options.update(char_cnn=OPTIONS["char_cnn"], share_embedding_softmax=True)),
        "share_embedding_softmax is True",
    ),
    "no JSON": (lambda folder: (folder / "options.json").write_bytes(b"{"), "options.json is no JSON file"),
    "no HDF5": (lambda folder: (folder / "weights.hdf5").write_bytes(b"PK"), "weights.hdf5 is not an HDF5 file"),
    "empty": (lambda folder: (folder / "weights.hdf5").write_bytes(b""), "weights.hdf5 is empty"),
    "cut off": (
        lambda folder: (folder / "weights.hdf5").write_bytes((folder / "weights.hdf5").read_bytes()[:3000]),
        "is it whole?",
    ),
}


@pytest.mark.parametrize(("spoil", "parts"), [(case[0], case[1:]) for case in MALFORMED.values()], ids=MALFORMED)
def test_malformed(folder, refuse, spoil, parts):
    spoil(folder)
    refuse(convert_to_folder, folder, *parts)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_another_dtype(folder, refuse, dtype):
    import h5py

    with h5py.File(folder / "weights.hdf5", "r+") as file:
        del file["embedding"]
        file["embedding"] = np.ones((12, 6), dtype)
    refuse(convert_to_folder, folder, f"not float32: embedding (is {dtype})")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda content: content.pop("lm/softmax/W"), ["missing: lm/softmax/W", "share_embedding_softmax"]),
        (lambda content: content.pop("lm/softmax/b"), ["missing: lm/softmax/b"]),
        (lambda content: content.pop("lm/embedding"), ["missing: lm/embedding"]),
        (
            lambda content: content.update({"lm/char_embed": np.ones((261, 4), np.float32)}),
            ["options have no char_cnn"],
        ),
        (lambda content: content.update({"lm/embedding": np.ones((11, 6), np.float32)}), ["lm/embedding has 11 rows"]),
        (lambda content: content.update({"lm/softmax/W": np.ones((13, 6), np.float32)}), ["lm/softmax/W has 13 rows"]),
        (
            lambda content: content.update({"lm/embedding/embedding": content["lm/embedding"]}),
            ["surplus: lm/embedding"],
        ),
        (lambda content: content.update({"lm/embedding": np.ones((12, 6))}), ["not float32: lm/embedding"]),
        (lambda content: content.update({"lm/embedding": np.full((12, 6), np.nan, np.float32)}), ["not a number"]),
    ],
)
def test_malformed_checkpoints(folder, refuse, monkeypatch, change, parts):
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    content = variables(options, read_arrays(folder / "weights.hdf5")) | random_softmax(options, len(LINES))
    change(content)
    (folder / "weights.hdf5").unlink()
    (folder / "model.ckpt-5.index").touch()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "tensorflow", stand_in(content))
        refuse(convert_tf_checkpoint, folder, str(folder), *parts)


def test_a_shared_softmax_that_is_there(folder, refuse, monkeypatch):
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    content = variables(options, read_arrays(folder / "weights.hdf5")) | random_softmax(options, len(LINES))
    _options(lambda content: content.update(share_embedding_softmax=True))(folder)
    (folder / "model.ckpt-5.index").touch()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "tensorflow", stand_in(content))
        refuse(convert_tf_checkpoint, folder, "surplus: lm/softmax/W", "share_embedding_softmax in the options is true")


def test_what_is_not_written(folder, tmp_path, monkeypatch):
    model, words = load_bilm(folder)
    for vocabulary, part in ((None, "no vocabulary"), (words[1:], "one of 8 words")):
        with pytest.raises(ConversionError, match=part):
            save_bilm(model, tmp_path / "back", vocabulary=vocabulary)
    with torch.no_grad():
        model.character_encoder.word_embedding.weight[0] = 1
    with pytest.raises(ConversionError, match="row 0, padding, is not zero"):
        save_bilm(model, tmp_path / "back", vocabulary=words)
    whole = ElmoForPreTraining(model.config)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ConversionError, match="is to be a checkpoint of TensorFlow, which is needed to write it"):
        save_tf_checkpoint(whole, tmp_path / "back", vocabulary=words)
    with pytest.raises(ConversionError, match="one of 8 words"):
        save_tf_checkpoint(whole, tmp_path / "back", vocabulary=words[1:])
    assert not (tmp_path / "back").exists()


def test_no_softmax_no_checkpoint(folder, tmp_path, refuse):
    convert_to_folder(folder, tmp_path / "model")
    refuse(convert_to_tf_checkpoint, tmp_path / "model", "is not a language model: it has no softmax")
    result = CliRunner().invoke(app, ["convert", str(folder), str(tmp_path / "new"), "--tensorflow"])
    assert result.exit_code == 2
    assert "only a model folder is written as a checkpoint" in result.stderr
