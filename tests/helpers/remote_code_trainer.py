"""What a user without hf_elmo who trains does with a saved base model; `test_remote_code.py` runs it, too.

Arguments: as for `remote_code_user.py`.
"""

import importlib.util
import logging
import sys
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

base, results, package = map(Path, sys.argv[1:])
TEXTS = ["A cat sat on the mat .", "Dogs bark"]

if importlib.util.find_spec("hf_elmo"):
    raise SystemExit("hf_elmo can be imported: this shows nothing")

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=True)
logging.disable(logging.INFO)
rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1]}).map(
    lambda batch: tokenizer(batch["text"]), batched=True, remove_columns="text"
)
trainer = transformers.Trainer(
    model=AutoModelForSequenceClassification.from_pretrained(base, trust_remote_code=True),
    args=transformers.TrainingArguments(
        output_dir=str(results / "trainer"), max_steps=2, save_steps=1, report_to="none", use_cpu=True
    ),
    train_dataset=rows,
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model()
resumed = AutoModel.from_pretrained(results / "trainer" / "checkpoint-2", trust_remote_code=True)
assert torch.equal(resumed.scalar_mixes[0].weights, trainer.model.elmo.scalar_mixes[0].weights)

from_package = [
    name
    for name, module in sys.modules.items()
    if getattr(module, "__file__", None) and package in Path(module.__file__).resolve().parents
]
assert not from_package, from_package
