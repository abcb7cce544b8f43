"""Headlines of English Wikinews from first paragraphs: a frozen ELMo as the encoder, beside two others.

    python -m benchmarks.quality.headlines --output headlines.json

Arms, sizes and budget: `writing.py`. Scores are the F of ROUGE-1, ROUGE-2 and ROUGE-L (rouge-score, with stemming), in
percent, with mean and standard deviation over the seeds; beside them `lead` (the first eight words, as many as a
headline has on average) and `copy` (the whole paragraph).

The data is read from the folder given by --data, or from `summarization/wikinews_headlines` in the folder of shared
data (HF_ELMO_SHARED_DATA, or `../shared/data`): lines of id, title and paragraph, with tabs between them.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from ..harness.data import shared_data
from .writing import Pairs, Recipe, parser, run_recipe

NAMES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l"}


def read_pairs(path: Path) -> Pairs:
    """Paragraphs and their titles."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [(paragraph, title) for _, title, paragraph in rows if title.strip() and paragraph.strip()]


def score(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F of each ROUGE, in percent."""
    scorer = RougeScorer(list(NAMES), use_stemmer=True)
    found = [scorer.score(reference, text) for text, reference in zip(texts, references, strict=True)]
    return {own: round(100 * sum(each[name].fmeasure for each in found) / len(found), 2) for name, own in NAMES.items()}


def main(arguments: list[str] | None = None) -> dict:
    """Runs the experiment with the options of a command line."""
    options = parser(__doc__.splitlines()[0]).parse_args(arguments)
    folder = options.data or shared_data("summarization", "wikinews_headlines")
    train, test = read_pairs(folder / "train.tsv.gz"), read_pairs(folder / "test.tsv")
    paragraphs = [source for source, _ in test]
    baselines = {"lead": [" ".join(text.split()[:8]) for text in paragraphs], "copy": paragraphs}
    return run_recipe(options, Recipe(target_tokens=40), train, test, score, baselines)


if __name__ == "__main__":
    main()
