"""The component `elmo` in spaCy's own pipelines."""

import numpy as np
import pytest

from hf_elmo import Embedder

spacy = pytest.importorskip("spacy", reason="needs the extra spacy")

from hf_elmo.integrations.spacy import add_vectors  # noqa: E402

TEXT = "I read it yesterday. I  read it again."


@pytest.fixture
def nlp(tiny_model_folder):
    nlp = spacy.blank("en")
    nlp.add_pipe("elmo", config={"model": str(tiny_model_folder)})
    return nlp


def test_vectors_are_those_of_the_words(nlp, tiny_model_folder):
    doc = nlp(TEXT)
    words = [token.text for token in doc if not token.is_space]
    assert len(words) == len(doc) - 1
    (expected,) = Embedder(tiny_model_folder).embed([words])
    places = [token.i for token in doc if not token.is_space]
    np.testing.assert_allclose(doc.tensor[places], expected.vectors, atol=1e-5)
    space = next(token for token in doc if token.is_space)
    assert not doc.tensor[space.i].any()
    assert not space.has_vector
    np.testing.assert_array_equal(doc[1].vector, doc.tensor[1])
    np.testing.assert_allclose(doc.vector, expected.vectors.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(doc[0:3].vector, doc.tensor[:3].mean(axis=0), atol=1e-6)
    assert doc[1].vector_norm == pytest.approx(np.linalg.norm(doc.tensor[1]), rel=1e-6)
    assert (doc.has_vector, nlp("").tensor.shape, nlp("").has_vector) == (True, (0, 32), False)


def test_the_same_word_twice(nlp):
    """spaCy's own similarity is 1 for them."""
    doc = nlp(TEXT)
    first, second = (token for token in doc if token.text == "read")
    a, b = first.vector, second.vector
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine < 0.999
    assert first.similarity(second) == pytest.approx(float(cosine), abs=1e-6)
    assert first.similarity(first) == pytest.approx(1)
    assert doc[0:2].similarity(doc[1:2]) == pytest.approx(doc[1].similarity(doc[0:2]), abs=1e-6)
    space = next(token for token in doc if token.is_space)
    assert first.similarity(space) == 0


def test_sentences_are_read_on_their_own(tiny_model_folder):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("elmo", config={"model": str(tiny_model_folder), "layers": "top"})
    doc = nlp("I read it. She did not.")
    rows = Embedder(tiny_model_folder, layers="top").embed([[token.text for token in sent] for sent in doc.sents])
    np.testing.assert_allclose(doc.tensor, np.concatenate([row.vectors for row in rows]), atol=1e-5)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_pipe(nlp, processes):
    texts = [TEXT, "", "One more.", " \n ", "Read this."] * 2
    expected = [nlp(text).tensor for text in texts]
    found = [add_vectors(doc) for doc in nlp.pipe(texts, batch_size=3, n_process=processes)]
    for doc, text, tensor in zip(found, texts, expected, strict=True):
        assert doc.text == text
        np.testing.assert_allclose(doc.tensor, tensor, atol=1e-5)
        assert all((token.vector == doc.tensor[token.i]).all() for token in doc)
    assert found[0][1].similarity(found[4][0]) < 0.999


@pytest.mark.filterwarnings("ignore:.*Unable to save user hooks")
def test_to_disk_and_bytes(nlp, tmp_path):
    expected = nlp(TEXT)
    nlp.to_disk(tmp_path / "pipeline")
    # The configuration names a folder that need not be there any more.
    file = tmp_path / "pipeline" / "config.cfg"
    content = file.read_text(encoding="utf-8")
    assert "[components.elmo]" in content
    lines = [line if not line.startswith("model = ") else 'model = "/gone"' for line in content.splitlines()]
    file.write_text("\n".join(lines), encoding="utf-8")
    loaded = spacy.load(tmp_path / "pipeline")
    np.testing.assert_array_equal(loaded(TEXT).tensor, expected.tensor)
    doc = spacy.tokens.Doc(nlp.vocab).from_bytes(expected.to_bytes())
    np.testing.assert_array_equal(add_vectors(doc)[1].vector, expected[1].vector)
    with pytest.raises(ValueError, match="3 tokens, but a tensor of 0: run `elmo` on it"):
        add_vectors(nlp.make_doc("I read it"))


def test_options_that_are_none(tiny_model_folder):
    nlp = spacy.blank("en")
    with pytest.raises(ValueError, match="A token has one vector in spaCy"):
        nlp.add_pipe("elmo", config={"layers": "all"})
    nlp.add_pipe("elmo", config={"model": "nowhere"})
    with pytest.raises(ValueError, match="There is no model folder nowhere"):
        nlp("a")
