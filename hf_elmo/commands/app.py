"""The command line `hf-elmo`: its commands, and what their errors become.

A command raises ValueError or OSError with a message for people; here it becomes one line on stderr and exit status 1.
Wrong usage has status 2. Commands import what is slow to import when they run, not before.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from ..version import __version__
from .card import card
from .compare import compare
from .console import in_options
from .convert import convert
from .demo import demo, space
from .elmo import elmo
from .embed import embed
from .embed_corpus import embed_corpus
from .embed_vocabulary import embed_vocabulary
from .export import export
from .info import info
from .language_model import generate, perplexity, substitutes
from .neighbours import neighbours
from .plot import app as plot
from .push import push
from .quick_start import begin_program
from .train import train, vocab
from .tune import tune


class Commands(typer.core.TyperGroup):
    """A group of commands whose errors become messages and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            _complain("interrupted")
            raise typer.Exit(128 + signal.SIGINT) from None
        except Exception as error:
            # Typer's own exceptions (usage, exit) know their status.
            if hasattr(error, "exit_code"):
                raise
            if ctx.params.get("show_traceback"):
                traceback.print_exc()
                raise typer.Exit(1) from None
            is_expected = isinstance(error, (ValueError, OSError))
            _complain(_text(error) if is_expected else f"unexpected {type(error).__name__}: {_text(error)}")
            if not is_expected:
                _complain("please report this, with what `hf-elmo --traceback ...` shows")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-elmo {__version__}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the program an error arose.")
    ] = False,
) -> None:
    """ELMo: contextual word vectors from characters."""


app.command()(embed)
app.command()(embed_corpus)
app.command()(embed_vocabulary)
app.command()(elmo)
app.command()(compare)
app.command()(neighbours)
app.command()(convert)
app.command()(export)
app.command()(info)
app.command()(card)
app.command()(vocab)
app.command()(train)
app.command()(tune)
app.command()(perplexity)
app.command()(substitutes)
app.command()(generate)
app.command()(push)
app.add_typer(plot, name="plot")
app.command()(demo)
app.command()(space)


def main() -> None:
    """Runs the command line on `sys.argv`, and exits."""
    for name in ("SIGTERM", "SIGHUP"):
        # Unlike the default, an exception lets unfinished files be removed.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    _prepare_output()
    begin_program()
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        sys.exit(1)
    except OSError as error:
        _discard_stdout()
        _complain(f"Standard output cannot be written: {_text(error)}")
        sys.exit(1)


def _prepare_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        # (A closed stream is None.)
        if not hasattr(stream, "reconfigure"):
            continue
        # A terminal that cannot show a character must not make a command fail.
        stream.reconfigure(errors="backslashreplace")
        # Files and pipes get a code page there, which holds few of the words that there are.
        if sys.platform == "win32" and not stream.isatty() and not os.environ.get("PYTHONIOENCODING"):
            stream.reconfigure(encoding="utf-8")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _discard_stdout() -> None:
    """Lets the interpreter flush, at its end, what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    typer.echo(f"hf-elmo: {message}", err=True)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return in_options(str(error))


if __name__ == "__main__":
    main()
