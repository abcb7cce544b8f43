"""English to German on Multi30k (Elliott et al. 2016): a frozen ELMo as the encoder, beside two others.

    python -m benchmarks.quality.multi30k --output multi30k.json

Captions of photographs. Arms, sizes and budget: `writing.py`. Scores are BLEU and chrF of sacreBLEU (its defaults) on
the whole of test_2016_flickr, with mean and standard deviation over the seeds. A run takes some minutes of one core.

The data (https://github.com/multi30k/dataset, task 1, raw) is read from the folder given by --data, or from
`translation/multi30k_task1_en_de` in the folder of shared data (HF_ELMO_SHARED_DATA, or `../shared/data`).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from ..harness.data import shared_data
from .writing import Pairs, Recipe, parser, run_recipe


def read_pairs(folder: Path, split: str) -> Pairs:
    """English and German sentences of `split.en.gz` and `split.de.gz`."""
    sides = []
    for language in ("en", "de"):
        with gzip.open(folder / f"{split}.{language}.gz", "rt", encoding="utf-8") as file:
            sides.append([line.strip() for line in file])
    return [(source, target) for source, target in zip(*sides, strict=True) if source and target]


def score(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU and chrF of all texts together."""
    return {
        name: round(metric.corpus_score(list(texts), [list(references)]).score, 2)
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF()))
    }


def main(arguments: list[str] | None = None) -> dict:
    """Runs the experiment with the options of a command line."""
    options = parser(__doc__.splitlines()[0]).parse_args(arguments)
    folder = options.data or shared_data("translation", "multi30k_task1_en_de")
    train, test = read_pairs(folder, "train"), read_pairs(folder, "test_2016_flickr")
    return run_recipe(options, Recipe(), train, test, score)


if __name__ == "__main__":
    main()
