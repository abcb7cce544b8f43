"""Context-free vectors of known words, kept so that the character CNN need not compute them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor

from ..model.fingerprint import Fingerprint

# Words of which vectors are computed at once.
_WORDS_PER_BATCH = 4096


class WordCache:
    """A table of words' rows of characters and their vectors. A row that is not in it is computed.

    The vectors belong to the weights that they were computed with: make the cache anew when these change. While the
    character encoder is trained it is not used.

    Args:
        rows: ``(words, chars)``, integers as `ElmoTokenizer` makes them.
        vectors: ``(words, projection_dim)``.

    Raises:
        ValueError: if there is not one vector for each row, or none at all.
    """

    def __init__(self, rows: Tensor, vectors: Tensor):
        if rows.dim() != 2 or vectors.dim() != 2 or not 0 < len(rows) == len(vectors):
            raise ValueError(
                f"Expected rows (words, chars) and vectors (words, dim), was: {tuple(rows.shape)} and "
                f"{tuple(vectors.shape)}."
            )
        generator = torch.Generator().manual_seed(0)
        self._factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator)
        self._hashes, order = (rows.long() * self._factors).sum(dim=1).sort()
        self._rows, self._vectors = rows.int().index_select(0, order), vectors.detach().index_select(0, order)

    def __len__(self) -> int:
        return len(self._rows)

    def look_up(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The vectors of rows, ``(words, chars)`` to ``(words, dim)``; `compute` is asked for what is not here."""
        if self._vectors.device != rows.device:
            for name in ("_factors", "_hashes", "_rows", "_vectors"):
                setattr(self, name, getattr(self, name).to(rows.device))
        if rows.shape[1] != self._rows.shape[1]:
            return compute(rows)
        place = torch.searchsorted(self._hashes, (rows * self._factors).sum(dim=1)).clamp(max=len(self) - 1)
        # Two rows may have the same hash: the comparison makes it exact.
        known = (self._rows.index_select(0, place) == rows).all(dim=1)
        if known.all():
            return self._vectors.index_select(0, place)
        computed = compute(rows[~known])
        vectors = self._vectors.index_select(0, place).to(computed.dtype)
        vectors[~known] = computed
        return vectors


class RecentWords:
    """The vectors of the words that were read last, for an encoder on a CPU; they are dropped when its weights change.

    Args:
        encoder: The `CharacterEncoder` whose `cache` it is to be.
        capacity: How many words at most. In float32 at the original size each takes 2.5 kB.

    Raises:
        ValueError: for a capacity below 1.
    """

    def __init__(self, encoder, capacity: int = 16_384):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, was: {capacity}.")
        self._encoder, self.capacity = encoder, capacity
        self._forget(None)

    def __len__(self) -> int:
        return len(self._places)

    def look_up(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The vectors of rows, ``(words, chars)`` to ``(words, dim)``; `compute` is asked for what is not here."""
        if rows.device.type != "cpu" or not len(rows):
            return compute(rows)
        weights = Fingerprint(self._encoder.parameters())
        if weights != self._weights:
            self._forget(weights)
        keys = [row.tobytes() for row in rows.short().numpy()]
        places = torch.tensor([self._places.get(key, -1) for key in keys])
        unknown = (places < 0).nonzero().squeeze(1)
        if not len(unknown):
            return self._vectors.index_select(0, places)
        computed = compute(rows.index_select(0, unknown)).detach()
        if self._vectors is None:
            # An inference tensor could not be changed later on, outside of inference mode.
            with torch.inference_mode(False):
                self._vectors = torch.empty(self.capacity, computed.shape[1], dtype=computed.dtype)
        vectors = self._vectors.index_select(0, places.clamp(min=0)).index_copy_(0, unknown, computed)
        self._keep([keys[number] for number in unknown.tolist()], computed)
        return vectors

    def _keep(self, keys: list[bytes], vectors: Tensor) -> None:
        """Puts words in the places of those that came first."""
        count = min(len(keys), self.capacity)
        places = [(self._next + number) % self.capacity for number in range(count)]
        for place, key in zip(places, keys):
            if place < len(self._owners):
                del self._places[self._owners[place]]
                self._owners[place] = key
            else:
                self._owners.append(key)
            self._places[key] = place
        self._vectors[torch.tensor(places)] = vectors[:count]
        self._next = (self._next + count) % self.capacity

    def _forget(self, weights: Fingerprint | None) -> None:
        self._weights, self._next = weights, 0
        self._places: dict[bytes, int] = {}
        self._owners: list[bytes] = []
        self._vectors: Tensor | None = None


def remember_words(model, capacity: int = 16_384) -> RecentWords:
    """Makes a model keep the context-free vectors of the words that it read last, from call to call.

    What it returns stays the same, within rounding. `embed_sentences` does so by itself while it runs.
    `model.base_model.character_encoder.cache = None` undoes it.

    Args:
        model: An `ElmoModel`, or a model with one inside.
        capacity: How many words at most.

    Returns:
        What keeps them.

    Raises:
        ValueError: for a capacity below 1.
    """
    encoder = model.base_model.character_encoder
    encoder.cache = RecentWords(encoder, capacity)
    return encoder.cache


@contextmanager
def remembering(encoder, cache: RecentWords) -> Iterator[None]:
    """An encoder uses a cache for a while, if it has none of its own."""
    own = encoder.cache
    encoder.cache = cache if own is None else own
    try:
        yield
    finally:
        encoder.cache = own


def cache_words(model, tokenizer, words: Sequence[str], vectors: Tensor | None = None) -> WordCache:
    """Makes a model look the vectors of words up instead of computing them; what it returns stays the same.

    `model.base_model.character_encoder.cache = None` undoes it.

    Args:
        model: An `ElmoModel`, or a model with one inside.
        tokenizer: Its `ElmoTokenizer`.
        words: The words, such as the most frequent ones of the text to come.
        vectors: Their vectors, ``(words, projection_dim)``; None: they are computed now.

    Returns:
        The cache, which the model uses from now on, when its character encoder is not trained.

    Raises:
        ValueError: if there are no words, or the vectors are not of them.
    """
    if not words:
        raise ValueError("There are no words to keep the vectors of.")
    encoder = model.base_model.character_encoder
    rows = torch.cat(list(_rows(tokenizer, words)))
    if vectors is None:
        vectors = torch.cat(list(word_vectors(model, tokenizer, words)))
    weight = encoder.char_embedding.weight
    dim = model.config.projection_dim
    if tuple(vectors.shape) != (len(words), dim):
        raise ValueError(f"Expected vectors {(len(words), dim)}, one for each word, was: {tuple(vectors.shape)}.")
    cache = WordCache(rows, vectors.to(weight.dtype))
    encoder.cache = cache
    return cache


@torch.no_grad()
def word_vectors(model, tokenizer, words: Sequence[str]) -> Iterator[Tensor]:
    """The context-free vectors of words, in batches ``(words, projection_dim)`` in their order, on the CPU.

    Args:
        model: An `ElmoModel`, or a model with one inside.
        tokenizer: Its `ElmoTokenizer`.
        words: The words. `<S>` and `</S>` are the boundaries of sentences.
    """
    encoder = model.base_model.character_encoder
    for rows in _rows(tokenizer, words):
        yield encoder(rows.to(model.device)).cpu()


def _rows(tokenizer, words: Sequence[str]) -> Iterator[Tensor]:
    remaining = iter(words)
    while batch := list(islice(remaining, _WORDS_PER_BATCH)):
        encoded = tokenizer(
            [batch], is_split_into_words=True, add_special_tokens=False, truncation=False, return_truncated_words=True
        )
        yield torch.tensor(encoded["character_ids"][0])
