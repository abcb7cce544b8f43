"""Spoilt models of bilm-tf that read words: one clear error, and nothing left behind."""

import gzip
import json
import sys
import zipfile

import h5py
import numpy as np
import pytest
import torch
from numpy_elmo import random_weights
from original_format import OPTIONS, read_arrays, write_arrays
from typer.testing import CliRunner
from word_input_format import LINES, WORDS, random_softmax, stand_in, variables, word_options, write_words

from hf_elmo import ElmoForPreTraining
from hf_elmo.commands.app import app
from hf_elmo.conversion import (
    ConversionError,
    convert_tf_checkpoint,
    convert_to_folder,
    convert_to_tf_checkpoint,
    load_bilm,
    save_bilm,
    save_tf_checkpoint,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")


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


ARRAYS = random_weights(word_options(), 3, LINES)


@pytest.mark.parametrize("key", sorted(ARRAYS))
def test_a_missing_array(folder, refuse, key):
    _arrays(lambda arrays: arrays.pop(key))(folder)
    refuse(convert_to_folder, folder, str(folder / "weights.hdf5"), f"missing: {key}")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("embedding", (12, 6, 1)),
        ("embedding", (12, 0)),
        (f"{CELL}/W_0", (80, 12)),
        (f"{CELL}/W_P_0", (6, 20)),
        (f"{CELL}/B", ()),
        ("RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/W_0", (12, 79)),
    ],
)
def test_another_shape(folder, refuse, key, shape):
    _set(key, np.ones(shape, np.float32))(folder)
    refuse(convert_to_folder, folder, f"of another shape: {key} (is {shape}, expected")


def _link(file):
    file["embedding"] = h5py.SoftLink(f"/{CELL}/B")


def _elsewhere(file):
    file["embedding"] = h5py.ExternalLink("other.hdf5", "embedding")


def _never_written(file):
    file.create_dataset("embedding", (12, 6), dtype="float32")


def _huge(file):
    file.create_dataset("embedding", (10**8, 10**4), "float32", chunks=(1000, 1000), compression=9)


HDF5 = {
    "a link": (_link, "a SoftLink to"),
    "a link to another file": (_elsewhere, "a ExternalLink to"),
    "never written": (_never_written, "embedding (its values were never written)"),
    "huge": (_huge, "embedding"),
    "a type": (lambda file: file.update(embedding=np.dtype("float32")), "embedding (a Datatype, not a dataset)"),
    "no shape": (lambda file: file.update(embedding=h5py.Empty("float32")), "embedding (a dataset without shape)"),
    "an empty group": (lambda file: file.create_group("embedding"), "missing: embedding"),
    "two tables": (
        lambda file: file.update({"embedding/embedding": ARRAYS["embedding"], "embedding/again": ARRAYS["embedding"]}),
        "surplus: embedding/again",
    ),
}


@pytest.mark.parametrize(("change", "part"), HDF5.values(), ids=HDF5)
def test_a_table_that_is_none(folder, refuse, change, part):
    with h5py.File(folder / "weights.hdf5", "r+") as file:
        del file["embedding"]
        change(file)
    refuse(convert_to_folder, folder, str(folder / "weights.hdf5"), part)


VOCABULARIES = {
    "latin-1": ("vocab.txt", "<S>\nna\xefve\n".encode("latin-1"), "vocab.txt, line 2: the byte 0xef is no UTF-8"),
    "UTF-16": ("vocab.txt", "\n".join(LINES).encode("utf-16"), "vocab.txt, line 1"),
    "a zero byte": ("vocab.txt", b"<S>\n\0\n", "vocab.txt, line 2: a zero byte"),
    "cut off": ("vocab.txt.gz", gzip.compress(b"the\n" * 1000, mtime=0)[:-9], "vocab.txt.gz is not a sound gzip file"),
    "damaged": ("vocab.txt.gz", gzip.compress(b"the\n", mtime=0)[:-8] + bytes(8), "is not a sound gzip file"),
}


@pytest.mark.parametrize(("name", "content", "part"), VOCABULARIES.values(), ids=VOCABULARIES)
def test_another_vocabulary(folder, refuse, name, content, part):
    (folder / "vocab.txt").unlink()
    (folder / name).write_bytes(content)
    refuse(convert_to_folder, folder, str(folder), part)


@pytest.mark.filterwarnings("default")
def test_a_word_twice(folder):
    """It has its last row, as bilm-tf reads the file; the rest is said."""
    _lines([*LINES[:-1], "the"])(folder)
    with pytest.warns(UserWarning, match="1 of its words are blank or were there before"):
        model, words = load_bilm(folder)
    assert words == WORDS[:-1]
    row = model.character_encoder.word_embedding.weight[4 + words.index("the")]
    np.testing.assert_array_equal(row.detach().numpy(), ARRAYS["embedding"][-1])


def test_two_vocabularies(folder, refuse):
    (folder / "vocab.txt.gz").write_bytes(gzip.compress("\n".join(LINES).encode(), mtime=0))
    refuse(convert_to_folder, folder, "both vocab.txt and vocab.txt.gz", "(vocabulary=...)")


def test_damaged_bytes_of_the_head(folder, tmp_path):
    data, refused = (folder / "weights.hdf5").read_bytes(), 0
    for place in range(0, 700, 35):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        (folder / "weights.hdf5").write_bytes(damaged)
        try:
            load_bilm(folder)
        except ConversionError:
            refused += 1
    assert refused > 3


def test_zips(folder, refuse, tmp_path):
    def pack(name, *members):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.write(folder / member, member)
        return tmp_path / name

    whole = pack("whole.zip", "weights.hdf5", "options.json", "vocab.txt")
    convert_to_folder(whole, tmp_path / "good")
    refuse(convert_to_folder, pack("none.zip", "weights.hdf5", "options.json"), "reads words", "vocab.txt")
    refuse(convert_to_folder, pack("half.zip", "weights.hdf5", "vocab.txt"), "half.zip has no options.json")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-100])
    refuse(convert_to_folder, tmp_path / "cut.zip", "cut.zip is not a whole zip archive")


def test_places(folder, refuse, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.tex").touch()
    refuse(convert_to_folder, folder, "new is not empty")
    refuse(convert_tf_checkpoint, folder, "new is not empty")
