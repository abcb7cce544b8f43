"""`hf-elmo card`: the model card of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import note


def card(
    folder: Annotated[str, typer.Argument(help="Model folder, or a bundled model.")],
    results: Annotated[list[Path] | None, typer.Option(help="JSON file of measured results; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file. [default: FOLDER/README.md]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that is there.")] = False,
    source: Annotated[
        list[Path] | None, typer.Option(help="A file that the model was converted from; may be repeated.")
    ] = None,
    published: Annotated[
        str | None, typer.Option(help="Which published model it is (elmo-small, elmo-ja, seqvec, ...).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Model on the hub that it was fine-tuned from.")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Data on the hub that it was trained on; may be repeated.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Code of the text's language (ISO 639), such as en.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the weights, as the hub calls it.")] = None,
) -> None:
    """Write the model card of a folder: README.md, with the metadata that the hub reads.

    Sizes are taken from the folder. A file of RESULTS is JSON: a result, or a list of them, each with task, dataset,
    metric, value, command and machine. The card of a published ELMo tells what is known of it; hf-elmo convert writes
    that too.
    """
    from ..model_card import write_card
    from ..model_origin import Origin, SourceFile
    from .models import find_folder, silence_libraries

    path = find_folder(folder)
    if not Path(folder).exists() and output is None:
        raise typer.BadParameter("a bundled model's card goes to a file of yours.", param_hint="--output")
    silence_libraries()
    written = write_card(
        path,
        output=output,
        overwrite=overwrite,
        results=results or (),
        origin=Origin(None, tuple(SourceFile.read(file) for file in source)) if source else None,
        published=published,
        name=name,
        base_model=base_model,
        datasets=dataset or (),
        language=language,
        license=license,
    )
    note(f"{written}: the model card")
