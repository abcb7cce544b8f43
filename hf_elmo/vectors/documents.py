"""Long documents: read as one sequence, in windows, with the LSTMs' states carried over the borders between them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import torch

from ..model.lstm.lstm_layer import ElmoState
from .batching import evaluating, split_into_words
from .embedding import LAYERS, EmbeddedSentence, choose_layers
from .word_cache import RecentWords, remembering

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoModel, ElmoModelOutput, ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

_Text = str | Sequence[str]


def embed_document(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    document: _Text | Sequence[_Text],
    *,
    boundaries: str = "document",
    layers: str = "mix",
    keep_boundaries: bool = False,
    window_words: int = 2048,
    folder: str | os.PathLike[str] | None = None,
) -> Iterator[EmbeddedSentence]:
    """Embeds a document of any length as one sequence, in memory that does not grow with it.

    The result is that of one call of the model on all of the words, within rounding, however the windows are cut: with
    elmo-mini in float32 within 1e-5. With weights that make rounding grow from word to word, such as large random ones,
    both are as far from the result in float64, and so from each other.

    The document is read twice: from its end, which gives the backward LSTMs' states at the borders of windows (they are
    small, and kept on the disk), and from its beginning. So it takes twice as long as `embed_sentences`.

    ELMo was trained on sentences; whether a whole document is better read in one is for its user to find out.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        document: A text, which the tokenizer splits into words, or a list of words. With `boundaries="sentences"` a
            list of sentences, each a text or a list of words.
        boundaries: `"document"`: one `<S>` at the beginning and one `</S>` at the end. `"sentences"`: a pair around
            each sentence, over which states are carried all the same, as in the training of a language model.
        layers: `"mix"`, `"top"`, `"all"`, `"average"` or `"sum"`, as for `embed_sentences`.
        keep_boundaries: Keep the rows of `<S>` and `</S>`.
        window_words: Words that are read at once, boundaries included.
        folder: Where the states are kept meanwhile; None: the system's folder for temporary files.

    Yields:
        An `EmbeddedSentence` for each window, in their order.

    Raises:
        ValueError: for another `boundaries` or `layers`, a `window_words` below 1, a document that is none, a mix that
            normalises over all words, and vectors that are not finite.
        OSError: if the states cannot be kept.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> words = ["I", "read", "it", "again", "and"] * 30
        >>> windows = hf_elmo.embed_document(model, tokenizer, words, window_words=100)
        >>> [window.vectors.shape for window in windows]
        [(99, 384), (51, 384)]
    """
    for name, value, known in (("layers", layers, LAYERS), ("boundaries", boundaries, ("document", "sentences"))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, was: {value!r}.")
    if window_words < 1:
        raise ValueError(f"window_words must be at least 1, was: {window_words}.")
    model = model.base_model
    if layers == "mix" and model.config.do_layer_norm:
        raise ValueError("This model's mix normalises over all words at once, so it cannot be made window by window.")
    words, is_boundary = _words(tokenizer, document, boundaries)
    return _windows(model, tokenizer, words, is_boundary, layers, keep_boundaries, window_words, folder)


def _words(
    tokenizer: ElmoTokenizer, document: _Text | Sequence[_Text], boundaries: str
) -> tuple[list[str], np.ndarray]:
    """All words, boundaries included, and which of them are these."""
    if boundaries == "sentences":
        if isinstance(document, str):
            raise ValueError("The document is one text: for boundaries='sentences' give a list of sentences.")
        sentences = list(split_into_words(tokenizer, document))
    else:
        # Of lists of lists, which are no document, it says what is wrong.
        sentences = list(split_into_words(tokenizer, [cast("_Text", document)]))
    words, flags = [], []
    for sentence in sentences:
        words += [tokenizer.bos_token, *sentence, tokenizer.eos_token]
        flags += [True, *[False] * len(sentence), True]
    return words, np.array(flags, bool)


def _windows(
    model: ElmoModel,
    tokenizer: ElmoTokenizer,
    words: list[str],
    is_boundary: np.ndarray,
    layers: str,
    keep_boundaries: bool,
    window_words: int,
    folder: str | os.PathLike[str] | None,
) -> Iterator[EmbeddedSentence]:
    starts = range(0, len(words), window_words)
    reader = _Reader(model, tokenizer)
    with _States(model, folder) as states:
        at_end = reader.fresh_state()
        for place in reversed(range(len(starts))):
            states.write(place, at_end)
            if place:
                window = words[starts[place] : starts[place] + window_words]
                at_end = _state_of(reader.read(window, at_end, False)[0])
        forward = reader.fresh_state()
        for place, start in enumerate(starts):
            window, flags = words[start : start + window_words], is_boundary[start : start + window_words]
            output, truncated = reader.read(window, _joined(forward, states.read(place)), layers != "mix")
            forward = _state_of(output)
            vectors = choose_layers(output, layers)[0].float().cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ValueError(
                    f"Words {start:,} to {start + len(window) - 1:,} have vectors that are not finite: either the "
                    f"model's weights are damaged, or its numbers ({model.dtype}) are too narrow for it."
                )
            kept = np.flatnonzero(~flags | keep_boundaries)
            cut = [window[index] for index in kept if truncated[index]]
            yield EmbeddedSentence([window[index] for index in kept], vectors[..., kept, :], cut)


def _state_of(output: ElmoModelOutput) -> ElmoState:
    assert output.state is not None, "it was asked for"
    return output.state


class _Reader:
    """Reads windows of one document with a model."""

    def __init__(self, model: ElmoModel, tokenizer: ElmoTokenizer):
        self._model, self._tokenizer = model, tokenizer
        self._recent = RecentWords(model.character_encoder, across_calls=False)

    def fresh_state(self) -> ElmoState:
        return self._model.bilstm.initial_state(1, next(self._model.bilstm.parameters()))

    def read(self, words: list[str], state: ElmoState, with_layers: bool) -> tuple[ElmoModelOutput, np.ndarray]:
        encoded = self._tokenizer(
            [words],
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            return_tensors="pt",
            return_truncated_words=True,
        )
        truncated = encoded.pop("truncated_words").numpy()[0] != 0
        model = self._model
        with evaluating(model), remembering(model.character_encoder, self._recent), torch.inference_mode():
            inputs = encoded.to(model.device)
            return model(**inputs, state=state, return_state=True, output_hidden_states=with_layers), truncated


class _States:
    """The states at the ends of windows, on the disk."""

    def __init__(self, model: ElmoModel, folder: str | os.PathLike[str] | None):
        self._like = model.bilstm.initial_state(1, next(model.bilstm.parameters()))
        self._folder = folder

    def __enter__(self) -> _States:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=self._folder)
        self._size = sum(part[1].numel() * part.element_size() for part in self._like)
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()

    def write(self, place: int, state: ElmoState) -> None:
        """Keeps the backward half of a state."""
        self._file.seek(place * self._size)
        for part in state:
            self._file.write(part[1].contiguous().cpu().view(torch.uint8).numpy().tobytes())

    def read(self, place: int) -> ElmoState:
        """A state whose backward half is the one that was kept; the forward half is zeros."""
        self._file.seek(place * self._size)
        parts = []
        for like in self._like:
            data = bytearray(self._file.read(like[1].numel() * like.element_size()))
            part = torch.zeros_like(like)
            part[1] = torch.frombuffer(data, dtype=like.dtype).view(like[1].shape).to(like.device)
            parts.append(part)
        return ElmoState(*parts)


def _joined(forward: ElmoState, backward: ElmoState) -> ElmoState:
    return ElmoState(*(torch.stack([ahead[0], behind[1]]) for ahead, behind in zip(forward, backward)))
