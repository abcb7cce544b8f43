"""Reading many sentences with a model: batches of similar lengths, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


def similar_lengths(lengths: Sequence[int], most_words: int) -> Iterator[list[int]]:
    """Cuts sentences into batches with little padding.

    Args:
        lengths: Words of each sentence.
        most_words: Most words in a batch, padding included. A longer sentence is a batch of its own.

    Yields:
        Indices of the sentences of a batch, the longest first; the longest batch comes first.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most_words:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode for a while; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
