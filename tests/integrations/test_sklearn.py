"""scikit-learn's own pipelines, searches and checks on ElmoVectorizer."""

import pickle

import numpy as np
import pandas as pd
import pytest

from hf_elmo import Embedder

sklearn = pytest.importorskip("sklearn", reason="needs the extra sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402

from hf_elmo.integrations.sklearn import ElmoVectorizer  # noqa: E402

TEXTS = ["I read the book.", "", "Yes!", ["Two", "words"], "He read it. She did not.", "one"]
LABELS = [1, 0, 0, 0, 1, 0]


@pytest.fixture
def vectorizer(tiny_model_folder):
    return ElmoVectorizer(str(tiny_model_folder))


@pytest.mark.parametrize(
    "options", [{}, {"layers": "all", "pooling": "max"}, {"layers": "top", "keep_boundaries": True}]
)
def test_vectors(tiny_model_folder, options):
    found = ElmoVectorizer(str(tiny_model_folder), **options).fit_transform(TEXTS)
    expected = list(Embedder(tiny_model_folder, **{"pooling": "mean", **options}).embed(TEXTS))
    assert found.dtype == np.float32
    assert found.shape == (6, 32 * 3 if options.get("layers") == "all" else 32)
    for ours, row in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, np.zeros(len(ours)) if row.vectors is None else row.vectors.ravel())


def test_numpy_pandas_and_names(vectorizer):
    expected = vectorizer.fit_transform(TEXTS[:3])
    for texts in (np.array(TEXTS[:3]), np.array(TEXTS[:3], dtype=object), pd.Series(TEXTS[:3], index=[7, 8, 9])):
        np.testing.assert_array_equal(vectorizer.transform(texts), expected)
    names = vectorizer.get_feature_names_out()
    assert (names[0], names[-1], len(names)) == ("elmovectorizer0", "elmovectorizer31", 32)
    frame = vectorizer.set_output(transform="pandas").transform(TEXTS[:3])
    assert list(frame.columns) == list(names)
    np.testing.assert_array_equal(frame.to_numpy(), expected)


def test_clone_and_pickle_without_weights(vectorizer):
    expected = vectorizer.fit_transform(TEXTS)
    stored = pickle.dumps(vectorizer)
    assert len(stored) < 5000
    np.testing.assert_array_equal(pickle.loads(stored).transform(TEXTS), expected)
    fresh = clone(vectorizer)
    assert fresh.get_params() == vectorizer.get_params()
    with pytest.raises(NotFittedError):
        fresh.transform(TEXTS)


def test_what_is_not_texts(vectorizer, tiny_model_folder):
    for texts, message in (
        ("one text", "Expected a list of texts.*was: str 'one text'"),
        (np.array([["a"], ["b"]]), r"was: an array \(2, 1\)"),
        (pd.DataFrame({"text": ["a"]}), r"was: an array \(1, 1\)"),
        (3, "was: int 3"),
        (["a", None], "Sentence 1 must be a text or a list of words, was: NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            vectorizer.fit_transform(texts)
    with pytest.raises(ValueError, match="layers must be one of"):
        ElmoVectorizer(str(tiny_model_folder), layers="first").fit(TEXTS)
    with pytest.raises(ValueError, match="a text has one vector here"):
        ElmoVectorizer(str(tiny_model_folder), pooling=None).fit(TEXTS)


# The checks of estimators that give them no matrix of numbers, which is not what this one reads.
CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("check", CHECKS)
def test_checks_of_estimators(vectorizer, check):
    getattr(estimator_checks, check)("ElmoVectorizer", vectorizer)


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_check_estimator(vectorizer):
    """It leaves out what wants a matrix, because of the tags."""
    results = estimator_checks.check_estimator(vectorizer, on_skip=None)
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search(tiny_model_folder, jobs):
    steps = [("elmo", ElmoVectorizer(str(tiny_model_folder), threads=1)), ("classifier", LogisticRegression())]
    grid = {"elmo__layers": ["mix", "top"], "elmo__pooling": ["max"]}
    search = GridSearchCV(Pipeline(steps), grid, cv=2, n_jobs=jobs, error_score="raise").fit(TEXTS, LABELS)
    assert search.cv_results_["mean_test_score"].shape == (2,)
    assert search.predict(TEXTS).shape == (6,)
