"""`label_smoothing_factor` of `Trainer`, which takes the labels away and computes a loss from the logits."""

import pytest
import torch
from head_batches import batch_for, load
from small_models import fill, small_config
from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

from hf_elmo import ElmoForTokenClassification, ElmoTokenizer

TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]
SENTENCES = [["the", "cat", "sat"], ["a", "dog", "ran"]]
LABELS = [[-100, 0, 1, 2, -100], [-100, 3, 0, 0, -100]]


def trainer_for(model, rows, folder, collator=None):
    arguments = TrainingArguments(
        str(folder), label_smoothing_factor=0.1, max_steps=1, logging_steps=1, per_device_train_batch_size=8,
        report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", learning_rate=0.0,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collator)


def smoothed(logits, labels, share=0.1):
    """The formula (Szegedy et al. 2016, section 7): that share of the target is spread over all classes."""
    log_probabilities = logits.double().log_softmax(dim=-1)
    known = labels != -100
    given = log_probabilities.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -((1 - share) * given + share * log_probabilities.mean(dim=-1))[known].mean().item()


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(max_characters_per_token=8)


def tagger(**fields):
    names = dict(enumerate(TAGS))
    sizes = {"task_encoder_size": 6, "task_encoder_layers": 1, "task_dropout": 0.0, "representation_dropout": 0.0}
    config = small_config(id2label=names, label2id={name: number for number, name in names.items()}, **sizes, **fields)
    return fill(ElmoForTokenClassification(config))


def rows_of(tokenizer):
    encoded = tokenizer(SENTENCES, is_split_into_words=True)
    return [{key: encoded[key][row] for key in encoded} | {"labels": labels} for row, labels in enumerate(LABELS)]


def test_a_tagger_with_constraints_refuses(tokenizer, tmp_path):
    """Labels that the scheme forbids have a log-probability of -10000: the loss was 134.87 where 1.617 is right."""
    model = tagger()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = trainer_for(model, rows_of(tokenizer), tmp_path, DataCollatorForTokenClassification(tokenizer))
    for run in (trainer.train, trainer.evaluate):
        with pytest.raises(ValueError, match=r"label_smoothing_factor.*crf_constraints=False"):
            run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("fields", [{"crf_constraints": False}, {"use_crf": False}])
def test_other_taggers_have_the_loss_of_the_formula(fields, tokenizer, tmp_path):
    model, rows = tagger(**fields), rows_of(tokenizer)
    collator = DataCollatorForTokenClassification(tokenizer)
    trainer = trainer_for(model, rows, tmp_path, collator)
    batch = collator(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = smoothed(model(**batch).logits, labels)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)
    assert expected < 10


@pytest.mark.parametrize("name", ["AutoModelForSequenceClassification", "AutoModelForMultipleChoice"])
def test_classes_have_the_loss_of_the_formula(name, tiny_model_folder, tmp_path):
    no_dropout = {"dropout": 0.0, "representation_dropout": 0.0, "task_dropout": 0.0}
    model = load(name, tiny_model_folder, **no_dropout).eval()
    batch = batch_for(name, ElmoTokenizer.from_pretrained(tiny_model_folder))
    rows = [{key: tensor[row] for key, tensor in batch.items()} for row in range(len(batch["labels"]))]
    trainer = trainer_for(model, rows, tmp_path)
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = smoothed(model(**batch).logits, labels)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)
