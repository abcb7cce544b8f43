"""Sampled softmax (Jean et al. 2015, section 3): a word is scored against a sample of the vocabulary, not all of it.

The loss is that of TensorFlow's `sampled_softmax_loss` with a log-uniform candidate sampler, as bilm-tf trained ELMo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_elmo import ElmoConfig

# The more draws at once the fewer passes; but a sample of nearly all of a large vocabulary takes a hundred million.
_MOST_DRAWS_AT_ONCE = 2**22


class Sample(NamedTuple):
    """Distinct classes, and the number of draws that they took.

    Attributes:
        classes: ``(num_samples,)``, int64: ids of words, in the order in which they were drawn.
        tries: Draws with replacement until this many were distinct; infinite if the sample is all classes.
    """

    classes: Tensor
    tries: float


@dataclass(frozen=True)
class LogUniformSampler:
    """Draws distinct words of a vocabulary sorted by falling frequency, as if their frequencies followed Zipf's law.

    A draw gives rank k, from 0, with probability ``log((k + 2) / (k + 1)) / log(num_classes + 1)``, as in TensorFlow's
    `log_uniform_candidate_sampler(unique=True)`.

    Args:
        num_classes: Number of words.
        num_samples: Number of distinct words in a sample. If it is not less than `num_classes`, a sample is all words.
        first_class: Id of rank 0; the ranks are consecutive ids.

    Raises:
        ValueError: for a number of classes or samples below 1, or a negative first class.
    """

    num_classes: int
    num_samples: int
    first_class: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_classes", 1), ("num_samples", 1), ("first_class", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, was: {value!r}.")

    @classmethod
    def from_config(cls, config: ElmoConfig) -> LogUniformSampler:
        """The sampler of a biLM's vocabulary: all words but `[PAD]`, which is not a class.

        Raises:
            ValueError: if `num_negative_samples` is not a number above 0, or `[PAD]` does not stand before all words.
        """
        if config.num_negative_samples is None:
            raise ValueError("num_negative_samples is None: a sampled softmax needs the number of words to sample.")
        if config.pad_token_id not in (None, 0):
            raise ValueError(
                "Sampled softmax takes the ids of words for ranks of frequency, with [PAD], id 0, before all of them, "
                f"but pad_token_id is {config.pad_token_id}: renumber the vocabulary as ElmoTokenizer.create does, or "
                "set num_negative_samples to None for the full softmax."
            )
        first = 0 if config.pad_token_id is None else 1
        if config.vocab_size <= first:
            raise ValueError(f"A vocabulary of vocab_size {config.vocab_size} has no word to predict.")
        return cls(config.vocab_size - first, config.num_negative_samples, first)

    def draw(self, device: torch.device | str = "cpu", generator: torch.Generator | None = None) -> Sample:
        """A fresh sample.

        Args:
            device: Where to draw.
            generator: The random generator, on that device; None: the device's own, whose state checkpoints restore.
        """
        if self.num_samples >= self.num_classes:
            return Sample(torch.arange(self.first_class, self.first_class + self.num_classes, device=device), math.inf)
        # The number drawn at once must depend on nothing but the sizes: a resumed training has to draw the same.
        chunk = _draws_at_once(self.num_classes, self.num_samples)
        ranks = torch.empty(0, dtype=torch.long, device=device)
        tries = 0
        while True:
            known = len(ranks)
            ranks = torch.cat([ranks, self._draw_with_replacement(chunk, device, generator)])
            fresh = _first_occurrences(ranks)[: self.num_samples]
            ranks = ranks.index_select(0, fresh)
            if len(ranks) == self.num_samples:
                return Sample(ranks + self.first_class, tries + int(fresh[-1]) + 1 - known)
            tries += chunk

    def _draw_with_replacement(
        self, count: int, device: torch.device | str, generator: torch.Generator | None
    ) -> Tensor:
        """Ranks, ``(count,)``, int64."""
        # A float32 has too few values to tell the rare words of a large vocabulary apart, and Apple's GPUs do not have
        # float64.
        where = "cpu" if torch.device(device).type == "mps" else device
        uniform = torch.rand(count, dtype=torch.float64, device=where, generator=generator)
        ranks = (uniform * math.log(self.num_classes + 1)).exp_().long() - 1
        return ranks.clamp_(max=self.num_classes - 1).to(device)

    def log_expected_counts(self, classes: Tensor, tries: float) -> Tensor:
        """Log of the expected number of times that a sample holds a class, `log(1 - (1 - p) ** tries)`.

        Args:
            classes: Ids of words, of any shape.
            tries: Number of draws that the sample took.

        Returns:
            float32 of that shape.
        """
        probabilities = _probabilities(classes - self.first_class, self.num_classes)
        return torch.log(-torch.expm1(tries * torch.log1p(-probabilities))).float()

    def check_targets(self, targets: Tensor) -> None:
        """Raises ValueError if one of the ids is not a word's."""
        if targets.numel() == 0:
            return
        low, high = torch.stack(targets.aminmax()).tolist()
        last = self.first_class + self.num_classes - 1
        if low < self.first_class or high > last:
            raise ValueError(
                f"Labels reach from {low} to {high}, but the vocabulary has words {self.first_class} to {last}: were "
                "they made by this model's tokenizer? A position without a label has -100."
            )


def sampled_softmax_loss(
    hidden: Tensor,
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    sampler: LogUniformSampler,
    sample: Sample | None = None,
    correct: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Summed cross entropy of each target against itself and a sample of classes.

    Args:
        hidden: ``(words, dim)``.
        targets: ``(words,)``, int64: ids of words.
        weight: ``(vocab_size, dim)``, the softmax. Its gradient is dense.
        bias: ``(vocab_size,)``.
        sampler: Where classes come from.
        sample: A sample drawn before by `sampler`; None: a fresh one.
        correct: Subtract from each logit the log of its class's expected count, without which frequent words, being
            sampled often, would be learned to be rare.
        generator: As in `LogUniformSampler.draw`.

    Returns:
        float32 scalar.

    Raises:
        ValueError: for a target that is not a word.
    """
    samples = None if sample is None else [sample]
    return sampled_softmax_losses([hidden], [targets], weight, bias, sampler, samples, correct, generator)[0]


def sampled_softmax_losses(
    hidden: Sequence[Tensor],
    targets: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    sampler: LogUniformSampler,
    samples: Sequence[Sample] | None = None,
    correct: bool = True,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """As `sampled_softmax_loss`, for several sets of words, each against a sample of its own."""
    for ids in targets:
        sampler.check_targets(ids)
    if samples is None:
        samples = [sampler.draw(weight.device, generator) for _ in targets]
    # One look-up for all: the gradient of each is a matrix of the whole vocabulary's size. And `embedding`, because
    # the gradient of indexing adds rows up in an order that depends on the threads.
    needed = [ids for pair in zip(targets, samples, strict=True) for ids in (pair[0], pair[1].classes)]
    sizes = [len(ids) for ids in needed]
    ids = torch.cat(needed)
    rows = F.embedding(ids, weight).split(sizes)
    biases = F.embedding(ids, bias.unsqueeze(1)).squeeze(1).float().split(sizes)
    losses = []
    for i, (words, target, sample) in enumerate(zip(hidden, targets, samples, strict=True)):
        true_logits = (words.float() * rows[2 * i].float()).sum(dim=1) + biases[2 * i]
        offsets = biases[2 * i + 1]
        if correct:
            true_logits = true_logits - sampler.log_expected_counts(target, sample.tries)
            offsets = offsets - sampler.log_expected_counts(sample.classes, sample.tries)
        logits = (words @ rows[2 * i + 1].t()).float() + offsets
        word, hit = _accidental_hits(target, sample.classes)
        logits[word, hit] = torch.finfo(logits.dtype).min
        logits = torch.cat([true_logits.unsqueeze(1), logits], dim=1)
        losses.append(F.cross_entropy(logits, torch.zeros_like(target), reduction="sum"))
    return losses


def _accidental_hits(targets: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Where targets stand in a sample: positions of those that do, and of the class, ``(hits,)`` each."""
    ordered, index = classes.sort()
    place = torch.searchsorted(ordered, targets).clamp_(max=len(ordered) - 1)
    word = (ordered.index_select(0, place) == targets).nonzero().squeeze(1)
    return word, index.index_select(0, place.index_select(0, word))


def _first_occurrences(values: Tensor) -> Tensor:
    """Positions of values that do not stand earlier in a vector, in rising order."""
    ordered, index = values.sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    return index[is_first].sort().values


def _probabilities(ranks: Tensor, num_classes: int) -> Tensor:
    """What the log-uniform law gives to ranks, float32."""
    return torch.log1p(1 / (ranks.float() + 1)) / math.log(num_classes + 1)


@lru_cache(maxsize=64)
def _draws_at_once(num_classes: int, num_samples: int) -> int:
    """A number of draws that nearly always contains a sample, but at most what memory allows."""
    log_miss = torch.log1p(-_probabilities(torch.arange(num_classes, device="cpu"), num_classes).double())

    def distinct(draws: float) -> float:
        return float(-torch.expm1(draws * log_miss).sum())

    low, high = 0.0, float(num_samples)
    while distinct(high) < num_samples and high < _MOST_DRAWS_AT_ONCE:
        low, high = high, 2 * high
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if distinct(middle) < num_samples else (low, middle)
    return min(math.ceil(1.1 * high) + 64, _MOST_DRAWS_AT_ONCE)
