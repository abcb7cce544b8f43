"""AllenNLP's interface: against the original's activations, the formulas, and AllenNLP itself where it is there."""

import json
import logging
import os
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import torch
from numpy_elmo import characters
from places import HELPERS
from published_elmo import DIM, LAYERS, TOLERANCE, PublishedElmo, padded

from hf_elmo import ElmoModel
from hf_elmo.compat.allennlp import Elmo, ElmoEmbedder, ElmoTokenEmbedder, _ElmoBiLm, batch_to_ids
from hf_elmo.conversion import ConversionError, convert_to_folder

SENTENCES = [
    ["The", "sentence", "."],
    ["ELMo", "helps", "disambiguate", "ELMo", "from", "Elmo", "."],
    [],
    ["naïve", "日本語", "x" * 60, ""],
]
LENGTHS = [3, 7, 0, 4]
PYTHON = "HF_ELMO_ALLENNLP_PYTHON"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return PublishedElmo(tmp_path_factory.mktemp("published"))


@pytest.fixture
def files(published):
    return published.options, published.weights


def expected(published, sentences, combine, boundaries=False):
    """What `combine` makes of each sentence's layers, padded: ``(sentences, longest, dim)``."""
    read = published.layers if boundaries else published.words
    longest = max(map(len, sentences)) + 2 * boundaries
    return padded([combine(read(words)) for words in sentences], longest)


def mean(layers):
    return layers.mean(axis=0)


def agree(tensor, array):
    assert tuple(tensor.shape) == array.shape
    np.testing.assert_allclose(tensor.detach().numpy(), array, **TOLERANCE)


def mask_of(lengths, longest):
    return [[place < length for place in range(longest)] for length in lengths]


# --- The original's own numbers


@pytest.mark.parametrize(
    ("name", "sentences"), [("allennlp_elmo", "sentences.json"), ("bilm_tf", "lm_embeddings_sentences.json")]
)
def test_activations_of_the_original_programs(shared_data, name, sentences):
    folder = shared_data / "fixtures" / name
    streams = [
        [text.split() for text in stream] for stream in json.loads((folder / sentences).read_text(encoding="utf-8"))
    ]
    with h5py.File(folder / "lm_embeddings_0.hdf5") as file:
        activations = [np.concatenate(file[str(number)][()], axis=-1) for number in range(10)]
    paths = folder / "options.json", folder / "lm_weights.hdf5"
    bilm = _ElmoBiLm(*paths, stateful=True)
    for number, batch in enumerate(zip(*streams, strict=True)):
        output = bilm(batch_to_ids(batch))
        assert len(output["activations"]) == 3
        assert output["mask"].sum(dim=1).tolist() == [len(words) + 2 for words in batch]
        top = output["activations"][2][0, 1 : len(batch[0]) + 1]
        np.testing.assert_allclose(top.numpy(), activations[number], atol=1e-6, rtol=1e-5)
    embedder = ElmoEmbedder(*paths, stateful=True)
    in_turn = [words for batch in zip(*streams, strict=True) for words in batch]
    layers = list(embedder.embed_sentences(in_turn, batch_size=3))[::3]
    for array, values in zip(layers, activations, strict=True):
        np.testing.assert_allclose(array[2], values, atol=1e-6, rtol=1e-5)
    # Without the state only the first sentence, before which there was none, is the same.
    fresh = ElmoEmbedder(*paths)
    same = [
        np.allclose(fresh.embed_sentence(words)[2], values, atol=1e-6) for words, values in zip(streams[0], activations)
    ]
    assert same == [True] + [False] * 9


# --- Elmo


def test_batch_to_ids():
    ids = batch_to_ids([["A", "é" * 30, "<S>"], [], ["</S>"]])
    assert ids.dtype == torch.int64
    assert ids.shape == (3, 3, 50)
    for row, column, word in ((0, 0, "A"), (0, 1, "é" * 30), (0, 2, "<S>"), (2, 0, "</S>")):
        assert ids[row, column].tolist() == [number + 1 for number in characters(word)]
    assert not ids[1].any()
    assert not ids[2, 1:].any()
    assert batch_to_ids([[]]).shape == (1, 0, 50)
    assert batch_to_ids([["word"]], 10).shape == (1, 1, 10)


def test_sentences_of_different_lengths(published, files):
    elmo = Elmo(*files, 1, dropout=0.0)
    output = elmo(batch_to_ids(SENTENCES))
    assert set(output) == {"elmo_representations", "mask"}
    assert output["mask"].dtype == torch.bool
    assert output["mask"].tolist() == mask_of(LENGTHS, 7)
    (representation,) = output["elmo_representations"]
    agree(representation, expected(published, SENTENCES, mean))
    # Each by itself, once more, gives the same: nothing is carried.
    for words, row in zip(SENTENCES, representation, strict=True):
        alone = elmo(batch_to_ids([words]))["elmo_representations"][0]
        torch.testing.assert_close(alone[0], row[: len(words)], atol=1e-6, rtol=0)
    assert elmo.get_output_dim() == DIM


def test_sentence_boundaries_are_kept(published, files):
    output = Elmo(*files, 1, dropout=0.0, keep_sentence_boundaries=True)(batch_to_ids(SENTENCES))
    assert output["mask"].tolist() == mask_of([length + 2 for length in LENGTHS], 9)
    agree(output["elmo_representations"][0], expected(published, SENTENCES, mean, boundaries=True))


def test_several_mixes(published, files):
    elmo = Elmo(*files, 2, dropout=0.0)
    names = {name for name, _ in elmo.named_parameters() if name.startswith("scalar_mix_")}
    assert names == {
        f"scalar_mix_{mix}.{name}"
        for mix in (0, 1)
        for name in ("gamma", *(f"scalar_parameters.{k}" for k in range(3)))
    }
    with torch.no_grad():
        for parameter, value in zip(elmo.scalar_mix_1.scalar_parameters, (0.5, -1.0, 2.0), strict=True):
            parameter.fill_(value)
        elmo.scalar_mix_1.gamma.fill_(0.7)
    first, second = elmo(batch_to_ids(SENTENCES))["elmo_representations"]
    agree(first, expected(published, SENTENCES, mean))
    shares = np.exp([0.5, -1.0, 2.0]) / np.exp([0.5, -1.0, 2.0]).sum()
    agree(second, expected(published, SENTENCES, lambda layers: 0.7 * np.tensordot(shares, layers, axes=1)))
    first.sum().backward()
    assert elmo.scalar_mix_0.gamma.grad is not None
    assert elmo.scalar_mix_1.gamma.grad is None


def test_fixed_weights_of_the_mix(published, files):
    elmo = Elmo(*files, 1, dropout=0.0, scalar_mix_parameters=[-9e10, 1, -9e10])
    assert not any(parameter.requires_grad for parameter in elmo.parameters())
    agree(elmo(batch_to_ids(SENTENCES))["elmo_representations"][0], expected(published, SENTENCES, lambda x: x[1]))
    with pytest.raises(ValueError, match="must be 3 numbers"):
        Elmo(*files, 1, scalar_mix_parameters=[1, 2])


def test_layer_normalisation(published, files):
    output = Elmo(*files, 1, dropout=0.0, do_layer_norm=True)(batch_to_ids(SENTENCES))
    # One mean and one variance for all words and boundaries of the batch.
    every = np.concatenate([published.layers(words) for words in SENTENCES], axis=1)
    means, deviations = every.mean(axis=(1, 2)), every.std(axis=(1, 2))

    def normalised(layers):
        return ((layers - means[:, None, None]) / deviations[:, None, None]).mean(axis=0)

    agree(output["elmo_representations"][0], expected(published, SENTENCES, normalised))


def test_inputs_of_four_dimensions(published, files):
    paragraphs = [[["1", "2"], ["1", "2", "3"]], [["The"], []], [["1", "50", "60"], ["a"]]]
    ids = torch.stack(
        [torch.nn.functional.pad(batch_to_ids(each), (0, 0, 0, 3 - max(map(len, each)))) for each in paragraphs]
    )
    assert ids.shape == (3, 2, 3, 50)
    for boundaries in (False, True):
        elmo = Elmo(*files, 2, dropout=0.0, keep_sentence_boundaries=boundaries)
        output = elmo(ids)
        assert output["mask"].shape == (3, 2, 3 + 2 * boundaries)
        for representation in output["elmo_representations"]:
            assert representation.shape == (3, 2, 3 + 2 * boundaries, DIM)
            for row, sentences in zip(representation, paragraphs, strict=True):
                array = expected(published, [*sentences, ["1", "50", "60"]], mean, boundaries)[:-1]
                agree(row, array)


# --- The cached vocabulary

VOCABULARY = ["@@PADDING@@", "@@UNKNOWN@@", "here", "is", "a", "vocab"]


def numbers_of(sentences, vocabulary):
    longest = max(map(len, sentences))
    return torch.tensor([[vocabulary.index(w) for w in words] + [0] * (longest - len(words)) for words in sentences])


def test_cached_words(published, files):
    sentences = [["here", "is"], ["a", "vocab", "here"]]
    elmo = Elmo(*files, 1, dropout=0.0, vocab_to_cache=VOCABULARY)
    encoded = []
    elmo._elmo_lstm._token_embedder.register_forward_hook(lambda *details: encoded.append(details))
    numbers, ids = numbers_of(sentences, VOCABULARY), batch_to_ids(sentences)
    for inputs in (ids, None, numbers):
        output = elmo(inputs, numbers)
        agree(output["elmo_representations"][0], expected(published, sentences, mean))
        assert output["mask"].tolist() == mask_of([2, 3], 3)
    assert not encoded
    # Characters without numbers are read as ever.
    agree(elmo(ids)["elmo_representations"][0], expected(published, sentences, mean))
    assert len(encoded) == 1


def test_words_outside_of_the_cache_are_read(published, files):
    sentences = [["This", "is", "new"], ["a"]]
    elmo = Elmo(*files, 1, dropout=0.0, vocab_to_cache=VOCABULARY)
    numbers = torch.tensor([[6, 3, 700], [4, 0, 0]])
    output = elmo(batch_to_ids(sentences), numbers)
    agree(output["elmo_representations"][0], expected(published, sentences, mean))
    assert output["mask"].tolist() == mask_of([3, 1], 3)
    with pytest.raises(ValueError, match="from 0 to 700, but the cached vocabulary has 6 words: give the characters"):
        elmo(None, numbers)
    with pytest.raises(ValueError, match="from -1 to 4"):
        elmo(None, torch.tensor([[-1, 4]]))


def test_the_first_word_of_a_vocabulary_is_not_padding(published, files):
    vocabulary = ["here", "is", "a"]
    sentences = [["here", "is", "here"], ["a"]]
    elmo = Elmo(*files, 1, dropout=0.0, vocab_to_cache=vocabulary)
    output = elmo(batch_to_ids(sentences), numbers_of(sentences, vocabulary))
    assert output["mask"].tolist() == mask_of([3, 1], 3)
    agree(output["elmo_representations"][0], expected(published, sentences, mean))


def test_cached_words_of_three_dimensions(published, files):
    sentences = [["here", "is"], ["a", "vocab", "here"]]
    numbers, ids = numbers_of(sentences, VOCABULARY), batch_to_ids(sentences)
    elmo = Elmo(*files, 1, dropout=0.0, vocab_to_cache=VOCABULARY)
    for inputs in (torch.stack([ids] * 4, dim=1), None):
        output = elmo(inputs, torch.stack([numbers] * 4, dim=1))
        assert output["mask"].shape == (2, 4, 3)
        for each in output["elmo_representations"][0].unbind(dim=1):
            agree(each, expected(published, sentences, mean))


def test_numbers_without_a_cache_are_left_alone(published, files, caplog):
    elmo = Elmo(*files, 1, dropout=0.0)
    with caplog.at_level(logging.WARNING, logger="hf_elmo.compat.allennlp"):
        output = elmo(batch_to_ids(SENTENCES), torch.ones(4, 7, dtype=torch.long))
    assert "does not have a cached vocab" in caplog.text
    agree(output["elmo_representations"][0], expected(published, SENTENCES, mean))


# --- Training


@pytest.mark.parametrize("requires_grad", [True, False])
def test_gradients(files, requires_grad):
    embedder = ElmoTokenEmbedder(*files, requires_grad=requires_grad)
    embedder(torch.randint(1, 262, (3, 4, 50))).sum().backward()
    gradients = {name: parameter.grad is not None for name, parameter in embedder.named_parameters()}
    bilm = {name: there for name, there in gradients.items() if "_elmo_lstm" in name}
    assert len(bilm) > 20
    assert set(bilm.values()) == {requires_grad}
    assert all(there for name, there in gradients.items() if name not in bilm)


def test_dropout_is_of_the_representations_alone(files):
    torch.manual_seed(1)
    ids = batch_to_ids([["a", "b", "c", "d"] * 30])
    elmo = Elmo(*files, 1, requires_grad=True)
    kept = elmo.eval()(ids)["elmo_representations"][0]
    dropped = elmo.train()(ids)["elmo_representations"][0]
    gone = dropped == 0
    assert 0.4 < gone.float().mean() < 0.6
    torch.testing.assert_close(dropped[~gone], 2 * kept[~gone])
    # The options may name a dropout, of the biLM's own training.
    without = Elmo(*files, 1, requires_grad=True, dropout=0.0).train()
    torch.testing.assert_close(without(ids)["elmo_representations"][0], kept)


# --- The state


def test_the_state_is_carried_row_by_row(published, files):
    elmo = Elmo(*files, 1, dropout=0.0, stateful=True, keep_sentence_boundaries=True)
    states = {}
    batches = [[["a", "b"], ["c"]], [["d"]], [["e"], ["f", "g", "h"], ["i", "j"]], [["k"], [], ["l"]]]
    for batch in batches:
        representation = elmo(batch_to_ids(batch))["elmo_representations"][0]
        for row, words in enumerate(batch):
            layers, states[row] = published.read_on(words, states.get(row))
            np.testing.assert_allclose(
                representation[row, : len(words) + 2].detach().numpy(), layers.mean(axis=0), **TOLERANCE
            )
    # A script that wants no state says so with these names.
    ids = batch_to_ids([["a", "b"]])
    elmo._elmo_lstm._elmo_lstm.stateful = False
    agree(elmo(ids)["elmo_representations"][0], expected(published, [["a", "b"]], mean, boundaries=True))
    elmo._elmo_lstm._elmo_lstm.stateful = True
    elmo._elmo_lstm._elmo_lstm.reset_states()
    agree(elmo(ids)["elmo_representations"][0], expected(published, [["a", "b"]], mean, boundaries=True))
    with pytest.raises(AssertionError):
        agree(elmo(ids)["elmo_representations"][0], expected(published, [["a", "b"]], mean, boundaries=True))


def test_training_goes_on_from_a_state_without_its_graph(files):
    elmo = Elmo(*files, 1, requires_grad=True, stateful=True)
    ids = batch_to_ids([["a", "b"]])
    with torch.inference_mode():
        elmo(ids)
    for _ in range(2):
        elmo(ids)["elmo_representations"][0].sum().backward()


# --- The other classes


def test_bilm(published, files):
    bilm = _ElmoBiLm(*files)
    output = bilm(batch_to_ids(SENTENCES))
    assert set(output) == {"activations", "mask"}
    assert bilm.num_layers == LAYERS
    assert bilm.get_output_dim() == DIM
    assert output["mask"].tolist() == mask_of([length + 2 for length in LENGTHS], 9)
    for number, layer in enumerate(output["activations"]):
        agree(layer, expected(published, SENTENCES, lambda layers, n=number: layers[n], boundaries=True))


def test_another_module_may_be_the_bilm(published, files):
    elmo = Elmo(None, None, 2, dropout=0.0, module=_ElmoBiLm(*files))
    agree(elmo(batch_to_ids(SENTENCES))["elmo_representations"][1], expected(published, SENTENCES, mean))
    with pytest.raises(ValueError, match="not both"):
        Elmo(*files, 1, module=_ElmoBiLm(*files))


def test_token_embedder(published, files):
    ids = batch_to_ids(SENTENCES)
    plain = ElmoTokenEmbedder(*files, dropout=0.0)
    assert plain.get_output_dim() == DIM
    agree(plain(ids), expected(published, SENTENCES, mean))
    embedder = ElmoTokenEmbedder(*files, dropout=0.0, projection_dim=5)
    assert embedder.get_output_dim() == 5
    weight, bias = (parameter.detach().numpy() for parameter in embedder._projection.parameters())
    agree(embedder(ids), expected(published, SENTENCES, mean) @ weight.T + bias)
    assert embedder(ids.unsqueeze(1)).shape == (4, 1, 7, 5)


def test_embedder(published, files):
    embedder = ElmoEmbedder(*files)
    layers, mask = embedder.batch_to_embeddings(SENTENCES)
    assert layers.shape == (4, LAYERS, 7, DIM)
    assert mask.dtype == torch.int64
    assert mask.tolist() == mask_of(LENGTHS, 7)
    for embedded in (embedder.embed_batch(SENTENCES), embedder.embed_sentences(iter(SENTENCES), batch_size=3)):
        for array, words in zip(embedded, SENTENCES, strict=True):
            assert array.dtype == np.float32
            assert array.shape == (LAYERS, len(words), DIM)
            np.testing.assert_allclose(array, published.words(words), **TOLERANCE)
    assert embedder.embed_sentence([]).shape == (LAYERS, 0, DIM)


# --- What scripts saved with AllenNLP


def allennlps_parameters(arrays):
    """A published file's arrays as AllenNLP 2.10.1 has them in its modules (`elmo.py`, `elmo_lstm.py`)."""
    state = {"_token_embedder._char_embedding_weights": np.pad(arrays["char_embed"], ((1, 0), (0, 0)))}
    for number in range(3):
        kernel = arrays[f"CNN/W_cnn_{number}"].squeeze(0).transpose(2, 1, 0)
        state[f"_token_embedder.char_conv_{number}.weight"] = kernel
        state[f"_token_embedder.char_conv_{number}.bias"] = arrays[f"CNN/b_cnn_{number}"]
    for name, sort in (("weight", "W"), ("bias", "b")):
        transform, carry = (arrays[f"CNN_high_0/{sort}_{kind}"].T for kind in ("transform", "carry"))
        state[f"_token_embedder._highways._layers.0.{name}"] = np.concatenate([transform, -carry])
    state["_token_embedder._projection.weight"] = arrays["CNN_proj/W_proj"].T
    state["_token_embedder._projection.bias"] = arrays["CNN_proj/b_proj"]
    for direction, number in (("forward", 0), ("backward", 1)):
        for depth in (0, 1):
            prefix = f"RNN_{number}/RNN/MultiRNNCell/Cell{depth}/LSTMCell/"
            i, j, f, o = np.split(arrays[prefix + "W_0"].T, 4)
            from_below, recurrent = np.split(np.concatenate([i, f, j, o]), 2, axis=1)
            i, j, f, o = np.split(arrays[prefix + "B"], 4)
            layer = f"_elmo_lstm.{direction}_layer_{depth}."
            state[layer + "input_linearity.weight"] = from_below
            state[layer + "state_linearity.weight"] = recurrent
            state[layer + "state_linearity.bias"] = np.concatenate([i, f + 1, j, o])
            state[layer + "state_projection.weight"] = arrays[prefix + "W_P_0"].T
    return {name: torch.tensor(array) for name, array in state.items()}


def test_a_state_dict_of_allennlp(files, tmp_path):
    other = PublishedElmo(tmp_path, seed=6)
    state = {f"_elmo_lstm.{name}": value for name, value in allennlps_parameters(other.arrays).items()}
    state |= {f"scalar_mix_0.scalar_parameters.{number}": torch.tensor([float(number)]) for number in range(3)}
    state["scalar_mix_0.gamma"] = torch.tensor([0.5])
    model = torch.nn.ModuleDict({"elmo": Elmo(*files, 1, dropout=0.0, requires_grad=True)})
    model.load_state_dict({f"elmo.{name}": value for name, value in state.items()})
    shares = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    array = expected(other, SENTENCES, lambda layers: 0.5 * np.tensordot(shares, layers, axes=1))
    agree(model["elmo"](batch_to_ids(SENTENCES))["elmo_representations"][0], array)
    # Our own, as ever.
    again = Elmo(*files, 1, dropout=0.0)
    again.load_state_dict(model["elmo"].state_dict())
    agree(again(batch_to_ids(SENTENCES))["elmo_representations"][0], array)


def test_a_state_dict_that_does_not_fit(published, files):
    state = allennlps_parameters(published.arrays)
    del state["_elmo_lstm.forward_layer_1.state_linearity.bias"]
    state["surplus"] = torch.ones(1)
    with pytest.raises(RuntimeError) as caught:
        _ElmoBiLm(*files).load_state_dict(state)
    assert 'Missing key(s) in state_dict: "_elmo_lstm.bilstm.forward_layers.1.bias".' in str(caught.value)
    assert 'Unexpected key(s) in state_dict: "surplus".' in str(caught.value)
    state["_token_embedder._projection.bias"] = torch.ones(7)
    with pytest.raises(RuntimeError, match=r"size mismatch for _token_embedder\.projection\.bias"):
        _ElmoBiLm(*files).load_state_dict(state)


# --- Files


def test_every_place_of_a_model(published, files, tmp_path):
    convert_to_folder(published.folder, tmp_path / "model")
    archive = shutil.make_archive(str(tmp_path / "elmo"), "zip", published.folder)
    words = SENTENCES[1]
    for paths in (
        (None, published.folder),
        (str(published.options), str(published.weights)),
        (None, archive),
        (None, tmp_path / "model"),
        (None, ElmoModel.from_pretrained(tmp_path / "model")),
    ):
        np.testing.assert_allclose(ElmoEmbedder(*paths).embed_sentence(words), published.words(words), **TOLERANCE)
    with pytest.raises(ConversionError, match="a model folder, which has its own options"):
        Elmo(published.options, tmp_path / "model", 1)


def test_a_vocabulary_beside_the_weights_is_not_read(published, tmp_path):
    folder = shutil.copytree(published.folder, tmp_path / "elmo")
    (folder / "vocab.txt").write_bytes(b"\xff\x00")
    words = SENTENCES[0]
    np.testing.assert_allclose(ElmoEmbedder(None, folder).embed_sentence(words), published.words(words), **TOLERANCE)


def test_what_cannot_be_loaded(published, files):
    address = "https://example.org/elmo_weights.hdf5"
    with pytest.raises(ConversionError, match=f"weights are to come from {address}, but nothing is downloaded"):
        Elmo(published.options, address, 1)
    with pytest.raises(ConversionError, match="options are to come from"):
        Elmo(address, published.weights, 1)
    with pytest.raises(ConversionError, match="No weights are given"):
        ElmoEmbedder()
    with pytest.raises(ConversionError, match="does not exist"):
        Elmo(published.options, "nothing.hdf5", 1)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="The GPU 0 cannot be used"):
            ElmoEmbedder(*files, cuda_device=0)


def test_what_cannot_be_read(files):
    elmo = Elmo(*files, 1, vocab_to_cache=VOCABULARY)
    ids = batch_to_ids([["a", "b", "c"]])
    ids[0, 1] = 0
    with pytest.raises(ValueError, match=r"padding .* belongs behind"):
        elmo(ids)
    with pytest.raises(ValueError, match=r"character ids \(batch, ..., words, chars\)"):
        elmo(torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="nothing to read"):
        elmo(None)
    with pytest.raises(ValueError, match="must be of the same sentences"):
        elmo(batch_to_ids([["a", "b"]]), torch.ones(1, 3, dtype=torch.long))


@pytest.mark.parametrize("width", [10, 60])
def test_rows_of_another_width(files, width):
    """AllenNLP raises; longer rows gave the vectors of other words here."""
    ids = batch_to_ids([["a", "b", "c"]], width)
    message = rf"rows of {width} characters, but this model reads 50 \(max_characters_per_token\)"
    elmo = Elmo(*files, 1, vocab_to_cache=VOCABULARY)
    calls = [Elmo(*files, 2), ElmoTokenEmbedder(*files), _ElmoBiLm(*files), elmo]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(ids)
    # Also where the vectors of all words are there already.
    with pytest.raises(ValueError, match=message):
        elmo(ids, torch.ones(1, 3, dtype=torch.long))


# --- AllenNLP itself


@pytest.fixture(scope="module")
def original(published, tmp_path_factory):
    """What AllenNLP 2.10.1 makes of calls that `compat_allennlp_original.py` makes."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} names no Python that has AllenNLP 2.10.1")
    folder = tmp_path_factory.mktemp("original")
    calls = {
        "options": str(published.options),
        "weights": str(published.weights),
        "batches": [SENTENCES, SENTENCES[:2], [*SENTENCES, ["more"], ["and", "more"]], [["<S>", "again"]]],
        "vocabulary": VOCABULARY,
        "cached": [["here", "is"], ["a", "vocab", "here"]],
        "paragraphs": [[["1", "2"], ["1", "2", "3"]], [["The"], ["a", "b", "c"]]],
    }
    (folder / "calls.json").write_text(json.dumps(calls), encoding="utf-8")
    script = HELPERS / "compat_allennlp_original.py"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([python, script, folder], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "results.npz") as results:
        return folder, calls, dict(results)


def same_as(output, results, name):
    assert output["mask"].tolist() == results[f"{name}.mask"].tolist()
    for number, representation in enumerate(output["elmo_representations"]):
        agree(representation, results[f"{name}.{number}"])


@pytest.mark.slow
def test_calls_of_allennlp(original, files):
    _, calls, results = original
    plain, kept = (
        Elmo(*files, 2, dropout=0.0, stateful=True),
        Elmo(*files, 1, dropout=0.0, stateful=True, keep_sentence_boundaries=True, scalar_mix_parameters=[0.1, 2, -1]),
    )
    for number, batch in enumerate(calls["batches"]):
        ids = batch_to_ids(batch)
        assert ids.tolist() == results[f"ids {number}"].tolist()
        same_as(plain(ids), results, f"plain {number}")
        same_as(kept(ids), results, f"kept {number}")
    normalised = Elmo(*files, 1, dropout=0.0, do_layer_norm=True)
    same_as(normalised(batch_to_ids(SENTENCES)), results, "normalised")
    cached = Elmo(*files, 1, dropout=0.0, stateful=True, vocab_to_cache=VOCABULARY)
    numbers = numbers_of(calls["cached"], VOCABULARY)
    same_as(cached(batch_to_ids(calls["cached"]), numbers), results, "cached")
    numbers[0, 0] = 99
    same_as(cached(batch_to_ids(calls["cached"]), numbers), results, "not cached")
    paragraphs = torch.stack([batch_to_ids(each) for each in calls["paragraphs"]], dim=1)
    same_as(Elmo(*files, 1, dropout=0.0)(paragraphs), results, "paragraphs")


@pytest.mark.slow
def test_a_model_trained_with_allennlp(original, files):
    folder, _, results = original
    model = torch.nn.ModuleDict({"elmo": Elmo(*files, 1, dropout=0.0)})
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    output = model["elmo"](batch_to_ids(SENTENCES))
    same_as(output, results, "trained")
    untrained = Elmo(*files, 1, dropout=0.0)(batch_to_ids(SENTENCES))["elmo_representations"][0]
    assert (untrained - output["elmo_representations"][0]).abs().max() > 1e-3
