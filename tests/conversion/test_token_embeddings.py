"""Files of words' context-free vectors, there and back, and models that look words up in them."""

import gzip

import h5py
import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, read_arrays, write_arrays, write_original
from typer.testing import CliRunner

from hf_elmo import ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.conversion import (
    ConversionError,
    convert_to_folder,
    load_bilm,
    load_word_cache,
    read_token_embeddings,
    write_token_embeddings,
)
from hf_elmo.model.heads.glove import read_word_vectors
from hf_elmo.vectors.word_cache import WordCache, cache_words

ARRAYS = random_weights(OPTIONS, seed=1)
WORDS = ["the", "cat", "naïve", "日本語", "x" * 60]
SPECIAL = ["<S>", "</S>", "<UNK>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_bilm(write_original(tmp_path_factory.mktemp("bilm"), OPTIONS, ARRAYS))[0]


@pytest.fixture(scope="module")
def expected():
    """The vector of each word, by the formulas."""
    elmo = NumpyElmo(OPTIONS, ARRAYS)
    return {word: elmo.word_vector(word) for word in [*SPECIAL, "@@UNKNOWN@@", *WORDS, "dog"]}


@pytest.fixture
def file(tmp_path, expected):
    """A file of token embeddings and its vocabulary, as bilm-tf writes them."""
    words = [*SPECIAL, *WORDS]
    write_arrays(tmp_path / "vectors.hdf5", {"embedding": np.array([expected[word] for word in words], np.float32)})
    (tmp_path / "vocab.txt").write_text("\n".join([*words, ""]), encoding="utf-8")
    return tmp_path / "vectors.hdf5"


def encoded(words, **kwargs):
    return ElmoTokenizer.create()([words], is_split_into_words=True, return_tensors="pt", **kwargs)


class TestWriting:
    @pytest.mark.parametrize("name", ["v.hdf5", "v.H5"])
    def test_bilm_tf(self, tmp_path, model, expected, name):
        vocabulary = write_token_embeddings(model, ElmoTokenizer.create(), WORDS, tmp_path / name)
        assert vocabulary.read_text(encoding="utf-8").splitlines() == [*SPECIAL, *WORDS]
        arrays = read_arrays(tmp_path / name)
        assert list(arrays) == ["embedding"]
        assert arrays["embedding"].dtype == np.float32
        np.testing.assert_allclose(arrays["embedding"], [expected[word] for word in [*SPECIAL, *WORDS]], atol=1e-5)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([name, "v.vocabulary.txt"])

    @pytest.mark.parametrize("name", ["v.txt", "v.txt.gz"])
    def test_glove(self, tmp_path, model, expected, name):
        vocabulary = write_token_embeddings(model, ElmoTokenizer.create(), ["<S>", *WORDS], tmp_path / name)
        words = ["@@UNKNOWN@@", "<S>", "</S>", *WORDS]
        assert vocabulary.read_text(encoding="utf-8").splitlines() == words
        opener = gzip.open if name.endswith("gz") else open
        with opener(tmp_path / name, "rt", encoding="utf-8") as lines:
            fields = [line.rstrip("\n").split(" ") for line in lines]
        assert [word for word, *_ in fields] == words
        np.testing.assert_allclose(
            np.array([numbers for _, *numbers in fields], float), [expected[word] for word in words], atol=1e-5
        )
        # A vector is read again bit for bit.
        vectors = read_word_vectors(tmp_path / name, words, 6)
        with torch.no_grad():
            own = model.character_encoder(encoded(words)["character_ids"])[0, 1:-1].numpy()
        np.testing.assert_array_equal(np.array([vectors[word] for word in words]), own)

    def test_many_words(self, tmp_path, model):
        """More than are computed at once: each has its own row."""
        words = [f"w{number}" for number in range(5000)]
        write_token_embeddings(model, ElmoTokenizer.create(), words, tmp_path / "v.hdf5")
        vectors = read_arrays(tmp_path / "v.hdf5")["embedding"]
        with torch.no_grad():
            own = model.character_encoder(encoded(words[4090:4100])["character_ids"])[0, 1:-1].numpy()
        np.testing.assert_allclose(vectors[3 + 4090 : 3 + 4100], own, atol=1e-6)

    @pytest.mark.parametrize("word", ["", "New York", "a\nb", "\ud800", "nb\u00a0sp"])
    def test_a_word_that_cannot_be_written(self, tmp_path, model, word):
        with pytest.raises(ValueError, match="cannot be written"):
            write_token_embeddings(model, ElmoTokenizer.create(), ["the", word], tmp_path / "v.txt")
        assert not list(tmp_path.iterdir())

    def test_other_mistakes(self, tmp_path, model):
        tokenizer = ElmoTokenizer.create()
        with pytest.raises(ValueError, match=r"the name is to end in \.hdf5, \.h5"):
            write_token_embeddings(model, tokenizer, WORDS, tmp_path / "v.npz")
        with pytest.raises(ValueError, match="'the' stands twice"):
            write_token_embeddings(model, tokenizer, ["the", "the"], tmp_path / "v.txt")
        with pytest.raises(ValueError, match="There are no words"):
            write_token_embeddings(model, tokenizer, SPECIAL, tmp_path / "v.hdf5")
        (tmp_path / "v.vocabulary.txt").write_text("mine", encoding="utf-8")
        with pytest.raises(FileExistsError, match=r"v\.vocabulary\.txt exists already"):
            write_token_embeddings(model, tokenizer, WORDS, tmp_path / "v.hdf5")
        assert [entry.name for entry in tmp_path.iterdir()] == ["v.vocabulary.txt"]
        write_token_embeddings(model, tokenizer, WORDS, tmp_path / "v.hdf5", overwrite=True)
        assert (tmp_path / "v.vocabulary.txt").read_text(encoding="utf-8").startswith("<S>\n")

    def test_nothing_is_left_after_an_error(self, tmp_path, model, monkeypatch):
        def stops(*args):
            yield torch.zeros(3, 6)
            raise OSError("the disk is full")

        monkeypatch.setattr("hf_elmo.conversion.token_embeddings.word_vectors", stops)
        for name in ("v.hdf5", "v.txt.gz"):
            with pytest.raises(OSError, match="the disk is full"):
                write_token_embeddings(model, ElmoTokenizer.create(), WORDS, tmp_path / name)
        assert not list(tmp_path.iterdir())


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path):
        write_original(tmp_path / "original", OPTIONS, ARRAYS)
        (tmp_path / "original" / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\ncat\n", encoding="utf-8")
        convert_to_folder(tmp_path / "original", tmp_path / "model")
        return tmp_path / "model"

    def test_the_vocabulary_of_the_model(self, tmp_path, folder, expected):
        output = tmp_path / "v.hdf5"
        result = CliRunner().invoke(app, ["embed-vocabulary", str(output), "-m", str(folder)])
        assert result.exit_code == 0, result.output
        words, vectors = read_token_embeddings(output, tmp_path / "v.vocabulary.txt")
        assert words == [*SPECIAL, "the", "cat"]
        np.testing.assert_allclose(vectors, [expected[word] for word in words], atol=1e-5)

    def test_a_vocabulary_of_ones_own(self, tmp_path, folder, expected):
        with gzip.open(tmp_path / "words.gz", "wt", encoding="utf-8") as stream:
            stream.write("<UNK>\n日本語\ndog\n")
        output = tmp_path / "v.txt"
        arguments = ["embed-vocabulary", str(output), "-m", str(folder), "--vocabulary", str(tmp_path / "words.gz")]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert [line.split(" ")[0] for line in output.read_text(encoding="utf-8").splitlines()][3:] == ["日本語", "dog"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "exists already" in result.output
        assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0

    def test_no_words(self, tmp_path, tiny_model_folder):
        result = CliRunner().invoke(app, ["embed-vocabulary", str(tmp_path / "v.hdf5"), "-m", str(tiny_model_folder)])
        assert result.exit_code == 1
        assert "has no vocabulary of words" in result.output
        (tmp_path / "empty.txt").write_text("<S>\n", encoding="utf-8")
        arguments = ["embed-vocabulary", str(tmp_path / "v.hdf5"), "--vocabulary", str(tmp_path / "empty.txt")]
        assert "has no words" in CliRunner().invoke(app, arguments).output


class TestCache:
    def test_a_file_is_looked_up_in(self, file, model, monkeypatch):
        """Known words come from the file, unknown ones from their characters, and layers are the same."""
        words = ["the", "dog", "日本語", "the", "x" * 60]
        inputs = encoded(words)
        with torch.inference_mode():
            before = model(**inputs, output_hidden_states=True).hidden_states
        cached = load_bilm(write_original(file.parent / "again", OPTIONS, ARRAYS))[0]
        cache = load_word_cache(cached, ElmoTokenizer.create(), file, file.parent / "vocab.txt")
        assert len(cache) == 8
        computed = []
        encode = cached.character_encoder._encode_rows
        monkeypatch.setattr(
            cached.character_encoder,
            "_encode_rows",
            lambda rows: computed.append(rows) or encode(rows),
        )
        with torch.inference_mode():
            after = cached(**inputs, output_hidden_states=True).hidden_states
        for left, right in zip(before, after, strict=True):
            torch.testing.assert_close(left, right, atol=1e-5, rtol=0)
        [rows] = computed
        assert rows[:, 1:4].tolist() == [[byte + 1 for byte in b"dog"]]

    def test_other_vectors_in_the_cache_are_what_comes_out(self, model):
        words = ["the", "cat"]
        cache_words(model, ElmoTokenizer.create(), words, torch.tensor([[1.0] * 6, [2.0] * 6]))
        try:
            with torch.no_grad():
                vectors = model.character_encoder(encoded(["cat", "dog", "the"])["character_ids"])[0]
        finally:
            model.character_encoder.cache = None
        assert vectors[1].tolist() == [2.0] * 6
        assert vectors[3].tolist() == [1.0] * 6
        assert not np.isin(vectors[2].numpy(), [1.0, 2.0]).any()

    def test_training_does_without(self, model):
        cache_words(model, ElmoTokenizer.create(), ["the"], torch.ones(1, 6))
        rows = encoded(["the"])["character_ids"]
        try:
            assert model.character_encoder.char_embedding.weight.requires_grad
            assert not torch.equal(model.character_encoder(rows)[0, 1], torch.ones(6))
            frozen = ElmoForTokenClassification(model.config)
            frozen.elmo.character_encoder.cache = model.character_encoder.cache
            frozen.train()
            assert torch.equal(frozen.elmo.character_encoder(rows)[0, 1], torch.ones(6))
        finally:
            model.character_encoder.cache = None

    def test_a_saved_model_has_none(self, tmp_path, model):
        tokenizer = ElmoTokenizer.create()
        cache_words(model, tokenizer, WORDS)
        try:
            model.save_pretrained(tmp_path)
        finally:
            model.character_encoder.cache = None
        assert ElmoModel.from_pretrained(tmp_path).character_encoder.cache is None

    def test_rows_of_one_hash_are_told_apart(self):
        rows = torch.tensor([[1, 2, 3], [4, 5, 6]])
        cache = WordCache(rows, torch.tensor([[1.0], [2.0]]))
        cache._arrays.factors.zero_()
        cache._arrays.hashes.zero_()
        found = cache.look_up(torch.tensor([[4, 5, 6], [1, 2, 3], [7, 7, 7]]), lambda rows: rows[:, :1].float())
        # One of the two is found by its hash; the others are computed.
        assert found.squeeze(1).tolist() in ([2.0, 1.0, 7.0], [4.0, 1.0, 7.0])

    def test_mistakes(self, model):
        tokenizer = ElmoTokenizer.create()
        with pytest.raises(ValueError, match="no words"):
            cache_words(model, tokenizer, [])
        with pytest.raises(ValueError, match=r"Expected vectors \(2, 6\)"):
            cache_words(model, tokenizer, ["a", "b"], torch.zeros(2, 5))
        with pytest.raises(ValueError, match="Expected rows"):
            WordCache(torch.zeros(2, 3), torch.zeros(3, 3))


# What may be wrong with a file of token embeddings, and what of the message has to name it.
SPOILT = {
    "another key": (lambda f: f.move("embedding", "vectors"), ["missing: embedding", "surplus: vectors"]),
    "a surplus key": (lambda f: f.create_dataset("more", data=np.zeros(2, np.float32)), ["surplus: more"]),
    "weights": (
        lambda f: f.create_dataset("char_embed", data=np.zeros((261, 4), np.float32)),
        ["surplus: char_embed", "This looks like the weights of a biLM"],
    ),
}


class TestBadFiles:
    def replaced(self, file, array):
        with h5py.File(file, "r+") as opened:
            del opened["embedding"]
            opened["embedding"] = array

    @pytest.mark.parametrize(("change", "parts"), SPOILT.values(), ids=SPOILT)
    def test_other_keys(self, file, change, parts):
        with h5py.File(file, "r+") as opened:
            change(opened)
        with pytest.raises(ConversionError) as caught:
            read_token_embeddings(file, file.parent / "vocab.txt")
        assert all(part in str(caught.value) for part in [str(file), *parts]), str(caught.value)

    @pytest.mark.parametrize(
        ("array", "part"),
        [
            (np.zeros((7, 6), np.float32), "embedding (is (7, 6), expected (8, 6))"),
            (np.zeros(48, np.float32), "embedding (is (48,), expected (8, 1))"),
            (np.zeros((8, 6)), "not float32: embedding (is float64)"),
            (np.full((8, 6), np.nan, np.float32), "not a number: embedding (8 of 8 rows)"),
        ],
    )
    def test_other_arrays(self, file, array, part):
        self.replaced(file, array)
        with pytest.raises(ConversionError) as caught:
            read_token_embeddings(file, file.parent / "vocab.txt")
        assert str(file) in str(caught.value)
        assert part in str(caught.value)

    def test_cut_off(self, file):
        file.write_bytes(file.read_bytes()[:1500])
        with pytest.raises(ConversionError, match="is it whole"):
            read_token_embeddings(file, file.parent / "vocab.txt")

    def test_another_vocabulary(self, file, model):
        other = file.parent / "other.txt"
        other.write_text("", encoding="utf-8")
        with pytest.raises(ConversionError, match=r"other\.txt is empty"):
            read_token_embeddings(file, other)
        other.write_text("the\n" * 7, encoding="utf-8")
        with pytest.raises(ConversionError, match=r"a row for each of the 7 lines of .*other\.txt"):
            read_token_embeddings(file, other)
        other.write_text("\n".join([*SPECIAL, *reversed(WORDS)]), encoding="utf-8")
        with pytest.raises(ConversionError, match=r"row 3 of embedding is not the vector that the model has for"):
            load_word_cache(model, ElmoTokenizer.create(), file, other)
        assert model.character_encoder.cache is None

    def test_another_model(self, file, tiny_model_folder):
        model = ElmoModel.from_pretrained(tiny_model_folder)
        with pytest.raises(ConversionError, match="vectors of 6 numbers, but those of the model have 16"):
            load_word_cache(model, ElmoTokenizer.create(), file, file.parent / "vocab.txt")
