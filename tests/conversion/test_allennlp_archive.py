"""AllenNLP's archives: the ELMo inside any model, and whole taggers, against the formulas and the original program."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from allennlp_format import (
    BIO,
    CONFIG,
    EMBEDDER,
    VOCABULARY,
    NumpyTagger,
    as_tensors,
    bilm_state,
    changed,
    elmo_state,
    members_of,
    tagger_state,
    write_archive,
)
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, options_with
from places import HELPERS
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
from typer.testing import CliRunner

from hf_elmo import ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.conversion import (
    convert_allennlp_archive,
    convert_from_folder,
    load_allennlp_elmo,
    load_allennlp_tagger,
    load_bilm,
)
from hf_elmo.model.configuration_elmo import FEEDFORWARD_ACTIVATIONS

SENTENCES = [
    ["Paris", "is", "naïve", "日本", "."],
    ["the"],
    ["x", "THE", "<S>", "Unbelievable!"],
]
LONGEST = 5

TWO_ENDS = {"model__include_start_end_transitions": True}
RENAMED = {
    "model__text_field_embedder": {
        "token_embedders": dict(
            zip("bac", CONFIG["model"]["text_field_embedder"]["token_embedders"].values(), strict=True)
        )
    },
    "dataset_reader__token_indexers": dict(
        zip("bca", CONFIG["dataset_reader"]["token_indexers"].values(), strict=True)
    ),
}
ONLY_ELMO = {
    "model__text_field_embedder__token_embedders__tokens": ...,
    "model__text_field_embedder__token_embedders__token_characters": ...,
}
SIMPLE = {"model__type": "simple_tagger", "model__dropout": ..., "model__include_start_end_transitions": ...}

STACKED = {
    "type": "stacked_bidirectional_lstm",
    "input_size": 25,
    "hidden_size": 4,
    "num_layers": 2,
    "use_highway": True,
}
FEEDFORWARD = {"input_dim": 8, "num_layers": 2, "hidden_dims": [7, 6], "activations": "tanh", "dropout": 0.5}
CHARACTER_LSTM = {
    "model__text_field_embedder__token_embedders__token_characters": {
        "type": "character_encoding",
        "embedding": {"embedding_dim": 4, "vocab_namespace": "token_characters", "sparse": True},
        "encoder": {"type": "lstm", "input_size": 4, "hidden_size": 10, "num_layers": 1},
    }
}
FINE_GRAINED = {"model__encoder": STACKED, "model__feedforward": FEEDFORWARD, **CHARACTER_LSTM}

AUGMENTED = {"type": "augmented_lstm", "input_size": 25, "hidden_size": 4}
ALTERNATING = {"type": "alternating_lstm", "input_size": 25, "hidden_size": 4, "num_layers": 3}
LAYERS = {"input_dim": 25, "num_layers": 2, "hidden_dims": [7, 8], "activations": ["relu", "linear"]}
PROJECTED = {
    "model__text_field_embedder__token_embedders__elmo__projection_dim": 7,
    "model__encoder__input_size": 7 + 3 + 10,
}
# The other encoders of AllenNLP 2.10.1 (`allennlp/modules/seq2seq_encoders/`) that there are here.
ENCODERS = {
    "GRUs": {"model__encoder__type": "gru"},
    "RNNs": {"model__encoder__type": "rnn"},
    "RNNs with relu, without biases": {
        "model__encoder__type": "rnn",
        "model__encoder__nonlinearity": "relu",
        "model__encoder__bias": False,
    },
    "LSTMs without biases": {"model__encoder__bias": False},
    "augmented": {"model__encoder": AUGMENTED},
    "augmented, backward": {"model__encoder": {**AUGMENTED, "go_forward": False}},
    "augmented, without highway": {"model__encoder": {**AUGMENTED, "use_highway": False, "go_forward": False}},
    "augmented, without biases": {"model__encoder": {**AUGMENTED, "use_input_projection_bias": False}},
    "alternating": {"model__encoder": ALTERNATING},
    "alternating, without highways": {
        "model__encoder": {**ALTERNATING, "use_highway": False, "use_input_projection_bias": False}
    },
    "feed-forward": {"model__encoder": {"type": "feedforward", "feedforward": LAYERS}},
    "feed-forward, and more of them": {
        "model__encoder": {"type": "feedforward", "feedforward": LAYERS},
        "model__feedforward": FEEDFORWARD,
    },
    "a projection of ELMo": PROJECTED,
}

# What a crf_tagger or simple_tagger may look like.
TAGGERS = {
    "as the published one": {},
    "start and end transitions": TWO_ENDS,
    "without constraints": {"model__label_encoding": None},
    "embedders of other names, in another order": RENAMED,
    "words as written": {"dataset_reader__token_indexers__tokens__lowercase_tokens": False},
    "no words, no characters": {**ONLY_ELMO, "model__encoder__input_size": 12},
    "one layer, forward only": {"model__encoder__bidirectional": False, "model__encoder__num_layers": 1},
    "no encoder": {"model__encoder": {"type": "pass_through", "input_dim": 25}},
    "simple": SIMPLE,
    "simple, forward only": {**SIMPLE, "model__encoder__bidirectional": ...},
    **ENCODERS,
    "one GRU, forward only": {
        "model__encoder__type": "gru",
        "model__encoder__num_layers": 1,
        "model__encoder__bidirectional": False,
    },
    "highways": {"model__encoder": STACKED},
    "stacked, without highways": {"model__encoder": {**STACKED, "use_highway": False}},
    "feed-forward layers": {"model__feedforward": FEEDFORWARD},
    "feed-forward layers alone": {
        "model__encoder": {"type": "pass_through", "input_dim": 25},
        "model__feedforward": {**FEEDFORWARD, "input_dim": 25},
    },
    "an LSTM over characters": CHARACTER_LSTM,
    "as the published fine-grained one": FINE_GRAINED,
    "nulls": {"model__feedforward": None, "model__verbose_metrics": False, "model__constrain_crf_decoding": None},
}


def tags_of(model, tokenizer, sentences):
    """For each sentence its labels and its scores of tags before the CRF, in one batch."""
    scores = {}
    handle = model.classifier.register_forward_hook(lambda module, inputs, output: scores.update(all=output))
    inputs = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    tags = model.decode(**inputs)
    handle.remove()
    return [
        ([model.config.id2label[tag] for tag in row], scores["all"][number, 1 : 1 + len(words)].detach().numpy())
        for number, (row, words) in enumerate(zip(tags, sentences, strict=True))
    ]


@pytest.mark.parametrize("changes", ENCODERS.values(), ids=ENCODERS.keys())
def test_encoders_to_the_last_digit(tmp_path, changes):
    """In float64, so that no rounding hides a wrong formula."""
    config = changed(**changes)
    state = tagger_state(config)
    model, tokenizer = load_allennlp_tagger(write_archive(tmp_path / "model.tar.gz", members_of(config, state)))
    original = NumpyTagger(config, state)
    for words, (_, scores) in zip(SENTENCES, tags_of(model.double(), tokenizer, SENTENCES), strict=True):
        np.testing.assert_allclose(scores, original.logits(words), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", FEEDFORWARD_ACTIVATIONS)
def test_activations(tmp_path, name):
    further = {**FEEDFORWARD, "activations": ["tanh", name]}
    config = changed(model__feedforward=further)
    state = tagger_state(config)
    model, tokenizer = load_allennlp_tagger(write_archive(tmp_path / "model.tar.gz", members_of(config, state)))
    [(_, scores)] = tags_of(model.double(), tokenizer, SENTENCES[:1])
    np.testing.assert_allclose(scores, NumpyTagger(config, state).logits(SENTENCES[0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("changes", TAGGERS.values(), ids=TAGGERS.keys())
def test_a_tagger_tags_as_its_formulas_say(tmp_path, changes):
    config = changed(**changes)
    state = tagger_state(config)
    archive = write_archive(tmp_path / "model.tar.gz", members_of(config, state))
    convert_allennlp_archive(archive, tmp_path / "converted")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "converted").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert isinstance(model, ElmoForTokenClassification)
    assert [model.config.id2label[number] for number in range(len(BIO))] == BIO
    original = NumpyTagger(config, state)
    for words, (tags, scores) in zip(SENTENCES, tags_of(model, tokenizer, SENTENCES), strict=True):
        np.testing.assert_allclose(scores, original.logits(words), atol=1e-5)
        assert tags == original.tags(words)


def test_what_the_taggers_were_tested_on_makes_a_difference():
    """Constraints, start and end transitions, and the state of the LSTMs decide some of the tags above."""
    whole = NumpyTagger(CONFIG, tagger_state())
    tags = [whole.tags(words) for words in SENTENCES]
    free = NumpyTagger(CONFIG, tagger_state() | {"crf._constraint_mask": torch.ones(7, 7)})
    assert [free.tags(words) for words in SENTENCES] != tags
    config = changed(**TWO_ENDS)
    ends = NumpyTagger(config, tagger_state(config))
    without = {
        key: value for key, value in ends.state.items() if key not in ("crf.start_transitions", "crf.end_transitions")
    }
    ends_tags = [ends.tags(words) for words in SENTENCES]
    ends.state = without
    assert [ends.tags(words) for words in SENTENCES] != ends_tags


def test_raw_text_through_the_pipeline(tmp_path):
    archive = write_archive(tmp_path / "model.tar.gz", members_of())
    convert_allennlp_archive(archive, tmp_path / "converted")
    tagger = pipeline("token-classification", model=str(tmp_path / "converted"))
    entities = tagger("Paris is naïve .")
    words = ["Paris", "is", "naïve", "."]
    expected = NumpyTagger(CONFIG, tagger_state()).logits(words)
    model, tokenizer = load_allennlp_tagger(archive)
    [(_, scores)] = tags_of(model, tokenizer, [words])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    from_text = tokenizer("Paris is naïve .", return_tensors="pt")
    of_words = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    assert from_text["input_ids"].tolist() == of_words["input_ids"].tolist()
    assert {"Paris is naïve ."[entity["start"] : entity["end"]] for entity in entities} <= set(words)


ORIGINALS = {"as the published one": {}, "as the published fine-grained one": FINE_GRAINED, **ENCODERS}


def for_the_original(changes, elmo):
    """A configuration with ELMo's fixture in it, which is of another size than the one above."""
    place = "model__text_field_embedder__token_embedders__elmo__"
    config = changed(
        changed(**changes),
        **{f"{place}options_file": str(elmo / "options.json"), f"{place}weight_file": str(elmo / "lm_weights.hdf5")},
        model__text_field_embedder__token_embedders__tokens__pretrained_file=...,
        model__text_field_embedder__token_embedders__token_characters__embedding__vocab_namespace="token_characters",
    )
    encoder = config["model"]["encoder"]
    width = config["model"]["text_field_embedder"]["token_embedders"]["elmo"].get("projection_dim", 32) + 3 + 10
    if "feedforward" in encoder:
        encoder["feedforward"]["input_dim"] = width
    else:
        encoder["input_size"] = width
    return config


@pytest.fixture(scope="module")
def originals(shared_data, tmp_path_factory):
    """What AllenNLP itself makes of all these configurations, and how it tags, by a folder for each."""
    python = os.environ.get("HF_ELMO_ALLENNLP_PYTHON")
    if not python:
        pytest.skip("HF_ELMO_ALLENNLP_PYTHON does not name the Python of an environment with AllenNLP 2.10.1")
    folder = tmp_path_factory.mktemp("originals")
    elmo = shared_data / "fixtures" / "allennlp_elmo"
    vocabulary = {
        namespace: [entry for entry in entries if "@" not in entry] for namespace, entries in VOCABULARY.items()
    }
    arguments = []
    for number, changes in enumerate(ORIGINALS.values()):
        place = folder / str(number)
        place.mkdir()
        specification = {"config": for_the_original(changes, elmo), "vocabulary": vocabulary, "sentences": SENTENCES}
        (place / "specification.json").write_text(json.dumps(specification), encoding="utf-8")
        arguments += [place / "specification.json", place]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = HELPERS / "allennlp_original.py"
    # One process, because AllenNLP takes long to import.
    done = subprocess.run([python, script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_original_program(originals, name):
    """AllenNLP itself makes an archive, with ELMo's fixture in it, and tags: so does what the archive becomes."""
    place = originals / str(list(ORIGINALS).index(name))
    model, tokenizer = load_allennlp_tagger(place / "model.tar.gz")
    predictions = json.loads((place / "predictions.json").read_text(encoding="utf-8"))
    for predicted, (tags, scores) in zip(predictions, tags_of(model, tokenizer, SENTENCES), strict=True):
        assert tags == predicted["tags"]
        np.testing.assert_allclose(scores, predicted["logits"], atol=3e-6, rtol=0)


def layers_of(model, words):
    inputs = ElmoTokenizer.create()([words], is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0].numpy(), [mix[0].numpy() for mix in output.elmo_representations]


# Where models of AllenNLP keep their ELMo: embedders of fields, a classifier with several mixes, a model of one's own.
PREFIXES = [
    "text_field_embedder.token_embedder_elmo._elmo.",
    "_text_field_embedder.token_embedder_a.b._elmo.",
    "_elmo.",
    "",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("num_mixes", [1, 3])
def test_the_elmo_inside_any_model(tmp_path, prefix, num_mixes):
    state = elmo_state(prefix, num_mixes)
    others = as_tensors({"_encoder.weight": np.ones((2, 2)), "_classifier.scalar_mix_7.gamma": np.ones(1)})
    config = {"model": {"type": "bcn", "elmo": {"options_file": "x", "weight_file": "y", "dropout": 0.2}}}
    archive = write_archive(tmp_path / "model.tar.gz", members_of(config, state | others))
    with pytest.warns(UserWarning, match="'bcn', of which only the ELMo is taken"):
        convert_allennlp_archive(archive, tmp_path / "converted")
    model = ElmoModel.from_pretrained(tmp_path / "converted").eval()
    assert model.config.representation_dropout == 0.2
    layers, mixes = layers_of(model, SENTENCES[0])
    expected, _ = NumpyElmo(OPTIONS, random_weights(OPTIONS, seed=5)).read(SENTENCES[0])
    np.testing.assert_allclose(layers, expected, atol=1e-5)
    assert len(mixes) == num_mixes
    for number, mix in enumerate(mixes):
        place = f"{prefix}scalar_mix_{number}."
        weights = np.exp([state[f"{place}scalar_parameters.{layer}"].item() for layer in range(3)])
        mixed = state[place + "gamma"].item() * np.tensordot(weights / weights.sum(), expected, axes=1)
        np.testing.assert_allclose(mix, mixed, atol=1e-5)


def test_a_bilm_alone_without_mixes(tmp_path):
    archive = write_archive(tmp_path / "m.tar.gz", members_of({"model": {"type": "x"}}, as_tensors(bilm_state("lm."))))
    model = load_allennlp_elmo(archive)
    expected, _ = NumpyElmo(OPTIONS, random_weights(OPTIONS, seed=5)).read(SENTENCES[0])
    layers, [mix] = layers_of(model, SENTENCES[0])
    np.testing.assert_allclose(layers, expected, atol=1e-5)
    np.testing.assert_allclose(mix, expected.mean(axis=0), atol=1e-5)


def test_a_cache_of_words_is_left_out(tmp_path):
    cache = {"e._elmo_lstm._word_embedding.weight": torch.ones(9, 6)}
    archive = write_archive(tmp_path / "m.tar.gz", members_of({"model": {"type": "x"}}, elmo_state("e.") | cache))
    assert load_allennlp_elmo(archive).config.num_representations == 1


@pytest.mark.parametrize("given", ["argument", "file", "in the archive", "in an old archive"])
def test_options_that_shapes_do_not_tell(tmp_path, given):
    options = options_with(activation="tanh", cell_clip=0.7, proj_clip=0.9)
    arrays = random_weights(options, seed=8)
    members = members_of({"model": {"type": "x"}}, elmo_state("e.", arrays=arrays))
    content, argument = json.dumps(options).encode(), None
    if given == "argument":
        argument = options
    elif given == "file":
        argument = tmp_path / "other.json"
        argument.write_bytes(content)
    else:
        members["small_options.json" if given == "in the archive" else "fta/model.elmo.options_file"] = content
    model = load_allennlp_elmo(write_archive(tmp_path / "model.tar.gz", members), options=argument)
    expected, _ = NumpyElmo(options, arrays).read(SENTENCES[0])
    np.testing.assert_allclose(layers_of(model, SENTENCES[0])[0], expected, atol=1e-5)


def test_fixed_weights_of_the_mix_and_its_normalisation(tmp_path):
    elmo = {"type": "elmo_token_embedder", "do_layer_norm": True, "scalar_mix_parameters": [0.5, -1, 2.0]}
    config = {"model": {"type": "x", "field": {"elmo": elmo}}}
    model = load_allennlp_elmo(write_archive(tmp_path / "m.tar.gz", members_of(config, elmo_state("e."))))
    assert model.config.do_layer_norm
    assert model.config.scalar_mix_parameters == [0.5, -1, 2.0]


@pytest.mark.parametrize("form", ["plain tar", "folder", "training run", "old torch", "inner ./"])
def test_forms_of_an_archive(tmp_path, form):
    members = members_of()
    if form == "old torch":
        torch.save(tagger_state(), tmp_path / "old.th", _use_new_zipfile_serialization=False)
        members["weights.th"] = (tmp_path / "old.th").read_bytes()
    if form in ("folder", "training run"):
        source = tmp_path / "folder"
        for name, content in members.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
        if form == "training run":
            (source / "weights.th").rename(source / "best.th")
    elif form == "inner ./":
        source = write_archive(tmp_path / "m.tar.gz", {f"./{name}": content for name, content in members.items()})
    else:
        source = write_archive(tmp_path / "m.tar", members, "w" if form == "plain tar" else "w:gz")
    model, tokenizer = load_allennlp_tagger(source)
    [(tags, _)] = tags_of(model, tokenizer, SENTENCES[:1])
    assert tags == NumpyTagger(CONFIG, tagger_state()).tags(SENTENCES[0])


def test_arrays_that_share_memory_in_the_file(tmp_path):
    """As those of an LSTM that was on a GPU, or of weights that were tied."""
    state = tagger_state()
    names = [f"encoder._module.bias_{kind}_l0" for kind in ("ih", "hh")]
    whole = torch.cat([state[name] for name in names])
    state |= dict(zip(names, whole.chunk(2), strict=True))
    state["encoder._module.bias_ih_l1"] = state["encoder._module.bias_hh_l1"]
    archive = write_archive(tmp_path / "model.tar.gz", members_of(state=state))
    convert_allennlp_archive(archive, tmp_path / "converted")
    model = ElmoForTokenClassification.from_pretrained(tmp_path / "converted").eval()
    tokenizer = ElmoTokenizer.from_pretrained(tmp_path / "converted")
    [(_, scores)] = tags_of(model, tokenizer, SENTENCES[:1])
    np.testing.assert_allclose(scores, NumpyTagger(CONFIG, state).logits(SENTENCES[0]), atol=1e-5)


def test_the_command(tmp_path):
    archive = write_archive(tmp_path / "model.tar.gz", members_of())
    result = CliRunner().invoke(app, ["convert", str(archive), str(tmp_path / "tagger")])
    assert result.exit_code == 0, result.output
    assert ElmoForTokenClassification.from_pretrained(tmp_path / "tagger").config.use_crf
    result = CliRunner().invoke(app, ["convert", str(archive), str(tmp_path / "elmo"), "--only-elmo"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "elmo" / "config.json").read_text(encoding="utf-8"))["architectures"] == ["ElmoModel"]


def test_from_a_tagger_to_the_original_format(tmp_path):
    """The ELMo of a tagger goes on to options.json and weights.hdf5, and computes there what it computed before."""
    archive = write_archive(tmp_path / "model.tar.gz", members_of())
    convert_allennlp_archive(archive, tmp_path / "tagger")
    with pytest.warns(UserWarning, match="scalar mixes"):
        convert_from_folder(tmp_path / "tagger", tmp_path / "original")
    model, _ = load_bilm(tmp_path / "original")
    before, _ = layers_of(load_allennlp_elmo(archive), SENTENCES[0])
    np.testing.assert_allclose(layers_of(model, SENTENCES[0])[0], before, atol=1e-6)


def test_entries_that_are_no_words_here(tmp_path):
    vocabulary = VOCABULARY | {"tokens": [*VOCABULARY["tokens"], "[PAD]", ""]}
    state = tagger_state()
    key = f"{EMBEDDER}tokens.weight"
    state[key] = torch.cat([state[key], torch.ones(2, 3)])
    archive = write_archive(tmp_path / "model.tar.gz", members_of(CONFIG, state, vocabulary))
    with pytest.warns(UserWarning, match="2 entries of the namespace 'tokens' cannot be words here"):
        model, tokenizer = load_allennlp_tagger(archive)
    [(_, scores)] = tags_of(model, tokenizer, SENTENCES[:1])
    np.testing.assert_allclose(scores, NumpyTagger(CONFIG, tagger_state()).logits(SENTENCES[0]), atol=1e-5)
