"""Printing: tables for people on a terminal, tab-separated lines for everything else."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence

import typer

# What messages of the library call arguments, and what the command line calls them.
_OPTIONS = {
    "options=...": "--options",
    "vocabulary=...": "--vocabulary",
    "only_elmo=True": "--only-elmo",
    "split_sentences=False": "leave --split-sentences out",
    "overwrite=True": "--force",
    "max_line_bytes=...": "--max-line-bytes",
    "on_bad_row='report'": "--bad-rows report",
    "use_sentence_keys=False": "leave --use-sentence-keys out",
}


def say(line: str) -> None:
    """Prints a line of output.

    Raises:
        OSError: if it cannot be printed.
    """
    try:
        typer.echo(line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"Standard output cannot be written: {error.strerror}") from None


def note(message: str) -> None:
    """Says something beside the output, on stderr."""
    typer.echo(f"hf-elmo: {in_options(message)}", err=True)


def in_options(message: str) -> str:
    """The message with the command line's options in place of the library's arguments."""
    for argument, option in _OPTIONS.items():
        message = message.replace(f"({argument})", f"({option})")
    return message


def printable(text: str, longest: int = 60) -> str:
    """The text with control characters spelt out (they could steer the terminal), its middle left out if it is long."""
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Prints a table: drawn on a terminal (with its title), else a line per row, tab between cells, header first.

    Numbers with a fraction get four decimals.
    """
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout is None or not sys.stdout.isatty():
        for line in [columns, *cells]:
            say("\t".join(line))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        is_numeric = all(not line[number] or _is_numeric(line[number]) for line in cells)
        table.add_column(Text(column), justify="right" if is_numeric else "left", overflow="fold")
    for line in cells:
        # Text, because rich would read square brackets in a string as markup.
        table.add_row(*map(Text, line))
    Console().print(table)


def _is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def in_bytes(size: int) -> str:
    """A size for people: `"374.4 MB"`."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size} bytes"


def counted(count: int, noun: str) -> str:
    """`"1 word"`, `"2,000 words"`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def silence_libraries() -> None:
    """Keeps progress bars and warnings of libraries off the terminal: what matters here is said as an error."""
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
