"""Figures of what a model has learned: its mix of layers, the senses of a word, and words against words.

Every function returns a Matplotlib figure of its own, for a notebook or for `save_figure`. Neither pyplot's state nor a
display is needed. Colours go from light to dark, and senses have markers of their own, so that the figures can be read
in grey, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from ..vectors.batching import split_into_words
from ..vectors.embedding import embed_sentences
from ..whole_files import check_target, new_file
from .figure_style import SENSE_COLORS, SENSE_MARKERS, choose_families, new_figure, shades, shorten, text_color
from .word_comparison import similarities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..model.modeling_elmo import ElmoPreTrainedModel
    from ..model.scalar_mix import ScalarMix
    from ..model.tokenization_elmo import ElmoTokenizer

SUFFIXES = (".png", ".svg")
METHODS = ("pca", "umap")

_CELL = 0.3  # inches, while there are few words
_WIDEST = 11.0
_MOST_NUMBERS = 150  # cells of a heat map that have their number written in them
_MOST_NAMES = 60  # of words along one side


class LayerWeights(NamedTuple):
    """What one scalar mix has learned.

    Attributes:
        shares: float64, ``(layers,)``: the softmax of its weights, the context-free layer first.
        gamma: The factor of the whole sum.
    """

    shares: np.ndarray
    gamma: float


def layer_weights(model: ElmoPreTrainedModel) -> list[LayerWeights]:
    """The learned mixes of a model, one for each representation.

    Args:
        model: An `ElmoModel`, or a model on top of one.
    """
    return [
        LayerWeights(mix.weights.detach().double().cpu().softmax(dim=0).numpy(), float(mix.gamma.detach()))
        for mix in cast("Iterable[ScalarMix]", model.base_model.scalar_mixes)
    ]


def plot_layer_weights(
    models: ElmoPreTrainedModel | Sequence[ElmoPreTrainedModel] | Mapping[str, ElmoPreTrainedModel],
    title: str | None = "Learned weights of the layers",
) -> Figure:
    """Draws how much each layer counts in the mixes of one or several models, a bar for each mix.

    Args:
        models: A model (an `ElmoModel`, or one on top of it, such as a fine-tuned task model), a list of models, or a
            dictionary of models by the names that the figure is to give them.
        title: The title; None for none.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there is no model.
    """
    bars = _named_mixes(models)
    layers = max(len(mix.shares) for _, mix in bars)
    colors = shades(layers)
    figure = new_figure((7.0, 1.3 + 0.42 * len(bars)))
    axes = figure.add_subplot()
    starts = np.zeros(len(bars))
    for layer in range(layers):
        widths = np.array([mix.shares[layer] if layer < len(mix.shares) else 0.0 for _, mix in bars])
        axes.barh(
            np.arange(len(bars)), widths, 0.72, starts, color=colors[layer], edgecolor="black", linewidth=0.6,
            label=_layer_name(layer),
        )  # fmt: skip
        for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
            # Below that the number is wider than its part of the bar.
            if width >= 0.06:
                color = text_color(colors[layer])
                axes.text(start + width / 2, row, f"{100 * width:.0f}", ha="center", va="center", color=color, size=9)
        starts += widths
    names = [shorten(name, 28) for name, _ in bars]
    axes.set_yticks(range(len(bars)), names, fontfamily=choose_families(names))
    for row, (_, mix) in enumerate(bars):
        axes.text(1.015, row, f"γ = {mix.gamma:.2f}", va="center", size=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 5), [f"{percent} %" for percent in range(0, 101, 25)])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(layers, 4), frameon=False, fontsize=9)
    if title:
        axes.set_title(title, size=11, loc="left")
    return figure


def _named_mixes(
    models: ElmoPreTrainedModel | Sequence[ElmoPreTrainedModel] | Mapping[str, ElmoPreTrainedModel],
) -> list[tuple[str, LayerWeights]]:
    """A name and a mix for each bar."""
    if isinstance(models, Mapping):
        named = [(str(name), model) for name, model in models.items()]
    else:
        several = list(models) if isinstance(models, Sequence) else [models]
        paths = [Path(getattr(model.config, "_name_or_path", "") or "").name for model in several]
        pairs = enumerate(zip(paths, several), start=1)
        named = [(path or f"model {number}", model) for number, (path, model) in pairs]
    if not named:
        raise ValueError("There is no model whose weights could be drawn.")
    bars = []
    for name, model in named:
        mixes = layer_weights(model)
        numbers = [""] if len(mixes) == 1 else [f", mix {number}" for number in range(1, len(mixes) + 1)]
        bars += [(name + number, mix) for number, mix in zip(numbers, mixes, strict=True)]
    return bars


class WordMap(NamedTuple):
    """Occurrences of a word as points of a plane.

    Attributes:
        points: float64, ``(occurrences, 2)``.
        sentences: The number of each one's sentence, from 0.
        explained: Shares of the variance along both axes; None for a method that has none (UMAP).
    """

    points: np.ndarray
    sentences: list[int]
    explained: tuple[float, float] | None


def map_word(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    sentences: Iterable[str | Sequence[str]],
    word: str,
    layer: int | str = "mix",
    method: str = "pca",
    seed: int = 0,
) -> WordMap:
    """Lays the vectors of a word in many sentences into a plane.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        sentences: Each a text or a list of words. All occurrences of the word count; sentences without it do not.
        word: The word, as the tokenizer writes it.
        layer: `"mix"`, or the number of a layer: 0 is the context-free one (where all vectors of a word are equal), -1
            the last.
        method: `"pca"`: the two directions of largest variance. `"umap"`: UMAP by cosine, which is to be installed
            (the extra `umap`).
        seed: Chance's in UMAP.

    Raises:
        ValueError: for fewer than three occurrences, and for a layer or method that there is not.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, was: {method!r}.")
    layer = _check_layers(model, [layer])[0]
    found = [(number, words) for number, words in enumerate(split_into_words(tokenizer, sentences)) if word in words]
    kind = "mix" if layer == "mix" else "all"
    places, vectors = [], []
    for (number, words), embedded in zip(
        found, embed_sentences(model, tokenizer, [words for _, words in found], layers=kind), strict=True
    ):
        chosen = embedded.vectors if kind == "mix" else embedded.vectors[layer]
        occurrences = [place for place, other in enumerate(words) if other == word]
        places += [number] * len(occurrences)
        vectors += list(chosen[occurrences])
    if len(places) < 3:
        raise ValueError(
            f"The word {word!r} stands in these sentences {len(places)} times (as the tokenizer writes it), but a map "
            "needs three occurrences at least."
        )
    matrix = np.stack(vectors).astype(np.float64)
    if method == "umap":
        return WordMap(_umap(matrix, seed), places, None)
    points, explained = _principal_components(matrix)
    return WordMap(points, places, explained)


def plot_senses(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    sentences: Iterable[str | Sequence[str]],
    word: str,
    senses: Sequence[str] | None = None,
    layers: Sequence[int | str] | int | str = "mix",
    method: str = "pca",
    numbers: bool | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Figure:
    """Draws the occurrences of a word as a map: the nearer two points, the more alike the model takes their contexts.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        sentences: As for `map_word`.
        word: The word, as the tokenizer writes it.
        senses: A name for each sentence: the word's sense there, which gives its colour and marker.
        layers: As `layer` for `map_word`; a list of them makes a map of each.
        method: As for `map_word`.
        numbers: Write the number of its sentence, from 1, at each point. None: if there are no senses and few points.
        seed: As for `map_word`.
        title: The title; None for the word and how often it occurs.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: as `map_word`, and if there is not one sense for each sentence.
    """
    sentences = list(sentences)
    if senses is not None and len(senses) != len(sentences):
        raise ValueError(f"There must be a sense for each of the {len(sentences)} sentences, but {len(senses)} are.")
    layers = _check_layers(model, [layers] if isinstance(layers, (int, str)) else layers)
    maps = [map_word(model, tokenizer, sentences, word, layer, method, seed) for layer in layers]
    count = len(maps[0].sentences)
    of_points = None if senses is None else [str(senses[number]) for number in maps[0].sentences]
    groups = list(dict.fromkeys(of_points or [""]))
    columns = min(len(layers), 3)
    rows = -(-len(layers) // columns)
    figure = new_figure((max(4.8, 3.6 * columns), 3.7 * rows + 0.6))
    for number, (layer, each) in enumerate(zip(layers, maps), start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_map(axes, each, groups, of_points)
        if numbers or (numbers is None and senses is None and count <= 60):
            for point, sentence in zip(each.points, each.sentences):
                axes.annotate(str(sentence + 1), point, (4, 3), textcoords="offset points", size=7)
        axes.set_title(_layer_name(layer), size=10)
    name = f"“{shorten(word, 30)}”"
    figure.suptitle(title or f"{name} in {count} places", size=11, fontfamily=choose_families([title or name]))
    if senses is not None:
        # Of several maps, each with the same senses, the first one's serve.
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(groups), 4),
            frameon=False, prop={"family": choose_families(groups), "size": 9},
        )  # fmt: skip
    return figure


def _draw_map(axes: Axes, each: WordMap, groups: list[str], of_points: list[str] | None) -> None:
    for number, group in enumerate(groups):
        chosen = [index for index in range(len(each.points)) if of_points is None or of_points[index] == group]
        horizontal, vertical = each.points[chosen].T
        axes.scatter(
            horizontal, vertical, s=46, color=SENSE_COLORS[number % len(SENSE_COLORS)], edgecolor="black",
            marker=SENSE_MARKERS[number % len(SENSE_MARKERS)], linewidth=0.6, alpha=0.9, label=shorten(group, 24),
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.6")
    if each.explained is None:
        axes.set_xlabel("UMAP 1", size=8)
        axes.set_ylabel("UMAP 2", size=8)
    else:
        axes.set_xlabel(f"first axis: {100 * each.explained[0]:.0f} % of the variance", size=8)
        axes.set_ylabel(f"second axis: {100 * each.explained[1]:.0f} %", size=8)


def plot_similarity(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    first: str | Sequence[str],
    second: str | Sequence[str],
    layers: Sequence[int | str] | int | str | None = None,
    title: str | None = None,
) -> Figure:
    """Draws the cosine of every word of a sentence with every word of another one, a heat map for each layer.

    Where both words are the same the cell has a frame. Few cells have their numbers written in them.

    Args:
        model: An `ElmoModel`, or a model on top of one.
        tokenizer: Its `ElmoTokenizer`.
        first: A sentence, as text or words: the rows.
        second: Another one: the columns.
        layers: Numbers of layers, -1 being the last, and `"mix"`; None: all layers.
        title: The title; None for none.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: for a sentence without words, and for a layer that there is not.
    """
    if layers is None:
        layers = range(model.config.num_layers + 1)
    layers = _check_layers(model, [layers] if isinstance(layers, (int, str)) else layers)
    found = similarities(model, tokenizer, first, second)
    for name, words in (("first", found.first), ("second", found.second)):
        if not words:
            raise ValueError(f"The {name} sentence has no words.")
    matrices = [found.mix if layer == "mix" else found.layers[layer] for layer in layers]
    lowest = min(0.0, np.floor(10 * min(matrix.min() for matrix in matrices)) / 10)

    height, width = (_side(words) for words in (found.first, found.second))
    label_height, label_width = (0.09 * min(16, max(map(len, words))) + 0.15 for words in (found.second, found.first))
    panel = width + label_width
    columns = max(1, min(len(layers), int((_WIDEST - 1) // panel)))
    rows = -(-len(layers) // columns)
    figure = new_figure((max(4.0, columns * panel + 1.0), rows * (height + label_height + 0.4) + (0.4 if title else 0)))
    for number, (layer, matrix) in enumerate(zip(layers, matrices), start=1):
        axes = figure.add_subplot(rows, columns, number)
        image = axes.imshow(matrix, cmap="YlGnBu", vmin=lowest, vmax=1, aspect="auto", interpolation="nearest")
        _name_words(axes.set_yticks, found.first)
        _name_words(axes.set_xticks, found.second, rotation=90)
        axes.tick_params(length=0)
        axes.set_title(_layer_name(layer), size=10)
        _frame_same_words(axes, found.first, found.second)
        if matrix.size <= _MOST_NUMBERS:
            for (i, j), cosine in np.ndenumerate(matrix):
                color = text_color(tuple(image.to_rgba(cosine)))
                text = f"{round(cosine, 2) + 0.0:.2f}".replace("0.", ".", 1) if abs(cosine) < 0.995 else f"{cosine:.0f}"
                axes.text(j, i, text, ha="center", va="center", size=6.5, color=color)
    bar = figure.colorbar(image, ax=figure.axes, fraction=0.04, pad=0.02, aspect=25)
    bar.set_label("cosine", size=9)
    bar.ax.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, size=11, fontfamily=choose_families([title]))
    return figure


def _side(words: Sequence[str]) -> float:
    """Inches for the words along a side."""
    return max(1.2, min(_CELL * len(words), 6 + 0.02 * len(words), 16.0))


def _name_words(set_ticks: Callable[..., object], words: Sequence[str], **options: object) -> None:
    """Writes the words along a side, of very many only some."""
    step = -(-len(words) // _MOST_NAMES)
    names = [shorten(word, 16) for word in words[::step]]
    size = float(np.clip(72 * _side(words) / len(words) * step * 0.8, 4, 9))
    set_ticks(range(0, len(words), step), names, fontsize=size, fontfamily=choose_families(names), **options)


def _frame_same_words(axes: Axes, first: Sequence[str], second: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    width = 1.4 if max(len(first), len(second)) <= 40 else 0.5
    for i, word in enumerate(first):
        for j, other in enumerate(second):
            if word == other:
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=width))


def save_figure(figure: Figure, path: str | Path, dpi: int = 150, overwrite: bool = False) -> None:
    """Writes a figure to a file, which appears when it is complete. The same figure always makes the same file.

    Args:
        figure: A Matplotlib figure.
        path: A name that ends in `.png` or `.svg`.
        dpi: Pixels per inch of a PNG.
        overwrite: Replace a file of this name.

    Raises:
        ValueError: for another ending.
        OSError: if the file exists, or cannot be written. The error names it.
    """
    check_output(path, overwrite)
    import matplotlib

    suffix = Path(path).suffix.lower()
    # An SVG would have the time and random names in it.
    metadata = {"Date": None} if suffix == ".svg" else {}
    with new_file(path, overwrite=overwrite) as temporary, matplotlib.rc_context({"svg.hashsalt": "hf_elmo"}):
        try:
            figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=metadata, facecolor="white")
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Raises as `save_figure` does where no figure can be written, without writing any."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: the name of a figure must end in {' or '.join(SUFFIXES)}.")
    check_target(path, overwrite)


def _check_layers(model: ElmoPreTrainedModel, layers: Sequence[int | str]) -> list[int | str]:
    count = model.config.num_layers + 1
    chosen: list[int | str] = []
    for layer in layers:
        if isinstance(layer, int) and not isinstance(layer, bool) and -count <= layer < count:
            chosen.append(layer % count)
        elif layer == "mix":
            chosen.append(layer)
        else:
            raise ValueError(f'A layer must be "mix" or a number from 0 to {count - 1}, was: {layer!r}.')
    if not chosen:
        raise ValueError("There is no layer to draw.")
    return chosen


def _layer_name(layer: int | str) -> str:
    if layer == "mix":
        return "mix of layers"
    return "layer 0: words alone" if layer == 0 else f"layer {layer}"


def _principal_components(matrix: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """``(rows, dim)`` to ``(rows, 2)``, and the shares of the variance."""
    centred = matrix - matrix.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # Equal vectors differ by rounding alone, whose directions mean nothing.
    sizes = np.where(sizes > 1e-6 * max(float(np.linalg.norm(matrix)), 1e-300), sizes, 0.0)
    # An axis may point either way: its largest coordinate decides.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    points = (left * sizes * signs)[:, :2]
    total = (sizes**2).sum()
    shares = sizes[:2] ** 2 / total if total else np.zeros(2)
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), (float(shares[0]), float(shares[1:].sum()))


def _umap(matrix: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise ValueError(
            'UMAP is not installed: take the method "pca", or install the extra, as in '
            'python -m pip install -e ".[umap]".'
        ) from None
    # Its own start, by eigenvectors, fails on fewer points than four dimensions ask for.
    start = "spectral" if len(matrix) > 10 else "random"
    neighbours = min(15, len(matrix) - 1)
    return np.asarray(
        UMAP(
            n_components=2, n_neighbors=neighbours, metric="cosine", random_state=seed, init=start, n_jobs=1
        ).fit_transform(matrix),
        dtype=np.float64,
    )
