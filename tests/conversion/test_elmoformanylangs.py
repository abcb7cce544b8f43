"""ELMoForManyLangs: files as its training writes them, converted; beside formulas in numpy and the program itself."""

import copy
import gzip
import json
import os
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from manylangs_original import (
    OPTIONS,
    OPTIONS_NAME,
    NumpyManyLangs,
    dictionaries,
    random_tensors,
    write_manylangs,
)
from manylangs_process import PYTHON, read_with_original
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer, score_sentences
from hf_elmo.commands.app import app
from hf_elmo.compat.elmoformanylangs import Embedder
from hf_elmo.conversion import (
    ConversionError,
    convert_elmoformanylangs,
    convert_from_folder,
    is_elmoformanylangs,
    load_elmoformanylangs,
)

TEXT = [
    ["Ho", "las", "ei", "bok", ",", "og", "ho", "lo", "då", "ho", "høyrde", "det", "."],
    ["Она", "читает", "книгу", ",", "а", "он", "читал", "вчера", "!"],
    ["我们", "在", "北京", "大学", "读书", "。"],
    ["Ho", "читает", "。"],
]
# Unknown words and characters; a word of several scripts; words too long, one whose beginning is a word that is known.
STRANGE = [
    ["høyrdes", "€", "北京人", "😀", "", "Nebukadnesarane", "читательница"],
    ["<pad>", "<oov>", "<bow>", "[PAD]", "a\ud800b"],
]
LONG = "читательни"
# What both of the program's own files of sizes hold (elmoformanylangs/configs).
PUBLISHED_OPTIONS = {
    "encoder": {"name": "elmo", "projection_dim": 512, "cell_clip": 3, "proj_clip": 3, "dim": 4096, "n_layers": 2},
    "token_embedder": {
        "name": "cnn",
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "word_dim": 100,
        "char_dim": 50,
        "max_characters_per_token": 50,
    },
    "classifier": {"name": "sampled_softmax", "n_samples": 8192},
    "dropout": 0.1,
}
VARIANTS = {
    "as published": {},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3},
    "no highway": {"n_highway": 0},
    "tanh": {"activation": "tanh"},
    "no clips": {"cell_clip": 0, "proj_clip": None},
    "no word embedding": {"word_dim": 0},
    "longer words": {"max_characters_per_token": 30},
}


def options_with(**changes):
    options = copy.deepcopy(OPTIONS)
    for name, value in changes.items():
        options["encoder" if name in options["encoder"] else "token_embedder"][name] = value
    return options


def make(folder, options=OPTIONS, **how):
    """A model's folder, and the model in numpy."""
    characters, words = dictionaries([*TEXT, [LONG]])
    # `a` and `b` are no letters of the text.
    tensors = random_tensors(options, len(characters), len(words))
    write_manylangs(folder, options, characters, words, tensors, **how)
    return NumpyManyLangs(options, characters, words, *tensors[:2])


def layers_of(model, tokenizer, words):
    inputs = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        layers = model.base_model(**inputs, output_hidden_states=True).hidden_states
    return torch.cat(layers).numpy()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_layer_is_that_of_the_formulas(tmp_path, changes):
    original = make(tmp_path / "model", options_with(**changes), zipped="n_layers" in changes)
    model, tokenizer = load_elmoformanylangs(tmp_path / "model")
    for words in TEXT + STRANGE:
        expected, _ = original.read(words)
        np.testing.assert_allclose(layers_of(model, tokenizer, words), expected, rtol=0, atol=1e-5)
    assert np.abs(expected).max() > 1
    if changes == {}:
        assert 0.02 < (np.abs(original.cells) >= 3).mean() < 0.9
        assert 0.02 < (np.abs(original.projected) >= 3).mean() < 0.9


def test_the_folder_is_read_like_any_other(tmp_path):
    original = make(tmp_path / "model")
    convert_elmoformanylangs(tmp_path / "model", tmp_path / "out")
    model, tokenizer = (
        AutoModel.from_pretrained(tmp_path / "out").eval(),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert (type(model), type(tokenizer)) == (ElmoModel, ElmoTokenizer)
    assert not (tmp_path / "out" / "options.json").exists()
    for words in TEXT + STRANGE:
        expected, _ = original.read(words)
        layers = layers_of(model, tokenizer, words)
        np.testing.assert_allclose(layers, expected, rtol=0, atol=1e-5)
        with torch.no_grad():
            mix = model(**tokenizer([words], is_split_into_words=True, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(mix, expected.mean(axis=0), rtol=0, atol=1e-5)
    with pytest.raises(ConversionError, match=r"over UTF-8 bytes.* of a dictionary, word vectors of 5, and cannot"):
        convert_from_folder(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_tensors_that_were_on_a_gpu(tmp_path):
    """As the published ones were, of which the files tell still."""
    original = make(tmp_path / "model", zipped=False)
    for name in ("encoder.pkl", "token_embedder.pkl"):
        data = (tmp_path / "model" / name).read_bytes()
        changed = data.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
        changed = changed.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
        assert len(changed) >= len(data) + 8
        (tmp_path / "model" / name).write_bytes(changed)
    model, tokenizer = load_elmoformanylangs(tmp_path / "model")
    np.testing.assert_allclose(layers_of(model, tokenizer, TEXT[0]), original.read(TEXT[0])[0], rtol=0, atol=1e-5)


def test_a_cut_word_is_looked_up_as_what_is_left(tmp_path):
    make(tmp_path / "model")
    model, tokenizer = load_elmoformanylangs(tmp_path / "model")
    words = [LONG, LONG + "ца", "Ho", "Hooooooooooooo"]
    ids = tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
    assert ids == [tokenizer.convert_tokens_to_ids(LONG)] * 2 + [tokenizer.convert_tokens_to_ids("Ho"), 1]
    assert ids[0] > 3
    layers = layers_of(model, tokenizer, words)[0]
    assert np.array_equal(layers[1], layers[2])


def test_begin_and_end_of_words_are_swapped(tmp_path):
    original = make(tmp_path / "model")
    model, tokenizer = load_elmoformanylangs(tmp_path / "model")
    rows = original.weights["char_emb_layer.embedding.weight"]
    embedding = model.character_encoder.char_embedding.weight.detach().numpy()
    (row,) = tokenizer([["я"]], is_split_into_words=True, add_special_tokens=False)["character_ids"][0]
    assert (row[0], row[2]) == (259, 260)
    assert np.array_equal(embedding[row[0]], rows[original.characters["<eow>"]])
    assert np.array_equal(embedding[row[1]], rows[original.characters["<oov>"]])
    assert np.array_equal(embedding[row[2]], rows[original.characters["<bow>"]])
    assert np.array_equal(embedding[row[3]], rows[original.characters["<pad>"]])
    assert not embedding[0].any()


def test_white_space_in_dictionaries(tmp_path):
    """The original's reader strips lines, and takes what is left of white space for the character U+3000."""
    characters, words = dictionaries(TEXT)
    characters[3:3] = ["\xa0", "\u3000"]
    characters.append(" ")
    words[6:6] = ["\u3000"]
    tensors = random_tensors(OPTIONS, len(characters), len(words))
    folder = write_manylangs(tmp_path / "model", OPTIONS, characters, words, tensors)
    with pytest.warns(UserWarning, match=r"char\.dic: 2 of its lines have an entry that was there before"):
        model, tokenizer = load_elmoformanylangs(folder)
    original = NumpyManyLangs(OPTIONS, characters, words, *tensors[:2])
    original.characters = {**original.characters, "\u3000": characters.index(" ")}
    del original.characters["\xa0"], original.characters[" "]
    for sentence in [["\u3000", "a\u3000", "\xa0", "bok \xa0"], *TEXT]:
        expected, _ = original.read(sentence)
        np.testing.assert_allclose(layers_of(model, tokenizer, sentence), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["two words on one number", "two characters on one number", "a word twice"])
def test_dictionaries_that_the_original_reads_all_the_same(tmp_path, kind):
    """Its reader makes a dict of the lines: entries share a row, and of one twice there the last line counts."""
    characters, words = dictionaries(TEXT)
    counts = len(characters) + kind.startswith("two characters"), len(words) + kind.startswith("two words")
    tensors = random_tensors(OPTIONS, *counts)
    folder = write_manylangs(tmp_path / "model", OPTIONS, characters, words, tensors)
    original = NumpyManyLangs(OPTIONS, characters, words, *tensors[:2])
    if kind == "two words on one number":
        name, line = "word.dic", f"bøker\t{words.index('bok')}\n"
        original.words = {**original.words, "bøker": words.index("bok")}
    elif kind == "two characters on one number":
        name, line = "char.dic", f"€\t{characters.index('b')}\n"
        original.characters = {**original.characters, "€": characters.index("b")}
    else:
        name, line = "word.dic", f"bok\t{words.index('ei')}\n"
        original.words = {**original.words, "bok": words.index("ei")}
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(line)
    with pytest.warns(UserWarning, match=f"{name}.* as in the original program"):
        model, tokenizer = load_elmoformanylangs(folder)
    for sentence in [["bøker", "bok", "ei", "€"], *TEXT]:
        expected, _ = original.read(sentence)
        np.testing.assert_allclose(layers_of(model, tokenizer, sentence), expected, rtol=0, atol=1e-5)


def test_dictionaries_of_other_kinds_of_entries(tmp_path):
    characters, words = dictionaries([*TEXT, ["<S>", "[UNK]", "<UNK>", "[PAD]", "日"]])
    characters.insert(2, "ng")
    tensors = random_tensors(OPTIONS, len(characters), len(words))
    folder = write_manylangs(tmp_path / "model", OPTIONS, characters, words, tensors)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, tokenizer = load_elmoformanylangs(folder)
    messages = [str(warning.message) for warning in caught]
    assert any("char.dic: 1 of its entries are no single characters" in message for message in messages)
    assert any("4 of its words mean something else here, and are left out (<S>, <UNK>" in text for text in messages)
    original = NumpyManyLangs(OPTIONS, characters, words, *tensors[:2])
    for sentence in [["ng", "日", "日ng"], *TEXT]:
        expected, _ = original.read(sentence)
        np.testing.assert_allclose(layers_of(model, tokenizer, sentence), expected, rtol=0, atol=1e-5)


class TestSizes:
    """The second file, which `config_path` names, mostly somewhere else."""

    @pytest.mark.parametrize("path", [OPTIONS_NAME, f"../../configs/{OPTIONS_NAME}", rf"C:\elmo\{OPTIONS_NAME}"])
    def test_only_its_name_counts(self, tmp_path, path):
        make(tmp_path / "model", config_path=path)
        (tmp_path / "model" / OPTIONS_NAME).write_text(json.dumps(OPTIONS), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model, _ = load_elmoformanylangs(tmp_path / "model")
        assert model.config.cell_size == 20

    def test_a_file_elsewhere_is_not_read(self, tmp_path):
        (tmp_path / "other.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
        make(tmp_path / "model", config_path=str(tmp_path / "other.json"))
        with pytest.raises(
            ConversionError, match=r"config\.json: its config_path is .*there is no 'other\.json' beside"
        ):
            load_elmoformanylangs(tmp_path / "model")

    def test_a_file_deeper_inside_is_read(self, tmp_path):
        make(tmp_path / "model", config_path=f"configs/{OPTIONS_NAME}")
        (tmp_path / "model" / "configs").mkdir()
        (tmp_path / "model" / "configs" / OPTIONS_NAME).write_text(json.dumps(OPTIONS), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model, _ = load_elmoformanylangs(tmp_path / "model")
        assert model.config.cell_size == 20

    @pytest.mark.parametrize("path", ["{outside}/{name}", "../configs/{name}"])
    def test_a_file_elsewhere_of_a_published_name_that_says_something_else(self, tmp_path, path):
        """Its values are not those of the program's own file of this name: neither may be taken unasked."""
        name = "cnn_50_100_512_4096_sample.json"
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / name).write_text(json.dumps(OPTIONS), encoding="utf-8")
        make(tmp_path / "model", config_path=path.format(outside=tmp_path / "configs", name=name))
        with pytest.raises(ConversionError, match=r"lies outside of .* is not read.* differs .*\(options=\.\.\.\)"):
            load_elmoformanylangs(tmp_path / "model")
        chosen = tmp_path / "configs" / name
        assert load_elmoformanylangs(tmp_path / "model", options=chosen)[0].config.cell_size == 20
        result = CliRunner().invoke(app, ["convert", str(tmp_path / "model"), str(tmp_path / "new")])
        assert result.exit_code == 1
        assert "(--options)" in result.stderr
        assert "options=..." not in result.stderr

    def test_a_file_elsewhere_that_is_the_published_one(self, tmp_path):
        name = "cnn_50_100_512_4096_sample.json"
        (tmp_path / name).write_text(json.dumps(PUBLISHED_OPTIONS), encoding="utf-8")
        make(tmp_path / "model", config_path=str(tmp_path / name))
        with (
            pytest.warns(UserWarning, match="lies outside of .* holds the values that come with ELMoForManyLangs"),
            pytest.raises(ConversionError, match=r"The sizes expected come from cnn_50_100_512_4096_sample\.json"),
        ):
            load_elmoformanylangs(tmp_path / "model")

    def test_given_ones(self, tmp_path):
        (tmp_path / "other.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
        make(tmp_path / "model", config_path="nowhere.json")
        for options in (tmp_path / "other.json", str(tmp_path / "other.json"), OPTIONS):
            assert load_elmoformanylangs(tmp_path / "model", options=options)[0].config.num_layers == 2

    def test_published_ones(self, tmp_path):
        """The tiny weights do not fit them, which shows what they are."""
        make(tmp_path / "model", config_path="/users4/conll18st/configs/cnn_50_100_512_4096_sample.json")
        with (
            pytest.warns(
                UserWarning, match="is not there; taken are the values of the cnn_50_100_512_4096_sample.json"
            ),
            pytest.raises(ConversionError) as caught,
        ):
            load_elmoformanylangs(tmp_path / "model")
        message = str(caught.value)
        for part in (
            "convolutions.6.weight",
            "projection.weight (is (6, 23), expected (512, 2148))",
            "highways._layers.1.bias (is (36,), expected (4096,))",
            "The sizes expected come from cnn_50_100_512_4096_sample.json (as published) and the dictionaries.",
        ):
            assert part in message


class TestClassifier:
    """The softmax over words, which is rarely saved."""

    @pytest.mark.parametrize("kind", ["sampled_softmax", "softmax"])
    def test_it_predicts_words(self, tmp_path, kind):
        characters, words = dictionaries(TEXT)
        embedder, encoder, classifier = random_tensors(OPTIONS, len(characters), len(words))
        weight, bias = classifier["column_emb.weight"].numpy(), classifier["column_bias.weight"].squeeze(1).numpy()
        if kind == "softmax":
            classifier = {"hidden2tag.weight": torch.tensor(weight), "hidden2tag.bias": torch.tensor(bias)}
        write_manylangs(
            tmp_path / "model", OPTIONS, characters, words, (embedder, encoder, classifier), classifier=True
        )
        convert_elmoformanylangs(tmp_path / "model", tmp_path / "out")
        model = ElmoForPreTraining.from_pretrained(tmp_path / "out").eval()
        tokenizer = ElmoTokenizer.from_pretrained(tmp_path / "out")
        original = NumpyManyLangs(OPTIONS, characters, words, embedder, encoder)
        sentence = TEXT[0]
        (scored,) = score_sentences(model, tokenizer, [sentence])
        layers, _ = original.read(sentence)
        ids = [original.words.get(word, 0) for word in ("<bos>", *sentence, "<eos>")]
        # What stands at a place is read behind what is predicted there, in either direction.
        forward, backward = layers[-1][:-1, :6], layers[-1][1:, 6:]
        for states, targets, found in ((forward, ids[1:], scored.forward), (backward, ids[:-1], scored.backward)):
            logits = states @ weight.T + bias
            expected = logits[np.arange(len(targets)), targets] - np.log(np.exp(logits).sum(axis=1))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert not scored.unknown.any()

    def test_the_kind_that_is_computed_is_left_out(self, tmp_path):
        make(tmp_path / "model")
        torch.save({"M": torch.zeros(6, 2), "corr.weight": torch.zeros(3, 2)}, tmp_path / "model" / "classifier.pkl")
        with pytest.warns(UserWarning, match=r"classifier\.pkl is left out: it is a cnn_softmax"):
            model, _ = load_elmoformanylangs(tmp_path / "model")
        assert type(model) is ElmoModel

    def test_the_rows_of_another_dictionary(self, tmp_path):
        original = make(tmp_path / "model")
        *_, classifier = random_tensors(OPTIONS, 30, len(original.words) - 1)
        torch.save(classifier, tmp_path / "model" / "classifier.pkl")
        count = len(original.words)
        with pytest.raises(ConversionError) as caught:
            load_elmoformanylangs(tmp_path / "model")
        assert f"column_bias.weight (is ({count - 1}, 1), expected ({count}, 1))" in str(caught.value)


@pytest.mark.parametrize("inside", ["", "144/"])
def test_archives(tmp_path, inside):
    original = make(tmp_path / "model", zipped=False)
    with zipfile.ZipFile(tmp_path / "144.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "model").iterdir():
            archive.write(file, inside + file.name)
        archive.writestr(inside + "README", "See the licence.")
    assert is_elmoformanylangs(tmp_path / "144.zip")
    assert is_elmoformanylangs(tmp_path / "model")
    model, tokenizer = load_elmoformanylangs(tmp_path / "144.zip")
    np.testing.assert_allclose(layers_of(model, tokenizer, TEXT[1]), original.read(TEXT[1])[0], rtol=0, atol=1e-5)


def test_other_things_are_not_taken_for_one(tmp_path, tiny_model_folder):
    (tmp_path / "file.zip").write_bytes(b"PK\x03\x04 cut off")
    for source in (tiny_model_folder, tmp_path, tmp_path / "absent", tmp_path / "file.zip"):
        assert not is_elmoformanylangs(source)


class TestCommand:
    def run(self, *arguments, status=0):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == status, result.output
        return result

    def test_convert(self, tmp_path):
        original = make(tmp_path / "model", classifier=True)
        result = self.run("convert", tmp_path / "model", tmp_path / "out")
        assert "model.safetensors" in result.stderr
        model, tokenizer = (
            ElmoModel.from_pretrained(tmp_path / "out").eval(),
            ElmoTokenizer.from_pretrained(tmp_path / "out"),
        )
        np.testing.assert_allclose(layers_of(model, tokenizer, TEXT[2]), original.read(TEXT[2])[0], rtol=0, atol=1e-5)

    def test_other_commands(self, tmp_path):
        make(tmp_path / "model")
        (tmp_path / "text.txt").write_text(f"{LONG}ца bok\n", encoding="utf-8")
        embed = ["embed", "--file", tmp_path / "text.txt", "--output", tmp_path / "vectors.npz"]
        result = self.run(*embed, "--layers", "all", "--model", tmp_path / "model", status=1)
        assert f"convert it first: hf-elmo convert {tmp_path / 'model'} NEW_FOLDER" in result.stderr
        self.run("convert", tmp_path / "model", tmp_path / "out")
        result = self.run(*embed, "--layers", "all", "--model", tmp_path / "out")
        assert "1 word (1 different) of more than 10 characters" in result.stderr
        assert f"{LONG}ца (12 characters)" in result.stderr
        (expected,) = Embedder(tmp_path / "model").sents2elmo([[f"{LONG}ца", "bok"]], -2)
        with np.load(tmp_path / "vectors.npz") as vectors:
            np.testing.assert_allclose(vectors["0"], expected, rtol=0, atol=1e-5)
        facts = json.loads(self.run("info", tmp_path / "out", "--json").stdout)["sizes and switches"]
        assert (facts["byte_characters"], facts["word_embed_dim"]) == (False, 5)

    def test_options(self, tmp_path):
        make(tmp_path / "model", config_path="nowhere.json")
        result = self.run("convert", tmp_path / "model", tmp_path / "out", status=1)
        assert "nowhere.json" in result.stderr
        assert not (tmp_path / "out").exists()
        (tmp_path / "sizes.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
        self.run("convert", tmp_path / "model", tmp_path / "out", "--options", tmp_path / "sizes.json")
        result = self.run("convert", tmp_path / "model", tmp_path / "o", "--vocabulary", tmp_path / "words", status=2)
        assert "dictionaries of its own" in result.stderr


def touch(path):
    """What a payload would call."""
    raise AssertionError(f"{path}: a pickle was executed")


class Payload:
    def __reduce__(self):
        return touch, ("payload",)


def lines(*entries):
    return "".join(f"{entry}\t{number}\n" for number, entry in enumerate(entries)).encode()


SPECIAL = ["<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>"]
BROKEN_FILES = {
    "no char.dic": ("char.dic", None, "has no char.dic. It has: "),
    "no encoder": ("encoder.pkl", None, "has no encoder.pkl"),
    "no embedder": ("token_embedder.pkl", None, "has no token_embedder.pkl"),
    "no word.dic": ("word.dic", None, "has no word.dic, although"),
    "no config": ("config.json", None, "has no config.json, which names the file of the model's sizes"),
    "config is no JSON": ("config.json", b"{", "config.json is no JSON file"),
    "config names nothing": (
        "config.json",
        b"{}",
        "config.json: config_path must be the path of a JSON file, was: None",
    ),
    "config names a number": (
        "config.json",
        b'{"config_path": 7}',
        "config_path must be the path of a JSON file, was: 7",
    ),
    "config names itself": ("config.json", b'{"config_path": "config.json"}', "nor is it one that comes with"),
    "sizes are a list": (OPTIONS_NAME, b"[]", f"{OPTIONS_NAME} must hold a JSON object"),
    "empty dictionary": ("char.dic", b"", "char.dic is empty"),
    "dictionary of bytes": ("char.dic", b"a\t0\n\xff\t1\n", "char.dic, line 2: the byte 0xff is no UTF-8"),
    "dictionary in UTF-16": ("word.dic", "a\t0\n".encode("utf-16"), "word.dic, line 1: the byte 0xff is no UTF-8"),
    "no numbers": ("char.dic", b"a\nb\n", "char.dic, line 1: expected an entry, a tab and a number, was: 'a'"),
    "three columns": ("word.dic", b"a\t0\nb\tc\t1\n", "word.dic, line 2: expected an entry, a tab and a number"),
    "blank line": ("char.dic", b"a\t0\n\n", "char.dic, line 2: expected an entry, a tab and a number, was: ''"),
    "negative number": ("char.dic", b"a\t-1\n", "char.dic, line 1: expected an entry, a tab and a number"),
    "number too large": (
        "char.dic",
        b"a\t7\n",
        "char.dic, line 1: the number 7 is too large for a dictionary of 1 lines",
    ),
    "no characters": ("char.dic", lines(*SPECIAL), "char.dic has no characters, only other entries"),
    "no <eow>": ("char.dic", lines("a", *SPECIAL[:-1]), "char.dic has no line for <eow>"),
    "no <oov>": ("word.dic", lines("a", "<pad>"), "word.dic has no line for <oov>"),
    "fewer characters": ("char.dic", lines("a", *SPECIAL), "char_emb_layer.embedding.weight (is ("),
    "empty pickle": ("encoder.pkl", b"", "encoder.pkl"),
    "no pickle": ("encoder.pkl", b"<html>not found</html>", "encoder.pkl"),
    "payload": ("encoder.pkl", pickle.dumps(Payload(), protocol=2), "encoder.pkl holds more than tensors"),
    "a plain pickle": ("token_embedder.pkl", pickle.dumps({"a": 1}, protocol=2), "token_embedder.pkl"),
}


@pytest.fixture
def refuse(tmp_path):
    """Converts, expects to be refused with a message that has all the given parts in it, and looks for leftovers."""

    def check(source, *parts):
        before = {entry: entry.stat().st_size for entry in tmp_path.rglob("*")}
        with pytest.raises(ConversionError) as caught:
            convert_elmoformanylangs(source, tmp_path / "new" / "out")
        message = str(caught.value)
        for part in parts:
            assert part in message, message
        assert len(message) < 5000
        assert {entry: entry.stat().st_size for entry in tmp_path.rglob("*")} == before

    return check


@pytest.mark.parametrize(("name", "content", "message"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_files(tmp_path, refuse, name, content, message):
    folder = tmp_path / "model"
    make(folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    refuse(folder, str(folder), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ...}, "encoder must be a JSON object, was: None"),
        ({"encoder.dim": ...}, "the key encoder.dim is missing"),
        ({"encoder.dim": "20"}, "encoder.dim must be a whole number, was: '20'"),
        ({"encoder.n_layers": 10**9}, "encoder.n_layers must be a whole number from 0 to 1,000"),
        ({"encoder.n_layers": 0}, "num_layers must be a whole number of at least 1"),
        ({"encoder.projection_dim": 30}, "projection_dim (30) is larger than cell_size (20)"),
        ({"encoder.projection_dim": 20}, "encoder.projection_dim is 20, the size of what is projected to it"),
        ({"token_embedder.word_dim": -1}, "token_embedder.word_dim must be a whole number from 0"),
        ({"token_embedder.char_dim": 0}, "token_embedder.char_dim is 0, but an ELMo reads characters"),
        ({"token_embedder.filters": [[1, 10**8]]}, "a filter's count must be at most 1,000,000"),
        ({"token_embedder.filters": [[20, 3]]}, "A filter of width 20 does not fit into a word of 12 characters"),
        ({"token_embedder.activation": "gelu"}, "activation must be 'relu' or 'tanh', was: 'gelu'"),
        ({"token_embedder.wordpiece": True}, "token_embedder has options that are not known here"),
        ({"encoder.name": "lstm"}, "encoder.name is 'lstm', expected 'elmo'"),
        ({"token_embedder.name": "LSTM"}, "token_embedder.name is 'LSTM', expected 'cnn'"),
    ],
)
def test_broken_sizes(tmp_path, refuse, changes, message):
    folder = tmp_path / "model"
    make(folder)
    options = copy.deepcopy(OPTIONS)
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = options[sections[0]] if sections else options
        if value is ...:
            del section[key]
        else:
            section[key] = value
    (folder / OPTIONS_NAME).write_text(json.dumps(options), encoding="utf-8")
    refuse(folder, f"{folder / OPTIONS_NAME}: ", message)


def spoil_nan(tensors):
    tensors["convolutions.1.bias"][2] = float("nan")
    tensors["projection.weight"][:2] = float("inf")


BROKEN_TENSORS = {
    "missing": (lambda t: t.pop("projection.bias"), "missing: projection.bias\n"),
    "surplus": (lambda t: t.update({"convolutions.3.bias": torch.ones(3)}), "surplus: convolutions.3.bias\n"),
    "transposed": (lambda t: t.update({"projection.weight": torch.ones(23, 6)}), "expected (6, 23)"),
    "half": (lambda t: t.update({"projection.bias": torch.ones(6).half()}), "projection.bias (is float16)"),
    "no tensor": (lambda t: t.update({"projection.bias": "6"}), "projection.bias (a str, not a tensor)"),
    "repeated": (
        lambda t: t.update({"projection.weight": torch.ones(1, 1).expand(6, 23)}),
        "projection.weight (claims",
    ),
    "sparse": (
        lambda t: t.update({"projection.weight": torch.ones(6, 23).to_sparse()}),
        "unreadable: projection.weight",
    ),
    "a number as key": (lambda t: t.update({7: torch.ones(6)}), "token_embedder.pkl"),
    "not a number": (spoil_nan, "convolutions.1.bias (1 of 6 values), projection.weight (46 of 138 values)"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["today's", "torch 0.4's"])
@pytest.mark.parametrize(("change", "message"), BROKEN_TENSORS.values(), ids=BROKEN_TENSORS)
def test_broken_tensors(tmp_path, refuse, change, message, zipped):
    folder = tmp_path / "model"
    make(folder)
    tensors = torch.load(folder / "token_embedder.pkl", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "token_embedder.pkl", _use_new_zipfile_serialization=zipped)
    refuse(folder, str(folder / "token_embedder.pkl"), message)


def test_payloads_in_files_of_torch(tmp_path, refuse):
    folder = tmp_path / "model"
    make(folder)
    for zipped in (True, False):
        torch.save({"projection.bias": Payload()}, folder / "token_embedder.pkl", _use_new_zipfile_serialization=zipped)
        refuse(folder, f"{folder / 'token_embedder.pkl'} holds more than tensors", "touch")
    torch.save([torch.ones(3)], folder / "token_embedder.pkl")
    refuse(folder, "token_embedder.pkl must hold a state dict, tensors by name, but holds a list")


@pytest.mark.parametrize("zipped", [True, False], ids=["today's", "torch 0.4's"])
def test_files_cut_off(tmp_path, refuse, zipped):
    folder = tmp_path / "model"
    make(folder, zipped=zipped)
    data = (folder / "encoder.pkl").read_bytes()
    for kept in (1, 3, 60, len(data) // 3, len(data) - 900, len(data) - 5):
        (folder / "encoder.pkl").write_bytes(data[:kept])
        refuse(folder, str(folder / "encoder.pkl"))


def test_packed_tensors(tmp_path, refuse):
    folder = tmp_path / "model"
    make(folder)
    with zipfile.ZipFile(folder / "encoder.pkl") as plain:
        members = {member.filename: plain.read(member) for member in plain.infolist()}
    with zipfile.ZipFile(folder / "encoder.pkl", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    refuse(folder, str(folder / "encoder.pkl"), "which torch.save never does")


def test_archives_that_are_traps(tmp_path, refuse):
    make(tmp_path / "model")
    path = tmp_path / "model.zip"

    def pack(*members):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (tmp_path / "model").iterdir():
                archive.write(file, file.name)
            for name, content in members:
                archive.writestr(name, content)
        return path

    link = zipfile.ZipInfo("words")
    link.external_attr = 0o120777 << 16
    refuse(pack((link, "/etc/passwd")), "model.zip: the member 'words' is a link")
    refuse(pack(("../word.dic", "a\t0")), "model.zip: the member '../word.dic'", "leads out of the archive")
    refuse(pack(("classifier.pkl", bytes(2**26 + 1))), "classifier.pkl' claims to be 67,108,865 bytes")
    refuse(
        pack(("classifier.pkl", pickle.dumps(Payload(), protocol=2))),
        "model.zip: classifier.pkl holds more than tensors",
    )
    pack()
    path.write_bytes(path.read_bytes()[:-30])
    refuse(path, "model.zip is not a whole zip archive")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's folder, to be read, and the model in numpy."""
    folder = tmp_path_factory.mktemp("manylangs") / "model"
    return folder, make(folder)


class TestEmbedder:
    """The drop-in interface, beside the formulas."""

    @pytest.mark.parametrize("batch_size", [1, 2, 64])
    def test_layers(self, model, batch_size):
        folder, original = model
        embedder = Embedder(folder, batch_size)
        sentences = [*TEXT, [], *STRANGE, [""]]
        expected = [original.read(words)[0][:, 1:-1] for words in sentences]
        for layer in (-2, -1, 0, 1, 2):
            found = embedder.sents2elmo(sentences, output_layer=layer)
            for vectors, layers in zip(found, expected, strict=True):
                wanted = layers if layer == -2 else layers.mean(axis=0) if layer == -1 else layers[layer]
                assert vectors.dtype == np.float32
                np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)
        default = embedder.sents2elmo(sentences)
        assert all(np.array_equal(*pair) for pair in zip(default, embedder.sents2elmo(sentences, -1), strict=True))
        assert embedder.sents2elmo([]) == []

    def test_boundary_words(self, model):
        folder, original = model
        words = ["<bos>", "bok", "<eos>"]
        (found,) = Embedder(folder).sents2elmo([words], -2)
        np.testing.assert_allclose(found, original.read(words)[0][:, 1:-1], rtol=0, atol=1e-5)

    def test_converted_folders_and_archives(self, model, tmp_path):
        folder, _ = model
        convert_elmoformanylangs(folder, tmp_path / "out")
        with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
        expected = Embedder(folder).sents2elmo(TEXT)
        for source in (tmp_path / "out", tmp_path / "model.zip", str(folder)):
            for vectors, wanted in zip(Embedder(source).sents2elmo(TEXT), expected, strict=True):
                np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)

    def test_state(self, model):
        folder, original = model
        calls = [TEXT[:3], TEXT[2:], [[], *STRANGE], TEXT]
        carrying, plain = Embedder(folder, stateful=True), Embedder(folder)
        states = {}
        for sentences in calls:
            # Rows of a batch are its sentences from the longest on.
            order = sorted(range(len(sentences)), key=lambda number: -len(sentences[number]))
            found = carrying.sents2elmo(sentences, -2)
            for row, number in enumerate(order):
                layers, states[row] = original.read(sentences[number], states.get(row))
                np.testing.assert_allclose(found[number], layers[:, 1:-1], rtol=0, atol=1e-5)
        carrying.reset_states()
        for again in (carrying.sents2elmo(TEXT), plain.sents2elmo(TEXT)):
            expected = [original.read(words)[0][:, 1:-1].mean(axis=0) for words in TEXT]
            for vectors, wanted in zip(again, expected, strict=True):
                np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)

    def test_bad_arguments(self, model, tmp_path):
        folder, _ = model
        with pytest.raises(ValueError, match="batch_size must be at least 1, was: 0"):
            Embedder(folder, 0)
        with pytest.raises(ConversionError, match="is not a model folder"):
            Embedder(tmp_path)
        embedder = Embedder(folder)
        for layer in (3, -3, "all", 0.5):
            with pytest.raises(ValueError, match=f"output_layer must be .*was: {re.escape(repr(layer))}"):
                embedder.sents2elmo(TEXT, layer)
        with pytest.raises(ValueError, match="Sentence 1 must be a list of words, was: 'text'"):
            embedder.sents2elmo([["a"], "text"])
        with pytest.raises(ValueError, match=r"Sentence 0 must consist of words .*at place 0 it has: 1 \(int\)"):
            embedder.sents2elmo([[1]])


@pytest.fixture(scope="session")
def original_python():
    """The program of a Python that has ELMoForManyLangs."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"no ELMoForManyLangs: {PYTHON} names no Python that has elmoformanylangs 0.0.4.post2")
    return python


def treebank(path, count):
    """The words of the first sentences of a CoNLL-U file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        blocks = (block.splitlines() for block in file.read().split("\n\n", count)[:count])
        rows = [[line.split("\t") for line in block if not line.startswith("#")] for block in blocks]
    return [[row[1] for row in block if row[0].isdecimal()] for block in rows]


class TestOriginalProgram:
    """Beside the program itself."""

    @pytest.mark.parametrize("changes", [{}, {"n_layers": 1, "n_highway": 1, "word_dim": 0}], ids=str)
    def test_treebanks(self, original_python, tmp_path, shared_data, changes):
        sentences = []
        for name in ("UD_Chinese-GSDSimp/zh_gsdsimp", "UD_Norwegian-NynorskLIA/no_nynorsklia", "UD_Russian-GSD/ru_gsd"):
            sentences += treebank(shared_data / "ud" / f"{name}-ud-dev.conllu.gz", 20)
        # It has no mean of no words.
        sentences += [["<bos>", *STRANGE[0], "<eos>"], STRANGE[1], [""]]
        options = options_with(**changes)
        # Of half of the sentences, so that there are unknown words and characters in the others.
        characters, words = dictionaries(sentences[:-3:2], most_words=400)
        tensors = random_tensors(options, len(characters), len(words))
        folder = write_manylangs(tmp_path / "model", options, characters, words, tensors)
        layers = range(-2, options["encoder"]["n_layers"] + 1)
        calls = [(sentences, layer) for layer in layers]
        theirs = read_with_original(original_python, folder, calls, carry_state=False)
        embedder = Embedder(folder, batch_size=7)
        for layer, expected in zip(layers, theirs, strict=True):
            for vectors, wanted in zip(embedder.sents2elmo(sentences, layer), expected, strict=True):
                assert vectors.shape == wanted.shape
                np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)

    def test_state(self, original_python, tmp_path):
        make(tmp_path / "model")
        calls = [(TEXT[:3], -2), (TEXT[2:], -2), ([[], *STRANGE], -2), (TEXT, -1)]
        theirs = read_with_original(original_python, tmp_path / "model", calls, carry_state=True)
        embedder = Embedder(tmp_path / "model", stateful=True)
        for (sentences, layer), expected in zip(calls, theirs, strict=True):
            for vectors, wanted in zip(embedder.sents2elmo(sentences, layer), expected, strict=True):
                np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)
