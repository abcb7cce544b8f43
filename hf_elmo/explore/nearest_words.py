"""The words of a vocabulary that are nearest to a word: by its spelling, and by its use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..language_model.scoring import check_language_model
from ..model.tokenization_elmo import SPECIAL_WORDS
from ..vectors.word_cache import word_vectors
from .word_comparison import cosines

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

MOST_WORDS = 20_000


class NearWord(NamedTuple):
    """A word of the vocabulary, and its cosine to the word that was asked for."""

    word: str
    cosine: float


class NearestWords:
    """Finds the nearest words of a model's vocabulary.

    *By spelling*: by the context-free layer, which reads a word's characters alone, and has a vector for any word. *By
    use*: by the rows of the softmax. Words whose rows point the same way are predicted in the same places, whatever
    their letters; only words of the vocabulary have a row.

    Args:
        model: An `ElmoModel`, or a model on top of one. Only an `ElmoForPreTraining` has rows to compare by use.
        tokenizer: Its `ElmoTokenizer`.
        most_words: At most this many words of the vocabulary, the most frequent ones, are looked at.

    Attributes:
        words: The words that are looked at, most frequent first, without special ones.
        has_uses: Whether the model has a softmax over the vocabulary, so that words can be compared by use.

    Examples:
        >>> import hf_elmo
        >>> from hf_elmo.explore.nearest_words import NearestWords
        >>> model = hf_elmo.ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> nearest = NearestWords(model, tokenizer)
        >>> len(nearest.by_spelling("walked", 5)), len(nearest.by_use("walked", 5))
        (5, 5)
        >>> nearest.by_use("walkedd") is None  # a word that the model does not predict
        True
    """

    def __init__(self, model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, most_words: int = MOST_WORDS):
        if most_words < 1:
            raise ValueError(f"most_words must be at least 1, was: {most_words}.")
        self.model, self.tokenizer = model, tokenizer
        numbers = tokenizer.get_vocab()
        words = sorted((word for word in numbers if word not in SPECIAL_WORDS), key=numbers.__getitem__)
        self.words = words[:most_words]
        # Halves of a layer-0 vector are both the word's: one of them has the same cosines.
        self._spellings = self._spellings_of(self.words)
        self._numbers = numbers
        self._rows = _softmax_rows(model, tokenizer)
        self.has_uses = self._rows is not None

    def by_spelling(self, word: str, count: int | None = 10) -> list[NearWord]:
        """The nearest words by the context-free layer, nearest first, without the word itself.

        Args:
            word: Any word, as the tokenizer would write it.
            count: At most this many; None: all.
        """
        return self._nearest(word, self._spellings_of([word]), self._spellings, count)

    def by_use(self, word: str, count: int | None = 10) -> list[NearWord] | None:
        """The nearest words by the rows of the softmax; None for a word, or a model, without a row.

        Args:
            word: A word of the vocabulary.
            count: At most this many; None: all.
        """
        if self._rows is None or word in SPECIAL_WORDS or word not in self._numbers:
            return None
        of_words = self._rows[[self._numbers[each] for each in self.words]]
        return self._nearest(word, self._rows[[self._numbers[word]]], of_words, count)

    def _spellings_of(self, words: list[str]) -> np.ndarray:
        with torch.inference_mode():
            parts = [vectors.float().numpy() for vectors in word_vectors(self.model, self.tokenizer, words)]
        return np.concatenate(parts or [np.zeros((0, self.model.config.projection_dim), dtype=np.float32)])

    def _nearest(self, word: str, vector: np.ndarray, matrix: np.ndarray, count: int | None) -> list[NearWord]:
        near = cosines(vector, matrix)[0]
        order = [index for index in np.argsort(-near, kind="stable") if self.words[index] != word]
        return [NearWord(self.words[index], float(near[index])) for index in order[:count]]


def _softmax_rows(model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer) -> np.ndarray | None:
    """float32, ``(vocab_size, projection_dim)``; None if the model has none of its own, or not as plain numbers."""
    try:
        check_language_model(model, tokenizer)
    except ValueError:
        return None
    softmax = model.get_output_embeddings()
    weight = getattr(softmax, "weight", None)
    # An adapter's part is not in `weight`, and 8-bit rows are packed.
    if not isinstance(weight, torch.Tensor) or hasattr(softmax, "get_delta_weight"):
        return None
    return weight.detach().float().cpu().numpy()
