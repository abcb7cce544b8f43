"""From scores of starts and ends to the best spans."""

from __future__ import annotations

import numpy as np


def best_spans(
    start: np.ndarray, end: np.ndarray, count: int, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The spans with the highest product of the probabilities of start and end.

    Time and memory are linear in the number of words (times `max_length`).

    Args:
        start: ``(words,)``, the probability of each word to be the span's first.
        end: ``(words,)``, likewise its last.
        count: How many spans.
        max_length: Words of the longest span.

    Returns:
        First words, last words and products, each ``(count,)`` or as many as there are; the best first, among equals
        the one that starts, then the one that ends, earlier.

    Raises:
        ValueError: if `count` or `max_length` is below 1, or the two are not of one length.
    """
    if count < 1 or max_length < 1:
        raise ValueError(f"count and max_length must be at least 1, were: {count} and {max_length}.")
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"start and end must be of one length, were: {start.shape} and {end.shape}.")
    words = len(start)
    width = min(max_length, words)
    if words == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, start.dtype)
    # Row i holds the ends that word i can have; those behind the last word cannot be.
    reachable = np.lib.stride_tricks.sliding_window_view(np.pad(end, (0, width - 1), constant_values=-1), width)
    products = np.where(reachable < 0, -1, start[:, None] * reachable).ravel()
    count = min(count, int((products >= 0).sum()))
    # The worst that is let in decides, so that equals are not chosen by chance.
    bound = np.partition(products, len(products) - count)[len(products) - count]
    chosen = np.flatnonzero(products >= bound)
    chosen = chosen[np.argsort(-products[chosen], kind="stable")][:count]
    first, length = np.divmod(chosen, width)
    return first, first + length, products[chosen]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of ``(words,)`` scores, float64.

    Raises:
        ValueError: if scores are not numbers, as those of a model with damaged weights.
    """
    exact = logits.astype(np.float64)
    if np.isnan(exact).any():
        raise ValueError("The model's scores are not numbers (NaN): its weights are damaged, or its training diverged.")
    weights = np.exp(exact - exact.max())
    return weights / weights.sum()
