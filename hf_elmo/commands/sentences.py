"""Sentences from the command line, and lines as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

MaxLineBytes = Annotated[
    int, typer.Option(min=1, help="Most bytes in a line of text: longer lines are an error, for they need much memory.")
]


def lines_of_arguments(texts: Iterable[str]) -> Iterator[str]:
    """The lines of texts that were typed.

    Raises:
        ValueError: for one whose bytes are not UTF-8.
    """
    for text in texts:
        # Python marks bytes of arguments that it could not decode as lone surrogates.
        if any("\udc80" <= letter <= "\udcff" for letter in text):
            raise ValueError(f"The text {text!a:.60} is not in UTF-8.")
        yield from text.split("\n")


def sentences_of(
    lines: Iterable[str], pretokenized: bool = False, split_sentences: bool = False
) -> Iterator[str | list[str]]:
    """Lines as sentences for `embed_sentences`.

    Args:
        lines: Each a sentence.
        pretokenized: Words are what stands between white space of any kind, as in bilm-tf and AllenNLP.
        split_sentences: A line may hold several sentences, or none.
    """
    for line in lines:
        if pretokenized:
            yield line.split()
        elif split_sentences:
            from nupunkt import sent_tokenize

            yield from map(str, sent_tokenize(line))
        else:
            yield line
