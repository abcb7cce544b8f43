"""The TF-Hub module's interface: both signatures, every output, and the example of its page."""

import numpy as np
import pytest
import torch
from published_elmo import DIM, TOLERANCE, PublishedElmo, padded

from hf_elmo import ElmoModel
from hf_elmo.compat import tfhub as hub
from hf_elmo.conversion import ConversionError, load_bilm

TEXTS = ["the cat is on the mat", "dogs are in the fog", "  two   spaces ", ""]
WORDS = [["the", "cat", "is", "on", "the", "mat"], ["dogs", "are", "in", "the", "fog"], ["two", "spaces"], []]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return PublishedElmo(tmp_path_factory.mktemp("published"))


def check(output, published, sentences, width):
    """Every output against the formulas, with the mix that is at its start."""
    assert set(output) == {"word_emb", "lstm_outputs1", "lstm_outputs2", "elmo", "default", "sequence_len"}
    layers = [published.words(words) for words in sentences]
    arrays = {
        "word_emb": padded([each[0, :, : DIM // 2] for each in layers], width),
        "lstm_outputs1": padded([each[1] for each in layers], width),
        "lstm_outputs2": padded([each[2] for each in layers], width),
        "elmo": padded([each.mean(axis=0) for each in layers], width),
        "default": np.stack([each.mean(axis=0).sum(axis=0) / max(1, each.shape[1]) for each in layers]),
    }
    for name, array in arrays.items():
        assert tuple(output[name].shape) == array.shape, name
        np.testing.assert_allclose(output[name].detach().numpy(), array, **TOLERANCE, err_msg=name)
    assert output["sequence_len"].dtype == torch.int32
    assert output["sequence_len"].tolist() == list(map(len, sentences))


def test_texts(published):
    elmo = hub.Module(published.folder)
    check(elmo(TEXTS, signature="default", as_dict=True), published, WORDS, 6)
    check(elmo([text.encode() for text in TEXTS], as_dict=True), published, WORDS, 6)
    mean = elmo(TEXTS)
    torch.testing.assert_close(mean, elmo(TEXTS, as_dict=True)["default"])
    # A sentence more changes nothing.
    torch.testing.assert_close(elmo(TEXTS[1:2]), mean[1:2], atol=1e-6, rtol=0)


def test_tokens(published):
    elmo = hub.Module(published.folder)
    tokens = [[*words, *["", "padding"][: 8 - len(words)], *[""] * (6 - len(words))] for words in WORDS]
    assert {len(row) for row in tokens} == {8}
    for inputs in (tokens, np.array(tokens), np.array(tokens, dtype=object)):
        for lengths in ([6, 5, 2, 0], np.array([6, 5, 2, 0], dtype=np.int32), torch.tensor([6, 5, 2, 0])):
            output = elmo({"tokens": inputs, "sequence_len": lengths}, signature="tokens", as_dict=True)
            check(output, published, WORDS, 8)


def test_words_of_the_tokens_signature_may_hold_spaces(published):
    elmo = hub.Module(published.folder)
    output = elmo({"tokens": [["New York", "is"]], "sequence_len": [2]}, signature="tokens", as_dict=True)
    check(output, published, [["New York", "is"]], 2)


def test_signatures_of_a_loaded_module(published):
    signatures = hub.load(published.folder).signatures
    check(signatures["default"](TEXTS), published, WORDS, 6)
    tokens = [[*words, *[""] * (6 - len(words))] for words in WORDS]
    check(signatures["tokens"](tokens=tokens, sequence_len=[6, 5, 2, 0]), published, WORDS, 6)


def test_what_is_trained(published):
    assert not any(parameter.requires_grad for parameter in hub.Module(published.folder).parameters())
    elmo = hub.Module(published.folder, trainable=True)
    trained = [parameter for parameter in elmo.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 4
    elmo.train()(TEXTS).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)


def test_the_mix_of_a_model_is_used(published, tmp_path):
    model, _ = load_bilm(published.folder)
    with torch.no_grad():
        model.scalar_mixes[0].weights.copy_(torch.tensor([0.0, 1.0, -1.0]))
        model.scalar_mixes[0].gamma.fill_(2)
    model.save_pretrained(tmp_path / "model")
    shares = np.exp([0, 1, -1]) / np.exp([0, 1, -1]).sum()
    array = 2 * np.tensordot(shares, published.words(WORDS[0]), axes=1)
    for spec in (tmp_path / "model", ElmoModel.from_pretrained(tmp_path / "model")):
        output = hub.Module(spec)([TEXTS[0]], as_dict=True)
        np.testing.assert_allclose(output["elmo"][0].detach().numpy(), array, **TOLERANCE)
        np.testing.assert_allclose(output["default"][0].detach().numpy(), array.mean(axis=0), **TOLERANCE)


def test_sizes_of_the_outputs(published):
    sizes = hub.Module(published.folder).get_output_info_dict()
    assert sizes == {"word_emb": 6, "lstm_outputs1": 12, "lstm_outputs2": 12, "elmo": 12, "default": 12}


def test_wrong_use(published):
    with pytest.raises(ConversionError, match="nothing is downloaded"):
        hub.Module("https://tfhub.dev/google/elmo/3", trainable=True)
    elmo = hub.Module(published.folder)
    for inputs in ("one text", {"tokens": [["a"]], "sequence_len": [1]}):
        with pytest.raises(ValueError, match="default takes a list of texts"):
            elmo(inputs)
    with pytest.raises(ValueError, match="must be str or bytes, was: int 5"):
        elmo([5])
    with pytest.raises(ValueError, match="signature must be one of default, tokens, was: 'words'"):
        elmo(TEXTS, signature="words")
    for inputs, message in (
        (TEXTS, "a dictionary with tokens and sequence_len, was: list"),
        ({"tokens": [["a"]]}, r"was: \['tokens'\]"),
        ({"tokens": [["a"], ["b", "c"]], "sequence_len": [1, 2]}, r"rows of \[1, 2\]"),
        ({"tokens": [["a"]], "sequence_len": [1, 1]}, "must be 1 integers"),
        ({"tokens": [["a"]], "sequence_len": [1.0]}, "must be 1 integers"),
        ({"tokens": [["a"]], "sequence_len": [2]}, "must be from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            elmo(inputs, signature="tokens")
