"""The question answering head: attention against loops, masking, spans by brute force, and how it loads and learns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from low_precision import assert_as_near, double, rounded
from small_models import fill, mask_of, small_config
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding, Trainer, TrainingArguments
from transformers.loss.loss_utils import ForQuestionAnsweringLoss

from hf_elmo import ElmoForQuestionAnswering, ElmoModel, ElmoTokenizer
from hf_elmo.model.heads.attention_flow import AttentionFlow, SelfAttention, TrilinearSimilarity
from hf_elmo.model.heads.question_answering_pipeline import best_spans, probabilities

PAIRS = [
    ("Who wrote it ?", "Mary wrote it in 1817 , in Geneva ."),
    ("Where ?", "There ."),
    ("When did she write the book that we all know ?", "She wrote it when it rained all summer long ."),
]


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(max_characters_per_token=8)


def small_head(**fields):
    sizes = {"task_encoder_size": 6, "task_dropout": 0.0, "representation_dropout": 0.0}
    model = fill(ElmoForQuestionAnswering(small_config(**{**sizes, **fields})), seed=1)
    with torch.no_grad():
        # Through five layers of order 1 little of a question would be left to be seen in the scores.
        for name, parameter in model.named_parameters():
            if not name.startswith("elmo."):
                parameter.mul_(2)
    return model


def encode(tokenizer, pairs, **options):
    questions, contexts = zip(*pairs)
    return tokenizer(list(questions), list(contexts), padding=True, return_tensors="pt", **options)


def context_places(tokenizer, pairs, segment=1, **options):
    """Per row, where in it the words of that segment stand: by the tokenizer's own account."""
    questions, contexts = zip(*pairs)
    batch = tokenizer(list(questions), list(contexts), padding=True, **options)
    return [[i for i, kind in enumerate(batch.sequence_ids(row)) if kind == segment] for row in range(len(pairs))]


# Attention


def test_similarity_is_the_product_with_the_three_parts_side_by_side():
    similarity = fill(TrilinearSimilarity(5).double())
    rows, columns = torch.randn(2, 4, 5).double(), torch.randn(2, 3, 5).double()
    weights = torch.cat([similarity.row_weight, similarity.column_weight, similarity.product_weight])
    scores = similarity(rows, columns)
    for b in range(2):
        for i in range(4):
            for j in range(3):
                parts = torch.cat([rows[b, i], columns[b, j], rows[b, i] * columns[b, j]])
                assert scores[b, i, j].item() == pytest.approx((weights @ parts).item(), abs=1e-12)


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def test_attention_flow_is_that_of_the_paper_word_by_word():
    flow = fill(AttentionFlow(5).double())
    context_lengths, question_lengths = [4, 2, 1], [1, 3, 2]
    contexts = [torch.randn(n, 5).double() for n in context_lengths]
    questions = [torch.randn(n, 5).double() for n in question_lengths]
    output = flow(
        pad_sequence(contexts, batch_first=True, padding_value=7.0),
        pad_sequence(questions, batch_first=True, padding_value=-7.0),
        mask_of(context_lengths),
        mask_of(question_lengths),
    )
    assert output.shape == (3, 4, 20)
    for row, (context, question) in enumerate(zip(contexts, questions, strict=True)):
        scores = flow.similarity(context.unsqueeze(0), question.unsqueeze(0))[0].tolist()
        shares = softmax([max(line) for line in scores])
        seen_by_question = sum(share * word for share, word in zip(shares, context, strict=True))
        for i, word in enumerate(context):
            weights = softmax(scores[i])
            asked = sum(weight * other for weight, other in zip(weights, question, strict=True))
            expected = torch.cat([word, asked, word * asked, word * seen_by_question])
            torch.testing.assert_close(output[row, i], expected, rtol=0, atol=1e-12)


def test_self_attention_sees_every_other_word_of_its_row_and_no_more():
    attention = fill(SelfAttention(4).double())
    lengths = [3, 1]
    rows = [torch.randn(n, 4).double() for n in lengths]
    output = attention(pad_sequence(rows, batch_first=True, padding_value=5.0), mask_of(lengths))
    for row, words in enumerate(rows):
        scores = attention.similarity(words.unsqueeze(0), words.unsqueeze(0))[0].tolist()
        for i, word in enumerate(words):
            others = [j for j in range(len(words)) if j != i]
            weights = softmax([scores[i][j] for j in others])
            seen = sum((w * words[j] for w, j in zip(weights, others, strict=True)), torch.zeros(4).double())
            expected = word + attention.output(torch.cat([word, seen, word * seen])).relu()
            torch.testing.assert_close(output[row, i], expected, rtol=0, atol=1e-12)


# Spans


def spans_by_brute_force(start, end, count, max_length):
    spans = [(-start[i] * end[j], i, j) for i in range(len(start)) for j in range(i, min(i + max_length, len(start)))]
    return [(i, j, -score) for score, i, j in sorted(spans)[:count]]


@settings(deadline=None)
@given(
    logits=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12),
    count=st.integers(1, 100),
    max_length=st.integers(1, 15),
)
def test_best_spans_are_those_of_brute_force_and_in_its_order(logits, count, max_length):
    # Whole numbers, so that equal products are common.
    start, end = (probabilities(np.array(side)) for side in zip(*logits))
    found = list(zip(*(part.tolist() for part in best_spans(start, end, count, max_length))))
    assert found == spans_by_brute_force(start.tolist(), end.tolist(), count, max_length)


def test_best_spans_of_impossible_words_come_last():
    start, end = np.array([0.0, 0.5, 0.5]), np.array([0.2, 0.0, 0.8])
    first, last, scores = best_spans(start, end, 6, 3)
    assert list(zip(first[:2].tolist(), last[:2].tolist())) == [(1, 2), (2, 2)]
    assert scores.tolist() == [0.4, 0.4, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("start", "end", "count", "max_length"),
    [([0.5], [0.5], 0, 1), ([0.5], [0.5], 1, 0), ([0.5, 0.5], [1.0], 1, 1), ([[0.5]], [[0.5]], 1, 1)],
)
def test_best_spans_refuses_what_has_no_spans(start, end, count, max_length):
    with pytest.raises(ValueError):
        best_spans(np.array(start), np.array(end), count, max_length)


# Which words can be answers


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("question_segment", [0, 1])
@pytest.mark.parametrize("self_attention", [False, True])
def test_only_words_of_the_context_and_position_0_can_be_answers(
    tokenizer, padding_side, question_segment, self_attention
):
    model = small_head(question_segment=question_segment, context_self_attention=self_attention)
    pairs = PAIRS if question_segment == 0 else [(context, question) for question, context in PAIRS]
    options = {"padding_side": padding_side}
    places = context_places(tokenizer, pairs, segment=1 - question_segment, **options)
    output = model(**encode(tokenizer, pairs, **options))
    for logits in (output.start_logits, output.end_logits):
        for row, possible in zip(logits, places, strict=True):
            assert possible
            expected = torch.zeros_like(row, dtype=torch.bool).index_fill(0, torch.tensor([0, *possible]), True)
            assert torch.equal(row > torch.finfo(row.dtype).min, expected)
            assert row[expected].abs().max() < 100
            assert torch.softmax(row, dim=0)[~expected].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_have_their_own_lowest_score_and_no_nan(tokenizer, dtype):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    exact, cost = double(model)(**batch), rounded(model, dtype, **batch)
    output = model.to(dtype)(**batch)
    places = context_places(tokenizer, PAIRS)
    for name in ("start_logits", "end_logits"):
        assert output[name].dtype == dtype
        assert output[name].min() == torch.finfo(dtype).min
        assert torch.softmax(output[name], dim=1).isfinite().all()
        for row, possible in enumerate(places):
            assert_as_near(*(each[name][row, possible] for each in (output, cost, exact)))


def test_a_row_does_not_depend_on_its_batch_or_on_the_side_of_the_padding(tokenizer):
    model = small_head(context_self_attention=True)
    alone = [model(**encode(tokenizer, [pair])) for pair in PAIRS]
    seen = []
    for order, padding_side in [([0, 1, 2], "right"), ([2, 0, 1], "left"), ([1, 2, 0], "left")]:
        pairs = [PAIRS[number] for number in order]
        batch = encode(tokenizer, pairs, padding_side=padding_side)
        output = model(**batch)
        for row, number in enumerate(order):
            mask = batch["attention_mask"][row] != 0
            for name in ("start_logits", "end_logits"):
                expected = alone[number][name][0]
                # Position 0 is that of the row, not that of its first word.
                torch.testing.assert_close(output[name][row][mask][1:], expected[1:], rtol=0, atol=1e-5)
                torch.testing.assert_close(output[name][row, 0], expected[0], rtol=0, atol=1e-5)
                seen.append(expected[0].item())
    assert len({round(value, 3) for value in seen}) == 6


def test_the_question_matters(tokenizer):
    model = small_head()
    context = PAIRS[0][1]
    one, other = (model(**encode(tokenizer, [(question, context)])) for question in ("Who did it ?", "Where was it ?"))
    # The same question twice would differ by less than 1e-6.
    assert (one.start_logits - other.start_logits).abs().max() > 1e-4
    assert (one.end_logits - other.end_logits).abs().max() > 1e-3


# Two mixes


def test_the_head_has_two_mixes_whatever_the_configuration_says():
    config = small_config()
    model = ElmoForQuestionAnswering(config)
    assert len(model.elmo.scalar_mixes) == model.config.num_representations == 2
    assert config.num_representations == 1
    assert len(ElmoForQuestionAnswering(small_config(num_representations=3)).elmo.scalar_mixes) == 3


@pytest.mark.parametrize("number", [0, 1])
def test_both_mixes_take_part(tokenizer, number):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    before = model(**batch)
    with torch.no_grad():
        model.elmo.scalar_mixes[number].gamma.mul_(2)
    after = model(**batch)
    assert (before.start_logits - after.start_logits).abs().max() > 0.01


def test_a_base_model_lends_its_mix_and_the_second_one_starts_afresh(tmp_path, tokenizer):
    base = fill(ElmoModel(small_config()))
    base.save_pretrained(tmp_path)
    model, report = AutoModelForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, ElmoForQuestionAnswering)
    assert torch.equal(model.elmo.scalar_mixes[0].weights, base.scalar_mixes[0].weights)
    assert torch.equal(model.elmo.scalar_mixes[0].gamma, base.scalar_mixes[0].gamma)
    assert model.elmo.scalar_mixes[1].weights.tolist() == [0, 0, 0]
    assert model.elmo.scalar_mixes[1].gamma.tolist() == [1]
    own = {name for name in model.state_dict() if not name.startswith("elmo.")}
    assert set(report["missing_keys"]) == own | {"elmo.scalar_mixes.1.weights", "elmo.scalar_mixes.1.gamma"}
    assert not report["unexpected_keys"]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    model.elmo.scalar_mixes[1].gamma.data.fill_(3)

    folder = tmp_path / "head"
    model.save_pretrained(folder)
    again, report = ElmoForQuestionAnswering.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    batch = encode(tokenizer, PAIRS)
    torch.testing.assert_close(model.eval()(**batch).start_logits, again(**batch).start_logits, rtol=0, atol=1e-6)
    as_base, report = ElmoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert [mix.gamma.item() for mix in as_base.scalar_mixes] == [base.scalar_mixes[0].gamma.item(), 3]


def test_new_heads_start_with_spread_attention_weights_and_small_scores(tokenizer):
    torch.manual_seed(0)
    model = ElmoForQuestionAnswering(small_config(task_encoder_size=6)).eval()
    bound = (6 / (3 * 22 + 1)) ** 0.5
    for weight in model.attention_flow.similarity.parameters():
        assert bound / 2 < weight.abs().max() < bound
    output = model(**encode(tokenizer, PAIRS))
    assert output.start_logits[output.start_logits > -100].abs().max() < 0.5


# Training


def test_the_loss_is_the_librarys_and_by_hand(tokenizer):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    places = context_places(tokenizer, PAIRS)
    start = torch.tensor([places[0][2], 0, places[2][0]])
    end = torch.tensor([places[0][4], 0, places[2][5]])
    output = model(**batch, start_positions=start, end_positions=end)
    rows = torch.arange(3)
    by_hand = [
        -torch.log_softmax(logits, dim=1)[rows, labels].mean()
        for logits, labels in ((output.start_logits, start), (output.end_logits, end))
    ]
    assert output.loss.item() == pytest.approx((sum(by_hand) / 2).item(), rel=1e-6)
    assert output.loss.item() == pytest.approx(
        ForQuestionAnsweringLoss(output.start_logits, output.end_logits, start, end).item(), rel=1e-6
    )
    # Multi-GPU gathering adds a dimension; a sum over rows is divided by the number that Trainer gives.
    again = model(**batch, start_positions=start[:, None], end_positions=end[:, None], num_items_in_batch=6)
    assert again.loss.item() == pytest.approx(output.loss.item() / 2, rel=1e-6)
    again = model(**batch, start_positions=start, end_positions=end, num_items_in_batch=torch.tensor(12))
    assert again.loss.item() == pytest.approx(output.loss.item() / 4, rel=1e-6)


def test_positions_outside_on_boundaries_or_on_padding_are_ignored(tokenizer):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    place = context_places(tokenizer, PAIRS)[0][1]
    width = batch["input_ids"].shape[1]
    end_mark = context_places(tokenizer, PAIRS)[0][-1] + 1
    alone = torch.tensor([place])
    expected = model(**encode(tokenizer, PAIRS[:1]), start_positions=alone, end_positions=alone)
    for ignored in (width, width + 50, -100, width - 1):
        # The last column is padding in row 1, and the mark of the sentence's end in row 2.
        labels = torch.tensor([place, ignored, ignored])
        loss = model(**batch, start_positions=labels, end_positions=labels).loss
        assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    labels = torch.tensor([end_mark, width, -1])
    output = model(**batch, start_positions=labels, end_positions=labels)
    assert output.loss.item() == 0
    output.loss.backward()
    assert all(p.grad.eq(0).all() for p in model.parameters() if p.grad is not None)


def test_no_answer_is_the_first_word_of_a_row_padded_on_the_left(tokenizer):
    # So run_qa.py labels it, and looks for its score at position 0.
    model = small_head(question_segment=1)
    pairs = [(context, question) for question, context in PAIRS]
    batch = encode(tokenizer, pairs, padding_side="left")
    first = batch["attention_mask"].argmax(dim=1)
    assert first.tolist().count(0) == 1
    at_first = model(**batch, start_positions=first, end_positions=first)
    at_0 = model(**batch, start_positions=torch.zeros(3).long(), end_positions=torch.zeros(3).long())
    assert at_first.loss.item() == at_0.loss.item()
    by_hand = -torch.log_softmax(at_0.start_logits, 1)[:, 0].mean() - torch.log_softmax(at_0.end_logits, 1)[:, 0].mean()
    assert at_0.loss.item() == pytest.approx(by_hand.item() / 2, rel=1e-6)


def test_positions_in_the_question_are_ignored_with_a_hint(tokenizer, caplog):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    labels = torch.full((3,), 1)
    assert model(**batch, start_positions=labels, end_positions=labels).loss.item() == 0
    assert "question_segment" in caplog.text


def test_every_trained_parameter_gets_a_gradient_and_the_bilm_none(tokenizer):
    model, batch = small_head(context_self_attention=True).train(), encode(tokenizer, PAIRS)
    places = context_places(tokenizer, PAIRS)
    start, end = (torch.tensor([row[k] for row in places]) for k in (0, 1))
    model(**batch, start_positions=start, end_positions=end).loss.backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("elmo.character_encoder", "elmo.bilstm"))
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name
        assert frozen or parameter.grad.abs().max() > 0, name


def test_layers_computed_before_give_the_same_scores(tokenizer):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    output = model(**batch, output_hidden_states=True)
    layers = torch.stack(output.hidden_states, dim=1)
    assert layers.shape == (3, 3, *batch["input_ids"].shape[1:], 10)
    again = model(layer_states=layers, token_type_ids=batch["token_type_ids"], attention_mask=batch["attention_mask"])
    torch.testing.assert_close(again.start_logits, output.start_logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.end_logits, output.end_logits, rtol=0, atol=1e-6)


def test_without_task_encoder_the_mixes_alone_are_compared(tokenizer):
    model = small_head(task_encoder_layers=0)
    output = model(**encode(tokenizer, PAIRS))
    assert not any("lstm." in name and "bilstm" not in name for name, _ in model.named_parameters())
    assert output.start_logits[0, context_places(tokenizer, PAIRS)[0]].std() > 0.01


@pytest.mark.slow
def test_compiled_the_scores_are_the_same(tokenizer):
    model = small_head()
    compiled = torch.compile(model, backend="eager")
    # Short ones: a compiler goes through every word.
    for pairs in ([("Where ?", "There ."), ("Who ?", "Mary and I .")], [("Who did ?", "We .")]):
        batch = encode(tokenizer, pairs)
        torch.testing.assert_close(compiled(**batch).end_logits, model(**batch).end_logits, rtol=0, atol=1e-5)


def features(tokenizer, count):
    """That many questions about contexts of different lengths, the answer being the context's second and third word."""
    pairs = [(f"Which one is {n} ?", "It is " + " ".join(f"w{k}" for k in range(n + 2))) for n in range(count)]
    encoded = tokenizer(*map(list, zip(*pairs)))
    places = [row[1] for row in context_places(tokenizer, pairs)]
    return [
        {name: encoded[name][row] for name in encoded} | {"start_positions": place, "end_positions": place + 1}
        for row, place in enumerate(places)
    ]


def train(tokenizer, folder, rounded=False, **arguments):
    model = small_head()
    if rounded:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16())
    options = {"output_dir": folder, "max_steps": 2, "learning_rate": 0.1, "optim": "sgd", "max_grad_norm": 1e9}
    options |= {"lr_scheduler_type": "constant", "report_to": [], "save_strategy": "no", "use_cpu": True, "seed": 3}
    collator = DataCollatorWithPadding(tokenizer)
    arguments = TrainingArguments(**options, disable_tqdm=True, logging_steps=1, **arguments)
    trainer = Trainer(model, arguments, train_dataset=features(tokenizer, 8), data_collator=collator)
    trainer.train()
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_accumulated_gradients_equal_one_big_batch(tokenizer, tmp_path):
    big, big_losses = train(tokenizer, tmp_path, per_device_train_batch_size=8)
    small, small_losses = train(tokenizer, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert small_losses == pytest.approx(big_losses, rel=1e-4)
    assert big_losses[0] > big_losses[1]
    for (name, one), other in zip(big.named_parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_bf16_autocast_trains(tokenizer, tmp_path):
    _, losses = train(tokenizer, tmp_path, per_device_train_batch_size=8, bf16=True)
    _, exact = train(tokenizer, tmp_path, per_device_train_batch_size=8)
    _, plain = train(tokenizer, tmp_path, rounded=True, per_device_train_batch_size=8)
    for loss, right, rounded_weights in zip(losses, exact, plain, strict=True):
        # What it costs to round the weights alone, and a few roundings of the rest.
        assert abs(loss - right) <= 3 * abs(rounded_weights - right) + 2 * torch.finfo(torch.bfloat16).eps * right


# Bad input


def test_rows_without_segments_question_or_context_are_refused(tokenizer):
    model, batch = small_head(), encode(tokenizer, PAIRS)
    segments = batch.pop("token_type_ids")
    with pytest.raises(ValueError, match="needs token_type_ids"):
        model(**batch)
    with pytest.raises(ValueError, match=r"token_type_ids is \(3, 2\)"):
        model(**batch, token_type_ids=segments[:, :2])
    with pytest.raises(ValueError, match=r"Row 0 of the batch has no words of a context.*truncation"):
        model(**batch, token_type_ids=torch.zeros_like(segments))
    with pytest.raises(ValueError, match=r"Row 1 of the batch has no words of a context"):
        model(**encode(tokenizer, [PAIRS[0], ("Where ?", "")]))
    with pytest.raises(ValueError, match=r"Row 1 of the batch has no words of a question"):
        model(**encode(tokenizer, [PAIRS[0], ("", "There .")]))
    with pytest.raises(ValueError, match=r"Row 0 of the batch has no words"):
        model(**encode(tokenizer, PAIRS, truncation="longest_first", max_length=4))


def test_labels_for_other_rows_are_refused(tokenizer):
    with pytest.raises(ValueError, match="2 start or end positions for 3 rows"):
        small_head()(**encode(tokenizer, PAIRS), start_positions=torch.zeros(2), end_positions=torch.zeros(2))


@pytest.mark.parametrize("segment", [2, -1, None])
def test_the_configuration_knows_two_segments(segment):
    with pytest.raises(ValueError, match="question_segment must be 0 or 1"):
        small_config(question_segment=segment)
