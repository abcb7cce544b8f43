"""The example scripts of transformers, byte for byte as published, with a folder's own code instead of this package.

They are no part of an installed transformers. To run them, get the repository at a tag from v5.2.0 on, and name the
folder:

    git clone --depth 1 --branch v5.2.0 https://github.com/huggingface/transformers
    HF_ELMO_TRANSFORMERS_EXAMPLES=transformers/examples/pytorch python -m pytest tests/test_example_scripts.py
"""

import json
import os
from pathlib import Path

import pytest
from isolated import run_isolated

import hf_elmo

pytestmark = pytest.mark.slow

_VARIABLE = "HF_ELMO_TRANSFORMERS_EXAMPLES"


@pytest.fixture(scope="session")
def example_scripts() -> Path:
    """The folder of published scripts."""
    if not os.environ.get(_VARIABLE):
        pytest.skip(f"{_VARIABLE} is not set; how to get the scripts stands at the top of this file")
    folder = Path(os.environ[_VARIABLE]).resolve()
    assert folder.is_dir(), f"{_VARIABLE} names {folder}, which is no folder"
    return folder


def run_example(example_scripts: Path, name: str, folder: Path, **options) -> dict:
    """Runs a script where hf_elmo cannot be imported.

    Args:
        example_scripts: The folder that it lies in, however deep.
        name: Its name.
        folder: To run it in: `evaluate` takes metrics from here, and results go to `folder/results`.
        options: Its command line; True for a switch.

    Returns:
        All its metrics.
    """
    scripts = sorted(example_scripts.rglob(name))
    assert len(scripts) == 1, f"{example_scripts} has {len(scripts)} scripts {name}"
    options = {"output_dir": folder / "results", "report_to": "none", "use_cpu": True} | options
    arguments = []
    for key, value in options.items():
        arguments += [f"--{key}"] if value is True else [f"--{key}", value]
    run_isolated([scripts[0], "--trust_remote_code", *arguments], folder, timeout=1200)
    return json.loads((folder / "results" / "all_results.json").read_text())


def write_metric(folder: Path, name: str, code: str) -> None:
    """Writes a metric where `evaluate.load` looks before it asks the hub."""
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(code)


def save_base_model(tiny_model_folder: Path, folder: Path, padding_side: str = "right", **fields) -> Path:
    """Saves a base model and its tokenizer anew, with a configuration changed in places."""
    hf_elmo.ElmoModel.from_pretrained(tiny_model_folder, **fields).save_pretrained(folder)
    hf_elmo.ElmoTokenizer.from_pretrained(tiny_model_folder, padding_side=padding_side).save_pretrained(folder)
    return folder


# Questions

# The metrics' own normalisation is coarser; what passes here passes there.
_EXACT_MATCH = """
import datasets
import evaluate


class ExactMatch(evaluate.Metric):
    def _info(self):
        string, number = datasets.Value("string"), datasets.Value("int32")
        answers = {"text": datasets.List(string), "answer_start": datasets.List(number)}
        features = {"predictions": PREDICTIONS, "references": {"id": string, "answers": answers}}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(features))

    def _compute(self, predictions, references):
        answers = {reference["id"]: reference["answers"]["text"] or [""] for reference in references}
        hits = [prediction["prediction_text"] in answers[prediction["id"]] for prediction in predictions]
        return {KEY: 100 * sum(hits) / len(hits), "count": len(hits)}
"""
_PREDICTIONS = {"id": "datasets.Value('string')", "prediction_text": "datasets.Value('string')"}
_WITHOUT_ANSWER = {"no_answer_probability": "datasets.Value('float32')"}


def write_exact_match(folder: Path, name: str, key: str, columns: dict[str, str]) -> None:
    fields = ", ".join(f"{column!r}: {kind}" for column, kind in columns.items())
    write_metric(folder, name, _EXACT_MATCH.replace("PREDICTIONS", f"{{{fields}}}").replace("KEY", repr(key)))


def questions(shared_data: Path, unanswerable: bool) -> list[dict]:
    """Eight questions of SQuAD on short contexts; two of them on contexts of others, if some are to be unanswerable."""
    file = shared_data / "qa" / "squad_v1.1_train_partial" / "train-prefix.json"
    paragraphs = [p for article in json.loads(file.read_text())["data"] for p in article["paragraphs"]]
    rows = []
    for paragraph in [p for p in paragraphs if len(p["context"]) < 400][::3][:8]:
        question = paragraph["qas"][0]
        answers = {key: [answer[key] for answer in question["answers"]] for key in ("text", "answer_start")}
        row = {"id": question["id"], "question": question["question"], "context": paragraph["context"]}
        rows.append(row | {"answers": answers})
    if unanswerable:
        for one, other in ((1, 4), (6, 2)):
            rows[one] |= {"context": rows[other]["context"], "answers": {"text": [], "answer_start": []}}
    return rows


@pytest.mark.parametrize(
    ("options", "padding_side"),
    [
        # Dynamic padding; every context in one window.
        ({"pad_to_max_length": False, "doc_stride": 32}, "right"),
        # Windows without the answer, and questions without any.
        ({"version_2_with_negative": True, "max_seq_length": 60, "doc_stride": 20}, "right"),
        # The script then puts the context first.
        ({"version_2_with_negative": True, "max_seq_length": 128, "doc_stride": 32}, "left"),
    ],
)
def test_run_qa(options, padding_side, example_scripts, tiny_model_folder, shared_data, tmp_path):
    has_unanswerable = "version_2_with_negative" in options
    rows = questions(shared_data, has_unanswerable)
    (tmp_path / "questions.json").write_text(json.dumps({"data": rows}))
    write_exact_match(tmp_path, "squad", "exact_match", _PREDICTIONS)
    write_exact_match(tmp_path, "squad_v2", "exact", _PREDICTIONS | _WITHOUT_ANSWER)
    fields = {"task_encoder_size": 32, "task_encoder_layers": 1, "task_dropout": 0.0, "representation_dropout": 0.0}
    fields |= {"initializer_range": 0.1, "question_segment": int(padding_side == "left")}
    base = save_base_model(tiny_model_folder, tmp_path / "base", padding_side, **fields)
    metrics = run_example(
        example_scripts,
        "run_qa.py",
        tmp_path,
        model_name_or_path=base,
        train_file="questions.json",
        validation_file="questions.json",
        do_train=True,
        do_eval=True,
        max_steps=120,
        learning_rate=0.01,
        per_device_train_batch_size=16,
        **options,
    )
    assert metrics["eval_exact" if has_unanswerable else "eval_exact_match"] == 100
    assert metrics["eval_count"] == len(rows)
    windows = metrics["eval_samples"]
    assert windows > len(rows) if options.get("max_seq_length") == 60 else windows == len(rows)
    predictions = json.loads((tmp_path / "results" / "eval_predictions.json").read_text())
    assert predictions == {row["id"]: (row["answers"]["text"] or [""])[0] for row in rows}
