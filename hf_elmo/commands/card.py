"""`hf-elmo card`: the model card of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import note, silence_libraries


def card(
    folder: Annotated[str, typer.Argument(help="Model folder.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(help="JSON of measured results (see hf_elmo.hub.measured_results); repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. [default: README.md in FOLDER]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that is there.")] = False,
    base_model: Annotated[str | None, typer.Option(help="Id of the model that it was fine-tuned from.")] = None,
    published: Annotated[
        str | None,
        typer.Option(help="Name of the published model that it is, if the card cannot know (pt-brwac, ja ...)."),
    ] = None,
) -> None:
    """Write the model card of a folder, from what is in it and where it comes from.

    A card that is there is read first: what hf-elmo convert wrote of the source files stays.
    """
    from dataclasses import replace

    from ..hub.folders import READS, WRITES, find_folder
    from ..hub.model_card import CARD_NAME, origin_in, write_card
    from ..hub.published_models import Origin, find_published

    silence_libraries()
    path = find_folder(folder, (READS, WRITES))
    target = output or path / CARD_NAME
    if target.exists() and not overwrite:
        raise ValueError(f"{target} is there already: --overwrite replaces it, --output FILE writes another.")
    origin = None
    if published is not None:
        formats = find_published(published).formats
        before = origin_in(path) or Origin(format=", ".join(formats) or "another format")
        origin = replace(before, published=published, matched="statement")
    written = write_card(
        path, origin=origin, results=results or (), overwrite=overwrite, base_model=base_model, output=output
    )
    note(f"{written}: {written.stat().st_size:,} bytes")
