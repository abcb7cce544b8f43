"""The interface of simple_elmo (https://github.com/ltgoslo/simple_elmo), of its version 0.9.2, over our model.

Arguments, shapes and keys are the same, without TensorFlow. Three faults of the original are not reproduced, so these
numbers differ from its own:

- `get_elmo_vector_average` counted padding up to the longest sentence of the batch, where the context-free layer is not
  zero, so that a sentence's vector depended on its neighbours. Here it is the mean of the sentence's own words.
- Its `layers="all"` took the array for one of another order of dimensions, and so mixed layers and words up. Here every
  layer is averaged by itself.
- `get_elmo_substitutes` fed the LSTM's first state in at every word, so that each direction knew one word only. Here it
  knows the whole sentence.

It also kept the LSTM state from batch to batch, and read the first batch twice (`warmup`). Here each sentence begins
afresh; `ElmoModel(stateful=True)` does as the original did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..conversion import ConversionError
from ..language_model.scoring import encode, rows_at_once
from ..model.modeling_elmo import ElmoForPreTraining
from ..model.tokenization_elmo import UNK, ElmoTokenizer
from ..vectors.batching import evaluating
from .allennlp import ElmoEmbedder
from .elmo_file import FORMATS
from .loading import load_model


class ElmoModel:
    """An ELMo that is loaded with `load`, and then turns sentences into vectors.

    Args:
        stateful: Carry the LSTM state from batch to batch, within a call, as the original.

    Attributes:
        batch_size: Sentences read at a time.
        max_chars: Length of a word's row of characters.
        vector_size: Size of a vector, `2 * projection_dim`.
        n_layers: Layers, the context-free one included.
    """

    def __init__(self, *, stateful: bool = False):
        self.stateful = stateful
        # None until a model is loaded, as in the original.
        self.batch_size: int | None = None
        self.max_chars: int | None = None
        self.vector_size: int | None = None
        self.n_layers: int | None = None
        self._embedder: ElmoEmbedder | None = None
        self._language_model: ElmoForPreTraining | None = None
        self._tokenizer: ElmoTokenizer | None = None

    def load(self, directory: str | Path, max_batch_size: int = 32, limit: int = 100, full: bool = False) -> str:
        """Loads a model.

        Args:
            directory: A folder or zip archive (the NLPL repository's) with `options.json` and weights; a file of
                weights with the options beside it; or a model folder of ours.
            max_batch_size: Sentences read at a time.
            limit: Not used: it bounded a cache.
            full: Load the language model, for `get_elmo_substitutes`. That takes a model folder with a softmax: of
                `hf-elmo train`, or converted from a training checkpoint.

        Returns:
            A sentence saying that it is loaded.

        Raises:
            ConversionError: (a ValueError) if there is no such model; for `full` also if it has no softmax.
        """
        directory = Path(directory)
        if full:
            self._load_language_model(directory)
        # The original prefers this name where there are several files.
        weights = directory / "model.hdf5"
        model = load_model(weights if weights.is_file() else directory)
        self._embedder = ElmoEmbedder(None, model, 0 if torch.cuda.is_available() else -1, stateful=self.stateful)
        self.batch_size = max_batch_size
        self.max_chars = model.config.max_characters_per_token
        self.vector_size = model.config.hidden_size
        self.n_layers = model.config.num_layers + 1
        return "The model is now loaded."

    def _load_language_model(self, directory: Path) -> None:
        if not (directory / "config.json").is_file():
            raise ConversionError(
                f"{directory} is not a model folder, which full=True needs: convert the training checkpoint first "
                f"(hf-elmo convert {directory} NEW_FOLDER) and load the new folder. (Weights in HDF5 have no softmax.)"
            )
        model, report = ElmoForPreTraining.from_pretrained(
            str(directory), output_loading_info=True, local_files_only=True, use_safetensors=True
        )
        if report["missing_keys"]:
            raise ConversionError(
                f"{directory} has no language model: {', '.join(sorted(report['missing_keys']))} is missing, without "
                "which there are no substitutes. Load it with full=False for vectors."
            )
        self._language_model = model.eval()
        self._tokenizer = ElmoTokenizer.from_pretrained(str(directory), local_files_only=True)

    def get_elmo_vectors(
        self, texts: Sequence[Sequence[str]], warmup: bool = True, layers: str = "average", session: None = None
    ) -> np.ndarray:
        """The vectors of words.

        Args:
            texts: Sentences, each a list of words.
            warmup: With `stateful=True`, read the first batch twice; without effect otherwise.
            layers: The `"average"` of all layers, the `"top"` one, or `"all"`.
            session: None. There are no sessions of TensorFlow here.

        Returns:
            ``(sentences, longest sentence, dim)``, or ``(sentences, layers, longest sentence, dim)`` for all layers,
            float32; zeros behind each sentence.

        Raises:
            ValueError: for other layers, a session, one text in the place of sentences, and before `load`.
        """
        vectors = list(self._vectors(texts, warmup, layers, session))
        longest = max((each.shape[-2] for each in vectors), default=0)
        leading = (self.n_layers,) if layers == "all" else ()
        padded = np.zeros((len(vectors), *leading, longest, self.vector_size), dtype=np.float32)
        for row, each in zip(padded, vectors, strict=True):
            row[..., : each.shape[-2], :] = each
        return padded

    def get_elmo_vector_average(
        self, texts: Sequence[Sequence[str]], warmup: bool = True, layers: str = "average", session: None = None
    ) -> np.ndarray:
        """The mean vector of each sentence, of length 1; arguments as of `get_elmo_vectors`.

        Returns:
            ``(sentences, dim)``, or ``(sentences, layers, dim)`` for all layers (which are then of length 1 together,
            as in the original), float32. Zeros for a sentence without words.
        """
        leading = (self.n_layers,) if layers == "all" else ()
        means = [np.zeros((0, *leading, self.vector_size or 0), dtype=np.float32)]
        for vectors in self._vectors(texts, warmup, layers, session):
            # Of length 1, the sum is the mean.
            total = vectors.sum(axis=-2)
            means.append((total / (np.linalg.norm(total) or 1.0))[np.newaxis])
        return np.concatenate(means)

    def _vectors(
        self, texts: Sequence[Sequence[str]], warmup: bool, layers: str, session: None
    ) -> Iterator[np.ndarray]:
        if self._embedder is None or self.batch_size is None:
            raise ValueError("No model is loaded: call load first.")
        if layers not in FORMATS:
            raise ValueError(f"layers must be one of {', '.join(FORMATS)}, was: {layers!r}.")
        if session is not None:
            raise ValueError("There are no sessions of TensorFlow here: leave session out.")
        if any(isinstance(sentence, str) for sentence in [texts, *texts]):
            raise ValueError("texts must be sentences, each a list of words; some are text: split them first.")
        texts = list(texts)
        # The original made a new session for each call, whose state is zero.
        self._embedder.elmo_bilm._elmo_lstm.reset_states()
        if warmup and self.stateful and texts:
            self._embedder.embed_batch(texts[: self.batch_size])
        return map(FORMATS[layers], self._embedder.embed_sentences(texts, self.batch_size))

    def get_elmo_substitutes(
        self, data: Sequence[str], topn: int = 3, nodelimiters: bool = True
    ) -> list[list[dict[str, object]]]:
        """The words that each direction of the language model expects in the place of each word.

        Args:
            data: Sentences as text, whose words stand between white space.
            topn: Number of words.
            nodelimiters: Leave `<S>` and `</S>` out.

        Returns:
            For each sentence, for each word: `{"word": ..., "forward": ..., "backward": ...}`, where `word` is the one
            that stands there, and each direction `{"candidates": [ids in the tokenizer's vocabulary],
            "candidate_words": [...], "logp": [...]}`, the likeliest first. As in the original, `logp` are the scores
            before the softmax, with four decimals.

        Raises:
            ValueError: unless a language model is loaded (`full=True`), for one text in the place of sentences, and for
                a `topn` below 1.
        """
        if self._language_model is None or self._tokenizer is None or self.batch_size is None:
            raise ValueError("No language model is loaded: call load(..., full=True) first.")
        if isinstance(data, str):
            raise ValueError("data must be a list of sentences, was one text.")
        if topn < 1:
            raise ValueError(f"topn must be at least 1, was: {topn}.")
        sentences = [sentence.split() for sentence in data]
        size, model, tokenizer = self.batch_size, self._language_model, self._tokenizer
        batches = (sentences[start : start + size] for start in range(0, len(sentences), size))
        return [found for batch in batches for found in _expected(model, tokenizer, batch, topn, nodelimiters)]


@torch.no_grad()
def _expected(
    model: ElmoForPreTraining, tokenizer: ElmoTokenizer, sentences: list[list[str]], topn: int, nodelimiters: bool
) -> Iterator[list[dict[str, object]]]:
    never = [tokenizer.pad_token_id]
    if nodelimiters:
        never += [tokenizer.bos_token_id, tokenizer.eos_token_id]
    _, characters, mask = encode(model, tokenizer, sentences)
    with evaluating(model):
        top = model.elmo.read(characters, mask)[0][-1]
    for row, first, words in zip(top, mask.long().argmax(dim=1).tolist(), sentences, strict=True):
        directions = []
        # Behind <S> and each word but the last one, and before each word but the first one and </S>.
        for half, start in zip(row.chunk(2, dim=-1), (first, first + 2), strict=True):
            found = []
            for part in half[start : start + len(words)].split(rows_at_once(model.config.vocab_size)):
                scores = model.softmax(part).float()
                scores[:, never] = -torch.inf
                best, ids = scores.topk(min(topn, scores.shape[-1] - len(never)), dim=-1)
                found += [_candidates(tokenizer, *each) for each in zip(ids.tolist(), best.tolist(), strict=True)]
            directions.append(found)
        yield [
            {"word": word, "forward": forward, "backward": backward}
            for word, forward, backward in zip(words, *directions, strict=True)
        ]


def _candidates(tokenizer: ElmoTokenizer, ids: list[int], scores: list[float]) -> dict[str, object]:
    words = tokenizer.convert_ids_to_tokens(ids)
    return {
        "candidates": ids,
        "candidate_words": ["<UNK>" if word == UNK else word for word in words],
        "logp": [round(score, 4) for score in scores],
    }
