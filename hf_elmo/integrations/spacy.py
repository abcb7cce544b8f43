"""spaCy: the pipeline component `elmo`, which gives documents, spans and tokens ELMo's vectors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span, Token
from spacy.util import minibatch

if TYPE_CHECKING:
    from ..vectors.embedder import Embedder

_MODEL = "model"


class ElmoComponent:
    """Fills `doc.tensor`, float32, ``(tokens, dim)``; from it come `vector` and `similarity` of tokens, spans and docs.

    Sentences are read on their own where something before has found them (`sentencizer`, `senter`, `parser`); else a
    document is one. Tokens of white space are not read, and have zeros.

    `nlp.to_disk` copies the model too, and `spacy.load` takes that copy. spaCy takes hooks off the documents that come
    from other processes (`n_process`) or from bytes, and leaves their tensors: `add_vectors` puts them on again.

    Args:
        name: The component's name.
        model: A model folder, or the name of a bundled model; None: the bundled one.
        layers: `"mix"`, `"top"` or `"average"`.
        batch_words: Most words in a batch.
        device: A device of torch's; None: a GPU if there is one.

    Examples:
        >>> import spacy
        >>> import hf_elmo.integrations.spacy
        >>> nlp = spacy.blank("en")
        >>> _ = nlp.add_pipe("elmo")
        >>> doc = nlp("I read it yesterday, and I read it again.")
        >>> doc[1].vector.shape, doc[1].similarity(doc[7]) < 0.99  # the two "read"
        ((384,), True)
    """

    def __init__(
        self,
        name: str = "elmo",
        model: str | None = None,
        layers: str = "mix",
        batch_words: int = 2048,
        device: str | None = None,
    ):
        if layers == "all":
            raise ValueError("A token has one vector in spaCy: take the layers mix, top or average.")
        self.name = name
        self._options: dict[str, Any] = {
            "model": model, "layers": layers, "batch_words": batch_words, "device": device,
        }  # fmt: skip
        self._embedder: Embedder | None = None
        self._process = os.getpid()

    def _made(self) -> Embedder:
        """The embedder, which is made when it is needed: a model may come from the disk after the component is made."""
        from ..vectors.embedder import Embedder

        if self._embedder is None:
            self._embedder = Embedder(**self._options)
        if os.getpid() != self._process:
            import torch

            # A forked process does not have the threads that its parent has made.
            torch.set_num_threads(1)
            self._process = os.getpid()
        return self._embedder

    def __call__(self, doc: Doc) -> Doc:
        """Gives a document its vectors."""
        (done,) = self._embed([doc])
        return done

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Gives documents their vectors, `batch_size` of them at a time."""
        for docs in minibatch(stream, size=batch_size):
            yield from self._embed(docs)

    def _embed(self, docs: list[Doc]) -> list[Doc]:
        embedder = self._made()
        sentences = [
            [token for token in sentence if not token.is_space] for doc in docs for sentence in _sentences_of(doc)
        ]
        tensors = {id(doc): np.zeros((len(doc), embedder.dim), np.float32) for doc in docs}
        embedded = embedder.embed([[token.text for token in sentence] for sentence in sentences])
        for sentence, row in zip(sentences, embedded, strict=True):
            if sentence:
                assert row.vectors is not None, "they are not pooled"
                tensors[id(sentence[0].doc)][[token.i for token in sentence]] = row.vectors
        for doc in docs:
            doc.tensor = tensors[id(doc)]
            add_vectors(doc)
        return docs

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Copies the model into a folder."""
        shutil.copytree(self._made().folder, Path(path) / _MODEL, dirs_exist_ok=True)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> ElmoComponent:
        """Takes the model of a folder that `to_disk` has written."""
        self._options["model"], self._embedder = str(Path(path) / _MODEL), None
        return self


def _sentences_of(doc: Doc) -> list[Span]:
    return list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]]


def add_vectors(doc: Doc) -> Doc:
    """Makes a document, its spans and its tokens use `doc.tensor`, which the component has filled.

    Args:
        doc: From `nlp.pipe(..., n_process=2)`, or from bytes; documents of one process have it already.

    Returns:
        The same document.

    Raises:
        ValueError: if it has no tensor of its tokens.
    """
    if len(doc.tensor) != len(doc):
        raise ValueError(f"The document has {len(doc)} tokens, but a tensor of {len(doc.tensor)}: run `elmo` on it.")
    for hooks, vector in (
        (doc.user_hooks, _doc_vector), (doc.user_span_hooks, _span_vector), (doc.user_token_hooks, _token_vector),
    ):  # fmt: skip
        hooks["vector"], hooks["vector_norm"], hooks["has_vector"] = vector, _norm, _has_vector
        # spaCy's own is 1 for two tokens of the same word, whatever their vectors.
        hooks["similarity"] = _similarity
    return doc


def _doc_vector(doc: Doc) -> np.ndarray:
    return _mean(doc.tensor)


def _span_vector(span: Span) -> np.ndarray:
    return _mean(span.doc.tensor[span.start : span.end])


def _token_vector(token: Token) -> np.ndarray:
    return token.doc.tensor[token.i]


def _mean(rows: np.ndarray) -> np.ndarray:
    """Of the rows that are not white space's."""
    rows = rows[rows.any(axis=1)]
    return rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1], np.float32)


def _norm(item: Doc | Span | Token) -> float:
    return float(np.linalg.norm(item.vector))


def _has_vector(item: Doc | Span | Token) -> bool:
    return bool(item.vector.any())


def _similarity(item: Doc | Span | Token, other: Any) -> float:
    """The cosine; 0 where one of the two has no vector."""
    norms = np.linalg.norm(item.vector) * np.linalg.norm(other.vector)
    return float(item.vector @ other.vector / norms) if norms else 0.0


@Language.factory(
    "elmo",
    assigns=["doc.tensor"],
    default_config={"model": None, "layers": "mix", "batch_words": 2048, "device": None},
)
def make_elmo(
    nlp: Language, name: str, model: str | None, layers: str, batch_words: int, device: str | None
) -> ElmoComponent:
    """The factory `elmo`: `nlp.add_pipe("elmo", config={"layers": "top"})`."""
    return ElmoComponent(name, model, layers, batch_words, device)
