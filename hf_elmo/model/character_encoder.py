"""The character CNN: from the bytes of a word to its context-free vector (Peters et al. 2018, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .character_inference import encode_for_inference, encodes_for_inference


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


class CharacterEncoder(nn.Module):
    """Character embedding, convolutions, max-pooling over the word, highway layers and projection.

    A word's vector depends on its row alone, so `forward` computes each distinct word of its input once; `encode` is
    the plain computation. With `word_embed_dim` rows end in the word's id, whose vector stands before the features of
    its characters (as in ELMoForManyLangs).
    """

    def __init__(self, config):
        super().__init__()
        self.char_embedding = nn.Embedding(config.char_vocab_size, config.char_embed_dim, padding_idx=0)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embed_dim, count, kernel_size=width) for width, count in config.filters
        )
        self.activation = {"relu": F.relu, "tanh": torch.tanh}[config.activation]
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
        # Vectors of known words (`word_cache.WordCache`), not part of the model that is saved.
        self.cache = None

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
        if self.cache is None or self._is_trained():
            vectors = self._encode_rows(rows)
        else:
            vectors = self.cache.look_up(rows, self._encode_rows)
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
        vectors = torch.cat(features, dim=-1)
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
        widest = max(convolution.kernel_size[0] for convolution in self.convolutions)
        return rows[:, : used + widest]

    def _encode_rows(self, rows: Tensor) -> Tensor:
        characters, word_ids = self._split(rows)
        if encodes_for_inference(self, characters):
            return encode_for_inference(self, characters, word_ids)
        return self.encode(self.trim(characters), word_ids)

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
        if word_ids is not None and word_ids.device.type == "cpu" and word_ids.numel():
            least, most = int(word_ids.min()), int(word_ids.max())
            if least < 0 or most >= self.word_embedding.num_embeddings:
                raise ValueError(
                    f"The word ids at the end of character_ids reach from {least} to {most}, but the model knows words "
                    f"0 to {self.word_embedding.num_embeddings - 1}: were they made by this model's tokenizer?"
                )

    @property
    def num_chars(self) -> int:
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


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of a matrix of integers, and where each row is found among them.

    Args:
        rows: ``(rows, columns)``, int64.

    Returns:
        ``(distinct, columns)`` and ``(rows,)``, int64, so that ``distinct[index] == rows``.
    """
    # Sorting one hash per row is many times faster than sorting rows, and the comparison makes it exact.
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator).to(rows.device)
    hashes, index = torch.unique((rows * factors).sum(dim=1), return_inverse=True)
    member = torch.empty_like(hashes).scatter_(0, index, torch.arange(len(rows), device=rows.device))
    distinct = rows.index_select(0, member)
    if torch.equal(distinct.index_select(0, index), rows):
        return distinct, index
    return torch.unique(rows, dim=0, return_inverse=True)
