"""Occurrences of "read" whose tense was told by hand: the data, and how well vectors tell past from present.

    python -m benchmarks.quality.read_occurrences [--model FOLDER] [--output FILE.json]

Two sets; the head of each file says how it was made and what each label means:

- `read_held_out.tsv`: all 234 of the held-out part of the fiction in the shared data, as places, without the text. The
  measure is the word's form: past (91) against present, infinitive and imperative (93).
- `read_books.tsv`: 130 finite ones of other books, with the text: past (65) against present (65), like subjects in
  both.

For each layer, the average of the layers, and a baseline (the two words on each side as zeros and ones):

- *nearest*: the share of occurrences whose nearest neighbour by cosine has the same label. Neighbours of the same book
  (or file) count, neighbours of the same line do not. Ties count as the share of right ones among the nearest.
- *triples*: the share of triples (anchor, same label, other label) in which the same label is nearer.
- *probe*: accuracy of a linear probe by cross-validation in ten folds; no line is in two folds.

Two labels of equal size: chance is 50 %. About 20 seconds of CPU time (AMD EPYC).
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import hf_elmo
from hf_elmo.vectors.embedding import embed_sentences

from ..harness.data import shared_data
from .probes import by_layer, cross_validated
from .senses import cosines, share_of_triples
from .tables import load, parser, read_options, write_table

WORD = "read"
HELD_OUT = Path(__file__).with_name("read_held_out.tsv")
BOOKS = Path(__file__).with_name("read_books.tsv")
FORMS = {"past": "past form", "present": "present form", "infinitive": "present form", "imperative": "present form"}


@dataclass(frozen=True)
class Occurrence:
    """One occurrence of the word.

    Attributes:
        label: As the file has it.
        words: The sentence.
        place: Of the word in the sentence.
        group: What must not be in two folds: a line of a text, or one sentence.
    """

    label: str
    words: tuple[str, ...]
    place: int
    group: str


def _rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != columns:
            raise ValueError(
                f"{path}, line {number}: {columns} columns parted by tabs were expected, not {len(cells)}."
            )
        yield number, cells


def read_books(path: Path = BOOKS) -> list[Occurrence]:
    """The occurrences of a file with text.

    Raises:
        ValueError: for a line without four columns, or whose place is not that of the word.
    """
    found = []
    for number, (label, place, _, sentence) in _rows(path, 4):
        words = tuple(sentence.split(" "))
        if not (place.isdigit() and int(place) < len(words) and words[int(place)] == WORD):
            raise ValueError(f"{path}, line {number}: word {place} of the sentence is not {WORD!r}.")
        found.append(Occurrence(label, words, int(place), str(number)))
    return found


def hash_of_words(words: tuple[str, ...]) -> str:
    """The first 12 hex digits of SHA-256 of the words joined by a space."""
    return hashlib.sha256(" ".join(words).encode("utf-8")).hexdigest()[:12]


def read_held_out(folder: Path, path: Path = HELD_OUT) -> list[Occurrence]:
    """The occurrences of a file of places.

    Args:
        folder: Where the texts are that the file names.
        path: The file.

    Raises:
        FileNotFoundError: if a text is absent.
        ValueError: if a text does not have the sentence that was labelled.
    """
    split = hf_elmo.ElmoTokenizer.create().backend_tokenizer.pre_tokenizer.pre_tokenize_str
    rows = [cells for _, cells in _rows(path, 7)]
    lines: dict[tuple[str, int], tuple[str, ...]] = {}
    for name in sorted({cells[1] for cells in rows}):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} does not exist. The labelled sentences are in {name} of lm/gutenberg_fiction of the "
                "shared data: give its folder, or name the shared data in HF_ELMO_SHARED_DATA."
            )
        wanted = {int(cells[2]) for cells in rows if cells[1] == name}
        with gzip.open(folder / name, "rt", encoding="utf-8") as text:
            for number, line in enumerate(text, start=1):
                if number in wanted:
                    lines[name, number] = tuple(word for word, _ in split(line.strip()))
    found = []
    for label, name, line, first, end, place, expected in rows:
        words = lines.get((name, int(line)), ())[int(first) : int(end)]
        if hash_of_words(words) != expected:
            raise ValueError(
                f"Line {line} of {folder / name} is not the text that was labelled: the hash of its words {first} to "
                f"{end} is {hash_of_words(words)}, not {expected}. Use the file of the shared data unchanged."
            )
        found.append(Occurrence(label, words, int(place) - int(first), f"{name}:{line}"))
    return found


def forms(occurrences: list[Occurrence]) -> list[Occurrence]:
    """Those of a past or a present form, with the form as their label."""
    return [replace(each, label=FORMS[each.label]) for each in occurrences if each.label in FORMS]


def word_vectors(model, tokenizer, occurrences: list[Occurrence]) -> dict[str, np.ndarray]:
    """The word's vectors by layer, and the layers' average: ``(occurrences, dim)`` each, float32."""
    sentences = [list(each.words) for each in occurrences]
    layers = embed_sentences(model, tokenizer, sentences, layers="all")
    rows = [each.vectors[:, one.place] for each, one in zip(layers, occurrences, strict=True)]
    return by_layer(np.stack(rows, axis=1))


def two_words_on_each_side(occurrences: list[Occurrence]) -> np.ndarray:
    """The baseline: which words stand at the two places before the word, and at the two behind it, as 0 and 1."""
    features = []
    for each in occurrences:
        padded = ["<S>", "<S>", *(word.lower() for word in each.words), "</S>", "</S>"]
        features.append({(offset, padded[each.place + 2 + offset]) for offset in (-2, -1, 1, 2)})
    names = sorted(set().union(*features))
    return np.array([[name in each for name in names] for each in features], dtype=np.float32)


def nearest_share(similarities: np.ndarray, labels: list[str], groups: list[str]) -> float:
    """The share of rows whose most similar row of another group has the same label.

    Rows that differ from the most similar by at most 1e-6 are nearest together: their share of right ones counts.

    Args:
        similarities: ``(rows, rows)``.
        labels: Of each row.
        groups: Of each row; rows of one group are no neighbours of each other.
    """
    names, parts = np.array(labels), np.array(groups)
    right = []
    for row, label, group in zip(similarities, names, parts, strict=True):
        others = np.where(parts == group, -np.inf, row)
        right.append((names[others >= others.max() - 1e-6] == label).mean())
    return float(np.mean(right))


def measure(model, tokenizer, occurrences: list[Occurrence], seed: int = 0) -> dict:
    """All measures of a set with two labels: counts, and shares by layer."""
    labels, groups = [each.label for each in occurrences], [each.group for each in occurrences]
    vectors = word_vectors(model, tokenizer, occurrences)
    vectors["two words on each side"] = two_words_on_each_side(occurrences)
    rows = {}
    for name, matrix in vectors.items():
        similarities = cosines(matrix)
        rows[name] = {
            "nearest": nearest_share(similarities, labels, groups),
            "triples": share_of_triples(similarities, labels)[0],
            "probe": cross_validated(matrix, labels, groups, folds=10, seed=seed),
        }
    return {"counts": dict(Counter(labels)), "share": rows}


def measure_both(model, tokenizer, seed: int = 0) -> dict:
    """The measures of both sets; that of the held-out fiction is left out, and says so, where its text is absent."""
    found = {"tense, other books": measure(model, tokenizer, read_books(), seed)}
    folder = shared_data("lm", "gutenberg_fiction")
    if folder.is_dir():
        found["form, held-out fiction"] = measure(model, tokenizer, forms(read_held_out(folder)), seed)
    else:
        print(f"The occurrences of the held-out fiction are left out: there is no {folder} (HF_ELMO_SHARED_DATA).")
    return found


def main(arguments: list[str] | None = None) -> dict:
    """Runs the measures with the options of a command line."""
    options = read_options(parser(__doc__, seeds=(0,)), arguments)
    tokenizer, model = load(options.model)
    found = measure_both(model, tokenizer, options.seeds[0])
    for name, each in found.items():
        print(f"{name}: {each['counts']}")
        for row, shares in each["share"].items():
            print(f"{row:26}" + "".join(f"{key:>9} {100 * share:5.1f}" for key, share in shares.items()))
    return write_table(options.output, "read", found, options, __spec__.name)


if __name__ == "__main__":
    main()
