"""`hf-elmo convert`: foreign formats to a model folder, and back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from .console import in_bytes, note, silence_libraries


def convert(
    source: Annotated[Path, typer.Argument(help="An .hdf5 file, its folder, a zip or tar, or a model folder.")],
    destination: Annotated[Path, typer.Argument(help="A new folder.")],
    options: Annotated[Path | None, typer.Option(help="The options.json, if it is not beside the weights.")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="The vocabulary, a word per line, if it is not beside the weights.")
    ] = None,
    only_elmo: Annotated[
        bool, typer.Option("--only-elmo", help="Of an AllenNLP archive of a tagger, take the ELMo alone.")
    ] = False,
    tensorflow: Annotated[
        bool,
        typer.Option(
            "--tensorflow", help="Write a checkpoint of bilm-tf's training, softmax included, instead of HDF5."
        ),
    ] = False,
    published: Annotated[
        str | None,
        typer.Option(help="Name of the published model that it is, if its files do not say so (pt-brwac, ja ...)."),
    ] = None,
) -> None:
    """Convert an ELMo to a model folder, or a model folder to options.json and weights.hdf5.

    A SOURCE that is a folder with a config.json is a model folder, and is written in the original format, or with
    --tensorflow as a checkpoint of bilm-tf's training, if it has a softmax. Everything else is read: HDF5 weights
    with options.json (bilm-tf, AllenNLP), in a folder, a zip (NLPL) or a tar (CLARIN); a checkpoint of bilm-tf's
    training (its folder, or model.ckpt-<step>), whose softmax comes along, with TensorFlow; an archive of AllenNLP
    (model.tar.gz, or its folder), whole if it is a simple_tagger or crf_tagger, else its ELMo; a state dict of its
    Elmo (.th, .pt); a module of TensorFlow Hub (its folder, or a tar), with TensorFlow; a folder of
    ELMoForManyLangs, or its zip of the NLPL repository (--options: the file that its config_path names).
    """
    from ..conversion import is_allennlp_archive, is_elmoformanylangs, is_tfhub_module
    from ..hub.published_models import find_published

    is_module = is_tfhub_module(source)
    is_archive = is_allennlp_archive(source) and not is_module
    is_manylangs = is_elmoformanylangs(source)
    is_model_folder = (source / "config.json").is_file() and not is_archive and not is_manylangs
    if is_model_folder and (options or vocabulary):
        raise typer.BadParameter(
            "a model folder has its own; nothing else is read.", param_hint="--options, --vocabulary"
        )
    if is_model_folder and published:
        raise typer.BadParameter("the original format has no model card.", param_hint="--published")
    if tensorflow and not is_model_folder:
        raise typer.BadParameter("only a model folder is written as a checkpoint.", param_hint="--tensorflow")
    if published is not None:
        # Before the files are read, which may take long.
        find_published(published)
    if is_archive and vocabulary:
        raise typer.BadParameter("an archive has its own; nothing else is read.", param_hint="--vocabulary")
    if is_manylangs and vocabulary:
        raise typer.BadParameter("ELMoForManyLangs has dictionaries of its own.", param_hint="--vocabulary")
    if is_module and vocabulary:
        raise typer.BadParameter("a module of TensorFlow Hub has no vocabulary.", param_hint="--vocabulary")
    if only_elmo and not is_archive:
        raise typer.BadParameter("the source is not an archive of AllenNLP.", param_hint="--only-elmo")
    from ..conversion import (
        convert_allennlp_archive,
        convert_elmoformanylangs,
        convert_from_folder,
        convert_state_dict,
        convert_tf_checkpoint,
        convert_tfhub_module,
        convert_to_folder,
        convert_to_tf_checkpoint,
        is_state_dict,
        is_tf_checkpoint,
    )

    silence_libraries()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if tensorflow:
            convert_to_tf_checkpoint(source, destination)
        elif is_model_folder:
            convert_from_folder(source, destination)
        elif is_manylangs:
            convert_elmoformanylangs(source, destination, options=options, published=published)
        elif is_archive:
            convert_allennlp_archive(source, destination, options=options, only_elmo=only_elmo, published=published)
        elif is_module:
            convert_tfhub_module(source, destination, options=options, published=published)
        elif is_state_dict(source):
            convert_state_dict(source, destination, options=options, published=published)
        elif is_tf_checkpoint(source):
            convert_tf_checkpoint(source, destination, options=options, vocabulary=vocabulary, published=published)
        else:
            convert_to_folder(source, destination, options=options, vocabulary=vocabulary, published=published)
    for message in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        note(message)
    files = sorted(entry for entry in destination.iterdir() if entry.suffix != ".py")
    note(f"{destination}: " + ", ".join(f"{entry.name} ({in_bytes(entry.stat().st_size)})" for entry in files))
