"""`hf-elmo train` and `hf-elmo vocab`: a language model, and a vocabulary, from text."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..vectors.text_files import MAX_LINE_BYTES
from .console import counted, note
from .sentences import MaxLineBytes

if TYPE_CHECKING:
    from ..model.configuration_elmo import ElmoConfig

Texts = Annotated[list[Path], typer.Argument(help="UTF-8 text, plain, .gz or .zst; - is stdin.")]
KeepLines = Annotated[bool, typer.Option("--keep-lines", help="A line is a sentence: do not split lines.")]
Pretokenized = Annotated[
    bool,
    typer.Option(
        "--pretokenized", help="A line is a sentence, words stand between white space: take them as they are."
    ),
]


class Optimizer(StrEnum):
    """What trains the weights."""

    MUON = "muon"
    ADAMW = "adamw"
    ADAGRAD = "adagrad"


_LEARNING_RATES = {Optimizer.MUON: 4e-3, Optimizer.ADAMW: 2e-3, Optimizer.ADAGRAD: 0.2}

# As many as in the original, which has a vocabulary of 800,000.
_SAMPLES = 8192


def train(
    files: Texts,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model and its checkpoints.")],
    config: Annotated[
        str, typer.Option(help="Sizes: small, medium, original, or a config.json (or a folder that has one).")
    ] = "small",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Train this model folder further.")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Words to predict, one per line, as `hf-elmo vocab` writes them.")
    ] = None,
    vocabulary_size: Annotated[
        int, typer.Option(min=1, help="Else: this many of the text's most frequent words.")
    ] = 10_000,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Words that a sampled softmax scores per direction; 0: all. [default: 8192 of more than 32,768 words]",
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.0, help="Times through the text.")] = 10.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates, instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per update and process.")] = 64,
    unroll_steps: Annotated[int, typer.Option(min=1, help="Words per row.")] = 20,
    whole_sentences: Annotated[
        bool,
        typer.Option("--whole-sentences", help="Read each sentence on its own; batches of about as many words."),
    ] = False,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Rows are the text as it stands: do not shuffle its sentences.")
    ] = False,
    optimizer: Annotated[
        Optimizer, typer.Option(help="muon: Muon on matrices and AdamW on the rest. adagrad: as the original.")
    ] = Optimizer.ADAMW,
    original_recipe: Annotated[
        bool, typer.Option("--original-recipe", help="All of bilm-tf's recipe: Adagrad at a constant rate of 0.2.")
    ] = False,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="At its peak. [default: 0.004; 0.002 of AdamW alone, 0.2 of Adagrad]"),
    ] = None,
    matrix_learning_rate: Annotated[
        float, typer.Option(min=0.0, help="Muon's on matrices, at its peak, with --optimizer muon.")
    ] = 6e-3,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Updates until the peak, but for --original-recipe.")] = 200,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of Muon and AdamW.")] = 0.01,
    max_grad_norm: Annotated[
        float | None, typer.Option(min=0.0, help="Bound of the gradient's norm. [default: 1, of Adagrad 10]")
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16",
            help="Matrix products in bfloat16. [default: where they are the faster ones on this CPU; with --resume: as "
            "the training began]",
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option("--eval", help="Text whose perplexity is logged at every checkpoint.")
    ] = None,
    save_steps: Annotated[int, typer.Option(min=1, help="Updates between checkpoints.")] = 500,
    log_steps: Annotated[int, typer.Option(min=1, help="Updates between lines of the log.")] = 50,
    seed: Annotated[int, typer.Option()] = 0,
    keep_lines: KeepLines = False,
    pretokenized: Pretokenized = False,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --output, with the same options.")
    ] = False,
) -> None:
    """Train a biLM on text, both directions, from scratch or further."""
    if find_spec("accelerate") is None:
        raise ValueError('Training needs accelerate: install the extra, as in python -m pip install -e ".[train]".')
    from ..hub.folders import find_folder
    from ..model.configuration_elmo import PRESETS, ElmoConfig
    from ..training.corpus import read_sentences
    from ..training.trainer import ORIGINAL_RECIPE
    from ..training.trainer import train as train_bilm

    if output.is_dir() and any(output.iterdir()) and not resume:
        raise ValueError(f"{output} is not empty: give another folder, or --resume to go on with the training there.")
    words = None if vocabulary is None else read_vocabulary(vocabulary)
    sizes = None
    if model is None:
        sizes = ElmoConfig.from_preset(config) if config in PRESETS else _read_config(Path(config))
        size = vocabulary_size if words is None else len(words)
        chosen = (_SAMPLES if size > 4 * _SAMPLES else 0) if samples is None else samples
        sizes.num_negative_samples = chosen or None
    elif samples is not None:
        raise ValueError("--samples belongs to the sizes of a fresh model; a model that is trained further keeps its.")
    recipe: dict[str, Any] = {
        "learning_rate": _LEARNING_RATES[optimizer],
        "lr_scheduler_type": "cosine",
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "max_grad_norm": 1.0,
    }
    if original_recipe:
        recipe = dict(ORIGINAL_RECIPE)
    elif optimizer is Optimizer.MUON:
        recipe["matrix_learning_rate"] = matrix_learning_rate
    elif optimizer is Optimizer.ADAGRAD:
        recipe |= {"optim": "adagrad", "weight_decay": 0.0}
    given = {"learning_rate": learning_rate, "max_grad_norm": max_grad_norm}
    recipe |= {name: value for name, value in given.items() if value is not None}
    sentences = None
    if evaluate is not None:
        sentences = read_sentences([evaluate], not (keep_lines or pretokenized), max_line_bytes)["text"]
        sentences = [text.split() for text in sentences] if pretokenized else list(sentences)
    try:
        trainer = train_bilm(
            files,
            output,
            sizes,
            model=None if model is None else find_folder(model),
            vocabulary=words,
            vocabulary_size=vocabulary_size,
            split_sentences=not (keep_lines or pretokenized),
            pretokenized=pretokenized,
            max_line_bytes=max_line_bytes,
            eval_dataset=sentences,
            resume=resume,
            **recipe,
            num_train_epochs=epochs,
            max_steps=-1 if steps is None else steps,
            per_device_train_batch_size=batch_size,
            unroll_steps=unroll_steps,
            carry_state=not whole_sentences,
            shuffle_sentences=not in_order,
            bf16=_trains_in_bf16(bf16, output if resume else None),
            eval_strategy="no" if sentences is None else "steps",
            eval_steps=save_steps,
            logging_steps=log_steps,
            save_steps=save_steps,
            save_total_limit=2,
            seed=seed,
        )
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    if trainer.is_world_process_zero():
        parameters, steps = trainer.model.num_parameters(), trainer.state.global_step
        note(f"{output}: {parameters:,} parameters, {counted(steps, 'update')}")


def _trains_in_bf16(wanted: bool | None, resumed: Path | None) -> bool:
    """Whether matrix products are computed in bfloat16.

    Args:
        wanted: What was asked for, if anything was.
        resumed: Folder of the training that goes on.
    """
    import torch

    from ..model.products.processor import row_in_use
    from ..training.trainer import recorded_precision

    if wanted is None and resumed is not None and (recorded := recorded_precision(resumed)) is not None:
        return recorded == "bf16"
    if torch.accelerator.is_available():
        return bool(wanted)
    row = row_in_use()
    if wanted and row.training != "bfloat16":
        note(f"--bf16 is slower than float32 on this processor ({row.name}), by the table of products: leave it out.")
    if wanted is None and row.training == "bfloat16":
        note(f"matrix products in bfloat16, the faster ones on this processor ({row.name}); --no-bf16 for float32")
        return True
    return bool(wanted)


def vocab(
    files: Texts,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the vocabulary, one word per line.")],
    size: Annotated[int | None, typer.Option(min=1, help="Most words. [default: all]")] = None,
    min_count: Annotated[int, typer.Option(min=1, help="Leave rarer words out.")] = 1,
    keep_lines: KeepLines = False,
    pretokenized: Pretokenized = False,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
) -> None:
    """Count the words of text: a vocabulary for `hf-elmo train`, most frequent first, as bilm-tf's."""
    from ..conversion.errors import ConversionError
    from ..conversion.vocabulary import write_bilm_vocabulary
    from ..model.tokenization_elmo import ElmoTokenizer
    from ..training.corpus import by_frequency, read_texts, with_progress, word_counts, words_of
    from ..whole_files import new_file

    tokenizer = None if pretokenized else ElmoTokenizer.create()
    split = not (keep_lines or pretokenized)
    counts = word_counts(with_progress(words_of(read_texts(files, max_line_bytes), tokenizer, split)))
    if not counts:
        raise ValueError(f"There is not a single word in {', '.join(map(str, files))}.")
    words = by_frequency(counts, size, min_count)
    try:
        with new_file(output) as temporary:
            write_bilm_vocabulary(words, temporary)
    except ConversionError as error:
        raise ValueError(str(error)) from None
    share = sum(counts[word] for word in words) / counts.total()
    note(f"{output}: {counted(len(words), 'word')} of {len(counts):,}, which are {share:.2%} of the text")


def read_vocabulary(file: Path) -> list[str]:
    """The words of a vocabulary file, without the special words that it begins with.

    Raises:
        ValueError: if it is not text, or does not have `<S>`, `</S>` and `<UNK>`, or no word but them.
    """
    from ..conversion.errors import ConversionError
    from ..conversion.files import InputFile
    from ..conversion.vocabulary import BILM_SPECIAL_WORDS, distinct_words, read_vocabulary_lines

    try:
        lines = read_vocabulary_lines(InputFile.at(file))
    except ConversionError as error:
        raise ValueError(str(error)) from None
    missing = [word for word in BILM_SPECIAL_WORDS if word not in lines]
    if missing:
        raise ValueError(
            f"{file} lacks {', '.join(missing)}: a vocabulary begins with the lines <S>, </S>, <UNK>, and then has "
            "words by falling frequency. Add them, or make one with hf-elmo vocab."
        )
    words = distinct_words(lines, file)
    if not words:
        raise ValueError(f"{file} has no word beside the special ones.")
    return words


def _read_config(path: Path) -> ElmoConfig:
    from ..model.configuration_elmo import ElmoConfig
    from ..model.model_files import read_json_object

    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"There is no configuration {path}: give small, medium, original or a config.json.")
    return ElmoConfig.from_dict(read_json_object(file))
