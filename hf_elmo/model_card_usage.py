"""The lines of code of a model card: how to use the model that it describes."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """Python code that uses a model, with hf_elmo imported before it, and without.

    Attributes:
        code: With hf_elmo.
        remote_code: With the code in the model's folder.
    """

    code: str
    remote_code: str


_VECTORS = """\
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name}{trust})
model = AutoModel.from_pretrained({name}{trust}).eval()
inputs = tokenizer({sentences}, padding=True, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, output_hidden_states=True)
outputs.last_hidden_state  # (batch, words, dim); <S> and </S> have rows too
outputs.hidden_states  # the layers: words without context, then those of the biLSTM"""

_SOFTMAX = """
fill = pipeline("elmo-fill-mask", model={name})
print(fill("He came on [MASK] ."))"""

_PIPELINES = {
    "ElmoForTokenClassification": """\
from transformers import pipeline

tag = pipeline("token-classification", model={name}, aggregation_strategy="simple"{trust})
print(tag("George Bush left for New York ."))""",
    "ElmoForSequenceClassification": """\
from transformers import pipeline

classify = pipeline("text-classification", model={name}{trust})
print(classify("I read the book yesterday."))""",
    "ElmoForQuestionAnswering": """\
from transformers import pipeline

answer = pipeline("{task}", model={name}{trust})
print(answer(question="Who left for New York?", context="George Bush left for New York ."))""",
    "ElmoForMultipleChoice": """\
from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name}{trust})
model = AutoModelForMultipleChoice.from_pretrained({name}{trust}).eval()
questions, answers = ["Who left?"] * 2, ["George Bush left.", "New York left."]
inputs = tokenizer(questions, answers, padding=True, return_tensors="pt")
print(model(**{{key: value.unsqueeze(0) for key, value in inputs.items()}}).logits)""",
}


def usage_of(architecture: str, name: str, is_protein: bool = False) -> Usage:
    """How to use a model.

    Args:
        architecture: The class of the model.
        name: Its folder, or its repository on the hub.
        is_protein: Whether its sentences are proteins, and its words amino acids.
    """
    sentences = '["M K T A Y I A K Q R"]' if is_protein else '["I read the book yesterday."]'
    template = _PIPELINES.get(architecture, _VECTORS)
    # The library removed its own pipeline "question-answering": the code of a folder may take the name, a package not.
    fields = {"name": _quoted(name), "sentences": sentences}
    own = template.format(**fields, trust="", task="elmo-question-answering")
    remote = template.format(**fields, trust=", trust_remote_code=True", task="question-answering")
    if architecture == "ElmoForPreTraining":
        own = own.replace("AutoTokenizer\n", "AutoTokenizer, pipeline\n", 1) + _SOFTMAX.format(**fields)
    return Usage(own, remote)


def _quoted(text: str) -> str:
    """A literal of Python in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
