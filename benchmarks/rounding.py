"""Whose rounding errors are they: hf_elmo's fp32 and AllenNLP's, both against hf_elmo in float64.

    HF_ELMO_ALLENNLP_PYTHON=PYTHON python -m benchmarks.rounding --work FOLDER [--sentences N]

Both read the same sentences in batches of 32, original size, from words to all layers, as in `run.py`. Told are the
largest error of a number in any layer, and the root of the mean square of all. (That float64 is right is what
`tests/test_reference.py` tests, by formulas in numpy.)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from .harness.report import table
from .run import Comparison, prepare, present_peers


def in_float64(folder: Path, words: list[list[str]], batch: int) -> np.ndarray:
    """All layers of all words in float64, ``(layers, words, dim)``."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    import hf_elmo  # noqa: F401  (the Auto classes know ELMo)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    parts = []
    for begin in range(0, len(words), batch):
        some = words[begin : begin + batch]
        inputs = tokenizer(some, is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            layers = torch.stack(model(**inputs, output_hidden_states=True).hidden_states).numpy()
        parts += [layers[:, row, 1 : len(sentence) + 1] for row, sentence in enumerate(some)]
    return np.concatenate(parts, axis=1)


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Measures with the options of a command line: each program's largest and mean error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for models and sentences, as of benchmarks.run"
    )
    parser.add_argument("--size", default="original")
    parser.add_argument("--sentences", type=int, default=192)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    work = options.work.absolute()
    prepare(work, None)
    peers, _ = present_peers()
    comparison = Comparison(work, options.threads, {name: peers[name] for name in peers if name == "allennlp"})
    words = comparison.sentences[: options.sentences]
    expected = in_float64(work / options.size / "fp32", words, 32)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for column in comparison.columns(["fp32"]):
            kept = Path(folder) / f"{column}.npy"
            with comparison.start(column) as process:
                comparison.load(process, column, options.size)
                process.ask("work", task="batch", words=words, batch=32, keep=str(kept))
            errors = np.load(kept) - expected
            results[column] = float(np.abs(errors).max()), float(np.sqrt(np.square(errors).mean()))
    lines = [[column, f"{largest:.1e}", f"{mean:.1e}"] for column, (largest, mean) in results.items()]
    print(table([f"{sum(map(len, words))} words, {options.size}", "largest error", "root mean square"], lines))
    return results


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
