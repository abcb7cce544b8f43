"""`hf-elmo embed`: sentences to vectors, in a file or as a summary."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ..vectors.text_files import MAX_LINE_BYTES
from .console import counted, note, print_table, printable, silence_libraries
from .progress import Progress
from .quick_start import reading
from .sentences import MaxLineBytes

if TYPE_CHECKING:
    from ..vectors.embedding import EmbeddedSentence
    from ..vectors.word_files import NamedSentence

# What a summary shows of a sentence, and of a vector.
_MOST_WORDS = 100
_FIRST_NUMBERS = 4


class Layers(StrEnum):
    """Values of `hf_elmo.vectors.embedding.LAYERS`."""

    mix = "mix"
    top = "top"
    all = "all"
    average = "average"
    sum = "sum"


class InputFormat(StrEnum):
    """What a line is: a sentence, or what `hf_elmo.vectors.word_files.KINDS` say."""

    lines = "lines"
    tabs = "tabs"
    conllu = "conllu"
    conllu_characters = "conllu-characters"
    conllu_parts = "conllu-parts"
    fasta = "fasta"


class Pooling(StrEnum):
    """What a sentence has one vector of."""

    mean = "mean"


class Format(StrEnum):
    """Names in `hf_elmo.vectors.files.FORMATS`."""

    npz = "npz"
    safetensors = "safetensors"
    hdf5 = "hdf5"
    bilm_hdf5 = "bilm-hdf5"
    parquet = "parquet"


def embed(
    text: Annotated[list[str] | None, typer.Argument(help="Sentences. Without any, lines of --file or stdin.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="UTF-8 text, one sentence per line, plain, .gz or .zst; - is stdin."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write vectors there (.npz .safetensors .hdf5 .parquet).")
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="File format, if not what the name says; hdf5 is AllenNLP's layout.")
    ] = None,
    layers: Annotated[
        Layers | None,
        typer.Option(help="The model's learned mix (default), its top layer, all layers, their mean or sum."),
    ] = None,
    input_format: Annotated[
        InputFormat,
        typer.Option(help="Words between tabs; words, their characters or parts in CoNLL-U; letters of proteins."),
    ] = InputFormat.lines,
    pooling: Annotated[
        Pooling | None, typer.Option(help="One vector for each sentence. [default: one for each word]")
    ] = None,
    pretokenized: Annotated[
        bool, typer.Option("--pretokenized", help="Words stand between white space: take them as they are.")
    ] = False,
    split_sentences: Annotated[
        bool, typer.Option("--split-sentences", help="Split lines into sentences first.")
    ] = False,
    keep_boundaries: Annotated[
        bool, typer.Option("--keep-boundaries", help="Keep the vectors of <S> and </S> around each sentence.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
    ] = None,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    batch_words: Annotated[int, typer.Option(min=1, help="Words per batch: more need more memory.")] = 2048,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    show: Annotated[int, typer.Option(min=1, help="Sentences in the summary, without --output.")] = 10,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Show progress. [default: on a terminal]")
    ] = None,
) -> None:
    """Turn sentences into vectors, one for each word.

    Sentences are numbered from 0, and a line without words keeps its number (with no vectors). In npz, safetensors and
    HDF5 the array of sentence 7 is called "7"; Parquet has a row for each sentence. Without --output a summary is
    printed.

    With --pooling mean a sentence is as one word, with the mean of its words' vectors; it is called what the file
    calls it (sent_id of CoNLL-U, the name of a protein), or else has its words, space between.
    """
    layers = _check_usage(text, file, pretokenized, split_sentences, output, format, layers)
    if input_format is not InputFormat.lines and (pretokenized or split_sentences):
        raise typer.BadParameter(
            f"the words of {input_format.value} stand apart already.", param_hint="--pretokenized, --split-sentences"
        )
    if pooling is not None and format is Format.bilm_hdf5:
        raise typer.BadParameter("bilm-tf's layout holds words.", param_hint="--pooling")
    from ..hub.folders import load
    from ..vectors.embedding import embed_sentences
    from ..vectors.files import format_of, open_vector_file
    from ..vectors.text_files import open_text
    from ..vectors.word_files import read_word_file
    from ..whole_files import check_target
    from .sentences import lines_of_arguments, sentences_of

    # What can fail at once is to fail before the model is loaded.
    if output is not None:
        check_target(output, overwrite=force)
    with open_text(file) if not text else nullcontext() as source:
        silence_libraries()
        with reading():
            elmo, tokenizer = load(model, device)
        dim, num_layers = elmo.config.hidden_size, elmo.config.num_layers + 1 if layers is Layers.all else None
        tally, name = _Tally(), "The text" if source is None else source.name
        with Progress(source, shown=False if output is None else progress) as bar:
            lines = lines_of_arguments(text or []) if source is None else source.lines(bar.read, max_line_bytes)
            names: deque[str | None] = deque()
            if input_format is InputFormat.lines:
                sentences = sentences_of(lines, pretokenized, split_sentences)
            else:
                sentences = _words_of(read_word_file(lines, input_format.value, name), names)
            wanted = sentences if output is not None else islice(sentences, show)
            embedded = embed_sentences(elmo, tokenizer, wanted, layers.value, keep_boundaries, batch_words)
            embedded = tally.counted(embedded, bar)
            if pooling is not None:
                embedded = _means(embedded, names)
            if output is None:
                columns, rows = _summary(embedded, dim, num_layers)
                shown_rows = list(rows)
                tally.check(name)
                print_table(columns, shown_rows)
                if next(sentences, None) is not None:
                    note(f"there are more sentences: --show shows more than {show}, --output writes the vectors of all")
            else:
                kind = format.value if format else format_of(output)
                with open_vector_file(output, kind, dim=dim, num_layers=num_layers, overwrite=force) as writer:
                    for sentence in embedded:
                        writer.write(sentence)
                    tally.check(name)
    tally.report(tokenizer.max_characters_per_token - 2, "bytes" if tokenizer.characters is None else "characters")
    if output is not None:
        note(f"{output}: {counted(tally.sentences, 'sentence')}, {counted(tally.words, 'vector')} of {dim} numbers")


def _check_usage(
    text: list[str] | None,
    file: Path | None,
    pretokenized: bool,
    split_sentences: bool,
    output: Path | None,
    format: Format | None,
    layers: Layers | None,
) -> Layers:
    """The layers to embed; raises for options that contradict each other."""
    if text and file is not None:
        raise typer.BadParameter("give texts or --file, not both.", param_hint="TEXT")
    if not text and file is None and sys.stdin is not None and sys.stdin.isatty():
        raise typer.BadParameter("nothing to embed: give texts, --file, or lines on stdin.", param_hint="TEXT")
    if pretokenized and split_sentences:
        raise typer.BadParameter("--pretokenized lines are sentences already.", param_hint="--split-sentences")
    if output is None and format is not None:
        raise typer.BadParameter("there is no --output to write in that format.", param_hint="--format")
    if output is not None and format is None:
        from ..vectors.files import format_of

        try:
            format_of(output)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--output") from None
    if format is Format.bilm_hdf5:
        if layers not in (None, Layers.all):
            raise typer.BadParameter("bilm-tf's layout always holds all layers.", param_hint="--layers")
        return Layers.all
    return layers or Layers.mix


def _words_of(sentences: Iterable[NamedSentence], names: deque[str | None]) -> Iterator[list[str]]:
    """The words of sentences; their names are kept until the sentences are embedded."""
    for sentence in sentences:
        names.append(sentence.name)
        yield sentence.words


def _means(embedded: Iterable[EmbeddedSentence], names: deque[str | None]) -> Iterator[EmbeddedSentence]:
    """Sentences as one word each; a sentence without words stays without."""
    for sentence in embedded:
        name = names.popleft() if names else None
        if sentence.words:
            vectors = sentence.vectors.mean(axis=-2, keepdims=True)
            sentence = sentence._replace(words=[name or " ".join(sentence.words)], vectors=vectors)
        yield sentence


class _Tally:
    """Counts what passes, and what people should know about it."""

    def __init__(self) -> None:
        self.sentences = self.words = self.empty = 0
        self.truncated: Counter[str] = Counter()

    def counted(self, embedded: Iterable[EmbeddedSentence], bar: Progress) -> Iterator[EmbeddedSentence]:
        for sentence in embedded:
            self.sentences += 1
            self.words += len(sentence.words)
            self.empty += not sentence.words
            self.truncated.update(sentence.truncated_words)
            yield sentence
            bar.done(len(sentence.words))

    def check(self, name: str) -> None:
        """Raises ValueError if there was nothing at all: most likely, another input was meant."""
        if not self.sentences:
            raise ValueError(f"{name} has no sentences: there is nothing to embed.")

    def report(self, most: int, units: str) -> None:
        if self.empty:
            note(f"{counted(self.empty, 'sentence')} of {self.sentences:,} without words, and so without vectors")
        if self.truncated:
            size = _bytes if units == "bytes" else len
            examples = [f"{printable(word, 20)} ({size(word):,} {units})" for word in islice(self.truncated, 3)]
            examples += ["..."] if len(self.truncated) > 3 else []
            note(
                f"{counted(self.truncated.total(), 'word')} ({len(self.truncated):,} different) of more than "
                f"{most} {units}, of which the model read the first {most} only: {', '.join(examples)}"
            )


def _bytes(word: str) -> int:
    return len(word.encode("utf-8", "ignore"))


def _summary(
    embedded: Iterable[EmbeddedSentence], dim: int, num_layers: int | None
) -> tuple[list[str], Iterator[list[object]]]:
    """Columns and rows of a table: the norms of all layers, or a word's norm and its first numbers."""
    columns = ["sentence", "place", "word"]
    if num_layers is None:
        columns += ["norm", f"first of {dim} numbers"]
    else:
        columns += [f"norm in layer {layer}" for layer in range(num_layers)]
    blank = [""] * (len(columns) - 3)

    def rows() -> Iterator[list[object]]:
        for number, sentence in enumerate(embedded):
            norms = np.linalg.norm(sentence.vectors, axis=-1).reshape(num_layers or 1, -1).T
            for place, word in enumerate(sentence.words[:_MOST_WORDS]):
                numbers: list[object] = [float(norm) for norm in norms[place]]
                if num_layers is None:
                    numbers.append(" ".join(f"{value:7.4f}" for value in sentence.vectors[place, :_FIRST_NUMBERS]))
                yield [number, place, printable(word, 30), *numbers]
            if len(sentence.words) > _MOST_WORDS:
                yield [number, "", f"... {len(sentence.words) - _MOST_WORDS:,} words more", *blank]
            elif not sentence.words:
                yield [number, "", "(no words)", *blank]

    return columns, rows()
