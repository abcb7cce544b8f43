"""`hf-elmo demo` and `hf-elmo space`: the page on which anybody can see how a word moves."""

from __future__ import annotations

import ipaddress
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from .console import note, say, silence_libraries

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
]
Tagger = Annotated[
    str | None, typer.Option("--ner", help="Folder of a fine-tuned ElmoForTokenClassification, whose tags are shown.")
]


def demo(
    model: Model = None,
    ner: Tagger = None,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port. [default: the first free one from 7860]")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Open a public tunnel through servers of gradio's makers.")
    ] = False,
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--no-browser", help="Open the page in a browser. [default: where there is a display]"),
    ] = None,
) -> None:
    """Open a page that shows how words move with their sentences: cosines, neighbours, substitutes, tags.

    It runs on this machine, for this machine alone, and sends nothing anywhere. Interrupt the command to end it.
    """
    _check_gradio()
    from ..explore.demo import build_page, launch, load_explorer

    silence_libraries()
    page = build_page(load_explorer(model, ner))
    address = launch(page, host, port, share, _has_display() if browser is None else browser, block=False)
    say(f"The demo is at {page.share_url or address} (interrupt to end it)")
    if not _is_loopback(host):
        note(f"other machines that reach {host} can open it, too")
    sys.stdout.flush()
    page.block_thread()


def space(
    output: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    model: Model = None,
    ner: Tagger = None,
    title: Annotated[str, typer.Option(help="The Space's name, of at most 60 characters.")] = "ELMo: how a word moves",
    requirement: Annotated[
        str | None,
        typer.Option(
            help='How pip gets hf_elmo there, such as "hf_elmo[demo] @ git+https://...". '
            "[default: this version, from the package index]"
        ),
    ] = None,
) -> None:
    """Write the demo as a Space of the hub: app.py, requirements.txt, README.md with metadata, and the models.

    Upload it with hf upload --repo-type space USER/NAME FOLDER, or run python app.py in it.
    """
    _check_gradio()
    from ..explore.space import write_space
    from ..hub.folders import find_folder, load_tagger

    folder = None if model is None else find_folder(model)
    if ner is not None:
        silence_libraries()
        load_tagger(ner, "cpu")
    files = write_space(output, folder, ner, title, requirement)
    note(f"{output}: " + ", ".join(file.as_posix() for file in files))
    if requirement is None:
        note(
            "requirements.txt names this version of hf_elmo. Until it is in the package index, say where it is: "
            '--requirement "hf_elmo[demo] @ git+https://..."'
        )


def _check_gradio() -> None:
    if find_spec("gradio") is None:
        raise ValueError('The demo needs gradio: install the extra, as in python -m pip install -e ".[demo]".')


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_display() -> bool:
    """Whether a browser has somewhere to open."""
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
