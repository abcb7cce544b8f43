"""What a user who has transformers and torch alone does with a saved base model; `test_remote_code.py` runs it and
looks at what it left.

Arguments: the base model's folder, a folder for results, the folder that hf_elmo is in, and names of Auto classes.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, pipeline

base, results, package = map(Path, sys.argv[1:4])
classes = sys.argv[4:]
TEXTS = ["A cat sat on the mat .", "Dogs bark"]
QUESTIONS = ["Who sat ?", "What barks ?"]

try:
    importlib.import_module("hf_elmo")
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("hf_elmo can be imported: this shows nothing")

torch.manual_seed(0)
config = AutoConfig.from_pretrained(base, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=True)
inputs = tokenizer(QUESTIONS, TEXTS, padding=True, return_tensors="pt")

vectors = {}
assert set(classes) <= config.auto_map.keys()
for name in classes:
    auto_class = getattr(transformers, name)
    batch = {key: tensor.unsqueeze(0) for key, tensor in inputs.items()} if "Choice" in name else inputs
    first = auto_class.from_pretrained(base, trust_remote_code=True).eval()
    first.save_pretrained(results / "first" / name)
    tokenizer.save_pretrained(results / "first" / name)
    second = auto_class.from_pretrained(results / "first" / name, trust_remote_code=True).eval()
    second_tokenizer = AutoTokenizer.from_pretrained(results / "first" / name, trust_remote_code=True)
    second.save_pretrained(results / "second" / name)
    second_tokenizer.save_pretrained(results / "second" / name)
    models = [first, second]
    if name == classes[-1]:
        # Once is enough: the files of all second folders are compared with those of the first ones.
        models.append(auto_class.from_pretrained(results / "second" / name, trust_remote_code=True).eval())
    with torch.no_grad():
        outputs = [model(**batch)[0] for model in models]
    for later, output in zip(models[1:], outputs[1:], strict=True):
        weights = zip(first.state_dict().values(), later.state_dict().values(), strict=True)
        assert all(torch.equal(saved, loaded) for saved, loaded in weights)
        # Sums of weights that lie elsewhere in memory may be rounded otherwise.
        torch.testing.assert_close(output, outputs[0], atol=1e-6, rtol=1e-6)
    vectors[name] = outputs[0]
torch.save(vectors, results / "vectors.pt")

answers = {}
for task, head, argument in [
    ("feature-extraction", "AutoModel", TEXTS[0]),
    ("question-answering", "AutoModelForQuestionAnswering", {"question": QUESTIONS[0], "context": TEXTS[0]}),
    ("text-classification", "AutoModelForSequenceClassification", TEXTS),
    ("token-classification", "AutoModelForTokenClassification", TEXTS[0]),
]:
    if head not in classes:
        continue
    pipe = pipeline(task, str(results / "first" / head), trust_remote_code=True)
    pipe.save_pretrained(results / "pipeline" / task)
    pipeline(task, str(results / "pipeline" / task), trust_remote_code=True)(argument)
    answers[task] = {"head": head, "argument": argument, "result": pipe(argument)}
# Scores of tokens are numbers of numpy.
(results / "answers.json").write_text(json.dumps(answers, default=float), encoding="utf-8")

from_package = [
    name
    for name, module in sys.modules.items()
    if getattr(module, "__file__", None) and package in Path(module.__file__).resolve().parents
]
assert not from_package, from_package
