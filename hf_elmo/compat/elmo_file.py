"""The HDF5 file of AllenNLP's `elmo` command, with its choice of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..vectors.embedding import EmbeddedSentence
from ..vectors.files import new_vector_file
from ..vectors.writers import AllenNlpHdf5Writer, Hdf5Writer, VectorWriter

#: What of the layers ``(layers, words, dim)`` is written, by the name of the command's option.
FORMATS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda layers: layers,
    "top": lambda layers: layers[-1],
    "average": lambda layers: layers.mean(axis=0),
}


class LineIndexWriter(AllenNlpHdf5Writer):
    """As `AllenNlpHdf5Writer`, but `"sentence_to_index"` has the lines as they were read, spaces included."""

    def __init__(self, *args: Any, lines: Sequence[str], **kwargs: Any):
        self.lines = lines
        super().__init__(*args, **kwargs)

    def text_of(self, key: str, sentence: EmbeddedSentence) -> str:
        return self.lines[int(key)]


class LineKeyWriter(Hdf5Writer):
    """HDF5 datasets whose keys are the lines. A slash in a line makes groups, through which the line still leads."""

    def __init__(self, *args: Any, lines: Sequence[str], **kwargs: Any):
        self.lines = lines
        super().__init__(*args, **kwargs)

    def _add(self, key: str, sentence: EmbeddedSentence) -> None:
        line = self.lines[int(key)]
        problem = "HDF5 has no keys of that form"
        # A line of slashes and dots alone would name the file itself.
        if "\0" not in line and line.strip("/."):
            if line in self._output.file:
                problem = "it is there twice, or another one goes on behind it with a slash"
            else:
                try:
                    super()._add(line, sentence)
                    return
                except (ValueError, TypeError):
                    problem = "another line is its beginning, before a slash"
        raise ValueError(
            f"Line {key} cannot be a key: {problem} ({line!r:.80}). Let the lines' numbers be the keys "
            "(use_sentence_keys=False)."
        )


def write_elmo_file(
    path: str | Path,
    lines: Sequence[str],
    layers: Iterable[np.ndarray],
    output_format: str = "all",
    forget_sentences: bool = False,
    use_sentence_keys: bool = False,
) -> None:
    """Writes the file; one that is there is replaced when all is written.

    Args:
        path: The file.
        lines: Sentences, their words between white space.
        layers: The layers of each, ``(layers, words, dim)``, float32.
        output_format: A key of `FORMATS`.
        forget_sentences: As in `ElmoEmbedder.embed_file`.
        use_sentence_keys: Likewise.

    Raises:
        ValueError: for lines that cannot be keys.
        OSError: if the file cannot be written.
    """
    make_writer: type[VectorWriter] | partial = Hdf5Writer
    if use_sentence_keys:
        make_writer = partial(LineKeyWriter, lines=lines)
    elif not forget_sentences:
        make_writer = partial(LineIndexWriter, lines=lines)
    choose = FORMATS[output_format]
    layers = iter(layers)
    first = next(layers, None)
    if first is None:
        raise ValueError("There is no sentence to write vectors of.")
    num_layers = first.shape[0] if output_format == "all" else None
    with new_vector_file(path, make_writer, dim=first.shape[-1], num_layers=num_layers, overwrite=True) as writer:
        for number, vectors in enumerate(_chain(first, layers)):
            writer.write(EmbeddedSentence(lines[number].split(), choose(vectors), []))


def _chain(first: np.ndarray, rest: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    yield first
    yield from rest
