"""The original format: real files, every option, there and back."""

import gzip
import json
import zipfile

import h5py
import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, options_with, read_arrays, write_arrays, write_original
from transformers import AutoModel, AutoTokenizer

from hf_elmo import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.conversion import ConversionError, convert_from_folder, convert_to_folder, load_bilm, save_bilm
from hf_elmo.conversion.bilm_hdf5 import KEY_MAP
from hf_elmo.conversion.key_map import resolve

FIXTURES = ["allennlp_elmo", "bilm_tf"]

VARIANTS = {
    "published": {},
    "characters as in training": {"n_characters": 261},
    "no skip connections": {"use_skip_connections": False},
    "no highway": {"n_highway": 0},
    "highway key absent": {"n_highway": ...},
    "one highway": {"n_highway": 1},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3},
    "tanh": {"activation": "tanh"},
    "no projection in the CNN": {"projection_dim": 18},
    "no projection in the LSTM": {"dim": 6},
    "no projection at all": {"projection_dim": 18, "dim": 18, "n_highway": 1},
    "no clips": {"cell_clip": ..., "proj_clip": ...},
    "clips null": {"cell_clip": None, "proj_clip": None},
    "narrow words": {"max_characters_per_token": 9},
    "one filter": {"filters": [[3, 10]]},
    "more than ten layers and filters": {"n_layers": 11, "filters": [[1, 2]] * 12},
}

SENTENCES = [["The", "naïve", "cat", "sat", "unbelievably"], ["日本語", "x" * 80, "."], ["one"]]

parametrize_variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())


@pytest.fixture
def original(tmp_path):
    """A small model in the original format: its folder, options and arrays."""
    arrays = random_weights(OPTIONS, seed=1)
    return write_original(tmp_path / "original", OPTIONS, arrays), arrays


def assert_same_arrays(left, right):
    assert sorted(left) == sorted(right)
    for key, array in left.items():
        assert array.dtype == right[key].dtype == np.dtype("float32"), key
        # As bits: -0.0 and 0.0 are equal as numbers.
        np.testing.assert_array_equal(array.view(np.uint32), right[key].view(np.uint32), err_msg=key)


def activations(model, sentences):
    tokenizer = ElmoTokenizer.create(max_characters_per_token=model.config.max_characters_per_token)
    inputs = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        layers = model(**inputs, output_hidden_states=True).hidden_states
    return [
        torch.stack([layer[row, : len(words) + 2] for layer in layers]).numpy() for row, words in enumerate(sentences)
    ]


@parametrize_variants
def test_every_variant_computes_what_its_formulas_say(tmp_path, changes):
    options = options_with(**changes)
    arrays = random_weights(options, seed=3)
    model, words = load_bilm(write_original(tmp_path / "original", options, arrays))
    assert words is None
    assert not model.training
    # The recurrence is unstable enough in deep models that float32 and float64 part a little.
    tolerance = 1e-4 if model.config.num_layers > 3 else 1e-5
    for sentence, computed in zip(SENTENCES, activations(model, SENTENCES), strict=True):
        expected, _ = NumpyElmo(options, arrays).read(sentence)
        np.testing.assert_allclose(computed, expected, atol=tolerance, rtol=0)
        assert np.abs(expected).max() > 0.5


@parametrize_variants
def test_every_variant_returns_as_it_came(tmp_path, changes):
    options = options_with(**changes)
    options["lstm"]["note"] = {"of": ["no", 1, "concern", None]}
    options |= {"n_train_tokens": 768648884, "unroll_steps": 20, "dropout": 0.25, "dtype": 3}
    arrays = random_weights(options, seed=4)
    arrays["CNN/b_cnn_0"][:2] = [-0.0, 1e-42]
    source = write_original(tmp_path / "original", options, arrays)
    convert_to_folder(source, tmp_path / "folder")
    convert_from_folder(tmp_path / "folder", tmp_path / "back")
    assert_same_arrays(arrays, read_arrays(tmp_path / "back" / "weights.hdf5"))
    assert json.loads((tmp_path / "back" / "options.json").read_text(encoding="utf-8")) == options
    assert sorted(entry.name for entry in (tmp_path / "back").iterdir()) == ["options.json", "weights.hdf5"]


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_return_as_they_came(shared_data, tmp_path, name):
    source = shared_data / "fixtures" / name
    convert_to_folder(source, tmp_path / "folder", vocabulary=source / "vocab_test.txt")
    convert_from_folder(tmp_path / "folder", tmp_path / "back")
    assert_same_arrays(read_arrays(source / "lm_weights.hdf5"), read_arrays(tmp_path / "back" / "weights.hdf5"))
    assert json.loads((tmp_path / "back" / "options.json").read_text(encoding="utf-8")) == json.loads(
        (source / "options.json").read_text(encoding="utf-8")
    )
    special = ["<S>", "</S>", "<UNK>"]
    words = [
        word
        for word in (source / "vocab_test.txt").read_text(encoding="utf-8").split("\n")
        if word not in (*special, "")
    ]
    assert len(words) > 400
    assert (tmp_path / "back" / "vocab.txt").read_text(encoding="utf-8").split("\n") == [*special, *words, ""]


@pytest.mark.parametrize("name", FIXTURES)
def test_the_model_folder_holds_the_same_model(shared_data, tmp_path, name):
    source = shared_data / "fixtures" / name
    model, words = load_bilm(source, vocabulary=source / "vocab_test.txt")
    convert_to_folder(source, tmp_path / "folder", vocabulary=source / "vocab_test.txt")
    loaded, tokenizer = (kind.from_pretrained(tmp_path / "folder") for kind in (AutoModel, AutoTokenizer))
    assert isinstance(loaded, ElmoModel)
    assert isinstance(tokenizer, ElmoTokenizer)
    assert loaded.config.vocab_size == model.config.vocab_size == len(tokenizer) == len(words) + 4
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4, 5]) == ["[PAD]", "[UNK]", "<S>", "</S>", *words[:2]]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_key_map_covers_the_published_layout():
    """Keys and shapes of the published "original" model, as its file has them."""
    with torch.device("meta"):
        parameters = ElmoModel(ElmoConfig.from_preset("original")).state_dict()
    shapes = {link.foreign: link.shape for link in resolve(KEY_MAP, _without_mixes(parameters))}
    assert shapes.pop("char_embed") == (261, 16)
    for number, (width, count) in enumerate([[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]):
        assert shapes.pop(f"CNN/W_cnn_{number}") == (1, width, 16, count)
        assert shapes.pop(f"CNN/b_cnn_{number}") == (count,)
    for number in (0, 1):
        for name in ("carry", "transform"):
            assert shapes.pop(f"CNN_high_{number}/W_{name}") == (2048, 2048)
            assert shapes.pop(f"CNN_high_{number}/b_{name}") == (2048,)
        for layer in (0, 1):
            scope = f"RNN_{number}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            assert shapes.pop(f"{scope}/W_0") == (1024, 16384)
            assert shapes.pop(f"{scope}/B") == (16384,)
            assert shapes.pop(f"{scope}/W_P_0") == (4096, 512)
    assert shapes.pop("CNN_proj/W_proj") == (2048, 512)
    assert shapes.pop("CNN_proj/b_proj") == (512,)
    assert not shapes


def test_a_parameter_without_a_key_is_noticed():
    with torch.device("meta"):
        parameters = _without_mixes(ElmoModel(ElmoConfig.from_preset("small")).state_dict())
    with pytest.raises(LookupError, match=r"bilstm\.forward_layers\.0\.peephole"):
        resolve(KEY_MAP, {**parameters, "bilstm.forward_layers.0.peephole": torch.zeros(3)})
    with pytest.raises(LookupError, match="char_embedding"):
        resolve([*KEY_MAP, KEY_MAP[0]], parameters)


def _without_mixes(parameters):
    return {name: value for name, value in parameters.items() if not name.startswith("scalar_mixes.")}


def test_one_layer_as_training_dumps_it(tmp_path):
    """bilm-tf's dump of a one-layer model has no MultiRNNCell level, which its own reader expects."""
    options = options_with(n_layers=1)
    arrays = random_weights(options, seed=5)
    dumped = {key.replace("/MultiRNNCell/Cell0", ""): array for key, array in arrays.items()}
    assert "RNN_1/RNN/LSTMCell/W_P_0" in dumped
    model, _ = load_bilm(write_original(tmp_path / "dumped", options, dumped))
    save_bilm(model, tmp_path / "back")
    assert_same_arrays(arrays, read_arrays(tmp_path / "back" / "weights.hdf5"))


class TestWhereThePartsAre:
    def test_names_of_the_published_downloads(self, original, tmp_path):
        folder, arrays = original
        name = "elmo_2x4096_512_2048cnn_2xhighway"
        write_original(tmp_path / "downloads", OPTIONS, arrays, f"{name}_weights.hdf5", f"{name}_options.json")
        assert_same_model(load_bilm(tmp_path / "downloads")[0], folder)
        other = options_with(n_layers=1)
        write_original(tmp_path / "downloads", other, random_weights(other, 6), "b_weights.hdf5", "b_options.json")
        assert_same_model(load_bilm(tmp_path / "downloads" / f"{name}_weights.hdf5")[0], folder)
        assert load_bilm(tmp_path / "downloads" / "b_weights.hdf5")[0].config.num_layers == 1

    def test_a_pair_of_any_names(self, original, tmp_path):
        folder, arrays = original
        write_arrays(tmp_path / "a.h5", arrays)
        (tmp_path / "b.txt").write_text(json.dumps(OPTIONS), encoding="utf-8")
        assert_same_model(load_bilm(tmp_path / "a.h5", options=tmp_path / "b.txt")[0], folder)
        assert_same_model(load_bilm(str(tmp_path / "a.h5"), options=OPTIONS)[0], folder)

    def test_model_hdf5_beside_files_of_vectors(self, original, tmp_path):
        folder, arrays = original
        write_original(tmp_path / "nlpl", OPTIONS, arrays, "model.hdf5")
        write_arrays(tmp_path / "nlpl" / "embeddings.hdf5", {"0": np.zeros((3, 4, 12), np.float32)})
        (tmp_path / "nlpl" / "meta.json").write_text('{"id": 1}', encoding="utf-8")
        (tmp_path / "nlpl" / "._model.hdf5").write_bytes(b"shadow")
        assert_same_model(load_bilm(tmp_path / "nlpl")[0], folder)

    def test_relative_paths(self, original, monkeypatch):
        folder, _ = original
        monkeypatch.chdir(folder)
        assert_same_model(load_bilm("weights.hdf5")[0], folder)
        assert_same_model(load_bilm(".")[0], folder)

    @pytest.mark.parametrize("top", ["", "145/"], ids=["flat", "in one folder"])
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_zip_archives_of_the_nlpl_repository(self, original, tmp_path, monkeypatch, top, compression):
        folder, _ = original
        with zipfile.ZipFile(tmp_path / "145.zip", "w", compression) as archive:
            if top:
                archive.writestr(top, "")
            archive.write(folder / "weights.hdf5", top + "model.hdf5")
            archive.write(folder / "options.json", top + "options.json")
            archive.writestr(top + "vocab.txt", "<S>\n</S>\n<UNK>\nthe\nof\n")
            archive.writestr(top + "meta.json", "{}")
            archive.writestr("__MACOSX/._model.hdf5", "shadow")
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        model, words = load_bilm(tmp_path / "145.zip")
        assert words == ["the", "of"]
        assert_same_model(model, folder)
        assert not any(temporary.iterdir())

    def test_big_endian_weights(self, original, tmp_path):
        folder, arrays = original
        with h5py.File(tmp_path / "big.hdf5", "w") as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array.astype(">f4"), compression="gzip")
        assert_same_model(load_bilm(tmp_path / "big.hdf5", options=OPTIONS)[0], folder)


def assert_same_model(model, folder):
    expected = load_bilm(folder)[0].state_dict()
    assert model.state_dict().keys() == expected.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


class TestVocabulary:
    def test_plain_and_gzipped(self, original):
        folder, _ = original
        # The last words hold characters at which str.splitlines would cut.
        text = "\ufeff<S>\n</S>\r\n<UNK>\n!!!MAXTERMID\nthe\r\n naïve \n日本\na\u2028b\nc\x85d"
        words = ["the", "naïve", "日本", "a\u2028b", "c\x85d"]
        (folder / "vocab.txt").write_bytes(text.encode())
        model, found = load_bilm(folder)
        assert found == words
        assert model.config.vocab_size == 9
        (folder / "vocab.txt").unlink()
        (folder / "vocab.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        assert load_bilm(folder)[1] == words

    def test_given_words(self, original, tmp_path):
        folder, _ = original
        assert load_bilm(folder, vocabulary=["<S>", "</S>", "<UNK>", "b", "[PAD]", "a"])[1] == ["b", "a"]
        convert_to_folder(folder, tmp_path / "folder", vocabulary=["b", "a"])
        assert AutoTokenizer.from_pretrained(tmp_path / "folder").convert_tokens_to_ids(["b", "a"]) == [4, 5]

    def test_blank_and_repeated_words_are_told_of(self, original, tmp_path):
        folder, _ = original
        (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\n\u3000\nof\nthe\n", encoding="utf-8")
        with pytest.warns(UserWarning, match=r"vocab\.txt: 2 of its words .* word 5, ''"):
            convert_to_folder(folder, tmp_path / "folder")
        assert len(AutoTokenizer.from_pretrained(tmp_path / "folder")) == 6

    def test_an_empty_file_is_an_empty_vocabulary(self, original):
        folder, _ = original
        (folder / "vocab.txt").write_text("", encoding="utf-8")
        model, words = load_bilm(folder)
        assert words == []
        assert model.config.vocab_size == 4


class TestSaving:
    def test_from_a_model_with_a_head(self, original, tmp_path):
        folder, arrays = original
        bilm, _ = load_bilm(folder)
        config = ElmoConfig.from_options(OPTIONS, vocab_size=7)
        model = ElmoForPreTraining(config)
        model.elmo.load_state_dict(bilm.state_dict())
        save_bilm(model, tmp_path / "a")
        model.save_pretrained(tmp_path / "lm")
        convert_from_folder(tmp_path / "lm", tmp_path / "b")
        for name in ("a", "b"):
            assert_same_arrays(arrays, read_arrays(tmp_path / name / "weights.hdf5"))

    def test_a_fresh_model(self, tmp_path):
        """Options are made where there were none, and the file has what readers of it want."""
        config = ElmoConfig(
            filters=[[1, 3], [2, 4]], cell_size=10, projection_dim=4, proj_clip=None, use_skip_connections=False
        )
        save_bilm(ElmoModel(config), tmp_path / "out", vocabulary=["of", "the"])
        assert json.loads((tmp_path / "out" / "options.json").read_text(encoding="utf-8")) == {
            "char_cnn": {
                "embedding": {"dim": 16},
                "filters": [[1, 3], [2, 4]],
                "n_highway": 2,
                "activation": "relu",
                "max_characters_per_token": 50,
                "n_characters": 262,
            },
            "lstm": {"dim": 10, "projection_dim": 4, "n_layers": 2, "cell_clip": 3.0},
        }
        assert (tmp_path / "out" / "vocab.txt").read_bytes() == b"<S>\n</S>\n<UNK>\nof\nthe\n"
        assert all(array.dtype == np.float32 for array in read_arrays(tmp_path / "out" / "weights.hdf5").values())
        assert load_bilm(tmp_path / "out")[1] == ["of", "the"]

    def test_half_precision_is_widened(self, original, tmp_path):
        folder, arrays = original
        model, _ = load_bilm(folder)
        save_bilm(model.bfloat16(), tmp_path / "back")
        expected = torch.from_numpy(arrays["CNN_proj/W_proj"]).bfloat16().float().numpy()
        np.testing.assert_array_equal(read_arrays(tmp_path / "back" / "weights.hdf5")["CNN_proj/W_proj"], expected)

    def test_another_forget_bias_goes_into_the_biases(self, tmp_path):
        options = options_with()
        arrays = random_weights(options, seed=8)
        model, _ = load_bilm(write_original(tmp_path / "original", options, arrays))
        for layers in (model.bilstm.forward_layers, model.bilstm.backward_layers):
            for layer in layers:
                layer.forget_bias = 0.25
        model.config.forget_bias = 0.25
        expected = activations(model, SENTENCES)
        save_bilm(model, tmp_path / "back")
        again, _ = load_bilm(tmp_path / "back")
        assert again.config.forget_bias == 1.0
        for left, right in zip(activations(again, SENTENCES), expected, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)
        plain = activations(load_bilm(tmp_path / "original")[0], SENTENCES)
        assert np.abs(plain[0] - expected[0]).max() > 0.01

    def test_trained_mixes_are_not_dropped_silently(self, original, tmp_path):
        model, _ = load_bilm(original[0])
        with torch.no_grad():
            model.scalar_mixes[0].gamma.fill_(2)
        with pytest.warns(UserWarning, match="scalar mixes"):
            save_bilm(model, tmp_path / "back")

    def test_fixed_mixes_are_no_training(self, tmp_path, recwarn):
        sizes = {"filters": [[1, 3]], "cell_size": 10, "projection_dim": 4}
        model = ElmoModel(ElmoConfig(scalar_mix_parameters=[0.1, 0.2, 0.3], num_representations=2, **sizes))
        save_bilm(model.bfloat16(), tmp_path / "out")
        assert not recwarn.list

    def test_into_an_empty_folder_that_is_there(self, original, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir(mode=0o750)
        monkeypatch.chdir(tmp_path / "here")
        save_bilm(load_bilm(original[0])[0], ".")
        # The current folder is still the one that was entered.
        assert sorted(entry.name for entry in (tmp_path / "here").iterdir()) == ["options.json", "weights.hdf5"]
        assert (tmp_path / "here" / "weights.hdf5").samefile("weights.hdf5")
        assert (tmp_path / "here").stat().st_mode & 0o777 == 0o750

    def test_mixes_start_equal_and_train(self, original):
        model, _ = load_bilm(original[0])
        assert model.scalar_mixes[0].weights.tolist() == [0, 0, 0]
        assert model.scalar_mixes[0].gamma.tolist() == [1]
        assert all(parameter.requires_grad and not parameter.is_meta for parameter in model.parameters())

    def test_what_the_format_cannot_hold(self, original, tmp_path):
        def refuse(message, change=None, model=None, **kwargs):
            model = load_bilm(original[0])[0] if model is None else model
            if change is not None:
                with torch.no_grad():
                    change(model)
            with pytest.raises(ConversionError, match=message):
                save_bilm(model, tmp_path / "parent" / "out", **kwargs)
            assert not (tmp_path / "parent").exists()

        refuse("char_embedding.*row 0", lambda m: m.character_encoder.char_embedding.weight[0].fill_(0.1))
        refuse(r"projection\.weight.*not finite", lambda m: m.character_encoder.projection.weight[0].fill_(np.inf))
        refuse("float64.*not exact in float32", lambda m: m.double().character_encoder.projection.bias.fill_(0.1))
        refuse("not those of its configuration", lambda m: setattr(m.config, "num_layers", 3))
        small = {"filters": [[1, 3]], "cell_size": 10, "projection_dim": 4}
        refuse("300", model=ElmoModel(ElmoConfig(char_vocab_size=300, **small)))
        refuse("ElmoModel", model=torch.nn.Linear(2, 2))
        for word in ("new\nline", " space", "", "\ud800"):
            refuse("vocab.txt", vocabulary=["the", word])
