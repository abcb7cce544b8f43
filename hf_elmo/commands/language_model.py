"""`hf-elmo perplexity`, `substitutes` and `generate`: what a language model makes of text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..vectors.text_files import MAX_LINE_BYTES
from .console import print_table, printable, say, silence_libraries
from .quick_start import reading
from .sentences import MaxLineBytes

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoForPreTraining
    from ..model.tokenization_elmo import ElmoTokenizer

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def perplexity(
    files: Annotated[
        list[Path] | None, typer.Argument(help="UTF-8 text, plain, .gz or .zst; - is stdin.", show_default="stdin")
    ] = None,
    keep_lines: Annotated[bool, typer.Option("--keep-lines", help="A line is a sentence: do not split lines.")] = False,
    pretokenized: Annotated[
        bool,
        typer.Option(
            "--pretokenized", help="Lines are sentences, words stand between white space: take them as they are."
        ),
    ] = False,
    carry_state: Annotated[
        bool, typer.Option("--carry-state", help="Read a file as one running text, from sentence to sentence (slow).")
    ] = False,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    model: Model = None,
    batch_words: Annotated[int, typer.Option(min=1, help="Words per batch: more need more memory.")] = 2048,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score text with a language model.

    Prints the perplexity of each direction and their geometric mean: full softmax, exact over all words of a file,
    every sentence on its own unless the state is carried. Words outside of the vocabulary are predicted as [UNK].
    """
    from .progress import Progress
    from .sentences import sentences_of

    if not files:
        _refuse_terminal("FILES", "nothing to score: give files, or text on stdin.")
    language_model, tokenizer = _load(model, device)
    from ..language_model.scoring import perplexity as score
    from ..vectors.text_files import open_text

    results = []
    for file in files or [Path("-")]:
        with open_text(file) as source, Progress(source, None) as bar:
            name, lines = source.name, source.lines(bar.read, max_line_bytes)
            sentences = sentences_of(lines, pretokenized, split_sentences=not keep_lines and not pretokenized)
            try:
                result = score(language_model, tokenizer, sentences, carry_state=carry_state, batch_words=batch_words)
            except ValueError as error:
                # What is wrong with a line is said with the file's name already.
                raise ValueError(str(error) if name in str(error) else f"{name}: {error}") from None
        results.append(
            {
                "text": name,
                "sentences": result.sentences,
                "words": result.words,
                "unknown": result.unknown,
                "forward": result.forward,
                "backward": result.backward,
                "mean": result.mean,
            }
        )
    if as_json:
        say(json.dumps(results, indent=2))
        return
    print_table(list(results[0]), [list(result.values()) for result in results], "Perplexity")


def substitutes(
    text: Annotated[
        list[str] | None, typer.Argument(help="Texts with [MASK]. Without any, lines of --file or stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="UTF-8 text, one text per line, plain, .gz or .zst; - is stdin.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Words for each place.")] = 10,
    all_words: Annotated[
        bool, typer.Option("--all-words", help="Find substitutes for every word, instead of [MASK].")
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="Show this word of the vocabulary only; may be given several times.")
    ] = None,
    no_prior: Annotated[
        bool, typer.Option("--no-prior", help="Do not divide by how frequent words are in general.")
    ] = False,
    pretokenized: Annotated[
        bool, typer.Option("--pretokenized", help="Words stand between white space: take them as they are.")
    ] = False,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    model: Model = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find the words that fit where [MASK] stands, by what both directions of the language model expect.

    The score is the product of the forward and the backward probability, divided by the word's probability without
    context (Zipf's law over the vocabulary), of all words of the vocabulary together 1. Quote the text: brackets and
    spaces mean something to the shell.
    """
    texts = [line for line in _lines(text, file, max_line_bytes) if line and not line.isspace()]
    if not texts:
        raise ValueError("There is no text: nothing to find substitutes in.")
    language_model, tokenizer = _load(model, device)
    from ..language_model.substitution import MASK, mask_words
    from ..language_model.substitution import substitutes as find
    from .sentences import sentences_of

    sentences = list(sentences_of(texts, pretokenized))
    masked = [mask_words(tokenizer, each, "all" if all_words else None, pretokenized) for each in sentences]
    places = []
    for number, (sentence, each) in enumerate(zip(sentences, masked, strict=True)):
        found = find(
            language_model,
            tokenizer,
            sentence,
            top_k,
            word_index=each.places,
            targets=target or None,
            prior=None if no_prior else "rank",
            is_split_into_words=pretokenized,
        )
        for place, words in zip(each.places, found, strict=True):
            places.append({"text": number, "place": place, "word": each.words[place] or MASK, "substitutes": words})
    if as_json:
        say(json.dumps(places, indent=2))
        return
    print_table(
        ("text", "place", "word", "substitute", "score", "forward", "backward"),
        [
            (
                each["text"],
                each["place"],
                printable(each["word"], 30),
                printable(found["token_str"], 30),
                *(found[name] for name in ("score", "forward_score", "backward_score")),
            )
            for each in places
            for found in each["substitutes"]
        ],
        "Words that fit, with their probabilities",
    )


def generate(
    text: Annotated[
        list[str] | None, typer.Argument(help="Beginnings of sentences. Without any, lines of --file or stdin.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="UTF-8 text, one beginning per line, plain, .gz or .zst; - is stdin."),
    ] = None,
    max_words: Annotated[int, typer.Option(min=1, help="Words at most.")] = 20,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Below 1 likely words become likelier; 0 takes the likeliest.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw among this many likeliest words. [default: all]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same words every time. [default: random]")] = None,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    model: Model = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Go on with sentences, word by word, by the forward direction of the language model.

    An empty text ("") is a beginning, too. Words are printed between spaces, as the tokenizer splits them.
    """
    beginnings = list(_lines(text, file, max_line_bytes))
    if not beginnings:
        raise ValueError("There is no text to go on with.")
    language_model, tokenizer = _load(model, device)
    import torch

    from ..language_model.generation import generate as draw

    generator = None if seed is None else torch.Generator().manual_seed(seed)
    rows = []
    for beginning in beginnings:
        words = list(
            draw(
                language_model,
                tokenizer,
                beginning,
                max_words,
                temperature=temperature,
                top_k=top_k,
                generator=generator,
            )
        )
        rows.append({"text": beginning, "words": words})
        if not as_json:
            say(printable(" ".join([*tokenizer.tokenize(beginning), *words]), longest=sys.maxsize))
    if as_json:
        say(json.dumps(rows, indent=2))


def _load(model: str | None, device: str | None) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    from ..hub.folders import load_language_model

    silence_libraries()
    with reading():
        return load_language_model(model, device)


def _lines(text: list[str] | None, file: Path | None, max_line_bytes: int) -> Iterator[str]:
    """Lines of arguments, a file or standard input."""
    from ..vectors.text_files import open_text
    from .sentences import lines_of_arguments

    if text and file is not None:
        raise typer.BadParameter("give texts or --file, not both.", param_hint="TEXT")
    if text:
        yield from lines_of_arguments(text)
        return
    if file is None:
        _refuse_terminal("TEXT", "nothing to read: give texts, --file, or lines on stdin.")
    with open_text(file) as source:
        yield from source.lines(max_line_bytes=max_line_bytes)


def _refuse_terminal(argument: str, message: str) -> None:
    """Raises BadParameter where a user at a terminal would wait for what never comes."""
    if sys.stdin is not None and sys.stdin.isatty():
        raise typer.BadParameter(message, param_hint=argument)
