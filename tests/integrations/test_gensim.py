"""gensim reads what `hf-elmo embed-vocabulary` writes."""

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.vectors.word_cache import word_vectors


def test_keyed_vectors(tmp_path, tiny_model_folder):
    models = pytest.importorskip("gensim.models", reason="needs gensim")
    words = ["read", "reads", "book", "Ärger"]
    (tmp_path / "words").write_text("\n".join(words), encoding="utf-8")
    arguments = ["embed-vocabulary", "--vocabulary", tmp_path / "words", "-m", tiny_model_folder, tmp_path / "v.txt"]
    assert CliRunner().invoke(app, list(map(str, arguments))).exit_code == 0
    vectors = models.KeyedVectors.load_word2vec_format(tmp_path / "v.txt", no_header=True)
    model, tokenizer = ElmoModel.from_pretrained(tiny_model_folder), ElmoTokenizer.from_pretrained(tiny_model_folder)
    expected = np.concatenate(list(word_vectors(model, tokenizer, words)))
    np.testing.assert_allclose(np.stack([vectors[word] for word in words]), expected, atol=1e-5)
    cosines = expected @ expected[0] / np.linalg.norm(expected, axis=1) / np.linalg.norm(expected[0])
    found = dict(vectors.most_similar("read", topn=10))
    for word, cosine in zip(words[1:], cosines[1:]):
        assert found[word] == pytest.approx(cosine, abs=1e-5)
