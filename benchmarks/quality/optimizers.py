"""Muon against AdamW at equal CPU time: the perplexity that each reaches with the bundled model's sizes.

    python -m benchmarks.quality.optimizers --work FOLDER [--updates 700] [--output FILE.json]

All arms begin from the same random weights, and read `lm/wikipedia_en_2015/train.txt.gz` as the stages of the bundled
model do (`benchmarks.elmo_mini`): 2,560 words an update, float32, one thread, single sentences, a rate that rises over
a twentieth of the updates and then falls to zero as a cosine. AdamW's updates are cheaper, so its arms have
`--adamw-updates` times as many; the CPU time that each arm took stands in the table. Muon has the stages' rates, AdamW
several. Perplexities are those of the first `--sentences` sentences of `valid.txt.gz`. An arm that is whole in FOLDER,
by the same options, is not trained again, so that the command may be interrupted.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import hf_elmo
from hf_elmo.training.corpus import read_sentences

from ..elmo_mini import Stage, train_command
from ..harness.data import shared_data
from .tables import load_language_model, parser, read_options, write_table

#: For each arm AdamW's rate, and Muon's, if it is there.
ARMS: dict[str, tuple[float, float | None]] = {
    "Muon, AdamW for the rest": (0.004, 0.006),
    "AdamW 0.002": (0.002, None),
    "AdamW 0.004": (0.004, None),
    "AdamW 0.008": (0.008, None),
}
TEXT = ("lm", "wikipedia_en_2015")


def train(
    text: Path, work: Path, sizes: str, rates: tuple[float, float | None], updates: int, seed: int
) -> dict[str, float]:
    """Trains one arm in a process of its own, unless it is there; its updates, and CPU seconds, text included."""
    start = {"--config": sizes, "--vocabulary-size": 12_000, "--samples": 2048}
    stage = Stage(updates, *rates, warmup_steps=max(1, updates // 20))
    record = work / "optimizers.json"
    given = train_command([text], work / "model", stage, start, updates, seed)[1:]
    if record.is_file() and (kept := json.loads(record.read_text(encoding="utf-8")))["options"] == given:
        return kept["found"]
    # What was interrupted begins anew: its CPU time is not known.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *given], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"updates": updates, "cpu_seconds": round(seconds, 1)}
    record.write_text(json.dumps({"options": given, "found": found}), encoding="utf-8")
    return found


def main(arguments: list[str] | None = None) -> dict:
    """Trains and measures all arms of a command line."""
    options = parser(__doc__, seeds=(0,))
    options.add_argument("--work", type=Path, required=True, help="folder of the trained models")
    options.add_argument("--updates", type=int, default=700, help="of Muon")
    options.add_argument("--adamw-updates", type=float, default=1.1, help="times as many updates for AdamW")
    options.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options.add_argument("--sentences", type=int, default=2000)
    options = read_options(options, arguments)
    updates, count = (2, 5) if options.quick else (options.updates, options.sentences)
    text = shared_data(*TEXT, "valid.txt.gz" if options.quick else "train.txt.gz")
    sentences = list(read_sentences([shared_data(*TEXT, "valid.txt.gz")])["text"][:count])
    rows: dict[str, list[dict[str, float]]] = {}
    for name in options.arms:
        rates, rows[name] = ARMS[name], []
        for seed in options.seeds:
            folder = options.work / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            many = updates if rates[1] is not None else round(updates * options.adamw_updates)
            found = train(text, folder, str(options.model), rates, many, seed)
            tokenizer, model = load_language_model(str(folder / "model"))
            reached = hf_elmo.perplexity(model, tokenizer, sentences)
            rows[name].append(found | {"forward": reached.forward, "backward": reached.backward})
            print(name, rows[name][-1], flush=True)
    return write_table(options.output, "optimizers", rows, options, __spec__.name)


if __name__ == "__main__":
    main()
