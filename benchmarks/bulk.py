"""Bulk embedding: its rate beside embedding in memory, its memory, and whether all ways to the result are one.

    python -m benchmarks.bulk [--words 10000000] [--limit-mb 1500] [--kills 10] [--folder DIR] [--text FILE ...]
    python -m benchmarks.bulk sizes [--words 1000000]

The first embeds with elmo-mini (its mix, float16, one thread, one process at a time) the first words of the text
(Wikipedia of the shared data): a tenth of them in memory, by `embed_sentences` without keeping anything, before and
after all of them by `hf-elmo embed-corpus`; it fails if more than `--limit-mb` was resident. Then a tenth of the words
by one process, by two at once, and by one that is killed (SIGKILL) at random moments and started again, which must make
the same files. `sizes` writes words in every format and dtype, and tells bytes a word.

It needs a quiet machine, and on the disk 0.8 kB a word.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import hf_elmo
from hf_elmo.vectors.text_files import lines_of_files

from .harness.data import shared_data

SHARD_ROWS = 1000
# Processes that run at once are counted for memory one by one.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_words(files: list[Path], path: Path, most: int) -> int:
    """The first lines of texts, until they have so many words (between white space)."""
    words = 0
    with path.open("w", encoding="utf-8") as out:
        for line in lines_of_files(files):
            out.write(line + "\n")
            words += len(line.split())
            if words >= most:
                return words
    return words


def command(source: Path, output: Path, *more: object) -> list[str]:
    options = ["--dtype", "float16", "--shard-rows", SHARD_ROWS, "--no-progress"]
    return [sys.executable, "-m", "hf_elmo", "embed-corpus", *map(str, (source, output, *options, *more))]


def run(arguments: list[str], **variables: object) -> subprocess.Popen:
    return subprocess.Popen(arguments, env={**ENVIRONMENT, **{name: str(value) for name, value in variables.items()}})


def in_memory_rate(source: Path) -> float:
    """Words in a second of `embed_sentences`, with nothing written."""
    import torch

    torch.set_num_threads(1)
    model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    # The first call lays out weights.
    for _ in hf_elmo.embed_sentences(model, tokenizer, islice(lines_of_files([source]), 200)):
        pass
    started = time.perf_counter()
    sentences = hf_elmo.embed_sentences(model, tokenizer, lines_of_files([source]))
    words = sum(len(sentence.words) for sentence in sentences)
    return words / (time.perf_counter() - started)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_same(expected: dict[str, str], folder: Path) -> None:
    if contents(folder) != expected:
        sys.exit("The files are not those of one process without interruption.")
    print("  the files are the same", flush=True)


def kill_and_resume(source: Path, output: Path, kills: int, seconds: float) -> int:
    """Runs until it is complete, killed at random moments; how often it was."""
    moments, killed = random.Random(0), 0
    while killed < kills:
        process = run(command(source, output))
        try:
            # Some seconds go into starting.
            if process.wait(5 + moments.random() * 2 * seconds / kills) != 0:
                sys.exit("A run that was started again failed.")
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    if run(command(source, output)).wait() != 0:
        sys.exit("The last run failed.")
    return killed


def measure(options: argparse.Namespace, folder: Path, files: list[Path]) -> None:
    whole, part = folder / "whole.txt", folder / "part.txt"
    counted = write_words(files, whole, options.words), write_words(files, part, options.words // 10)
    print(f"{counted[0]:,} and {counted[1]:,} words between white space", flush=True)
    before = in_memory_rate(part)
    print(f"in memory, before: {before:,.0f} words/s", flush=True)

    started = time.perf_counter()
    process = run(command(whole, folder / "all"))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit("Embedding failed.")
    manifest = hf_elmo.embed_corpus(
        whole, folder / "all", hf_elmo.Embedder(dtype="float16"), shard_rows=SHARD_ROWS, progress=False
    )
    totals = manifest["totals"]
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    rate = totals["words"] / seconds
    print(f"embed-corpus: {totals['words']:,} words in {seconds:,.1f} s, start included: {rate:,.0f} words/s")
    print(f"  at most {resident:,.0f} MB resident; {totals['bytes'] / totals['words']:.0f} bytes a word", flush=True)
    shutil.rmtree(folder / "all")
    after = in_memory_rate(part)
    print(f"in memory, after: {after:,.0f} words/s; embed-corpus: {200 * rate / (before + after):.1f} % of the mean")

    started = time.perf_counter()
    if run(command(part, folder / "one")).wait():
        sys.exit("Embedding failed.")
    seconds = time.perf_counter() - started
    expected = contents(folder / "one")
    both = [run(command(part, folder / "two"), RANK=rank, WORLD_SIZE=2, LOCAL_RANK=rank) for rank in range(2)]
    started = time.perf_counter()
    statuses = [process.wait() for process in both]
    if any(statuses):
        sys.exit("One of two processes failed.")
    print(
        f"one process {seconds:,.1f} s, two at once {time.perf_counter() - started:,.1f} s, start included", flush=True
    )
    check_same(expected, folder / "two")
    killed = kill_and_resume(part, folder / "killed", options.kills, seconds)
    print(f"killed {killed} times and resumed")
    check_same(expected, folder / "killed")
    if resident > options.limit_mb:
        sys.exit(f"More than {options.limit_mb} MB were resident.")


def measure_sizes(options: argparse.Namespace, folder: Path, files: list[Path]) -> None:
    source = folder / "text.txt"
    write_words(files, source, options.words)
    for layers in ("mix", "all"):
        for format, dtypes in (
            ("parquet", ("float16", "float32")),
            ("safetensors", ("float16",)),
            ("hdf5", ("float32",)),
        ):
            for dtype in dtypes:
                output = folder / f"{format}-{dtype}-{layers}"
                embedder = hf_elmo.Embedder(dtype=dtype, layers=layers)
                manifest = hf_elmo.embed_corpus(source, output, embedder, format=format, shard_rows=SHARD_ROWS)
                totals = manifest["totals"]
                size = totals["bytes"] / totals["words"]
                print(f"{format}, {dtype}, {layers}: {totals['words']:,} words, {size:,.1f} bytes a word", flush=True)
                shutil.rmtree(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("rate", "sizes"), default="rate")
    parser.add_argument("--words", type=int, default=10_000_000, help="words between white space")
    parser.add_argument("--limit-mb", type=float, default=1500, help="most memory that is resident")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", help="where to write; a temporary folder if not given")
    parser.add_argument("--text", type=Path, nargs="+", help="text files, a paragraph or a sentence on each line")
    options = parser.parse_args()
    files = options.text or [shared_data("lm", "wikipedia_en_2015", "train.txt.gz")]
    if options.folder:
        os.makedirs(options.folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        (measure_sizes if options.what == "sizes" else measure)(options, Path(folder), files)


if __name__ == "__main__":
    main()
