"""Reading many sentences with a model: batches of similar lengths, in evaluation mode."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from ..model.tokenization_elmo import ElmoTokenizer

# A window is sorted by length as a whole: the more batches it holds, the less padding, and the more memory.
BATCHES_PER_WINDOW = 8


def split_into_words(tokenizer: ElmoTokenizer, sentences: Iterable[str | Sequence[str]]) -> Iterator[list[str]]:
    """Sentences as lists of words.

    Args:
        tokenizer: An `ElmoTokenizer`.
        sentences: Each a text, which the tokenizer splits into words, or a list of words, which stay as they are.

    Raises:
        ValueError: for a sentence that is neither.
    """
    for number, sentence in enumerate(sentences):
        if isinstance(sentence, str):
            yield tokenizer.tokenize(sentence)
        elif isinstance(sentence, (list, tuple)):
            yield check_words(sentence, f"Sentence {number}")
        else:
            raise ValueError(
                f"Sentence {number} must be a text or a list of words, was: {type(sentence).__name__} {sentence!r:.60}"
            )


def check_words(words: Iterable[str], name: str) -> list[str]:
    """The words as a list.

    Args:
        words: What should be words.
        name: What messages call them.

    Raises:
        ValueError: for the first that is not a str, with its place and what it is.
    """
    words = list(words)
    for place, word in enumerate(words):
        if not isinstance(word, str):
            raise ValueError(
                f"{name} must consist of words (str), but at place {place} it has: {word!r:.60} "
                f"({type(word).__name__})."
            )
    return words


def windows(sentences: Iterable[list[str]], most_words: int) -> Iterator[list[list[str]]]:
    """Consecutive sentences, about `most_words` words of them at a time."""
    window: list[list[str]] = []
    words = 0
    for sentence in sentences:
        window.append(sentence)
        # Boundaries count, so that a window of empty sentences comes to an end.
        words += len(sentence) + 2
        if words >= most_words:
            yield window
            window, words = [], 0
    if window:
        yield window


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


# Modules that are just being read in evaluation mode though they were in training mode, or though another thread found
# them so: how many times over, and the mode that each comes back to.
_evaluated: dict[nn.Module, tuple[int, bool]] = {}
_modes_lock = threading.Lock()


def _begin_after_fork() -> None:
    """For a forked process: whoever held the lock, or evaluated a model, is not there any more."""
    global _modes_lock
    _modes_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_after_fork)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode for a while; when all threads that want it so have ended, each is as it was.

    To train a model in one thread while another reads it in evaluation mode is not possible: a module has one mode.
    """
    modules = list(model.modules())
    with _modes_lock:
        must_return = bool(_evaluated) or any(module.training for module in modules)
        if must_return:
            for module in modules:
                count, mode = _evaluated.get(module, (0, module.training))
                _evaluated[module] = count + 1, mode
            model.eval()
    try:
        yield
    finally:
        if must_return:
            with _modes_lock:
                for module in modules:
                    count, mode = _evaluated.pop(module)
                    if count > 1:
                        _evaluated[module] = count - 1, mode
                    else:
                        module.training = mode
