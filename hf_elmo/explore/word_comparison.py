"""How words' vectors move with their sentence: the words of two sentences side by side, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..vectors.embedding import embed_sentences

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer


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


class Similarities(NamedTuple):
    """All words of one sentence against all words of another.

    Attributes:
        first: The n words of the first sentence.
        second: The m words of the second one.
        layers: float64, ``(layers, n, m)``: cosines of their vectors in each layer, the context-free one first.
        mix: float64, ``(n, m)``: cosines in the model's mix of layers.
    """

    first: list[str]
    second: list[str]
    layers: np.ndarray
    mix: np.ndarray


def similarities(
    model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, first: str | Sequence[str], second: str | Sequence[str]
) -> Similarities:
    """Compares every word of a sentence with every word of another one.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        first: A sentence, as text or words.
        second: Another one, or the same.

    Raises:
        ValueError: for a sentence that is neither text nor words.
    """
    sentences = [first, second]
    layers = list(embed_sentences(model, tokenizer, sentences, layers="all"))
    mixes = list(embed_sentences(model, tokenizer, sentences))
    return Similarities(
        layers[0].words,
        layers[1].words,
        np.stack([cosines(a, b) for a, b in zip(layers[0].vectors, layers[1].vectors, strict=True)]),
        cosines(mixes[0].vectors, mixes[1].vectors),
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each of some vectors with each of others; 0 where a vector is 0.

    Args:
        a: ``(n, dim)``.
        b: ``(m, dim)``.

    Returns:
        float64, ``(n, m)``.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return np.divide(a @ b.T, norms, out=np.zeros_like(norms), where=norms > 0)


def compare_words(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    first: str | Sequence[str],
    second: str | Sequence[str],
    word: str | None = None,
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

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> from hf_elmo.explore.word_comparison import compare_words
        >>> (found,) = compare_words(model, tokenizer, "He can read.", "She read it.", "read")
        >>> found.places, len(found.layers) == model.config.num_layers + 1
        ((2, 1), True)
        >>> round(found.layers[0], 3)  # the layer without context
        1.0
    """
    found = similarities(model, tokenizer, first, second)
    first_words, second_words = found.first, found.second
    common = [each for each in dict.fromkeys(first_words) if each in set(second_words)]
    if word is None and not common:
        raise ValueError(f"The sentences have no word in common: {_listed(first_words)}, and {_listed(second_words)}.")
    for name, words in (("first", first_words), ("second", second_words)):
        if word is not None and word not in words:
            raise ValueError(f"The word {word!r} is not in the {name} sentence, whose words are: {_listed(words)}.")
    comparisons = []
    for each in common if word is None else [word]:
        for i in _places(each, first_words):
            for j in _places(each, second_words):
                layers, mix = found.layers[:, i, j].tolist(), float(found.mix[i, j])
                comparisons.append(Comparison(each, (i, j), tuple(layers), mix))
    return comparisons


def _places(word: str, words: Sequence[str]) -> list[int]:
    return [place for place, other in enumerate(words) if other == word]


def _listed(words: Sequence[str]) -> str:
    most = 50
    listed = ", ".join(map(repr, words[:most])) or "(none)"
    return listed if len(words) <= most else f"{listed} and {len(words) - most:,} more"
