"""Checkpoints of bilm-tf's training: written by TensorFlow, read, and compared with formulas in numpy."""

import hashlib
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, options_with, read_arrays, write_arrays
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, perplexity, score_sentences
from hf_elmo.commands.app import app
from hf_elmo.conversion import ConversionError, convert_from_folder, convert_tf_checkpoint, load_tf_checkpoint
from hf_elmo.hub.model_card import origin_in

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")

WORDS = ["the", ".", "cat", "naïve", "sat", "日本語", "The", "on", "mat"]
LINES = ["<S>", "</S>", "<UNK>", *WORDS]
SENTENCES = [["The", "naïve", "cat", "sat", "unbelievably"], ["日本語", "x" * 80, "."], ["mat"]]

VARIANTS = {
    "two layers": {},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3},
    "no skip connections": {"use_skip_connections": False},
    "no highway": {"n_highway": 0},
    "highway key absent": {"n_highway": ...},
    "no projection in the CNN": {"projection_dim": 18, "n_highway": 1},
    "no projection in the LSTM": {"dim": 6, "n_layers": 1},
    "no projection at all": {"projection_dim": 18, "dim": 18, "n_highway": 0},
    "tanh, no clips": {"activation": "tanh", "cell_clip": None, "proj_clip": ...},
    "characters as in prediction": {"n_characters": 262},
}


def training_options(**changes):
    """What bilm-tf's `bin/train_elmo.py` writes."""
    options = options_with(**{"n_characters": 261, **changes})
    return options | {
        "bidirectional": True,
        "dropout": 0.1,
        "all_clip_norm_val": 10.0,
        "n_epochs": 10,
        "n_train_tokens": 768648884,
        "batch_size": 128,
        "n_tokens_vocab": len(LINES),
        "unroll_steps": 20,
        "n_negative_samples_batch": 8,
    }


def random_softmax(options, lines=None):
    lines = lines or len(LINES)
    rng = np.random.default_rng(8)
    size = options["lstm"]["projection_dim"]
    weights = {"lm/softmax/W": rng.normal(0, 2 / np.sqrt(size), (lines, size)), "lm/softmax/b": rng.normal(0, 1, lines)}
    return {name: array.astype(np.float32) for name, array in weights.items()}


def variables(options, arrays):
    """Arrays under the names of bilm-tf's HDF5 files under those of its training: as real checkpoints have them."""
    renamed = {}
    for key, array in arrays.items():
        if key.startswith("RNN_"):
            direction, _, _, cell, _, weight = key.split("/")
            stack = f"multi_rnn_cell/cell_{cell[4:]}/" if options["lstm"]["n_layers"] > 1 else ""
            weight = {"W_0": "kernel", "B": "bias", "W_P_0": "projection/kernel"}[weight]
            key = f"{direction}/rnn/{stack}lstm_cell/{weight}"
        renamed[f"lm/{key}"] = array
    return renamed


def write_beside(folder, options, lines=LINES):
    folder.mkdir(exist_ok=True)
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def log_softmax(logits):
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def log_probabilities(options, arrays, softmax, words, lines=LINES):
    """Of each word after those before it, and of each before those behind it, by bilm-tf's numbers of words."""
    rows = {word: row for row, word in enumerate(lines)}
    ids = [rows.get(word, rows["<UNK>"]) for word in ["<S>", *words, "</S>"]]
    top = NumpyElmo(options, arrays).read(words)[0][-1]
    size = options["lstm"]["projection_dim"]
    weight, bias = softmax["lm/softmax/W"].astype(np.float64), softmax["lm/softmax/b"]
    last = len(words) + 1
    forward = [log_softmax(weight @ top[place, :size] + bias)[ids[place + 1]] for place in range(last)]
    backward = [log_softmax(weight @ top[place + 1, size:] + bias)[ids[place]] for place in range(last)]
    return np.array(forward), np.array(backward)


def assert_computes(source, options, arrays, softmax):
    """Reads a checkpoint, and compares layers and log-probabilities with the formulas."""
    with pytest.warns(UserWarning, match="left out"):
        model, words = load_tf_checkpoint(source)
    assert words == WORDS
    assert not model.training
    tokenizer = ElmoTokenizer.create(words)
    inputs = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        layers = torch.stack(model(**inputs, output_hidden_states=True).hidden_states).numpy()
    for row, sentence in enumerate(SENTENCES):
        expected, _ = NumpyElmo(options, arrays).read(sentence)
        np.testing.assert_allclose(layers[:, row, : len(sentence) + 2], expected, atol=1e-5, rtol=0)
        assert np.abs(expected).max() > 0.5
    for scored in score_sentences(model, tokenizer, SENTENCES):
        forward, backward = log_probabilities(options, arrays, softmax, scored.words)
        np.testing.assert_allclose(scored.forward, forward, atol=1e-5, rtol=0)
        np.testing.assert_allclose(scored.backward, backward, atol=1e-5, rtol=0)
        # Else a wrong row would hardly be noticed.
        assert np.ptp(forward) > 0.3


@pytest.fixture(scope="module")
def written(process, tmp_path_factory):
    """A checkpoint in its folder, with everything beside it. To be copied, not changed."""
    options = training_options()
    folder = write_beside(tmp_path_factory.mktemp("written") / "save_dir", options)
    arrays, softmax = random_weights(options, seed=5), random_softmax(options)
    process.write(folder / "model.ckpt", variables(options, arrays) | softmax, step=1250, shards=3)
    return folder, options, arrays, softmax


@pytest.fixture
def folder(written, tmp_path):
    """A copy of it, to be spoilt; the file `checkpoint` names the old place."""
    return shutil.copytree(written[0], tmp_path / "save_dir")


# --- numbers


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_layers_and_probabilities_are_what_the_formulas_say(tensorflow, tmp_path, changes):
    options = training_options(**changes)
    arrays, softmax = random_weights(options, seed=3), random_softmax(options)
    source = write_beside(tmp_path / "save_dir", options)
    tensorflow.write(source / "model.ckpt", variables(options, arrays) | softmax, step=30)
    assert_computes(source, options, arrays, softmax)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_numbers_without_tensorflow(tmp_path, monkeypatch, n_layers):
    """The same where TensorFlow is not to be had: what it would have read is given instead."""
    options = training_options(n_layers=n_layers)
    arrays, softmax = random_weights(options, seed=4), random_softmax(options)
    content = variables(options, arrays) | softmax
    content |= {f"{name}/Adagrad": np.ones_like(array) for name, array in content.items()}
    content |= {"global_step": np.float32(5), "train_perplexity": np.float32(0)}

    class Reader:
        def __init__(self, prefix):
            assert prefix == str(tmp_path / "save_dir" / "model.ckpt-5")

        def get_variable_to_shape_map(self):
            return {name: list(array.shape) for name, array in content.items()}

        def get_variable_to_dtype_map(self):
            return {name: array.dtype for name, array in content.items()}

        def get_tensor(self, name):
            return content[name]

    module = SimpleNamespace(train=SimpleNamespace(load_checkpoint=Reader), __spec__=None)
    source = write_beside(tmp_path / "save_dir", options)
    (source / "model.ckpt-5.index").touch()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "tensorflow", module)
        assert_computes(source, options, arrays, softmax)


def test_sharded_and_partitioned(tensorflow, written, folder, tmp_path):
    _, options, arrays, softmax = written
    assert [entry.name for entry in sorted(folder.glob("*.data*"))] == [
        f"model.ckpt-1250.data-0000{number}-of-00003" for number in range(3)
    ]
    # What stands beside the model: slots of each weight (the slices of a partitioned one have slots of their own).
    with pytest.warns(UserWarning, match=f"{len(arrays) + 2} arrays of Adagrad, global_step, train_perplexity"):
        convert_tf_checkpoint(folder, tmp_path / "model")
    model, tokenizer = (
        ElmoForPreTraining.from_pretrained(tmp_path / "model"),
        ElmoTokenizer.from_pretrained(tmp_path / "model"),
    )
    for scored in score_sentences(model, tokenizer, SENTENCES):
        forward, backward = log_probabilities(options, arrays, softmax, scored.words)
        np.testing.assert_allclose(scored.forward, forward, atol=1e-5, rtol=0)
        np.testing.assert_allclose(scored.backward, backward, atol=1e-5, rtol=0)


def test_the_softmax_in_our_order(tensorflow, written, folder):
    softmax = written[3]
    model, _ = load_tf_checkpoint(folder)
    weight, bias = model.softmax.weight.detach().numpy(), model.softmax.bias.detach().numpy()
    for name, ours in (("lm/softmax/W", weight), ("lm/softmax/b", bias)):
        theirs = softmax[name]
        np.testing.assert_array_equal(ours[0], np.zeros_like(theirs[0]))
        np.testing.assert_array_equal(ours[1:4], theirs[[2, 0, 1]])
        np.testing.assert_array_equal(ours[4:], theirs[3:])
    inputs = ElmoTokenizer.create(WORDS)("the cat", return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    for logits in (outputs.logits, outputs.backward_logits):
        assert (logits[..., 0] == torch.finfo(torch.float32).min).all()
        assert (logits.log_softmax(-1)[..., 0].exp() == 0).all()


def test_special_words_anywhere_and_words_twice(tensorflow, tmp_path):
    lines = ["the", "</S>", "cat", "the", "[UNK]", "<UNK>", "", "<S>", "sat"]
    options = training_options() | {"n_tokens_vocab": len(lines)}
    arrays, softmax = random_weights(options, seed=6), random_softmax(options, len(lines))
    source = write_beside(tmp_path / "save_dir", options, lines)
    tensorflow.write(source / "model.ckpt", variables(options, arrays) | softmax, step=2)
    with pytest.warns(UserWarning, match=r"vocab\.txt: 3 of its 9 lines are repeated, blank, or special words here"):
        model, words = load_tf_checkpoint(source)
    assert words == ["the", "cat", "sat"]
    # bilm-tf's dictionary: of a word that stands twice, the last place is its number.
    kept = [5, 7, 1, 3, 2, 8]
    assert torch.equal(model.softmax.bias[1:], torch.from_numpy(softmax["lm/softmax/b"])[kept])
    kept_softmax = {name: array[kept] for name, array in softmax.items()}
    (scored,) = score_sentences(model, ElmoTokenizer.create(words), [["the", "sat", "zebra"]])
    expected = log_probabilities(options, arrays, kept_softmax, scored.words, [lines[row] for row in kept])
    np.testing.assert_allclose(scored.forward, expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "samples"),
    [
        ({}, 8),
        ({"sample_softmax": True}, 8),
        ({"sample_softmax": False}, None),
        ({"n_negative_samples_batch": None}, None),
    ],
)
def test_options_of_training(tensorflow, folder, changes, samples):
    (folder / "options.json").write_text(json.dumps(training_options() | {"dropout": 0.25} | changes), encoding="utf-8")
    config = load_tf_checkpoint(folder)[0].config
    assert config.num_negative_samples == samples
    assert config.dropout == 0.25
    assert config.to_options() == json.loads((folder / "options.json").read_text(encoding="utf-8")) | {
        "char_cnn": OPTIONS["char_cnn"]  # with 262 characters, which every program wants for prediction
    }


# --- the command, and what can be done then


def test_commands(tensorflow, written, folder, tmp_path, monkeypatch):
    _, options, arrays, softmax = written
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result

    told = run("convert", folder, "model").stderr
    assert "names 'model.ckpt-1250'" not in told
    assert "arrays of Adagrad, global_step, train_perplexity" in told
    origin = origin_in(tmp_path / "model")
    read = [path for path in folder.iterdir() if ".ckpt-1250." in path.name and path.suffix != ".meta"]
    read += [folder / "options.json", folder / "vocab.txt"]
    assert {file.name: file.sha256 for file in origin.files} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in read
    }
    (tmp_path / "text.txt").write_text("\n".join(map(" ".join, SENTENCES)), encoding="utf-8")
    (row,) = json.loads(run("perplexity", "text.txt", "--model", "model", "--pretokenized", "--json").stdout)
    scores = [
        np.concatenate(each) for each in zip(*(log_probabilities(options, arrays, softmax, s) for s in SENTENCES))
    ]
    for name, score in zip(("forward", "backward"), scores, strict=True):
        assert row[name] == pytest.approx(np.exp(-score.mean()), rel=1e-5)
    found = run("substitutes", "the [MASK] sat", "--model", "model", "--pretokenized").stdout
    assert any(word in found for word in WORDS)
    run("convert", "model", "back")
    assert read_arrays(tmp_path / "back" / "weights.hdf5").keys() == arrays.keys()
    for key, array in read_arrays(tmp_path / "back" / "weights.hdf5").items():
        np.testing.assert_array_equal(array, arrays[key])
    assert (
        json.loads((tmp_path / "back" / "options.json").read_text(encoding="utf-8"))["char_cnn"]["n_characters"] == 262
    )
    assert (tmp_path / "back" / "vocab.txt").read_text(encoding="utf-8").split() == LINES


def test_the_folder_is_one_of_elmo_too(tensorflow, folder, tmp_path):
    convert_tf_checkpoint(folder, tmp_path / "model")
    model, _ = load_tf_checkpoint(folder)
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    assert isinstance(loaded, ElmoModel)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.elmo.state_dict()[name]), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(LINES) + 1


@pytest.mark.parametrize(
    "name", ["", "checkpoint", *(f"model.ckpt-1250{end}" for end in ("", ".index", ".meta", ".data-00001-of-00003"))]
)
def test_every_way_to_name_it(tensorflow, written, folder, tmp_path, name):
    result = CliRunner().invoke(app, ["convert", str(folder / name), str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    bias = ElmoForPreTraining.from_pretrained(tmp_path / "model").softmax.bias.detach().numpy()
    np.testing.assert_array_equal(bias[4:], written[3]["lm/softmax/b"][3:])


def test_the_latest_of_several(tensorflow, written, folder):
    _, options, arrays, softmax = written
    later = softmax | {"lm/softmax/b": softmax["lm/softmax/b"] + 1}
    tensorflow.write(folder / "model.ckpt", variables(options, arrays) | later, step=900)
    for source, expected in ((folder, later), (folder / "model.ckpt-1250", softmax)):
        model, _ = load_tf_checkpoint(source)
        np.testing.assert_array_equal(model.softmax.bias.detach().numpy()[4:], expected["lm/softmax/b"][3:])


def test_parts_from_elsewhere(tensorflow, folder, tmp_path):
    for name in ("options.json", "vocab.txt"):
        (folder / name).rename(tmp_path / name)
    options = tmp_path / "options.json"
    model, words = load_tf_checkpoint(folder, options=options, vocabulary=tmp_path / "vocab.txt")
    again, _ = load_tf_checkpoint(folder, options=json.loads(options.read_text(encoding="utf-8")), vocabulary=LINES)
    assert words == WORDS
    assert torch.equal(model.softmax.weight, again.softmax.weight)
    # As the original was published.
    (tmp_path / "vocab.txt").rename(folder / "vocab-2016-09-10.txt")
    assert load_tf_checkpoint(folder, options=options)[1] == WORDS


def test_no_state_file_and_adam(tensorflow, written, tmp_path):
    _, options, arrays, softmax = written
    source = write_beside(tmp_path / "save_dir", options)
    tensorflow.write(source / "model.ckpt", variables(options, arrays) | softmax, step=7, optimizer="Adam")
    (source / "checkpoint").unlink()
    count = len(arrays) + 2
    with pytest.warns(
        UserWarning, match=f"{count} arrays of Adam, {count} arrays of Adam_1, beta1_power, beta2_power, global_step"
    ):
        model, _ = load_tf_checkpoint(source)
    assert perplexity(model, ElmoTokenizer.create(WORDS), SENTENCES).words == 12


# --- what is no such checkpoint


@pytest.fixture
def refuse(tmp_path):
    """Converts, expects one error with all the given parts, and nothing left behind."""

    def check(source, *parts, **kwargs):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConversionError) as caught:
            convert_tf_checkpoint(source, tmp_path / "new" / "model", **kwargs)
        for part in parts:
            assert part in str(caught.value), str(caught.value)
        assert len(str(caught.value)) < 5000
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.fixture
def unread(tmp_path):
    """A folder that looks like a checkpoint's, as far as one looks before TensorFlow does."""
    folder = write_beside(tmp_path / "save_dir", training_options())
    (folder / "model.ckpt-5.index").write_bytes(b"")
    (folder / "model.ckpt-5.data-00000-of-00001").write_bytes(b"")
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/home/someone/save_dir/model.ckpt-5"\n', encoding="utf-8"
    )
    return folder


def test_without_tensorflow(unread, refuse, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    refuse(unread, str(unread / "model.ckpt-5"), "TensorFlow", "extra `tf`")
    result = CliRunner().invoke(app, ["convert", str(unread), str(tmp_path / "model")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"hf-elmo: {unread / 'model.ckpt-5'} is a checkpoint of TensorFlow")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda folder: (folder / "options.json").unlink(), ["model.ckpt-5", "no options.json", "options=..."]),
        (
            lambda folder: (folder / "vocab.txt").unlink(),
            ["model.ckpt-5", "no vocabulary (vocab.txt)", "vocabulary=..."],
        ),
        (
            lambda folder: (folder / "vocab-old.txt.gz").touch(),
            ["several vocabularies (vocab-old.txt.gz, vocab.txt)", "vocabulary=..."],
        ),
        (lambda folder: (folder / "model.ckpt-5.index").unlink(), ["no index", "model.ckpt-5"]),
        (
            lambda folder: (folder / "checkpoint").write_text("{}", encoding="utf-8"),
            ["checkpoint", "model_checkpoint_path"],
        ),
        (lambda folder: (folder / "checkpoint").write_bytes(b"\xff\0"), ["checkpoint", "model_checkpoint_path"]),
    ],
    ids=["options", "vocabulary", "vocabularies", "index", "no list", "no text"],
)
def test_incomplete_folders(unread, refuse, change, parts):
    change(unread)
    refuse(unread, str(unread), *parts)


def test_which_of_several(unread, refuse):
    (unread / "model.ckpt-9.index").write_bytes(b"")
    (unread / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n', encoding="utf-8")
    refuse(unread, "several checkpoints (model.ckpt-5, model.ckpt-9)", "'model.ckpt-7'")
    (unread / "checkpoint").unlink()
    refuse(unread, "several checkpoints (model.ckpt-5, model.ckpt-9)")
    refuse(unread / "model.ckpt-8", str(unread / "model.ckpt-8.index"))
    refuse(unread / "options.json", str(unread / "options.json.index"))


def test_a_destination_that_is_there(unread, tmp_path):
    with pytest.raises(ConversionError, match="not empty"):
        convert_tf_checkpoint(unread, unread)


def truncate(path, length):
    path.write_bytes(path.read_bytes()[:length])


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("index", lambda path: truncate(path, 0), [".index is damaged"]),
        ("index", lambda path: truncate(path, 300), [".index is damaged"]),
        ("index", lambda path: truncate(path, -1), [".index is damaged"]),
        ("index", lambda path: path.write_bytes(b"no table" * 99), [".index is damaged"]),
        ("index", lambda path: flip(path, 100), [".index is damaged"]),
        ("data-00001-of-00003", lambda path: path.unlink(), ["lm/", "cannot be read", ".data"]),
        ("data-00000-of-00003", lambda path: truncate(path, 0), ["lm/", "cannot be read"]),
        ("data-00002-of-00003", lambda path: truncate(path, 700), ["lm/", "cannot be read"]),
        ("data-00001-of-00003", lambda path: path.write_bytes(bytes(path.stat().st_size)), ["lm/", "cannot be read"]),
    ],
)
def test_damaged_files(tensorflow, folder, refuse, name, change, parts):
    change(folder / f"model.ckpt-1250.{name}")
    refuse(folder, str(folder / "model.ckpt-1250"), *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ["options.json is no JSON file"]),
        ("{}", ["options.json", "is missing"]),
        (json.dumps(training_options(n_characters=300)), ["options.json", "n_characters"]),
        (
            json.dumps(training_options(n_layers=1)),
            ["missing: lm/RNN_0/rnn/lstm_cell/bias", "surplus: lm/RNN_0/rnn/multi"],
        ),
        (json.dumps(training_options(dim=24)), ["lstm_cell/kernel (is (12, 80), expected (12, 96))"]),
        (json.dumps(training_options(n_highway=1)), ["surplus: lm/CNN_high_1/W_carry, lm/CNN_high_1/W_carry/Adagrad"]),
        (json.dumps(training_options() | {"n_tokens_vocab": 13}), ["lm/softmax/W has 12 rows", "n_tokens_vocab", "13"]),
        (json.dumps(training_options() | {"n_negative_samples_batch": -1}), ["options.json", "num_negative_samples"]),
    ],
)
def test_options_that_do_not_fit(tensorflow, folder, refuse, content, parts):
    (folder / "options.json").write_text(content, encoding="utf-8")
    refuse(folder, str(folder), *parts)


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ([*LINES, "more"], ["has 13 lines, but lm/softmax/W", "12 rows"]),
        (LINES[:-1], ["has 11 lines, but lm/softmax/W"]),
        ([*LINES, ""], ["has 13 lines"]),
        (WORDS, ["no line <S>, </S>, <UNK>"]),
        (["<S>", "</S>", "[UNK]", *WORDS], ["no line <UNK>"]),
        ([], ["no line <S>"]),
    ],
)
def test_another_vocabulary(tensorflow, folder, refuse, lines, parts):
    write_beside(folder, training_options(), lines)
    refuse(folder, str(folder / "vocab.txt"), *parts)
    # With a name only if it has one.
    refuse(folder, "The vocabulary has", *parts, vocabulary=lines)


def test_a_vocabulary_in_another_encoding(tensorflow, folder, refuse):
    (folder / "vocab.txt").write_bytes("\n".join(LINES[:7]).encode("latin-1"))
    refuse(folder, f"{folder / 'vocab.txt'}, line 7", "UTF-8")


class TestVariables:
    """Checkpoints of other programs, or with values that are none."""

    @pytest.fixture
    def spoil(self, tensorflow, written, tmp_path, refuse):
        _, options, arrays, softmax = written
        folder = write_beside(tmp_path / "save_dir", options)

        def check(change, *parts, **how):
            changed = {name: array.copy() for name, array in (variables(options, arrays) | softmax).items()}
            changed = change(changed) or changed
            tensorflow.write(folder / "model.ckpt", changed, step=1, **how)
            refuse(folder, str(folder / "model.ckpt-1"), *parts)

        return check

    def test_not_finite(self, spoil):
        def change(arrays):
            arrays["lm/softmax/W"][4, 2] = np.nan
            arrays["lm/CNN/b_cnn_0"][:2] = np.inf

        spoil(change, "infinite or not a number: lm/CNN/b_cnn_0 (2 of 4 values), lm/softmax/W (1 of 72 values)")

    def test_missing(self, spoil):
        spoil(lambda arrays: arrays.pop("lm/softmax/b") is None, "missing: lm/softmax/b")

    def test_no_softmax(self, spoil):
        spoil(
            lambda arrays: {name: array for name, array in arrays.items() if "softmax" not in name},
            "missing: lm/softmax/W, lm/softmax/b",
        )

    def test_surplus(self, spoil):
        def change(arrays):
            arrays["lm/CNN_high_2/b_carry"] = np.zeros(18, np.float32)

        spoil(change, "surplus: lm/CNN_high_2/b_carry, lm/CNN_high_2/b_carry/Adagrad, lm/epoch", others=["lm/epoch"])

    def test_other_dtypes(self, spoil):
        spoil(lambda arrays: None, "not float32: lm/softmax/W (is float16)", dtypes=[("lm/softmax/W", "float16")])

    def test_padding_row(self, spoil):
        def change(arrays):
            arrays["lm/char_embed"] = np.zeros((262, 4), np.float32)

        spoil(change, "of another shape: lm/char_embed (is (262, 4), expected (261, 4))")

    def test_softmax_of_another_shape(self, spoil):
        def change(arrays):
            arrays["lm/softmax/W"] = arrays["lm/softmax/W"].T

        spoil(change, "lm/softmax/W has 6 rows")

    def test_words_for_input(self, spoil):
        def change(arrays):
            arrays["lm/embedding"] = np.zeros((12, 6), np.float32)
            del arrays["lm/char_embed"]

        spoil(change, "of a model that reads words (lm/embedding)", "char_cnn", "do not belong together")

    def test_one_direction(self, spoil):
        spoil(
            lambda arrays: {name.replace("RNN_0/", ""): array for name, array in arrays.items() if "RNN_1" not in name},
            "of one direction",
        )

    def test_another_program(self, spoil):
        spoil(
            lambda arrays: {"bert/" + name: array for name, array in arrays.items()},
            "not from bilm-tf's training",
            "bert/lm/CNN/W_cnn_0",
        )


def test_weights_beside_are_told_of(tensorflow, folder, tmp_path):
    write_arrays(folder / "dumped.hdf5", {"char_embed": np.zeros((261, 4), np.float32)})
    with pytest.warns(UserWarning, match=r"has dumped\.hdf5 too, which is not read"):
        convert_tf_checkpoint(folder, tmp_path / "model")
    convert_from_folder(tmp_path / "model", tmp_path / "back")


def test_a_state_file_that_is_behind(tensorflow, folder):
    (folder / "checkpoint").write_text('model_checkpoint_path: "C:\\\\save\\\\model.ckpt-9"\n', encoding="utf-8")
    with pytest.warns(UserWarning, match=r"names 'model\.ckpt-9', which is not there; model\.ckpt-1250 is"):
        load_tf_checkpoint(folder)
