"""`hf-elmo neighbours`: the nearest words of the vocabulary, by spelling and by use, side by side."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, print_table, printable, silence_libraries

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer


def neighbours(
    word: Annotated[str, typer.Argument(help="A word.", show_default=False)],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many words of each list.")] = 10,
    most_words: Annotated[
        int,
        typer.Option("--most-words", min=1, help="Look at this many words, the most frequent of the vocabulary."),
    ] = 20_000,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")] = None,
) -> None:
    """Show the nearest words of the vocabulary.

    By spelling: by the context-free layer, which reads the word's characters; any word has a vector there. By use: by
    the rows of the softmax, which are alike for words that are expected in the same places; only words of the
    vocabulary have one. Numbers are cosines.
    """
    from ..explore.nearest_words import NearestWords

    if len(word.split()) != 1:
        raise typer.BadParameter(f"give one word, without white space, not {printable(word)!r}.", param_hint="WORD")
    silence_libraries()
    nearest = NearestWords(*_load(model, device), most_words=most_words)
    if not nearest.words:
        raise ValueError("The model has no vocabulary to look in: give a folder of a language model with --model.")
    spelling, use = nearest.by_spelling(word, count), nearest.by_use(word, count)
    cells = [
        [rank, *_cells(by_spelling), *_cells(by_use)]
        for rank, (by_spelling, by_use) in enumerate(zip_longest(spelling, use or []), start=1)
    ]
    columns = ["rank", "by spelling", "cosine", "by use", "cosine"]
    if use is None:
        columns, cells = columns[:3], [row[:3] for row in cells]
        note(
            f"{printable(word)} is not a word of the vocabulary, so there are no neighbours by use"
            if nearest.has_uses
            else "the model predicts no words, so there are no neighbours by use: give a language model with --model"
        )
    print_table(columns, cells, title=f"Nearest of {len(nearest.words):,} words to {printable(word, 30)}")


def _cells(near: tuple[str, float] | None) -> list[object]:
    return ["", ""] if near is None else [printable(near[0], 30), near[1]]


def _load(model: str | None, device: str | None) -> tuple[ElmoPreTrainedModel, ElmoTokenizer]:
    from ..hub.folders import load, load_language_model

    try:
        return load_language_model(model, device)
    except ValueError:
        # Vectors without a softmax have neighbours by spelling; what else may be wrong is said now.
        return load(model, device)
