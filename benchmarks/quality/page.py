"""The page of all tables, and its plot, made from the JSON files of `benchmarks/results/quality`.

    python -m benchmarks.quality.page            # writes docs/quality.md and the plot
    python -m benchmarks.quality.page --check    # only says whether the page is that of the files

No figure is written by hand: what a file does not have is not on the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from hf_elmo.whole_files import new_file

from ..harness.report import table
from .tables import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"
PLOT = "efficiency.svg"
BOTH = ("forward", "backward")

INTRODUCTION = """# What the vectors are worth

The tables below are made by commands whose results are stored as JSON in `benchmarks/results/quality`, with seeds,
versions and machine; `python -m benchmarks.quality.page` makes this page of them. `python -m benchmarks.quality` runs
all commands; one alone writes its table with `--output FILE.json`. The docstrings say what is measured and how.
`python -m benchmarks.quality --quick --results FOLDER` runs everything on a few sentences. The data is that of
`HF_ELMO_SHARED_DATA` (`../shared/data` beside the checkout).

"Random ELMo" is a model of the same sizes with random weights: its scores show what untrained weights already reach.
"±" is the standard deviation over seeds.
"""


def number(value: dict | float | None, digits: int = 1, scale: float = 1) -> str:
    """A mean with its spread, or a plain number; a dash for none."""
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return f"{scale * value:.{digits}f}"
    spread = f" ± {scale * value['spread']:.{digits}f}" if value["runs"] > 1 else ""
    return f"{scale * value['mean']:.{digits}f}{spread}"


def read_section(rows: dict) -> str:
    """Past against present of one word."""
    parts = []
    for name, found in rows.items():
        counts = ", ".join(f"{count} {label}" for label, count in found["counts"].items())
        lines = [
            [layer, *(number(shares[key], scale=100) for key in ("nearest", "triples", "probe"))]
            for layer, shares in found["share"].items()
        ]
        parts.append(
            f"{name[0].upper()}{name[1:]} ({counts}), in %:\n\n" + table(["", "nearest", "triples", "probe"], lines)
        )
    return "\n\n".join(parts)


def words_section(rows: dict) -> str:
    """Related words by kind."""
    lines = []
    for kind, names in rows["kinds"].items():
        for name, found in names.items():
            if found is not None:
                shares = [number(found[key], 0, 100) for key in ("first", "first ten")]
                lines.append([kind, name, number(found["median rank"]), *shares, str(found["pairs"])])
    heads = ["pairs", "vectors", "median rank", "first, %", "in the first ten, %", "number"]
    return f"Among {rows['words']:,} words:\n\n" + table(heads, lines)


def layers_section(rows: dict) -> str:
    """Probes of layers, and mixes."""
    titles = {
        "pos": ("parts of speech, English, %", 100),
        "norwegian": ("parts of speech, Norwegian, %", 100),
        "ner": ("entities of WNUT-17, F1", 1),
        "wic": ("WiC, %", 100),
    }
    lines = []
    for part, (title, scale) in titles.items():
        for arm, found in rows.get(part, {}).items():
            lines.append(
                [
                    title,
                    "random ELMo" if arm == "random" else "ELMo",
                    *(number(each, 1, scale) for each in found.values()),
                ]
            )
    parts = []
    if lines:
        parts.append(table(["linear probe", "", "layer 0", "layer 1", "layer 2", "average"], lines))
    if "mix" in rows:
        cells = [[mix, number(found)] for mix, found in rows["mix"].items()]
        parts.append("Entities of WNUT-17 under one head, F1:\n\n" + table(["mix of layers", "F1"], cells))
    if "read" in rows:
        parts.append(read_section(rows["read"]))
    return "\n\n".join(parts)


def tasks_section(rows: dict) -> str:
    """One head on several encoders."""
    lines = []
    for task, shares in rows.items():
        for share, found in shares.items():
            for arm, scores in found["arms"].items():
                cells = [number(scores[split]) for split in ("dev", "test")]
                reduction = number(found["error reduction"]) if arm == "ELMo" else ""
                lines.append([task, f"{100 * float(share):g}", arm, *cells, reduction])
    return table(["task", "training data, %", "encoder", "dev", "test", "error reduction, %"], lines)


def efficiency_section(rows: dict) -> str:
    """As `tasks_section`, after the plot."""
    return f"![Score against share of the training data](../benchmarks/results/quality/{PLOT})\n\n{tasks_section(rows)}"


def state_section(rows: dict) -> str:
    """Perplexity by kind of state, and clips."""
    lines, clips = [], []
    for model, found in rows.items():
        for kind, both in found["perplexity"].items():
            lines.append([model, kind, number(both["forward"]), number(both["backward"])])
        for direction, layers in found["clips"].items():
            for layer, shares in enumerate(layers, start=1):
                clips.append(
                    [model, direction, str(layer), *(number(shares[key], 2, 100) for key in ("cells", "outputs"))]
                )
    first = table(["model", "state", "forward", "backward"], lines)
    second = table(["model", "direction", "layer", "cells at the clip, %", "outputs at the clip, %"], clips)
    return f"Perplexity:\n\n{first}\n\nHow often the clips fire:\n\n{second}"


def noise_section(rows: dict) -> str:
    """Scores of probes under noise."""
    lines = []
    for task, title in (("pos", "parts of speech, %"), ("ner", "entities, F1")):
        names = list(next(iter(rows.values()))[task])
        for name in names:
            lines.append([title, name, *(number(rows[arm][task][name]) for arm in rows)])
    return table(["", "words changed", *rows], lines)


def finetuning_section(rows: dict) -> str:
    """Before and after fine-tuning."""
    lines = [
        [
            name,
            *(number(rows[name]["perplexity"][key]) for key in BOTH),
            *(number(rows[name][split]) for split in ("dev", "test")),
        ]
        for name in ("before", "after")
    ]
    return table(["biLM", "perplexity, forward", "backward", "entity F1, dev", "test"], lines)


def optimizers_section(rows: dict) -> str:
    """Perplexities that the optimisers reach."""
    lines = [
        [name, f"{run['updates']:,}", number(run["cpu_seconds"], 1, 1 / 60), *(number(run[key]) for key in BOTH)]
        for name, runs in rows.items()
        for run in runs
    ]
    return table(["", "updates", "CPU minutes", "perplexity, forward", "backward"], lines)


#: For each table its heading, module and section; the order of the page.
SECTIONS: dict[str, tuple[str, Callable[[dict], str]]] = {
    "tasks": ("Tasks: the paper's Table 1 in miniature", tasks_section),
    "efficiency": ("Sample efficiency", efficiency_section),
    "layers": ("Layers", layers_section),
    "read": ("*read*: past against present", read_section),
    "words": ("Related words", words_section),
    "state": ("A carried state", state_section),
    "noise": ("Noise", noise_section),
    "finetuning": ("Fine-tuning the biLM on tweets", finetuning_section),
    "optimizers": ("Optimisers at equal CPU time", optimizers_section),
}
MODULES = {
    "read": "read_occurrences",
    "efficiency": "tasks --tasks wnut17 sst5 --shares 0.01 0.1 1",
    "finetuning": "finetuning --work FOLDER",
    "optimizers": "optimizers --work FOLDER",
}


def origin(made: dict) -> str:
    """One paragraph: what a table was made with."""
    model, machine = made["model"], made["machine"]
    quick = " **Quick mode: a test of the machinery, and no measurement.**" if made["quick"] else ""
    return (
        f"`{made['command']}`: {model['name']} (weights {model['weights_sha256']}), seeds "
        f"{', '.join(map(str, made['seeds']))}, {made['cpu_seconds'] / 60:.1f} minutes of CPU time, "
        f"{machine['processor']}, torch {made['versions']['torch']}, {machine['date'][:10]}.{quick}"
    )


def make_page(folder: Path) -> str:
    """The page's text, of the files in a folder."""
    parts = [INTRODUCTION]
    for name, (title, section) in SECTIONS.items():
        path = folder / f"{name}.json"
        module = f"benchmarks.quality.{MODULES.get(name, name)}"
        parts.append(f"## {title}")
        if path.is_file():
            made = json.loads(path.read_text(encoding="utf-8"))
            parts += [section(made["rows"]), origin(made)]
        else:
            parts.append(f"Not measured yet: `python -m {module}`.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def plot(rows: dict, path: Path) -> None:
    """Test score against the share of the training data, one picture for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "hf_elmo"}):
        figure, axes = pyplot.subplots(1, len(rows), figsize=(5 * len(rows), 4), squeeze=False)
        for axis, (task, shares) in zip(axes[0], rows.items(), strict=True):
            for arm in next(iter(shares.values()))["arms"]:
                known = [
                    (float(share), found["arms"][arm]["test"])
                    for share, found in shares.items()
                    if arm in found["arms"]
                ]
                axis.errorbar(
                    [100 * share for share, _ in known],
                    [score["mean"] for _, score in known],
                    yerr=[score["spread"] for _, score in known],
                    marker="o",
                    label=arm,
                )
            axis.set(title=task, xscale="log", xlabel="training data, %", ylabel="test score, %")
        axes[0][0].legend()
        figure.tight_layout()
        with new_file(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Writes or checks the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    options.add_argument("--page", type=Path, default=PAGE)
    options.add_argument("--check", action="store_true", help="write nothing; fail if the page is another")
    options = options.parse_args(arguments)
    text = make_page(options.results)
    if options.check:
        if not options.page.is_file() or options.page.read_text(encoding="utf-8") != text:
            raise SystemExit(
                f"{options.page} is not the page of {options.results}: run python -m benchmarks.quality.page."
            )
        return
    if (options.results / "efficiency.json").is_file():
        efficiency = json.loads((options.results / "efficiency.json").read_text(encoding="utf-8"))
        plot(efficiency["rows"], options.results / PLOT)
    with new_file(options.page) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
