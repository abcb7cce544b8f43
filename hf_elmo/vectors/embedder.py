"""Rows of text to vectors, with every option that decides about them: the one class behind all bulk embedding."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..hub.folders import find_folder, load
from .embedding import LAYERS, EmbeddedSentence, embed_sentences

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoModel
    from ..model.tokenization_elmo import ElmoTokenizer

POOLINGS = ("mean", "max")
DTYPES = ("float32", "float16")

_FILES_THAT_DECIDE = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)
_HASHED_AT_ONCE = 2**20


class EmbeddedRow(NamedTuple):
    """A row and its vectors.

    Attributes:
        words: Its words, one for each row of `vectors` where these are not pooled.
        vectors: ``(words, dim)``, or ``(layers, words, dim)`` for all layers; pooled ``(dim,)`` or ``(layers, dim)``,
            and None if there is nothing to pool.
        truncated_words: Those of the words that were too long for the model, which read only their first bytes.
    """

    words: list[str]
    vectors: np.ndarray | None
    truncated_words: list[str]


class Embedder:
    """Turns rows of text into vectors of words, or of the rows.

    It is made without loading the model, so it costs nothing to send it to another process, which pickles the options
    alone: the model is loaded when it is first needed, once in each process.

    Args:
        model: A model folder, or the name of a bundled model; None: the bundled one.
        layers: `"mix"`, `"top"`, `"all"`, `"average"` or `"sum"`, as for `embed_sentences`.
        pooling: None: a vector for each word. `"mean"` or `"max"`: one for a row, over its words.
        keep_boundaries: `<S>` and `</S>` count as words, first and last of each sentence.
        dtype: Of the vectors, `"float32"` or `"float16"`.
        pretokenized: Words of a text are what stands between white space; otherwise the tokenizer splits it.
        split_sentences: A text may have several sentences, each of which the model reads on its own; the row has the
            words of all of them.
        batch_words: Most words in a batch, padding included: more need more memory.
        device: A device of torch's; None: a GPU if there is one (under `torchrun` that of the process), else the CPU.
        threads: Threads that torch may use in this process, from when the model is loaded; None: as many as it does.

    Raises:
        ValueError: for a model that is not there, and for options that are none.

    Examples:
        >>> from hf_elmo import Embedder
        >>> embedder = Embedder(pooling="mean", dtype="float16")
        >>> for row in embedder.embed(["I read the book yesterday.", ["Two", "words"]]):
        ...     print(row.words, row.vectors.shape, row.vectors.dtype)
        ['I', 'read', 'the', 'book', 'yesterday', '.'] (384,) float16
        ['Two', 'words'] (384,) float16
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        layers: str = "mix",
        pooling: str | None = None,
        keep_boundaries: bool = False,
        dtype: str = "float32",
        pretokenized: bool = False,
        split_sentences: bool = False,
        batch_words: int = 2048,
        device: str | None = None,
        threads: int | None = None,
    ):
        for name, value, known in (
            ("layers", layers, LAYERS),
            ("pooling", pooling, (None, *POOLINGS)),
            ("dtype", dtype, DTYPES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, was: {value!r}.")
        for name, number in (("batch_words", batch_words), ("threads", 1 if threads is None else threads)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, was: {number}.")
        if pretokenized and split_sentences:
            raise ValueError("pretokenized texts are sentences already (split_sentences=False).")
        self.folder = find_folder(None if model is None else os.fspath(model))
        self.layers, self.pooling, self.keep_boundaries, self.dtype = layers, pooling, keep_boundaries, dtype
        self.pretokenized, self.split_sentences, self.batch_words = pretokenized, split_sentences, batch_words
        self.device, self.threads = device, threads
        self._loaded: tuple[ElmoModel, ElmoTokenizer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def load(self) -> tuple[ElmoModel, ElmoTokenizer]:
        """The model, in evaluation mode, and its tokenizer; loaded at the first call.

        Raises:
            ValueError: for a folder that is not complete and sound, and for a device that is not there.
        """
        if self._loaded is None:
            import torch

            if self.threads is not None:
                torch.set_num_threads(self.threads)
            self._loaded = load(str(self.folder), self.device_name())
        return self._loaded

    def device_name(self) -> str:
        """The device that the model is on, or will be."""
        import torch

        if self.device is not None or not torch.cuda.is_available():
            return self.device or "cpu"
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return self._config().hidden_size

    @property
    def num_layers(self) -> int | None:
        """Number of layers of each vector where all are wanted; else None."""
        return self._config().num_layers + 1 if self.layers == "all" else None

    def _config(self) -> Any:
        from ..model.configuration_elmo import ElmoConfig

        return ElmoConfig.from_pretrained(self.folder, local_files_only=True)

    def options(self) -> dict[str, Any]:
        """The options that decide about the vectors, by name."""
        names = ("layers", "pooling", "keep_boundaries", "dtype", "pretokenized", "split_sentences", "batch_words")
        return {name: getattr(self, name) for name in names}

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each file of the model folder that decides about the vectors."""
        files = {path for pattern in _FILES_THAT_DECIDE for path in self.folder.glob(pattern)}
        return {path.name: sha256(path) for path in sorted(files)}

    def embed(self, rows: Iterable[str | Sequence[str]]) -> Iterator[EmbeddedRow]:
        """Embeds rows, in their order, in memory that does not grow with their number.

        Args:
            rows: Each a text or a list of words, which stay as they are.

        Raises:
            ValueError: for a row that is neither, for vectors that are not finite, or that float16 cannot hold.
        """
        if isinstance(rows, str):
            raise ValueError("rows is one text: give a list of texts, or a list of lists of words.")
        model, tokenizer = self.load()
        counts: deque[int] = deque()

        def sentences() -> Iterator[str | Sequence[str]]:
            for row in rows:
                parts = self._sentences(row)
                counts.append(len(parts))
                yield from parts

        embedded = embed_sentences(model, tokenizer, sentences(), self.layers, self.keep_boundaries, self.batch_words)
        for first in embedded:
            yield self._join([first, *islice(embedded, counts.popleft() - 1)])

    def _sentences(self, row: str | Sequence[str]) -> list[str | Sequence[str]]:
        if isinstance(row, str) and self.pretokenized:
            return [row.split()]
        if isinstance(row, str) and self.split_sentences:
            from nupunkt import sent_tokenize

            return list(map(str, sent_tokenize(row))) or [""]
        return [row]

    def _join(self, parts: list[EmbeddedSentence]) -> EmbeddedRow:
        words = [word for part in parts for word in part.words]
        truncated = [word for part in parts for word in part.truncated_words]
        vectors = parts[0].vectors if len(parts) == 1 else np.concatenate([part.vectors for part in parts], axis=-2)
        if self.pooling is not None:
            if not words:
                return EmbeddedRow(words, None, truncated)
            vectors = vectors.mean(axis=-2) if self.pooling == "mean" else vectors.max(axis=-2)
        return EmbeddedRow(words, self._narrow(vectors), truncated)

    def _narrow(self, vectors: np.ndarray) -> np.ndarray:
        if self.dtype == "float32":
            return vectors
        with np.errstate(over="ignore"):
            narrow = vectors.astype(np.float16)
        if not np.isfinite(narrow).all():
            raise ValueError(
                f"A vector has the value {float(np.abs(vectors).max()):g}, but float16 ends at 65,504: store float32."
            )
        return narrow


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_HASHED_AT_ONCE):
            result.update(part)
    return result.hexdigest()
