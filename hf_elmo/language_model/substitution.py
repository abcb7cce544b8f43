"""Words that would fit a place in a text, by what both directions of the language model expect there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ..model.tokenization_elmo import SPECIAL_WORDS
from ..vectors.batching import check_words, evaluating, similar_lengths
from .scoring import check_language_model, encode, rows_at_once

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoForPreTraining
    from ..model.tokenization_elmo import ElmoTokenizer

#: Marks a place in a text. No tokenizer has it as a token of its own, for the model never reads it.
MASK = "[MASK]"

# In a text, the tokenizer gets a word of as many letters in the place of each mark.
_STAND_IN = "zzzzzz"


def substitutes(
    model: ElmoForPreTraining,
    tokenizer: ElmoTokenizer,
    text: str | Sequence[str] | Sequence[Sequence[str]],
    top_k: int = 10,
    *,
    word_index: int | Sequence[int] | str | None = None,
    targets: str | Sequence[str] | None = None,
    prior: Mapping[str, int] | str | None = "rank",
    special_words: bool = False,
    is_split_into_words: bool = False,
    batch_words: int = 2048,
) -> list:
    """The likeliest words at places of a text, where `[MASK]` stands or at words of it.

    With ``L`` the words before a place and ``R`` those behind it, a word ``w`` of the vocabulary ``V`` has the score

        score(w) = s(w) / sum of s(v) over all v in V that are offered,  s(w) = p(w | L) p(w | R) / p(w),

    where the forward direction of the biLM gives ``p(w | L)`` and the backward one ``p(w | R)``, both by the softmax
    over all of ``V``. What stands at the place itself is read by neither. By Bayes' rule that is ``p(w | L, R)``, if
    ``L`` and ``R`` depend on each other through ``w`` alone. Without the division by ``p(w)``, the probability without
    context, frequent words are preferred twice.

    Args:
        model: An `ElmoForPreTraining`.
        tokenizer: Its tokenizer, whose vocabulary is offered.
        text: A text, or a list of texts; `[MASK]` is to stand for a whole word. Of several in a text each is filled on
            its own, while the others are read as words without letters.
        top_k: Number of words for each place, the likeliest first.
        word_index: The place, counted in words from 0, as the tokenizer splits them; or a list of places; or `"all"`,
            for every word. None: where `[MASK]` stands.
        targets: A word or words of the vocabulary: no others are returned, but the scores are still over all.
        prior: ``p(w)``. "rank": proportional to ``1 / rank`` (Zipf's law), as vocabularies are made most frequent word
            first. Or how often words stand in some corpus: ``(count + 1) / (all counts + size of V)``. None: the same
            for all words, which leaves the product of both directions.
        special_words: Offer `[UNK]` (any word outside of the vocabulary), `<S>` and `</S>`, too. `[PAD]` is not a word.
        is_split_into_words: A text is a list of words, which stay as they are (`"[MASK]"` being one).
        batch_words: Most words read at a time, padding and boundaries included; a longer text is read alone.

    Returns:
        For a single place (one `[MASK]`, or one number as `word_index`) a list of dictionaries; for several a list of
        such lists; for a list of texts a list of what each would give. The dictionaries hold, as those of transformers'
        fill-mask pipeline, `score` (above, a probability), `token` (the word's id), `token_str` (the word) and
        `sequence` (the text with the word in its place; words joined by spaces if words were given); besides
        `forward_score` and `backward_score`, the probabilities ``p(w | L)`` and ``p(w | R)``.

    Raises:
        ValueError: for a model without softmax or a tokenizer of another vocabulary; for a text without words, without
            `[MASK]` (and `word_index`), or with one that is part of a word; for a place that is not in the text; for
            targets outside of the vocabulary, a prior without any word of it, or a `top_k` or `batch_words` below 1.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> found = hf_elmo.substitutes(model, tokenizer, "I read the [MASK] yesterday.", top_k=3)
        >>> [sorted(each) for each in found[:1]]
        [['backward_score', 'forward_score', 'score', 'sequence', 'token', 'token_str']]
        >>> found[0]["score"] >= found[1]["score"] >= found[2]["score"]
        True
    """
    check_language_model(model, tokenizer)
    for name, value in (("top_k", top_k), ("batch_words", batch_words)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, was: {value}.")
    if not isinstance(text, (str, list, tuple)):
        raise ValueError(f"text must be a text or a list of texts, was: {type(text).__name__} {text!r:.80}.")
    is_batch = not isinstance(text, str)
    if is_split_into_words and is_batch:
        is_batch = len(text) > 0 and isinstance(text[0], (list, tuple))
    masked = [mask_words(tokenizer, each, word_index, is_split_into_words) for each in (text if is_batch else [text])]
    choose = _Choice(model, tokenizer, top_k, targets, prior, special_words)
    found: list[list[list[dict]]] = [[] for _ in masked]
    for indices in similar_lengths([len(each.words) + 2 for each in masked], batch_words):
        batch = [masked[index] for index in indices]
        places = ((index, place) for index in indices for place in masked[index].places)
        for (index, place), rows in zip(places, choose(*_contexts(model, tokenizer, batch)), strict=True):
            found[index].append([{**row, "sequence": masked[index].filled(place, row["token_str"])} for row in rows])
    is_single = isinstance(word_index, int)
    results = [rows[0] if is_single or (word_index is None and len(rows) == 1) else rows for rows in found]
    return results if is_batch else results[0]


@dataclass(frozen=True)
class MaskedText:
    """A text with places to fill.

    Attributes:
        text: As it was given; words joined by spaces if words were given.
        words: Its words; "" where `[MASK]` stands.
        spans: Where in the text each word starts and ends.
        places: The words to find substitutes for, counted from 0.
    """

    text: str
    words: list[str]
    spans: list[tuple[int, int]]
    places: list[int]

    def filled(self, place: int, word: str) -> str:
        """The text with another word at a place."""
        start, end = self.spans[place]
        return self.text[:start] + word + self.text[end:]


def mask_words(
    tokenizer: ElmoTokenizer,
    text: str | Sequence[str],
    word_index: int | Sequence[int] | str | None,
    is_split_into_words: bool,
) -> MaskedText:
    """Finds the places of a text that are to be filled; arguments and errors as in `substitutes`."""
    if is_split_into_words:
        if not isinstance(text, (list, tuple)):
            raise ValueError(f"With is_split_into_words=True a text is a list of words, was: {text!r:.80}.")
        words = check_words(text, "A text, with is_split_into_words=True,")
        text = " ".join(words)
        ends = list(_cumulated(len(word) + 1 for word in words))
        spans = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True)]
    elif isinstance(text, str):
        spans = [(start, end) for start, end in _spans(tokenizer, text.replace(MASK, _STAND_IN))]
        words = [text[start:end] for start, end in spans]
        if inside := next((word for word in words if MASK in word and word != MASK), None):
            raise ValueError(f"{MASK} must stand for a whole word, but it is part of {inside!r}.")
    else:
        raise ValueError(f"A text must be a string, was: {type(text).__name__} {text!r:.80}.")
    if not words:
        raise ValueError(f"The text {text!r:.80} has no words.")
    if word_index is None:
        places = [place for place, word in enumerate(words) if word == MASK]
        if not places:
            raise ValueError(f"The text {text!r:.80} has no {MASK}: put one where a word is to be found.")
    elif isinstance(word_index, str):
        if word_index != "all":
            raise ValueError(f'word_index must be a number, a list of numbers or "all", was: {word_index!r}.')
        places = list(range(len(words)))
    else:
        places = [word_index] if isinstance(word_index, int) else list(word_index)
    if wrong := [place for place in places if not 0 <= place < len(words)]:
        raise ValueError(
            f"word_index {wrong[0]} is not in the text, which has the words 0 to {len(words) - 1}: {words}."
        )
    # A word without letters says less that is wrong than the letters of "[MASK]", which no text had in training.
    return MaskedText(text, ["" if word == MASK else word for word in words], spans, places)


def _spans(tokenizer: ElmoTokenizer, text: str) -> list[tuple[int, int]]:
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _cumulated(numbers: Iterable[int]) -> Iterator[int]:
    total = 0
    for number in numbers:
        total += number
        yield total


def _contexts(model: ElmoForPreTraining, tokenizer: ElmoTokenizer, batch: list[MaskedText]) -> tuple[Tensor, Tensor]:
    """The vectors of each direction at the places of texts, ``(places, projection_dim)`` each."""
    _, characters, mask = encode(model, tokenizer, [each.words for each in batch])
    with evaluating(model), torch.no_grad():
        forward, backward = model.elmo.read(characters, mask)[0][-1].chunk(2, dim=-1)
    # Padding is on one side, whichever it is; <S> is before the first word.
    first = (mask.long().argmax(dim=1) + 1).tolist()
    rows = [row for row, each in enumerate(batch) for _ in each.places]
    columns = torch.tensor([first[row] + place for row, each in enumerate(batch) for place in each.places])
    return forward[rows, columns.to(forward.device) - 1], backward[rows, columns.to(forward.device) + 1]


class _Choice:
    """Chooses the likeliest words from what both directions know; arguments as in `substitutes`."""

    def __init__(
        self,
        model: ElmoForPreTraining,
        tokenizer: ElmoTokenizer,
        top_k: int,
        targets: str | Sequence[str] | None,
        prior: Mapping[str, int] | str | None,
        special_words: bool,
    ):
        self.model, self.tokenizer = model, tokenizer
        size = model.config.vocab_size
        offered = torch.ones(size, dtype=torch.bool)
        special = [tokenizer.pad_token_id]
        if not special_words:
            special += [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
        offered[special] = False
        if not offered.any():
            raise ValueError("The vocabulary has no words but the special ones: there is nothing to offer.")
        if targets is None:
            chosen = offered.nonzero().squeeze(1)
        else:
            chosen = torch.tensor(self._ids([targets] if isinstance(targets, str) else check_words(targets, "targets")))
        self.top_k = min(top_k, len(chosen))
        # To be added to log-probabilities: minus infinity for words that are not offered.
        self.bias = torch.zeros(size).masked_fill(~offered, -torch.inf)
        if prior is not None:
            self.bias -= self._log_prior(prior)
        self.bias, self.chosen = self.bias.to(model.device), chosen.to(model.device)

    def _ids(self, words: Sequence[str]) -> list[int]:
        if not words:
            raise ValueError("targets has no words.")
        # A list gives a list, which the library's annotation leaves open.
        ids = cast("list[int]", self.tokenizer.convert_tokens_to_ids(list(dict.fromkeys(words))))
        special = {self.tokenizer.pad_token_id, self.tokenizer.unk_token_id}
        if unknown := [word for word, number in zip(dict.fromkeys(words), ids, strict=True) if number in special]:
            raise ValueError(f"targets must be words of the vocabulary, which these are not: {', '.join(unknown)}.")
        return ids

    def _log_prior(self, prior: Mapping[str, int] | str) -> Tensor:
        """``(vocab_size,)``: log-probabilities of words without context."""
        size = self.model.config.vocab_size
        if isinstance(prior, str):
            if prior != "rank":
                raise ValueError(f'prior must be "rank", counts of words or None, was: {prior!r}.')
            # The special words stand first, and have no rank of their own.
            ranks = (torch.arange(size) - len(SPECIAL_WORDS) + 1).clamp(min=1)
            return (-ranks.double().log()).log_softmax(dim=0).float()
        counts = torch.zeros(size, dtype=torch.float64)
        # All words outside of the vocabulary count as [UNK].
        ids = torch.tensor(self.tokenizer.convert_tokens_to_ids(list(prior)), dtype=torch.long)
        counts.index_add_(0, ids, torch.tensor(list(prior.values()), dtype=torch.float64))
        known = counts.clone()
        known[self.tokenizer.unk_token_id] = 0
        if (counts < 0).any() or not known.any():
            raise ValueError("prior must say how often words stand in a corpus, but has no word of the vocabulary.")
        return ((counts + 1) / (counts.sum() + size)).log().float()

    @torch.no_grad()
    def __call__(self, forward: Tensor, backward: Tensor) -> Iterator[list[dict[str, Any]]]:
        """The words for each place, from ``(places, projection_dim)`` of each direction."""
        # Four times as much is in memory as while one direction is scored.
        most = max(1, rows_at_once(self.model.config.vocab_size) // 4)
        for contexts in zip(forward.split(most), backward.split(most), strict=True):
            directions = [self.model.softmax(context).float().log_softmax(dim=-1) for context in contexts]
            scores = (directions[0] + directions[1] + self.bias).log_softmax(dim=-1)
            best, index = scores[:, self.chosen].topk(self.top_k, dim=-1)
            ids = self.chosen[index]
            columns = [each.exp().tolist() for each in (best, *(direction.gather(1, ids) for direction in directions))]
            for words, *probabilities in zip(ids.tolist(), *columns, strict=True):
                yield [
                    {"score": score, "token": word, "token_str": string, "forward_score": p, "backward_score": q}
                    for word, string, score, p, q in zip(
                        words, self.tokenizer.convert_ids_to_tokens(words), *probabilities, strict=True
                    )
                ]
