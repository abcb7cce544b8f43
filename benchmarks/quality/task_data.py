"""The tasks of the tables, as lists: words in, labels out.

All files are read from the folder of shared data (`HF_ELMO_SHARED_DATA`, or `../shared/data` beside the checkout).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from ..harness.data import shared_data
from .tagging import read_columns


@dataclass(frozen=True)
class Example:
    """One item of a task.

    Attributes:
        texts: One sentence or two, as words.
        labels: One label; of a tagging task one for each word.
        places: For a word in two sentences: where it stands in each. Empty for other tasks.
    """

    texts: tuple[list[str], ...]
    labels: list[str]
    places: tuple[int, ...] = ()


Splits = dict[str, list[Example]]


def read_conllu(path: Path) -> list[tuple[list[str], list[str]]]:
    """Words and universal parts of speech of each sentence of a gzipped CoNLL-U file.

    Ranges of words ("3-4") and empty nodes ("3.1") are left out: their parts have lines of their own.
    """
    sentences: list[tuple[list[str], list[str]]] = []
    words, tags = [], []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in [*lines, ""]:
            cells = line.rstrip("\n").split("\t")
            if len(cells) == 10 and cells[0].isdigit():
                words.append(cells[1])
                tags.append(cells[3])
            elif not line.strip() and words:
                sentences.append((words, tags))
                words, tags = [], []
    return sentences


def wnut17(limit: int | None = None) -> Splits:
    """Named entities in tweets: BIO tags, train, dev and test."""
    names = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
    folder = shared_data("ner", "wnut17")
    return {
        split: [Example((words,), tags) for words, tags in read_columns(folder / name, limit)]
        for split, name in names.items()
    }


def sst5(limit: int | None = None) -> Splits:
    """Sentiment of sentences in five classes: train, dev and test."""
    splits = {}
    for split in ("train", "dev", "test"):
        lines = shared_data("classification", "sst", f"stsa.fine.{split}").read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines[:limit]]
        splits[split] = [Example((words,), [label]) for label, *words in rows if words]
    return splits


def snli(limit: int | None = None) -> Splits:
    """Entailment, contradiction or neither: the dev part of SNLI to train (its last tenth is dev), its test part."""
    folder = shared_data("classification", "snli_dev_test")
    read = {}
    for split in ("dev", "test"):
        files = (folder / f"{name}.{split}" for name in ("labels", "s1", "s2"))
        columns = [file.read_text(encoding="utf-8").splitlines() for file in files]
        rows = list(zip(*columns, strict=True))[:limit]
        read[split] = [Example((first.split(), second.split()), [label]) for label, first, second in rows]
    held = max(1, len(read["dev"]) // 10)
    return {"train": read["dev"][:-held], "dev": read["dev"][-held:], "test": read["test"]}


def wic(limit: int | None = None) -> Splits:
    """Whether a word has the same sense in two sentences: train, dev and test."""
    splits = {}
    for split in ("train", "dev", "test"):
        folder = shared_data("wordsense", "wic", split)
        data = (folder / f"{split}.data.txt").read_text(encoding="utf-8").splitlines()[:limit]
        gold = (folder / f"{split}.gold.txt").read_text(encoding="utf-8").splitlines()[:limit]
        splits[split] = []
        for line, label in zip(data, gold, strict=True):
            _, _, places, first, second = line.split("\t")
            one, other = (int(place) for place in places.split("-"))
            splits[split].append(Example((first.split(), second.split()), [label], (one, other)))
    return splits


#: Each task, and what its head labels: each word, a text or a pair of texts, or a word's places in two texts.
TASKS = {"wnut17": (wnut17, "tags"), "sst5": (sst5, "texts"), "snli": (snli, "texts"), "wic": (wic, "places")}
