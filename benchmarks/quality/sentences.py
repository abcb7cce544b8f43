"""What pooled vectors are worth for sentences, by layer and pooling, without training.

    python -m benchmarks.quality.sentences [--model FOLDER] [--snli-pairs 1200] [--threads 1]

Pairs of SemEval-2015 with scores (750 image captions, 750 headlines): Spearman's correlation of the scores with the
cosine of the two sentences. SNLI's first test pairs that are entailment or contradiction: the share of pairs of one of
each in which the entailment is the nearer one (AUC); a half is a coin. The baseline is the cosine of the sets of words.
"Boundaries" counts `<S>` and `</S>` as words. Nothing is chosen on other data: read all lines, not the best one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

import hf_elmo

from ..harness.data import shared_data

Pairs = tuple[np.ndarray, list[str], list[str]]


def read_sts(path: Path) -> Pairs:
    """Scores and sentences of the pairs that have a score."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row[0]]
    return np.array([float(row[0]) for row in rows]), [row[1] for row in rows], [row[2] for row in rows]


def read_snli(folder: Path, most: int) -> Pairs:
    """1 for entailment and 0 for contradiction, and sentences."""
    columns = [(folder / f"{name}.test").read_text(encoding="utf-8").splitlines() for name in ("labels", "s1", "s2")]
    rows = [row for row in zip(*columns, strict=True) if row[0] in ("entailment", "contradiction")][:most]
    return np.array([row[0] == "entailment" for row in rows], float), [row[1] for row in rows], [row[2] for row in rows]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of a positive and a negative in which the positive has the higher score; a tie counts half."""
    positive = labels == 1
    count = positive.sum()
    return (rankdata(scores)[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum())


def correlation(scores: np.ndarray, cosines: np.ndarray) -> float:
    return spearmanr(scores, cosines).statistic


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row by row, ``(rows, dim)`` twice to ``(rows,)``."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / np.where(norms > 0, norms, 1)


def word_overlap(left: list[str], right: list[str]) -> np.ndarray:
    sets = [(set(a.lower().split()), set(b.lower().split())) for a, b in zip(left, right)]
    return np.array([len(a & b) / max(1, len(a) * len(b)) ** 0.5 for a, b in sets])


def pooled(embedder: hf_elmo.Embedder, sentences: list[str]) -> dict[str, np.ndarray]:
    """By name of a setting, ``(sentences, layers, dim)``; the layers are followed by their mean."""
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mean": lambda rows: rows[:, 1:-1].mean(axis=1),
        "max": lambda rows: rows[:, 1:-1].max(axis=1),
        "mean, boundaries": lambda rows: rows.mean(axis=1),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for row in embedder.embed(sentences):
        rows = np.concatenate([row.vectors, row.vectors.mean(axis=0, keepdims=True)])
        for name, way in ways.items():
            found[name].append(way(rows))
    return {name: np.stack(vectors) for name, vectors in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder; the bundled model if not given")
    parser.add_argument("--snli-pairs", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    sts, snli = shared_data("sts", "semeval_2015_images_headlines"), shared_data("classification", "snli_dev_test")
    for folder in (sts, snli):
        if not folder.is_dir():
            sys.exit(f"{folder} is missing: name the folder of shared data in HF_ELMO_SHARED_DATA.")
    sets = {
        "images": (read_sts(sts / "images.test.tsv"), correlation),
        "headlines": (read_sts(sts / "headlines.test.tsv"), correlation),
        "SNLI": (read_snli(snli, options.snli_pairs), auc),
    }
    embedder = hf_elmo.Embedder(options.model, layers="all", keep_boundaries=True, threads=options.threads)
    results: dict[tuple[str, str], list[float]] = {}
    for (labels, left, right), measure in sets.values():
        results.setdefault(("words in common", ""), []).append(measure(labels, word_overlap(left, right)))
        vectors = pooled(embedder, [*left, *right])
        for name, array in vectors.items():
            for layer in range(array.shape[1]):
                label = "mean of layers" if layer == array.shape[1] - 1 else f"layer {layer}"
                score = measure(labels, cosines(array[: len(left), layer], array[len(left) :, layer]))
                results.setdefault((label, name), []).append(score)
    sizes = ", ".join(f"{name} {len(pairs[0])}" for name, (pairs, _) in sets.items())
    print(f"| layer | pooling | images | headlines | SNLI |   ({sizes} pairs)\n|---|---|--:|--:|--:|")
    for (label, name), scores in results.items():
        print(f"| {label} | {name} | " + " | ".join(f"{score:.3f}" for score in scores) + " |")


if __name__ == "__main__":
    main()
