"""What a user who has transformers and torch alone does with a saved model that writes; `test_remote_code.py` runs it.

Arguments: the model's folder, a folder for results, the folder that hf_elmo is in.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

folder, results, package = map(Path, sys.argv[1:])
TEXTS = ["A cat sat on the mat .", "Dogs bark"]

if importlib.util.find_spec("hf_elmo"):
    raise SystemExit("hf_elmo can be imported: this shows nothing")

written = []
for source in (folder, results / "again"):
    model = AutoModelForSeq2SeqLM.from_pretrained(source, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    written.append(model.generate(**inputs, num_beams=3, max_new_tokens=8))
    assert not model.encoder.bilstm.forward_layers[0].weight_ih.requires_grad
    labels = tokenizer(text_target=TEXTS, padding=True, return_tensors="pt")["input_ids"]
    assert model(**inputs, labels=labels).loss.isfinite()
    model.save_pretrained(results / "again")
    tokenizer.save_pretrained(results / "again")
assert torch.equal(*written)

texts = {}
for task in ("translation", "summarization"):
    pipe = pipeline(task, model=str(results / "again"), trust_remote_code=True)
    pipe.save_pretrained(results / "pipeline")
    texts[task] = pipe(TEXTS, num_beams=3, max_new_tokens=8)
again = pipeline("translation", model=str(results / "pipeline"), trust_remote_code=True)
assert again(TEXTS, num_beams=3, max_new_tokens=8) == texts["translation"]
(results / "texts.json").write_text(json.dumps({"texts": texts, "ids": written[0].tolist()}), encoding="utf-8")

from_package = [
    name
    for name, module in sys.modules.items()
    if getattr(module, "__file__", None) and package in Path(module.__file__).resolve().parents
]
assert not from_package, from_package
