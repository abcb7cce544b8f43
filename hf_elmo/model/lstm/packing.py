"""Words as the LSTMs read them: packed, without padding.

Only real words are kept, as one matrix ``(all words of the batch, dim)`` ordered by time step, and within a step by
falling length of their sentence. No padded step is ever computed, and a sentence's vectors cannot depend on how its
batch was padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """The vectors of packed words.

    Attributes:
        vectors: ``(all words, dim)``; or, with an index, those of the distinct words, ``(distinct words, dim)``.
        index: ``(all words,)``, int64: where the vector of each word is; None: in its own place.
    """

    vectors: Tensor
    index: Tensor | None = None

    def all(self) -> Tensor:
        """``(all words, dim)``."""
        # F.embedding, because its gradient is deterministic where that of `vectors[index]` is not.
        return self.vectors if self.index is None else F.embedding(self.index, self.vectors)

    def select(self, places: Tensor) -> Words:
        """Words in another order: those at some places."""
        if self.index is None:
            return Words(self.vectors.index_select(0, places))
        return Words(self.vectors, self.index.index_select(0, places))

    def behind(self, begin: int) -> Words:
        """The words from a place on."""
        return Words(self.vectors[begin:]) if self.index is None else Words(self.vectors, self.index[begin:])


@dataclass(frozen=True)
class Packing:
    """Where the words of a padded batch stand when packed.

    Attributes:
        positions: ``(all words,)``: the word's index in the flattened ``(batch * words)``, ordered by time step, then
            by falling length of the sentence.
        batch_sizes: Number of sentences with a word at each time step; falls.
        rows: ``(sentences,)``: the batch row of each sentence, in packed order (longest first).
        shape: ``(batch, words)`` of the padded batch.
    """

    positions: Tensor
    batch_sizes: list[int]
    rows: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_mask(cls, mask: Tensor, segments: Tensor | None = None) -> Packing:
        """Packs the words that the mask keeps, wherever the padding is.

        Args:
            mask: ``(batch, words)``, bool: true for words.
            segments: ``(batch, words)``, integers. Where it changes within a row, another sentence begins. None: a row
                is one sentence.
        """
        batch, width = mask.shape
        index = mask.flatten().nonzero().squeeze(1)
        row = index // width
        starts = torch.ones_like(row, dtype=torch.bool)
        starts[1:] = row[1:] != row[:-1]
        if segments is not None:
            kind = segments.flatten().index_select(0, index)
            starts[1:] |= kind[1:] != kind[:-1]
        sentence = starts.cumsum(0) - 1
        first = starts.nonzero().squeeze(1)
        step = torch.arange(len(index), device=index.device) - first.index_select(0, sentence)
        lengths = torch.bincount(sentence, minlength=len(first))
        by_length = torch.argsort(lengths, descending=True, stable=True)
        rank = torch.empty_like(by_length)
        rank[by_length] = torch.arange(len(by_length), device=rank.device)
        order = torch.argsort(step * len(first) + rank.index_select(0, sentence))
        return cls(
            positions=index.index_select(0, order),
            batch_sizes=torch.bincount(step).tolist(),
            rows=row.index_select(0, first).index_select(0, by_length),
            shape=(batch, width),
        )

    @cached_property
    def mirror(self) -> Tensor:
        """``(all words,)``, int64: `mirrored` of the batch."""
        return mirrored(self.batch_sizes).to(self.positions.device)

    def pack(self, padded: Tensor) -> Tensor:
        """``(batch, words, ...)`` to ``(all words, ...)``."""
        return padded.flatten(0, 1).index_select(0, self.positions)

    def unpack(self, packed: Tensor) -> Tensor:
        """``(all words, ...)`` to ``(batch, words, ...)``, zeros where there is no word."""
        padded = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return padded.index_copy(0, self.positions, packed).unflatten(0, self.shape)


def mirrored(batch_sizes: list[int]) -> Tensor:
    """For each packed word the packed place of the one as far from its sentence's other end, ``(all words,)``, int64.

    What it selects are the sentences turned round, packed as they were: the order in which the backward direction
    reads. It is its own inverse.

    Args:
        batch_sizes: Number of sentences at each time step; falls.
    """
    sizes = torch.tensor(batch_sizes, dtype=torch.long)
    starts = sizes.cumsum(0) - sizes
    step = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    rank = torch.arange(len(step)) - starts[step]
    lengths = torch.bincount(rank)
    return starts[lengths[rank] - 1 - step] + rank
