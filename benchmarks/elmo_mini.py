"""The training of elmo-mini, the bundled model, in stages that can begin on different machines.

    python -m benchmarks.elmo_mini text WORK
    python -m benchmarks.elmo_mini train STAGE WORK
    python -m benchmarks.elmo_mini keep STAGE WORK
    python -m benchmarks.elmo_mini measure MODEL [--output FILE]

`text` cuts the shared training text (Wikipedia, Wikinews, fiction) into four parts: part n has every fourth paragraph
of each file. `train` reads part STAGE - 1, writes to the folder WORK/stage-N, and goes on from its last checkpoint
where there is one; stage 1 begins from random weights, each other one from the weights that were kept of
the one before. From stage 3 on all parts of Wikinews are read: its 2.5 M words are few. `keep` writes a stage's weights
in float16, its model folder and its log to `benchmarks/results/elmo_mini/stage-N`; what was kept is all that the next
stage needs.

`vocabulary.txt` there has the 12,000 words of the first elmo-mini (`first_vocabulary.txt`) and 4,000 more: those which
are the most frequent others in part 0 (`hf-elmo vocab`), all in order of their frequency in it.

`measure` prints the perplexity of each direction on the held-out text of each kind: over all predictions, as `hf-elmo
perplexity` has it, and over those of boundaries and the first elmo-mini's words alone, which models of larger
vocabularies share. The softmax is always that over the model's whole vocabulary. `stage-N/measured.json` has that of a
stage, `first_measured.json` that of the first elmo-mini.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoTokenizer
from hf_elmo.language_model.scoring import score_sentences
from hf_elmo.training.corpus import read_sentences
from hf_elmo.whole_files import new_folder

from .harness.data import shared_data

KEPT = Path(__file__).parent / "results" / "elmo_mini"
TEXTS = ("wikipedia_en_2015", "wikipedia_en_2015_more", "wikinews_en", "gutenberg_fiction")
#: Texts that have a part which no stage reads.
HELD_OUT = ("wikipedia_en_2015", "wikinews_en", "gutenberg_fiction")
#: As many parts as there are stages at most.
PARTS = 4


@dataclass(frozen=True)
class Stage:
    """What differs from stage to stage.

    Attributes:
        steps: Updates.
        learning_rate: AdamW's rate at the peak.
        matrix_learning_rate: Muon's rate at the peak; None: AdamW's for all.
        warmup_steps: Updates up to the peak.
        whole: Texts of which all parts are read, not that of the stage alone.
    """

    steps: int
    learning_rate: float
    matrix_learning_rate: float | None
    warmup_steps: int
    whole: tuple[str, ...] = ()


STAGES = {
    1: Stage(3900, 0.004, 0.006, 200),
    2: Stage(4200, 0.003, 0.0045, 42),
    3: Stage(4200, 0.003, 0.0045, 42, whole=("wikinews_en",)),
}


def part_file(work: Path, text: str, part: int) -> Path:
    return work / f"{text}.{part}.txt.gz"


def cut_texts(work: Path) -> None:
    """Writes every fourth paragraph of each text to each part: the first one to part 1, the fourth one to part 0."""
    work.mkdir(parents=True, exist_ok=True)
    for text in TEXTS:
        with ExitStack() as stack:
            lines = stack.enter_context(gzip.open(shared_data("lm", text, "train.txt.gz"), "rb"))
            files = [part_file(work, text, part) for part in range(PARTS)]
            parts = [stack.enter_context(gzip.open(file, "wb", compresslevel=1)) for file in files]
            for number, line in enumerate(lines, start=1):
                parts[number % PARTS].write(line)


def command(number: int, work: Path) -> list[str]:
    """The command line of a stage."""
    stage = STAGES[number]
    if number == 1:
        start = {"--config": hf_elmo.bundled("elmo-mini"), "--vocabulary": KEPT / "vocabulary.txt", "--samples": 2048}
    else:
        start = {"--model": KEPT / f"stage-{number - 1}"}
    parts = {text: range(PARTS) if text in stage.whole else [number - 1] for text in TEXTS}
    files = [part_file(work, text, part) for text in TEXTS for part in parts[text]]
    output = work / f"stage-{number}"
    resume = ["--resume"] if any(output.glob("checkpoint-*")) else []
    return [*train_command(files, output, stage, start), *resume]


def train_command(
    files: Iterable[Path], output: Path, stage: Stage, start: Mapping[str, object], save_steps: int = 100, seed: int = 0
) -> list[str]:
    """The command line of a training that reads as all stages do: 2,560 words an update, in float32.

    Args:
        files: The texts.
        output: The folder.
        stage: Updates and rates.
        start: The options that say what it begins with.
        save_steps: Updates from one checkpoint to the next.
        seed: Of the training.
    """
    options: dict[str, object] = {
        "--output": output,
        "--batch-size": 128,
        "--unroll-steps": 20,
        "--steps": stage.steps,
        "--learning-rate": stage.learning_rate,
        "--warmup-steps": stage.warmup_steps,
        "--weight-decay": 0.01,
        "--max-grad-norm": 1,
        "--save-steps": save_steps,
        "--log-steps": 50,
        "--seed": seed,
        "--optimizer": "adamw" if stage.matrix_learning_rate is None else "muon",
        **start,
    }
    if stage.matrix_learning_rate is not None:
        options["--matrix-learning-rate"] = stage.matrix_learning_rate
    given = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "hf_elmo", "train", *map(str, files), *given, "--whole-sentences", "--no-bf16"]


def keep(number: int, work: Path, kept: Path = KEPT) -> Path:
    """Keeps a stage's model with weights in float16, and its log.

    Raises:
        FileNotFoundError: if the stage has not ended.
        ValueError: for a weight beyond the range of float16.
    """
    import torch
    from safetensors.torch import load_file, save_file

    trained = work / f"stage-{number}"
    state = max(trained.glob("checkpoint-*/trainer_state.json"), key=lambda file: int(file.parent.name.split("-")[1]))
    history = json.loads(state.read_text(encoding="utf-8"))
    weights = load_file(trained / "model.safetensors")
    halves = {name: weight.half() for name, weight in weights.items()}
    if not all(half.isfinite().all() for half in halves.values()):
        raise ValueError(f"{trained} has weights beyond the range of float16.")
    # What was measured of an earlier try is not true of this one, and goes with it.
    with new_folder(kept / f"stage-{number}", overwrite=True) as folder:
        for name in ("config.json", "tokenizer.json"):
            (folder / name).write_bytes((trained / name).read_bytes())
        # transformers notes how the tokenizer that the training began with was loaded.
        options = json.loads((trained / "tokenizer_config.json").read_text(encoding="utf-8"))
        options = {name: value for name, value in options.items() if name not in ("is_local", "local_files_only")}
        (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
        save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
        log = {"updates": history["global_step"], "torch": torch.__version__, "log": history["log_history"]}
        (folder / "log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    return kept / f"stage-{number}"


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Perplexities of a model on the held-out texts, by text: over all predictions, and over those of shared words."""
    model, tokenizer = ElmoForPreTraining.from_pretrained(folder).eval(), ElmoTokenizer.from_pretrained(folder)
    shared = set((KEPT / "first_vocabulary.txt").read_text(encoding="utf-8").splitlines())
    results = {}
    for text in HELD_OUT:
        totals = np.zeros((2, 2))
        counts, unknown = np.zeros(2), 0
        sentences = read_sentences([shared_data("lm", text, "test.txt.gz")], True)["text"]
        for sentence in score_sentences(model, tokenizer, list(sentences)):
            both = np.stack([sentence.forward, sentence.backward]).astype(np.float64)
            is_shared = np.array([word in shared for word in sentence.words])
            # The end is the last of the next words, the beginning the first of the previous ones.
            places = [[*is_shared, True], [True, *is_shared]]
            totals += [both.sum(axis=1), both.sum(axis=1, where=places)]
            counts += len(sentence.forward), is_shared.sum() + 1
            unknown += int(sentence.unknown.sum())
        (forward, backward), (forward_shared, backward_shared) = np.exp(-totals / counts[:, None]).tolist()
        results[text] = {
            "forward": forward,
            "backward": backward,
            "predictions": int(counts[0]),
            "unknown": unknown / counts[0],
            "forward, shared words": forward_shared,
            "backward, shared words": backward_shared,
            "shared words": int(counts[1]),
        }
        print(text, json.dumps(results[text]), flush=True)
    return results


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    parts.add_parser("text").add_argument("work", type=Path)
    for name in ("train", "keep"):
        part = parts.add_parser(name)
        part.add_argument("stage", type=int, choices=STAGES)
        part.add_argument("work", type=Path)
    part = parts.add_parser("measure")
    part.add_argument("model", type=Path)
    part.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    if options.what == "measure":
        results = measure(options.model)
        if options.output:
            options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    elif options.what == "text":
        cut_texts(options.work)
    elif options.what == "keep":
        print(keep(options.stage, options.work))
    else:
        sys.exit(subprocess.call(command(options.stage, options.work), env={"OMP_NUM_THREADS": "1", **os.environ}))


if __name__ == "__main__":
    main()
