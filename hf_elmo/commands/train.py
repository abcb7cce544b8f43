"""`hf-elmo train`: a language model from text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import note

Texts = Annotated[list[Path], typer.Argument(help="UTF-8 text, plain or .gz.")]
KeepLines = Annotated[bool, typer.Option("--keep-lines", help="A line is a sentence: do not split lines.")]


def train(
    files: Texts,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model and its checkpoints.")],
    config: Annotated[
        str, typer.Option(help="Sizes: small, medium, original, or a config.json (or a folder that has one).")
    ] = "small",
    vocabulary_size: Annotated[
        int, typer.Option(min=1, help="Most frequent words that it learns to predict.")
    ] = 10_000,
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 10_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences per update.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak of the cosine schedule of AdamW.")] = 2e-3,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Updates until the peak.")] = 200,
    weight_decay: Annotated[float, typer.Option(min=0.0)] = 0.01,
    max_grad_norm: Annotated[float, typer.Option(min=0.0, help="Bound of the gradient's norm.")] = 1.0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Matrix products in bfloat16.")] = False,
    save_steps: Annotated[int, typer.Option(min=1, help="Updates between checkpoints.")] = 500,
    seed: Annotated[int, typer.Option()] = 0,
    keep_lines: KeepLines = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")] = False,
) -> None:
    """Train a biLM on text: each sentence on its own, full softmax, both directions."""
    from transformers import set_seed

    from .. import ElmoConfig
    from ..configuration_elmo import PRESETS
    from ..pretraining import train as train_bilm

    if output.is_dir() and any(output.iterdir()) and not resume:
        raise ValueError(f"{output} is not empty: give another folder, or --resume to go on with the training there.")
    sizes = ElmoConfig.from_preset(config) if config in PRESETS else _read_config(Path(config))
    set_seed(seed)
    try:
        trainer = train_bilm(
            files,
            output,
            sizes,
            vocabulary_size,
            split_sentences=not keep_lines,
            resume=resume,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            bf16=bf16,
            logging_steps=50,
            save_steps=save_steps,
            save_total_limit=2,
            seed=seed,
        )
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    note(f"{output}: {trainer.model.num_parameters():,} parameters, {trainer.state.global_step:,} updates")


def _read_config(path: Path):
    from .. import ElmoConfig

    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"There is no configuration {path}: give small, medium, original or a config.json.")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no configuration: {error}") from None
    return ElmoConfig.from_dict(fields)
