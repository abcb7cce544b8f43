"""The README's recipes, run as they stand on a little real data in the files that they name."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import warm
from amounts import first_of
from places import CHECKOUT
from typer.testing import CliRunner

from hf_elmo import ElmoConfig, bundled
from hf_elmo.commands.app import app

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
RECIPES = README + (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")


def recipe(name: str) -> str:
    block = re.search(rf"<!-- recipe: {name} -->\s*```python\n(.*?)```", RECIPES, flags=re.DOTALL)
    assert block is not None, f"README.md has no recipe {name}"
    return block[1]


def run_anew(arguments, **options):
    """A process that really starts; the others here are forks."""
    return subprocess.run([sys.executable, *arguments], **options)


def run(code: str, folder: Path, more: str = "", start=warm.run) -> str:
    """Runs a recipe in a process of its own, in the folder; what `more` prints at the end is returned."""
    (folder / "recipe.py").write_text(f"{code}\nprint('=====')\n{more}\n", encoding="utf-8")
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    result = start(["recipe.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.split("=====\n")[-1]


def write_json(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def conll(path: Path, most: int) -> list[dict]:
    """The first sentences with an entity of a file with a word and its tag on each line."""
    # Lines between sentences may hold a tab.
    sentences = re.split(r"\n\s*\n", path.read_text(encoding="utf-8").strip())
    pairs = [[line.split("\t") for line in sentence.splitlines()] for sentence in sentences]
    rows = [{"tokens": [word for word, _ in words], "tags": [tag for _, tag in words]} for words in pairs]
    return [row for row in rows if set(row["tags"]) != {"O"}][:most]


def test_the_first_example(tmp_path):
    printed = run("", tmp_path, recipe("vectors")).splitlines()
    config = ElmoConfig.from_pretrained(bundled())
    assert printed == [
        f"torch.Size([2, 9, {config.hidden_size}])",
        str(config.num_layers + 1),
        f"['Any', 'number', 'of', 'sentences', '.'] (5, {config.hidden_size})",
        f"['Or', 'words'] (2, {config.hidden_size})",
    ]


def test_the_output_that_the_readme_shows():
    """The numbers beside `hf-elmo compare` are those of the bundled model."""
    block = re.search(r"<!-- output: compare -->\s*```console\n\$ hf-elmo (.*?)\n(.*?)```", README, flags=re.DOTALL)
    shown = [line.split() for line in block[2].splitlines()[1:]]
    result = CliRunner().invoke(app, shlex.split(block[1]))
    assert result.exit_code == 0
    computed = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [row[:3] for row in shown] == [row[:3] for row in computed]
    for row, right in zip(shown, computed, strict=True):
        assert [float(number) for number in row[3:]] == pytest.approx([float(number) for number in right[3:]], abs=2e-3)


def test_uses_of_the_language_model(tmp_path):
    code = recipe("language model")
    printed = run("", tmp_path, code).splitlines()
    assert "'token_str': " in printed[0]
    assert printed[1].startswith("Perplexity(forward=")
    config = json.loads((Path(bundled()) / "config.json").read_text(encoding="utf-8"))
    assert printed[3:] == [f"torch.Size([{config['num_layers'] + 1}, {config['projection_dim']}])"] * 3


@pytest.mark.parametrize(
    ("name", "rows"),
    first_of(
        [
            ("ner", [{"tokens": ["Anna", "left"], "tags": ["B-person", "O"]}]),
            (
                "qa",
                [{"question": "Who left ?", "context": "Anna .", "answers": {"text": ["Anna"], "answer_start": [0]}}],
            ),
            ("classification", [{"text": "Good .", "label": 1}, {"text": "Bad .", "label": 0}]),
            ("classification", [{"text": "I", "pair": "you", "label": 1}, {"text": "I", "pair": "I", "label": 0}]),
        ],
    ),
)
def test_recipes_run(tmp_path, name, rows):
    """On what fits in a line; what they learn from more is tested below."""
    write_json(tmp_path / "train.json", rows)
    write_json(tmp_path / "dev.json", rows)
    assert run(recipe(name), tmp_path, "print(trainer.state.global_step)").split() == ["10"]


@pytest.mark.slow
def test_named_entities(tmp_path, shared_data):
    rows = conll(shared_data / "ner/wnut17/wnut17train.conll", 48)
    write_json(tmp_path / "train.json", rows)
    write_json(tmp_path / "dev.json", rows)
    more = """
print(*[entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry])
import numpy
from transformers import EvalPrediction
gold = trainer.predict(trainer.eval_dataset).label_ids
for right in (gold.clip(0), gold * 0):
    print(entity_f1(EvalPrediction(predictions=numpy.eye(len(labels))[right], label_ids=gold))["f1"])
"""
    printed = run(recipe("ner"), tmp_path, recipe("entity f1") + more, run_anew)
    losses, perfect, one_label = (list(map(float, line.split())) for line in printed.splitlines())
    assert len(losses) == 10
    assert perfect == [1]
    assert 0 <= one_label[0] < 1
    assert 0 < losses[-1] < 0.7 * losses[0]


def test_named_entities_with_a_tag_that_only_dev_has(tmp_path):
    write_json(tmp_path / "train.json", [{"tokens": ["Anna", "left"], "tags": ["B-person", "O"]}])
    write_json(tmp_path / "dev.json", [{"tokens": ["Oslo", "slept"], "tags": ["B-location", "O"]}])
    before_training = recipe("ner").partition("arguments = ")[0]
    printed = run(before_training, tmp_path, 'print(labels, data["validation"]["labels"][0], model.config.num_labels)')
    assert printed.strip() == "['B-location', 'B-person', 'O'] [-100, 0, 2, -100] 3"


def test_recipes_are_short():
    for name in ("ner", "qa"):
        assert sum(bool(line.strip()) for line in recipe(name).splitlines()) <= 20


@pytest.mark.slow
def test_questions(tmp_path, shared_data):
    file = shared_data / "qa/squad_v1.1_train_partial/train-prefix.json"
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    rows = [
        {
            "question": question["question"],
            "context": paragraph["context"],
            "answers": {key: [answer[key] for answer in question["answers"]] for key in ("text", "answer_start")},
        }
        for paragraph in articles[0]["paragraphs"][:3]
        for question in paragraph["qas"][:3]
    ]
    write_json(tmp_path / "train.json", rows)
    more = "print(answer(question=data[0]['question'], context=data[0]['context'])['answer'] in data[0]['context'])"
    assert run(recipe("qa"), tmp_path, more, run_anew).split() == ["True"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sst", "snli"])
def test_texts(tmp_path, shared_data, task):
    if task == "sst":
        lines = (shared_data / "classification/sst/stsa.binary.train").read_text(encoding="utf-8").splitlines()[:96]
        rows = [{"text": line[2:], "label": int(line[0])} for line in lines]
    else:
        folder = shared_data / "classification/snli_dev_test"
        columns = [(folder / f"{name}.dev").read_text(encoding="utf-8").splitlines() for name in ("s1", "s2", "labels")]
        kinds = {"entailment": 0, "neutral": 1, "contradiction": 2}
        rows = [{"text": a, "pair": b, "label": kinds[c]} for a, b, c in zip(*columns) if c in kinds][:96]
    write_json(tmp_path / "train.json", rows)
    write_json(tmp_path / "dev.json", rows)
    printed = run(recipe("classification"), tmp_path, "print(trainer.evaluate()['eval_accuracy'])", run_anew)
    counts = Counter(row["label"] for row in rows)
    # Ten epochs over a hundred texts: better than always the most frequent label.
    assert float(printed) > max(counts.values()) / len(rows)


def test_the_bundled_model_is_the_one_that_is_named():
    assert Path(bundled()).name == "elmo-mini"
    assert 'bundled("elmo-mini")' in README
