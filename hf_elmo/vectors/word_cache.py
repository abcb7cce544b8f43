"""Context-free vectors of known words, kept so that the character CNN need not compute them again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..model.character_encoder import CharacterEncoder, VectorCache, cache_of_call, hash_factors, row_hashes
from ..model.fingerprint import Fingerprint
from ..model.word_encoder import WordEncoder, rows_of

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

# The number of words whose vectors are computed at once.
_WORDS_PER_BATCH = 4096
# Words are computed in multiples of this number, because a product of one row, or of rows that do not fill a block,
# rounds otherwise: a word's vector must not depend on the words that happened to be new along with it.
_ROWS_OF_A_BLOCK = 16

# Held while words are looked up and put in, so that threads may share a cache; not while vectors are computed.
_lock = threading.Lock()


def _renew_lock() -> None:
    """For a forked process: whoever held the lock is not there any more."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class _Arrays(NamedTuple):
    """The rows and vectors of a `WordCache`, sorted by the rows' hashes; and the factors of the hash."""

    factors: Tensor
    hashes: Tensor
    rows: Tensor
    vectors: Tensor


class WordCache:
    """A table of words' rows of characters and their vectors. A row that is not in it is computed.

    The vectors belong to the weights that they were computed with: make the cache anew when these change. The model
    does without it while its character encoder is trained, under autocast, and while there is an adapter, a hook or
    another class of module in the encoder. Threads may share it.

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
        factors = hash_factors(rows.shape[1])
        hashes, order = row_hashes(rows, factors).sort()
        self._arrays = _Arrays(
            factors, hashes, rows.int().index_select(0, order), vectors.detach().index_select(0, order)
        )

    def __len__(self) -> int:
        return len(self._arrays.rows)

    def look_up(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The vectors of rows, ``(words, chars)`` to ``(words, dim)``; `compute` is asked for what is not here."""
        arrays = self._arrays
        if arrays.vectors.device != rows.device:
            # Put in its place as a whole, for threads that look words up meanwhile.
            self._arrays = arrays = _Arrays(*(array.to(rows.device) for array in arrays))
        factors, hashes, known_rows, known_vectors = arrays
        if rows.shape[1] != known_rows.shape[1]:
            return compute(rows)
        place = torch.searchsorted(hashes, row_hashes(rows, factors)).clamp(max=len(hashes) - 1)
        # Two rows may have the same hash: the comparison makes it exact.
        known = (known_rows.index_select(0, place) == rows).all(dim=1)
        if known.all():
            return known_vectors.index_select(0, place)
        computed = compute(rows[~known])
        vectors = known_vectors.index_select(0, place).to(computed.dtype)
        vectors[~known] = computed
        return vectors


class RecentWords:
    """The vectors of the words that were read last, for an encoder on a CPU; they are dropped when its weights change.

    Threads may share it: a word's vector does not depend on the words that it was computed with. (The products of a
    quantised encoder do; its words are computed anew in each call.)

    Args:
        encoder: The `CharacterEncoder` whose `cache` it is to be.
        capacity: How many words at most. In float32 at the original size each takes 2.5 kB.
        across_calls: Whether it serves more than one call of the program that makes it; else it is that call's own, and
            the words of quantised encoders are kept, too.

    Raises:
        ValueError: for a capacity below 1.
    """

    def __init__(self, encoder: CharacterEncoder, capacity: int = 16_384, across_calls: bool = True):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, was: {capacity}.")
        self._encoder, self.capacity, self._across_calls = encoder, capacity, across_calls
        self._ring: _Ring | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy begins empty: the weights of a copied model lie elsewhere.
        return {**self.__dict__, "_ring": None}

    def __len__(self) -> int:
        ring = self._ring
        return 0 if ring is None else len(ring.places)

    def look_up(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The vectors of rows, ``(words, chars)`` to ``(words, dim)``; `compute` is asked for what is not here."""
        encoder = self._encoder
        if rows.device.type != "cpu" or not len(rows) or (self._across_calls and encoder.is_quantized):
            return compute(rows)
        weights = list(encoder.parameters())
        if any(weight.is_inference() for weight in weights):
            # Nobody counts their changes.
            return compute(rows)
        # 32 bits, since word ids behind the characters (word_embed_dim) may be large.
        keys = [row.tobytes() for row in rows.int().numpy()]
        with _lock:
            ring = self._ring
            # A forked process begins anew, as the fork may have come in the middle of a change.
            besides = encoder.activation, os.getpid()
            if ring is None or not ring.made_of.matches(weights, *besides):
                self._ring = ring = _Ring(Fingerprint(weights, *besides), self.capacity)
            places = torch.tensor([ring.places.get(key, -1) for key in keys])
            unknown = (places < 0).nonzero().squeeze(1)
            known = None if ring.vectors is None else ring.vectors.index_select(0, places.clamp(min=0))
        if known is not None and not len(unknown):
            return known
        computed = self._compute(rows.index_select(0, unknown), compute).detach()
        # Where words were known, `computed` are only some.
        vectors = computed if known is None else known.index_copy_(0, unknown, computed)
        with _lock:
            ring.keep([keys[number] for number in unknown.tolist()], computed)
        return vectors

    def _compute(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        missing = -len(rows) % _ROWS_OF_A_BLOCK if self._across_calls else 0
        return compute(torch.cat([rows, rows[-1:].expand(missing, -1)]))[: len(rows)] if missing else compute(rows)


class _Ring:
    """Words and their vectors; new words take the places of those that came first.

    Args:
        made_of: What the vectors were computed with.
        capacity: How many words at most.

    Attributes:
        places: The place of each word, by the bytes of its row.
        vectors: ``(capacity, projection_dim)``; None before there is a word.
    """

    def __init__(self, made_of: Fingerprint, capacity: int):
        self.made_of, self._capacity = made_of, capacity
        self.places: dict[bytes, int] = {}
        self.vectors: Tensor | None = None
        self._owners: list[bytes] = []
        self._next = 0

    def keep(self, keys: Sequence[bytes], vectors: Tensor) -> None:
        """Puts words in, ``(words, projection_dim)``, but for those that another thread has put in meanwhile."""
        if self.vectors is None:
            # An inference tensor could not be changed later on, outside of inference mode.
            with torch.inference_mode(False):
                self.vectors = torch.empty(self._capacity, vectors.shape[1], dtype=vectors.dtype)
        new = {key: number for number, key in enumerate(keys) if key not in self.places}
        numbers = list(islice(new.items(), self._capacity))
        places = [(self._next + count) % self._capacity for count in range(len(numbers))]
        for place, (key, _) in zip(places, numbers, strict=True):
            if place < len(self._owners):
                del self.places[self._owners[place]]
                self._owners[place] = key
            else:
                self._owners.append(key)
            self.places[key] = place
        if places:
            self.vectors[torch.tensor(places)] = vectors[torch.tensor([number for _, number in numbers])]
            self._next = (self._next + len(places)) % self._capacity


def remember_words(model: ElmoPreTrainedModel, capacity: int = 16_384) -> RecentWords:
    """Makes a model keep the context-free vectors of the words that it read last, from call to call.

    What it returns stays the same, within rounding. `embed_sentences` does so by itself while it runs.
    `model.base_model.character_encoder.cache = None` undoes it.

    Words are kept on a CPU only, where nothing but the weights makes their vectors: a model computes them anew while
    its character encoder is trained, under autocast, while there is an adapter, a hook or another class of module in
    the encoder, and once it is quantised. Vectors of other weights are dropped (`forget_weights` says which changes
    are noticed). Threads may share the model.

    Args:
        model: An `ElmoModel`, or a model with one inside.
        capacity: How many words at most.

    Returns:
        What keeps them.

    Raises:
        ValueError: for a capacity below 1.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> words = hf_elmo.remember_words(model)
        >>> embedded = list(hf_elmo.embed_sentences(model, tokenizer, ["I read the book."]))
        >>> len(words)  # with the two boundaries
        7
    """
    encoder = model.base_model.character_encoder
    cache = RecentWords(encoder, capacity)
    encoder.cache = cache
    return cache


@contextmanager
def remembering(encoder: CharacterEncoder, cache: VectorCache) -> Iterator[None]:
    """An encoder uses a cache for a while, in this thread, if it has none of its own."""
    token = cache_of_call.set((encoder, cache))
    try:
        yield
    finally:
        cache_of_call.reset(token)


def cache_words(
    model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, words: Sequence[str], vectors: Tensor | None = None
) -> WordCache:
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
    if isinstance(encoder, WordEncoder):
        raise ValueError("This model looks words up by itself (character_inputs is False): there is nothing to cache.")
    rows = torch.cat(list(_rows(tokenizer, words)))
    if vectors is None:
        vectors = torch.cat(list(word_vectors(model, tokenizer, words)))
    dtype, dim = encoder.char_embedding.weight.dtype, model.config.projection_dim
    if tuple(vectors.shape) != (len(words), dim):
        raise ValueError(f"Expected vectors {(len(words), dim)}, one for each word, was: {tuple(vectors.shape)}.")
    cache = WordCache(rows, vectors.to(dtype))
    encoder.cache = cache
    return cache


@torch.no_grad()
def word_vectors(model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, words: Sequence[str]) -> Iterator[Tensor]:
    """The context-free vectors of words, in batches ``(words, projection_dim)`` in their order, on the CPU.

    Args:
        model: An `ElmoModel`, or a model with one inside.
        tokenizer: Its `ElmoTokenizer`.
        words: The words. `<S>` and `</S>` are the boundaries of sentences.
    """
    encoder = model.base_model.character_encoder
    for rows in _rows(tokenizer, words):
        yield encoder(rows.to(model.device)).cpu()


def _rows(tokenizer: ElmoTokenizer, words: Sequence[str]) -> Iterator[Tensor]:
    """The rows of characters of words, in batches ``(words, chars)``."""
    remaining = iter(words)
    while batch := list(islice(remaining, _WORDS_PER_BATCH)):
        encoded = tokenizer(
            [batch],
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            return_truncated_words=True,
            return_tensors="pt",
        )
        yield rows_of(encoded)[0]
