"""The package against an independent implementation of the formulas, and that one against the original programs."""

import copy
import json

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from numpy_elmo import NumpyElmo, characters, random_weights

from hf_elmo import ElmoConfig, ElmoModel
from hf_elmo.model.tokenization_elmo import character_rows

SENTENCES = [
    ["The", "U.S.", "Centers", "for", "Disease", "Control", "advised", "schools", "to", "close", "."],
    [],
    ["a"],
    ["", "naïve", "日本語の単語はここで長すぎるので途中で切られることになる", "🙂", "x" * 200, "\x00"],
    ["<S>", "not", "a", "boundary", "</S>"],
    [
        "long",
        "enough",
        "for",
        "its",
        "cells",
        "to",
        "run",
        "up",
        "to",
        "their",
        "bound",
        ",",
        "and",
        "stay",
        "there",
        ".",
    ],
]

OPTIONS = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 6,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 24,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 4], [2, 4], [3, 8], [5, 8]],
        "n_highway": 2,
        "embedding": {"dim": 4},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}


def options_with(**changes):
    """The options above with other values, wherever they stand; with the value `...` the key is absent."""
    options = copy.deepcopy(OPTIONS)
    for name, value in changes.items():
        section = options["lstm"] if name in options["lstm"] else options["char_cnn"]
        if value is ...:
            del section[name]
        else:
            section[name] = value
    return options


# Each switch of the published format in each of its positions (and with the key left out, where that is allowed).
VARIANTS = {
    "published": {},
    "n_characters 261": {"n_characters": 261},
    "no skip connections": {"use_skip_connections": False},
    "skip connections absent": {"use_skip_connections": ...},
    "one layer": {"n_layers": 1},
    "layers absent": {"n_layers": ...},
    "three layers": {"n_layers": 3},
    "five layers without skip connections": {"n_layers": 5, "use_skip_connections": False},
    "one highway": {"n_highway": 1},
    "no highway": {"n_highway": 0},
    "highway absent": {"n_highway": ...},
    "no character projection": {"projection_dim": 24},
    "no LSTM projection": {"dim": 6, "projection_dim": 6},
    "no projection at all": {"dim": 24, "projection_dim": 24},
    "tanh": {"activation": "tanh"},
    "cell clip absent": {"cell_clip": ...},
    "projection clip absent": {"proj_clip": ...},
    "no clips": {"cell_clip": None, "proj_clip": None},
    "narrow clips": {"cell_clip": 0.5, "proj_clip": 0.25},
    "short words": {"max_characters_per_token": 7},
    "one filter": {"filters": [[2, 12]]},
}


def model_from(options, weights, **fields):
    """An `ElmoModel` with these weights, put in place by hand: the package's converter has no part in these tests."""
    model = ElmoModel(ElmoConfig.from_options(options, **fields)).eval()
    projection_dim, size = options["lstm"]["projection_dim"], options["lstm"]["dim"]
    state = {
        "scalar_mixes.0.weights": model.scalar_mixes[0].weights,
        "scalar_mixes.0.gamma": model.scalar_mixes[0].gamma,
    }
    state["character_encoder.char_embedding.weight"] = np.vstack(
        [np.zeros((1, weights["char_embed"].shape[1]), np.float32), weights["char_embed"]]
    )
    for name, array in weights.items():
        parts = name.split("/")
        if parts[0] == "CNN":
            kind, number = parts[1].rsplit("_", 1)
            prefix = f"character_encoder.convolutions.{number}."
            if kind == "W_cnn":
                state[prefix + "weight"] = array[0].transpose(2, 1, 0)
            else:
                state[prefix + "bias"] = array
        elif parts[0].startswith("CNN_high"):
            kind, gate = parts[1].split("_")
            prefix = f"character_encoder.highways.{parts[0].rsplit('_', 1)[1]}.{gate}."
            state[prefix + ("weight" if kind == "W" else "bias")] = array.T
        elif parts[0] == "CNN_proj":
            state["character_encoder.projection." + ("weight" if parts[1] == "W_proj" else "bias")] = array.T
        elif parts[0].startswith("RNN"):
            prefix = f"bilstm.{['forward', 'backward'][int(parts[0][-1])]}_layers.{parts[3].removeprefix('Cell')}."
            if parts[-1] == "W_P_0":
                state[prefix + "weight_hr"] = array.T
                continue
            into, new, forget, out = (array[..., block * size : (block + 1) * size] for block in range(4))
            reordered = np.concatenate([into, forget, new, out], axis=-1)
            if parts[-1] == "B":
                state[prefix + "bias"] = reordered
            else:
                state[prefix + "weight_ih"] = reordered[:projection_dim].T
                state[prefix + "weight_hh"] = reordered[projection_dim:].T
    model.load_state_dict(
        {
            name: torch.as_tensor(np.array(array)) if isinstance(array, np.ndarray) else array
            for name, array in state.items()
        }
    )
    return model


def character_ids(sentences, length):
    """``(batch, words, length)``: the rows of the reference, one up, with a sentence's two boundaries; zeros behind."""
    words = max(map(len, sentences), default=0) + 2
    ids = torch.zeros(len(sentences), words, length, dtype=torch.long)
    for row, sentence in enumerate(sentences):
        for column, word in enumerate(["<S>", *sentence, "</S>"]):
            ids[row, column] = torch.tensor(characters(word, length)) + 1
    return ids


def assert_layers_agree(model, reference, sentences, tolerance, states=None, state=None, relative=0.0):
    """Asserts that all layers of all sentences agree, and that nothing stands behind a sentence.

    `tolerance` is absolute. Without clips a cell adds up to tens, so that for the states it is a relative one as well.

    Returns:
        The states after the sentences, the reference's and the model's, and the model's layers,
        ``(batch, layers, words, dim)``.
    """
    length = reference.options["char_cnn"]["max_characters_per_token"]
    with torch.no_grad():
        output = model(
            character_ids=character_ids(sentences, length), output_hidden_states=True, state=state, return_state=True
        )
    layers = torch.stack(output.hidden_states, dim=1).numpy()
    after = []
    for row, sentence in enumerate(sentences):
        expected, ended = reference.read(sentence, None if states is None else states[row])
        after.append(ended)
        np.testing.assert_allclose(layers[row, :, : len(sentence) + 2], expected, rtol=relative, atol=tolerance)
        assert not layers[row, :, len(sentence) + 2 :].any()
        for (direction, layer), (hidden, cell) in ended.items():
            at = (direction, layer, row)
            np.testing.assert_allclose(output.state.hidden[at], hidden, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(output.state.cell[at], cell, rtol=tolerance, atol=tolerance)
    return after, output.state, layers


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_option(variant):
    options = options_with(**VARIANTS[variant])
    weights = random_weights(options, seed=len(variant))
    reference, model = NumpyElmo(options, weights), model_from(options, weights)
    states, state, layers = assert_layers_agree(model, reference, SENTENCES, tolerance=1e-5, relative=1e-5)
    # Carried state: the next batch goes on where this one ended.
    assert_layers_agree(model, reference, SENTENCES[::-1], 1e-5, states, state, relative=1e-5)
    # In double precision nothing but a difference in the formulas could be left over.
    assert_layers_agree(model.double(), reference, SENTENCES, tolerance=1e-12)
    spread = layers[layers != 0].std()
    assert 0.2 < spread < 10, "these weights would not show a mistake"


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "clip" not in name])
def test_clips_fire_and_matter(variant):
    options = options_with(**VARIANTS[variant])
    weights = random_weights(options, seed=len(variant))
    clipped, free = NumpyElmo(options, weights), NumpyElmo(options_with(**VARIANTS[variant], cell_clip=...), weights)
    layers = [model.read(SENTENCES[-1])[0] for model in (clipped, free)]
    assert (np.abs(clipped.cells) == 3).any()
    assert np.abs(free.cells).max() > 3
    assert np.abs(layers[0] - layers[1]).max() > 1e-3
    if options["lstm"]["projection_dim"] < options["lstm"]["dim"]:
        free = NumpyElmo(options_with(**VARIANTS[variant], proj_clip=...), weights)
        assert (np.abs(clipped.projected) == 3).any()
        assert np.abs(layers[0] - free.read(SENTENCES[-1])[0]).max() > 1e-3
        assert np.abs(free.projected).max() > 3
    # The same of the package, which has to leave them out too where they are absent.
    model = model_from(options, weights)
    without = model_from(options_with(**VARIANTS[variant], cell_clip=...), weights)
    ids = character_ids(SENTENCES[-1:], options["char_cnn"]["max_characters_per_token"])
    with torch.no_grad():
        assert (
            model(character_ids=ids).last_hidden_state - without(character_ids=ids).last_hidden_state
        ).abs().max() > 1e-3
        assert (model(character_ids=ids, return_state=True).state.cell.abs() == 3).any()


@st.composite
def options_and_sentences(draw):
    filters = draw(
        st.lists(st.tuples(st.integers(1, 6), st.integers(1, 8)).map(list), min_size=1, max_size=4), label="filters"
    )
    features = sum(count for _, count in filters)
    projection_dim = draw(st.sampled_from([features, 4, 7]), label="projection_dim")
    changes = {
        "filters": filters,
        "projection_dim": projection_dim,
        "dim": draw(st.sampled_from([projection_dim, projection_dim + 1, projection_dim + 20]), label="dim"),
        "n_layers": draw(st.sampled_from([..., 1, 2, 3, 4]), label="n_layers"),
        "n_highway": draw(st.sampled_from([..., 0, 1, 2]), label="n_highway"),
        "use_skip_connections": draw(st.sampled_from([..., False, True]), label="use_skip_connections"),
        "cell_clip": draw(st.sampled_from([..., None, 0.5, 3]), label="cell_clip"),
        "proj_clip": draw(st.sampled_from([..., None, 0.5, 3.0]), label="proj_clip"),
        "activation": draw(st.sampled_from(["relu", "tanh"]), label="activation"),
        "n_characters": draw(st.sampled_from([261, 262]), label="n_characters"),
        "max_characters_per_token": draw(st.sampled_from([6, 9, 50]), label="max_characters_per_token"),
    }
    words = st.one_of(st.text(max_size=12), st.sampled_from(["<S>", "</S>", "é" * 30, "the"]))
    sentences = draw(st.lists(st.lists(words, max_size=8), min_size=1, max_size=4), label="sentences")
    return options_with(**changes), sentences


@examples(120, suppress_health_check=[HealthCheck.too_slow])
@given(options_and_sentences(), st.integers(0, 2**32 - 1))
def test_random_options(case, seed):
    options, sentences = case
    weights = random_weights(options, seed)
    reference, model = NumpyElmo(options, weights), model_from(options, weights)
    assert_layers_agree(model, reference, sentences, 1e-5)
    # Four layers without clips may amplify the rounding of single precision from batch to batch; that of double
    # precision stays far below any mistake.
    states, state, _ = assert_layers_agree(model.double(), reference, sentences, 1e-10)
    assert_layers_agree(model, reference, sentences[::-1], 1e-10, states, state)


@examples(300)
@given(st.lists(st.one_of(st.text(st.characters(exclude_categories=[])), st.just("</S>"))), st.integers(3, 60))
def test_character_rows(words, length):
    expected = [np.array(characters(word, length)) + 1 for word in words]
    rows, _ = character_rows(words, length)
    assert rows.tolist() == [row.tolist() for row in expected]


@pytest.fixture(scope="module", params=["allennlp_elmo", "bilm_tf"])
def original(request, shared_data):
    """A fixture of an original program: options, weights, three streams of sentences, the activations of the first."""
    import h5py

    folder = shared_data / "fixtures" / request.param
    weights, expected = {}, {}
    with h5py.File(folder / "lm_weights.hdf5") as file:
        file.visititems(
            lambda name, item: weights.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None
        )
    with h5py.File(folder / "lm_embeddings_0.hdf5") as file:
        expected = [file[str(number)][...] for number in range(10)]
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    streams = json.loads(next(folder.glob("*sentences.json")).read_text(encoding="utf-8"))
    return options, weights, [[sentence.split() for sentence in stream] for stream in streams], expected


def test_reference_gives_the_original_numbers(original):
    options, weights, streams, expected = original
    reference, state = NumpyElmo(options, weights), None
    for sentence, (forward, backward) in zip(streams[0], expected, strict=True):
        layers, state = reference.read(sentence, state)
        np.testing.assert_allclose(layers[-1, 1:-1], np.concatenate([forward, backward], -1), rtol=1e-5, atol=1e-6)


def test_model_gives_the_numbers_of_all_streams(original):
    options, weights, streams, expected = original
    reference, model = NumpyElmo(options, weights), model_from(options, weights)
    states = state = None
    for number, batch in enumerate(zip(*streams, strict=True)):
        states, state, layers = assert_layers_agree(model, reference, list(batch), 1e-6, states, state, relative=1e-5)
        top = layers[0, -1, 1 : len(batch[0]) + 1]
        np.testing.assert_allclose(top, np.concatenate(list(expected[number]), -1), rtol=1e-5, atol=1e-6)
