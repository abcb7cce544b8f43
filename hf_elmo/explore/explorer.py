"""What the demo shows, computed: how a word moves between two sentences, its neighbours, substitutes and tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from ..language_model.scoring import check_language_model
from ..language_model.substitution import substitutes
from ..vectors.embedding import embed_sentences
from .example_sentences import EXAMPLE_SENTENCES
from .nearest_words import MOST_WORDS as MOST_VOCABULARY
from .nearest_words import NearestWords
from .word_comparison import Similarities, cosines, similarities

if TYPE_CHECKING:
    from ..model.heads.token_classification_elmo import ElmoForTokenClassification
    from ..model.modeling_elmo import ElmoForPreTraining, ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

MOST_CHARACTERS, MOST_WORDS = 300, 40


class VisitorError(ValueError):
    """Something is wrong with what was asked; the message is for the visitor."""


class Neighbour(NamedTuple):
    """A word that is near.

    Attributes:
        word: The word.
        cosine: How near.
        sentence: The words of the sentence in which it stands; None for a word of the vocabulary, without any.
        place: Where it stands there.
    """

    word: str
    cosine: float
    sentence: list[str] | None = None
    place: int = 0


class Exploration(NamedTuple):
    """All about a word in each of two sentences.

    Attributes:
        similarities: The words of both sentences, and the cosines of all pairs.
        places: Which word was picked in each.
        neighbours: For each of the two words, for each layer and, last, the mix: the nearest words, nearest first.
        substitutes: For each of the two words what would fit in its place, as `hf_elmo.substitutes` gives it; None if
            the model is not a language model.
        by_use: For each of the two words the nearest words of the vocabulary by the rows of the softmax; None for a
            word that is not in the vocabulary, and for a model that is not a language model.
        tags: For each sentence the tag of each word; None if there is no tagger.
    """

    similarities: Similarities
    places: tuple[int, int]
    neighbours: list[list[list[Neighbour]]]
    substitutes: list[list[dict[str, Any]]] | None
    by_use: list[list[Neighbour] | None]
    tags: list[list[str]] | None

    @property
    def cosines(self) -> list[float]:
        """Of the two picked words, in each layer and, last, in the mix."""
        i, j = self.places
        return [*self.similarities.layers[:, i, j].tolist(), float(self.similarities.mix[i, j])]


class Explorer:
    """Answers questions about words in sentences, which anybody may ask: everything that is not sound is refused.

    Args:
        model: An `ElmoModel`, or a model on top of one. An `ElmoForPreTraining` finds substitutes, too.
        tokenizer: Its `ElmoTokenizer`.
        tagger: An `ElmoForTokenClassification`, or None.
        tagger_tokenizer: The tagger's tokenizer.
        examples: Further sentences, as words, among whose words neighbours are looked for.
        most_vocabulary: At most this many words of the vocabulary, the most frequent ones, are looked at for
            neighbours.
    """

    def __init__(
        self,
        model: ElmoPreTrainedModel,
        tokenizer: ElmoTokenizer,
        tagger: ElmoForTokenClassification | None = None,
        tagger_tokenizer: ElmoTokenizer | None = None,
        examples: Sequence[str] = EXAMPLE_SENTENCES,
        most_vocabulary: int = MOST_VOCABULARY,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.tagger, self.tagger_tokenizer = tagger, tagger_tokenizer
        self.num_layers = model.config.num_layers + 1
        self.fills = _is_language_model(model, tokenizer)
        self._nearest = NearestWords(model, tokenizer, most_vocabulary)
        self._examples = self._read([tokenizer.tokenize(sentence) for sentence in examples])

    def split(self, text: str, name: str = "text") -> list[str]:
        """The words of a text.

        Args:
            text: The text.
            name: What messages call it.

        Raises:
            VisitorError: for a text that is empty or too long.
        """
        if not isinstance(text, str) or not text.strip():
            raise VisitorError(f"The {name} is empty: type one.")
        if len(text) > MOST_CHARACTERS:
            raise VisitorError(
                f"The {name} has {len(text):,} characters, but at most {MOST_CHARACTERS} are read here: shorten it."
            )
        words = self.tokenizer.tokenize(text)
        if not words:
            raise VisitorError(f"The {name} has no words: type some.")
        if len(words) > MOST_WORDS:
            raise VisitorError(
                f"The {name} has {len(words)} words, but at most {MOST_WORDS} are read here: shorten it."
            )
        return words

    def explore(self, first: list[str], second: list[str], places: tuple[int, int], count: int = 6) -> Exploration:
        """Looks at a word of each of two sentences.

        Args:
            first: The words of a sentence.
            second: Those of another one.
            places: Which word of each, counted from 0.
            count: How many neighbours and substitutes.

        Raises:
            VisitorError: for a place that is not in its sentence.
        """
        sentences = [first, second]
        for name, words, place in zip(("first", "second"), sentences, places, strict=True):
            if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(words):
                raise VisitorError(f"There is no such word in the {name} sentence: pick one of its words.")
        return Exploration(
            similarities(self.model, self.tokenizer, first, second),
            places,
            self._neighbours(sentences, places, count),
            [self._substitutes(words, place, count) for words, place in zip(sentences, places)] if self.fills else None,
            [self._by_use(words[place], count) for words, place in zip(sentences, places)],
            [self.tag(words) for words in sentences] if self.tagger is not None else None,
        )

    def tag(self, words: list[str]) -> list[str]:
        """The tagger's best sequence of tags for a sentence."""
        if self.tagger is None or self.tagger_tokenizer is None:
            raise ValueError("This explorer has no tagger.")
        inputs = self.tagger_tokenizer([words], is_split_into_words=True, return_tensors="pt").to(self.tagger.device)
        with torch.inference_mode():
            numbers = self.tagger.decode(**inputs)[0]
        names = {int(label): name for label, name in (self.tagger.config.id2label or {}).items()}
        return [str(names[number]) for number in numbers]

    def _substitutes(self, words: list[str], place: int, count: int) -> list[dict[str, Any]]:
        # `fills` says that this is a language model.
        model = cast("ElmoForPreTraining", self.model)
        return substitutes(model, self.tokenizer, words, count, word_index=place, is_split_into_words=True)

    def _read(self, sentences: list[list[str]]) -> list[tuple[list[str], np.ndarray]]:
        """Each sentence with its vectors, ``(layers + 1, words, dim)``, the mix being last."""
        layers = embed_sentences(self.model, self.tokenizer, sentences, layers="all")
        mixes = embed_sentences(self.model, self.tokenizer, sentences)
        return [(each.words, np.concatenate([each.vectors, mix.vectors[None]])) for each, mix in zip(layers, mixes)]

    def _neighbours(self, sentences: list[list[str]], places: tuple[int, int], count: int) -> list:
        read = self._read(sentences)
        known = [*read, *self._examples]
        # Marks and dots have neighbours of their own, and are nobody's.
        candidates = [
            (sentence, place)
            for sentence, (words, _) in enumerate(known)
            for place, word in enumerate(words)
            if any(letter.isalnum() for letter in word)
        ]
        found = []
        for number, place in enumerate(places):
            word, vectors = sentences[number][place], read[number][1][:, place]
            of_word = [[Neighbour(*each) for each in self._nearest.by_spelling(word, count)]]
            others = [(sentence, other) for sentence, other in candidates if (sentence, other) != (number, place)]
            for layer in range(1, self.num_layers + 1):
                matrix = np.stack([known[sentence][1][layer, other] for sentence, other in others])
                near = cosines(vectors[layer : layer + 1], matrix)[0]
                of_word.append(
                    [
                        Neighbour(known[sentence][0][other], float(near[index]), known[sentence][0], other)
                        for index in np.argsort(-near, kind="stable")[:count]
                        for sentence, other in [others[index]]
                    ]
                )
            found.append(of_word)
        return found

    def _by_use(self, word: str, count: int) -> list[Neighbour] | None:
        near = self._nearest.by_use(word, count)
        return None if near is None else [Neighbour(*each) for each in near]


def _is_language_model(model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer) -> bool:
    try:
        check_language_model(model, tokenizer)
    except ValueError:
        return False
    return True


def shared_place(first: list[str], second: list[str]) -> tuple[int, int]:
    """Where to begin: the longest word that both sentences have, or else the longest of each."""
    shared = sorted(set(first) & set(second), key=lambda word: (-len(word), first.index(word)))
    shared = [word for word in shared if any(letter.isalnum() for letter in word)]
    if shared:
        return first.index(shared[0]), second.index(shared[0])
    return first.index(max(first, key=len)), second.index(max(second, key=len))
