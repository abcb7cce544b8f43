"""Training in several processes: words a second of 1 and of 2, and what the exchange of gradients costs.

    python -m benchmarks.training_processes [--processes 1 2] [--rounds 3] [--steps 30] [--config small]
    python -m benchmarks.training_processes --on-paper

Every process has the same number of rows (`--rows`, 20 words each), one thread, and weights of `--config` with a
vocabulary of `--vocabulary` words; so n processes read n times as many words in a step. Runs of 1 and of more processes
take turns, each a torchrun of its own. A step is the trainer's whole step, in which gradients are exchanged and weights
change; the first five are left out, and the median of the others counts. `exchange` is the median time of one
all-reduce as large as all gradients, with nothing else to do. It needs a quiet machine with a core for each process.

The text is the training text of WikiText-2 in the shared data, or the file of `--text`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from .harness.data import shared_data
from .harness.report import spread, table

WARM_UP = 5
# `[PAD]`, `[UNK]`, `<S>` and `</S>`.
SPECIAL_WORDS = 4


def train_here(options: dict[str, Any]) -> None:
    """What each process does: trains, and the first one writes what it measured."""
    import torch
    from transformers import TrainerCallback

    import hf_elmo
    from hf_elmo.training.corpus import prepare
    from hf_elmo.training.trainer import LanguageModelTrainer, LanguageModelTrainingArguments, make_model

    torch.set_num_threads(1)
    times: list[float] = []

    class Timer(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

    folder = Path(options["folder"])
    args = LanguageModelTrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=options["steps"],
        per_device_train_batch_size=options["rows"],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
        ddp_find_unused_parameters=False,
    )
    with args.main_process_first():
        corpus = prepare([folder / "text.txt"], folder / "corpus", pretokenized=True, split_sentences=False)
    torch.manual_seed(0)
    config = hf_elmo.ElmoConfig.from_preset(options["config"])
    model, tokenizer = make_model(corpus, config, vocabulary_size=options["vocabulary"])
    LanguageModelTrainer(model, args, corpus, tokenizer, callbacks=[Timer()]).train()
    steps = [after - before for before, after in zip(times[WARM_UP:], times[WARM_UP + 1 :])]
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    exchanges = []
    if args.world_size > 1:
        gradients = torch.zeros(sum(sizes))
        for _ in range(7):
            begun = time.perf_counter()
            torch.distributed.all_reduce(gradients)
            exchanges.append(time.perf_counter() - begun)
    if args.process_index == 0:
        words = options["rows"] * args.unroll_steps * args.world_size
        measured = {"step": statistics.median(steps), "words": words, "parameters": sum(sizes), "exchanges": exchanges}
        (folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")


def run(processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """A training of so many processes, and what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, "text.txt").open("w", encoding="utf-8") as file:
            from hf_elmo.vectors.text_files import lines_of_files

            file.writelines(f"{line}\n" for line in islice(lines_of_files([options.text]), options.lines))
        names = ("steps", "rows", "config", "vocabulary")
        asked = json.dumps({"folder": folder, **{name: getattr(options, name) for name in names}})
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(Path(folder, "cache"))}
        command = [sys.executable, *launch, "-m", "benchmarks.training_processes", "--here", asked]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(folder, "measured.json").read_text(encoding="utf-8"))


def on_paper() -> list[list[str]]:
    """Bytes that each process sends in a step, by ring, of models of several sizes; no tensor is made."""
    import torch

    import hf_elmo

    rows = []
    for preset, vocabulary in (("small", 10_000), ("medium", 10_000), ("original", 10_000), ("original", 800_000)):
        config = hf_elmo.ElmoConfig.from_preset(preset)
        config.vocab_size = vocabulary + SPECIAL_WORDS
        with torch.device("meta"):
            model = hf_elmo.ElmoForPreTraining(config)
        count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        sent = [4 * count * 2 * (processes - 1) / processes for processes in (2, 8, 64)]
        sizes = [f"{size / 1e6:,.0f} MB" for size in (4 * count, *sent)]
        rows.append([f"`{preset}`, {vocabulary:,} words", f"{count / 1e6:,.1f} M", *sizes])
    return rows


def main(arguments: list[str] | None = None) -> dict[int, list[dict[str, Any]]]:
    """Measures with the options of a command line; what each run measured, by the number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=64, help="of each process")
    parser.add_argument("--config", default="small")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=20_000, help="of the text")
    parser.add_argument("--text", type=Path, default=shared_data("lm", "wikitext-2", "train.txt.gz"))
    parser.add_argument("--on-paper", action="store_true", help="print what is exchanged, and measure nothing")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        train_here(json.loads(options.here))
        return {}
    if options.on_paper:
        heads = ["", "parameters", "gradients, fp32", "sent by each of 2", "by each of 8", "by each of 64"]
        print(table(heads, on_paper()))
        return {}
    results: dict[int, list[dict[str, Any]]] = {processes: [] for processes in options.processes}
    for turn in range(options.rounds):
        for processes in options.processes if turn % 2 == 0 else reversed(options.processes):
            results[processes].append(run(processes, options))
    rows = []
    for processes, measured in results.items():
        rates = [each["words"] / each["step"] for each in measured]
        exchanges = [1000 * statistics.median(each["exchanges"]) for each in measured if each["exchanges"]]
        rows.append([
            str(processes), spread(rates, 0), spread([1000 * each["step"] for each in measured]),
            spread(exchanges) if exchanges else "",
        ])  # fmt: skip
    (first, *_), *_ = results.values()
    print(f"{options.config}: {first['parameters']:,} parameters, {4 * first['parameters'] / 1e6:,.1f} MB of gradients")
    print(table(["processes", "words/s", "ms a step", "ms of exchange"], rows))
    return results


if __name__ == "__main__":
    main()
