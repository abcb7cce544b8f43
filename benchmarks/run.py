"""hf_elmo beside its peers: speed, memory, exactness, and the floor of the machine.

    python -m benchmarks.run [--short] [--output PLACE] [--rounds N] [--rows NAME ...] [--work FOLDER] [--threads N]

`--output benchmarks/results` leaves a file named after the processor and the day there, of which
`python -m benchmarks.harness.pages` makes the tables of README.md and docs/performance.md.

Every program runs in a process of its own, with the Python of its own environment: `HF_ELMO_ALLENNLP_PYTHON`,
`HF_ELMO_SIMPLE_ELMO_PYTHON` and `HF_ELMO_FAST_ELMO_PYTHON` name the peers' Pythons (`python -m
benchmarks.harness.peers install` makes them). A peer without one is left out, and the output says so. The programs
take turns: in each round all of them get the same work, one after the other. What counts is each round's ratio to
AllenNLP's time (the median, the smallest and the largest). Every round has other sentences, the next ones of a real
text, so a program can reuse from earlier rounds only what the text itself repeats. The first turn of each program
warms it up and is not counted.

Work begins with sentences of words and ends with all three layers of every word; tensors of characters are made on
the way. A word counts once; `<S>` and `</S>` do not count. The rows:

- batch N: N sentences in the order of the text, padded by the programs that pad.
- corpus, batch N: sentences that may be sorted. hf_elmo's `embed_sentences` sorts them in windows, into batches of as
  many words as N sentences have on average; the others get batches of N of the same sentences sorted by length.
- training step: forward and backward pass of the biLM and its character encoder, all gradients, of the mean of
  squares of each layer; dropout is off.
- character rows: what the characters of words are in numbers (AllenNLP: `batch_to_ids`, hf_elmo: `character_rows`).
- tokenizer call: hf_elmo's whole tokenizer call with tensors for the model (AllenNLP: `batch_to_ids` again).

Exactness is measured in the first counted round: fp32 is compared with AllenNLP, bf16 and int8 with hf_elmo's own fp32,
by the largest difference of a number, and the lowest and mean cosine of a word's layer. The floor is explained in
`harness/floor.py`; what it depends on is measured anew in every round (`harness/machine.py`). Memory is the peak of a
process, less what it had after its imports; for this each program is loaded by itself and reads a corpus once.

Without --work the models, 1.3 GB, are made in a temporary folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hf_elmo.whole_files import new_file

from .harness import report
from .harness.floor import BYTES, Shape, floor
from .harness.machine import BLOCK, facts
from .harness.material import text_of
from .harness.origin import command_of, commit, file_name
from .harness.peers import CONTESTANT, PEERS, clean_environment, python_of
from .harness.process import Ended, Process

#: Sentences of the measure of memory.
MEMORY_SENTENCES = 256


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: What it is called.
        size: The model.
        task: As in `contestant.Server.work`.
        batch: Sentences at once.
        sentences: Sentences of a round.
        rounds: Rounds that count; of the short version at most two.
        kinds: hf_elmo's kinds of numbers that are measured.
        words: All sentences have this many words; None: as they are.
    """

    name: str
    size: str
    task: str
    batch: int
    sentences: int
    rounds: int = 5
    kinds: tuple[str, ...] = ("fp32", "bf16", "int8")
    words: int | None = None

    @property
    def is_trained(self) -> bool:
        return self.task == "train"

    @property
    def is_read(self) -> bool:
        return self.task in ("batch", "corpus")

    def short(self) -> Row:
        """The same in little time."""
        few = {"corpus": 128, "batch": max(self.batch, 2 if self.size == "original" else 16)}.get(
            self.task, self.sentences
        )
        rounds = 1 if self.task in ("corpus", "train") else 2
        return replace(self, sentences=min(few, self.sentences), rounds=rounds)


ROWS = (
    Row("character rows", "small", "rows", 32, 320, kinds=("fp32",)),
    Row("tokenizer call", "small", "tokenize", 32, 320, kinds=("fp32",)),
    Row("small, batch 1", "small", "batch", 1, 32, 7),
    Row("small, batch 32", "small", "batch", 32, 128),
    Row("original, batch 1", "original", "batch", 1, 4, 7),
    Row("original, batch 32", "original", "batch", 32, 32),
    Row("original, corpus, batch 128", "original", "corpus", 128, 384, 3),
    Row("training step, original, 16 x 20 words", "original", "train", 16, 16, 2, ("fp32",), 20),
)


class Comparison:
    """A run of the benchmark.

    Args:
        work: The folder of `harness/material.py`.
        threads: Of every program.
        peers: The Pythons of the peers that take part.
    """

    def __init__(self, work: Path, threads: int, peers: dict[str, str]):
        self.work, self.threads, self.peers = work, threads, peers
        self.sentences: list[list[str]] = json.loads((work / "sentences.json").read_text(encoding="utf-8"))
        self.place = 0
        self.versions: dict[str, dict] = {}
        self.notes: dict[str, str] = {}

    def columns(self, kinds) -> list[str]:
        """Who takes part, in the order of their turns."""
        return [*self.peers, *(f"hf_elmo {kind}" for kind in kinds)]

    def start(self, column: str) -> Process:
        """Starts the process of a column, such as `allennlp` or `hf_elmo bf16`."""
        program, _, _ = column.partition(" ")
        python = self.peers.get(program, sys.executable)
        variables = {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment = clean_environment(**variables) if program in PEERS else {**os.environ, **variables}
        log = self.work / f"{column.replace(' ', '-')}.log"
        return Process([python, CONTESTANT, program, "--threads", self.threads], environment, log)

    def load(self, process: Process, column: str, size: str, trained: bool = False) -> dict:
        """Loads a model, and gives the answer; a reason for not taking part is noted once."""
        kind = column.partition(" ")[2] or "fp32"
        answer = process.ask("load", folder=str(self.work / size), kind=kind, trained=trained)
        self._note(column, answer)
        return answer

    def _note(self, column: str, answer: dict) -> None:
        for key in ("unavailable", "error"):
            if key in answer:
                self.notes.setdefault(f"{column}: {answer[key]}", key)

    def next_sentences(self, row: Row) -> list[list[str]]:
        """The next sentences of the text for a row, from its begin again at its end."""
        taken: list[list[str]] = []
        for number in itertools.count(self.place):
            sentence = self.sentences[number % len(self.sentences)]
            if len(sentence) >= (row.words or 0):
                taken.append(sentence[: row.words])
            if len(taken) == row.sentences:
                self.place = number + 1
                return taken
            if number > self.place + 100 * len(self.sentences):
                raise ValueError(f"The text has no sentence of {row.words} words.")

    def measure_rows(self, rows: list[Row]) -> list[dict]:
        """All rows, those of one model together, so that it need not be loaded again."""
        results = []
        for (size, trained), group in itertools.groupby(rows, key=lambda row: (row.size, row.is_trained)):
            group = list(group)
            kinds = [kind for kind in BYTES if any(kind in row.kinds for row in group)]
            with ExitStack() as stack:
                shape = Shape.of(self.work / size / "fp32")
                machine = stack.enter_context(self._machine(shape))
                processes = {}
                for column in self.columns(kinds):
                    process = stack.enter_context(self.start(column))
                    try:
                        self.versions.setdefault(column, process.ask("hello")["versions"])
                        # Tokenizing needs the tokenizer, which comes with the model.
                        if "seconds" in self.load(process, column, size, trained):
                            processes[column] = process
                    except Ended as reason:
                        self.notes[f"{column}: {reason}"] = "error"
                for row in group:
                    print(f"... {row.name}", file=sys.stderr, flush=True)
                    results.append(self._measure(row, shape, machine, processes))
        return results

    def _machine(self, shape: Shape) -> Process:
        command = [sys.executable, "-m", "benchmarks.harness.machine", "--serve", "--threads", self.threads]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        process = Process(command, environment, self.work / "machine.log")
        sizes = {
            weights * count for weights in (*shape.step_weights, sum(shape.step_weights)) for count in BYTES.values()
        }
        self.blocks = [*sorted(size for size in sizes if size < BLOCK), BLOCK]
        self.versions["machine"] = process.ask("hello", blocks=self.blocks)
        return process

    def _measure(self, row: Row, shape: Shape, machine: Process, processes: dict[str, Process]) -> dict:
        columns = [column for column in self.columns(row.kinds) if column in processes]
        rounds = []
        kept = {column: self.work / f"kept-{column.replace(' ', '-')}.npy" for column in columns}
        others = None if row.task == "corpus" else self.next_sentences(row)[: row.batch]
        for number in range(-1, row.rounds):
            words = self.next_sentences(row)
            if number < 0:
                # A turn that warms up: little of what takes AllenNLP minutes.
                words = words[:1] if row.is_trained else words[: 2 * row.batch]
            limits = machine.ask("measure") if number >= 0 else None
            seconds, floors, system = {}, {}, {}
            for column in list(columns):
                keep = str(kept[column]) if number == 0 and (row.is_read or row.is_trained) else None
                try:
                    before = others if number >= 0 else None
                    answer = processes[column].ask(
                        "work", task=row.task, words=words, batch=row.batch, keep=keep, before=before
                    )
                    self._note(column, answer)
                except Ended as reason:
                    answer = {}
                    self.notes[f"{column}, {row.name}: {reason}"] = "error"
                    del processes[column]
                if "seconds" not in answer:
                    columns.remove(column)
                    continue
                seconds[column], system[column] = answer["seconds"], answer["system"]
                kind = column.partition(" ")[2]
                if limits is not None and kind in row.kinds and (row.is_read or row.is_trained):
                    floors[kind] = self._floor(row, shape, words, kind, limits)
            if number >= 0:
                count = sum(map(len, words))
                rounds.append(
                    {"words": count, "seconds": seconds, "floors": floors, "system": system, "machine": limits}
                )
        exactness = exactness_of({column: kept[column] for column in columns}, row.is_trained)
        for path in kept.values():
            path.unlink(missing_ok=True)
        load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
        return {"row": vars(row), "columns": columns, "rounds": rounds, "exactness": exactness, "load_average": load}

    def _floor(self, row: Row, shape: Shape, words: list, kind: str, limits: dict) -> dict | None:
        operations = fastest_product(limits["operations"], kind)
        if operations is None:
            return None
        batches = [words[begin : begin + row.batch] for begin in range(0, len(words), row.batch)]
        if row.task == "corpus":
            order = sorted(words, key=len, reverse=True)
            batches = [order[begin : begin + row.batch] for begin in range(0, len(order), row.batch)]

        def bandwidth(size: float) -> float:
            # That of the smallest block that is as large.
            return next(
                (speed for block, speed in zip(self.blocks, limits["bandwidth"]) if block >= size),
                limits["bandwidth"][-1],
            )

        if row.task == "batch":
            # Each batch is a call of its own, which knows no words yet.
            parts = [floor(shape, [batch], kind, operations, bandwidth) for batch in batches]
        else:
            parts = [floor(shape, batches, kind, operations, bandwidth, row.is_trained)]
        return {name: sum(getattr(part, name) for part in parts) for name in ("seconds", "operations", "weight_bytes")}

    def measure_memory(self, size: str, sentences: int, loads: int, kinds=tuple(BYTES)) -> list[dict]:
        """Loading and memory of each column, in processes of their own, in turn.

        Args:
            size: The model.
            sentences: How many are read, in batches of 128.
            loads: How often each is loaded; simple_elmo, which takes long, once.
            kinds: hf_elmo's kinds of numbers.
        """
        words = [self.sentences[number % len(self.sentences)] for number in range(sentences)]
        results: dict[str, dict] = {}
        for number, column in itertools.product(range(loads), self.columns(kinds)):
            if (number and column == "simple_elmo") or "failed" in results.get(column, {}):
                continue
            print(f"... memory and loading: {column}", file=sys.stderr, flush=True)
            result = results.setdefault(column, {"column": column, "load_seconds": []})
            try:
                with self.start(column) as process:
                    begin = process.ask("hello")
                    loaded = self.load(process, column, size)
                    if "seconds" not in loaded:
                        result["failed"] = loaded.get("unavailable") or loaded.get("error")
                        continue
                    result["load_seconds"].append(loaded["seconds"])
                    result["import_seconds"] = begin["import_seconds"]
                    if number == 0:
                        done = process.ask("work", task="corpus", words=words, batch=128)
                        self._note(column, done)
                        if "memory" in done:
                            result |= {"imports": begin["memory"], "loaded": loaded["memory"], "done": done["memory"]}
            except Ended as reason:
                result["failed"] = str(reason)
        return list(results.values())


def fastest_product(operations: dict[str, float | None], kind: str) -> float | None:
    """Operations per second of a kind of numbers; weights in bf16 may also be multiplied as float32."""
    kinds = ("bf16", "fp32") if kind == "bf16" else (kind,)
    return max((speed for each in kinds if (speed := operations.get(each))), default=None)


def exactness_of(paths: dict[str, Path], trained: bool) -> dict[str, dict]:
    """How far columns are from AllenNLP, or, if that is not there or of other kinds of numbers, from hf_elmo's fp32."""
    arrays = {column: np.load(path, mmap_mode="r") for column, path in paths.items() if path.exists()}
    results = {}
    for column, array in arrays.items():
        reference = "hf_elmo fp32" if column in ("hf_elmo bf16", "hf_elmo int8") else "allennlp"
        if reference not in arrays or reference == column:
            continue
        expected = arrays[reference]
        if trained:
            results[column] = {
                "of": reference,
                "largest_relative": float(np.abs(array - expected).max() / np.abs(expected).max()),
            }
            continue
        largest, cosines = 0.0, []
        for layer, wanted in zip(array, expected, strict=True):
            layer, wanted = layer.astype(np.float64), wanted.astype(np.float64)
            largest = max(largest, float(np.abs(layer - wanted).max()))
            norms = np.linalg.norm(layer, axis=1) * np.linalg.norm(wanted, axis=1)
            cosines.append((layer * wanted).sum(axis=1) / np.where(norms > 0, norms, 1))
        cosines = np.concatenate(cosines)
        results[column] = {
            "of": reference,
            "largest": largest,
            "lowest_cosine": float(cosines.min()),
            "mean_cosine": float(cosines.mean()),
        }
    return results


def prepare(work: Path, text: Path | None) -> None:
    """Makes the models and sentences, in a process of its own, so that this one stays small."""
    command = [sys.executable, "-m", "benchmarks.harness.material", work, *(["--text", text] if text else [])]
    done = subprocess.run(list(map(str, command)), cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"The models and sentences could not be made: {done.stderr.strip()[-500:]}")


def present_peers() -> tuple[dict[str, str], dict[str, str]]:
    """The Pythons of peers, and why others are left out."""
    found, absent = {}, {}
    for name, peer in PEERS.items():
        python = python_of(name)
        if python is None:
            absent[name] = f"{peer.variable} names no Python (python -m benchmarks.harness.peers install {name} FOLDER)"
        elif shutil.which(python) is None:
            absent[name] = f"{peer.variable} names {python}, which is not a program"
        else:
            found[name] = python
    return found, absent


def main(arguments: list[str] | None = None) -> dict:
    """Runs the comparison with the options of a command line, and gives all its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few rounds, without simple_elmo")
    parser.add_argument("--rounds", type=int, help="rounds of every row")
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="only rows whose names hold one of these; or 'memory'"
    )
    parser.add_argument("--without", nargs="+", default=[], choices=sorted(PEERS), help="peers to leave out")
    parser.add_argument("--work", type=Path, help="folder for models and sentences, kept afterwards")
    parser.add_argument("--text", type=Path, help="as for benchmarks.harness.material")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="JSON file for all numbers, or a folder, in which it gets its name")
    options = parser.parse_args(arguments)
    rows = [row.short() if options.short else row for row in ROWS]
    if options.rounds:
        rows = [replace(row, rounds=options.rounds) for row in rows]
    if options.rows:
        rows = [row for row in rows if any(name in row.name for name in options.rows)]
    peers, absent = present_peers()
    without = {*options.without, *(["simple_elmo"] if options.short else [])}
    absent |= dict.fromkeys(without & peers.keys(), "left out by choice")
    peers = {name: python for name, python in peers.items() if name not in without}
    begin = time.perf_counter()
    with ExitStack() as stack:
        work = options.work
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = work.absolute()
        prepare(work, options.text and options.text.absolute())
        comparison = Comparison(work, options.threads, peers)
        results = {"machine": facts(), "threads": options.threads, "short": options.short, "absent": absent}
        results |= {"command": command_of("benchmarks.run", arguments), "commit": commit(), "text": text_of(work)}
        results["rows"] = comparison.measure_rows(rows)
        results["memory"] = []
        if not options.rows or any("memory" in name for name in options.rows):
            few = 128 if options.short else MEMORY_SENTENCES
            results["memory"] = comparison.measure_memory("original", few, 1 if options.short else 3)
    results |= {"versions": comparison.versions, "notes": list(comparison.notes)}
    results["minutes"] = round((time.perf_counter() - begin) / 60, 1)
    if options.output:
        file = options.output / file_name(results["machine"]) if options.output.is_dir() else options.output
        with new_file(file) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(report.text(results))
    return results


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
