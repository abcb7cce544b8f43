"""The library's own tools on ELMo, on sentences of the Stanford Sentiment Treebank."""

import functools
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import parallel_training
import pytest
import torch
from amounts import first_of
from datasets import Dataset
from parallel_training import NO_DROPOUT
from places import HELPERS
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    pipeline,
)

import hf_elmo

PACKAGE = Path(hf_elmo.__file__).parent
# The heads beside that of whole texts, with which the tests of Trainer's ways begin.
OTHER_HEADS = ["chains of tags", "spans", "choices"]


def sentences_of(path, count):
    """Sentences of a file of lines `label sentence`, as many of each label, short and long ones."""
    rows = [line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = [[row for row in rows if row[0] == label][: count // 2] for label in "01"]
    return {
        "sentence": [text.strip() for pair in zip(*chosen, strict=True) for _, text in pair],
        "label": [int(label) for pair in zip(*chosen, strict=True) for label, _ in pair],
    }


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return AutoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module")
def sst(shared_data, tokenizer):
    """48 and 16 sentences of SST-2 with their labels, tokenised in two processes."""
    folder = shared_data / "classification" / "sst"
    sets = {}
    for split, count in (("train", 48), ("dev", 16)):
        texts = Dataset.from_dict(sentences_of(folder / f"stsa.binary.{split}", count))
        sets[split] = texts.map(lambda batch: tokenizer(batch["sentence"]), batched=True, batch_size=8, num_proc=2)
    return sets


def model_of(folder, **fields):
    torch.manual_seed(3)
    sizes = {"task_encoder_size": 32, "task_encoder_layers": 1, "classifier_size": 32, "num_labels": 2}
    return AutoModelForSequenceClassification.from_pretrained(folder, **{**sizes, **fields})


@pytest.fixture
def make_trainer(tiny_model_folder, tokenizer, sst, tmp_path):
    def make(fields=(), callbacks=None, **arguments):
        common = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 8,
            "learning_rate": 0.005,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return Trainer(
            model=model_of(tiny_model_folder, **dict(fields)),
            args=TrainingArguments(**{**common, **arguments}),
            train_dataset=sst["train"],
            eval_dataset=sst["dev"],
            processing_class=tokenizer,
            compute_metrics=accuracy,
            callbacks=callbacks,
        )

    return make


def accuracy(prediction):
    logits, labels = prediction
    return {"accuracy": float((logits.argmax(axis=-1) == labels).mean())}


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal_weights(own, other):
    assert own.keys() == other.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor, other[name]), name


def test_tokenising_in_two_processes_is_the_same(sst, tokenizer):
    again = sst["train"].map(lambda batch: tokenizer(batch["sentence"]), batched=True, load_from_cache_file=False)
    for column in tokenizer.model_input_names:
        assert again[column][:] == sst["train"][column][:]


def test_train_evaluate_predict(make_trainer, sst):
    """Memorises 16 sentences; the best of the checkpoints comes back."""
    trainer = make_trainer(
        NO_DROPOUT,
        max_steps=80,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=20,
        save_strategy="steps",
        save_steps=20,
        save_total_limit=1,
        load_best_model_at_end=True,
    )
    trainer.train_dataset = sst["train"].select(range(16))
    trainer.train()
    losses = losses_of(trainer)
    assert sum(losses[-6:]) / 6 < 0.1 < 0.6 < sum(losses[:6]) / 6
    evaluations = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 4
    assert min(evaluations) < evaluations[-1], "the last one is the best, and nothing had to come back"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(evaluations), abs=1e-5)
    best = AutoModelForSequenceClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert_equal_weights(weights_of(best), weights_of(trainer.model))

    output = trainer.predict(sst["dev"].remove_columns("label"))
    assert output.predictions.shape == (16, 2)
    expected = trainer.predict(sst["dev"])
    np.testing.assert_array_equal(output.predictions, expected.predictions)
    assert expected.metrics["test_accuracy"] == trainer.evaluate()["eval_accuracy"]


def test_early_stopping(make_trainer):
    stopping = EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=100.0)
    trainer = make_trainer(
        callbacks=[stopping],
        num_train_epochs=9,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    trainer.train()
    assert trainer.state.epoch == 3, "the first is better than none, and two are not better by 100"


@pytest.mark.parametrize("fields", first_of([{"freeze_bilm": False, "dropout": 0.2}, {}]))
def test_resuming_is_bit_exact(make_trainer, fields):
    """With all its dropout: the states of optimizer, scheduler and random numbers come back, too."""
    arguments = {
        "max_steps": 9,
        "save_strategy": "steps",
        "save_steps": 4,
        "train_sampling_strategy": "group_by_length",
    }
    straight = make_trainer(fields, **arguments)
    straight.train()
    resumed = make_trainer(fields, **arguments)
    resumed.train(resume_from_checkpoint=str(Path(straight.args.output_dir) / "checkpoint-4"))
    assert losses_of(resumed)[-5:] == losses_of(straight)[-5:]
    assert_equal_weights(weights_of(straight.model), weights_of(resumed.model))


def test_bf16_autocast_on_the_cpu(make_trainer):
    trainers = [make_trainer(NO_DROPOUT, max_steps=12, bf16=bf16) for bf16 in (False, True)]
    for trainer in trainers:
        trainer.train()
    exact, rounded = map(losses_of, trainers)
    assert exact != rounded
    assert rounded[:3] == pytest.approx(exact[:3], rel=0.02)
    assert sum(rounded[-3:]) < sum(rounded[:3])
    assert {parameter.dtype for parameter in trainers[1].model.parameters()} == {torch.float32}
    assert np.isfinite(trainers[1].evaluate()["eval_loss"])


def watch_graphs(trainer):
    """Lists that fill while it trains: the number of compiled graphs after each step; and the lengths of its rows."""
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    after_steps, lengths = [], set()
    step = trainer.training_step

    def counted_step(model, inputs, *args, **kwargs):
        lengths.add(inputs["input_ids"].shape[-1])
        loss = step(model, inputs, *args, **kwargs)
        after_steps.append(graphs["unique_graphs"])
        return loss

    trainer.training_step = counted_step
    return after_steps, lengths


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"freeze_bilm": False}])
def test_compiled_training_is_the_same_and_makes_no_graph_per_length(make_trainer, sst, monkeypatch, fields):
    # Trainer sets these, and leaves them.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    arguments = {"max_steps": 14, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    eager = make_trainer({**NO_DROPOUT, **fields}, **arguments)
    eager.train()

    compiled = make_trainer(
        {**NO_DROPOUT, **fields}, torch_compile=True, torch_compile_backend="aot_eager", **arguments
    )
    after_steps, lengths = watch_graphs(compiled)
    compiled.train()
    assert after_steps[0] > 0, "nothing was compiled"
    assert len(lengths) > 6
    # The second length makes the library's graphs general; then there are no more.
    assert after_steps[-1] == after_steps[3]
    assert losses_of(compiled) == pytest.approx(losses_of(eager), abs=1e-4)
    evaluated = compiled.evaluate()["eval_loss"]
    assert evaluated == pytest.approx(eager.evaluate()["eval_loss"], abs=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize("task", first_of(["spans", "chains of tags", "choices"]))
def test_other_heads_are_trained_evaluated_and_stopped_early(task, tiny_model_folder, tmp_path):
    """One epoch that improves, and two that do not by 100; then the best checkpoint comes back, and predicts."""
    trainer = parallel_training.make_trainer(
        task,
        tiny_model_folder,
        tmp_path,
        num_train_epochs=9,
        learning_rate=0.01,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=100.0))
    trainer.train()
    assert trainer.state.epoch == 3
    evaluations = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(set(evaluations)) == 3
    best = type(trainer.model).from_pretrained(trainer.state.best_model_checkpoint)
    assert_equal_weights(weights_of(best), weights_of(trainer.model))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(evaluations), abs=1e-5)

    # Trainer groups what it predicts by length as well, and does not put it back in order.
    trainer.args.train_sampling_strategy = "random"
    output = trainer.predict(trainer.eval_dataset)
    logits = output.predictions if isinstance(output.predictions, tuple) else (output.predictions,)
    for number, row in enumerate(trainer.eval_dataset):
        batch = trainer.data_collator([row])
        with torch.no_grad():
            alone = [scores for name, scores in trainer.model(**batch).items() if name.endswith("logits")]
        for scores, expected in zip(logits, alone, strict=True):
            # Rows are padded to the longest on the right, with -100.
            found = torch.from_numpy(scores[number])[: expected.shape[1]]
            torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("task", first_of(OTHER_HEADS))
def test_other_heads_resume_bit_exactly(task, tiny_model_folder, tmp_path):
    """With all its dropout, and the L2 of the mix weights."""
    arguments = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
    straight, resumed = (
        parallel_training.make_trainer(task, tiny_model_folder, tmp_path, {"scalar_mix_l2": 0.1}, **arguments)
        for _ in range(2)
    )
    before = weights_of(straight.model)
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses_of(resumed)[-3:] == losses_of(straight)[-3:]
    assert_equal_weights(weights_of(straight.model), weights_of(resumed.model))
    changed = {name for name, tensor in weights_of(straight.model).items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name, parameter in straight.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("task", first_of(OTHER_HEADS))
def test_other_heads_in_bf16_autocast_on_the_cpu(task, tiny_model_folder, tmp_path):
    losses = {}
    for bf16 in (False, True):
        trainer = parallel_training.make_trainer(
            task, tiny_model_folder, tmp_path, NO_DROPOUT, max_steps=6, learning_rate=0.01, bf16=bf16
        )
        trainer.train()
        losses[bf16] = losses_of(trainer)
        assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHER_HEADS)
def test_other_heads_compiled_are_the_same_and_make_no_graph_per_length(task, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    arguments = {"max_steps": 8, "per_device_train_batch_size": 1, "train_sampling_strategy": "sequential"}
    eager = parallel_training.make_trainer(task, tiny_model_folder, tmp_path, NO_DROPOUT, **arguments)
    eager.train()
    compiled = parallel_training.make_trainer(
        task, tiny_model_folder, tmp_path, NO_DROPOUT, torch_compile=True, torch_compile_backend="eager", **arguments
    )
    after_steps, lengths = watch_graphs(compiled)
    compiled.train()
    assert after_steps[0] > 0, "nothing was compiled"
    assert len(lengths) > 4
    assert after_steps[-1] == after_steps[3]
    assert losses_of(compiled) == pytest.approx(losses_of(eager), abs=1e-4)
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def one_batch(tiny_model_folder, tmp_path_factory):
    """How each task is trained in one process with one batch per step: a function of the task."""
    output = tmp_path_factory.mktemp("one_batch")
    return functools.cache(lambda task: parallel_training.train(task, tiny_model_folder, output, 8))


@pytest.fixture(scope="module")
def two_processes(tiny_model_folder, tmp_path_factory):
    """Each task trained in two processes with half a batch each."""
    results = tmp_path_factory.mktemp("two_processes") / "results.pt"
    script = HELPERS / "parallel_training.py"
    # `accelerate launch --cpu --num_processes 2` of accelerate 1.15 starts one process only, whatever it is told.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.run(
        [sys.executable, *launch, str(script), str(tiny_model_folder), str(results)],
        cwd=results.parent,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-5000:]
    return torch.load(results, weights_only=True)


def assert_same_training(found, expected):
    assert len(expected["loss"]) == 3
    assert expected["loss"][0] > 0.01
    assert found["loss"] == pytest.approx(expected["loss"], rel=0, abs=1e-5)
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5, abs=1e-5)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weights in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("task", first_of(["classes", "spans", "chains of tags", *parallel_training.TASKS], 3))
def test_accumulated_gradients_are_those_of_one_batch(task, one_batch, tiny_model_folder, tmp_path):
    found = parallel_training.train(task, tiny_model_folder, tmp_path, 2, accumulate=4)
    assert_same_training(found, one_batch(task))


@pytest.mark.slow
@pytest.mark.parametrize("task", parallel_training.TASKS)
def test_two_processes_train_as_one(task, one_batch, two_processes):
    assert_same_training(two_processes[task], one_batch(task))


@pytest.fixture
def our_warnings(caplog, monkeypatch):
    """Collects warnings and messages; gives those that are about ELMo, or that no model should cause."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    # The library passes its messages on to the root logger where CI is set, so that they would be seen twice.
    monkeypatch.setattr(logger, "propagate", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def collect():
            messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            messages += [str(each.message) for each in caught if each.filename.startswith(str(PACKAGE))]
            return messages

        yield collect
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def classifier_folder(tiny_model_folder, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    model = model_of(tiny_model_folder, num_labels=3, id2label={0: "negative", 1: "neutral", 2: "positive"})
    with torch.no_grad():
        model.text_scorer.scores.weight.mul_(50)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_text_classification_pipeline(classifier_folder, tokenizer, our_warnings):
    texts = ["A fine film .", "", "Dull , dull , dull : two hours of my life are gone and nothing gives them back !"]
    pairs = [{"text": text, "text_pair": "It is good ."} for text in texts]
    classify = pipeline("text-classification", str(classifier_folder))
    model = AutoModelForSequenceClassification.from_pretrained(classifier_folder).eval()
    for inputs in (texts, pairs):
        with torch.no_grad():
            expected = [
                model(**tokenizer(*(([one],) if isinstance(one, str) else ([one["text"]], [one["text_pair"]])),
                                  return_tensors="pt")).logits[0].softmax(dim=0).tolist()
                for one in inputs
            ]  # fmt: skip
        for batch_size in (1, 3):
            for row, results in zip(expected, classify(inputs, top_k=None, batch_size=batch_size), strict=True):
                assert [result["label"] for result in results] == [
                    model.config.id2label[number] for number in np.argsort(row)[::-1]
                ]
                assert [result["score"] for result in results] == pytest.approx(sorted(row, reverse=True), abs=1e-6)
        best = classify(inputs)
        assert [result["score"] for result in best] == pytest.approx([max(row) for row in expected], abs=1e-6)
        assert [len(results) for results in classify(inputs, top_k=2)] == [2, 2, 2]
    assert len({result["score"] for result in best}) == 3
    assert not our_warnings()


def test_feature_extraction_pipeline(tiny_model_folder, tokenizer, our_warnings):
    texts = ["A fine film .", "Dull", "Two hours of my life are gone ."]
    extract = pipeline("feature-extraction", str(tiny_model_folder))
    model = hf_elmo.ElmoModel.from_pretrained(tiny_model_folder).eval()
    for batch_size in (1, 3):
        for text, features in zip(texts, extract(texts, batch_size=batch_size), strict=True):
            inputs = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                expected = model(**inputs).last_hidden_state[0]
            features = torch.tensor(features)[0]
            torch.testing.assert_close(features[: len(expected)], expected, atol=1e-5, rtol=1e-5)
            assert not features[len(expected) :].any()
    assert extract(texts[0], return_tensors=True).shape == (1, 6, 32)
    assert not our_warnings()


def test_training_gives_no_warnings(make_trainer, our_warnings):
    trainer = make_trainer(max_steps=2, save_strategy="steps", save_steps=2)
    reports = len(our_warnings())
    assert reports == 1, "the library's report of the fresh head"
    trainer.train()
    trainer.evaluate()
    AutoModelForSequenceClassification.from_pretrained(Path(trainer.args.output_dir) / "checkpoint-2")
    assert len(our_warnings()) == reports
    state = json.loads(
        (Path(trainer.args.output_dir) / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8")
    )
    assert state["global_step"] == 2
