"""Small networks over the Unicode characters of words, beside ELMo (AllenNLP's `character_encoding`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ..character_encoder import ACTIVATIONS, distinct_rows
from ..tokenization_elmo import BEGIN_SENTENCE, BOS, END_SENTENCE, EOS

# Ids of characters in this CNN; those of its alphabet follow.
_PADDING, _UNKNOWN, _FIRST = 0, 1, 2


class UnicodeCharacters(nn.Module):
    """A word's vector from its Unicode characters: an embedding, and what a subclass makes of it.

    The characters are those of the bytes that ELMo reads, so of a word that was cut only the first ones are seen.

    Args:
        characters: The alphabet. Characters that are not in it share a vector.
        embed_dim: Size of a character's vector.
    """

    def __init__(self, characters: str, embed_dim: int):
        super().__init__()
        self.characters = characters
        self.char_embedding = nn.Embedding(_FIRST + len(characters), embed_dim, padding_idx=_PADDING)

    def forward(self, character_ids: Tensor) -> Tensor:
        """``(..., chars)``, ELMo's ids of bytes, to ``(..., features)``, in the dtype of the weights."""
        rows = character_ids.reshape(-1, character_ids.shape[-1]).long()
        distinct, index = distinct_rows(rows)
        vectors = F.embedding(index, self.encode(distinct))
        return vectors.view(*character_ids.shape[:-1], vectors.shape[-1])

    def encode(self, rows: Tensor) -> Tensor:
        """``(words, chars)`` to ``(words, features)``, one computation per row."""
        points, lengths = code_points(_spelled(rows))
        return self.compose(self.char_embedding(self._ids(points, lengths)), lengths)

    def compose(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Characters ``(words, chars, embed_dim)``, of which each word has its length, to ``(words, features)``."""
        raise NotImplementedError

    def _ids(self, points: Tensor, lengths: Tensor) -> Tensor:
        """Ids of code points, ``(words, chars)``, padding behind each word."""
        inside = torch.arange(points.shape[1], device=points.device) < lengths.unsqueeze(1)
        if not self.characters:
            return inside.long() * _UNKNOWN
        alphabet, order = torch.tensor([ord(character) for character in self.characters], device=points.device).sort()
        place = torch.searchsorted(alphabet, points).clamp(max=len(alphabet) - 1)
        known = alphabet[place] == points
        return torch.where(known, order[place] + _FIRST, _UNKNOWN).masked_fill(~inside, _PADDING)


class UnicodeCharacterCnn(UnicodeCharacters):
    """Convolutions, and max-pooling over the windows that lie within the word.

    A feature for whose window the word is too short is 0. That is what AllenNLP computes since version 1.1
    (`cnn_encoder.py`); before, windows reached into the padding, so that a word's vector depended on its batch.

    Args:
        characters: As in `UnicodeCharacters`.
        embed_dim: Likewise.
        filters: `[width, count]` of each convolution.
        activation: `"relu"` or `"tanh"`.
    """

    def __init__(self, characters: str, embed_dim: int, filters: Sequence[Sequence[int]], activation: str):
        super().__init__(characters, embed_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(embed_dim, count, kernel_size=width) for width, count in filters)
        self.activation = ACTIVATIONS[activation]

    def compose(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        embedded = embedded.transpose(1, 2)
        features = []
        for convolution in self.convolutions:
            values = convolution(embedded)
            first = torch.arange(values.shape[-1], device=embedded.device)
            width = cast("nn.Conv1d", convolution).kernel_size[0]
            outside = (first + width > lengths.unsqueeze(1)).unsqueeze(1)
            highest = self.activation(values.masked_fill(outside, float("-inf")).amax(dim=-1))
            features.append(highest.masked_fill(outside.all(dim=-1), 0))
        return torch.cat(features, dim=-1)


class UnicodeCharacterLstm(UnicodeCharacters):
    """The last state of an LSTM that reads the word's characters (forward); zeros for a word without any.

    Args:
        characters: As in `UnicodeCharacters`.
        embed_dim: Likewise.
        size: Size of the state.
    """

    def __init__(self, characters: str, embed_dim: int, size: int):
        super().__init__(characters, embed_dim)
        self.lstm = nn.LSTM(embed_dim, size, batch_first=True)

    # The work depends on the lengths of the words.
    @torch.compiler.disable
    def compose(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        if not len(embedded):
            return embedded.new_zeros(0, self.lstm.hidden_size)
        packed = pack_padded_sequence(embedded, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return last[-1].masked_fill((lengths == 0).unsqueeze(1), 0)


def _spelled(rows: Tensor) -> Tensor:
    """The rows, with the letters of `<S>` and `</S>` in those of words that are written so."""
    for mark, word in ((BEGIN_SENTENCE, BOS), (END_SENTENCE, EOS)):
        letters = F.pad(torch.tensor([byte + 1 for byte in word.encode()]), (1, 0))
        if rows.shape[1] < len(letters):
            continue
        letters = F.pad(letters, (0, rows.shape[1] - len(letters))).to(rows.device)
        rows = torch.where(rows[:, 1:2] == mark, letters, rows)
    return rows


def code_points(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The Unicode characters that rows of UTF-8 bytes spell.

    Args:
        rows: ``(words, chars)``, int64: a byte is its value plus 1, other ids are not bytes.

    Returns:
        ``(words, chars)``, int64: the code points of each word from the left, -1 for a sequence of bytes that was cut,
        whatever else behind them; and the number of code points, ``(words,)``.
    """
    values = rows - 1
    is_byte = (values >= 0) & (values < 256)
    follows = is_byte & ((values & 0xC0) == 0x80)
    begins = is_byte & ~follows
    points = torch.where(values < 0x80, values, -1)
    # A first byte of 110..., 1110... or 11110... is followed by 1, 2 or 3 bytes, with 6 bits of the number in each.
    for count, (low, high) in enumerate(((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8)), start=1):
        whole = begins & (values >= low) & (values < high)
        number = values & (0x3F >> count)
        for step in range(1, count + 1):
            next_values = F.pad(values, (0, step))[:, step:]
            whole = whole & F.pad(follows, (0, step))[:, step:]
            number = (number << 6) | (next_values & 0x3F)
        points = torch.where(whole, number, points)
    order = (~begins).long().argsort(dim=1, stable=True)
    return points.gather(1, order), begins.sum(dim=1)
