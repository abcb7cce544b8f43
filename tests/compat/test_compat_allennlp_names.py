"""Names that old scripts import from AllenNLP, beside those of its ELMo itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy_elmo import NumpyElmo, characters, random_weights
from original_format import OPTIONS, write_original

from hf_elmo.compat import allennlp
from hf_elmo.compat.allennlp import Elmo, ELMoCharacterMapper, ELMoTokenCharactersIndexer, batch_to_ids

# The ten most frequent import lines of public code, and rarer ones, with hf_elmo.compat.allennlp in the place of the
# modules. (Found by searches for "from allennlp.modules.elmo import", "import allennlp.modules.elmo", "allennlp.modules
# import elmo", "from allennlp.commands.elmo import", "import allennlp.commands.elmo", "elmo_indexer import" and "from
# allennlp.data.token_indexers import elmo": the most frequent first.)
LINES = [
    "from hf_elmo.compat.allennlp import Elmo, batch_to_ids",
    "from hf_elmo.compat.allennlp import ElmoEmbedder",
    "from hf_elmo.compat.allennlp import ELMoTokenCharactersIndexer",
    "from hf_elmo.compat.allennlp import Elmo",
    "from hf_elmo.compat.allennlp import batch_to_ids",
    "import hf_elmo.compat.allennlp as elmo",
    "from hf_elmo.compat.allennlp import ELMoCharacterMapper",
    "from hf_elmo.compat.allennlp import batch_to_ids, Elmo",
    "from hf_elmo.compat.allennlp import ElmoEmbedder as _ElmoEmbedder",
    "from hf_elmo.compat.allennlp import _ElmoBiLm",
    "from hf_elmo.compat.allennlp import _ElmoCharacterEncoder",
    "from hf_elmo.compat.allennlp import ELMoCharacterMapper, ELMoTokenCharactersIndexer",
    "from hf_elmo.compat.allennlp import Elmo as allen_elmo",
    "from hf_elmo.compat.allennlp import Elmo, _ElmoCharacterEncoder, batch_to_ids",
    "from hf_elmo.compat.allennlp import _ElmoBiLm, batch_to_ids",
    "from hf_elmo.compat.allennlp import ElmoTokenEmbedder",
    "from hf_elmo.compat.allennlp import remove_sentence_boundaries, add_sentence_boundary_token_ids",
    "from hf_elmo.compat.allennlp import _make_bos_eos",
    "from hf_elmo.compat.allennlp import DEFAULT_OPTIONS_FILE, DEFAULT_WEIGHT_FILE",
]


@pytest.mark.parametrize("line", LINES)
def test_import_lines(line):
    names = {}
    exec(line, names)
    assert names.keys() > {"__builtins__"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = write_original(tmp_path_factory.mktemp("elmo"), OPTIONS, random_weights(OPTIONS, seed=3))
    return str(folder / "options.json"), str(folder / "weights.hdf5")


def test_words_to_characters():
    for word in ["", "the", "naïve", "日本", "x" * 99, "<S>", "</S>"]:
        expected = [number + 1 for number in characters(word)]
        # Called on the class as in AllenNLP 0.8, on an object as later.
        assert ELMoCharacterMapper.convert_word_to_char_ids(word) == expected
        assert ELMoCharacterMapper().convert_word_to_char_ids(word) == expected
    assert ELMoCharacterMapper.beginning_of_sentence_characters == characters("<S>")
    assert ELMoCharacterMapper.end_of_sentence_characters == characters("</S>")
    assert allennlp._make_bos_eos(256, 260, 258, 259, 50) == characters("<S>")
    added = ELMoCharacterMapper({"[MASK]": 300})
    assert added.convert_word_to_char_ids("[MASK]") == [259, 301, 260] + [261] * 47
    assert added.convert_word_to_char_ids("MASK") == ELMoCharacterMapper.convert_word_to_char_ids("MASK")
    assert added != ELMoCharacterMapper() == ELMoCharacterMapper()


def test_an_indexer_and_elmo(files):
    indexer = ELMoTokenCharactersIndexer(token_min_padding_length=4)
    tokens = [SimpleNamespace(text="the"), SimpleNamespace(text="naïve"), "cat"]
    rows = indexer.tokens_to_indices(tokens, None)
    # AllenNLP 0.9 gave the name.
    assert indexer.tokens_to_indices(tokens, None, "elmo") == {"elmo": rows["elmo_tokens"]}
    lengths = indexer.get_padding_lengths(rows)
    assert lengths == {"elmo_tokens": 4}
    padded = indexer.as_padded_tensor_dict(rows, lengths)["elmo_tokens"]
    assert torch.equal(padded[:3], batch_to_ids([["the", "naïve", "cat"]])[0])
    assert padded[3].count_nonzero() == 0
    assert indexer.as_padded_tensor_dict(indexer.get_empty_token_list(), {"elmo_tokens": 2})["elmo_tokens"].shape == (
        2,
        50,
    )
    with pytest.raises(ValueError, match="one has none"):
        indexer.tokens_to_indices([SimpleNamespace()], None)


@pytest.mark.parametrize("as_object", [False, True])
def test_from_params(files, as_object):
    options, weights = files
    params = {"options_file": options, "weight_file": weights, "num_output_representations": 2, "dropout": 0.0}
    given = SimpleNamespace(as_dict=lambda: params) if as_object else params
    with torch.no_grad():
        ids = batch_to_ids([["the", "cat"]])
        made = Elmo.from_params(given).eval()(ids)["elmo_representations"]
        expected = Elmo(options, weights, 2, dropout=0).eval()(ids)["elmo_representations"]
    assert len(made) == 2
    for one, other in zip(made, expected, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="Elmo has no argument weights_file"):
        Elmo.from_params({**params, "weights_file": weights})


def test_the_character_encoder(files):
    encoder = allennlp._ElmoCharacterEncoder(*files)
    sentences = [["the", "naïve", "cat"], ["日本"]]
    with torch.no_grad():
        output = encoder(batch_to_ids(sentences))
    oracle = NumpyElmo(OPTIONS, random_weights(OPTIONS, seed=3))
    assert output["mask"].tolist() == [[True] * 5, [True, True, True, False, False]]
    assert output["token_embedding"].shape == (2, 5, encoder.get_output_dim())
    assert output["token_embedding"][1, 3:].count_nonzero() == 0
    for row, words in enumerate(sentences):
        expected = np.array([oracle.word_vector(word) for word in ["<S>", *words, "</S>"]])
        np.testing.assert_allclose(output["token_embedding"][row, : len(words) + 2].numpy(), expected, atol=1e-5)


def test_boundaries():
    numbers, mask = allennlp.add_sentence_boundary_token_ids(
        torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]]), 1, 2
    )
    assert numbers.tolist() == [[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]]
    assert mask.tolist() == [[True] * 5, [True, True, True, False, False]]
    rows, _ = allennlp.add_sentence_boundary_token_ids(
        torch.ones(1, 2, 3), torch.ones(1, 2), torch.zeros(3), torch.full((3,), 2.0)
    )
    assert rows[0].tolist() == [[0.0] * 3, [1.0] * 3, [1.0] * 3, [2.0] * 3]
    with pytest.raises(ValueError, match=r"was: \(3,\)"):
        allennlp.add_sentence_boundary_token_ids(torch.ones(3), torch.ones(3), 1, 2)


def test_files_that_would_be_downloaded():
    with pytest.raises(ValueError, match=r"nothing is downloaded here: fetch the file \(conversion/SOURCES.md"):
        Elmo(allennlp.DEFAULT_OPTIONS_FILE, allennlp.DEFAULT_WEIGHT_FILE, 1)
