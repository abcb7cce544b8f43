"""Models that read words in place of characters: a table of vectors, one for each word of the vocabulary.

So bilm-tf builds its language models where the options have no `char_cnn` (`_build_word_embeddings`). For the rest of
the package a word is then a row of one number, its id, where it is a row of characters otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .character_encoder import VectorCache
    from .configuration_elmo import ElmoConfig


class WordEncoder(nn.Module):
    """The vectors of words by their ids; a stand-in for `CharacterEncoder` where there are no characters."""

    # What the encoder of characters has, by which others go through its parts.
    highways: tuple[nn.Module, ...] = ()
    is_quantized = False
    activation = None

    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.word_embedding = nn.Embedding(config.vocab_size, config.projection_dim, padding_idx=0)
        # Never asked: to look a vector up is all that this module does.
        self.cache: VectorCache | None = None

    def forward(self, rows: Tensor, distinct: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The vectors of words.

        Args:
            rows: ``(..., 1)``, integers below `vocab_size`; 0 is padding.
            distinct: Return the vectors of the distinct words, and where that of each word is.

        Returns:
            ``(..., projection_dim)``, in the dtype of the weights. Or, with `distinct`, ``(distinct words,
            projection_dim)`` and ``(words,)``, int64.

        Raises:
            ValueError: for an id that has no vector, or rows of another length.
        """
        ids = self._ids(rows)
        if not distinct:
            return self.word_embedding(ids)
        words, index = torch.unique(ids.flatten(), return_inverse=True)
        return self.word_embedding(words), index

    def _ids(self, rows: Tensor) -> Tensor:
        if rows.shape[-1] != 1:
            raise ValueError(
                f"Words come as rows of {rows.shape[-1]} integers, but this model reads words, not characters: pass "
                "input_ids, as its own tokenizer makes them, and no character_ids."
            )
        ids = rows[..., 0].long()
        # On an accelerator the check would wait for the device; there the embedding itself reports it.
        if ids.device.type == "cpu" and ids.numel():
            least, most = int(ids.min()), int(ids.max())
            if least < 0 or most >= self.word_embedding.num_embeddings:
                raise ValueError(
                    f"input_ids reach from {least} to {most}, but the model knows words 0 to "
                    f"{self.word_embedding.num_embeddings - 1}: were they made by this model's tokenizer?"
                )
        return ids


def rows_of(encoded: Mapping[str, Any]) -> Tensor:
    """The rows in which a model reads words, of what its tokenizer returned as tensors.

    Returns:
        ``(batch, words, chars)``: `character_ids`; or, where there are none, ``(batch, words, 1)``: the word ids.
    """
    characters = encoded.get("character_ids")
    return encoded["input_ids"].unsqueeze(-1) if characters is None else characters
