"""scikit-learn: a transformer of texts to sentence vectors, for pipelines and searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..vectors.embedder import Embedder

if TYPE_CHECKING:
    from sklearn.utils import Tags


class ElmoVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Texts to sentence vectors, as `CountVectorizer` makes counts of them. Nothing is learned from the texts.

    A pickle has the options and where the model is, not its weights. Vectors are computed anew for each setting of a
    search: give `Pipeline` a `memory` where the classifier alone is searched.

    Args:
        model: A model folder, or the name of a bundled model; None: the bundled one.
        layers: `"mix"`, `"top"`, `"average"`, or `"all"`: the vectors of all layers, one after the other.
        pooling: `"mean"` or `"max"`, over the words of a text.
        keep_boundaries: `<S>` and `</S>` count as words.
        split_sentences: Each sentence of a text is read on its own.
        batch_words: Most words in a batch, padding included.
        device: A device of torch's; None: a GPU if there is one.
        threads: Threads of torch in each process that transforms; 1 is best with `n_jobs` above 1. None: its default.

    Attributes:
        embedder_: What embeds, once it is fitted.

    Examples:
        >>> from hf_elmo.integrations.sklearn import ElmoVectorizer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> texts, labels = ["A fine film.", "Wonderful!", "A bad film.", "Terrible!"], [1, 1, 0, 0]
        >>> classifier = make_pipeline(ElmoVectorizer(), LogisticRegression()).fit(texts, labels)
        >>> classifier.predict(texts).tolist()
        [1, 1, 0, 0]
    """

    def __init__(
        self,
        model: str | None = None,
        layers: str = "mix",
        pooling: str = "mean",
        keep_boundaries: bool = False,
        split_sentences: bool = False,
        batch_words: int = 2048,
        device: str | None = None,
        threads: int | None = None,
    ):
        self.model = model
        self.layers = layers
        self.pooling = pooling
        self.keep_boundaries = keep_boundaries
        self.split_sentences = split_sentences
        self.batch_words = batch_words
        self.device = device
        self.threads = threads

    def fit(self, X: Iterable[str | Sequence[str]], y: Any = None) -> ElmoVectorizer:
        """Checks the options and finds the model.

        Raises:
            ValueError: for a model that is not there, options that are none, and what is not a list of texts.
        """
        _check_texts(X)
        if self.pooling is None:
            raise ValueError("pooling must be 'mean' or 'max': a text has one vector here.")
        self.embedder_ = Embedder(**self.get_params())
        self._n_features_out = self.embedder_.dim * (self.embedder_.num_layers or 1)
        return self

    def transform(self, X: Iterable[str | Sequence[str]]) -> np.ndarray:
        """The vectors of texts.

        Args:
            X: Texts, or lists of words: a list, an array or a column of pandas.

        Returns:
            float32, ``(texts, dim)``, or ``(texts, layers * dim)`` for all layers; zeros for a text without words.

        Raises:
            ValueError: for what is not a list of texts.
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        texts = _check_texts(X)
        found = np.zeros((len(texts), self._n_features_out), np.float32)
        for number, row in enumerate(self.embedder_.embed(texts)):
            if row.vectors is not None:
                found[number] = row.vectors.ravel()
        return found

    def fit_transform(self, X: Iterable[str | Sequence[str]], y: Any = None, **options: Any) -> np.ndarray:
        """As `fit`, then `transform`."""
        texts = _check_texts(X)
        return self.fit(texts, y).transform(texts)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags


def _check_texts(X: Any) -> list[str | list[str]]:
    shape = getattr(X, "shape", None)
    if isinstance(X, str) or (shape is not None and len(shape) != 1) or not isinstance(X, Iterable):
        what = f"an array {shape}" if shape is not None else f"{type(X).__name__} {X!r:.60}"
        raise ValueError(f"Expected a list of texts, or a one-dimensional array or column of them, was: {what}.")
    return [list(text) if isinstance(text, (tuple, np.ndarray)) else text for text in X]
