"""`hf-elmo plot`: figures of layer weights, senses and similarities, as PNG or SVG."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from ..vectors.text_files import MAX_LINE_BYTES
from .console import in_bytes, note, silence_libraries
from .sentences import MaxLineBytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Draw what a model has learned.")

Output = Annotated[Path, typer.Option("--output", "-o", help="A new file: .png or .svg.", show_default=False)]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
]
Layers = Annotated[
    list[str] | None, typer.Option("--layer", "-l", help="A layer's number, or mix; may be given several times.")
]
Pretokenized = Annotated[
    bool, typer.Option("--pretokenized", help="Words stand between white space: take them as they are.")
]
Title = Annotated[str | None, typer.Option(help="The figure's title.")]
Dpi = Annotated[int, typer.Option(min=10, max=1200, help="Pixels per inch of a PNG.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")]


@app.command()
def weights(
    models: Annotated[list[str], typer.Argument(help="Model folders, such as fine-tuned ones.", show_default=False)],
    output: Output,
    title: Title = "Learned weights of the layers",
    dpi: Dpi = 150,
    force: Force = False,
) -> None:
    """Draw how much each layer counts in the models' mixes, and the factor gamma of each mix."""
    plot = _plot(output, force)
    from ..hub.folders import load

    named = {}
    for name in models:
        short = Path(name).name or name
        # Checkpoints of several trainings have the same names, in folders of different ones.
        named[name if short in named or [Path(each).name for each in models].count(short) > 1 else short] = load(
            name, "cpu"
        )[0]
    _save(plot, plot.plot_layer_weights(named, title or None), output, dpi, force)


@app.command()
def senses(
    word: Annotated[str, typer.Argument(help="A word, as the tokenizer writes it.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(help="UTF-8 text, plain, .gz or .zst: a line is a sentence, or a sense, a tab and a sentence."),
    ],
    output: Output,
    layer: Layers = None,
    method: Annotated[str, typer.Option(help="pca, or umap (the extra umap).")] = "pca",
    numbers: Annotated[
        bool | None,
        typer.Option("--numbers/--no-numbers", help="Write sentences' numbers at points. [default: without senses]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of UMAP.")] = 0,
    pretokenized: Pretokenized = False,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    title: Title = None,
    model: Model = None,
    device: Device = None,
    dpi: Dpi = 150,
    force: Force = False,
) -> None:
    """Draw a word's occurrences in many sentences as a map, coloured by sense.

    The nearer two points, the more alike the model takes their contexts. Lines without the word do not count.
    """
    plot = _plot(output, force)
    layers = _layers(layer)
    names, texts = _read_senses(file, max_line_bytes)
    from ..hub.folders import load
    from .sentences import sentences_of

    elmo, tokenizer = load(model, device)
    figure = plot.plot_senses(
        elmo,
        tokenizer,
        list(sentences_of(texts, pretokenized)),
        word,
        names,
        layers or "mix",
        method,
        numbers,
        seed,
        title,
    )
    _save(plot, figure, output, dpi, force)


@app.command()
def similarity(
    first: Annotated[str, typer.Argument(help="A sentence: the rows.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another sentence: the columns.", show_default=False)],
    output: Output,
    layer: Layers = None,
    pretokenized: Pretokenized = False,
    title: Title = None,
    model: Model = None,
    device: Device = None,
    dpi: Dpi = 150,
    force: Force = False,
) -> None:
    """Draw the cosine of each word of a sentence with each word of another one, a heat map for each layer."""
    plot = _plot(output, force)
    layers = _layers(layer)
    from ..hub.folders import load
    from .sentences import lines_of_arguments, sentences_of

    texts = list(lines_of_arguments([first, second]))
    if len(texts) != 2:
        raise typer.BadParameter("a sentence is one line.", param_hint="FIRST SECOND")
    elmo, tokenizer = load(model, device)
    figure = plot.plot_similarity(elmo, tokenizer, *sentences_of(texts, pretokenized), layers, title)
    _save(plot, figure, output, dpi, force)


def _plot(output: Path, force: bool) -> ModuleType:
    """The module of figures, if it can be used and its figure be written: before anything slow begins."""
    if find_spec("matplotlib") is None:
        raise ValueError('Figures need Matplotlib: install the extra, as in python -m pip install -e ".[plot]".')
    from ..explore import plot

    plot.check_output(output, force)
    silence_libraries()
    return plot


def _save(plot: ModuleType, figure: Figure, output: Path, dpi: int, force: bool) -> None:
    plot.save_figure(figure, output, dpi, force)
    note(f"{output}: {in_bytes(output.stat().st_size)}")


def _layers(names: list[str] | None) -> list[int | str] | None:
    if not names:
        return None
    layers: list[int | str] = []
    for name in names:
        try:
            layers.append("mix" if name == "mix" else int(name))
        except ValueError:
            raise typer.BadParameter(f"expected mix or a number, was: {name!r}.", param_hint="--layer") from None
    return layers


def _read_senses(file: Path, max_line_bytes: int) -> tuple[list[str] | None, list[str]]:
    """The sense of each line that has a sentence, or None if there are none; and the sentences.

    Raises:
        ValueError: if some lines have a sense and some have not.
        OSError: if it cannot be read.
    """
    from ..vectors.text_files import open_text

    senses: list[str | None] = []
    texts: list[str] = []
    with open_text(file) as source:
        name = source.name
        for number, line in enumerate(source.lines(max_line_bytes=max_line_bytes), start=1):
            if not line.strip():
                continue
            sense, tab, text = line.partition("\t")
            senses.append(sense.strip() if tab else None)
            texts.append(text if tab else line)
            if (senses[0] is None) != (senses[-1] is None):
                raise ValueError(
                    f"{name}, line {number}: either every line has a sense and a tab before its sentence, or none has."
                )
    if not texts:
        raise ValueError(f"{name} has no sentences.")
    return (None if senses[0] is None else [sense or "?" for sense in senses]), texts
