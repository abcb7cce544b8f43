"""Figures of real models: what is drawn is what the model computes, and the files are what their names say."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from typer.testing import CliRunner

import hf_elmo
from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app

pytest.importorskip("matplotlib", reason="Matplotlib is not installed (the extra plot)")
from matplotlib.image import imread

from hf_elmo.explore import plot

FIRST, SECOND = ["I", "read", "it", "."], ["They", "read", "books", "and", "I", "read"]
SENTENCES = [["I", "read", "it"], ["to", "read", "or", "read"], ["nothing"], ["a", "good", "read"], ["read", "now"]]


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return ElmoModel.from_pretrained(tiny_model_folder).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return ElmoTokenizer.from_pretrained(tiny_model_folder)


def plain(model, tokenizer, words):
    """By a plain call: all layers and, last, the mix, ``(layers + 1, words, dim)``."""
    with torch.no_grad():
        output = model(**tokenizer([words], is_split_into_words=True, return_tensors="pt"), output_hidden_states=True)
    return np.stack([layer[0, 1:-1].double().numpy() for layer in (*output.hidden_states, output.last_hidden_state)])


def labels(axes, side):
    return [label.get_text() for label in getattr(axes, f"get_{side}ticklabels")()]


def maps(figure):
    return [axes for axes in figure.axes if axes.images]


def test_weights_are_the_softmax_of_the_mix(model):
    other = hf_elmo.ElmoForTokenClassification(
        hf_elmo.ElmoConfig(**{**model.config.to_dict(), "num_representations": 2, "num_labels": 3})
    )
    with torch.no_grad():
        for number, mix in enumerate(other.elmo.scalar_mixes):
            mix.weights.copy_(torch.tensor([0.0, 1.0, 2.0 * number]))
            mix.gamma.fill_(0.5 + number)
    axes = plot.plot_layer_weights({"base": model, "tagger": other}).axes[0]
    assert labels(axes, "y") == ["base", "tagger, mix 1", "tagger, mix 2"]
    widths = np.array([[bar.get_width() for bar in container] for container in axes.containers]).T
    weights = np.array([[0.2, -0.4, 0.6], [0, 1, 0], [0, 1, 2]])
    np.testing.assert_allclose(widths, np.exp(weights) / np.exp(weights).sum(1, keepdims=True), rtol=1e-6)
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if "γ" in text] == ["γ = 1.30", "γ = 0.50", "γ = 1.50"]
    with pytest.raises(ValueError, match="no model"):
        plot.plot_layer_weights([])


@pytest.mark.parametrize(("layers", "numbers"), [(None, [0, 1, 2]), (-1, [2]), (["mix", 1], [3, 1])])
def test_heat_maps_are_the_cosines(model, tokenizer, layers, numbers):
    figure = plot.plot_similarity(model, tokenizer, FIRST, SECOND, layers)
    a, b = plain(model, tokenizer, FIRST), plain(model, tokenizer, SECOND)
    assert len(maps(figure)) == len(numbers)
    for axes, number in zip(maps(figure), numbers):
        assert (labels(axes, "y"), labels(axes, "x")) == (FIRST, SECOND)
        norms = np.outer(np.linalg.norm(a[number], axis=1), np.linalg.norm(b[number], axis=1))
        drawn = np.asarray(axes.images[0].get_array())
        np.testing.assert_allclose(drawn, a[number] @ b[number].T / norms, atol=1e-5)
        # Numbers are written row by row, and equal words framed.
        assert [float(text.get_text()) for text in axes.texts] == pytest.approx(drawn.ravel().tolist(), abs=0.0051)
        frames = {(round(frame.get_y() + 0.5), round(frame.get_x() + 0.5)) for frame in axes.patches}
        assert frames == {(0, 4), (1, 1), (1, 5)}


def test_maps_are_principal_components(model, tokenizer):
    senses = ["past", "infinitive", "none", "noun", "past"]
    figure = plot.plot_senses(model, tokenizer, SENTENCES, "read", senses, [1, "mix"])
    places = [(0, 1), (1, 1), (1, 3), (3, 2), (4, 0)]
    for axes, number in zip(figure.axes, [1, 3], strict=True):
        vectors = np.stack([plain(model, tokenizer, SENTENCES[i])[number, j] for i, j in places])
        of_sense = {path.get_label(): np.asarray(path.get_offsets()) for path in axes.collections}
        assert {name: len(points) for name, points in of_sense.items()} == {"past": 2, "infinitive": 2, "noun": 1}
        points = np.stack([of_sense["past"][0], *of_sense["infinitive"], of_sense["noun"][0], of_sense["past"][1]])
        # Coordinates along the eigenvectors of the covariance, up to the direction of each axis.
        centred = vectors - vectors.mean(axis=0)
        values, directions = np.linalg.eigh(centred.T @ centred)
        expected = centred @ directions[:, [-1, -2]]
        np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
        assert f"{100 * values[-1] / values.sum():.0f} %" in axes.get_xlabel()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["past", "infinitive", "noun"]


def test_a_map_of_equal_vectors_is_one_point(model, tokenizer):
    """In the context-free layer a word is the same everywhere; what differs is rounding."""
    found = plot.map_word(model, tokenizer, SENTENCES, "read", 0)
    assert found.sentences == [0, 1, 1, 3, 4]
    assert not found.points.any()
    axes = plot.plot_senses(model, tokenizer, SENTENCES, "read", layers=0).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "2", "4", "5"]


def test_umap(model, tokenizer):
    pytest.importorskip("umap", reason="umap-learn is not installed (the extra umap)")
    found = plot.map_word(model, tokenizer, SENTENCES * 4, "read", 2, "umap")
    assert found.points.shape == (20, 2)
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *a: plot.plot_senses(*a, SENTENCES, "good"), "'good' stands in these sentences 1 times"),
        (lambda *a: plot.plot_senses(*a, SENTENCES, "read", ["x"]), "each of the 5 sentences, but 1"),
        (lambda *a: plot.plot_senses(*a, SENTENCES, "read", layers=3), 'must be "mix" or a number from 0 to 2, was: 3'),
        (lambda *a: plot.plot_senses(*a, SENTENCES, "read", method="tsne"), "one of pca, umap, was: 'tsne'"),
        (lambda *a: plot.plot_similarity(*a, FIRST, []), "second sentence has no words"),
        (lambda *a: plot.plot_similarity(*a, FIRST, SECOND, []), "no layer"),
    ],
)
def test_what_cannot_be_drawn_is_told(model, tokenizer, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, tokenizer)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_script_long_words_and_many_words(model, tokenizer, tmp_path):
    words = ["東京", "हिन्दी", "العربية", "$x_1^{$", "\ud800", "\x07", "a" * 500, "<&>"]
    many = [f"w{number}" for number in range(130)]
    for number, (first, second) in enumerate([(words, words), (many, words)]):
        figure = plot.plot_similarity(model, tokenizer, first, second, 1)
        for suffix in plot.SUFFIXES:
            plot.save_figure(figure, tmp_path / f"{number}{suffix}", dpi=50)
        assert max(figure.get_size_inches()) < 30
    axes = maps(figure)[0]
    assert axes.images[0].get_array().shape == (130, 8)
    # Of many words some are named, each at its own row.
    assert 30 < len(labels(axes, "y")) <= 60
    assert labels(axes, "y")[1] == many[int(axes.get_yticks()[1])]
    assert all(len(label) <= 20 for label in labels(axes, "x"))
    plot.save_figure(plot.plot_senses(model, tokenizer, [words] * 3, "東京", ["日", "本", "\n"]), tmp_path / "s.png")


def test_files_are_whole_and_the_same_every_time(model, tokenizer, tmp_path):
    for suffix in plot.SUFFIXES:
        for name in "ab":
            plot.save_figure(
                plot.plot_similarity(model, tokenizer, FIRST[:2], SECOND[:2], 1), tmp_path / (name + suffix)
            )
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[0] > 200
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    with pytest.raises(FileExistsError, match="exists already"):
        plot.save_figure(plot.plot_layer_weights(model), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        plot.save_figure(plot.plot_layer_weights(model), tmp_path / "a.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_neither_pyplot_nor_a_display_is_needed_and_notebooks_see_an_image(tiny_model_folder):
    code = f"""
import sys, matplotlib
from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.explore import plot
before = matplotlib.rcParams.copy()
model, tokenizer = ElmoModel.from_pretrained({str(tiny_model_folder)!r}), ElmoTokenizer.from_pretrained(
    {str(tiny_model_folder)!r})
image = plot.plot_similarity(model, tokenizer, "I read", "we read")._repr_png_()
print(image[:8] == b"\\x89PNG\\r\\n\\x1a\\n", "matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy() == before)
"""
    done = warm.run(["-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True", "False", "True"]


# --- the command


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        result = CliRunner().invoke(app, ["plot", *map(str, arguments)])
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result.output

    return run


def test_commands_write_what_the_functions_draw(run, model, tokenizer, tiny_model_folder, tmp_path):
    senses = ["a", "b", "c", "a", "b"]
    lines = [f"{sense}\t{' '.join(words)}" for sense, words in zip(senses, SENTENCES)]
    Path("senses.tsv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    options = ["--model", tiny_model_folder]
    run(
        "similarity",
        "I read it .",
        "They read books and I read",
        *options,
        "-o",
        "similarity.svg",
        "-l",
        2,
        "-l",
        "mix",
    )
    run("senses", "read", "senses.tsv", *options, "--pretokenized", "-l", "-1", "-o", "senses.svg")
    run("weights", tiny_model_folder, "-o", "weights.svg")
    model = ElmoModel.from_pretrained(tiny_model_folder)
    figures = {
        "similarity": plot.plot_similarity(model, tokenizer, FIRST, SECOND, [2, "mix"]),
        "senses": plot.plot_senses(model, tokenizer, SENTENCES, "read", senses, -1),
        "weights": plot.plot_layer_weights({tiny_model_folder.name: model}),
    }
    for name, figure in figures.items():
        plot.save_figure(figure, f"expected-{name}.svg")
        assert Path(f"{name}.svg").read_bytes() == Path(f"expected-{name}.svg").read_bytes()


def test_command_errors(run, tiny_model_folder, tmp_path):
    Path("mixed.tsv").write_text("a\tI read\nI read\n", encoding="utf-8")
    Path("empty.txt").write_text("\n \n", encoding="utf-8")
    Path("there.png").write_text("mine", encoding="utf-8")
    model = ["--model", tiny_model_folder]
    assert "exists already" in run("weights", tiny_model_folder, "-o", "there.png", status=1)
    assert "must end in .png or .svg" in run("weights", tiny_model_folder, "-o", "x.gif", status=1)
    assert "no folder nowhere" in run("weights", tiny_model_folder, "-o", "nowhere/x.png", status=1)
    assert "no model folder gone" in run("weights", "gone", "-o", "x.png", status=1)
    assert "mixed.tsv, line 2: either every line" in run("senses", "read", "mixed.tsv", *model, "-o", "x.png", status=1)
    assert "no sentences" in run("senses", "read", "empty.txt", *model, "-o", "x.png", status=1)
    assert "from 0 to 2, was: 7" in run("similarity", "a", "b", *model, "-l", 7, "-o", "x.png", status=1)
    assert "expected mix or a number" in run("similarity", "a", "b", *model, "-l", "top", "-o", "x.png", status=2)
    assert Path("there.png").read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "mixed.tsv", "there.png"]
    run("weights", tiny_model_folder, "-o", "there.png", "--force")
    assert imread("there.png").ndim == 3


def test_without_matplotlib_the_extra_is_named(tmp_path, tiny_model_folder):
    """In a process that cannot import it."""
    code = f"""
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "matplotlib" else found(name, package)
sys.meta_path.insert(0, Hide())
sys.argv = ["hf-elmo", "plot", "weights", {json.dumps(str(tiny_model_folder))}, "-o", "x.png"]
try:
    import hf_elmo.explore.plot
except ImportError as error:
    print(error, file=sys.stderr)
from hf_elmo.commands.app import main
main()
"""
    # Not a warm process, which has looked for Matplotlib already.
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count('python -m pip install -e ".[plot]"') == 2
