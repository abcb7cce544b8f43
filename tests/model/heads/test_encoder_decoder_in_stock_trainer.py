"""transformers' own `Seq2SeqTrainer` on a model that writes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import HELPERS
from safetensors.torch import load_file
from seq2seq_training import make_trainer, swapper, swaps, train
from small_translator import SOURCES, TARGETS, small_translator, two_tokenizers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

import hf_elmo

PACKAGE = Path(hf_elmo.__file__).parent


def assert_same_steps(one, other):
    for name in ("loss", "grad_norm"):
        assert one[name] == pytest.approx(other[name], rel=1e-4), name
    assert one["weights"].keys() == other["weights"].keys()
    for name, value in one["weights"].items():
        torch.testing.assert_close(value, other["weights"][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_gradients_are_those_of_one_batch(smoothing, tmp_path):
    """Targets differ in length, so that a mean of the batches' means would be another number."""
    whole = train(tmp_path, batch=8, label_smoothing_factor=smoothing)
    assert_same_steps(train(tmp_path, batch=2, accumulate=4, label_smoothing_factor=smoothing), whole)


def test_what_the_first_loss_is(tmp_path):
    """Cross entropy per token, and the same with label smoothing, in NumPy."""
    tokenizer, model = two_tokenizers(), small_translator()
    batch = DataCollatorForSeq2Seq(tokenizer, model=model)(
        [tokenizer(source, text_target=target) for source, target in zip(SOURCES, TARGETS, strict=True)]
    )
    logits = model(**batch).logits.detach().double().numpy()
    logarithms = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    labels = batch["labels"].numpy()
    rows, places = np.nonzero(labels != -100)
    of_targets, of_all = logarithms[rows, places, labels[rows, places]], logarithms[rows, places].mean(axis=-1)
    for smoothing in (0.0, 0.1):
        expected = -((1 - smoothing) * of_targets + smoothing * of_all).mean()
        found = train(tmp_path, batch=8, label_smoothing_factor=smoothing)["loss"][0]
        assert found == pytest.approx(expected, rel=1e-4)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    assert_same_steps(train(tmp_path, batch=8, gradient_checkpointing=True), train(tmp_path, batch=8))


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    results = tmp_path / "results.pt"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.run(
        [sys.executable, *launch, str(HELPERS / "seq2seq_training.py"), str(results)],
        cwd=tmp_path,
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
    for smoothing, found in torch.load(results, weights_only=True).items():
        assert_same_steps(found, train(tmp_path, batch=8, label_smoothing_factor=smoothing))


def test_default_arguments_texts_and_resuming(tmp_path):
    """With the optimiser and schedule that Trainer takes by itself."""
    options = {"max_steps": 4, "per_device_train_batch_size": 4, "predict_with_generate": True}
    straight = make_trainer(tmp_path / "run", save_strategy="steps", save_steps=2, **options)
    straight.train()
    resumed = make_trainer(tmp_path / "run", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    before = small_translator().state_dict()
    changed = set()
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
        if not torch.equal(before[name], weight):
            changed.add(name)
    trained = {name for name, parameter in straight.model.named_parameters() if parameter.requires_grad}
    assert trained <= changed
    assert not any(name.startswith(("encoder.bilstm", "encoder.character_encoder")) for name in changed)
    # Texts are those of generate(); behind their end there is padding.
    predictions = straight.predict(straight.eval_dataset, max_new_tokens=8, num_beams=2).predictions
    tokenizer = straight.processing_class
    texts = tokenizer.batch_decode(np.where(predictions == -100, 0, predictions), skip_special_tokens=True)
    inputs = tokenizer(SOURCES, padding=True, return_tensors="pt")
    written = straight.model.generate(**inputs, max_new_tokens=8, num_beams=2)
    assert texts == tokenizer.batch_decode(written, skip_special_tokens=True) * 2
    # What was saved is whole.
    straight.save_model(tmp_path / "saved")
    model, again = (each.from_pretrained(tmp_path / "saved") for each in (AutoModelForSeq2SeqLM, AutoTokenizer))
    inputs = again(SOURCES, padding=True, return_tensors="pt")
    assert torch.equal(model.generate(**inputs, max_new_tokens=8, num_beams=2), written)
    early = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    assert any(not torch.equal(weight, straight.model.state_dict()[name]) for name, weight in early.items())


def exact(model, tokenizer, sources, targets):
    """The share of targets that are written exactly."""
    inputs = tokenizer(sources, padding=True, return_tensors="pt")
    written = model.eval().generate(**inputs, max_new_tokens=14)
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    return np.mean([text == target for text, target in zip(texts, targets, strict=True)])


def train_to_swap(folder, steps):
    """A model that was trained on 150 of the 224 sentences, and the others."""
    sources, targets = swaps(190)
    model, tokenizer = swapper()
    encoded = tokenizer(sources[:150], text_target=targets[:150])
    rows = [{name: values[row] for name, values in encoded.items()} for row in range(150)]
    trainer = make_trainer(
        folder,
        model,
        tokenizer,
        rows,
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        logging_steps=steps,
    )
    trainer.train()
    return trainer, tokenizer, sources, targets


def test_a_few_steps_teach_it_something(tmp_path):
    trainer, _, _, _ = train_to_swap(tmp_path, steps=25)
    first = np.log(len(trainer.processing_class))
    assert trainer.state.log_history[-1]["train_loss"] < 0.7 * first


@pytest.mark.slow
def test_it_learns_to_swap_two_names(tmp_path):
    """On sentences that it has not seen; the biLM is random and stays so."""
    trainer, tokenizer, sources, targets = train_to_swap(tmp_path, steps=400)
    assert exact(trainer.model, tokenizer, sources[150:], targets[150:]) > 0.9
