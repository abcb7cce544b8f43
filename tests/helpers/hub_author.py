"""What an author with hf_elmo does: pushes models, a tokenizer and a Trainer's run; `test_hub.py` runs it.

Arguments: the base model's folder, a folder for copies of what is pushed.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

import hf_elmo  # noqa: F401

base, copies = map(Path, sys.argv[1:])
SIZES = {"task_encoder_size": 8, "task_encoder_layers": 1, "classifier_size": 8}

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(base)
tokenizer.push_to_hub("tester/words")
for name, auto_class in [
    ("tester/tagger.v1", AutoModelForTokenClassification),
    ("tester/reader", AutoModelForQuestionAnswering),
]:
    model = auto_class.from_pretrained(base, **SIZES)
    model.push_to_hub(name, private=True)
    tokenizer.push_to_hub(name)
    model.save_pretrained(copies / name)

rows = Dataset.from_dict({"text": ["A cat sat .", "Dogs bark"], "label": [0, 1]}).map(
    lambda batch: tokenizer(batch["text"]), batched=True, remove_columns="text"
)
trainer = Trainer(
    model=AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, **SIZES),
    args=TrainingArguments(
        output_dir=str(copies / "run"),
        hub_model_id="tester/classifier",
        push_to_hub=True,
        hub_strategy="end",
        max_steps=2,
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=rows,
    processing_class=tokenizer,
)
trainer.train()
trainer.push_to_hub()
trainer.model.save_pretrained(copies / "tester/classifier")
