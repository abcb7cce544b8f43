"""Heads that judge whole texts: what they compute, their losses beside the library's own, and bad input."""

import pytest
import torch
from low_precision import assert_as_near, assert_as_near_on_average, double, rounded
from small_models import fill, small_config
from torch.nn import functional as F
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, DataCollatorForMultipleChoice
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from hf_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification, ElmoTokenizer
from hf_elmo.model.heads.sequence_classification_elmo import classification_loss

TEXTS = ["A cat sat on it .", "No", "", "Dogs , here and there , bark ."]
PAIRS = [("A cat sat .", "An animal sat somewhere ."), ("No", "Yes , of course"), ("", "x"), ("Dogs bark .", "")]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(max_characters_per_token=8)


def build(head, **fields):
    sizes = {"task_encoder_size": 6, "classifier_size": 9, "initializer_range": 0.5}
    model = fill(head(small_config(**{**sizes, **fields})), seed=3)
    with torch.no_grad():
        # An LSTM's outputs are small, and those of the second one hardly differ otherwise.
        for name, parameter in model.text_scorer.encoder.named_parameters():
            parameter.mul_(3 if "weight_ih" in name else 1)
    return model


def batch_of(tokenizer, examples, **kwargs):
    """Texts and pairs in one batch."""
    # In a list, because a lone pair whose second text is empty is no pair to the library.
    encoded = [{name: rows[0] for name, rows in tokenizer([example]).items()} for example in examples]
    return dict(tokenizer.pad(encoded, return_tensors="pt", **kwargs))


def expected_features(model, tokenizer, text):
    """Maximum and mean over a text's encoded words, from the text alone, with torch's unpacked LSTM."""
    vectors = model.elmo(**tokenizer(text, return_tensors="pt")).last_hidden_state
    lstm = model.text_scorer.encoder.lstm
    words = vectors[0] if lstm is None else lstm(vectors.transpose(0, 1))[0][:, 0]
    return torch.cat([words.max(dim=0).values, words.mean(dim=0)])


@torch.no_grad()
def expected_scores(model, tokenizer, example):
    u = expected_features(model, tokenizer, example if isinstance(example, str) else example[0])
    nothing = torch.zeros_like(u)
    features = torch.cat([u, nothing, nothing, nothing])
    if not isinstance(example, str):
        v = expected_features(model, tokenizer, example[1])
        features = torch.cat([u, v, (u - v).abs(), u * v])
    scorer = model.text_scorer
    hidden = (scorer.hidden.weight @ features + scorer.hidden.bias).clamp(min=0)
    return scorer.scores.weight @ hidden + scorer.scores.bias


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("side", ["right", "left"])
def test_scores_are_those_of_each_text_or_pair_alone(tokenizer, layers, side):
    model = build(ElmoForSequenceClassification, task_encoder_layers=layers, num_labels=3)
    examples = [*TEXTS, *PAIRS]
    with torch.no_grad():
        logits = model(**batch_of(tokenizer, examples, padding_side=side)).logits
    expected = torch.stack([expected_scores(model, tokenizer, example) for example in examples])
    assert expected.std(dim=0).min() > 0.01, "the examples must differ for the test to mean anything"
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_the_order_of_a_pair_matters(tokenizer):
    model = build(ElmoForSequenceClassification, num_labels=3)
    with torch.no_grad():
        there = model(**batch_of(tokenizer, [("A cat", "a dog runs")])).logits
        back = model(**batch_of(tokenizer, [("a dog runs", "A cat")])).logits
    assert not torch.allclose(there, back, atol=1e-3)


def test_without_segments_every_row_is_a_single_text(tokenizer):
    model = build(ElmoForSequenceClassification)
    batch = batch_of(tokenizer, TEXTS)
    with torch.no_grad():
        expected = model(**batch).logits
        del batch["token_type_ids"]
        torch.testing.assert_close(model(**batch).logits, expected, atol=0, rtol=0)


def test_a_row_of_padding_is_scored_as_nothing_and_not_as_infinity(tokenizer):
    model = build(ElmoForSequenceClassification)
    batch = batch_of(tokenizer, TEXTS)
    batch["attention_mask"][1] = 0
    with torch.no_grad():
        logits = model(**batch).logits
        scorer = model.text_scorer
        expected = scorer.scores(F.relu(scorer.hidden(torch.zeros(1, scorer.hidden.in_features))))
    torch.testing.assert_close(logits[1:2], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_dtypes(tokenizer, dtype):
    model = build(ElmoForSequenceClassification, num_labels=3)
    batch = batch_of(tokenizer, [*TEXTS, *PAIRS])
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    with torch.no_grad():
        exact = double(model)(**batch, labels=labels)
        cost = rounded(model, dtype, **batch, labels=labels)
        other = model.to(dtype)(**batch, labels=labels)
    assert exact.logits.dtype == torch.float64
    assert other.logits.dtype == dtype
    assert_as_near(other.logits, cost.logits, exact.logits)
    assert_as_near_on_average(other.logits, cost.logits, exact.logits)
    assert_as_near(other.loss, cost.loss, exact.loss)


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (1, None, torch.tensor([0.5, -1, 2, 0])),
        (1, None, torch.tensor([[0.5], [-1], [2], [0]])),
        (1, None, torch.tensor([1, 0, 3, -2])),
        (3, None, torch.tensor([0, 2, 1, 1])),
        (3, None, torch.tensor([0, 2, 1, 1], dtype=torch.int32)),
        (3, None, torch.tensor([0, -100, 1, 1])),
        (3, None, torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]])),
        (3, "regression", torch.tensor([[0.5, -1, 2], [0, 0, 0], [1, 2, 3], [-1, -2, -3]])),
        (3, "multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]])),
    ],
)
def test_losses_and_problem_types_are_the_librarys(tokenizer, num_labels, problem_type, labels):
    model = build(ElmoForSequenceClassification, num_labels=num_labels, problem_type=problem_type)
    batch = batch_of(tokenizer, TEXTS)
    output = model(**batch, labels=labels)
    own_type = model.config.problem_type
    model.config.problem_type = problem_type
    # Its cross entropy takes no integers but int64.
    library_labels = labels.long() if labels.dtype == torch.int32 else labels
    expected = ForSequenceClassificationLoss(library_labels, output.logits, model.config)
    assert own_type == model.config.problem_type
    torch.testing.assert_close(output.loss, expected)
    assert model(**batch, labels=labels).loss == output.loss, "the problem type stays as the first labels set it"


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("regression", torch.tensor([0.5, -1, 2, 0]).unsqueeze(1)),
        ("regression", torch.tensor([[0.5, -1, 2], [0, 0, 0], [1, 2, 3], [-1, -2, -3]])),
        ("single_label_classification", torch.tensor([0, -100, 1, 2])),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]])),
    ],
)
def test_losses_of_parts_of_a_batch_add_up_to_its_own(problem_type, labels):
    torch.manual_seed(0)
    width = labels.shape[1] if labels.dim() == 2 else 3
    logits = torch.randn(4, width)
    count = labels.ne(-100).sum()  # as Trainer counts
    whole = classification_loss(logits, labels, problem_type)
    for num_items in (count, int(count)):
        parts = [
            classification_loss(logits[rows], labels[rows], problem_type, num_items)
            for rows in (slice(0, 1), slice(1, 4))
        ]
        torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels", "message"),
    [
        (3, None, torch.tensor([0, 3, 1, 1]), "A label is 3, but the labels of 3 classes are 0 to 2"),
        (3, None, torch.tensor([0, -1, 1, 1]), "A label is -1, but"),
        (3, None, torch.tensor([0, 1, 1]), r"labels must have the shape \(4,\) for single_label_classification"),
        (3, None, torch.tensor([0.0, 1, 1, 2]), r"labels must have the shape \(4, 3\) for multi_label_classification"),
        (3, "single_label_classification", torch.tensor([0.0, 1, 1, 2]), "labels of classes must be integers"),
        (1, None, torch.zeros(4, 2), r"labels must have the shape \(4, 1\) for regression, was: \(4, 2\)"),
        (3, None, torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 2, 0], [0, 0, 1]]), "A label is 2, but for multi_label"),
        (3, None, torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, -100, 0], [0, 0, 1]]), "A label is -100, but for multi_l"),
        (3, "regression", torch.zeros(4), r"labels must have the shape \(4, 3\) for regression, was: \(4,\)"),
    ],
)
def test_labels_that_do_not_fit(tokenizer, num_labels, problem_type, labels, message):
    model = build(ElmoForSequenceClassification, num_labels=num_labels, problem_type=problem_type)
    with pytest.raises(ValueError, match=message):
        model(**batch_of(tokenizer, TEXTS), labels=labels)


def test_inputs_that_do_not_fit(tokenizer):
    model = build(ElmoForSequenceClassification)
    batch = batch_of(tokenizer, TEXTS)
    with pytest.raises(ValueError, match=r"token_type_ids are \(4, 3\), but there are \(batch, words\) = \(4,"):
        model(**{**batch, "token_type_ids": batch["token_type_ids"][:, :3]})
    with pytest.raises(ValueError, match="There are no words to classify"):
        model(**{name: tensor[:, :0] for name, tensor in batch.items()})
    with pytest.raises(ValueError, match="ELMo reads character_ids"):
        model(input_ids=batch["input_ids"])


@pytest.mark.parametrize("head", [ElmoForSequenceClassification, ElmoForMultipleChoice])
def test_layers_computed_before_give_the_same_scores(tokenizer, head):
    model = build(head)
    batch = batch_of(tokenizer, [*TEXTS, *PAIRS])
    if head is ElmoForMultipleChoice:
        batch = {name: tensor.unflatten(0, (4, 2)) for name, tensor in batch.items()}
    labels = torch.tensor([0, 1] * (2 if head is ElmoForMultipleChoice else 4))
    with torch.no_grad():
        expected = model(**batch, labels=labels, output_hidden_states=True)
    states = torch.stack(expected.hidden_states, dim=1)
    if head is ElmoForMultipleChoice:
        states = states.unflatten(0, (4, 2))
    layered = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
    output = model(**layered, layer_states=states, labels=labels)
    torch.testing.assert_close(output.logits, expected.logits)
    output.loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    heads = {name for name, _ in model.named_parameters() if not name.startswith("elmo.")}
    assert trained == heads | {"elmo.scalar_mixes.0.weights", "elmo.scalar_mixes.0.gamma"}


@pytest.mark.parametrize("head", [ElmoForSequenceClassification, ElmoForMultipleChoice])
def test_tuples_instead_of_outputs(tokenizer, head):
    model = build(head)
    batch = batch_of(tokenizer, TEXTS)
    labels = torch.tensor([0, 1, 1, 0])
    if head is ElmoForMultipleChoice:
        batch = {name: tensor.unflatten(0, (2, 2)) for name, tensor in batch.items()}
        labels = labels[:2]
    with torch.no_grad():
        output = model(**batch, labels=labels)
        loss, logits = model(**batch, labels=labels, return_dict=False)
        model.config.return_dict = False
        assert torch.equal(model(**batch)[0], logits)
    assert torch.equal(logits, output.logits)
    assert torch.equal(loss, output.loss)


def choices_of(tokenizer, with_labels=True):
    questions = ["What barks ?", "Who sat ?", "Really ?"]
    answers = [["A dog .", "The old cat there"], ["no one", "a cat"], ["Yes", "No , never"]]
    examples = [
        {**tokenizer([question] * 2, choices), "label": number % 2}
        for number, (question, choices) in enumerate(zip(questions, answers, strict=True))
    ]
    return questions, answers, DataCollatorForMultipleChoice(tokenizer)(examples)


def test_choices_from_the_stock_collator(tokenizer):
    model = build(ElmoForMultipleChoice)
    questions, answers, batch = choices_of(tokenizer)
    with torch.no_grad():
        output = model(**batch)
        expected = torch.stack(
            [
                torch.cat([expected_scores(model, tokenizer, (question, choice)) for choice in choices])
                for question, choices in zip(questions, answers, strict=True)
            ]
        )
        torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.loss, F.cross_entropy(expected, torch.tensor([0, 1, 0])))
        # The collator's rows of characters lie end to end; their own shape and AllenNLP's name do as well.
        rows = batch.pop("character_ids").unflatten(2, (-1, 8))
        assert torch.equal(model(**batch, character_ids=rows).logits, output.logits)
        del batch["input_ids"]
        assert torch.equal(model(**batch, input_ids=rows).logits, output.logits)


def test_layers_of_choices_from_the_stock_collator(tokenizer):
    """The collator lays the layers of each choice end to end, too."""
    model = build(ElmoForMultipleChoice)
    questions, answers, batch = choices_of(tokenizer)
    rows = []
    with torch.no_grad():
        expected = model(**batch)
        for number, (question, choices) in enumerate(zip(questions, answers, strict=True)):
            row = dict(tokenizer([question] * 2, choices))
            alone = [tokenizer(question, choice, return_tensors="pt") for choice in choices]
            states = [model.elmo(**one, output_hidden_states=True).hidden_states for one in alone]
            del row["character_ids"]
            row["layer_states"] = [torch.stack(layers, dim=1)[0].numpy() for layers in states]
            rows.append({**row, "label": number % 2})
        stored = DataCollatorForMultipleChoice(tokenizer)(rows)
        assert stored["layer_states"].dim() == 3
        output = model(**stored)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"are not \(batch, choices, layers \* words \* dim\) for \d+ words in 3 layers"
    ):
        model(**{**stored, "layer_states": stored["layer_states"][:, :, :30]})


def test_choices_that_do_not_fit(tokenizer):
    model = build(ElmoForMultipleChoice)
    _, _, batch = choices_of(tokenizer)
    with pytest.raises(ValueError, match="A label is 2, but the labels of 2 classes are 0 to 1"):
        model(**{**batch, "labels": torch.tensor([0, 1, 2])})
    with pytest.raises(ValueError, match=r"labels must have the shape \(3,\)"):
        model(**{**batch, "labels": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match=r"are not \(batch, choices, words \* chars\) for \d+ words of 8 characters"):
        model(**{**batch, "character_ids": batch["character_ids"][:, :, 8:]})
    with pytest.raises(ValueError, match=r"have choices behind the batch.*one has the shape"):
        model(layer_states=torch.ones(2, 3, 4, 10))
    with pytest.raises(ValueError, match="ELMo reads character_ids"):
        model(input_ids=batch["input_ids"])
    with pytest.raises(ValueError, match=r"There are no choices to read.* character_ids"):
        model()


def test_auto_classes_make_these_heads(tiny_model_folder):
    assert type(AutoModelForMultipleChoice.from_pretrained(tiny_model_folder)) is ElmoForMultipleChoice
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model_folder, id2label={0: "neg", 1: "pos", 2: "none"}, label2id={"neg": 0, "pos": 1, "none": 2}
    )
    assert type(model) is ElmoForSequenceClassification
    assert model.text_scorer.scores.out_features == 3


@pytest.mark.parametrize("size", [8, 512])
def test_a_fresh_head_starts_near_equal_odds(tiny_model_folder, size):
    """Whatever its size: weights of one scale for all would drown the words, or saturate the classes."""
    torch.manual_seed(size)
    tokenizer = ElmoTokenizer.from_pretrained(tiny_model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model_folder, num_labels=4, task_encoder_size=size, classifier_size=size
    ).eval()
    hidden = []
    model.text_scorer.hidden.register_forward_hook(lambda module, inputs, output: hidden.append(output))
    with torch.no_grad():
        probabilities = model(**batch_of(tokenizer, [*TEXTS, *PAIRS])).logits.softmax(dim=-1)
    assert (probabilities - 0.25).abs().max() < 0.1
    assert 0.01 < hidden[0].std() < 1
