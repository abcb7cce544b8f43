"""The examples of docs/libraries.md, as they stand."""

import re
import subprocess
import sys

import pytest
from places import CHECKOUT

PAGE = CHECKOUT / "docs" / "libraries.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="only a checkout has the pages")


def example(name):
    block = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return block[1]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder; what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name):
        exec(example(name), {})
        return capsys.readouterr().out

    return run


def test_sklearn(run):
    pytest.importorskip("sklearn", reason="needs the extra sklearn")
    prediction, names = run("sklearn").splitlines()
    assert prediction in ("[0]", "[1]")
    assert names == "['elmovectorizer0' 'elmovectorizer1' 'elmovectorizer2']"


def test_sentence_transformers(run):
    pytest.importorskip("sentence_transformers", reason="needs the extra sentence")
    lines = run("sentence-transformers").splitlines()
    assert len(lines) == 2
    assert float(lines[0].rpartition(" ")[2]) >= float(lines[1].rpartition(" ")[2]) > 0


def test_spacy(run):
    spacy = pytest.importorskip("spacy", reason="needs the extra spacy")
    if not spacy.Language.has_factory("elmo"):
        # Where the package is not installed, spaCy does not know of it.
        import hf_elmo.integrations.spacy  # noqa: F401
    first, *others = run("spacy").splitlines()
    shape, similarity = first.rsplit(" ", 1)
    assert shape == others[0] == others[1] == "(384,)"
    assert -1 < float(similarity) < 0.99


def test_gensim(run, monkeypatch):
    pytest.importorskip("gensim", reason="needs gensim")
    # The command of this interpreter, wherever its script is.
    start = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda words, **options: start([sys.executable, "-m", "hf_elmo", *words[1:]], **options)
    )
    assert run("gensim").count("(") == 2
