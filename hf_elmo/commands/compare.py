"""`hf-elmo compare`: one word in two sentences."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import note, print_table, printable, silence_libraries
from .quick_start import reading


def compare(
    first: Annotated[str, typer.Argument(help="A sentence.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another sentence.", show_default=False)],
    word: Annotated[
        str | None, typer.Option("--word", "-w", help="The word to compare. [default: all words of both]")
    ] = None,
    pretokenized: Annotated[
        bool, typer.Option("--pretokenized", help="Words stand between white space: take them as they are.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")] = None,
) -> None:
    """Show how a word's vector moves with its sentence.

    Prints the cosine of the word's vectors in the two sentences, in each layer: layer 0 knows the word alone, so it is
    1 there; the higher layers know the sentence. Other words of both sentences follow for contrast.
    """
    from ..explore.word_comparison import compare_words
    from ..hub.folders import load
    from .sentences import lines_of_arguments, sentences_of

    texts = list(lines_of_arguments([first, second]))
    if len(texts) != 2:
        raise typer.BadParameter("a sentence is one line.", param_hint="FIRST SECOND")
    silence_libraries()
    with reading():
        elmo, tokenizer = load(model, device)
    one, other = sentences_of(texts, pretokenized)
    comparisons = compare_words(elmo, tokenizer, one, other, word=word)
    if word is not None:
        others = [each for each in compare_words(elmo, tokenizer, one, other) if each.word != word]
        comparisons += others
    layers = [f"layer {number}" for number in range(elmo.config.num_layers + 1)]
    print_table(
        ["word", "place in 1", "place in 2", *layers, "mix"],
        [[printable(each.word, 30), *each.places, *each.layers, each.mix] for each in comparisons],
        title="Cosine of a word's vectors in the two sentences",
    )
    if word is not None and not others:
        note("the sentences share no other word")
