"""The language model in the stock `Trainer`: evaluation, the best model, metrics, and what is refused."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from small_models import fill, small_config
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
from transformers.utils import find_labels

from hf_elmo import ElmoForPreTraining, ElmoTokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "."]
TEXTS = ["the cat sat on a mat .", "a dog ran .", "the dog sat .", "the mat ."]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(WORDS, max_characters_per_token=8)


@pytest.fixture
def model(tokenizer):
    no_dropout = {"dropout": 0.0, "representation_dropout": 0.0}
    return fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer), **no_dropout)))


def make_trainer(model, tokenizer, folder, compute_metrics=None, **arguments):
    common = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    dataset = Dataset.from_dict(dict(tokenizer(TEXTS)))
    return Trainer(
        model,
        TrainingArguments(str(folder), **{**common, **arguments}),
        train_dataset=dataset,
        eval_dataset=dataset,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        compute_metrics=compute_metrics,
    )


def whole_batch(tokenizer):
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def test_its_labels_are_those_of_one_direction():
    """The other's are an input of their own, which batches may lack."""
    assert find_labels(ElmoForPreTraining) == ["labels"]


def test_evaluation_is_of_the_loss_and_the_logits(model, tokenizer, tmp_path):
    seen = []

    def accuracy(prediction):
        seen.append(prediction)
        logits, labels = prediction.predictions[0], prediction.label_ids
        scored = labels[:, 1:] != -100
        return {"accuracy": float((logits[:, :-1].argmax(axis=-1) == labels[:, 1:])[scored].mean())}

    trainer = make_trainer(model, tokenizer, tmp_path, accuracy)
    metrics = trainer.evaluate()
    with torch.no_grad():
        expected = model.eval()(**whole_batch(tokenizer), output_logits=True)
    # Per word that is predicted, not per label: the first word of a text is nobody's next one.
    assert metrics["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    named = make_trainer(model, tokenizer, tmp_path, label_names=["labels"]).evaluate()
    assert metrics["eval_loss"] == named["eval_loss"]
    assert 0 <= metrics["eval_accuracy"] <= 1
    predictions, labels = seen[0]
    np.testing.assert_array_equal(labels, whole_batch(tokenizer)["labels"])
    for found, logits in zip(predictions, (expected.logits, expected.backward_logits), strict=True):
        assert found.shape == (4, 9, len(tokenizer))
        np.testing.assert_allclose(found[..., 1:], logits[..., 1:], rtol=1e-4, atol=1e-4)
    without = trainer.predict(trainer.eval_dataset).predictions
    np.testing.assert_array_equal(without[0], predictions[0])


def test_batches_of_several_lengths_and_the_best_model(model, tokenizer, tmp_path):
    trainer = make_trainer(
        model, tokenizer, tmp_path, per_device_train_batch_size=2, per_device_eval_batch_size=3, max_steps=4,
        learning_rate=0.5, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 4
    assert trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_labels_of_the_other_direction_are_kept(model, tokenizer, tmp_path):
    """Trainer drops columns that the model has no argument for."""
    rows = [{key: tensor[0] for key, tensor in whole_batch(tokenizer).items()}]
    rows[0]["backward_character_ids"] = rows[0]["character_ids"].flip(0)
    rows[0]["backward_labels"] = rows[0]["labels"].flip(0)
    dataset = Dataset.from_list([{key: tensor.tolist() for key, tensor in row.items()} for row in rows])
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True)
    trainer = Trainer(model, arguments, eval_dataset=dataset)
    with torch.no_grad():
        expected = model(**{key: tensor.unsqueeze(0) for key, tensor in rows[0].items()})
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)


def test_label_smoothing_is_refused(model, tokenizer, tmp_path):
    """It would score the logits of each word against the word itself; the log said 0.0."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = make_trainer(model, tokenizer, tmp_path, label_smoothing_factor=0.1, max_steps=1)
    for run in (trainer.train, trainer.evaluate):
        with pytest.raises(ValueError, match=r"label_smoothing_factor.*compute_loss_func.*output_logits=True"):
            run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_loss_of_ones_own_may_ask_for_logits(model, tokenizer):
    batch = whole_batch(tokenizer)
    del batch["labels"]
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        model.train()(**batch, num_items_in_batch=torch.tensor(9))
    assert model(**batch, num_items_in_batch=torch.tensor(9), output_logits=True).logits.shape == (4, 9, 13)
