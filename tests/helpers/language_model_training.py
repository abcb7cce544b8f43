"""A small training of a language model, as a process that can be killed, limited, or run several times side by side.

As a script: the folder for all that it writes, then fields of `LanguageModelTrainingArguments` as JSON. The text, the
model and its seed are always the same.
"""

import json
import os
import sys
from pathlib import Path

import datasets

from hf_elmo import ElmoConfig
from hf_elmo.training.trainer import train

STEPS = 40


def write_text(folder: Path) -> Path:
    """A text of 300 different sentences: about 3,000 words."""
    lines = [
        " ".join(
            f"{'abcdefghij'[(number * place + place) % 10]}{(number + place * place) % 13}" for place in range(length)
        )
        for number, length in enumerate(list(range(3, 18)) * 20)
    ]
    file = folder / "text.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def small_training(folder: Path, **arguments):
    """Trains in `folder / "out"`, or goes on there, with dropout and a sampled softmax.

    Returns:
        The `LanguageModelTrainer`.
    """
    config = ElmoConfig(
        char_embed_dim=4,
        filters=[[1, 8], [2, 8]],
        num_highway_layers=1,
        max_characters_per_token=8,
        cell_size=32,
        projection_dim=16,
        dropout=arguments.pop("dropout", 0.2),
        num_negative_samples=arguments.pop("num_negative_samples", 20),
    )
    fields = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "unroll_steps": 7,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 6,
        "save_steps": 4,
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
    }
    return train(
        [write_text(folder)],
        folder / "out",
        config,
        vocabulary_size=100,
        pretokenized=True,
        split_sentences=False,
        resume=True,
        **{**fields, **arguments},
    )


if __name__ == "__main__":
    # It was read when the library was imported, which may be before this process had its variables.
    datasets.config.HF_DATASETS_CACHE = Path(os.environ["HF_DATASETS_CACHE"])
    options = json.loads(sys.argv[2])
    if limit := options.pop("largest_file", None):
        # Python ignores the signal, so that a longer file is an error, as on a full disk.
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    small_training(Path(sys.argv[1]), **options)
