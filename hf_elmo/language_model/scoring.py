"""Scoring text with the language model: log-probabilities of words, and perplexity, with the full softmax."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..model.word_encoder import rows_of
from ..vectors.batching import BATCHES_PER_WINDOW, evaluating, similar_lengths, split_into_words, windows

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoForPreTraining, ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

# Logits that are in memory at once, 16 MB in float32. Published vocabularies have 800,000 words; there a softmax over
# few places takes as long to read the weights as over many, so that it gets a little more.
MOST_LOGITS, FEWEST_ROWS = 2**22, 16


class ScoredSentence(NamedTuple):
    """A sentence and the log-probabilities of its words, in nats.

    Attributes:
        words: The n words.
        forward: ``(n + 1,)``, float32: of each word after the words before it, and of the end, `</S>`, after all.
        backward: ``(n + 1,)``, float32: of the beginning, `<S>`, and of each word, before the words behind it.
        unknown: ``(n,)``, bool: which words are outside of the vocabulary, and scored as `[UNK]`.
    """

    words: list[str]
    forward: np.ndarray
    backward: np.ndarray
    unknown: np.ndarray


@dataclass
class Perplexity:
    """How well a biLM predicts a text; exact over all words, `</S>` among the next and `<S>` among the previous ones.

    Attributes:
        forward: Perplexity of the next word.
        backward: Perplexity of the previous word.
        words: Number of predictions in each direction.
        unknown: Share of them whose word is outside of the vocabulary, and predicted as `[UNK]`.
        sentences: Number of sentences with words.
    """

    forward: float
    backward: float
    words: int
    unknown: float
    sentences: int

    @property
    def mean(self) -> float:
        """Perplexity of both directions: the geometric mean of the two, as their cross entropies are averaged."""
        return math.sqrt(self.forward * self.backward)


def perplexity(
    model: ElmoForPreTraining,
    tokenizer: ElmoTokenizer,
    sentences: Iterable[str | Sequence[str]],
    *,
    carry_state: bool = False,
    batch_words: int = 2048,
) -> Perplexity:
    """Perplexity of a text: ``exp(-sum of log-probabilities / number of predictions)`` over the whole of it.

    Args:
        model: An `ElmoForPreTraining`; evaluated in its dtype and on its device.
        tokenizer: Its tokenizer, whose vocabulary the softmax predicts.
        sentences: As for `score_sentences`.
        carry_state: As for `score_sentences`.
        batch_words: As for `score_sentences`.

    Raises:
        ValueError: if there is no word in the text, and as `score_sentences`.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> found = hf_elmo.perplexity(model, tokenizer, ["The book was read by everyone."])
        >>> found.words, found.sentences
        (8, 1)
        >>> 1 < found.forward < model.config.vocab_size
        True
    """
    totals = np.zeros(2)
    predictions = unknown = count = 0
    for sentence in score_sentences(model, tokenizer, sentences, carry_state=carry_state, batch_words=batch_words):
        totals += sentence.forward.sum(dtype=np.float64), sentence.backward.sum(dtype=np.float64)
        predictions += len(sentence.forward)
        unknown += int(sentence.unknown.sum())
        count += 1
    if not predictions:
        raise ValueError("There is no sentence to score: the text has no words.")
    forward, backward = (math.exp(-total / predictions) if total > -700 * predictions else math.inf for total in totals)
    return Perplexity(forward, backward, predictions, unknown / predictions, count)


def score_sentences(
    model: ElmoForPreTraining,
    tokenizer: ElmoTokenizer,
    sentences: Iterable[str | Sequence[str]],
    *,
    carry_state: bool = False,
    batch_words: int = 2048,
) -> Iterator[ScoredSentence]:
    """Scores every word of a text in both directions, with the softmax over the whole vocabulary.

    Each direction reads what it read in training: the forward one never `</S>`, the backward one never `<S>` (bilm-tf,
    `bilm/data.py`).

    Args:
        model: An `ElmoForPreTraining`; evaluated in its dtype and on its device.
        tokenizer: Its tokenizer, whose vocabulary the softmax predicts.
        sentences: Each a text, which the tokenizer splits into words, or a list of words. Those without words are
            passed over.
        carry_state: Read one running text: the forward direction goes on in each sentence with the LSTM state that the
            sentence before left, the backward direction with the state from the sentence behind. Then the whole text is
            kept in memory, and read word by word, which is slow. False: every sentence on its own.
        batch_words: Most words read at a time, padding and boundaries included; a longer sentence is read alone.

    Yields:
        A `ScoredSentence` for each sentence with words, in their order.

    Raises:
        ValueError: for a model without softmax or a tokenizer of another vocabulary, one text in the place of
            sentences, and scores that are not numbers.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> (sentence,) = hf_elmo.score_sentences(model, tokenizer, ["The cat sat."])
        >>> sentence.words
        ['The', 'cat', 'sat', '.']
        >>> len(sentence.forward)  # one for each word, and one for the end
        5
    """
    check_language_model(model, tokenizer)
    if isinstance(sentences, str):
        raise ValueError("sentences is one text: give a list of texts, or a list of lists of words.")
    if batch_words < 1:
        raise ValueError(f"batch_words must be at least 1, was: {batch_words}.")
    split = (words for words in split_into_words(tokenizer, sentences) if words)
    scored = _score_running_text if carry_state else _score_apart
    return _checked(scored(model, tokenizer, split, batch_words))


def check_language_model(model: ElmoPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raises ValueError unless the model predicts words, and those of the tokenizer."""
    if not hasattr(model, "softmax"):
        raise ValueError(
            f"{type(model).__name__} does not predict words: load the model with ElmoForPreTraining.from_pretrained. "
            "(The softmax is not part of published ELMo weights in HDF5.)"
        )
    if tokenizer is None:
        raise ValueError("There is no tokenizer: give the one of the model, whose vocabulary the model predicts.")
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"The tokenizer's vocabulary has {len(tokenizer)} words, special ones included, and the model predicts "
            f"{model.config.vocab_size}: load both from the same folder."
        )


def target_log_probabilities(softmax: nn.Linear, top: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of given words, in memory that does not grow with their number.

    Args:
        softmax: The output layer: ``(rows, projection_dim)`` to logits ``(rows, vocab_size)``.
        top: ``(words, projection_dim)``, what the LSTMs know where each word is predicted.
        targets: ``(words,)``, int64, the words' ids.

    Returns:
        ``(words,)``, float32, in nats.
    """
    scores = []
    for rows, ids in zip(*(each.split(rows_at_once(softmax.out_features)) for each in (top, targets)), strict=True):
        logits = softmax(rows).float()
        scores.append(logits.gather(1, ids.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=1))
    return torch.cat(scores) if scores else top.new_zeros(0, dtype=torch.float32)


def rows_at_once(vocab_size: int) -> int:
    """The number of places whose logits over a vocabulary may be in memory at once."""
    return max(FEWEST_ROWS, MOST_LOGITS // vocab_size)


def _checked(scored: Iterator[ScoredSentence]) -> Iterator[ScoredSentence]:
    for number, sentence in enumerate(scored):
        if np.isnan(sentence.forward).any() or np.isnan(sentence.backward).any():
            raise ValueError(
                f"Sentence {number} has scores that are not numbers: the model's weights are damaged, or its numbers "
                f"are too narrow for it, and float32 will do."
            )
        yield sentence


def _score_apart(
    model: ElmoForPreTraining, tokenizer: ElmoTokenizer, sentences: Iterator[list[str]], batch_words: int
) -> Iterator[ScoredSentence]:
    for window in windows(sentences, BATCHES_PER_WINDOW * batch_words):
        scored: dict[int, ScoredSentence] = {}
        for indices in similar_lengths([len(words) + 2 for words in window], batch_words):
            batch = [window[index] for index in indices]
            ids, characters, mask = encode(model, tokenizer, batch)
            with evaluating(model), torch.no_grad():
                top = model.elmo.read(characters, mask)[0][-1]
                not_first, not_last = _all_but_one(mask)
                forward_top, backward_top = top.chunk(2, dim=-1)
                scores = [
                    target_log_probabilities(model.softmax, forward_top[not_last], ids[not_first]),
                    target_log_probabilities(model.softmax, backward_top[not_first], ids[not_last]),
                ]
            for index, sentence in zip(indices, _per_sentence(batch, ids[not_first], scores, tokenizer), strict=True):
                scored[index] = sentence
        yield from (scored[index] for index in range(len(window)))


def _score_running_text(
    model: ElmoForPreTraining, tokenizer: ElmoTokenizer, sentences: Iterator[list[str]], batch_words: int
) -> Iterator[ScoredSentence]:
    parts = list(windows(sentences, batch_words))
    backward: list[Tensor] = []
    state = None
    for part in reversed(parts):
        scores, _, state = _score_part(model, tokenizer, part, 1, state)
        backward.append(scores)
    state = None
    for part in parts:
        scores, ids, state = _score_part(model, tokenizer, part, 0, state)
        yield from _per_sentence(part, ids, [scores, backward.pop()], tokenizer)


@torch.no_grad()
def _score_part(
    model: ElmoForPreTraining,
    tokenizer: ElmoTokenizer,
    sentences: list[list[str]],
    direction: int,
    state: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Scores consecutive sentences of a running text in one direction, as one sequence.

    Returns:
        The log-probabilities ``(predictions,)``, the ids of the words that were predicted, and the state behind them.
    """
    # In one row, since rows of all lengths would be mostly padding.
    row = [word for words in sentences for word in (tokenizer.bos_token, *words, tokenizer.eos_token)]
    ids, characters, _ = encode(model, tokenizer, [row], add_special_tokens=False)
    ids, characters = ids[0], characters[0]
    lengths = torch.tensor([len(words) + 2 for words in sentences], device=ids.device)
    not_first, not_last = torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool)
    not_last[lengths.cumsum(0) - 1] = False
    not_first[lengths.cumsum(0) - lengths] = False
    read, predicted = (not_first, not_last) if direction else (not_last, not_first)
    bilm = model.elmo
    with evaluating(model):
        words = bilm.character_encoder(characters[read])
        if state is None:
            zeros = bilm.bilstm.initial_state(1, words)
            state = zeros.hidden[0], zeros.cell[0]
        layers, hidden, cell = bilm.bilstm.read_stack(direction, words, [1] * len(words), *state)
        scores = target_log_probabilities(model.softmax, layers[-1], ids[predicted])
    return scores, ids[predicted], (hidden, cell)


def encode(
    model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, sentences: list[list[str]], add_special_tokens: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences of words on the model's device: `input_ids`, what the model reads (`rows_of`), and where words are.

    That is ``(batch, words)``, ``(batch, words, chars)``, and ``(batch, words)``, bool.
    """
    encoded = tokenizer(
        sentences,
        is_split_into_words=True,
        add_special_tokens=add_special_tokens,
        padding=True,
        truncation=False,
        return_tensors="pt",
    ).to(model.device)
    return encoded["input_ids"], rows_of(encoded), encoded["attention_mask"] != 0


def _all_but_one(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where the words of each row but its first, and but its last are, ``(batch, words)``, bool."""
    ends = torch.nn.functional.pad(mask, (1, 1))
    return mask & ends[:, :-2], mask & ends[:, 2:]


def _per_sentence(
    sentences: list[list[str]], next_ids: Tensor, scores: list[Tensor], tokenizer: ElmoTokenizer
) -> Iterator[ScoredSentence]:
    """Cuts scores of all sentences' predictions, ``(predictions,)`` per direction, into those of each."""
    ends = np.cumsum([len(words) + 1 for words in sentences])[:-1]
    unknown = np.split((next_ids == tokenizer.unk_token_id).cpu().numpy(), ends)
    forward, backward = (np.split(each.cpu().numpy(), ends) for each in scores)
    for words, ahead, behind, is_unknown in zip(sentences, forward, backward, unknown, strict=True):
        yield ScoredSentence(words, ahead, behind, is_unknown[:-1])
