"""Scoring text with the language model: perplexity, full softmax."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from .modeling_elmo import ElmoForPreTraining
from .tokenization_elmo import ElmoTokenizer


@dataclass
class Perplexity:
    """How well a biLM predicts a text; exact over all words, `</S>` among the next and `<S>` among the previous ones.

    Attributes:
        forward: Perplexity of the next word.
        backward: Perplexity of the previous word.
        words: Number of predictions in each direction.
        unknown: Share of them whose word is outside of the vocabulary, and predicted as `[UNK]`.
    """

    forward: float
    backward: float
    words: int
    unknown: float

    @property
    def mean(self) -> float:
        """Perplexity of both directions: the geometric mean of the two, as their cross entropies are averaged."""
        return math.sqrt(self.forward * self.backward)


@torch.no_grad()
def perplexity(
    model: ElmoForPreTraining, tokenizer: ElmoTokenizer, sentences: Iterable[str], batch_size: int = 32
) -> Perplexity:
    """Scores sentences with the full softmax.

    Args:
        model: The language model; evaluated in its dtype and on its device.
        tokenizer: Its tokenizer.
        sentences: Raw text, one sentence each.
        batch_size: Sentences at a time.

    Raises:
        ValueError: if there is no sentence.
    """
    was_training = model.training
    model.eval()
    losses = torch.zeros(2, dtype=torch.float64)
    words = unknown = 0
    for texts in _batches(sentences, batch_size):
        batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        output = model(**batch, num_items_in_batch=1)
        losses += torch.stack([output.forward_loss, output.backward_loss]).double().cpu()
        labelled = batch["labels"].ne(-100)
        words += int(labelled.sum()) - len(texts)
        unknown += int(batch["labels"].eq(tokenizer.unk_token_id).sum())
    model.train(was_training)
    if words == 0:
        raise ValueError("There is no sentence to score.")
    forward, backward = (losses / words).exp().tolist()
    return Perplexity(forward, backward, words, unknown / words)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
