"""The character CNN: from the bytes of a word to its context-free vector (Peters et al. 2018, section 3.4).

`CharacterEncoder.encode` tells the formulas, one operation after the other. On a CPU, where nothing is to be learned,
`run` computes the same with one matrix product for all convolutions: a window of the widest filter contains those of
the others, so with their weights filled up with zeros all convolutions are one product (for the published sizes with
17 % more arithmetic, as the widest filter is the most numerous). Words are taken in the order of their length, some at
a time, so that a long word makes few others long, and the windows' features stay in the cache until the maximum is
taken. `unsupported_reason` says where `run` does not apply. In training `maxima_of_filters` (`character_training.py`)
does the same, and the pass backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from .character_training import WORDS_AT_ONCE, in_order_of_length, maxima_of_filters
from .fingerprint import Fingerprint, is_bare, only_plain_operations_reason
from .products.matrix_products import WORDS_TO_WIDEN, Choice, Int8Linear, Product, choose, linear, product_of

if TYPE_CHECKING:
    from .configuration_elmo import ElmoConfig

logger = logging.get_logger(__name__)

# The filling with zeros may multiply the arithmetic by this factor at most.
_MOST_FILLING = 1.5

# For each encoder the product of its filters, and what that was made of. Outside of the modules, so that it is never
# saved, moved or copied with them.
_packed: WeakKeyDictionary[nn.Module, tuple[Fingerprint, Callable[[Tensor], Tensor]]] = WeakKeyDictionary()
# The same for linear layers that read few words by copies of 16 bits.
_halves: WeakKeyDictionary[nn.Module, tuple[Fingerprint, Product]] = WeakKeyDictionary()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh}


class VectorCache(Protocol):
    """What an encoder looks words up in (`hf_elmo.vectors.word_cache`)."""

    def look_up(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The vectors of rows, ``(words, chars)`` to ``(words, dim)``; `compute` is asked for what is not there."""


#: A cache for one encoder and one call of a program. It goes down the call, because another thread may use the same
#: encoder at the same time.
cache_of_call: ContextVar[tuple[CharacterEncoder, VectorCache] | None] = ContextVar("cache_of_call", default=None)


class ScaledLinear(nn.Linear):
    """A linear layer that starts as in bilm-tf: weights of variance `1 / in_features`, a constant bias."""

    def __init__(self, in_features: int, out_features: int, initial_bias: float = 0.0):
        super().__init__(in_features, out_features)
        self.initial_bias = initial_bias


class Highway(nn.Module):
    """A highway layer (Srivastava et al. 2015): `gate * relu(transform(x)) + (1 - gate) * x`, `gate` from `carry`.

    The gate multiplies the transformed input, as in bilm-tf; AllenNLP stores its weights with the sign turned.
    """

    def __init__(self, size: int):
        super().__init__()
        self.transform = ScaledLinear(size, size)
        self.carry = ScaledLinear(size, size, initial_bias=-2.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(..., size)`` to ``(..., size)``."""
        gate = torch.sigmoid(self.carry(inputs))
        return gate * F.relu(self.transform(inputs)) + (1 - gate) * inputs


@dataclass(frozen=True)
class CharacterSizes:
    """The sizes of convolutions alone, under their names in `ElmoConfig`: no highways, projection or word embedding."""

    char_vocab_size: int
    char_embed_dim: int
    filters: list[list[int]]
    activation: str
    row_length: int
    num_highway_layers: int = 0
    word_embed_dim: int = 0
    vocab_size: int = 0
    projection_dim: int = 0
    has_character_projection: bool = False

    @property
    def num_filters(self) -> int:
        """Features that the convolutions give for a word."""
        return sum(count for _, count in self.filters)


class CharacterEncoder(nn.Module):
    """Character embedding, convolutions, max-pooling over the word, highway layers and projection.

    A word's vector depends on its row alone, so `forward` computes each distinct word of its input once; `encode` is
    the plain computation. With `word_embed_dim` rows end in the word's id, whose vector stands before the features of
    its characters (as in ELMoForManyLangs).
    """

    def __init__(self, config: ElmoConfig | CharacterSizes):
        super().__init__()
        self.char_embedding = nn.Embedding(config.char_vocab_size, config.char_embed_dim, padding_idx=0)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embed_dim, count, kernel_size=width) for width, count in config.filters
        )
        self.activation = ACTIVATIONS[config.activation]
        self.highways = nn.ModuleList(Highway(config.num_filters) for _ in range(config.num_highway_layers))
        self.word_embedding = (
            nn.Embedding(config.vocab_size, config.word_embed_dim, padding_idx=0) if config.word_embed_dim else None
        )
        self.projection = (
            ScaledLinear(config.word_embed_dim + config.num_filters, config.projection_dim)
            if config.has_character_projection
            else None
        )
        self.row_length = config.row_length
        # Vectors of known words (`word_cache`), not part of the model that is saved.
        self.cache: VectorCache | None = None

    def forward(self, character_ids: Tensor, distinct: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The vectors of words.

        Args:
            character_ids: ``(..., chars)``, integers below `char_vocab_size`; 0 is padding. With a word embedding
                ``(..., max_characters_per_token + 1)``: each row ends in an integer below `vocab_size`.
            distinct: Return the vectors of the distinct words, and where that of each word is.

        Returns:
            ``(..., projection_dim)``, in the dtype of the weights. A row of zeros has a vector too (the convolutions
            have biases): leave padding out before, or mask it after. Or, with `distinct`, ``(distinct words,
            projection_dim)`` and ``(words,)``, int64.

        Raises:
            ValueError: for an id that has no embedding, or rows of another length.
        """
        self._check(character_ids)
        rows, index = distinct_rows(character_ids.reshape(-1, character_ids.shape[-1]).long())
        cache = self._cache_in_use()
        if cache is None:
            vectors = self._encode_rows(rows)
        else:
            # A table may have been made before the model was brought to another dtype.
            vectors = cache.look_up(rows, self._encode_rows).to(self.char_embedding.weight.dtype)
        if distinct:
            return vectors, index
        # F.embedding, because its gradient is deterministic where that of `vectors[index]` is not.
        return F.embedding(index, vectors).view(*character_ids.shape[:-1], vectors.shape[-1])

    def encode(self, rows: Tensor, word_ids: Tensor | None = None) -> Tensor:
        """``(words, chars)`` to ``(words, projection_dim)``, one computation per row, every character included.

        With a word embedding, `word_ids` are ``(words,)``.
        """
        characters = self.char_embedding(rows).transpose(1, 2)
        # The activation after the maximum gives what the activation before it would: both kinds are monotone.
        features = [self.activation(convolution(characters).amax(dim=-1)) for convolution in self.convolutions]
        return self._combine(torch.cat(features, dim=-1), word_ids)

    def _combine(self, vectors: Tensor, word_ids: Tensor | None) -> Tensor:
        """What becomes of the features of words: ``(words, filters)`` to ``(words, projection_dim)``."""
        for highway in self.highways:
            vectors = highway(vectors)
        if self.word_embedding is not None:
            vectors = torch.cat([self.word_embedding(word_ids), vectors], dim=-1)
        return vectors if self.projection is None else self.projection(vectors)

    def trim(self, rows: Tensor) -> Tensor:
        """Drops trailing characters that cannot change the result: ``(words, chars)`` to ``(words, fewer chars)``.

        Behind the longest word every row only repeats its last character (the padding of words). Of the windows
        that see nothing else one is as good as many, because the maximum is taken over all of them.
        """
        if rows.numel() == 0:
            return rows
        repeats_last = (rows == rows[:, -1:]).all(dim=0)
        used = rows.shape[1] - int(repeats_last.flip(0).cumprod(0).sum())
        return rows[:, : used + _widest(self)]

    def _encode_rows(self, rows: Tensor) -> Tensor:
        characters, word_ids = self._split(rows)
        # A compiler knows the plain operations better, and could not write a line to the log.
        if len(rows) and not torch.compiler.is_compiling():
            reason = unsupported_reason(self, characters)
            if reason is None:
                logger.info_once("The character CNN of words that are only read is one product for all its filters.")
                return run(self, characters, word_ids)
            if self._is_trained():
                reason = unsupported_reason(self, characters, in_training=True)
            if reason is None:
                logger.info_once("The character CNN in training is one product for all its filters.")
                rows = self.trim(characters)
                convolutions = _convolutions(self)
                weights = [each.weight for each in convolutions]
                biases = [cast("Tensor", each.bias) for each in convolutions]  # all have one
                maxima = maxima_of_filters(rows, self.char_embedding(rows), weights, biases)
                return self._combine(self.activation(maxima), word_ids)
            logger.info_once(f"The character CNN is computed filter by filter: {reason}.")
        return self.encode(self.trim(characters), word_ids)

    def _cache_in_use(self) -> VectorCache | None:
        """Where to look words up: nowhere if anything but the weights makes their vectors, or they are trained."""
        if torch.compiler.is_compiling():
            return None
        cache, of_call = self.cache, cache_of_call.get()
        if cache is None and of_call is not None and of_call[0] is self:
            cache = of_call[1]
        if cache is None or self._is_trained():
            return None
        kind = self.char_embedding.weight.device.type
        # Of weights that are elsewhere for now ("meta") the words are not known to be the same.
        is_cast = kind == "meta" or torch.is_autocast_enabled(kind)
        return None if is_cast or not self.is_bare else cache

    @property
    def is_bare(self) -> bool:
        """Whether the weights alone make the vectors: there is no adapter, hook or module of another class within."""
        if type(self) is not CharacterEncoder or "encode" in self.__dict__:
            return False
        parts = (module for module in self.modules() if module is not self)
        return all(is_bare(part, _OWN_CLASSES) for part in parts) and all(
            type(parameter) in (Tensor, nn.Parameter) for parameter in self.parameters()
        )

    @property
    def has_bare_convolutions(self) -> bool:
        """Whether `encode` is our own, and the weights of the convolutions alone make their features."""
        if type(self) is not CharacterEncoder or "encode" in self.__dict__:
            return False
        return all(is_bare(part, ()) for part in (self.convolutions, *self.convolutions))

    @property
    def is_quantized(self) -> bool:
        """Whether there are layers in 8 bits, whose products depend on the words that are computed together."""
        return any(isinstance(module, Int8Linear) for module in self.modules())

    def _is_trained(self) -> bool:
        return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows of characters ``(..., chars)``, and the word ids ``(...)`` behind them, if there is a word embedding."""
        return (rows, None) if self.word_embedding is None else (rows[..., :-1], rows[..., -1])

    def _check(self, rows: Tensor) -> None:
        check_row_length(rows, self.row_length, self.word_embedding is not None)
        rows, word_ids = self._split(rows)
        # On an accelerator the check would wait for the device; there the embedding itself reports it.
        if rows.device.type == "cpu" and rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < self.num_chars:
            raise ValueError(
                f"character_ids reach from {int(rows.min())} to {int(rows.max())}, but the model knows characters 0 to "
                f"{self.num_chars - 1}: were they made by this model's tokenizer?"
            )
        if self.word_embedding is None or word_ids is None:
            return
        if word_ids.device.type == "cpu" and word_ids.numel():
            least, most = int(word_ids.min()), int(word_ids.max())
            if least < 0 or most >= self.word_embedding.num_embeddings:
                raise ValueError(
                    f"The word ids at the end of character_ids reach from {least} to {most}, but the model knows words "
                    f"0 to {self.word_embedding.num_embeddings - 1}: were they made by this model's tokenizer?"
                )

    @property
    def num_chars(self) -> int:
        """How many ids of characters there are."""
        return self.char_embedding.num_embeddings


def check_row_length(rows: Tensor, expected: int, has_word_ids: bool) -> None:
    """Raises ValueError for words that come as rows of another length than the model's.

    The model would read other words in them: a longer row is a word that this model's tokenizer would have cut, and
    the padding of a shorter one is a part of the word.

    Args:
        rows: ``(..., chars)``.
        expected: `config.row_length`.
        has_word_ids: Whether the last integer of a row is the word's id.
    """
    found = rows.shape[-1]
    if found == expected:
        return
    if has_word_ids:
        raise ValueError(
            f"Words come as rows of {found} integers, expected {expected}: {expected - 1} characters and the word's "
            "id, as this model's own tokenizer makes them (word_ids_in_rows)."
        )
    raise ValueError(
        f"Words come as rows of {found} characters, but this model reads {expected} (max_characters_per_token): make "
        f"them with this model's own tokenizer, or batch_to_ids(sentences, {expected})."
    )


# Modules that compute what their class says, besides those of torch.
_OWN_CLASSES = (CharacterEncoder, Highway, Int8Linear, ScaledLinear)


def hash_factors(columns: int) -> Tensor:
    """What `row_hashes` multiplies the columns of a matrix by: ``(columns,)``, int64, on the CPU, always the same."""
    return torch.randint(-(2**62), 2**62, (columns,), generator=torch.Generator().manual_seed(0))


def row_hashes(rows: Tensor, factors: Tensor) -> Tensor:
    """A number for each row of integers, ``(rows, columns)`` to ``(rows,)``, int64. Unequal rows may have the same."""
    return (rows * factors).sum(dim=1)


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of a matrix of integers, and where each row is found among them.

    Args:
        rows: ``(rows, columns)``, int64.

    Returns:
        ``(distinct, columns)`` and ``(rows,)``, int64, so that ``distinct[index] == rows``.
    """
    # Sorting one hash per row is many times faster than sorting rows, and the comparison makes it exact.
    hashes, index = torch.unique(row_hashes(rows, hash_factors(rows.shape[1]).to(rows.device)), return_inverse=True)
    member = torch.empty_like(hashes).scatter_(0, index, torch.arange(len(rows), device=rows.device))
    distinct = rows.index_select(0, member)
    if torch.equal(distinct.index_select(0, index), rows):
        return distinct, index
    return torch.unique(rows, dim=0, return_inverse=True)


def unsupported_reason(encoder: CharacterEncoder, rows: Tensor, in_training: bool = False) -> str | None:
    """Why one product for all filters does not compute these rows, ``(words, chars)``; None if it does.

    Args:
        encoder: The encoder.
        rows: The rows.
        in_training: Whether by `maxima_of_filters`, which records gradients, or by `run`.
    """
    if rows.device.type != "cpu":
        return f"the words are on {rows.device.type}"
    parameters: list[Tensor] = list(encoder.parameters())
    if not in_training and torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        return "gradients are recorded"
    if in_training:
        # All other modules are called.
        parameters = [encoder.char_embedding.weight, *encoder.convolutions.parameters()]
        if any(parameter.dtype not in (torch.float32, torch.float64) for parameter in parameters):
            return "its weights are of 16 bits"
        if (reason := only_plain_operations_reason(parameters)) is not None:
            return reason
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if any(parameter.is_inference() or parameter.is_meta for parameter in parameters):
        return "its weights are inference tensors, or elsewhere"
    convolutions = _convolutions(encoder)
    exact = sum(convolution.weight.numel() for convolution in convolutions)
    filled = _widest(encoder) * encoder.char_embedding.embedding_dim * sum(c.out_channels for c in convolutions)
    if filled > _MOST_FILLING * exact:
        return "its filters are too unlike in width for one product"
    if not (encoder.has_bare_convolutions if in_training else encoder.is_bare):
        return "there is an adapter, a hook or a module of another class"
    return None


def run(encoder: CharacterEncoder, rows: Tensor, word_ids: Tensor | None = None) -> Tensor:
    """What `CharacterEncoder.encode` computes, within rounding: ``(words, chars)`` to ``(words, projection_dim)``.

    Args:
        encoder: The encoder.
        rows: ``(words, chars)``, int64.
        word_ids: ``(words,)``, int64, with a word embedding.
    """
    with torch.no_grad():
        x = _features(encoder, rows)
        for highway in cast("Iterable[Highway]", encoder.highways):
            gate = _apply_linear(highway.carry, x).sigmoid_()
            x = _apply_linear(highway.transform, x).relu_().sub_(x).mul_(gate).add_(x)
        if encoder.word_embedding is not None:
            x = torch.cat([encoder.word_embedding(word_ids), x], dim=-1)
        return x if encoder.projection is None else _apply_linear(encoder.projection, x)


def _apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    if not isinstance(layer, nn.Linear):
        return layer(x)
    if len(x) < WORDS_TO_WIDEN:
        choice = choose(layer.weight, len(x))
        if choice.product == "half":
            # Added in float32, before the sum is rounded.
            return _half(layer, choice)(x, layer.bias.expand(len(x), -1))
    return linear(x, layer.weight, layer.bias)


def _half(layer: nn.Linear, choice: Choice) -> Product:
    """The product of a layer's weight of 16 bits by a copy, which is kept until the weight changes."""
    kept = _halves.get(layer)
    if kept is not None and kept[0].matches([layer.weight]):
        return kept[1]
    # Before the product, as in `_filters`.
    made_of = Fingerprint([layer.weight])
    with torch.no_grad():
        product = product_of(layer.weight, choice)
    _halves[layer] = made_of, product
    return product


def _features(encoder: CharacterEncoder, rows: Tensor) -> Tensor:
    """Convolutions, maximum and activation: ``(words, chars)`` to ``(words, filters)``."""
    widest, chars = _widest(encoder), rows.shape[1]
    filters = _filters(encoder)
    features = encoder.char_embedding.weight.new_empty(len(rows), sum(c.out_channels for c in _convolutions(encoder)))
    for some, longest in in_order_of_length(rows):
        # Of the windows that see nothing but the last character, repeated, one is as good as many.
        length = longest + widest
        if length <= chars:
            embedded = F.embedding(rows[some, :length], encoder.char_embedding.weight)
            windows = embedded.unfold(1, widest, 1).transpose(2, 3).flatten(2)
            found = filters(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).amax(dim=1)
        else:
            # A window of the widest filter would not fit behind the last one of the others.
            embedded = encoder.char_embedding(rows[some]).transpose(1, 2)
            found = torch.cat([convolution(embedded).amax(dim=-1) for convolution in encoder.convolutions], dim=-1)
        features[some] = encoder.activation(found)
    return features


def _filters(encoder: CharacterEncoder) -> Callable[[Tensor], Tensor]:
    """All convolutions of windows: ``(windows, widest * char_embed_dim)`` to ``(windows, filters)``."""
    convolutions = _convolutions(encoder)
    biases = [cast("Tensor", convolution.bias) for convolution in convolutions]  # all have one
    weights = [part for c, bias in zip(convolutions, biases, strict=True) for part in (c.weight, bias)]
    kept = _packed.get(encoder)
    if kept is not None and kept[0].matches(weights):
        return kept[1]
    # Before the product: a change in between is then seen at the next call.
    made_of = Fingerprint(weights)
    widest = _widest(encoder)
    with torch.no_grad():
        filled = [F.pad(c.weight, (0, widest - c.kernel_size[0])).transpose(1, 2) for c in convolutions]
        weight = torch.cat(filled).flatten(1)
        bias = torch.cat(biases)
    # A product has a row for each window of some words.
    product = product_of(weight, choose(weight, WORDS_AT_ONCE))

    def filters(windows: Tensor) -> Tensor:
        return product(windows).add_(bias)

    _packed[encoder] = made_of, filters
    return filters


def _convolutions(encoder: CharacterEncoder) -> list[nn.Conv1d]:
    # An adapter around one hands its attributes on.
    return [cast("nn.Conv1d", convolution) for convolution in encoder.convolutions]


def _widest(encoder: CharacterEncoder) -> int:
    return max(convolution.kernel_size[0] for convolution in _convolutions(encoder))
