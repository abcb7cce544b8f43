"""`hf-elmo embed-vocabulary`: the context-free vectors of a vocabulary, for programs that look words up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import note, silence_libraries


def embed_vocabulary(
    output: Annotated[Path, typer.Argument(help="A new file: .hdf5 for bilm-tf, .txt or .txt.gz for GloVe's format.")],
    vocabulary: Annotated[
        Path | None, typer.Option(help="The words, one per line (.gz too). [default: the model's vocabulary]")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
) -> None:
    """Write the context-free vector of each word: bilm-tf's token embeddings, or text as AllenNLP's and GloVe's.

    The vocabulary whose lines the vectors belong to, special words first, is written beside them, as
    NAME.vocabulary.txt. These are the vectors that the LSTMs read: what depends on context is not in them.
    """
    from ..conversion.files import InputFile
    from ..conversion.token_embeddings import write_token_embeddings
    from ..conversion.vocabulary import distinct_words, read_vocabulary_lines
    from ..hub.folders import load
    from ..model.tokenization_elmo import SPECIAL_WORDS

    words = None
    if vocabulary is not None:
        file = InputFile.at(vocabulary)
        words = distinct_words(read_vocabulary_lines(file), file)
        if not words:
            raise ValueError(f"{vocabulary} has no words: expected one on each line.")
    silence_libraries()
    elmo, tokenizer = load(model, device)
    if words is None:
        numbers = tokenizer.get_vocab()
        words = [word for word in sorted(numbers, key=numbers.__getitem__) if word not in SPECIAL_WORDS]
        if not words:
            raise ValueError("The model has no vocabulary of words: give one (--vocabulary).")
    written = write_token_embeddings(elmo, tokenizer, words, output, overwrite=force)
    note(f"{output}: {len(words) + 3:,} vectors of {elmo.config.projection_dim} numbers; their words: {written}")
