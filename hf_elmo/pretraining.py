"""Training a biLM from plain text with the stock `Trainer`: full softmax, every sentence on its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from .configuration_elmo import ElmoConfig
from .modeling_elmo import ElmoForPreTraining
from .tokenization_elmo import ElmoTokenizer


def read_sentences(files: Iterable[str | Path], split_sentences: bool = True) -> Dataset:
    """Text files as a memory-mapped dataset of sentences, column `text`.

    Args:
        files: UTF-8 text, plain or gzipped.
        split_sentences: Split each line into sentences; otherwise a line is a sentence.

    Raises:
        ValueError: if a file is missing, or there is not a single sentence.
    """
    paths = [Path(file) for file in files]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise ValueError(f"There is no such text file: {', '.join(missing) or 'none was given'}.")
    lines = load_dataset("text", data_files=[str(path) for path in paths], split="train")
    sentences = lines.map(
        _sentences, batched=True, fn_kwargs={"split": split_sentences}, remove_columns=lines.column_names
    )
    if len(sentences) == 0:
        raise ValueError(f"There is no text in {', '.join(map(str, paths))}.")
    return sentences


def _sentences(batch: dict[str, list[str]], split: bool) -> dict[str, list[str]]:
    import nupunkt

    lines = (line for line in batch["text"] if line and not line.isspace())
    return {"text": [part for line in lines for part in (nupunkt.sent_tokenize(line) if split else [line])]}


def count_words(sentences: Dataset, tokenizer: ElmoTokenizer) -> Counter[str]:
    """How often each word stands in the sentences, words split as the tokenizer splits them."""
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    counts: Counter[str] = Counter()
    for batch in sentences.iter(batch_size=1000):
        for text in batch["text"]:
            counts.update(word for word, _ in split(text))
    return counts


@dataclass
class LanguageModelCollator:
    """Makes a batch for `ElmoForPreTraining` from `text`: each word is the label of its neighbours."""

    tokenizer: ElmoTokenizer

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Examples with `text` to `input_ids`, `character_ids`, `attention_mask`, `token_type_ids` and `labels`."""
        batch = self.tokenizer([example["text"] for example in examples], padding=True, return_tensors="pt")
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return dict(batch)


class LanguageModelTrainer(Trainer):
    """`Trainer` whose batches of like length do not take minutes to plan."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            # A column of a dataset is read from disk at every access: 160 s for 640,000 sentences, against 0.2 s so.
            sampler.lengths = list(sampler.lengths)
        return sampler


class StopOnNan(TrainerCallback):
    """Stops with an error as soon as a logged loss is no number; the last checkpoint is from before."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise FloatingPointError(
                f"The loss is {loss} at step {state.global_step}: lower the learning rate, and go on from the last "
                f"checkpoint in {args.output_dir}."
            )


def train(
    files: Iterable[str | Path],
    output: str | Path,
    config: ElmoConfig,
    vocabulary_size: int = 10_000,
    split_sentences: bool = True,
    resume: bool = False,
    **arguments: Any,
) -> Trainer:
    """Trains a biLM on text files and saves model, tokenizer and log in a folder.

    Args:
        files: UTF-8 text, plain or gzipped.
        output: The folder; checkpoints go there too.
        config: Sizes of the model; its `vocab_size` is set here.
        vocabulary_size: The most frequent words that the model learns to predict, special words aside.
        split_sentences: Split lines into sentences.
        resume: Go on from the last checkpoint in `output`.
        arguments: Fields of `TrainingArguments`.

    Raises:
        ValueError: for missing or empty text.
        FloatingPointError: when the loss stops being a number.
    """
    sentences = read_sentences(files, split_sentences)
    counts = count_words(sentences, ElmoTokenizer.create())
    # Words of one frequency stand in the order of the alphabet, so that a vocabulary is the same every time.
    by_frequency = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    tokenizer = ElmoTokenizer.create(
        [word for word, _ in by_frequency[:vocabulary_size]], max_characters_per_token=config.max_characters_per_token
    )
    config.vocab_size = len(tokenizer)
    sentences = sentences.map(_lengths, batched=True)
    model = ElmoForPreTraining(config)
    trainer = LanguageModelTrainer(
        model=model,
        args=TrainingArguments(
            **{
                "output_dir": str(output),
                "remove_unused_columns": False,
                "train_sampling_strategy": "group_by_length",
                "length_column_name": "length",
                "report_to": "none",
                "prediction_loss_only": True,
                **arguments,
            }
        ),
        train_dataset=sentences,
        data_collator=LanguageModelCollator(tokenizer),
        processing_class=tokenizer,
        callbacks=[StopOnNan()],
    )
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model()
    trainer.save_state()
    return trainer


def _lengths(batch: dict[str, list[str]]) -> dict[str, list[int]]:
    # Characters are a good enough measure for batches of like length, and cheap.
    return {"length": [len(text) for text in batch["text"]]}
