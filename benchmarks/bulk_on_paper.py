"""Embedding very many words, on paper: machines, hours, storage and cost, from constants that were measured.

    python -m benchmarks.bulk_on_paper [--words 1e12] [--us-a-word 242] [--other-bytes 8.8] ...

Prints the tables of docs/scale.md. Each default is a figure of this project's own measurements, and the help says of
which command; give your machine's. Prices are assumptions, not measurements.
"""

from __future__ import annotations

import argparse
import math

from .harness.report import table

# Of `python -m benchmarks.bulk sizes`, on a core of an Intel Xeon (Ice Lake); a training ran on the other one.
US_A_WORD, TOKENIZING_US, WRITING_US, OTHER_BYTES, WORDS_A_ROW = 242.0, 7.6, 12.0, 8.8, 92.1
HOUR = 3600.0
# Numbers of a vector: of elmo-mini, and of the published models of original size.
DIMS = {"elmo-mini": 384, "original": 1024}
BYTES = {"float16": 2, "float32": 4}


def figure(value: float) -> str:
    """With a digit behind the point below a hundred."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def storage(options: argparse.Namespace) -> list[list[str]]:
    """Bytes a word and TB of all words: vectors of a size, and what a row has beside them."""
    rows = []
    for model, dim in DIMS.items():
        for layers, count in (("one layer, or the mix", 1), ("all three layers", 3)):
            for dtype, size in BYTES.items():
                each = dim * count * size + options.other_bytes
                rows.append([f"{model}, {layers}, {dtype}", figure(each), figure(each * options.words / 1e12)])
    for model, dim in DIMS.items():
        each = (dim * 2 + options.other_bytes) / options.words_a_row
        rows.append([f"{model}, pooled, float16", figure(each), figure(each * options.words / 1e12)])
    return rows


def machines(options: argparse.Namespace) -> list[list[str]]:
    """Words a second of a machine, machine hours, days of a hundred machines, MB to write a second, and the price."""
    cores = options.cores
    kinds = [
        (f"elmo-mini, {cores} cores", cores * 1e6 / options.us_a_word, "elmo-mini", cores * options.core_price),
        (f"original, {cores} cores", cores * options.original_core_rate, "original", cores * options.core_price),
        ("original, a GPU (LSTMs alone)", options.gpu_rate, "original", options.gpu_price),
    ]
    rows = []
    for name, rate, model, price in kinds:
        hours = options.words / rate / HOUR
        written = rate * (DIMS[model] * 2 + options.other_bytes) / 1e6
        days = hours / 100 / 24
        rows.append([name, *map(figure, (rate, hours, days, written, hours * price))])
    return rows


def main(arguments: list[str] | None = None) -> dict[str, list[list[str]]]:
    """Prints the tables; their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=float, default=1e12)
    parser.add_argument(
        "--us-a-word", type=float, default=US_A_WORD, help="of a core, elmo-mini: benchmarks.bulk sizes"
    )
    parser.add_argument("--tokenizing-us", type=float, default=TOKENIZING_US, help="of that: benchmarks.bulk sizes")
    parser.add_argument("--writing-us", type=float, default=WRITING_US, help="float16 Parquet: benchmarks.bulk sizes")
    parser.add_argument("--other-bytes", type=float, default=OTHER_BYTES, help="a word, beside its vectors: as before")
    parser.add_argument("--words-a-row", type=float, default=WORDS_A_ROW, help="of the text: as before")
    parser.add_argument("--original-core-rate", type=float, default=895 / 2, help="words/s, fp32: benchmarks.run")
    parser.add_argument("--gpu-rate", type=float, default=6400 / 4.40e-3, help="words/s, bf16, H200: benchmarks.gpu")
    parser.add_argument("--cores", type=int, default=64, help="of a machine")
    parser.add_argument("--core-price", type=float, default=0.04, help="dollars an hour, assumed")
    parser.add_argument("--gpu-price", type=float, default=3.0, help="dollars an hour, assumed")
    options = parser.parse_args(arguments)
    tables = {"storage": storage(options), "machines": machines(options)}
    print(table(["", "bytes a word", "TB"], tables["storage"]), end="\n\n")
    heads = ["", "words/s", "machine hours", "days of 100", "MB/s to write", "dollars"]
    print(table(heads, tables["machines"]), end="\n\n")
    feeding = options.gpu_rate * (options.tokenizing_us + options.writing_us) / 1e6
    print(f"Cores that tokenize and write for one GPU: {math.ceil(feeding)}")
    return tables


if __name__ == "__main__":
    main()
