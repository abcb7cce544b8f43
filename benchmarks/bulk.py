"""Bulk embedding: its rate, its memory, what it writes, and whether all ways to the result are one.

    python -m benchmarks.bulk rate [--words 50000] [--rounds 5]
    python -m benchmarks.bulk memory [--words 10000000] [--limit-mb 1500]
    python -m benchmarks.bulk same [--words 1000000] [--kills 10]
    python -m benchmarks.bulk sizes [--words 1000000]

The text is the first words of Wikipedia in the shared data, a paragraph a row, or that of `--text FILE ...`. The model
is elmo-mini, or `--model FOLDER`; vectors are its mix in float16, on the CPU, with one thread.

`rate` embeds the text in memory (`embed_sentences`, nothing is kept) and into a folder (`embed_corpus`) in turns, in
one process, and prints the median of each rate and of each round's ratio. It needs a quiet machine. `memory` runs
`hf-elmo embed-corpus`, and fails if more than `--limit-mb` was ever resident. `same` compares the files of one process,
of two at once, and of one that is killed (SIGKILL) at random moments and started again; it fails if any byte differs
or any file is left over. `sizes` embeds the text once, writes it in every format, and prints bytes and seconds a word.
All write into `--folder`, or a temporary folder, and delete it at the end: `memory` and `same` need 1 kB a word.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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

import psutil

import hf_elmo
from hf_elmo.vectors.bulk.shard_writers import SHARDS, ShardShape
from hf_elmo.vectors.embedder import EmbeddedRow
from hf_elmo.vectors.text_files import lines_of_files

from .harness.data import shared_data
from .harness.report import spread, table

DEFAULT_WORDS = {"rate": 50_000, "memory": 10_000_000, "same": 1_000_000, "sizes": 1_000_000}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_words(files: list[Path], path: Path, most: int) -> int:
    """Copies the first lines of texts until they have this many words (between white space)."""
    words = 0
    with path.open("w", encoding="utf-8") as out:
        for line in lines_of_files(files):
            out.write(line + "\n")
            words += len(line.split())
            if words >= most:
                return words
    return words


def command(options: argparse.Namespace, source: Path, output: Path) -> list[str]:
    """The command line that embeds a text."""
    more = ["--dtype", "float16", "--device", "cpu", "--shard-rows", str(options.shard_rows), "--no-progress"]
    more += ["-m", options.model] if options.model else []
    return [sys.executable, "-m", "hf_elmo", "embed-corpus", str(source), str(output), *more]


def start(arguments: list[str], **variables: object) -> subprocess.Popen:
    return subprocess.Popen(arguments, env={**ENVIRONMENT, **{name: str(value) for name, value in variables.items()}})


def measure_rate(options: argparse.Namespace, folder: Path, source: Path) -> dict:
    """Words a second in memory and into a folder, in turns."""
    import torch

    torch.set_num_threads(1)
    embedder = hf_elmo.Embedder(options.model, dtype="float16", device="cpu")
    model, tokenizer = embedder.load()

    def in_memory() -> int:
        sentences = hf_elmo.embed_sentences(model, tokenizer, lines_of_files([source]))
        return sum(len(sentence.words) for sentence in sentences)

    def into_folder() -> int:
        manifest = hf_elmo.embed_corpus(source, folder / "out", embedder, shard_rows=options.shard_rows, progress=False)
        assert manifest is not None, "there is one process"
        return manifest["totals"]["words"]

    # The first call lays out weights.
    for _ in hf_elmo.embed_sentences(model, tokenizer, islice(lines_of_files([source]), 100)):
        pass
    rates: dict[str, list[float]] = {"in memory": [], "embed_corpus": []}
    ways = {"in memory": in_memory, "embed_corpus": into_folder}
    for turn in range(options.rounds):
        for name in list(ways) if turn % 2 else reversed(ways):
            begun = time.perf_counter()
            words = ways[name]()
            rates[name].append(words / (time.perf_counter() - begun))
            shutil.rmtree(folder / "out", ignore_errors=True)
    shares = [100 * ours / theirs for ours, theirs in zip(rates["embed_corpus"], rates["in memory"])]
    for name, values in rates.items():
        print(f"{name}: {spread(values, 0)} words/s")
    print(f"embed_corpus: {spread(shares)} % of the rate in memory", flush=True)
    return {**rates, "share": shares}


def measure_memory(options: argparse.Namespace, folder: Path, source: Path) -> dict:
    """The most memory that a run takes; what is resident after each tenth of the text."""
    begun, output = time.perf_counter(), folder / "out"
    process = start(command(options, source, output))
    shards = sum(1 for _ in lines_of_files([source])) // options.shard_rows + 1
    resident: list[tuple[int, float]] = []
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(1)
        done = len(list((output / "data").glob("*.parquet"))) if output.exists() else 0
        if 10 * done // shards > len(resident):
            resident.append((done, psutil.Process(process.pid).memory_info().rss / 1e6))
            print(f"  shard {done} of {shards}: {resident[-1][1]:,.0f} MB resident", flush=True)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("Embedding failed.")
    seconds = time.perf_counter() - begun
    most = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    totals = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["totals"]
    print(f"{totals['words']:,} words in {seconds:,.0f} s; {totals['bytes'] / totals['words']:.1f} bytes a word")
    print(f"at most {most:,.0f} MB resident", flush=True)
    if most > options.limit_mb:
        sys.exit(f"More than {options.limit_mb:,.0f} MB were resident.")
    return {**totals, "resident_mb": most, "seconds": seconds}


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_same(expected: dict[str, str], folder: Path, how: str) -> None:
    found = contents(folder)
    if found != expected:
        differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        sys.exit(f"{how}: these files are not those of one process without interruption: {', '.join(differing)}")
    print(f"{how}: the same {len(found)} files, and no others", flush=True)


def check_rows(folder: Path, rows: int) -> None:
    """Every row of the text is there once, in its place."""
    import pyarrow.parquet as pq

    numbers = [number for path in sorted((folder / "data").iterdir())
               for number in pq.read_table(path, columns=["row"])["row"].to_pylist()]  # fmt: skip
    if numbers != list(range(rows)):
        sys.exit(f"The files have {len(numbers):,} rows, not the text's {rows:,}, each once and in order.")


def works(process: subprocess.Popen, output: Path) -> bool:
    """Waits until a process begins a shard; False if it ends before."""
    data = output / "data"
    before = set(os.listdir(data)) if data.exists() else set()
    while process.poll() is None:
        if data.exists() and set(os.listdir(data)) - before:
            return True
        time.sleep(0.01)
    return False


def embed(options: argparse.Namespace, source: Path, output: Path) -> float:
    """Embeds by one process; seconds from the first shard's beginning to the end."""
    process = start(command(options, source, output))
    works(process, output)
    begun = time.perf_counter()
    if process.wait() != 0:
        sys.exit("Embedding failed.")
    return time.perf_counter() - begun


def kill_and_resume(options: argparse.Namespace, source: Path, output: Path, seconds: float) -> int:
    """Starts a run again and again, killing it at random moments, until it is complete; how often it was killed."""
    moments, killed = random.Random(0), 0
    while killed < options.kills:
        process = start(command(options, source, output))
        try:
            if works(process, output):
                # All kills together share three quarters of the time of a whole run.
                process.wait(moments.random() * 1.5 * seconds / options.kills)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
            process.wait()
        else:
            if process.wait() != 0:
                sys.exit("A run that was started again failed.")
            return killed
    embed(options, source, output)
    return killed


def measure_same(options: argparse.Namespace, folder: Path, source: Path) -> dict:
    """One process, two at once, and one that is killed: they must write the same files."""
    seconds = {"one": embed(options, source, folder / "one")}
    expected = contents(folder / "one")
    check_rows(folder / "one", sum(1 for _ in lines_of_files([source])))
    shutil.rmtree(folder / "one")
    print(f"one process: {seconds['one']:,.0f} s without its start, {len(expected)} files, each row once", flush=True)
    arguments = command(options, source, folder / "two")
    both = [start(arguments, RANK=rank, WORLD_SIZE=2, LOCAL_RANK=rank) for rank in range(2)]
    works(both[0], folder / "two")
    begun = time.perf_counter()
    statuses = [process.wait() for process in both]
    if any(statuses):
        sys.exit("One of two processes failed.")
    seconds["two"] = time.perf_counter() - begun
    print(f"two processes: {seconds['two']:,.0f} s without their start", flush=True)
    check_same(expected, folder / "two", "two processes")
    shutil.rmtree(folder / "two")
    killed = kill_and_resume(options, source, folder / "killed", seconds["one"])
    check_same(expected, folder / "killed", f"killed {killed} times and started again")
    return {"seconds": seconds, "files": len(expected), "killed": killed}


# Layers, pooling, format and dtype of what `sizes` writes.
_KINDS = [
    *(("top", None, name, dtype) for name in ("parquet", "safetensors") for dtype in ("float16", "float32")),
    ("top", None, "hdf5", "float32"),
    *(("all", None, name, dtype) for name in ("parquet", "safetensors") for dtype in ("float16", "float32")),
    ("all", None, "hdf5", "float32"),
    ("top", "mean", "parquet", "float16"),
    ("all", "mean", "parquet", "float16"),
]


def _as_kind(row: EmbeddedRow, layers: str, pooling: str | None, dtype: str) -> EmbeddedRow:
    """A row of all layers in float32 as an `Embedder` with these options gives it."""
    assert row.vectors is not None, "it is not pooled"
    vectors = row.vectors if layers == "all" else row.vectors[-1]
    if pooling and not row.words:
        return EmbeddedRow(row.words, None, [])
    return EmbeddedRow(row.words, (vectors.mean(-2) if pooling else vectors).astype(dtype), [])


def tokenizing_seconds(tokenizer: hf_elmo.ElmoTokenizer, lines: list[str]) -> float:
    """Seconds of the processor for splitting texts into words and making tensors of these."""
    begun = time.process_time()
    words = [tokenizer.tokenize(line) for line in lines]
    for start in range(0, len(words), 32):
        tokenizer(words[start : start + 32], is_split_into_words=True, padding=True, return_tensors="pt")
    return time.process_time() - begun


def measure_sizes(options: argparse.Namespace, folder: Path, source: Path) -> dict:
    """Bytes a word, and the time that embedding and writing take, of every kind of shard."""
    import torch

    torch.set_num_threads(1)
    embedder = hf_elmo.Embedder(options.model, layers="all", device="cpu")
    _, tokenizer = embedder.load()
    sizes, seconds = [0] * len(_KINDS), [0.0] * len(_KINDS)
    rows = words = 0
    embedding = tokenizing = 0.0
    lines = lines_of_files([source])
    for part in iter(lambda: list(islice(lines, options.shard_rows)), []):
        writers = []
        for place, (layers, pooling, name, dtype) in enumerate(_KINDS):
            shape = ShardShape(embedder.dim, embedder.num_layers if layers == "all" else None, bool(pooling), dtype)
            path = folder / f"{place}{SHARDS[name].suffix}"
            writers.append(SHARDS[name](path, shape, path))
        tokenizing += tokenizing_seconds(tokenizer, part)
        begun = time.process_time()
        for row in embedder.embed(part):
            embedding += time.process_time() - begun
            words += len(row.words)
            for place, (layers, pooling, _, dtype) in enumerate(_KINDS):
                begun = time.process_time()
                writers[place].write(rows, (), *_as_kind(row, layers, pooling, dtype)[:2])
                writers[place].wait()
                seconds[place] += time.process_time() - begun
            rows, begun = rows + 1, time.process_time()
        for place, writer in enumerate(writers):
            begun = time.process_time()
            writer.finish()
            seconds[place] += time.process_time() - begun
            sizes[place] += writer.path.stat().st_size
            writer.path.unlink()
    lines_out = [
        [", ".join(filter(None, kind)), f"{sizes[place] / words:,.1f}", f"{sizes[place] / rows:,.0f}",
         f"{1e6 * seconds[place] / words:.1f}"]
        for place, kind in enumerate(_KINDS)
    ]  # fmt: skip
    print(
        f"{rows:,} rows, {words:,} words; us of the processor a word: {1e6 * embedding / words:,.0f}, of which "
        f"tokenizing {1e6 * tokenizing / words:,.1f}"
    )
    print(table(["", "bytes a word", "bytes a row", "us to write a word"], lines_out), flush=True)
    return {"rows": rows, "words": words, "sizes": dict(zip(_KINDS, sizes)), "seconds": [embedding, tokenizing]}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=DEFAULT_WORDS)
    parser.add_argument("--words", type=int, help=f"words between white space; {DEFAULT_WORDS}")
    parser.add_argument("--rounds", type=int, default=5, help="of rate")
    parser.add_argument("--limit-mb", type=float, default=1500, help="most memory that may be resident, of memory")
    parser.add_argument("--kills", type=int, default=10, help="of same")
    parser.add_argument("--shard-rows", type=int, default=1000)
    parser.add_argument("--model", help="a model folder; the bundled model if not given")
    parser.add_argument("--folder", help="where to write; the system's folder for temporary files if not given")
    parser.add_argument("--text", type=Path, nargs="+", help="text files, a row on each line")
    options = parser.parse_args(arguments)
    files = options.text or [shared_data("lm", "wikipedia_en_2015", "train.txt.gz")]
    if options.folder:
        os.makedirs(options.folder, exist_ok=True)
    measures = {"rate": measure_rate, "memory": measure_memory, "same": measure_same, "sizes": measure_sizes}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder, "text.txt")
        words = write_words(files, source, options.words or DEFAULT_WORDS[options.what])
        print(f"{words:,} words between white space", flush=True)
        return measures[options.what](options, Path(folder), source)


if __name__ == "__main__":
    main()
