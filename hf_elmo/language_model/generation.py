"""Reading and writing text word by word, in memory that does not grow: the forward direction with its state alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model.lstm.lstm_layer import ElmoState
from ..model.word_encoder import rows_of
from ..vectors.batching import evaluating, split_into_words
from .scoring import check_language_model

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoForPreTraining, ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer


class ForwardReader:
    """The forward half of a biLM, at a place in a text, with the state that it has of all words before.

    Args:
        model: An `ElmoModel`, or a model on top of one; it is read in evaluation mode, without gradients.
        tokenizer: Its `ElmoTokenizer`.
        state: Where to go on: the `state` of another reader. None: before a text.

    Attributes:
        state: ``hidden`` ``(1, layers, 1, projection_dim)`` and ``cell`` ``(1, layers, 1, cell_size)``: the part of an
            `ElmoState` that belongs to the forward direction. Reading makes a new one; the old one stays as it is.
    """

    def __init__(self, model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, state: ElmoState | None = None):
        self.model, self.tokenizer = model.base_model, tokenizer
        if state is None:
            # Of the model rather than of its parameters, which may be offloaded.
            like = torch.empty(0, device=self.model.device, dtype=self.model.dtype)
            both = self.model.bilstm.initial_state(1, like)
            state = ElmoState(*(part[:1] for part in both))
        self.state = state

    def read(self, words: Sequence[str]) -> Tensor:
        """Reads some words more, each as one, whatever it holds; `<S>` and `</S>` are boundaries.

        Returns:
            ``(words, num_layers + 1, projection_dim)``, in the dtype of the weights: the forward half of what
            `ElmoModel` gives as layers, the context-free one first.
        """
        encoded = self.tokenizer(
            [list(words)], is_split_into_words=True, add_special_tokens=False, truncation=False, return_tensors="pt"
        )
        with evaluating(self.model), torch.no_grad():
            vectors = self.model.character_encoder(rows_of(encoded)[0].to(self.model.device))
            layers, hidden, cell = self.model.bilstm.read_stack(
                0, vectors, [1] * len(vectors), self.state.hidden[0], self.state.cell[0]
            )
        self.state = ElmoState(hidden[None], cell[None])
        return torch.stack([vectors, *layers], dim=1)


def stream(model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, words: Iterable[str]) -> Iterator[Tensor]:
    """The forward vectors of words, each as soon as the word is there.

    The vectors depend on the words before alone, and equal the forward half of `ElmoModel`'s layers on the whole
    sentence. The memory does not grow, so that the words may go on for ever.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        words: The words of one sentence or text, each of which stays as it is. `<S>` is read before the first of them.

    Yields:
        For each word ``(num_layers + 1, projection_dim)``, in the dtype of the weights, on the model's device; the
        context-free layer first.

    Raises:
        ValueError: for words that come as one text, or are not str.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> for representation in hf_elmo.stream(model, tokenizer, ["I", "read"]):
        ...     print(representation.shape == (model.config.num_layers + 1, model.config.projection_dim))
        True
        True
    """
    if isinstance(words, str):
        raise ValueError("words is one text: split it first, as in stream(model, tokenizer, text.split()).")
    return _stream(ForwardReader(model, tokenizer), words)


def _stream(reader: ForwardReader, words: Iterable[str]) -> Iterator[Tensor]:
    reader.read([reader.tokenizer.bos_token])
    for number, word in enumerate(words):
        if not isinstance(word, str):
            raise ValueError(f"Word {number} must be a str, was: {type(word).__name__} {word!r:.60}.")
        yield reader.read([word])[0]


def generate(
    model: ElmoForPreTraining,
    tokenizer: ElmoTokenizer,
    prompt: str | Sequence[str] = "",
    max_words: int = 20,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Goes on with a sentence by the forward direction, word by word: ``" ".join(generate(model, tokenizer, "The"))``.

    Every word is drawn from ``p(w | words before) ** (1 / temperature)``, normalised over the words of the vocabulary,
    and read before the next one: its characters once, with the LSTM state of the words before. `[UNK]`, `[PAD]` and
    `<S>` are never drawn; `</S>` ends the sentence.

    Args:
        model: An `ElmoForPreTraining`.
        tokenizer: Its tokenizer, whose vocabulary is drawn from.
        prompt: The beginning of the sentence, as text or words; may be empty.
        max_words: At most this many words.
        temperature: Below 1 the likely words become likelier; 0 takes the likeliest word each time.
        top_k: Draw among this many likeliest words (`</S>` included). None: all.
        generator: The random generator, on the CPU; None: torch's own, which `torch.manual_seed` seeds.

    Yields:
        The words that follow the prompt.

    Raises:
        ValueError: for a model without softmax or a tokenizer of another vocabulary, for a prompt that is neither text
            nor words, and for a `temperature`, `top_k` or `max_words` that cannot be.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> words = list(hf_elmo.generate(model, tokenizer, ["The", "book"], max_words=5, temperature=0))
        >>> 1 <= len(words) <= 5
        True
    """
    check_language_model(model, tokenizer)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 or a positive number, was: {temperature}.")
    for name, value in (("top_k", top_k), ("max_words", max_words)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, was: {value}.")
    (words,) = split_into_words(tokenizer, [prompt])
    return _generate(model, tokenizer, words, max_words, temperature, top_k, generator)


def _generate(
    model: ElmoForPreTraining,
    tokenizer: ElmoTokenizer,
    words: list[str],
    max_words: int,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator | None,
) -> Iterator[str]:
    reader = ForwardReader(model, tokenizer)
    never = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id]
    unread = [tokenizer.bos_token, *words]
    for _ in range(max_words):
        top = reader.read(unread)[-1, -1]
        with torch.no_grad():
            # On the CPU in double precision, so that a seed gives the same words on every device.
            logits = model.softmax(top[None])[0].double().cpu()
        logits[never] = -torch.inf
        number = _draw(logits, temperature, top_k, generator)
        if number == tokenizer.eos_token_id:
            return
        word = str(tokenizer.convert_ids_to_tokens(number))
        yield word
        unread = [word]


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> int:
    """Draws a word's id from logits ``(vocab_size,)``."""
    if temperature == 0:
        return int(logits.argmax())
    best, index = logits.topk(min(top_k or len(logits), len(logits)))
    # The best one first becomes 0, so that no temperature is too low.
    weights = ((best - best[0]) / temperature).exp()
    return int(index[torch.multinomial(weights, 1, generator=generator)])
