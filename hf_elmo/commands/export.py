"""`hf-elmo export`: a model as a graph that runs without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import in_bytes, note, silence_libraries


def export(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a bundled model.")],
    destination: Annotated[Path, typer.Argument(help="A new folder.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, for ONNX Runtime.")] = False,
    program: Annotated[bool, typer.Option("--program", help="Write model.pt2, for torch.export.load.")] = False,
    state: Annotated[
        bool, typer.Option("--state", help="Take the LSTM state (hidden, cell), and return it (new_hidden, new_cell).")
    ] = False,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Of a model with a task head, write the ELMo below it.")
    ] = False,
) -> None:
    """Write a model as a graph for ONNX Runtime, or for torch without hf_elmo.

    Of a base model or a language model the graph gives vectors, of a tagger or classifier its logits, for any number of
    sentences and words. A README.md beside it says what goes in, and how to run it; the tokenizer is there as well.
    """
    if not (onnx or program):
        raise typer.BadParameter("say what to write.", param_hint="--onnx, --program")
    from ..export import check_onnx, export_folder
    from ..hub.folders import load, load_with_head
    from ..whole_files import check_new_folder

    # What needs no model is found out before it is loaded.
    check_new_folder(destination)
    if onnx:
        check_onnx()
    silence_libraries()
    loaded, tokenizer = load(model, "cpu") if vectors or state else load_with_head(model, "cpu")
    if onnx:
        loaded.float()
    files = export_folder(loaded, tokenizer, destination, onnx=onnx, program=program, with_state=state)
    sizes = ", ".join(f"{name} ({in_bytes((destination / name).stat().st_size)})" for name in files)
    note(f"{destination}: {type(loaded).__name__}, {sizes}")
