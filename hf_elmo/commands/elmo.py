"""`hf-elmo elmo`: AllenNLP's `elmo` command, with its options and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..vectors.text_files import MAX_LINE_BYTES
from .console import counted, note, silence_libraries
from .progress import Progress
from .sentences import MaxLineBytes


def elmo(
    input_file: Annotated[Path, typer.Argument(help="UTF-8 text, plain, .gz or .zst: a sentence per line.")],
    output_file: Annotated[Path, typer.Argument(help="The HDF5 file; one that is there is replaced.")],
    all: Annotated[bool, typer.Option("--all", help="Write all layers of each word.")] = False,
    top: Annotated[bool, typer.Option("--top", help="Write the top layer.")] = False,
    average: Annotated[bool, typer.Option("--average", help="Write the average of the layers.")] = False,
    options_file: Annotated[
        Path | None, typer.Option(help="The options.json. [default: the one beside the weights]")
    ] = None,
    weight_file: Annotated[Path | None, typer.Option(help="The HDF5 weights.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Instead of both: a model folder, or a bundled model.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences read at a time.")] = 64,
    cuda_device: Annotated[int, typer.Option(min=-1, help="Number of the GPU; -1 for none.")] = -1,
    forget_sentences: Annotated[
        bool, typer.Option("--forget-sentences", help='Leave "sentence_to_index" out of the file.')
    ] = False,
    use_sentence_keys: Annotated[
        bool, typer.Option("--use-sentence-keys", help="Sentences, not numbers of lines, are the keys.")
    ] = False,
    stateful: Annotated[
        bool, typer.Option("--stateful", help="Carry the LSTM state from batch to batch, as AllenNLP did.")
    ] = False,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    file_friendly_logging: Annotated[bool, typer.Option("--file-friendly-logging", help="No progress bar.")] = False,
    vocab_path: Annotated[str | None, typer.Option(hidden=True)] = None,
    include_package: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
) -> None:
    """Write ELMo vectors as `allennlp elmo` did: the same options, the same HDF5 file.

    The datasets "0", "1", ... are of the lines of INPUT_FILE, in their order: float32, (layers, words, dim) with --all,
    (words, dim) with --top and --average. "sentence_to_index" is a JSON object from lines to keys.
    """
    chosen = [name for name, wanted in (("all", all), ("top", top), ("average", average)) if wanted]
    if len(chosen) != 1:
        raise typer.BadParameter("give one of them.", param_hint="--all, --top, --average")
    if (model is None) == (weight_file is None):
        raise typer.BadParameter(
            "give the weights of a published model, or a model folder, as in --model elmo-mini. (allennlp took the "
            "original English model from the internet if there was none; nothing is downloaded here.)",
            param_hint="--weight-file, --model",
        )
    if model is not None and options_file is not None:
        raise typer.BadParameter("a model folder has its own.", param_hint="--options-file")
    if vocab_path or include_package:
        note("--vocab-path and --include-package had no effect on the vectors, and have none here")
    from ..compat.allennlp import ElmoEmbedder
    from ..hub.folders import find_folder
    from ..vectors.text_files import open_text
    from ..whole_files import check_target

    silence_libraries()
    check_target(output_file, overwrite=True)
    with open_text(input_file) as text:
        lines = list(text.lines(max_line_bytes=max_line_bytes))
    embedder = ElmoEmbedder(options_file, weight_file or find_folder(model), cuda_device, stateful=stateful)
    with Progress(None, shown=False if file_friendly_logging else None) as bar:
        embedder.embed_file(
            lines,
            output_file,
            chosen[0],
            batch_size,
            forget_sentences,
            use_sentence_keys,
            on_sentence=lambda vectors: bar.done(vectors.shape[1]),
        )
    note(f"{output_file}: {counted(len(lines), 'sentence')}")
