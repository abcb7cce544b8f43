"""Frozen vectors under a linear probe: what a layer has of a label that a straight cut can reach.

The probe is scikit-learn's logistic regression on standardised vectors. Its one choice, the strength of regularisation,
is made on data that is not tested: the mean over folds of the training part, or the development set where one is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_elmo.vectors.embedding import embed_sentences

STRENGTH = 0.01
STEPS = 60


def by_layer(stacked: np.ndarray) -> dict[str, np.ndarray]:
    """``(layers, rows, dim)`` as ``(rows, dim)`` of each layer, and of their average."""
    names = ["layer 0", *(f"layer {number}" for number in range(1, len(stacked)))]
    return {**dict(zip(names, stacked, strict=True)), "average": stacked.mean(axis=0)}


def layers_of_words(model, tokenizer, sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """All layers of all words, the sentences one after another: float32, ``(layers, words, dim)``."""
    parts = [each.vectors for each in embed_sentences(model, tokenizer, sentences, layers="all")]
    return np.concatenate(parts, axis=1)


def probe(strength: float = STRENGTH, seed: int = 0) -> Pipeline:
    """Standardisation and logistic regression, to be fitted.

    Args:
        strength: `C`: the larger, the less regularisation.
        seed: Of the order in which some solvers go through the rows.
    """
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=STEPS, random_state=seed))


def fit(vectors: np.ndarray, labels: Sequence[str], strength: float = STRENGTH, seed: int = 0) -> Pipeline:
    """A fitted probe of vectors ``(rows, dim)``.

    The solver may stop at `STEPS`, before its tolerance is reached: every arm has the same budget, so it does not warn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe(strength, seed).fit(vectors, np.asarray(labels))


def folds_of_groups(
    labels: Sequence[str], groups: Sequence[str], folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of training and test, for each fold; no group is in two folds, and labels are shared out evenly."""
    names, parts = np.asarray(labels), np.asarray(groups)
    with warnings.catch_warnings():
        # A label that is rarer than there are folds is absent from some of them, and that is well.
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(names, names, parts)


def cross_validated(
    vectors: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str],
    folds: int = 5,
    seed: int = 0,
    strength: float = STRENGTH,
) -> float:
    """The share of rows that a probe labels rightly which has seen the other folds only.

    Args:
        vectors: ``(rows, dim)``.
        labels: Of each row.
        groups: Of each row; no group is in two folds.
        folds: How many.
        seed: Of the folds.
        strength: As in `probe`.
    """
    names = np.asarray(labels)
    right = np.zeros(len(names), dtype=bool)
    for train, test in folds_of_groups(labels, groups, folds, seed):
        right[test] = fit(vectors[train], names[train], strength, seed).predict(vectors[test]) == names[test]
    return float(right.mean())
