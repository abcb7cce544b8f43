"""Stored layers: they are the model's own, are found again when and only when they should be, and feed any head."""

import os
import pickle
import re
import shutil
import struct
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
import warm
from amounts import first_of
from datasets import Dataset, DatasetDict
from small_models import fill, small_config
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

import hf_elmo
from hf_elmo import (
    ElmoForMultipleChoice,
    ElmoForQuestionAnswering,
    ElmoForSequenceClassification,
    ElmoForTokenClassification,
    ElmoModel,
    precompute_layers,
)
from hf_elmo.vectors import layer_store

TEXT = "the cat sat on a mat , and New York 's mayor laughed out loud ; über Straße 東京 !"
WORDS = TEXT.split()
LENGTHS = [3, 0, 41, 7, 1, 12, 7, 26, 2, 9, 17, 5, 1, 33, 4, 4, 8, 19, 6, 2]
WORDS_WITH_BOUNDARIES = sum(LENGTHS) + 2 * len(LENGTHS)
LAYERS, DIM, CHARS = 3, 10, 8
SENTENCES = [[WORDS[(3 * row + place) % len(WORDS)] for place in range(length)] for row, length in enumerate(LENGTHS)]


@pytest.fixture(autouse=True)
def no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A model whose rounding errors do not grow from word to word, so that batches of any shape agree."""
    folder = tmp_path_factory.mktemp("models") / "small"
    fill(ElmoModel(small_config())).save_pretrained(folder)
    hf_elmo.ElmoTokenizer.create(max_characters_per_token=CHARS).save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(model_folder):
    return hf_elmo.ElmoTokenizer.from_pretrained(model_folder)


@pytest.fixture
def model(model_folder):
    """In float64, so that nothing but the store rounds."""
    return ElmoModel.from_pretrained(model_folder, dtype=torch.float64)


def tokenised(tokenizer, sentences=SENTENCES, pairs=None, **options):
    encoded = tokenizer(sentences, pairs, is_split_into_words=True, **options)
    return Dataset.from_dict({**encoded, "labels": [[-100, *range(len(s)), -100] for s in sentences]})


def own_layers(model, row):
    """``(layers, words, dim)``: what the model says of this row of a dataset, alone."""
    names = ("character_ids", "attention_mask", "token_type_ids")
    inputs = {name: torch.tensor([row[name]]) for name in names if name in row}
    with torch.no_grad():
        states = model.eval()(**inputs, output_hidden_states=True).hidden_states
    return torch.stack(states, dim=1)[0].float().numpy()


def assert_is_own(stored, dataset, model, tolerance=1e-6):
    assert len(stored) == len(dataset) > 0
    for number, row in enumerate(dataset):
        layers = stored[number]["layer_states"]
        expected = own_layers(model, row)
        assert layers.shape == expected.shape
        np.testing.assert_allclose(layers, expected, rtol=0, atol=tolerance, err_msg=f"row {number}")


def forbid_reading(monkeypatch):
    def read(*args, **kwargs):
        raise AssertionError("The biLM was run, although its layers are stored.")

    monkeypatch.setattr(ElmoModel, "read", read)


def files(folder, pattern="layers-*"):
    return sorted(path.name for path in Path(folder).glob(pattern))


# What is stored


@pytest.mark.parametrize(
    ("batch_words", "dtype", "tolerance"),
    [
        (1, torch.float32, 0),  # each row alone, as the model is asked here
        (1, torch.bfloat16, 0),
        (2048, torch.float32, 1e-5),  # the rounding of products depends on their shapes
        (40, torch.float64, 1e-6),
        (2048, torch.float64, 1e-6),
    ],
)
def test_layers_are_the_models_own_in_the_order_of_the_rows(tmp_path, model, tokenizer, batch_words, dtype, tolerance):
    dataset = tokenised(tokenizer)
    stored = precompute_layers(dataset, model.to(dtype), tmp_path, batch_words=batch_words)
    assert_is_own(stored, dataset, model, tolerance)
    assert max(np.abs(row["layer_states"]).max() for row in stored) > 0.5
    assert stored[0]["layer_states"].dtype == np.float32
    assert stored.column_names == ["input_ids", "token_type_ids", "attention_mask", "labels", "layer_states"]
    for name in ("input_ids", "token_type_ids", "attention_mask", "labels"):
        assert stored[name][:] == dataset[name][:]


def test_segments_and_padding_anywhere(tmp_path, model, tokenizer):
    pairs = [*SENTENCES[5:], *SENTENCES[:5]]
    for side in ("right", "left"):
        tokenizer.padding_side = side
        dataset = tokenised(tokenizer, pairs=pairs, padding=True)
        stored = precompute_layers(dataset, model, tmp_path)
        assert_is_own(stored, dataset, model)
        for row in stored:
            is_word = np.array(row["attention_mask"]) != 0
            assert (row["layer_states"][:, is_word] != 0).any(axis=2).all()
            assert not row["layer_states"][:, ~is_word].any()
    # The first of two segments is read as if it were alone.
    alone = precompute_layers(tokenised(tokenizer), model, tmp_path)
    unpadded = precompute_layers(tokenised(tokenizer, pairs=pairs), model, tmp_path)
    for single, pair in zip(alone, unpadded, strict=True):
        width = len(single["input_ids"])
        np.testing.assert_allclose(pair["layer_states"][:, :width], single["layer_states"], rtol=0, atol=1e-6)


def test_words_without_attention_within_a_row_are_left_out(tmp_path, model, tokenizer):
    masked = tokenised(tokenizer).map(
        lambda row: {"attention_mask": [int(place % 3 != 1) for place in range(len(row["input_ids"]))]}
    )
    assert_is_own(precompute_layers(masked, model, tmp_path), masked, model)


def test_without_attention_mask_words_are_known_by_their_characters(tmp_path, model, tokenizer, monkeypatch):
    dataset = tokenised(tokenizer, padding=True)
    with_mask = precompute_layers(dataset, model, tmp_path)
    forbid_reading(monkeypatch)
    without = precompute_layers(dataset.remove_columns(["attention_mask", "token_type_ids"]), model, tmp_path)
    np.testing.assert_array_equal(without[2]["layer_states"], with_mask[2]["layer_states"])
    assert "attention_mask" not in without.column_names


def test_a_head_stores_what_its_base_model_stores(tmp_path, model_folder, model, tokenizer):
    head = ElmoForSequenceClassification.from_pretrained(model_folder, dtype=torch.float64).train()
    modes = {name: module.training for name, module in head.named_modules()}
    dataset = tokenised(tokenizer)
    assert_is_own(precompute_layers(dataset, head, tmp_path), dataset, model)
    assert {name: module.training for name, module in head.named_modules()} == modes
    assert head.training
    assert not head.elmo.bilstm.training


def test_a_model_in_training_is_read_without_dropout_and_outside_of_autocast(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stored = precompute_layers(dataset, model.float().train(), tmp_path)
    assert model.training
    assert model.bilstm.dropout.training
    assert_is_own(stored, dataset, model, tolerance=1e-5)


def test_float16_takes_half_of_the_room(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    full = precompute_layers(dataset, model, tmp_path)
    half = precompute_layers(dataset, model, tmp_path, dtype="float16")
    assert half[0]["layer_states"].dtype == np.float16
    for exact, rounded in zip(full, half, strict=True):
        # Half a unit in the last of 11 bits; below 2^-14 numbers are evenly spaced.
        np.testing.assert_allclose(rounded["layer_states"], exact["layer_states"], rtol=2**-11, atol=2**-25)
    sizes = [sum(map(len, stored.with_format(None)["layer_states"])) for stored in (full, half)]
    checksums = 4 * len(LENGTHS)
    assert sizes == [size * LAYERS * DIM * WORDS_WITH_BOUNDARIES + checksums for size in (4, 2)]


def test_blocks_of_rows_leave_no_trace(tmp_path, model, tokenizer, monkeypatch):
    dataset = tokenised(tokenizer)
    monkeypatch.setattr(layer_store, "_ROWS_PER_BLOCK", 7)
    assert_is_own(precompute_layers(dataset, model, tmp_path), dataset, model)
    monkeypatch.undo()
    forbid_reading(monkeypatch)
    assert len(precompute_layers(dataset, model, tmp_path)) == len(dataset)


@pytest.mark.parametrize("rows_per_block", [7, 1024])
def test_a_row_that_does_not_fit_is_named_by_its_place_in_the_dataset(
    tmp_path, model, tokenizer, monkeypatch, rows_per_block
):
    monkeypatch.setattr(layer_store, "_ROWS_PER_BLOCK", rows_per_block)
    rows = list(tokenised(tokenizer))
    rows[16]["input_ids"].append(1)
    with pytest.raises(ValueError, match="Row 16 has 10 words in character_ids, but 11 in input_ids"):
        precompute_layers(Dataset.from_list(rows), model, tmp_path)


def test_windows_bound_what_is_in_memory(tmp_path, model, tokenizer):
    precompute_layers(tokenised(tokenizer, SENTENCES * 5), model, tmp_path, batch_words=50)
    with pa.memory_map(str(tmp_path / files(tmp_path)[0])) as source:
        sizes = [batch.nbytes for batch in pa.ipc.open_stream(source)]
    words = [size / (LAYERS * DIM * 4) for size in sizes]
    assert len(words) > 4
    assert max(words) < 4 * 50 + 20


@pytest.mark.parametrize("select", [False, True])
def test_no_rows(tmp_path, model, tokenizer, select):
    empty = tokenised(tokenizer).select([]) if select else Dataset.from_dict({"input_ids": [], "character_ids": []})
    stored = precompute_layers(empty, model, tmp_path)
    assert len(stored) == 0
    assert set(stored.column_names) == {*empty.column_names, "layer_states"} - {"character_ids"}
    assert files(tmp_path) == []


@pytest.mark.parametrize("sentences", [[["a"], [], ["b", "c"]], [[], []]])
def test_rows_without_words(tmp_path, model, tokenizer, sentences):
    dataset = tokenised(tokenizer, sentences, add_special_tokens=False)
    stored = precompute_layers(dataset, model, tmp_path)
    for number, sentence in enumerate(sentences):
        assert stored[number]["layer_states"].shape == (LAYERS, len(sentence), DIM)
        if sentence:
            np.testing.assert_allclose(
                stored[number]["layer_states"], own_layers(model, dataset[number]), rtol=0, atol=1e-5
            )
    batch = DataCollatorWithPadding(tokenizer)([{**row, "labels": 0} for row in stored])
    assert batch["layer_states"].shape == (len(sentences), LAYERS, max(map(len, sentences)), DIM)


def test_rows_in_another_order_than_on_disk(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer).shuffle(seed=3).select(range(4, 15))
    stored = precompute_layers(dataset, model, tmp_path)
    assert_is_own(stored, dataset, model)
    assert stored["labels"][:] == dataset["labels"][:]
    # The layers themselves are mapped from where they were written.
    assert str(tmp_path / files(tmp_path)[0]) in {entry["filename"] for entry in stored.cache_files}


def test_splits_of_a_dataset_dict(tmp_path, model, tokenizer):
    splits = DatasetDict(train=tokenised(tokenizer), test=tokenised(tokenizer, SENTENCES[:5]))
    stored = precompute_layers(splits, model, tmp_path)
    assert isinstance(stored, DatasetDict)
    for name in ("train", "test"):
        assert_is_own(stored[name], splits[name], model)


def test_characters_are_kept_on_request(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    stored = precompute_layers(dataset, model, tmp_path, keep_character_ids=True)
    batch = DataCollatorForTokenClassification(tokenizer)([stored[0], stored[2]])
    assert batch["character_ids"].shape == (2, 43, CHARS)
    assert batch["layer_states"].shape == (2, LAYERS, 43, DIM)
    assert stored["character_ids"][2] == dataset["character_ids"][2]


# Finding it again


def test_a_second_run_finds_it_whatever_is_not_the_bilm_or_the_text(
    tmp_path, model_folder, model, tokenizer, monkeypatch
):
    dataset = tokenised(tokenizer)
    first = precompute_layers(dataset, model, tmp_path)
    forbid_reading(monkeypatch)
    with torch.no_grad():
        model.scalar_mixes[0].gamma.fill_(7)
    head = ElmoForTokenClassification.from_pretrained(model_folder, num_labels=5, dtype=torch.float64)
    narrow = dataset.cast_column("character_ids", datasets.Sequence(datasets.Sequence(datasets.Value("int16"))))
    fixed = dataset.cast_column(
        "character_ids", datasets.Sequence(datasets.Sequence(datasets.Value("int16"), length=CHARS))
    )
    relabelled = dataset.map(lambda row: {"labels": [1] * len(row["labels"])})
    for other_model, other in [
        (model, dataset),
        (head, dataset),
        (model, narrow),
        (model, fixed),
        (model, dataset.with_format("torch")),
        (model, dataset.remove_columns("token_type_ids")),
        (model, relabelled),
        (model, Dataset.from_dict(dataset[:])),
        (model, dataset.select(range(len(dataset) - 1, -1, -1)).select(range(len(dataset) - 1, -1, -1))),
    ]:
        again = precompute_layers(other, other_model, tmp_path)
        for number in (0, 2, len(dataset) - 1):
            np.testing.assert_array_equal(again[number]["layer_states"], first[number]["layer_states"])
        assert again["labels"][:] == other.with_format(None)["labels"][:]
    assert len(files(tmp_path)) == 1


def _nudge(name):
    def change(model, dataset):
        with torch.no_grad():
            model.get_parameter(name).flatten()[-1].add_(0.5)
        return model, dataset

    return change


def _reconfigure(**fields):
    def change(model, dataset):
        changed = ElmoModel(hf_elmo.ElmoConfig.from_dict({**model.config.to_dict(), **fields}))
        changed.load_state_dict(model.state_dict())
        return changed.to(model.dtype), dataset

    return change


def _rows(change_row):
    return lambda model, dataset: (model, dataset.map(change_row))


@pytest.mark.parametrize(
    "change",
    [
        _nudge("character_encoder.char_embedding.weight"),
        _nudge("bilstm.backward_layers.1.bias"),
        _reconfigure(proj_clip=0.3),
        _reconfigure(cell_clip=0.2),
        _reconfigure(forget_bias=0.0),
        _reconfigure(activation="tanh"),
        _reconfigure(use_skip_connections=False),
        lambda model, dataset: (model.float(), dataset),
        lambda model, dataset: (model, dataset.select([1, 0, *range(2, len(dataset))])),
        _rows(lambda row: {"character_ids": [[*word[:2], 110, *word[3:]] for word in row["character_ids"]]}),
        _rows(lambda row: {"token_type_ids": [place // 3 for place in range(len(row["input_ids"]))]}),
        _rows(lambda row: {"attention_mask": [1, *[0] * (len(row["input_ids"]) - 1)]}),
    ],
)
def test_another_bilm_or_text_is_another_store(tmp_path, model, tokenizer, change):
    dataset = tokenised(tokenizer)
    before = [row["layer_states"].tobytes() for row in precompute_layers(dataset, model, tmp_path)]
    changed_model, changed = change(model, dataset)
    after = precompute_layers(changed, changed_model, tmp_path)
    assert len(files(tmp_path)) == 2
    assert_is_own(after, changed, changed_model, tolerance=1e-5 if changed_model.dtype == torch.float32 else 1e-6)
    assert [row["layer_states"].tobytes() for row in after] != before


def test_the_same_words_in_other_rows_are_another_text(tmp_path, model, tokenizer):
    for sentences in ([["a", "b"], ["c"]], [["a"], ["b", "c"]]):
        dataset = tokenised(tokenizer, sentences, add_special_tokens=False)
        assert_is_own(precompute_layers(dataset, model, tmp_path), dataset, model)
    assert len(files(tmp_path)) == 2


# Reading it


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [None, 16])
def test_collators_pad_layers_as_characters(tmp_path, model, tokenizer, side, multiple):
    tokenizer.padding_side = side
    dataset = tokenised(tokenizer)
    stored = precompute_layers(dataset, model, tmp_path)
    rows = [0, 2, 1, 5]
    for make, tagged in ((DataCollatorForTokenClassification, True), (DataCollatorWithPadding, False)):
        collate = make(tokenizer, pad_to_multiple_of=multiple)
        dropped = [] if tagged else ["labels"]
        with_characters = collate([dataset.remove_columns(dropped)[row] for row in rows])
        with_layers = collate([stored.remove_columns(dropped)[row] for row in rows])
        with torch.no_grad():
            expected = torch.stack(model.eval()(**with_characters, output_hidden_states=True).hidden_states, dim=1)
        assert with_layers["layer_states"].dtype == torch.float32
        torch.testing.assert_close(with_layers["layer_states"], expected.float(), rtol=0, atol=1e-6)
        for name in set(with_characters) - {"character_ids"}:
            assert torch.equal(with_layers[name], with_characters[name])


def test_padding_of_a_single_row_and_without_tensors(tmp_path, model, tokenizer):
    stored = precompute_layers(tokenised(tokenizer).remove_columns("labels"), model, tmp_path)
    row = stored[0]
    padded = tokenizer.pad(row, padding="max_length", max_length=7)
    assert np.array(padded["layer_states"]).shape == (LAYERS, 7, DIM)
    np.testing.assert_array_equal(np.array(padded["layer_states"], np.float32)[:, :5], row["layer_states"])
    arrays = tokenizer.pad(stored[:4], padding="longest", return_tensors="np")
    assert arrays["layer_states"].shape == (4, LAYERS, 43, DIM)
    assert arrays["layer_states"].dtype == np.float32
    same_length = default_data_collator([stored[3], stored[6]])
    assert same_length["layer_states"].shape == (2, LAYERS, 9, DIM)


def test_padding_of_layers_that_do_not_fit(tokenizer):
    with pytest.raises(ValueError, match=r"\(layers, words, dim\).*\(2, padding included\), was: \(3, 5, 8\)"):
        tokenizer.pad([{"input_ids": [1, 1], "layer_states": np.zeros((3, 5, 8), np.float32)}], return_tensors="pt")


def test_workers_and_pickles_read_the_same(tmp_path, model, tokenizer):
    stored = precompute_layers(tokenised(tokenizer), model, tmp_path)
    collate = DataCollatorForTokenClassification(tokenizer)
    here = list(DataLoader(stored, batch_size=6, collate_fn=collate))
    for other, workers in ((stored, 2), (pickle.loads(pickle.dumps(stored)), 0)):
        there = list(DataLoader(other, batch_size=6, collate_fn=collate, num_workers=workers))
        assert len(there) == len(here) == 4
        for one, another in zip(here, there, strict=True):
            assert all(torch.equal(one[name], another[name]) for name in one)


def test_rows_and_other_columns_may_change(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    stored = precompute_layers(dataset, model, tmp_path)
    expected = [row["layer_states"] for row in stored]
    order = [7, 2, 11]
    for changed in (
        stored.select(order),
        stored.remove_columns("labels").select(order),
        stored.map(lambda row: {"length": len(row["input_ids"])}).select(order),
        stored.map(lambda row: {"length": row["layer_states"].shape[1]}, remove_columns="labels").select(order),
        datasets.concatenate_datasets(
            [stored.select([7]), precompute_layers(dataset, model, tmp_path).select([2, 11])]
        ),
    ):
        for row, number in zip(changed, order, strict=True):
            np.testing.assert_array_equal(row["layer_states"], expected[number])
    split = stored.train_test_split(test_size=5, seed=0)
    assert {row["layer_states"].shape[0] for row in split["test"]} == {LAYERS}
    assert stored["labels"][3] == [-100, *range(7), -100]


def _texts(tokenizer):
    return tokenised(tokenizer).map(lambda row: {"labels": len(row["input_ids"]) % 2})


def _tagged(tokenizer):
    return tokenised(tokenizer).map(
        lambda row: {"labels": [-100, *(sum(word) % 3 for word in row["character_ids"][1:-1]), -100]}
    )


def _questions(tokenizer):
    questions = [sentence for sentence in SENTENCES if sentence]
    pairs = tokenised(tokenizer, questions, [*questions[1:], questions[0]]).remove_columns("labels")
    return pairs.map(
        lambda row: dict.fromkeys(("start_positions", "end_positions"), 1 + row["token_type_ids"].index(1))
    )


@pytest.mark.parametrize(
    ("head_class", "collator", "make_dataset"),
    first_of(
        [
            (ElmoForTokenClassification, DataCollatorForTokenClassification, _tagged),
            (ElmoForSequenceClassification, DataCollatorWithPadding, _texts),
            (ElmoForQuestionAnswering, DataCollatorWithPadding, _questions),
        ]
    ),
)
def test_a_head_learns_from_layers_what_it_learns_from_characters(
    tmp_path, model_folder, tokenizer, head_class, collator, make_dataset
):
    dataset = make_dataset(tokenizer)
    losses, predictions = [], []
    for precomputed in (False, True):
        set_seed(5)
        head = head_class.from_pretrained(
            model_folder,
            num_labels=3,
            representation_dropout=0.0,
            task_dropout=0.0,
            task_encoder_layers=1,
            task_encoder_size=12,
            initializer_range=0.3,
        )
        trainer = Trainer(
            head,
            TrainingArguments(
                output_dir=tmp_path / "run",
                per_device_train_batch_size=6,
                num_train_epochs=3,
                # Adam would follow the signs of gradients that are nothing but rounding.
                optim="sgd",
                learning_rate=0.3,
                logging_steps=1,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                seed=5,
            ),
            train_dataset=precompute_layers(dataset, head, tmp_path / "store") if precomputed else dataset,
            data_collator=collator(tokenizer),
            processing_class=tokenizer,
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        predicted = trainer.predict(trainer.train_dataset).predictions
        predictions.append(predicted if isinstance(predicted, tuple) else (predicted,))
    assert len(losses[0]) == len(losses[1]) == 12
    assert np.mean(losses[0][-4:]) < np.mean(losses[0][:4]) - 0.02
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-5)
    for from_layers, from_characters in zip(predictions[1], predictions[0], strict=True):
        np.testing.assert_allclose(from_layers, from_characters, rtol=0, atol=1e-3)


def test_choices_are_computed_one_by_one_and_put_together(tmp_path, model_folder, model, tokenizer):
    questions = [sentence for sentence in SENTENCES if sentence]
    first, second = (tokenised(tokenizer, questions, [*questions[by:], *questions[:by]]) for by in (1, 2))
    flat = datasets.concatenate_datasets([first, second]).remove_columns("labels")
    layers = precompute_layers(flat, model, tmp_path)
    head = ElmoForMultipleChoice.from_pretrained(model_folder, initializer_range=0.3).eval()
    losses = []
    for rows in (flat, layers):
        pairs = [(rows[number], rows[len(questions) + number]) for number in range(len(questions))]
        together = [{name: [choice[name] for choice in pair] for name in rows.column_names} for pair in pairs]
        examples = [{**row, "labels": number % 2} for number, row in enumerate(together)]
        losses.append(head(**DataCollatorForMultipleChoice(tokenizer)(examples)).loss)
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    losses[1].backward()
    assert head.elmo.scalar_mixes[0].weights.grad.abs().sum() > 0


@pytest.mark.parametrize("with_lengths", [False, True])
def test_what_grouping_by_length_reads(tmp_path, model_folder, tokenizer, monkeypatch, with_lengths):
    head = ElmoForTokenClassification.from_pretrained(model_folder, num_labels=50)
    dataset = tokenised(tokenizer)
    if with_lengths:
        dataset = dataset.add_column("length", [len(row) for row in dataset["input_ids"]])
    stored = precompute_layers(dataset, head, tmp_path)
    decode, read = layer_store.LayerDecoder.decode, []
    monkeypatch.setattr(
        layer_store.LayerDecoder, "decode", lambda self, stored: (read.append(len(stored)), decode(self, stored))[1]
    )
    trainer = Trainer(
        head,
        TrainingArguments(
            output_dir=tmp_path / "run",
            train_sampling_strategy="group_by_length",
            remove_unused_columns=not with_lengths,
            max_steps=1,
            per_device_train_batch_size=5,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=stored,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
    )
    batches = trainer.get_train_dataloader()
    assert len(read) == (0 if with_lengths else len(dataset) + 2)
    lengths = [batch["attention_mask"].sum(dim=1) for batch in batches]
    assert sorted(torch.cat(lengths).tolist()) == sorted(length + 2 for length in LENGTHS)
    assert lengths[0].max() == max(LENGTHS) + 2
    trainer.train()


# Kills, rivals and full disks

CHILD = """
import sys, time
from pathlib import Path
import datasets, hf_elmo
from hf_elmo import ElmoModel
dataset_folder, model_folder, store, flags = map(Path, sys.argv[1:])
read = ElmoModel.read
def slow_read(*args):
    (flags / f"call{len(list(flags.iterdir()))}").touch()
    while len(list(flags.iterdir())) > 5 and not (flags / "go").exists():
        time.sleep(0.01)
    return read(*args)
ElmoModel.read = slow_read
dataset = datasets.load_from_disk(dataset_folder)
hf_elmo.precompute_layers(dataset, ElmoModel.from_pretrained(model_folder, dtype="float64"), store, batch_words=30)
"""


@pytest.fixture
def interrupted(tmp_path, model_folder, tokenizer):
    """Another process that has begun to write a store, and stops within until a file `go` appears."""
    dataset = tokenised(tokenizer, SENTENCES * 3)
    dataset.save_to_disk(tmp_path / "dataset")
    flags = tmp_path / "flags"
    flags.mkdir()
    paths = [tmp_path / "dataset", model_folder, tmp_path / "store", flags]
    environment = {**os.environ, "PYTHONPATH": str(Path(hf_elmo.__file__).parents[1])}
    process = warm.Popen(["-c", CHILD, *paths], env=environment)
    deadline = time.monotonic() + 120
    while len(list(flags.iterdir())) < 6:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process, dataset, tmp_path / "store", flags
    process.kill()
    process.wait()


def test_a_kill_in_the_middle_of_writing_leaves_nothing_that_is_used(interrupted, model):
    process, dataset, store, _ = interrupted
    (partial,) = store.glob(".*.part")
    assert partial.stat().st_size > 1000
    process.kill()
    assert process.wait() != 0
    assert files(store) == []
    assert_is_own(precompute_layers(dataset, model, store), dataset, model)
    assert len(files(store)) == 1
    assert not partial.exists()


def test_a_second_process_waits_for_the_first(interrupted, model, monkeypatch):
    process, dataset, store, flags = interrupted
    forbid_reading(monkeypatch)
    results = []
    waiting = threading.Thread(target=lambda: results.append(precompute_layers(dataset, model, store)), daemon=True)
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    (flags / "go").touch()
    assert process.wait(timeout=60) == 0
    waiting.join(timeout=60)
    monkeypatch.undo()
    assert_is_own(results[0], dataset, model)


def test_a_damaged_store_is_made_anew(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    expected = [row["layer_states"].copy() for row in precompute_layers(dataset, model, tmp_path, batch_words=10)]
    path = tmp_path / files(tmp_path)[0]
    content = path.read_bytes()
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_stream(source)
        borders = [source.tell()]
        for _ in reader:
            borders.append(source.tell())
    assert len(borders) > 5
    for size in [0, 5, *borders[:-1], len(content) // 2, borders[2] + 8, borders[-1] - 1]:
        path.write_bytes(content[:size])
        again = precompute_layers(dataset, model, tmp_path, batch_words=10)
        assert path.read_bytes() == content
        for row, layers in zip(again, expected, strict=True):
            np.testing.assert_array_equal(row["layer_states"], layers)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_changed_bytes_within_a_store(tmp_path, model, tokenizer, dtype):
    """They are never read as layers: the row says so, or the store, whose rows would end elsewhere, is made anew."""
    dataset = tokenised(tokenizer)
    stored = precompute_layers(dataset, model, tmp_path, dtype=dtype)
    expected = [row["layer_states"].copy() for row in stored]
    path = tmp_path / files(tmp_path)[0]
    content, found = path.read_bytes(), 0
    rows = stored.with_format(None)["layer_states"]
    places = [content.index(row) + place for row in rows for place in (0, len(row) // 2, len(row) - 1)]
    # Where the ends of rows are told: 64-bit numbers, the first row's after a zero.
    ends = content.index(struct.pack("<qq", 0, len(rows[0]))) + 8
    places += [ends, ends + 1, ends + 5]
    del stored, rows
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        again = precompute_layers(dataset, model, tmp_path, dtype=dtype)
        if path.read_bytes() == content:
            found += 1
            continue
        wrong = 0
        for number, layers in enumerate(expected):
            try:
                np.testing.assert_array_equal(again[number]["layer_states"], layers)
            except ValueError as error:
                assert f"Stored layers in {path} are damaged" in str(error)  # noqa: PT017
                wrong += 1
        assert wrong >= 1
        found += 1
    assert found == len(places)


def test_a_disk_that_fills_up_while_writing(tmp_path, model, tokenizer):
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    dataset = tokenised(tokenizer, SENTENCES * 3)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        with pytest.raises(OSError, match=r"The layers take 0\.00 GB and could not be stored .*make room") as caught:
            precompute_layers(dataset, model, tmp_path, batch_words=30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert caught.value.errno is not None
    assert caught.value.filename == str(tmp_path)
    assert files(tmp_path) == []
    assert_is_own(precompute_layers(dataset, model, tmp_path), dataset, model)


def test_too_little_room_is_known_before_anything_is_computed(tmp_path, model, tokenizer, monkeypatch):
    forbid_reading(monkeypatch)
    room = shutil.disk_usage(tmp_path)._replace(free=WORDS_WITH_BOUNDARIES * LAYERS * DIM * 4 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    with pytest.raises(OSError, match=r"No space|0\.00 GB are free.*float16"):
        precompute_layers(tokenised(tokenizer), model, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("inside", ["", "store"])
def test_a_file_in_the_place_of_the_folder(tmp_path, model, tokenizer, inside):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(NotADirectoryError, match="need a folder, but this is a file"):
        precompute_layers(tokenised(tokenizer), model, file / inside)
    assert file.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.name != "posix", reason="on Windows folders have no such permissions")
@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    precompute_layers(dataset, model, tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert_is_own(precompute_layers(dataset, model, tmp_path), dataset, model)
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(PermissionError, match="give a folder that can be written"):
                precompute_layers(dataset, model, folder, dtype="float16")
    finally:
        tmp_path.chmod(0o700)


# Bad input


def test_missing_columns_are_named(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    with pytest.raises(
        ValueError, match="has no character_ids, only input_ids, token_type_ids, attention_mask, labels"
    ):
        precompute_layers(dataset.remove_columns("character_ids"), model, tmp_path)
    with pytest.raises(ValueError, match="has no input_ids and no character_ids, only words: tokenise it first"):
        precompute_layers(Dataset.from_dict({"words": SENTENCES}), model, tmp_path)
    stored = precompute_layers(dataset, model, tmp_path, keep_character_ids=True)
    with pytest.raises(ValueError, match="has layer_states already"):
        precompute_layers(stored, model, tmp_path)


def test_arguments_of_other_kinds(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    with pytest.raises(TypeError, match=r"must be a datasets.Dataset, .*IterableDataset"):
        precompute_layers(dataset.to_iterable_dataset(), model, tmp_path)
    with pytest.raises(TypeError, match="ElmoModel or a head on top of one, was: Linear"):
        precompute_layers(dataset, torch.nn.Linear(2, 2), tmp_path)
    with pytest.raises(ValueError, match="float32, float16, was: 'bfloat16'"):
        precompute_layers(dataset, model, tmp_path, dtype="bfloat16")
    with pytest.raises(ValueError, match="batch_words must be at least 1, was: 0"):
        precompute_layers(dataset, model, tmp_path, batch_words=0)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {"attention_mask": [1, 1, 1]}, "Row 1 has 2 words in character_ids, but 3 in attention_mask"),
        (lambda row: {"input_ids": [*row["input_ids"], 1]}, "Row 0 has 5 words in character_ids, but 6 in input_ids"),
        (
            lambda row: {"character_ids": [w[:5] if place else w for place, w in enumerate(row["character_ids"])]},
            "rows 0 to 19 have words of 8 and of 5 characters",
        ),
        (lambda row: {"character_ids": row["input_ids"]}, "list of words of characters .* it holds int"),
        (lambda row: {"character_ids": None}, "list of words of characters .* it holds n"),
        (
            lambda row: {"character_ids": [[n / 2 for n in w] for w in row["character_ids"]]},
            "must hold integers.*double",
        ),
        (
            lambda row: {"character_ids": [[n * 9 for n in w] for w in row["character_ids"]]},
            "knows characters 0 to 261",
        ),
        (
            lambda row: {"character_ids": row["character_ids"] if len(row["input_ids"]) != 9 else None},
            "list of words of characters .* it holds nothing",
        ),
        (
            lambda row: {"character_ids": [[*word, 0, 0] for word in row["character_ids"]]},
            "rows of 10 characters, but this model reads 8",
        ),
        (lambda row: {"token_type_ids": [None] * len(row["input_ids"])}, "must hold integers"),
        (lambda row: {"character_ids": [row["character_ids"]] * 2}, "lists of texts, as rows of a multiple choice"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, model, tokenizer, change, message):
    dataset = tokenised(tokenizer)
    if "3 in attention_mask" in message:
        dataset = dataset.select([4, 1, 0])
    changed = Dataset.from_list([{**row, **change(row)} for row in dataset])
    with pytest.raises(ValueError, match=message):
        precompute_layers(changed, model, tmp_path)
    assert files(tmp_path) == []


def test_numbers_that_no_head_can_use(tmp_path, model, tokenizer):
    dataset = tokenised(tokenizer)
    with torch.no_grad():
        model.bilstm.forward_layers[0].weight_ih[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"Row \d+ has layers that are not finite"):
        precompute_layers(dataset, model, tmp_path)
    with torch.no_grad():
        model.bilstm.forward_layers[0].weight_ih[0, 0] = 0
        model.character_encoder.projection.bias[0] = 1e5
    with pytest.raises(ValueError, match=r"float16 is too narrow for them, and float32 will do"):
        precompute_layers(dataset, model, tmp_path, dtype="float16")
    assert files(tmp_path) == []
    assert_is_own(precompute_layers(dataset, model, tmp_path), dataset, model, tolerance=0.01)


def test_the_row_that_is_not_finite_is_named(tmp_path, model, tokenizer):
    sentences = [sentence[:2] for sentence in SENTENCES]
    sentences[13] = ["a", "Z"]
    with torch.no_grad():
        model.character_encoder.char_embedding.weight[ord("Z") + 1] = torch.nan
    with pytest.raises(ValueError, match="Row 13 has layers that are not finite"):
        precompute_layers(tokenised(tokenizer, sentences), model, tmp_path, batch_words=5)


def test_the_name_of_a_store_is_a_hash(tmp_path, model, tokenizer):
    precompute_layers(tokenised(tokenizer), model, tmp_path / "a" / "b")
    assert re.fullmatch(r"layers-[0-9a-f]{32}\.arrow", files(tmp_path / "a" / "b")[0])
