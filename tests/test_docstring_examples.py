"""The examples in docstrings do what they show."""

import doctest
import inspect

import pytest

import hf_elmo
from hf_elmo.conversion import convert_from_folder
from hf_elmo.explore.word_comparison import compare_words

#: The functions that people call most. Each has an example.
FUNCTIONS = [
    hf_elmo.Embedder,
    hf_elmo.bundled,
    hf_elmo.embed_corpus,
    hf_elmo.embed_document,
    hf_elmo.embed_sentences,
    hf_elmo.generate,
    hf_elmo.perplexity,
    hf_elmo.precompute_layers,
    hf_elmo.quantize,
    hf_elmo.remember_words,
    hf_elmo.score_sentences,
    hf_elmo.stream,
    hf_elmo.substitutes,
    compare_words,
    convert_from_folder,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_examples(function, tmp_path, monkeypatch):
    # What examples write goes where nothing else is.
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(function)
    # A reader copies an example as it is: it has all of its imports.
    test = doctest.DocTestParser().get_doctest(text, {}, function.__name__, inspect.getsourcefile(function), None)
    assert test.examples
    problems = []
    doctest.DocTestRunner(verbose=False).run(test, out=problems.append)
    assert not problems, "".join(problems)
