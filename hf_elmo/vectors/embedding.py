"""Bulk embedding: any number of sentences to vectors, in batches of similar lengths, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .batching import (
    BATCHES_PER_WINDOW,
    evaluating,
    similar_lengths,
    split_into_words,
    windows,
)
from .memory import give_back_memory
from .word_cache import RecentWords, remembering

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoModel, ElmoModelOutput, ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

LAYERS = ("mix", "top", "all", "average", "sum")


class EmbeddedSentence(NamedTuple):
    """A sentence and its vectors.

    Attributes:
        words: The words, one for each row of `vectors`.
        vectors: float32, ``(words, dim)``, or ``(layers, words, dim)`` for `layers="all"`.
        truncated_words: Those of the words that were too long for the model, which read only their first bytes.
    """

    words: list[str]
    vectors: np.ndarray
    truncated_words: list[str]


def embed_sentences(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    sentences: Iterable[str | Sequence[str]],
    layers: str = "mix",
    keep_boundaries: bool = False,
    batch_words: int = 2048,
) -> Iterator[EmbeddedSentence]:
    """Embeds sentences, in their order.

    Sentences are read as they are needed, so the iterable may be longer than memory. A sentence's vectors depend on
    that sentence alone: not on its neighbours, the size of batches, or the model's being in training mode. An empty
    sentence has no rows.

    Args:
        model: An `ElmoModel`, or a model on top of one (whose `base_model` it is), on any device.
        tokenizer: Its `ElmoTokenizer`.
        sentences: Each a text, which the tokenizer splits into words, or a list of words, which stay as they are.
        layers: `"mix"`: the model's `last_hidden_state`. `"top"`: its last layer. `"all"`: all layers, the context-free
            one first. `"average"`: the plain mean of all layers. `"sum"`: their plain sum (SeqVec's recipe).
        keep_boundaries: Keep the rows of `<S>` and `</S>`, first and last.
        batch_words: Most words in a batch, padding and boundaries included. A longer sentence is a batch of its own.

    Yields:
        An `EmbeddedSentence` for each sentence.

    Raises:
        ValueError: for another `layers`, a `batch_words` below 1, one text in the place of sentences, a sentence that
            is neither text nor words, and vectors that are not finite.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> sentences = ["I read the book yesterday.", ["Two", "words"]]
        >>> for sentence in hf_elmo.embed_sentences(model, tokenizer, sentences):
        ...     print(sentence.words, sentence.vectors.shape == (len(sentence.words), model.config.hidden_size))
        ['I', 'read', 'the', 'book', 'yesterday', '.'] True
        ['Two', 'words'] True
    """
    if layers not in LAYERS:
        raise ValueError(f"layers must be one of {', '.join(LAYERS)}, was: {layers!r}.")
    if batch_words < 1:
        raise ValueError(f"batch_words must be at least 1, was: {batch_words}.")
    if isinstance(sentences, str):
        raise ValueError("sentences is one text: give a list of texts, or a list of lists of words.")
    model = model.base_model
    # The normalisation takes its mean over the batch: only in a batch of its own is a sentence independent of others.
    alone = layers == "mix" and model.config.do_layer_norm
    embedded = _embed(model, tokenizer, sentences, layers, keep_boundaries, batch_words, alone)
    return _then_tidy(embedded, batch_words // 2)


def _then_tidy(embedded: Generator[EmbeddedSentence], many: int) -> Iterator[EmbeddedSentence]:
    """Passes sentences on; if they had `many` words, the memory that reading them took is given back in the end.

    Less is soon wanted again, and giving back takes longer than reading a few words.
    """
    words = 0
    with closing(embedded):
        for each in embedded:
            words += len(each.words)
            yield each
    if words >= many:
        give_back_memory()


def _embed(
    model: ElmoModel,
    tokenizer: ElmoTokenizer,
    sentences: Iterable[str | Sequence[str]],
    layers: str,
    keep_boundaries: bool,
    batch_words: int,
    alone: bool,
) -> Generator[EmbeddedSentence]:
    number, recent = 0, RecentWords(model.character_encoder, across_calls=False)
    for window in windows(split_into_words(tokenizer, sentences), BATCHES_PER_WINDOW * batch_words):
        embedded: dict[int, EmbeddedSentence] = {}
        lengths = [len(sentence) + 2 for sentence in window]
        for indices in similar_lengths(lengths, 1 if alone else batch_words):
            batch = [window[index] for index in indices]
            for index, result in zip(indices, _embed_batch(model, tokenizer, batch, layers, keep_boundaries, recent)):
                if not np.isfinite(result.vectors).all():
                    raise ValueError(
                        f"Sentence {number + index} has vectors that are not finite: either the model's weights are "
                        f"damaged, or its numbers ({model.dtype}) are too narrow for it, and float32 will do."
                    )
                embedded[index] = result
        number += len(window)
        for index in range(len(window)):
            words, vectors, truncated = embedded.pop(index)
            # Until here sentences share the arrays of their batches; a reader who keeps one is to keep no more.
            yield EmbeddedSentence(words, vectors.copy(), truncated)


def _embed_batch(
    model: ElmoModel,
    tokenizer: ElmoTokenizer,
    batch: list[list[str]],
    layers: str,
    keep_boundaries: bool,
    recent: RecentWords,
) -> Iterator[EmbeddedSentence]:
    encoded = tokenizer(
        batch,
        is_split_into_words=True,
        padding=True,
        truncation=False,
        return_tensors="pt",
        return_truncated_words=True,
    )
    truncated = encoded.pop("truncated_words").numpy() != 0
    with evaluating(model), remembering(model.character_encoder, recent), torch.inference_mode():
        output = model(**encoded.to(model.device), output_hidden_states=layers != "mix")
        vectors = choose_layers(output, layers).float().cpu().numpy()
    masks = encoded["attention_mask"].cpu().numpy() != 0
    boundaries = tokenizer.bos_token, tokenizer.eos_token
    for words, rows, mask, flags in zip(batch, vectors, masks, truncated, strict=True):
        # Padding is on one side, whichever it is.
        first = int(mask.argmax()) + 1
        place = slice(first, first + len(words))
        cut = [word for word, flag in zip(words, flags[place], strict=True) if flag]
        if keep_boundaries:
            words, place = [boundaries[0], *words, boundaries[1]], slice(place.start - 1, place.stop + 1)
        yield EmbeddedSentence(words, rows[..., place, :], cut)


def choose_layers(output: ElmoModelOutput, layers: str) -> Tensor:
    """What `layers` names of a model's output: ``(batch, words, dim)``, or ``(batch, layers, words, dim)`` for all."""
    if layers == "mix":
        assert output.last_hidden_state is not None, "the model always returns it"
        return output.last_hidden_state
    assert output.hidden_states is not None, "they were asked for"
    if layers == "top":
        return output.hidden_states[-1]
    stacked = torch.stack(output.hidden_states, dim=1)
    if layers == "all":
        return stacked
    return stacked.sum(dim=1) if layers == "sum" else stacked.mean(dim=1)
