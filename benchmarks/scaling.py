"""What reading costs with longer sentences, larger batches, more distinct words and more threads.

    python -m benchmarks.scaling [--size original] [--work FOLDER] [--plot FILE.svg] [--json FILE]

The model of `harness/material.py` reads batches, tokenizer call included. One size is changed while the others stay at
16 sentences of 20 words, drawn from 5,000 words of the text (for "distinct words", from as many as give a batch of that
many). The measurements take turns, and the median of `--rounds` counts. Threads are changed in one process.

The plot needs matplotlib (`pip install matplotlib`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .harness.machine import facts
from .harness.report import spread, table
from .run import prepare

SENTENCES, LENGTH, WORDS = 16, 20, 5000


@dataclass(frozen=True)
class Point:
    """One measurement: the number of sentences, of words in each, of different words, and of threads."""

    axis: str
    value: int
    sentences: int = SENTENCES
    length: int = LENGTH
    different: int | None = None
    threads: int | None = None


def points(threads: int, longest: int = 320) -> list[Point]:
    """All measures, each axis by factors of two."""
    doubled = [2**power for power in range(12)]
    lengths = [5 * factor for factor in doubled if 5 * factor <= longest]
    tokens = SENTENCES * LENGTH
    different = [count for count in (10, 20, 40, 80, 160, 320) if count <= tokens]
    return [
        *(Point("words in a sentence", length, length=length) for length in lengths),
        *(Point("sentences in a batch", count, sentences=count) for count in doubled if count <= 128),
        *(Point("distinct words in a batch", count, different=count) for count in different),
        *(Point("threads", count, threads=count) for count in doubled if count <= threads),
    ]


def batch_of(point: Point, vocabulary: list[str], generator: random.Random) -> list[list[str]]:
    """A batch of random words of the vocabulary, or of exactly `point.different` different ones."""
    count = point.sentences * point.length
    if point.different is None:
        words = generator.choices(vocabulary, k=count)
    else:
        some = generator.sample(vocabulary, point.different)
        words = [*some, *generator.choices(some, k=count - point.different)]
        generator.shuffle(words)
    return [words[begin : begin + point.length] for begin in range(0, count, point.length)]


def measure(folder: Path, sentences: list[list[str]], rounds: int, threads: int, longest: int) -> list[dict]:
    """Seconds of each point: the model of `folder` reads batches of words of `sentences`."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    import hf_elmo  # noqa: F401  (the Auto classes know ELMo)

    tokenizer = AutoTokenizer.from_pretrained(folder / "fp32")
    model = AutoModel.from_pretrained(folder / "fp32").eval()
    vocabulary = list(dict.fromkeys(word for sentence in sentences for word in sentence))[:WORDS]
    generator, chosen = random.Random(0), points(threads, longest)
    times: list[list[float]] = [[] for _ in chosen]
    for turn in range(rounds + 1):
        for point, own in zip(chosen, times):
            batch = batch_of(point, vocabulary, generator)
            torch.set_num_threads(point.threads or threads)
            begin = time.perf_counter()
            with torch.inference_mode():
                model(**tokenizer(batch, is_split_into_words=True, padding=True, return_tensors="pt"))
            # The first turn warms up.
            if turn:
                own.append(time.perf_counter() - begin)
    return [
        {"axis": point.axis, "value": point.value, "words": point.sentences * point.length, "seconds": own}
        for point, own in zip(chosen, times)
    ]


def report(results: list[dict]) -> str:
    """A table: milliseconds of a batch, and words per second."""
    lines = [
        [
            each["axis"],
            f"{each['value']:,}",
            spread([1000 * seconds for seconds in each["seconds"]]),
            f"{each['words'] / statistics.median(each['seconds']):,.0f}",
        ]
        for each in results
    ]
    return table(["", "number", "ms a batch", "words/s"], lines)


def plot(results: list[dict], path: Path, title: str) -> None:
    """One panel for each axis, both scales logarithmic: a line of slope one is a cost in proportion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(each["axis"] for each in results))
    figure, panels = pyplot.subplots(1, len(axes), figsize=(3 * len(axes), 2.8), layout="constrained")
    for axis, panel in zip(axes, panels):
        own = [each for each in results if each["axis"] == axis]
        values = [each["value"] for each in own]
        middles = [1000 * statistics.median(each["seconds"]) for each in own]
        panel.plot(values, middles, "o-", color="#1f5fa8")
        falls = -1 if axis == "threads" else 1
        panel.plot(values, [middles[-1] * (value / values[-1]) ** falls for value in values], ":", color="gray")
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_xticks(values, [f"{value}" for value in values], fontsize=7)
        panel.minorticks_off()
    panels[0].set_ylabel("ms a batch")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> list[dict]:
    """Measures with the options of a command line, and gives all times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="original")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=320, help="words of the longest sentences")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, help="folder for models and sentences, kept afterwards")
    parser.add_argument("--text", type=Path, help="as for benchmarks.harness.material")
    parser.add_argument("--plot", type=Path, help="file for the plot, such as scaling.svg")
    parser.add_argument("--json", type=Path, help="file for all times")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        work = (options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        prepare(work, options.text and options.text.absolute())
        sentences = json.loads((work / "sentences.json").read_text(encoding="utf-8"))
        results = measure(work / options.size, sentences, options.rounds, options.threads, options.longest)
    machine = facts()
    title = f"{options.size}, fp32, {SENTENCES} x {LENGTH} words unless said otherwise; {machine['processor']}"
    print(f"{title}, {options.threads} threads, {machine['date']}\n\n{report(results)}")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "size": options.size, "points": results}, indent=1), encoding="utf-8"
        )
    if options.plot:
        plot(results, options.plot, title)
    return results


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
