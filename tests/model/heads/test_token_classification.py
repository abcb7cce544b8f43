"""The head that tags words: what it computes, stock Trainer, collator and pipeline, and bad input."""

import logging
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from low_precision import assert_as_near_on_average, double, rounded
from seqeval.metrics import f1_score
from small_models import fill, small_config
from torch.nn import functional as F
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_elmo import ElmoForTokenClassification, ElmoModel, ElmoTokenizer

LABELS = ["O", "B-x", "I-x", "B-y", "I-y"]
SENTENCES = [["A", "cat", "sat", "."], ["No"], [], ["the", "<S>", "and", "</S>", "here"]]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(["A", "cat", "No", "the", "."], max_characters_per_token=8)


def build(labels=LABELS, seed=3, **fields):
    sizes = {"task_encoder_size": 6, "num_labels": len(labels), "vocab_size": 9}
    config = small_config(**{**sizes, **fields})
    config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    model = fill(ElmoForTokenClassification(config), seed)
    with torch.no_grad():
        # An LSTM's outputs are small, and all words would have one label otherwise.
        model.classifier.weight.mul_(6)
    return model


def encode(tokenizer, sentences, **kwargs):
    return dict(tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt", **kwargs))


@torch.no_grad()
def expected_scores(model, tokenizer, words):
    """The scores of a sentence's words, ``(words, labels)``, from that sentence alone, with torch's unpacked LSTM."""
    inputs = encode(tokenizer, [words])
    vectors = [model.elmo(**inputs).last_hidden_state[:, 1:-1]]
    if model.char_cnn is not None:
        vectors.append(model.char_cnn.encode(inputs["character_ids"][0, 1:-1])[None])
    if model.word_vectors is not None:
        vectors.append(model.word_vectors.weight[inputs["input_ids"][:, 1:-1]])
    vectors = torch.cat(vectors, dim=-1)
    if model.task_encoder.lstm is not None:
        vectors = model.task_encoder.lstm(vectors.transpose(0, 1))[0].transpose(0, 1)
    return vectors[0] @ model.classifier.weight.T + model.classifier.bias


def labels_for(rows, width):
    """Labels of words, with -100 for BOS, EOS and padding on the right."""
    labels = torch.full((len(rows), width), -100)
    for number, row in enumerate(rows):
        labels[number, 1 : len(row) + 1] = torch.tensor(row, dtype=torch.long)
    return labels


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("use_crf", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {"task_encoder_layers": 0},
        {"task_encoder_layers": 1},
        {"word_vector_size": 3, "char_cnn_filters": [[2, 4], [3, 5]], "char_cnn_embed_dim": 2},
    ],
    ids=["no encoder", "one layer", "all inputs"],
)
def test_logits_and_tags_are_those_of_each_sentence_alone(tokenizer, fields, use_crf, side):
    model = build(use_crf=use_crf, **fields)
    inputs = encode(tokenizer, SENTENCES, padding_side=side)
    with torch.no_grad():
        outputs = model(**inputs, output_tags=True)
    assert outputs.logits.isfinite().all()
    for number, words in enumerate(SENTENCES):
        rows = inputs["attention_mask"][number].nonzero().squeeze(1)[1:-1]
        assert len(rows) == len(words)
        assert outputs.tags[number].ne(-100).nonzero().squeeze(1).tolist() == rows.tolist()
        if not words:
            continue
        scores = expected_scores(model, tokenizer, words)[None]
        mask = torch.ones(1, len(words), dtype=torch.bool)
        logits, tags = scores, scores.argmax(dim=-1)
        if use_crf:
            logits = model.crf.log_marginals(scores, mask, constraints=model.constraints())
            tags = model.crf.viterbi(scores, mask, constraints=model.constraints())
            torch.testing.assert_close(outputs.logits[number, rows].exp().sum(dim=-1), torch.ones(len(words)))
        torch.testing.assert_close(outputs.logits[number, rows], logits[0], rtol=0, atol=2e-5)
        assert outputs.tags[number, rows].tolist() == tags[0].tolist()
    assert model.decode(**inputs) == [row[row != -100].tolist() for row in outputs.tags]


def test_a_pair_is_two_chains(tokenizer):
    model = build()
    first, second = SENTENCES[0], SENTENCES[3]
    pair = dict(tokenizer([first], [second], is_split_into_words=True, return_tensors="pt"))
    alone = [model(**encode(tokenizer, [words]), output_tags=True) for words in (first, second)]
    together = model(**pair, output_tags=True)
    logits = torch.cat([output.logits[0] for output in alone])
    torch.testing.assert_close(together.logits[0], logits, rtol=0, atol=2e-5)
    assert together.tags[0].tolist() == [tag for output in alone for tag in output.tags[0].tolist()]
    assert model.decode(**pair) == [[*alone[0].tags[0, 1:-1].tolist(), *alone[1].tags[0, 1:-1].tolist()]]


def test_without_special_words_every_word_is_in_the_chain(tokenizer):
    model = build()
    tags = model.decode(**encode(tokenizer, [["A", "cat"], ["No"]], add_special_tokens=False))
    assert [len(row) for row in tags] == [2, 1]


@pytest.mark.parametrize("beside", ["character_ids", "input_ids", None])
@pytest.mark.parametrize("side", ["right", "left"])
def test_layers_computed_before_give_the_same(tokenizer, beside, side):
    model = build()
    inputs = encode(tokenizer, SENTENCES, padding_side=side)
    expected = model(**inputs, output_tags=True)
    layers = torch.stack(model.elmo(**inputs, output_hidden_states=True).hidden_states, dim=1)
    mask, segments = inputs["attention_mask"], inputs["token_type_ids"]
    known = {} if beside is None else {beside: inputs[beside]}
    outputs = model(layer_states=layers, attention_mask=mask, token_type_ids=segments, **known, output_tags=True)
    torch.testing.assert_close(outputs.logits, expected.logits)
    assert torch.equal(outputs.tags, expected.tags)


def test_words_left_out_of_a_sentence_end_no_sentence(tokenizer):
    """Where the attention mask has a gap, the words beside it are no boundaries, whatever they look like."""
    model = build()
    inputs = encode(tokenizer, [["A", "</S>", "cat", "<S>", "sat", "."]])
    inputs["attention_mask"][0, 3] = 0
    layers = torch.stack(model.elmo(**inputs, output_hidden_states=True).hidden_states, dim=1)
    known = {name: inputs[name] for name in ("attention_mask", "token_type_ids")}
    expected = model(**inputs, output_tags=True)
    outputs = model(layer_states=layers, **known, output_tags=True)
    assert expected.tags[0].ne(-100).tolist() == [False, True, True, False, True, True, True, False]
    assert torch.equal(outputs.tags, expected.tags)
    torch.testing.assert_close(outputs.logits, expected.logits)


def test_dropout_falls_on_each_input_once(tokenizer):
    """On ELMo's vectors that of the representation; without it, and on all others, that of the task."""
    inputs = encode(tokenizer, SENTENCES[:1] * 200)
    for own, expected in ((0.5, 0.5), (0.0, 0.3)):
        model = build(representation_dropout=own, task_dropout=0.3, word_vector_size=4, task_encoder_layers=1).train()
        dropped = {}
        model.task_encoder.input_dropout.register_forward_hook(
            lambda module, given, output, to=dropped: to.update(vectors=output)
        )
        model(**inputs)
        vectors = dropped["vectors"]
        elmo, words = vectors[:, 1:-1].split([10, 4], dim=-1)
        assert (elmo == 0).float().mean().item() == pytest.approx(expected, abs=0.02)
        assert (words == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_character_ids_in_the_place_of_input_ids(tokenizer):
    model, inputs = build(), encode(tokenizer, SENTENCES)
    expected = model(**inputs).logits
    torch.testing.assert_close(model(inputs["character_ids"], attention_mask=inputs["attention_mask"]).logits, expected)


@pytest.mark.parametrize("use_crf", [True, False])
def test_loss_is_per_labelled_word(tokenizer, use_crf):
    model, inputs = build(use_crf=use_crf), encode(tokenizer, SENTENCES)
    rows = [[0, 1, -100, 0], [3], [], [0, -100, 1, 2, -100]]
    labels = labels_for(rows, inputs["input_ids"].shape[1])
    total = 0.0
    for words, row in zip(SENTENCES, rows, strict=True):
        if not words:
            continue
        scores, target = expected_scores(model, tokenizer, words), torch.tensor(row)
        if use_crf:
            mask = torch.ones(1, len(words), dtype=torch.bool)
            total += model.crf(scores[None], target[None], mask, constraints=model.constraints()).item()
        else:
            total += F.cross_entropy(scores, target, reduction="sum").item()
    outputs = model(**inputs, labels=labels)
    assert outputs.loss.item() == pytest.approx(total / 7, rel=1e-4)
    assert model(**inputs, labels=labels, num_items_in_batch=torch.tensor(100)).loss.item() == pytest.approx(
        total / 100, rel=1e-4
    )
    # What a label at BOS, EOS or padding says does not count, whatever it is.
    noise = labels.clone()
    noise[:, 0], noise[1, 2:] = 4, 77
    assert model(**inputs, labels=noise).loss == outputs.loss
    none = model(**inputs, labels=torch.full_like(labels, -100))
    assert none.loss == 0


def test_losses_of_parts_of_a_batch_add_up_to_its_own(tokenizer):
    """With the penalty of the mix weights, which every part has in proportion to its words."""
    model = build(scalar_mix_l2=0.1, task_dropout=0.0, representation_dropout=0.0).train()
    inputs = encode(tokenizer, SENTENCES)
    labels = labels_for([[0, 1, 2, 0], [3], [], [0, 0, 1, 2, 0]], inputs["input_ids"].shape[1])
    whole = model(**inputs, labels=labels).loss
    parts = [{name: value[some] for name, value in inputs.items()} for some in (slice(0, 1), slice(1, 4))]
    total = sum(
        model(**part, labels=labels[some], num_items_in_batch=10).loss
        for part, some in zip(parts, (slice(0, 1), slice(1, 4)), strict=True)
    )
    torch.testing.assert_close(total, whole)


def test_penalty_of_the_mix_weights(tokenizer):
    """lambda times the sum of squares, in training only; gamma is free."""
    inputs = encode(tokenizer, SENTENCES[:1])
    labels = labels_for([[0, 1, 2, 0]], 6)
    off = {"task_dropout": 0.0, "representation_dropout": 0.0}
    with_penalty, without = build(scalar_mix_l2=0.1, **off), build(**off)
    weights = with_penalty.elmo.scalar_mixes[0].weights
    expected = 0.1 * sum(weight**2 for weight in weights.tolist())
    assert expected > 0.01
    difference = with_penalty.train()(**inputs, labels=labels).loss - without.train()(**inputs, labels=labels).loss
    assert difference.item() == pytest.approx(expected, rel=1e-3)
    assert with_penalty.eval()(**inputs, labels=labels).loss == without.eval()(**inputs, labels=labels).loss


def test_constraints_follow_the_names_of_the_labels(tokenizer):
    """Also when they are named after the model is made, as the library's scripts do."""
    model, inputs = build(["LABEL_0", "LABEL_1", "LABEL_2"]), encode(tokenizer, SENTENCES)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
    assert model.constraints() is None
    assert model.decode(**inputs) == [[2] * len(words) for words in SENTENCES]
    model.config.id2label = {0: "O", 1: "B-x", 2: "I-x"}
    assert model.decode(**inputs) == [[1] + [2] * (len(words) - 1) if words else [] for words in SENTENCES]
    assert model(**inputs).logits[0, 1].argmax() == 1
    model.config.crf_constraints = False
    assert model.decode(**inputs) == [[2] * len(words) for words in SENTENCES]


def test_decode_is_without_dropout_and_leaves_the_mode(tokenizer):
    model, inputs = build().train(), encode(tokenizer, SENTENCES)
    assert [model.decode(**inputs) for _ in range(5)] == [model.eval().decode(**inputs)] * 5
    model.train().decode(**inputs)
    assert model.training
    assert not model.elmo.bilstm.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tokenizer, dtype):
    """Logits come in float32, near those of float32."""
    model, inputs = build(), encode(tokenizer, SENTENCES)
    labels = labels_for([[0, 1, 2, 0], [3], [], [0, 0, 1, 2, 0]], inputs["input_ids"].shape[1])
    with torch.no_grad():
        exact, cost = double(model)(**inputs, labels=labels), rounded(model, dtype, **inputs, labels=labels)
        outputs = model.to(dtype)(**inputs, labels=labels)
    assert outputs.logits.dtype == outputs.loss.dtype == torch.float32
    # Probabilities: of what is impossible, the logarithm is any large number.
    probabilities = [each.logits.exp() for each in (outputs, cost, exact)]
    assert_as_near_on_average(*probabilities, dtype)
    error, rounding = ((each.loss.double() - exact.loss).abs() for each in (outputs, cost))
    assert error <= 2 * rounding + 8 * torch.finfo(dtype).eps * exact.loss.abs()


@pytest.mark.slow
def test_compiled_model_is_the_same(tokenizer):
    model, inputs = build(), encode(tokenizer, SENTENCES)
    labels = labels_for([[0, 1, 2, 0], [3], [], [0, 0, 1, 2, 0]], inputs["input_ids"].shape[1])
    expected = model(**inputs, labels=labels, output_tags=True)
    outputs = torch.compile(model, backend="eager")(**inputs, labels=labels, output_tags=True)
    torch.testing.assert_close(outputs.loss, expected.loss)
    torch.testing.assert_close(outputs.logits, expected.logits)
    assert torch.equal(outputs.tags, expected.tags)


def test_tuples_and_layers_on_request(tokenizer):
    model, inputs = build(), encode(tokenizer, SENTENCES)
    outputs = model(**inputs, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    assert outputs.tags is None
    loss, logits = model(**inputs, labels=torch.zeros_like(inputs["input_ids"]), return_dict=False)
    torch.testing.assert_close(logits, outputs.logits)
    assert loss.dim() == 0


# --- loading, freezing -----------------------------------------------------------------------------------------------


def parameters_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_reload_is_identical_and_still_frozen(tokenizer, tmp_path):
    model = build(word_vector_size=3, char_cnn_filters=[[2, 4]])
    model.save_pretrained(tmp_path)
    again = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert isinstance(again, ElmoForTokenClassification)
    assert not again.training
    before, after = parameters_of(model), parameters_of(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
    frozen = before.keys() - trained
    assert {name.split(".")[0] for name in trained} == {"elmo", "task_encoder", "classifier", "crf", "char_cnn"}
    assert {name for name in trained if name.startswith("elmo.")} == {
        "elmo.scalar_mixes.0.weights",
        "elmo.scalar_mixes.0.gamma",
    }
    assert frozen == {
        name for name in before if name.startswith(("elmo.character_encoder.", "elmo.bilstm.", "word_vectors."))
    }
    inputs = encode(tokenizer, SENTENCES)
    assert torch.equal(
        again(**inputs).logits, AutoModelForTokenClassification.from_pretrained(tmp_path)(**inputs).logits
    )
    # Products of matrices round by where these begin in memory, and loaded ones begin elsewhere than computed ones.
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
    assert again.decode(**inputs) == model.decode(**inputs)


def test_unfreezing_is_one_flag(tokenizer, tmp_path):
    build(word_vector_size=3, cell_clip=None, proj_clip=None).save_pretrained(tmp_path)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path, freeze_bilm=False, freeze_word_vectors=False)
    model.train()(**encode(tokenizer, SENTENCES[:1]), labels=labels_for([[0, 1, 2, 0]], 6)).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().sum() > 0]
    assert missing == []


def test_fresh_head_on_a_base_model(tiny_model_folder):
    """The library's warning names the head's weights and no others; the biLM's are those of the folder."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(handler)
    try:
        model, info = AutoModelForTokenClassification.from_pretrained(
            tiny_model_folder, num_labels=5, output_loading_info=True
        )
    finally:
        logger.removeHandler(handler)
    heads = {name for name in parameters_of(model) if not name.startswith("elmo.")}
    assert set(info["missing_keys"]) == heads
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    text = "\n".join(record.getMessage() for record in records if record.levelno >= logging.WARNING)
    assert "classifier.weight" in text
    assert "crf.transitions" in text
    assert "elmo." not in text
    base = ElmoModel.from_pretrained(tiny_model_folder)
    assert all(torch.equal(value, parameters_of(model.elmo)[name]) for name, value in parameters_of(base).items())
    assert all(parameter.abs().sum() == 0 for parameter in model.crf.parameters())
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_fresh_head_starts_near_equal_odds(tiny_model_folder):
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(tiny_model_folder, num_labels=9, word_vector_size=4)
    inputs = encode(ElmoTokenizer.from_pretrained(tiny_model_folder), SENTENCES)
    labels = labels_for([[0, 1, 2, 0], [3], [], [0, 0, 1, 2, 0]], inputs["input_ids"].shape[1])
    assert model(**inputs, labels=labels).loss.item() == pytest.approx(math.log(9), abs=0.1)
    # Until vectors are loaded, frozen word vectors say nothing.
    assert model.word_vectors.weight.abs().sum() == 0


# --- stock training --------------------------------------------------------------------------------------------------


def read_sentences(path, count):
    """The first sentences with an entity, as (words, tags)."""
    sentences = []
    for block in path.read_text(encoding="utf-8").replace("\t\n", "\n").split("\n\n"):
        fields = [line.split("\t") for line in block.splitlines()]
        if any(tag != "O" for _, tag in fields):
            sentences.append(([word for word, _ in fields], [tag for _, tag in fields]))
        if len(sentences) == count:
            break
    return sentences


def tokenized(tokenizer, sentences, label2id):
    """A dataset as `run_ner.py` makes it."""

    def tokenize(examples):
        encoded = tokenizer(examples["tokens"], is_split_into_words=True)
        encoded["labels"] = [
            [-100 if word is None else label2id[tags[word]] for word in encoded.word_ids(number)]
            for number, tags in enumerate(examples["tags"])
        ]
        return encoded

    data = Dataset.from_dict({"tokens": [words for words, _ in sentences], "tags": [tags for _, tags in sentences]})
    return data.map(tokenize, batched=True, remove_columns=["tokens", "tags"])


def entity_f1(tags, labels, names):
    kept = labels != -100
    return f1_score(
        [[names[label] for label in row[some]] for row, some in zip(labels, kept, strict=True)],
        [[names[tag] for tag in row[some]] for row, some in zip(tags, kept, strict=True)],
    )


@pytest.fixture(scope="module")
def wnut(shared_data):
    return read_sentences(shared_data / "ner" / "wnut17" / "wnut17train.conll", 24)


@pytest.fixture(scope="module")
def base_folder(wnut, tmp_path_factory):
    """A base model whose word vectors differ from word to word, as those of a trained one do, and its tokenizer.

    The vectors of a random one have a large mean in common, in which the words drown.
    """
    config = small_config(
        char_embed_dim=12,
        filters=[[1, 16], [2, 32], [3, 32]],
        max_characters_per_token=20,
        projection_dim=24,
        cell_size=32,
        cell_clip=3.0,
        proj_clip=3.0,
    )
    model, tokenizer = fill(ElmoModel(config), 5), ElmoTokenizer.create(max_characters_per_token=20)
    words = encode(tokenizer, [words for words, _ in wnut])["character_ids"].flatten(0, 1)
    with torch.no_grad():
        mean = model.character_encoder(words[words[:, 0] > 0]).mean(dim=0)
        model.character_encoder.projection.bias.sub_(mean)
        model.scalar_mixes[0].weights.zero_()
        model.scalar_mixes[0].gamma.fill_(1)
    folder = tmp_path_factory.mktemp("models") / "base"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def training(base_folder, wnut, tmp_path):
    """Makes a Trainer that trains on some sentences of WNUT-17, with whatever is to be different."""
    names = sorted({tag for _, tags in wnut for tag in tags} | {"O"})
    tokenizer = ElmoTokenizer.from_pretrained(base_folder)
    label2id = {name: number for number, name in enumerate(names)}

    def make(model_fields=(), sentences=wnut, compute_metrics=None, preprocess=None, **arguments):
        torch.manual_seed(1)
        sizes = {"task_dropout": 0.0, "representation_dropout": 0.0, "task_encoder_size": 48, "task_encoder_layers": 1}
        model = AutoModelForTokenClassification.from_pretrained(
            base_folder,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id=label2id,
            **{**sizes, **dict(model_fields)},
        )
        defaults = {
            "per_device_train_batch_size": 8,
            "learning_rate": 0.02,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        data = tokenized(tokenizer, sentences, label2id)
        return Trainer(
            model,
            TrainingArguments(tmp_path / "run", **{**defaults, **arguments}),
            data_collator=DataCollatorForTokenClassification(tokenizer),
            train_dataset=data,
            eval_dataset=data,
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=preprocess,
        )

    make.names = names
    return make


@pytest.mark.slow
def test_stock_training_learns_entities(training, wnut, tmp_path):
    """Memorises sentences of WNUT-17; the biLM stays as it was, and the optimizer knows the mix and the head only."""
    names = training.names

    def compute_metrics(prediction):
        logits, labels = prediction
        return {"f1": entity_f1(logits.argmax(axis=-1), labels, names)}

    trainer = training(compute_metrics=compute_metrics, num_train_epochs=32)
    before = parameters_of(trainer.model)
    untrained = trainer.evaluate()["eval_f1"]
    trainer.train()
    after = parameters_of(trainer.model)
    frozen = {name for name in before if name.startswith(("elmo.character_encoder.", "elmo.bilstm."))}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for name, p in trainer.model.named_parameters() if name not in frozen}
    metrics = trainer.evaluate()
    assert untrained < 0.2
    assert metrics["eval_f1"] > 0.9

    tags = trainer.model.decode(**encode(trainer.processing_class, [words for words, _ in wnut]))
    predicted = [[names[tag] for tag in row] for row in tags]
    assert f1_score([tags for _, tags in wnut], predicted) > 0.9

    trainer.save_model(tmp_path / "saved")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    batch = next(iter(trainer.get_eval_dataloader()))
    torch.testing.assert_close(again(**batch).logits, trainer.model.eval()(**batch).logits, rtol=0, atol=1e-4)
    # Also as a user would find them: entities in a text, by the stock pipeline.
    tagger = pipeline("token-classification", tmp_path / "saved", aggregation_strategy="simple")
    right = 0
    for (words, gold), entities in zip(
        wnut, tagger([words for words, _ in wnut], is_split_into_words=True), strict=True
    ):
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        expected = [(int(starts[i]), tag[2:]) for i, tag in enumerate(gold) if tag.startswith("B-")]
        right += [(entity["start"], entity["entity_group"]) for entity in entities] == expected
    assert right >= 20


def test_tags_for_trainer(training):
    """With `output_tags` the library's evaluation loop gets Viterbi's tags, whatever the lengths of its batches."""
    names, seen = training.names, {}

    def compute_metrics(prediction):
        seen["tags"], seen["labels"] = prediction
        return {"f1": entity_f1(*prediction, names)}

    trainer = training(
        {"output_tags": True},
        compute_metrics=compute_metrics,
        preprocess=lambda outputs, labels: outputs[1],
        per_device_eval_batch_size=5,
        num_train_epochs=2,
    )
    trainer.train()
    assert "eval_f1" in trainer.evaluate()
    model = trainer.model
    expected = []
    for row in trainer.eval_dataset:
        inputs = {name: torch.tensor([value]) for name, value in row.items() if name != "labels"}
        expected += model.decode(**inputs)
    tags, labels = seen["tags"], seen["labels"]
    assert [row[row != -100].tolist() for row in tags] == expected
    assert np.array_equal(tags != -100, labels != -100)


@pytest.mark.parametrize("use_crf", [True, False])
def test_accumulated_gradients_equal_those_of_one_batch(training, wnut, use_crf):
    """Sentences of unlike lengths, so that a mean of means would be another number."""
    by_length = sorted(wnut, key=lambda sentence: len(sentence[0]))
    sentences = [*by_length[:2], *by_length[-2:]]
    results = []
    for size, steps in ((4, 1), (2, 2)):
        trainer = training(
            {"use_crf": use_crf, "scalar_mix_l2": 0.1},
            sentences=sentences,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=2,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            logging_steps=1,
            train_sampling_strategy="sequential",
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results.append((losses, parameters_of(trainer.model)))
    (losses, parameters), (other_losses, other_parameters) = results
    assert other_losses == pytest.approx(losses, rel=1e-4)
    for name, value in parameters.items():
        torch.testing.assert_close(other_parameters[name], value, rtol=0, atol=1e-5)


# --- stock pipeline --------------------------------------------------------------------------------------------------


TEXT = "Zürich’s Anna Müller-Smith met 東京 fans, didn't she? " * 2


@pytest.fixture(scope="module")
def tagger_parts(tokenizer):
    """A model that gives the words of the text many labels: its scores are spread about zero."""
    model, features = build(task_encoder_layers=1), []
    model.classifier.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0][0]))
    with torch.no_grad():
        model(**tokenizer(TEXT, return_tensors="pt"))
        model.classifier.bias.copy_(-model.classifier.weight @ features[0][1:-1].mean(dim=0))
        model.classifier.weight.mul_(5)
        model.classifier.bias.mul_(5)
        for parameter in model.crf.parameters():
            parameter.mul_(0.3)
    return model, tokenizer


def word_predictions(model, tokenizer, text):
    """Label, probability, start and end of each word, straight from the model."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    inputs = {name: torch.tensor([encoded[name]]) for name in tokenizer.model_input_names}
    probabilities = model(**inputs).logits[0].exp()
    return [
        (model.config.id2label[int(row.argmax())], float(row.max()), start, end)
        for row, (start, end), word in zip(probabilities, encoded["offset_mapping"], encoded.word_ids(), strict=True)
        if word is not None
    ]


def grouped(words):
    """Neighbouring words of one type as one entity, in the pipeline's sense: (type, start, end)."""
    entities = []
    for label, _, start, end in words:
        begins, kind = label.startswith("B-"), label.removeprefix("B-").removeprefix("I-")
        if entities and entities[-1][0] == kind and not begins:
            entities[-1][2] = end
        else:
            entities.append([kind, start, end])
    return [tuple(entity) for entity in entities if entity[0] != "O"]


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_stock_pipeline(tagger_parts, strategy, recwarn):
    """One token is one word, so every strategy finds the entities of the words' own labels."""
    model, tokenizer = tagger_parts
    tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
    words = word_predictions(model, tokenizer, TEXT)
    assert len({label for label, *_ in words}) >= 3
    found = tagger(TEXT)
    if strategy == "none":
        expected = [word for word in words if word[0] != "O"]
        assert [(e["entity"], e["start"], e["end"]) for e in found] == [(w[0], w[2], w[3]) for w in expected]
        assert [e["score"] for e in found] == pytest.approx([w[1] for w in expected], abs=1e-5)
        assert [e["word"] for e in found] == [TEXT[w[2] : w[3]] for w in expected]
    else:
        assert [(e["entity_group"], e["start"], e["end"]) for e in found] == grouped(words)
    texts = [TEXT, "Anna", TEXT[:30]]
    for single, batched in zip(map(tagger, texts), tagger(texts, batch_size=3), strict=True):
        assert [{**e, "score": None} for e in batched] == [{**e, "score": None} for e in single]
        assert [e["score"] for e in batched] == pytest.approx([e["score"] for e in single], abs=1e-5)
    assert [str(warning.message) for warning in recwarn if "hf_elmo" in str(warning.filename)] == []


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_stock_pipeline_with_stride(tagger_parts, strategy):
    """Words of a long text are covered by windows; what is found stands where the text has it."""
    model, tokenizer = tagger_parts
    tokenizer = tokenizer.__class__.create(max_characters_per_token=8, model_max_length=10)
    tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy, stride=4)
    found = tagger(TEXT)
    starts = [e["start"] for e in found]
    assert starts == sorted(set(starts))
    assert max(starts) > len(TEXT) / 2
    assert all(TEXT[e["start"] : e["end"]].strip() for e in found)


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_windows_find_what_the_whole_text_has(tokenizer, strategy):
    """Labels that depend on the word alone are the same in every window, and entities are cut by none of them."""
    model = build(task_encoder_layers=0, use_crf=False)
    text = "Anna met Zürich fans in 東京 , didn't she ? Then Müller-Smith went to see Bob ; no one else . " * 3
    with torch.no_grad():
        model.elmo.scalar_mixes[0].weights.copy_(torch.tensor([50.0, 0.0, 0.0]))
        vectors = model.elmo(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 1:-1]
        model.classifier.bias.copy_(-model.classifier.weight @ vectors.mean(dim=0))
    expected = grouped(word_predictions(model, tokenizer, text))
    assert len({kind for kind, *_ in expected}) == 2
    assert any(" " in text[start:end] for _, start, end in expected)
    stride = 8
    assert max(len(tokenizer.tokenize(text[start:end])) for _, start, end in expected) <= stride
    windowed = tokenizer.__class__.create(max_characters_per_token=8, model_max_length=15)
    assert len(windowed(text)["input_ids"]) > 4 * 15
    tagger = pipeline(
        "token-classification", model=model, tokenizer=windowed, aggregation_strategy=strategy, stride=stride
    )
    assert [(entity["entity_group"], entity["start"], entity["end"]) for entity in tagger(text)] == expected


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_stock_pipeline_groups_given_words(tagger_parts, strategy):
    model, tokenizer = tagger_parts
    sentences = [["New York", "don't", "</S>", "東京", "[PAD]"] * 3, TEXT.split()]
    tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
    kinds = set()
    for words, found in zip(sentences, tagger(sentences, is_split_into_words=True), strict=True):
        tags = model(**encode(tokenizer, [words])).logits[0, 1:-1].argmax(dim=-1)
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        rows = [(LABELS[tag], 0, end - len(word), end) for tag, word, end in zip(tags, words, ends, strict=True)]
        assert [(entity["entity_group"], entity["start"], entity["end"]) for entity in found] == grouped(rows)
        kinds |= {entity["entity_group"] for entity in found}
    assert len(kinds) == 2


def test_stock_pipeline_with_given_words(tagger_parts):
    model, tokenizer = tagger_parts
    words = ["New York", "", "don't", "</S>", "東京", "[PAD]"]
    (found,) = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])(
        [words], is_split_into_words=True
    )
    tags = model(**encode(tokenizer, [words])).logits[0, 1:-1].argmax(dim=-1)
    assert [entity["entity"] for entity in found] == [LABELS[tag] for tag in tags]
    text, starts = " ".join(words), np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    assert [entity["start"] for entity in found] == starts.tolist()
    # The empty word is covered by the character behind it: the library takes no token of length 0.
    assert [text[entity["start"] : entity["end"]] for entity in found if entity["start"] != starts[1]] == [
        word for word in words if word
    ]


# --- word vectors and characters beside ELMo -------------------------------------------------------------------------


def test_loads_word_vectors(tokenizer, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat 1 2 3\na 4 5 6\nA 7 8 9\nunused 1 1 1\nno -1 -2 -3\n[UNK] 5 5 5\n", encoding="utf-8")
    model = build(word_vector_size=3)
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == 9
    share = model.load_word_vectors(path, vocabulary)
    assert share == pytest.approx(3 / 5)
    expected = {"cat": [1, 2, 3], "A": [7, 8, 9], "No": [-1, -2, -3]}
    for word, number in vocabulary.items():
        assert model.word_vectors.weight[number].tolist() == expected.get(word, [0, 0, 0])
    assert not model.word_vectors.weight.requires_grad
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.word_vectors.weight, model.word_vectors.weight)


def test_word_vectors_that_cannot_be_loaded(tokenizer, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat 1 2 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="word_vector_size"):
        build().load_word_vectors(path, tokenizer.get_vocab())
    with pytest.raises(ValueError, match="size 3, but 4 was expected"):
        build(word_vector_size=4).load_word_vectors(path, tokenizer.get_vocab())
    with pytest.raises(ValueError, match=r"vectors for 6: make the tokenizer.*vocab_size"):
        build(word_vector_size=3, vocab_size=6).load_word_vectors(path, tokenizer.get_vocab())
    with pytest.raises(ValueError, match="with the task's words"):
        build(word_vector_size=3).load_word_vectors(path, ElmoTokenizer.create().get_vocab())


def test_further_inputs_that_are_missing(tokenizer):
    inputs = encode(tokenizer, SENTENCES)
    layers = torch.zeros(4, 3, inputs["input_ids"].shape[1], 10)
    mask = inputs["attention_mask"]
    with pytest.raises(ValueError, match=r"char_cnn_filters.*character_ids"):
        build(char_cnn_filters=[[2, 4]])(layer_states=layers, attention_mask=mask)
    with pytest.raises(ValueError, match=r"word_vector_size.*input_ids"):
        build(word_vector_size=3)(character_ids=inputs["character_ids"])
    with pytest.raises(ValueError, match="word vectors for 7 words"):
        build(word_vector_size=3, vocab_size=7)(**inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"char_cnn_filters": [[9, 4]]}, "width 9"),
        ({"char_cnn_filters": []}, "char_cnn_filters must be"),
        ({"char_cnn_filters": [[2, 0]]}, "count"),
        ({"word_vector_size": -1}, "word_vector_size"),
        ({"scalar_mix_l2": -0.1}, "scalar_mix_l2"),
        ({"scalar_mix_l2": float("nan")}, "scalar_mix_l2"),
    ],
)
def test_configurations_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        small_config(**fields)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_labels_that_do_not_fit(tokenizer):
    model, inputs = build(), encode(tokenizer, SENTENCES)
    labels = torch.zeros_like(inputs["input_ids"])
    for wrong in (5, -1, 1000):
        labels[0, 2] = wrong
        with pytest.raises(ValueError, match=rf"A label is {wrong}, but the 5 labels .*num_labels.* 0 to 4"):
            model(**inputs, labels=labels)
    with pytest.raises(ValueError, match=r"labels are \(4, 6\), but there are \(batch, words\) = \(4, 7\)"):
        model(**inputs, labels=labels[:, :-1])
    with pytest.raises(ValueError, match="integers"):
        model(**inputs, labels=torch.zeros_like(labels).float())


def test_segments_that_do_not_fit(tokenizer):
    inputs = encode(tokenizer, SENTENCES)
    with pytest.raises(ValueError, match="token_type_ids"):
        build()(**{**inputs, "token_type_ids": inputs["token_type_ids"][:, :-1]})


def test_labels_of_mixed_schemes():
    with pytest.raises(ValueError, match=r"'MISC' is neither.*crf_constraints=False"):
        build(["O", "B-PER", "I-PER", "MISC"])
    assert build(["O", "B-PER", "I-PER", "MISC"], crf_constraints=False).constraints() is None
    assert build(["O", "B-PER", "I-PER", "MISC"], use_crf=False).constraints() is None


@pytest.mark.parametrize("use_crf", [True, False])
def test_weights_that_are_not_numbers(tokenizer, use_crf):
    model, inputs = build(use_crf=use_crf), encode(tokenizer, SENTENCES)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    for run in (model, model.decode):
        with pytest.raises(ValueError, match="not finite"):
            run(**inputs)


def test_transitions_that_are_not_numbers(tokenizer):
    model = build()
    with torch.no_grad():
        model.crf.transitions[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        model.decode(**encode(tokenizer, SENTENCES))


def test_checkpoint_of_another_label_set(tmp_path):
    build().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatched"):
        AutoModelForTokenClassification.from_pretrained(tmp_path, num_labels=3)
