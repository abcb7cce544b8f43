"""ElmoForPreTraining: its losses against a cross entropy written out by hand."""

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from small_models import fill, mask_of, random_words, small_config

from hf_elmo import ElmoForPreTraining, ElmoState

VOCABULARY = 11


def small_language_model(seed=0, **fields):
    return fill(ElmoForPreTraining(small_config(vocab_size=VOCABULARY, **fields)), seed)


def random_labels(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (rows, columns), generator=generator)


def scores(model, top):
    """Log-probabilities of words ``(..., vocab_size)``: [PAD], number 0, is no class."""
    weight, bias = model.softmax.weight.detach().double().numpy(), model.softmax.bias.detach().double().numpy()
    logits = top @ weight.T + bias
    logits[..., 0] = -np.inf
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def losses_by_hand(model, tops, targets):
    """Mean cross entropy of both directions, and how many words each scored.

    Args:
        tops: The top layer of every row and direction: ``(rows, words, projection_dim)`` twice.
        targets: For each direction, row and word the word to be predicted there, or None.
    """
    losses, counts = [], []
    for top, rows in zip(tops, targets, strict=True):
        terms = [
            -scores(model, top[row, t])[target]
            for row, words in enumerate(rows)
            for t, target in enumerate(words)
            if target is not None
        ]
        losses.append(np.sum(terms))
        counts.append(len(terms))
    return [total / max(count, 1) for total, count in zip(losses, counts, strict=True)], counts


def neighbours(labels, mask, segments=None):
    """For each word the next and the previous word of its own sentence, or None; -100 is no word either."""
    rows, columns = mask.shape

    def neighbour(row, t, shift):
        other = t + shift
        if not mask[row, t] or not 0 <= other < columns or not mask[row, other]:
            return None
        if segments is not None and segments[row, t] != segments[row, other]:
            return None
        return None if labels[row, other] == -100 else int(labels[row, other])

    return [[[neighbour(row, t, shift) for t in range(columns)] for row in range(rows)] for shift in (1, -1)]


def tops_of(model, **inputs):
    with torch.no_grad():
        top = model(**inputs, output_hidden_states=True).hidden_states[-1].double().numpy()
    return np.split(top, 2, axis=-1)


def assert_losses(output, expected):
    np.testing.assert_allclose(output.forward_loss.item(), expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.backward_loss.item(), expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.loss.item(), sum(expected) / 2, rtol=1e-5, atol=1e-6)


@examples(100)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    ignored=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=6),
    segmented=st.booleans(),
    left=st.booleans(),
    seed=st.integers(0, 100),
)
def test_loss_is_the_mean_cross_entropy_of_neighbours(lengths, ignored, segmented, left, seed):
    model = small_language_model(seed)
    ids, mask = random_words(lengths, seed=seed), mask_of(lengths)
    if left:
        ids, mask = ids.flip(1), mask.flip(1)
    labels = random_labels(*mask.shape, seed)
    for row, column in ignored:
        if row < len(lengths) and column < max(lengths):
            labels[row, column] = -100
    segments = random_labels(*mask.shape, seed + 1) % 2 if segmented else None
    inputs = {"character_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    expected, _ = losses_by_hand(model, tops_of(model, **inputs), neighbours(labels, mask, segments))
    assert_losses(model(**inputs, labels=labels), expected)


def test_labels_of_padding_do_not_count():
    """The tokenizer's `input_ids` serve as labels as they are, with [PAD] at padding; collators write -100 there."""
    model, ids, mask = small_language_model(), random_words([4, 2]), mask_of([4, 2])
    labels = random_labels(2, 4)
    plain = model(character_ids=ids, labels=labels).loss
    for value in (0, -100, 5):
        assert model(character_ids=ids, labels=labels.masked_fill(~mask, value)).loss == plain


def test_one_label_more():
    """The word that follows a row of a running text: for the forward direction alone, which is to predict it."""
    model, ids, mask = small_language_model(), random_words([4, 4, 3]), mask_of([4, 4, 3])
    labels = random_labels(3, 5)
    forward, backward = neighbours(labels[:, :4], mask)
    for row, length in enumerate([4, 4, 3]):
        forward[row][length - 1] = int(labels[row, length])
    expected, counts = losses_by_hand(model, tops_of(model, character_ids=ids), [forward, backward])
    assert counts == [11, 8]
    assert_losses(model(character_ids=ids, labels=labels), expected)


@pytest.mark.parametrize("extra", [0, 1])
def test_two_streams(extra):
    """Other words for the backward direction; with one label more, the word before its row stands first."""
    model, mask = small_language_model(), mask_of([4, 4, 3])
    ids, backward_ids = random_words([4, 4, 3]), random_words([4, 4, 3], seed=1)
    labels, backward_labels = random_labels(3, 4 + extra), random_labels(3, 4 + extra, seed=1)
    tops = tops_of(model, character_ids=ids)[0], tops_of(model, character_ids=backward_ids)[1]
    forward, _ = neighbours(labels[:, :4], mask)
    _, backward = neighbours(backward_labels[:, extra:], mask)
    if extra:
        for row, length in enumerate([4, 4, 3]):
            forward[row][length - 1] = int(labels[row, length])
            backward[row][0] = int(backward_labels[row, 0])
    expected, _ = losses_by_hand(model, tops, [forward, backward])
    output = model(
        character_ids=ids,
        labels=labels,
        backward_character_ids=backward_ids,
        backward_labels=backward_labels,
        output_hidden_states=True,
    )
    assert_losses(output, expected)
    words = [model.elmo.character_encoder(stream) * mask[..., None] for stream in (ids, backward_ids)]
    torch.testing.assert_close(output.hidden_states[0], torch.cat(words, dim=-1), rtol=0, atol=1e-6)


def test_labels_of_their_own_for_the_backward_direction():
    """Both directions read the same words, but are scored at different ones."""
    model, ids, mask = small_language_model(), random_words([4, 2]), mask_of([4, 2])
    labels = random_labels(2, 4)
    scored, backward_scored = labels.clone(), labels.clone()
    scored[:, 0], backward_scored[0, 3], backward_scored[1, 1] = -100, -100, -100
    forward, backward = neighbours(labels, mask)
    expected, _ = losses_by_hand(model, tops_of(model, character_ids=ids), [forward, backward])
    assert_losses(model(character_ids=ids, labels=scored, backward_labels=backward_scored), expected)


def test_division_by_the_number_of_items():
    """Trainer sums gradients over several batches, and divides by the labels of all of them."""
    model, ids, labels = small_language_model(), random_words([4, 2]), random_labels(2, 4)
    output = model(character_ids=ids, labels=labels)
    for items in (10, torch.tensor(10)):
        by_ten = model(character_ids=ids, labels=labels, num_items_in_batch=items)
        # Four words of the six have a next one, and four a previous one.
        assert_losses(by_ten, [output.forward_loss.item() * 4 / 10, output.backward_loss.item() * 4 / 10])


def test_nothing_to_predict():
    model = small_language_model()
    for ids in (random_words([1, 1]), random_words([0, 0]), random_words([3])):
        output = model(character_ids=ids, labels=torch.full(ids.shape[:2], -100))
        assert output.loss.item() == 0
        output.loss.backward()
        assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_logits():
    model, ids = small_language_model(), random_words([4, 2])
    output = model(character_ids=ids)
    assert output.loss is output.forward_loss is output.backward_loss is None
    for logits, top in zip((output.logits, output.backward_logits), tops_of(model, character_ids=ids), strict=True):
        assert logits.shape == (2, 4, VOCABULARY)
        log_probabilities = torch.log_softmax(logits.detach().double(), dim=-1).numpy()
        np.testing.assert_allclose(log_probabilities[..., 1:], scores(model, top)[..., 1:], rtol=0, atol=1e-5)
        assert (log_probabilities[..., 0] < -1e30).all()
    labelled = model(character_ids=ids, labels=random_labels(2, 4))
    assert labelled.logits is labelled.backward_logits is None
    assert model(character_ids=ids, labels=random_labels(2, 4), output_logits=True).logits.equal(output.logits)
    assert model(character_ids=ids, output_logits=False).logits is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_is_never_predicted(dtype):
    model = small_language_model()
    with torch.no_grad():
        model.softmax.bias[0] = 1e4
    model.to(dtype)
    output = model(character_ids=random_words([6, 3]))
    for logits in (output.logits, output.backward_logits):
        assert (logits.argmax(dim=-1) != 0).all()
        assert (logits.float().softmax(dim=-1)[..., 0] == 0).all()


def test_logits_of_a_model_without_padding():
    model = small_language_model(pad_token_id=None)
    output = model(character_ids=random_words([3]))
    top = torch.tensor(tops_of(model, character_ids=random_words([3]))[0]).float()
    torch.testing.assert_close(output.logits, top @ model.softmax.weight.T + model.softmax.bias, rtol=0, atol=1e-5)


def test_dropout_falls_on_the_top_layer():
    """Before the softmax, besides that on the layers' inputs (bilm-tf, bilm/training.py); none in evaluation."""
    model, ids, labels = small_language_model(dropout=0.5), random_words([4, 2]), random_labels(2, 4)
    assert model(character_ids=ids, labels=labels).loss == model(character_ids=ids, labels=labels).loss
    model.train()
    model.elmo.eval()
    torch.manual_seed(5)
    output = model(character_ids=ids, output_hidden_states=True)
    torch.manual_seed(5)
    dropped = torch.nn.functional.dropout(output.hidden_states[-1], 0.5)
    torch.testing.assert_close(output.logits, model.softmax(dropped[..., :5]), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.backward_logits, model.softmax(dropped[..., 5:]), rtol=0, atol=1e-6)


def test_both_directions_share_the_softmax_and_the_mix_is_not_trained():
    model, ids, labels = small_language_model(), random_words([5, 5]), random_labels(2, 5)
    assert not any(parameter.requires_grad for parameter in model.elmo.scalar_mixes.parameters())
    model(character_ids=ids, labels=labels).loss.backward()
    trained = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert trained == {name for name, _ in model.named_parameters() if "scalar_mixes" not in name}
    assert sum(name.startswith("softmax") for name in trained) == 2


def test_a_text_in_batches_with_state():
    """Reading on from batch to batch gives the forward loss of the whole text at once."""
    model, ids, labels = small_language_model(), random_words([12, 12]), random_labels(2, 13)
    whole = model(character_ids=ids, labels=labels).forward_loss
    losses, state = [], None
    for start in (0, 4, 8):
        output = model(
            character_ids=ids[:, start : start + 4],
            labels=labels[:, start : start + 5],
            state=state,
            return_state=True,
        )
        assert isinstance(output.state, ElmoState)
        losses.append(output.forward_loss.item())
        state = output.state.detach()
    assert np.mean(losses) == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"labels": torch.ones(2, 3)}, r"labels must be .* for words of \(2, 4\), was: \(2, 3\)"),
        ({"labels": torch.ones(2, 6)}, r"labels must be .* for words of \(2, 4\), was: \(2, 6\)"),
        ({"labels": torch.ones(1, 4)}, r"labels must be .* for words of \(2, 4\), was: \(1, 4\)"),
        ({"backward_labels": torch.ones(2, 4)}, "backward_labels came without labels"),
        (
            {"labels": torch.ones(2, 4), "backward_character_ids": random_words([4, 2])},
            "backward_character_ids came without backward_labels",
        ),
        (
            {"backward_character_ids": random_words([3, 2])},
            r"backward_character_ids is \(2, 3\), but there are \(batch, words\) = \(2, 4\)",
        ),
    ],
)
def test_wrong_inputs(inputs, message):
    inputs = {name: value.long() for name, value in inputs.items()}
    with pytest.raises(ValueError, match=message):
        small_language_model()(character_ids=random_words([4, 2]), **inputs)


def test_a_small_text_is_learnt():
    """The whole of it in motion: a few sentences, by heart."""
    torch.manual_seed(0)
    config = small_config(
        vocab_size=VOCABULARY, cell_size=24, projection_dim=16, dropout=0.0, cell_clip=3.0, proj_clip=3.0
    )
    model = ElmoForPreTraining(config).train()
    generator = torch.Generator().manual_seed(0)
    spellings = torch.randint(1, 257, (VOCABULARY, 8), generator=generator)
    labels = random_labels(4, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = model(character_ids=spellings[labels], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(VOCABULARY - 1), rel=0.3)
    assert losses[-1] < 0.1
