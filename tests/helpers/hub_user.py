"""What a user does with models of the hub, by their names; `test_hub.py` runs it and looks at what it left.

Arguments: "installed" or "remote" (whose code is used), a folder for results, names (or folders) of a base model and a
tokenizer, and heads: `tagger=NAME`, `reader=NAME`, `classifier=NAME`.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

code, results = sys.argv[1], Path(sys.argv[2])
base, words = sys.argv[3:5]
heads = dict(argument.split("=") for argument in sys.argv[5:])
TEXT = "A cat sat on the mat ."

trust = {"trust_remote_code": True} if code == "remote" else {}
if code == "installed":
    import hf_elmo  # noqa: F401
else:
    found = [name for name in ("hf_elmo", "h5py", "datasets") if importlib.util.find_spec(name)]
    if found:
        raise SystemExit(f"{found} can be imported: this shows nothing")

assert AutoConfig.from_pretrained(base, **trust).model_type == "elmo"
modules = []
classes = {
    "base": AutoModel,
    "tagger": AutoModelForTokenClassification,
    "reader": AutoModelForQuestionAnswering,
    "classifier": AutoModelForSequenceClassification,
}
for name, source in {"base": base, **heads}.items():
    auto_class = classes[name]
    tokenizer = AutoTokenizer.from_pretrained(source, **trust)
    model, report = auto_class.from_pretrained(source, output_loading_info=True, **trust)
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    model.save_pretrained(results / name)
    tokenizer.save_pretrained(results / name)
    torch.save(model.state_dict(), results / f"{name}.pt")
    modules += [type(model).__module__, type(tokenizer).__module__]
# A base model is there to be given heads.
head, report = AutoModelForTokenClassification.from_pretrained(base, output_loading_info=True, **trust)
assert not [key for key in report["missing_keys"] if key.startswith("elmo.")], report
modules.append(type(head).__module__)
(results / "modules.json").write_text(json.dumps(modules), encoding="utf-8")

asked = {"question": "Who sat ?", "context": TEXT}
question_answering = "elmo-question-answering" if code == "installed" else "question-answering"
AutoTokenizer.from_pretrained(words, **trust).save_pretrained(results / "words")
answers = {
    "feature-extraction": pipeline("feature-extraction", base, **trust)(TEXT),
    "words": AutoTokenizer.from_pretrained(words, **trust)(TEXT).input_ids,
}
tasks = {
    "tagger": ("token-classification", TEXT),
    "reader": (question_answering, asked),
    "classifier": ("text-classification", TEXT),
}
for name, source in heads.items():
    task, question = tasks[name]
    answers[name] = pipeline(task, source, **trust)(question)
# Scores of tokens are numbers of numpy.
(results / "answers.json").write_text(json.dumps(answers, default=float), encoding="utf-8")
