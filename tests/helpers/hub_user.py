"""What a user does with models of the hub, by their names; `test_hub.py` runs it and looks at what it left.

Arguments: "installed" or "remote" (whose code is used), a folder for results, and names (or folders) of: a base model,
a tagger, a reader, a classifier, and a tokenizer.
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
base, tagger, reader, classifier, words = sys.argv[3:]
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
for name, source, auto_class in [
    ("base", base, AutoModel),
    ("tagger", tagger, AutoModelForTokenClassification),
    ("reader", reader, AutoModelForQuestionAnswering),
    ("classifier", classifier, AutoModelForSequenceClassification),
]:
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
    "token-classification": pipeline("token-classification", tagger, **trust)(TEXT),
    "text-classification": pipeline("text-classification", classifier, **trust)(TEXT),
    "question-answering": pipeline(question_answering, reader, **trust)(asked),
    "words": AutoTokenizer.from_pretrained(words, **trust)(TEXT).input_ids,
}
# Scores of tokens are numbers of numpy.
(results / "answers.json").write_text(json.dumps(answers, default=float), encoding="utf-8")
