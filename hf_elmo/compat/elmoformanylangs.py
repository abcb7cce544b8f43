"""The interface of ELMoForManyLangs (https://github.com/HIT-SCIR/ELMoForManyLangs), 0.0.4.post2, over our model.

`Embedder` takes the same arguments and returns the same arrays. What differs, on purpose:

- The original carries the LSTM state of each row of a batch to the same row of the next batch, and puts the batches of
  a call into a random order, so that a sentence's vectors depend on what was read before, and on chance. Here each
  sentence begins afresh. `stateful=True` carries the state as the original does, from batch to batch and from call to
  call; the batches of a call then follow each other from long to short sentences, so its numbers are the original's
  wherever chance has no part in these: while no call has more than `batch_size` sentences.
- `model_dir` may also be the zip archive (of the NLPL repository), or a model folder of ours that was converted from
  one. Its pickles are read as data; nothing in them is run.
- No sentences give no arrays, where the original divides by zero. The words `<S>` and `</S>` are boundaries, like the
  original's `<bos>` and `<eos>`; there they are words of three and four characters.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..conversion.elmoformanylangs import is_elmoformanylangs, load_elmoformanylangs
from ..conversion.model_folder import load_model_folder
from ..language_model.scoring import encode
from ..model.lstm.lstm_layer import ElmoState
from ..model.tokenization_elmo import BOS, EOS, ElmoTokenizer
from ..vectors.batching import check_words

logger = logging.getLogger("elmoformanylangs")

_BOUNDARIES = {"<bos>": BOS, "<eos>": EOS}


class Embedder:
    """An ELMo that turns sentences into vectors.

    Args:
        model_dir: The folder of a model of ELMoForManyLangs, its zip archive, or a model folder of ours.
        batch_size: Sentences read at a time.
        stateful: Carry the LSTM state from batch to batch, as the original.

    Attributes:
        model: The `ElmoModel`, on a GPU if there is one.
        config: Its `ElmoConfig`.

    Raises:
        ConversionError: (a ValueError) for files that are no such model.
    """

    def __init__(self, model_dir: str | Path, batch_size: int = 64, *, stateful: bool = False):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, was: {batch_size}.")
        self.model_dir, self.batch_size, self.stateful = model_dir, batch_size, stateful
        if is_elmoformanylangs(model_dir):
            model, self.tokenizer = load_elmoformanylangs(model_dir)
        else:
            model, _ = load_model_folder(model_dir)
            self.tokenizer = ElmoTokenizer.from_pretrained(str(model_dir), local_files_only=True)
        self.use_cuda = torch.cuda.is_available()
        self.model = model.base_model.to("cuda" if self.use_cuda else "cpu").eval()
        self.config = self.model.config
        self.reset_states()

    def reset_states(self) -> None:
        """Forgets what was read before, where the state is carried."""
        self._state: ElmoState | None = None

    def sents2elmo(self, sents: Sequence[Sequence[str]], output_layer: int = -1) -> list[np.ndarray]:
        """The vectors of sentences.

        Args:
            sents: Sentences, each a list of words. Of a word the first `max_characters_per_token - 2` characters (48)
                are read.
            output_layer: 0 for the context-free layer, 1 and 2 for those of the LSTMs (up to `num_layers`); -1 for the
                mean of all layers, -2 for all of them.

        Returns:
            For each sentence ``(words, 2 * projection_dim)``, or for -2 ``(num_layers + 1, words, 2 *
            projection_dim)``; float32.

        Raises:
            ValueError: for another layer, and for sentences that are no lists of words.
        """
        if output_layer not in range(-2, self.config.num_layers + 1):
            raise ValueError(
                f"output_layer must be a layer from 0 to {self.config.num_layers}, -1 for the mean of all or -2 for "
                f"all, was: {output_layer!r}."
            )
        sentences = [_checked(number, sentence) for number, sentence in enumerate(sents)]
        vectors: list[np.ndarray] = [np.empty(0)] * len(sentences)
        order = sorted(range(len(sentences)), key=lambda number: -len(sentences[number]))
        for begin in range(0, len(order), self.batch_size):
            numbers = order[begin : begin + self.batch_size]
            for number, layers in zip(numbers, self._read([sentences[number] for number in numbers]), strict=True):
                if output_layer == -2:
                    # A copy, so that who keeps one sentence does not keep its batch.
                    vectors[number] = layers.copy()
                else:
                    vectors[number] = layers.mean(axis=0) if output_layer == -1 else layers[output_layer].copy()
            logger.info("Finished %d sentences.", begin + len(numbers))
        return vectors

    @torch.inference_mode()
    def _read(self, sentences: list[list[str]]) -> list[np.ndarray]:
        """All layers of each sentence of a batch, ``(layers, words, dim)``, boundaries left out."""
        _, characters, mask = encode(self.model, self.tokenizer, sentences)
        state = self._start(len(sentences)) if self.stateful else None
        layers, after = self.model.read(characters, mask, state=state, return_state=self.stateful)
        if self.stateful:
            self._carry(after)
        batch = torch.stack(layers, dim=1).cpu().numpy()
        return [rows[:, 1 : 1 + len(words)] for rows, words in zip(batch, sentences, strict=True)]

    def _start(self, batch: int) -> ElmoState | None:
        """The state of so many rows; rows that there were not before begin with zeros."""
        if self._state is None:
            return None
        missing = max(batch - self._state.hidden.shape[2], 0)
        return ElmoState(*(torch.nn.functional.pad(part, (0, 0, 0, missing))[:, :, :batch] for part in self._state))

    def _carry(self, after: ElmoState) -> None:
        """Keeps the state after a batch, and of the rows that it did not have the one before."""
        if self._state is not None:
            batch = after.hidden.shape[2]
            after = ElmoState(
                *(torch.cat([new, old[:, :, batch:]], dim=2) for new, old in zip(after, self._state, strict=True))
            )
        self._state = after


def _checked(number: int, sentence: Sequence[str]) -> list[str]:
    if isinstance(sentence, str):
        raise ValueError(
            f"Sentence {number} must be a list of words, was: {sentence!r:.60}. (For characters in the place of words: "
            "list(text).)"
        )
    return [_BOUNDARIES.get(word, word) for word in check_words(sentence, f"Sentence {number}")]
