"""How a word's vector moves with its sentence: the same word in two sentences, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .embedding import embed_sentences


class Comparison(NamedTuple):
    """A word at two places.

    Attributes:
        word: The word.
        places: Where it stands: its number in the first sentence, and in the second, from 0.
        layers: Cosine of its two vectors in each layer. The first layer knows no context: the cosine there is 1.
        mix: Cosine in the model's mix of layers.
    """

    word: str
    places: tuple[int, int]
    layers: tuple[float, ...]
    mix: float


def compare_words(
    model, tokenizer, first: str | Sequence[str], second: str | Sequence[str], word: str | None = None
) -> list[Comparison]:
    """Compares the vectors of a word in one sentence with those in another.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        first: A sentence, as text or words.
        second: Another one.
        word: The word, as the tokenizer writes it. None: every word that stands in both.

    Returns:
        A comparison for each occurrence in the first sentence with each in the second, in their order.

    Raises:
        ValueError: if the word is not in both sentences (None: if there is no such word), with their words.
    """
    sentences = [first, second]
    layers = list(embed_sentences(model, tokenizer, sentences, layers="all"))
    mixes = list(embed_sentences(model, tokenizer, sentences))
    first_words, second_words = layers[0].words, layers[1].words
    common = [each for each in dict.fromkeys(first_words) if each in set(second_words)]
    if word is None and not common:
        raise ValueError(f"The sentences share no word: {_listed(first_words)}, and {_listed(second_words)}.")
    for name, words in (("first", first_words), ("second", second_words)):
        if word is not None and word not in words:
            raise ValueError(f"The word {word!r} is not in the {name} sentence, whose words are: {_listed(words)}.")
    comparisons = []
    for each in common if word is None else [word]:
        for i in _places(each, first_words):
            for j in _places(each, second_words):
                cosines = [_cosine(a[i], b[j]) for a, b in zip(layers[0].vectors, layers[1].vectors, strict=True)]
                mix = _cosine(mixes[0].vectors[i], mixes[1].vectors[j])
                comparisons.append(Comparison(each, (i, j), tuple(cosines), mix))
    return comparisons


def _places(word: str, words: Sequence[str]) -> list[int]:
    return [place for place, other in enumerate(words) if other == word]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def _listed(words: Sequence[str]) -> str:
    most = 50
    listed = ", ".join(map(repr, words[:most])) or "(none)"
    return listed if len(words) <= most else f"{listed} and {len(words) - most:,} more"
