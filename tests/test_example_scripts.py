"""The example scripts of transformers, byte for byte as published, with a folder's own code instead of this package.

They are no part of an installed transformers. To run them, get the repository at the tag v5.2.0, and name the folder:

    git clone --depth 1 --branch v5.2.0 https://github.com/huggingface/transformers
    HF_ELMO_TRANSFORMERS_EXAMPLES=transformers/examples/pytorch python -m pytest tests/test_example_scripts.py -m slow

Two things fail there with any model, as the last test shows: string labels in CSV files, and several labels per text.
"""

import csv
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from isolated import TRAINING, run_isolated
from safetensors.torch import load_file
from seq2seq_training import swapper, swaps
from transformers import BertConfig, BertModel, BertTokenizer

import hf_elmo

pytestmark = pytest.mark.slow

_VARIABLE = "HF_ELMO_TRANSFORMERS_EXAMPLES"

# SHA-256 of the scripts, and of the modules that they import, at the tag v5.2.0.
PUBLISHED = {
    "run_ner.py": "32d08c1f52f05b1e5938849e2dcf15d88045e2955d5fcee9d52a7850eeb31fc9",
    "run_qa.py": "4a6c10e7daa3f1e8e9c1226e8f4eaff2ac25af67b6ecd4bdf4d34f1af695da1d",
    "utils_qa.py": "d6e378e0697c8c20e80724a6fe40cd3dd2156b8388b374f0f1fcc091734866e9",
    "trainer_qa.py": "929a62fd4f6b563c836ecf378ffd6a887ce60489eb92853ad335f70600dbfedc",
    "run_glue.py": "282ba1a1811ebd31f9ae74378cc5cbb294fc393864ca59497486c939e26a1b52",
    "run_classification.py": "3a2c1c717f303a8eef51cdf8434ef1b48e95a09a58ba7935f16a3748b739d406",
}


@pytest.fixture(scope="session")
def example_scripts() -> dict[str, Path]:
    """The published scripts, by name."""
    if not os.environ.get(_VARIABLE):
        pytest.skip(f"{_VARIABLE} is not set; how to get the scripts stands at the top of this file")
    folder = Path(os.environ[_VARIABLE]).resolve()
    assert folder.is_dir(), f"{_VARIABLE} names {folder}, which is no folder"
    scripts = {}
    for name, digest in PUBLISHED.items():
        found = sorted(folder.rglob(name))
        assert len(found) == 1, f"{folder} has {len(found)} files {name}"
        assert hashlib.sha256(found[0].read_bytes()).hexdigest() == digest, f"{found[0]} is not that of v5.2.0"
        scripts[name] = found[0]
    return scripts


def start_example(script: Path, folder: Path, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Runs a script where hf_elmo cannot be imported.

    Args:
        script: Its file.
        folder: To run it in: `evaluate` takes metrics from here, and results go to `folder/results`.
        check: Whether it must not fail.
        options: Its command line; True for a switch.
    """
    options = {"output_dir": "results", "report_to": "none", "use_cpu": True} | options
    arguments = []
    for key, value in options.items():
        arguments += [f"--{key}"] if value is True else [f"--{key}", value]
    return run_isolated([script, "--trust_remote_code", *arguments], folder, timeout=1200, check=check, also=TRAINING)


def run_example(script: Path, folder: Path, **options) -> dict:
    """As `start_example`; returns all metrics."""
    start_example(script, folder, **options)
    return json.loads((folder / options.get("output_dir", "results") / "all_results.json").read_text(encoding="utf-8"))


_METRIC = """
import datasets
import evaluate


class Metric(evaluate.Metric):
    def _info(self):
        string, number = datasets.Value("string"), datasets.Value("float32")
        features = {"predictions": PREDICTIONS, "references": REFERENCES}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(features))

    def _compute(self, predictions, references, **options):
"""


def write_metric(folder: Path, name: str, predictions: str, references: str, code: str) -> None:
    """Writes a metric where `evaluate.load` looks before it asks the hub.

    Args:
        folder: Where the script will run.
        name: The metric's name.
        predictions: The type of a prediction, an expression over `datasets`, `string` and `number`.
        references: Likewise, of what is right.
        code: Lines that return a dictionary, of the lists `predictions` and `references`.
    """
    text = _METRIC.replace("PREDICTIONS", predictions).replace("REFERENCES", references)
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(
        text + "".join(f"        {line}\n" for line in code.splitlines()), encoding="utf-8"
    )


def write_rows(file: Path, rows: list[dict]) -> str:
    """Writes a CSV file or one of JSON lines, as its name says; returns that name."""
    if file.suffix == ".csv":
        with open(file, "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file.name


# Sizes with which a head on the tiny model learns a few examples by heart in seconds.
LEARNS = {
    "task_encoder_size": 32,
    "task_encoder_layers": 1,
    "classifier_size": 32,
    "task_dropout": 0.0,
    "representation_dropout": 0.0,
    "initializer_range": 0.1,
}


def save_base_model(tiny_model_folder: Path, folder: Path, padding_side: str = "right", **fields) -> Path:
    """Saves a base model and its tokenizer anew, with a configuration changed in places."""
    hf_elmo.ElmoModel.from_pretrained(tiny_model_folder, **fields).save_pretrained(folder)
    hf_elmo.ElmoTokenizer.from_pretrained(tiny_model_folder, padding_side=padding_side).save_pretrained(folder)
    return folder


# Questions

# The published metrics' normalisation is coarser; what passes here passes there.
_EXACT_MATCH = """
answers = {reference["id"]: reference["answers"]["text"] or [""] for reference in references}
hits = [prediction["prediction_text"] in answers[prediction["id"]] for prediction in predictions]
return {KEY: 100 * sum(hits) / len(hits), "count": len(hits)}
"""
_REFERENCE = """{
    "id": string,
    "answers": {"text": datasets.List(string), "answer_start": datasets.List(datasets.Value("int32"))},
}"""


def questions(shared_data: Path, unanswerable: bool) -> list[dict]:
    """Eight questions of SQuAD on short contexts; two of them on contexts of others, if some are to be unanswerable."""
    file = shared_data / "qa" / "squad_v1.1_train_partial" / "train-prefix.json"
    paragraphs = [p for article in json.loads(file.read_text(encoding="utf-8"))["data"] for p in article["paragraphs"]]
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
    (tmp_path / "questions.json").write_text(json.dumps({"data": rows}), encoding="utf-8")
    for name, key, more in (
        ("squad", "exact_match", ""),
        ("squad_v2", "exact", ", 'no_answer_probability': number"),
    ):
        prediction = f"{{'id': string, 'prediction_text': string{more}}}"
        write_metric(tmp_path, name, prediction, _REFERENCE, _EXACT_MATCH.replace("KEY", repr(key)))
    fields = LEARNS | {"question_segment": int(padding_side == "left")}
    base = save_base_model(tiny_model_folder, tmp_path / "base", padding_side, **fields)
    metrics = run_example(
        example_scripts["run_qa.py"],
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
    predictions = json.loads((tmp_path / "results" / "eval_predictions.json").read_text(encoding="utf-8"))
    assert predictions == {row["id"]: (row["answers"]["text"] or [""])[0] for row in rows}


# Entities

_SEQEVAL = """
from seqeval import metrics

names = ("precision", "recall", "f1", "accuracy")
return {f"overall_{name}": getattr(metrics, f"{name}_score")(references, predictions) for name in names}
"""


@pytest.fixture
def entities(shared_data, tiny_model_folder, tmp_path) -> dict:
    """Twelve sentences of WNUT-17 with entities, and what `run_ner.py` needs beside them: its options."""
    text = (shared_data / "ner" / "wnut17" / "wnut17train.conll").read_text(encoding="utf-8")
    sentences = [[line.split("\t") for line in block.splitlines()] for block in re.split(r"\n\s*\n", text.strip())]
    rows = [
        {"tokens": [word for word, _ in sentence], "ner_tags": [tag for _, tag in sentence]}
        for sentence in sentences
        if len(sentence) < 20 and any(tag != "O" for _, tag in sentence)
    ][:12]
    assert len({tag for row in rows for tag in row["ner_tags"]}) > 5
    name = write_rows(tmp_path / "entities.json", rows)
    tags = "datasets.List(string)"
    write_metric(tmp_path, "seqeval", tags, tags, _SEQEVAL)
    base = save_base_model(tiny_model_folder, tmp_path / "base", **LEARNS)
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), name)
    return {"model_name_or_path": base, "per_device_train_batch_size": 12, "learning_rate": 0.02, **files}


def test_run_ner(entities, example_scripts, tmp_path):
    metrics = run_example(
        example_scripts["run_ner.py"],
        tmp_path,
        **entities,
        do_train=True,
        do_eval=True,
        do_predict=True,
        max_steps=150,
        lr_scheduler_type="constant",
    )
    rows = [json.loads(line) for line in (tmp_path / "entities.json").read_text(encoding="utf-8").splitlines()]
    right = [" ".join(row["ner_tags"]) for row in rows]
    assert (metrics["eval_f1"], metrics["predict_f1"], metrics["eval_samples"]) == (1, 1, len(rows))
    assert (tmp_path / "results" / "predictions.txt").read_text(encoding="utf-8").splitlines() == right
    # What it saved is a model like the one that it began with, and its code is there.
    again = run_example(
        example_scripts["run_ner.py"],
        tmp_path,
        **entities | {"model_name_or_path": tmp_path / "results"},
        output_dir="again",
        do_eval=True,
        do_predict=True,
        max_seq_length=30,
        pad_to_max_length=True,
    )
    assert again["eval_f1"] == 1
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-4)
    assert (tmp_path / "again" / "predictions.txt").read_text(encoding="utf-8").splitlines() == right


def test_run_ner_resumes(entities, example_scripts, tmp_path):
    """Worker processes, batches by length, checkpoints of gradients and bfloat16, interrupted or not."""
    options = {
        **entities,
        "do_train": True,
        "per_device_train_batch_size": 4,
        # A checkpoint between epochs: within one, batches by length are drawn anew, which is the library's way.
        "max_steps": 6,
        "save_steps": 3,
        "preprocessing_num_workers": 2,
        "dataloader_num_workers": 2,
        "train_sampling_strategy": "group_by_length",
        "gradient_checkpointing": True,
        "bf16": True,
    }
    script = example_scripts["run_ner.py"]
    run_example(script, tmp_path, **options)
    run_example(script, tmp_path, **options, output_dir="resumed", resume_from_checkpoint="results/checkpoint-3")
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("results", "resumed"))
    early = load_file(tmp_path / "results" / "checkpoint-3" / "model.safetensors")
    assert any(not torch.equal(tensor, early[name]) for name, tensor in whole.items())
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


# Texts


def texts(shared_data: Path, kind: str) -> list[dict]:
    """Some twenty labelled texts: sentences of SST with `"numbers"`, `"scores"`, `"names"` or `"lists"` of names as
    labels, or `"pairs"` of SNLI.
    """
    if kind == "pairs":
        folder = shared_data / "classification" / "snli_dev_test"
        columns = [
            (folder / f"{name}.dev").read_text(encoding="utf-8").splitlines()[:15] for name in ("s1", "s2", "labels")
        ]
        return [dict(zip(("sentence1", "sentence2", "label"), row)) for row in zip(*columns, strict=True)]
    lines = (shared_data / "classification" / "sst" / "stsa.fine.dev").read_text(encoding="utf-8").splitlines()
    rows = [(int(grade), text.strip()) for grade, text in (line.split(" ", 1) for line in lines) if len(text) < 80]
    if kind in ("numbers", "names"):
        labels = (0, None, None, None, 1) if kind == "numbers" else ("bad", None, None, None, "good")
    else:
        names = (["bad"], ["bad", "mild"], ["mild"], ["good", "mild"], ["good"])
        labels = (0.0, 0.25, 0.5, 0.75, 1.0) if kind == "scores" else names
    rows = [{"sentence": text, "label": labels[grade]} for grade, text in rows if labels[grade] is not None]
    return rows[:16]


def write_text_metrics(folder: Path) -> None:
    pairs, count = "zip(predictions, references, strict=True)", "len(references)"
    write_metric(
        folder, "accuracy", "number", "number", f"return {{'accuracy': sum(a == b for a, b in {pairs}) / {count}}}"
    )
    write_metric(
        folder, "mse", "number", "number", f"return {{'mse': sum((a - b) ** 2 for a, b in {pairs}) / {count}}}"
    )
    several = "datasets.List(number)"
    write_metric(folder, "f1", several, several, f"return {{'f1': sum(a == b for a, b in {pairs}) / {count}}}")


@pytest.mark.parametrize(
    ("script", "kind", "suffix", "options"),
    [
        # Padded to max_seq_length, as both do by default.
        ("run_glue.py", "numbers", ".csv", {"max_seq_length": 30}),
        ("run_glue.py", "pairs", ".json", {"pad_to_max_length": False}),
        ("run_glue.py", "scores", ".json", {"pad_to_max_length": False}),
        ("run_classification.py", "numbers", ".csv", {"max_seq_length": 30}),
        # It joins the texts of several columns.
        (
            "run_classification.py",
            "pairs",
            ".json",
            {"pad_to_max_length": False, "text_column_names": "sentence1,sentence2"},
        ),
        ("run_classification.py", "scores", ".json", {"pad_to_max_length": False}),
    ],
)
def test_run_text_classification(
    script, kind, suffix, options, example_scripts, tiny_model_folder, shared_data, tmp_path
):
    rows = texts(shared_data, kind)
    name = write_rows(tmp_path / f"texts{suffix}", rows)
    write_text_metrics(tmp_path)
    metrics = run_example(
        example_scripts[script],
        tmp_path,
        model_name_or_path=save_base_model(tiny_model_folder, tmp_path / "base", **LEARNS),
        train_file=name,
        validation_file=name,
        test_file=name,
        do_train=True,
        do_eval=True,
        do_predict=True,
        max_steps=100,
        learning_rate=0.01,
        per_device_train_batch_size=16,
        **options,
    )
    assert metrics["eval_samples"] == len(rows)
    file = "predict_results_None.txt" if script == "run_glue.py" else "predict_results.txt"
    header, *lines = (tmp_path / "results" / file).read_text(encoding="utf-8").splitlines()
    assert header == "index\tprediction"
    predictions = [line.split("\t")[1] for line in lines]
    labels = [row["label"] for row in rows]
    if kind == "scores":
        # Each is nearest to its own grade.
        assert [float(value) for value in predictions] == pytest.approx(labels, abs=0.12)
        assert metrics["eval_mse"] < 0.12**2
    else:
        assert predictions == [str(label) for label in labels]
        assert metrics["eval_accuracy"] == 1


@pytest.mark.parametrize(
    ("script", "kind", "suffix", "error"),
    [
        # pandas 3 reads large strings, and `map` turns the ids back into such.
        ("run_glue.py", "names", ".csv", "ValueError: too many dimensions 'str'"),
        ("run_classification.py", "names", ".csv", "ValueError: too many dimensions 'str'"),
        # Lists have no dtype in datasets from 4 on.
        ("run_classification.py", "lists", ".json", "AttributeError: 'List' object has no attribute 'dtype'"),
    ],
)
def test_what_fails_with_any_model(
    script, kind, suffix, error, example_scripts, tiny_model_folder, shared_data, tmp_path
):
    """Where a stock BERT fails, by a fault of the script with today's libraries, so does ELMo; else neither does."""
    name = write_rows(tmp_path / f"texts{suffix}", texts(shared_data, kind))
    write_text_metrics(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "film"]
    (tmp_path / "words.txt").write_text("\n".join(words), encoding="utf-8")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "bert")
    BertTokenizer(vocab=str(tmp_path / "words.txt")).save_pretrained(tmp_path / "bert")
    save_base_model(tiny_model_folder, tmp_path / "elmo", **LEARNS)
    found = {}
    for model in ("bert", "elmo"):
        process = start_example(
            example_scripts[script],
            tmp_path,
            check=False,
            model_name_or_path=model,
            output_dir=f"results_{model}",
            train_file=name,
            validation_file=name,
            do_train=True,
            do_eval=True,
            max_steps=2,
        )
        errors = re.findall(r"^\w+Error: .*", process.stderr, flags=re.MULTILINE)
        found[model] = errors[-1] if process.returncode else None
    assert found["elmo"] == found["bert"]
    assert found["bert"] is None or found["bert"].startswith(error)


# Translations and summaries


@pytest.fixture(scope="session")
def writing_scripts() -> dict[str, Path]:
    """The two scripts for models that write, of any version: they were run as they are at the commit 5a67f0a7 of the
    main branch (30 January 2026, between v5.0.0 and v5.2.0), and their digests at the tag are not known.
    """
    if not os.environ.get(_VARIABLE):
        pytest.skip(f"{_VARIABLE} is not set; how to get the scripts stands at the top of this file")
    folder = Path(os.environ[_VARIABLE]).resolve()
    return {name: next(folder.rglob(name)) for name in ("run_translation.py", "run_summarization.py")}


# NLTK's data does not come with it; the script only wants sentences on lines of their own.
_NLTK = """
class data:
    find = staticmethod(print)


def sent_tokenize(text):
    return text.split(" . ")
"""
_EXACT_TEXT = """
texts = [reference[0] if isinstance(reference, list) else reference for reference in references]
return {KEY: SCALE * sum(a == b for a, b in zip(predictions, texts, strict=True)) / len(texts)}
"""


def save_swapper(folder: Path) -> Path:
    """A fresh model and its tokenizers for the sentences of `swaps`."""
    model, tokenizer = swapper()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("is_padded", [False, True])
def test_run_translation(is_padded, writing_scripts, tmp_path):
    sources, targets = swaps(12)
    rows = [{"translation": {"en": source, "de": target}} for source, target in zip(sources, targets, strict=True)]
    name = write_rows(tmp_path / "pairs.json", rows)
    code = _EXACT_TEXT.replace("KEY", "'score'").replace("SCALE", "100")
    write_metric(tmp_path, "sacrebleu", "string", "datasets.List(string)", code)
    metrics = run_example(
        writing_scripts["run_translation.py"],
        tmp_path,
        model_name_or_path=save_swapper(tmp_path / "base"),
        source_lang="en",
        target_lang="de",
        **dict.fromkeys(("train_file", "validation_file", "test_file"), name),
        do_train=True,
        do_eval=True,
        do_predict=True,
        predict_with_generate=True,
        max_target_length=15,
        num_beams=2,
        max_steps=300,
        learning_rate=0.003,
        per_device_train_batch_size=12,
        **({"pad_to_max_length": True, "max_source_length": 12} if is_padded else {"label_smoothing_factor": 0.1}),
    )
    assert metrics["eval_bleu"] == metrics["predict_bleu"] == 100
    assert metrics["eval_samples"] == len(rows)
    written = (tmp_path / "results" / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()
    assert written == targets
    # What it saved is a model like the one that it began with, and its code is there.
    again = run_example(
        writing_scripts["run_translation.py"],
        tmp_path,
        model_name_or_path=tmp_path / "results",
        source_lang="en",
        target_lang="de",
        validation_file=name,
        output_dir="again",
        do_eval=True,
        predict_with_generate=True,
        max_target_length=15,
    )
    assert again["eval_bleu"] == 100


def test_run_summarization(writing_scripts, tmp_path):
    sources, targets = swaps(12)
    rows = [{"text": source, "summary": target} for source, target in zip(sources, targets, strict=True)]
    name = write_rows(tmp_path / "pairs.json", rows)
    write_metric(tmp_path, "rouge", "string", "string", _EXACT_TEXT.replace("KEY", "'rouge1'").replace("SCALE", "1"))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "nltk.py").write_text(_NLTK, encoding="utf-8")
    metrics = run_example(
        writing_scripts["run_summarization.py"],
        tmp_path,
        model_name_or_path=save_swapper(tmp_path / "base"),
        **dict.fromkeys(("train_file", "validation_file", "test_file"), name),
        do_train=True,
        do_eval=True,
        do_predict=True,
        predict_with_generate=True,
        max_source_length=20,
        max_target_length=15,
        num_beams=2,
        max_steps=300,
        learning_rate=0.003,
        per_device_train_batch_size=6,
        gradient_accumulation_steps=2,
    )
    assert metrics["eval_rouge1"] == metrics["predict_rouge1"] == 100
    written = (tmp_path / "results" / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()
    assert written == targets
