"""Which words are near a word: related words by kind, by three kinds of vectors.

    python -m benchmarks.quality.words [--model FOLDER] [--output FILE.json]

`word_pairs.tsv` has 147 pairs of four kinds: derivation, inflection, spelling variant and misspelling. For each pair
the words of the model's vocabulary (the 12,000 most frequent, without the word itself) are ordered by cosine to the
first word, and the result is the rank of the second. The vectors:

- *by spelling*: the context-free layer (layer 0), which reads characters;
- *character 3-5-grams*: counts of the word's n-grams, with a mark at both ends; nothing is trained;
- *by use*: rows of the softmax; misspellings have none.

Given are the median rank and the share of pairs of rank 1, and of rank 10 or better. Words with equal cosines share
their mean rank. Nothing is random. About half a minute of CPU time (AMD EPYC).
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from hf_elmo.explore.nearest_words import NearestWords

from .tables import load_language_model, parser, read_options, write_table

PAIRS = Path(__file__).with_name("word_pairs.tsv")
MOST_WORDS = 12_000
NGRAMS = "character 3-5-grams"


def read_pairs(path: Path = PAIRS) -> list[tuple[str, str, str]]:
    """Kind, word and related word of each pair.

    Raises:
        ValueError: for a line without three columns.
    """
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != 3:
            raise ValueError(f"{path}, line {number}: kind, word and related word, with tabs between, were expected.")
        pairs.append((cells[0], cells[1], cells[2]))
    return pairs


def rank(cosines: dict[str, float], word: str) -> float:
    """The rank of a word among words with cosines, from 1; words with the same cosine share their mean rank."""
    own = cosines[word]
    better = sum(each > own for each in cosines.values())
    equal = sum(each == own for each in cosines.values())
    return better + (equal + 1) / 2


def ngram_cosines(words: list[str], asked: list[str]) -> np.ndarray:
    """Cosines of the counts of 3- to 5-grams, ``(asked, words)``; capitals are other letters than small ones."""
    vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False, dtype=np.float64)
    matrix = vectorizer.fit_transform(words)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
    asked_matrix = vectorizer.transform(asked)
    asked_norms = np.sqrt(np.asarray(asked_matrix.multiply(asked_matrix).sum(axis=1))).ravel()
    return (asked_matrix @ matrix.T).toarray() / np.maximum(np.outer(asked_norms, norms), 1e-12)


def measure(model, tokenizer, pairs: list[tuple[str, str, str]], most_words: int = MOST_WORDS) -> dict:
    """The ranks of all pairs, and for each kind of pair and of vectors what they sum up to.

    Raises:
        ValueError: for a related word that is not among the words that are ordered.
    """
    nearest = NearestWords(model, tokenizer, most_words)
    known = set(nearest.words)
    if absent := [right for _, _, right in pairs if right not in known]:
        raise ValueError(f"{absent[0]!r} is not among the model's {len(known):,} most frequent words; use other pairs.")
    grams = ngram_cosines(nearest.words, [word for _, word, _ in pairs])
    ranks = []
    for (kind, word, right), of_grams in zip(pairs, grams, strict=True):
        row: dict[str, str | float | None] = {"kind": kind, "word": word, "related": right}
        others = {each: float(cosine) for each, cosine in zip(nearest.words, of_grams, strict=True) if each != word}
        row[NGRAMS] = rank(others, right)
        row["by spelling"] = rank(dict(nearest.by_spelling(word, None)), right)
        by_use = nearest.by_use(word, None)
        row["by use"] = None if by_use is None else rank(dict(by_use), right)
        ranks.append(row)
    kinds = [*dict.fromkeys(kind for kind, _, _ in pairs), "all"]
    return {
        "words": len(nearest.words),
        "kinds": {
            kind: {
                name: summarized([row[name] for row in ranks if kind in (row["kind"], "all")])
                for name in ("by spelling", NGRAMS, "by use")
            }
            for kind in kinds
        },
        "pairs": ranks,
    }


def summarized(ranks: list) -> dict[str, float] | None:
    """Median rank, shares of rank 1 and of 10 or better, and number of the pairs that have a rank; None for none."""
    present = [each for each in ranks if each is not None]
    if not present:
        return None
    return {
        "median rank": statistics.median(present),
        "first": sum(each <= 1 for each in present) / len(present),
        "first ten": sum(each <= 10 for each in present) / len(present),
        "pairs": len(present),
    }


def main(arguments: list[str] | None = None) -> dict:
    """Runs the measures with the options of a command line."""
    options = read_options(parser(__doc__, seeds=(0,)), arguments)
    tokenizer, model = load_language_model(options.model)
    found = measure(model, tokenizer, read_pairs())
    print(f"Median rank, rank 1 in %, rank 1 to 10 in %, among {found['words']:,} words:")
    for kind, names in found["kinds"].items():
        for name, each in names.items():
            if each is not None:
                shares = f"{100 * each['first']:8.0f}{100 * each['first ten']:8.0f}{each['pairs']:8}"
                print(f"{kind:18}{name:22}{each['median rank']:8.1f}{shares}")
    return write_table(options.output, "words", found, options, __spec__.name)


if __name__ == "__main__":
    main()
