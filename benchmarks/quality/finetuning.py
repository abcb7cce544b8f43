"""Fine-tuning the biLM on tweets before it is frozen, as the paper's supplement does.

    python -m benchmarks.quality.finetuning --work FOLDER [--epochs 3] [--output FILE.json]

The biLM reads WNUT-17's training text (62,730 words, without their tags) a few times (`hf_elmo.train`, AdamW at a tenth
of its usual rate, state carried), into FOLDER. Given are the perplexities on the development text before and after, and
F1 of entities under the same head (`heads.py`) on the biLM of before and of after. The number of epochs is to be chosen
on the development text.
"""

from __future__ import annotations

from pathlib import Path

import hf_elmo

from .encoders import FrozenLayers, elmo_vectors
from .heads import Budget, run_task
from .tables import load, load_language_model, mean_and_spread, parser, read_options, write_table
from .task_data import Splits, wnut17


def fine_tune(folder: str, splits: Splits, work: Path, epochs: float, seed: int) -> Path:
    """Trains the biLM further on the words of the training part, and returns its folder."""
    work.mkdir(parents=True, exist_ok=True)
    text = work / "tweets.txt"
    text.write_text("".join(" ".join(each.texts[0]) + "\n" for each in splits["train"]), encoding="utf-8")
    hf_elmo.train(
        [text],
        work / "model",
        model=folder,
        pretokenized=True,
        split_sentences=False,
        num_train_epochs=epochs,
        per_device_train_batch_size=16,
        learning_rate=2e-4,
        seed=seed,
        save_strategy="no",
        disable_tqdm=True,
    )
    return work / "model"


def perplexities(folder: str, splits: Splits) -> dict[str, float]:
    """Of the development part's words, each sentence on its own."""
    tokenizer, model = load_language_model(folder)
    found = hf_elmo.perplexity(model, tokenizer, [each.texts[0] for each in splits["dev"]])
    return {"forward": found.forward, "backward": found.backward}


def main(arguments: list[str] | None = None) -> dict:
    """Fine-tunes, and measures before and after."""
    options = parser(__doc__, seeds=(1, 2, 3, 4, 5))
    options.add_argument("--work", type=Path, required=True, help="folder of the fine-tuned biLM; must not exist yet")
    options.add_argument("--epochs", type=float, default=3)
    options = read_options(options, arguments)
    if options.work.exists():
        raise SystemExit(f"{options.work} exists already: give a folder with --work that does not.")
    splits = wnut17(40 if options.quick else None)
    budget = Budget(epochs=2) if options.quick else Budget()
    tuned = fine_tune(options.model, splits, options.work, options.epochs, options.seeds[0])
    rows: dict[str, dict] = {}
    for name, folder in (("before", options.model), ("after", str(tuned))):
        tokenizer, model = load(folder)
        layers = FrozenLayers(elmo_vectors(model, tokenizer), splits)
        runs = [
            run_task("tags", splits, layers.encoder, budget, seed, "dev" if options.quick else "test")
            for seed in options.seeds
        ]
        rows[name] = {
            "perplexity": perplexities(folder, splits),
            **{split: mean_and_spread([run[split] for run in runs]) for split in ("dev", "test")},
        }
        print(name, rows[name], flush=True)
    rows["epochs"] = options.epochs
    return write_table(options.output, "finetuning", rows, options, __spec__.name)


if __name__ == "__main__":
    main()
