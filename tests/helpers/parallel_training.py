"""`Trainer` for every kind of loss, in one process or several, with the batches that `test_trainer.py` compares.

As a script: the tiny model's folder, and the file for results; the batch of a process is 8 divided by their number.
"""

import os
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import hf_elmo  # noqa: F401 (makes Auto* know ELMo)

# Lengths and numbers of labels differ between the halves of a batch: a mean of means would be another number.
_WORDS = [
    "a",
    "cat",
    "sat",
    "on",
    "the",
    "mat",
    "and",
    "dogs",
    "bark",
    "at",
    "it",
    "all",
    "night",
    "long",
    "while",
    "no",
]
_LENGTHS = (1, 2, 1, 3, 16, 9, 13, 12) * 2
_TEXTS = [" ".join((_WORDS * 2)[start : start + length]) for start, length in enumerate(_LENGTHS)]
_QUESTIONS = [f"who {word} ?" for word in _WORDS]

NO_DROPOUT = {"task_dropout": 0.0, "representation_dropout": 0.0}

_SEQUENCE = AutoModelForSequenceClassification
# Task: the model's class, further fields of its configuration, and the labels of each row.
TASKS = {
    "classes": (_SEQUENCE, {"num_labels": 3}, lambda row: {"labels": -100 if row % 8 in (0, 1, 2) else row % 3}),
    "several classes": (
        _SEQUENCE,
        {"num_labels": 3},
        lambda row: {"labels": [float(row % 2), 0.0, float(row % 3 == 0)]},
    ),
    "numbers": (_SEQUENCE, {"num_labels": 1}, lambda row: {"labels": row / 5}),
    "choices": (AutoModelForMultipleChoice, {}, lambda row: {"labels": row % 2}),
    "tags": (AutoModelForTokenClassification, {"num_labels": 3}, lambda row: {"labels": None}),
    "chains of tags": (
        AutoModelForTokenClassification,
        {"num_labels": 3, "use_crf": True},
        lambda row: {"labels": None},
    ),
    "spans": (AutoModelForQuestionAnswering, {}, lambda row: {"start_positions": 6, "end_positions": 6 + row % 3}),
}


def rows_of(task, tokenizer):
    """The rows of a task as lists, unpadded."""
    _, _, labels_of = TASKS[task]
    for row, (question, text) in enumerate(zip(_QUESTIONS, _TEXTS, strict=True)):
        if task == "choices":
            encoded = tokenizer([question] * 2, [text, _TEXTS[row - 1]])
        else:
            encoded = tokenizer(question, text if task != "spans" else text + " or not")
        labels = labels_of(row)
        if "tags" in task:
            labels = {"labels": [position % 3 for position in range(len(encoded["input_ids"]))]}
        yield {**encoded, **labels}


def make_trainer(task, folder, output, fields=(), **arguments):
    """A `Trainer` of a small head for a task, on the rows of `rows_of`; by default it saves nothing."""
    model_class, own_fields, _ = TASKS[task]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"task_encoder_size": 8, "task_encoder_layers": 1, "classifier_size": 12}
    model = model_class.from_pretrained(folder, **sizes, **{**own_fields, **dict(fields)})
    collators = {"choices": DataCollatorForMultipleChoice, "tags": DataCollatorForTokenClassification}
    collator = collators.get(task.removeprefix("chains of "), DataCollatorWithPadding)
    rows = list(rows_of(task, tokenizer))
    common = {
        "output_dir": str(output),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**{**common, **arguments}),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collator(tokenizer),
        processing_class=tokenizer,
    )


def train(task, folder, output, batch, accumulate=1):
    """Trains for three steps of plain gradient descent without dropout.

    Returns:
        Losses and gradient norms of the steps, and the trained weights.
    """
    trainer = make_trainer(
        task,
        folder,
        output,
        NO_DROPOUT,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        max_steps=3,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=1e9,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    trained = {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    return {
        "loss": [entry["loss"] for entry in logs],
        "grad_norm": [float(entry["grad_norm"]) for entry in logs],
        "weights": trained,
    }


if __name__ == "__main__":
    folder, results = map(Path, sys.argv[1:])
    processes = int(os.environ["WORLD_SIZE"])
    found = {task: train(task, folder, results.parent, 8 // processes) for task in TASKS}
    assert torch.distributed.get_backend() == "gloo"
    assert torch.distributed.get_world_size() == processes
    if torch.distributed.get_rank() == 0:
        torch.save(found, results)
