"""What people do to any model, with every head: copies, shards, dtypes, accumulated gradients, workers."""

import copy
import pickle

import pytest
import torch
from head_batches import HEADS, batch_for, load
from low_precision import double, rounded
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from hf_elmo import ElmoTokenizer

NO_DROPOUT = {"dropout": 0.0, "representation_dropout": 0.0, "task_dropout": 0.0}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return ElmoTokenizer.from_pretrained(tiny_model_folder)


def logits_of(model, batch):
    with torch.no_grad():
        return torch.cat([each.flatten(1) for key, each in model.eval()(**batch).items() if key.endswith("logits")])


def rows_of(batch):
    return [{key: tensor[row] for key, tensor in batch.items()} for row in range(len(batch["input_ids"]))]


@pytest.mark.parametrize("name", HEADS)
def test_copies_and_folders_compute_the_same(name, tiny_model_folder, tokenizer, tmp_path):
    batch = batch_for(name, tokenizer)
    model = load(name, tiny_model_folder)
    # Before it was used, and after.
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = logits_of(model, batch)
    copies += [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    other = load(name, tiny_model_folder, seed=1)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    copies += [other, type(model).from_pretrained(tmp_path / "shards")]
    for each in copies:
        # Sums of weights that lie elsewhere in memory may be rounded otherwise.
        torch.testing.assert_close(logits_of(each, batch), expected, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        for parameter in copies[2].parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(logits_of(model, batch), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_in_bfloat16(name, tiny_model_folder, tokenizer):
    batch = batch_for(name, tokenizer)
    model, ours = load(name, tiny_model_folder), load(name, tiny_model_folder, dtype=torch.bfloat16)
    # The head is as random in one dtype as in the other only if it is the same.
    ours.load_state_dict(model.state_dict())
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        right, cost, found = (
            double(model.eval())(**batch),
            rounded(model, torch.bfloat16, **batch),
            ours.eval()(**batch),
        )
    error, rounding = ((each.loss.double() - right.loss).abs() for each in (found, cost))
    assert error <= 2 * rounding + 4 * torch.finfo(torch.bfloat16).eps * right.loss.abs()


@pytest.mark.parametrize("name", [HEADS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in HEADS[1:])])
def test_accumulated_gradients_and_workers(name, tiny_model_folder, tokenizer, tmp_path):
    """One step of two halves is the step of the whole; predictions that are moved away at once are all there."""
    batch = batch_for(name, tokenizer)
    rows = rows_of(batch)
    losses, weights = [], []
    for parts, workers in ((1, 0), (2, 1)):
        model = load(name, tiny_model_folder, **NO_DROPOUT)
        arguments = TrainingArguments(
            str(tmp_path), max_steps=1, per_device_train_batch_size=len(rows) // parts, logging_steps=1,
            gradient_accumulation_steps=parts, dataloader_num_workers=workers, optim="sgd", learning_rate=0.5,
            per_device_eval_batch_size=1, eval_accumulation_steps=1, max_grad_norm=0.0, report_to="none",
            use_cpu=True, disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
        weights.append(model.state_dict())
        predictions = trainer.predict(rows).predictions
        found = predictions if isinstance(predictions, tuple) else (predictions,)
        expected = logits_of(model, batch)
        found = torch.cat([torch.from_numpy(each).flatten(1) for each in found])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, atol=1e-5, rtol=1e-4, msg=key)


def test_a_loop_of_accelerate(tiny_model_folder, tokenizer):
    accelerate = pytest.importorskip("accelerate")
    name = "AutoModelForTokenClassification"
    batch = batch_for(name, tokenizer)
    weights = []
    for with_it in (False, True):
        model = load(name, tiny_model_folder, **NO_DROPOUT)
        optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
        if with_it:
            accelerator = accelerate.Accelerator(cpu=True)
            model, optimizer = accelerator.prepare(model, optimizer)
        loss = model.train()(**batch).loss
        accelerator.backward(loss) if with_it else loss.backward()
        optimizer.step()
        weights.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor)


def test_zero_shot_classification(tiny_model_folder, tokenizer):
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    numbers = {name: number for number, name in names.items()}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, id2label=names, label2id=numbers)
    classify = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    labels = ["cats", "stock markets"]
    found = classify("A cat sat on the mat .", labels)
    hypotheses = [f"This example is {each}." for each in labels]
    pairs = tokenizer(["A cat sat on the mat ."] * 2, hypotheses, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**pairs).logits[:, numbers["entailment"]]
    expected = dict(zip(labels, logits.softmax(dim=0).tolist(), strict=True))
    assert dict(zip(found["labels"], found["scores"], strict=True)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_metrics_of_batches_with_inputs_and_losses(name, tiny_model_folder, tokenizer, tmp_path):
    """Metrics computed batch by batch see the logits, labels, inputs and losses of all rows."""
    rows = rows_of(batch_for(name, tokenizer))
    model = load(name, tiny_model_folder)
    seen = {"logits": [], "inputs": [], "losses": []}

    def metrics(found, compute_result):
        logits = found.predictions if isinstance(found.predictions, tuple) else (found.predictions,)
        seen["logits"].append(torch.cat([torch.as_tensor(each).flatten(1) for each in logits]))
        seen["inputs"].append(found.inputs)
        seen["losses"].append(torch.as_tensor(found.losses))
        return {"batches": len(seen["losses"])} if compute_result else {}

    arguments = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=1, batch_eval_metrics=True, include_for_metrics=["inputs", "loss"],
        report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    result = Trainer(model, arguments, eval_dataset=rows, compute_metrics=metrics).evaluate()
    assert result["eval_batches"] == len(rows)
    for number, row in enumerate(rows):
        one = {key: value.unsqueeze(0) for key, value in row.items()}
        torch.testing.assert_close(seen["logits"][number], logits_of(model, one), atol=1e-5, rtol=1e-5)
        assert torch.equal(torch.as_tensor(seen["inputs"][number]["character_ids"]), one["character_ids"])
    assert result["eval_loss"] == pytest.approx(torch.stack([each.mean() for each in seen["losses"]]).mean().item())


def test_a_batch_that_is_too_large_is_halved(tiny_model_folder, tokenizer, tmp_path):
    pytest.importorskip("accelerate")
    name = "AutoModelForTokenClassification"
    rows, model, sizes = rows_of(batch_for(name, tokenizer)), load(name, tiny_model_folder), []

    def of_little_memory(module, args, inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise RuntimeError("CUDA out of memory.")

    model.register_forward_pre_hook(of_little_memory, with_kwargs=True)
    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=1, per_device_train_batch_size=4, auto_find_batch_size=True, report_to="none",
        use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    assert sizes[0] == 4
    # The batches that fit, each row in one of them.
    fitting = [size for size in sizes if size <= 2]
    assert sum(fitting) == len(rows)
    assert trainer.state.global_step == len(fitting)
