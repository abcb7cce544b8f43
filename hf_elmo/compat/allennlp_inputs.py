"""AllenNLP's ways from words to what ELMo reads: `allennlp.data.token_indexers.elmo_indexer`, and boundaries.

`ELMoCharacterMapper` and `ELMoTokenCharactersIndexer` as scripts use them by themselves, without AllenNLP's readers and
fields: a word to its 50 numbers, a list of words to rows, rows padded to one length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..model.tokenization_elmo import BOS, EOS, character_rows


def _make_bos_eos(
    character: int,
    padding_character: int,
    beginning_of_word_character: int,
    end_of_word_character: int,
    max_word_length: int,
) -> list[int]:
    """A word of one character: the word's begin, the character, the word's end, and filling up to the length."""
    filling = [padding_character] * (max_word_length - 3)
    return [beginning_of_word_character, character, end_of_word_character, *filling]


class ELMoCharacterMapper:
    """Words to characters as the published models read them, with the ids that AllenNLP gives: 0 is padding.

    Args:
        tokens_to_add: Words that are one character of their own, and that character's number, one below its id.
    """

    max_word_length = 50
    beginning_of_sentence_character, end_of_sentence_character = 256, 257
    beginning_of_word_character, end_of_word_character, padding_character = 258, 259, 260
    bos_token, eos_token = BOS, EOS
    beginning_of_sentence_characters: ClassVar[list[int]] = (character_rows([BOS])[0][0] - 1).tolist()
    end_of_sentence_characters: ClassVar[list[int]] = (character_rows([EOS])[0][0] - 1).tolist()

    def __init__(self, tokens_to_add: Mapping[str, int] | None = None):
        self.tokens_to_add = dict(tokens_to_add or {})

    # AllenNLP 0.8 and before had a static method; scripts call it on the class and on objects.
    class _Convert:
        def __get__(self, mapper: ELMoCharacterMapper | None, owner: type) -> Any:
            added = {} if mapper is None else mapper.tokens_to_add

            def convert_word_to_char_ids(word: str) -> list[int]:
                """The word's 50 ids: the word's begin, its bytes (48 at most), its end, filling."""
                row = character_rows([word])[0][0]
                if word in added:
                    row[:] = ELMoCharacterMapper.padding_character + 1
                    row[:3] = (
                        ELMoCharacterMapper.beginning_of_word_character + 1,
                        added[word] + 1,
                        ELMoCharacterMapper.end_of_word_character + 1,
                    )
                return row.tolist()

            return convert_word_to_char_ids

    convert_word_to_char_ids = _Convert()

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, ELMoCharacterMapper) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class ELMoTokenCharactersIndexer:
    """Lists of words to rows of characters.

    Args:
        namespace: Taken, and without use: characters have no vocabulary.
        tokens_to_add: As of `ELMoCharacterMapper`.
        token_min_padding_length: The least number of words that `as_padded_tensor_dict` pads to.
    """

    def __init__(
        self,
        namespace: str = "elmo_characters",
        tokens_to_add: Mapping[str, int] | None = None,
        token_min_padding_length: int = 0,
    ):
        self._namespace, self._least = namespace, token_min_padding_length
        self._mapper = ELMoCharacterMapper(tokens_to_add)

    def tokens_to_indices(self, tokens: Sequence[Any], vocabulary: Any = None, *old: str) -> dict[str, list[list[int]]]:
        """Rows of the words, by their name.

        Args:
            tokens: Words; as str, or as objects with a `text` (AllenNLP's and spaCy's tokens).
            vocabulary: Taken, and without use.
            old: The name that AllenNLP 0.9 asked for; without one it is `elmo_tokens`, as in AllenNLP 2.

        Raises:
            ValueError: for a token without a text.
        """
        words = [token if isinstance(token, str) else getattr(token, "text", None) for token in tokens]
        if None in words:
            raise ValueError("ELMoTokenCharactersIndexer needs tokens with a text (str), but one has none.")
        name = old[0] if old else "elmo_tokens"
        return {name: [self._mapper.convert_word_to_char_ids(word) for word in words]}

    def count_vocab_items(self, token: Any, counter: Any) -> None:
        """Counts nothing: there is no vocabulary."""

    def get_empty_token_list(self) -> dict[str, list[list[int]]]:
        """The rows of no words."""
        return {"elmo_tokens": []}

    def get_padding_lengths(self, indexed: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, int]:
        """The number of words, by the name of the rows; at least `token_min_padding_length`."""
        return {name: max(len(rows), self._least) for name, rows in indexed.items()}

    def as_padded_tensor_dict(
        self, tokens: Mapping[str, Sequence[Sequence[int]]], padding_lengths: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Rows as tensors ``(words, 50)``, int64, with zeros up to the lengths (what is longer is cut)."""
        padded = {}
        for name, rows in tokens.items():
            length = padding_lengths[name]
            tensor = torch.zeros(length, ELMoCharacterMapper.max_word_length, dtype=torch.long)
            kept = rows[:length]
            if kept:
                tensor[: len(kept)] = torch.tensor(kept)
            padded[name] = tensor
        return padded


def add_sentence_boundary_token_ids(tensor: Tensor, mask: Tensor, begin: Any, end: Any) -> tuple[Tensor, Tensor]:
    """Puts a boundary before each sentence and one behind it.

    Args:
        tensor: ``(batch, words)`` or ``(batch, words, dim)``.
        mask: ``(batch, words)``, nonzero for words, which come before padding.
        begin: What stands before a sentence: a number, or ``(dim,)``.
        end: Likewise behind it.

    Returns:
        ``(batch, words + 2)`` or ``(batch, words + 2, dim)``, and the mask ``(batch, words + 2)``, bool.

    Raises:
        ValueError: for another number of dimensions, or padding elsewhere than behind a sentence.
    """
    if tensor.dim() not in (2, 3):
        raise ValueError(f"Expected (batch, words) or (batch, words, dim), was: {tuple(tensor.shape)}.")
    rows = tensor.unsqueeze(-1) if tensor.dim() == 2 else tensor
    longer, words = with_boundaries(rows, mask != 0, torch.as_tensor(begin), torch.as_tensor(end))
    return longer.squeeze(-1) if tensor.dim() == 2 else longer, words


def with_boundaries(rows: Tensor, mask: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Puts a row before each sentence and one behind it: ``(batch, words, n)`` and ``(batch, words)``, two words more.

    Raises:
        ValueError: if there is padding elsewhere than behind a sentence.
    """
    batch, words = mask.shape
    lengths = mask.sum(dim=1)
    place = torch.arange(words + 2, device=mask.device)
    if not torch.equal(mask, place[:words] < lengths.unsqueeze(1)):
        raise ValueError("There is padding (a row of zeros) before a word or between words: it belongs behind them.")
    longer = rows.new_zeros(batch, words + 2, rows.shape[-1])
    longer[:, 1:-1] = rows
    longer[:, 0] = begin
    longer[torch.arange(batch, device=mask.device), lengths + 1] = end
    return longer, place < (lengths + 2).unsqueeze(1)


def remove_sentence_boundaries(tensor: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Takes `<S>` and `</S>` off: ``(batch, words + 2, dim)`` and ``(batch, words + 2)`` to two words fewer.

    Returns:
        The rest, zeros behind each sentence, and the mask, bool.
    """
    kept = mask[:, 2:] != 0
    return tensor[:, 1:-1] * kept.unsqueeze(-1), kept
