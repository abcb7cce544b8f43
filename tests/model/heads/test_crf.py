"""The CRF against enumeration of all tag sequences, and the constraints against the definitions of the schemes."""

import itertools
import math

import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st
from small_models import mask_of

import hf_elmo.model.heads.crf
from hf_elmo.model.heads.crf import LOWEST_LOG_MARGINAL, LinearChainCrf, TagConstraints, tag_constraints

BIO = ("O", "B-x", "I-x", "B-y", "I-y")
BIOES = ("O", "B-x", "I-x", "E-x", "S-x")


def random_crf(num_tags, seed=0, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    crf = LinearChainCrf(num_tags).to(dtype)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return crf


def random_emissions(*shape, seed=1, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def all_sequences(crf, emissions, constraints=None):
    """Every tag sequence of one chain that is allowed, with its score; emissions ``(words, tags)``."""
    start, transitions, end = crf.start.tolist(), crf.transitions.tolist(), crf.end.tolist()
    emissions = emissions.tolist()
    scores = {}
    for tags in itertools.product(range(crf.num_tags), repeat=len(emissions)):
        pairs = list(itertools.pairwise(tags))
        if constraints is not None and not (
            constraints.start[tags[0]]
            and all(constraints.transitions[before][after] for before, after in pairs)
            and constraints.end[tags[-1]]
        ):
            continue
        scores[tags] = (
            start[tags[0]]
            + sum(word[tag] for word, tag in zip(emissions, tags, strict=True))
            + sum(transitions[before][after] for before, after in pairs)
            + end[tags[-1]]
        )
    return scores


def log_sum(scores):
    highest = max(scores)
    return highest + math.log(math.fsum(math.exp(score - highest) for score in scores))


def loss_by_enumeration(scores, labels):
    agreeing = [s for tags, s in scores.items() if all(y in (-100, tag) for y, tag in zip(labels, tags, strict=True))]
    return log_sum(scores.values()) - log_sum(agreeing)


def marginals_by_enumeration(scores, num_tags):
    total = log_sum(scores.values())
    words = len(next(iter(scores)))
    with_tag = [[[s for tags, s in scores.items() if tags[i] == tag] for tag in range(num_tags)] for i in range(words)]
    return torch.tensor(
        [[log_sum(some) - total if some else LOWEST_LOG_MARGINAL for some in word] for word in with_tag],
        dtype=torch.float64,
    )


def allowed_pairs(labels):
    """The transitions that constraints permit, as pairs of names, with `^` and `$` for the two ends."""
    constraints = tag_constraints(labels)
    pairs = {
        (before, after)
        for (i, before), (j, after) in itertools.product(enumerate(labels), repeat=2)
        if constraints.transitions[i][j]
    }
    pairs |= {("^", label) for label, allowed in zip(labels, constraints.start, strict=True) if allowed}
    return pairs | {(label, "$") for label, allowed in zip(labels, constraints.end, strict=True) if allowed}


@st.composite
def batches(draw):
    """A CRF, a padded batch of chains with labels, and constraints."""
    labels = draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c"), BIO[:3], BIO[:4], BIOES]))
    constraints = tag_constraints(labels)
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    seed, scale = draw(st.integers(0, 10_000)), draw(st.sampled_from([0.1, 1.0, 5.0]))
    crf = random_crf(len(labels), seed, scale)
    emissions = random_emissions(len(lengths), max(lengths), len(labels), seed=seed + 1, scale=scale)
    targets = torch.full(emissions.shape[:2], -100)
    for row, length in enumerate(lengths):
        if length:
            sequence = draw(st.sampled_from(sorted(all_sequences(crf, emissions[row, :length], constraints))))
            unknown = draw(st.lists(st.booleans(), min_size=length, max_size=length))
            targets[row, :length] = torch.tensor(sequence).masked_fill(torch.tensor(unknown), -100)
    return crf, emissions, targets, lengths, constraints


@examples(150)
@given(batches())
def test_enumeration(batch):
    """Loss, marginals and the best sequence of each chain, with labels known in part, empty chains among them."""
    crf, emissions, targets, lengths, constraints = batch
    mask = mask_of(lengths)
    expected_loss = 0.0
    marginals = crf.log_marginals(emissions, mask, constraints=constraints)
    best = crf.viterbi(emissions, mask, constraints=constraints)
    for row, length in enumerate(lengths):
        assert best[row, length:].eq(-100).all()
        if length == 0:
            continue
        scores = all_sequences(crf, emissions[row, :length], constraints)
        expected_loss += loss_by_enumeration(scores, targets[row, :length].tolist())
        expected = marginals_by_enumeration(scores, crf.num_tags)
        torch.testing.assert_close(marginals[row, :length], expected, rtol=0, atol=1e-9)
        assert tuple(best[row, :length].tolist()) == max(scores, key=scores.get)
    loss = crf(emissions, targets, mask, constraints=constraints)
    assert loss.item() == pytest.approx(expected_loss, abs=1e-9)


def test_words_of_a_chain_may_stand_anywhere():
    """Left padding, gaps and several chains in a row give what each chain gives alone."""
    crf, constraints = random_crf(5), tag_constraints(BIO)
    emissions = random_emissions(2, 7, 5)
    #  Row 0: chains of words 0 1 and 3 4 5; row 1: one chain of words 2 3 6.
    mask = torch.tensor([[1, 1, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0, 1]]).bool()
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
    labels = torch.tensor([[1, 2, -100, 3, 4, 0, -100], [-100, -100, 0, 1, -100, -100, 2]])
    chains = [(0, [0, 1]), (0, [3, 4, 5]), (1, [2, 3, 6])]
    marginals = crf.log_marginals(emissions, mask, segments, constraints)
    best = crf.viterbi(emissions, mask, segments, constraints)
    expected_loss = 0.0
    for row, words in chains:
        scores = all_sequences(crf, emissions[row, words], constraints)
        expected_loss += loss_by_enumeration(scores, labels[row, words].tolist())
        expected = marginals_by_enumeration(scores, 5)
        torch.testing.assert_close(marginals[row, words], expected, rtol=0, atol=1e-9)
        assert tuple(best[row, words].tolist()) == max(scores, key=scores.get)
    assert crf(emissions, labels, mask, segments, constraints).item() == pytest.approx(expected_loss, abs=1e-9)
    assert best[~mask].eq(-100).all()
    torch.testing.assert_close(marginals[~mask], emissions[~mask].log_softmax(dim=-1))


@pytest.mark.parametrize("constraints", [None, tag_constraints(BIO[:3])], ids=["free", "BIO"])
def test_gradients(constraints):
    crf, mask = random_crf(3), mask_of([3, 1, 2])
    labels = torch.tensor([[1, 2, -100], [0, -100, -100], [-100, 0, -100]])
    emissions = random_emissions(3, 3, 3).requires_grad_()
    # gradcheck changes its inputs in place, those of the CRF included.
    inputs = (emissions, *crf.parameters())
    assert torch.autograd.gradcheck(lambda *_: crf(emissions, labels, mask, constraints=constraints), inputs)
    assert torch.autograd.gradcheck(lambda *_: crf.log_marginals(emissions, mask, constraints=constraints), inputs)


def test_marginals_are_the_gradient_of_the_log_partition_function():
    """Without known labels the loss is 0; with one label its gradient is the expected minus the observed count."""
    crf, mask = random_crf(4), mask_of([5])
    emissions = random_emissions(1, 5, 4).requires_grad_()
    unknown = torch.full((1, 5), -100)
    assert crf(emissions, unknown, mask).item() == pytest.approx(0, abs=1e-12)
    labels = torch.tensor([[0, 3, 1, 1, 2]])
    crf(emissions, labels, mask).backward()
    observed = torch.nn.functional.one_hot(labels, 4)
    expected = crf.log_marginals(emissions.detach(), mask).exp() - observed
    torch.testing.assert_close(emissions.grad, expected)


def test_what_schemes_allow():
    """Written out by hand: I- goes on with an entity of its type, E- ends one, S- is a whole one."""
    assert allowed_pairs(BIO[:3]) == {
        *(("^", "O"), ("^", "B-x"), ("O", "O"), ("O", "B-x"), ("B-x", "O"), ("B-x", "B-x"), ("B-x", "I-x")),
        *(("I-x", "O"), ("I-x", "B-x"), ("I-x", "I-x"), ("O", "$"), ("B-x", "$"), ("I-x", "$")),
    }
    expected = {
        *(("^", "O"), ("^", "B-x"), ("^", "S-x"), ("O", "O"), ("O", "B-x"), ("O", "S-x"), ("O", "$")),
        *(("B-x", "I-x"), ("B-x", "E-x"), ("I-x", "I-x"), ("I-x", "E-x")),
        *(("E-x", "O"), ("E-x", "B-x"), ("E-x", "S-x"), ("E-x", "$")),
        *(("S-x", "O"), ("S-x", "B-x"), ("S-x", "S-x"), ("S-x", "$")),
    }
    assert allowed_pairs(BIOES) == expected
    bilou = {"E-x": "L-x", "S-x": "U-x"}
    assert allowed_pairs(("O", "B-x", "I-x", "L-x", "U-x")) == {
        (bilou.get(before, before), bilou.get(after, after)) for before, after in expected
    }
    assert allowed_pairs(("B", "I", "O")) == {
        tuple(name.removesuffix("-x") for name in pair) for pair in allowed_pairs(BIO[:3])
    }


def test_types_do_not_mix():
    pairs = allowed_pairs(BIO)
    assert ("B-x", "I-x") in pairs
    assert not {("B-x", "I-y"), ("I-x", "I-y"), ("O", "I-y")} & pairs
    assert {("I-x", "B-y"), ("B-x", "B-y")} <= pairs


def test_order_of_labels_does_not_matter():
    assert allowed_pairs(BIOES) == allowed_pairs(tuple(sorted(BIOES, reverse=True)))


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1"),
        ("O", "PER", "LOC"),
        ("O", "I-PER", "I-LOC"),
        ("NOUN", "VERB"),
        ("E-mail", "S-bend"),
        ("B-x", "E-x"),
    ],
)
def test_labels_without_a_scheme_are_free(labels):
    assert tag_constraints(labels) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("O", "B-PER", "I-PER", "MISC"), "'MISC' is neither"),
        (("O", "B-PER", "E-PER", "U-PER"), "B, E, U"),
        (("O", "I-PER", "I-LOC", "B-LOC"), "'I-PER' but no 'B-PER'"),
    ],
)
def test_mixed_schemes(labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        tag_constraints(labels)
    assert "crf_constraints=False" in str(caught.value)


def test_no_emission_makes_what_is_forbidden_win():
    crf, constraints, mask = random_crf(3), tag_constraints(BIO[:3]), mask_of([4])
    emissions = torch.zeros(1, 4, 3)
    emissions[..., 2] = 1e6
    assert crf.float().viterbi(emissions, mask, constraints=constraints).tolist() == [[1, 2, 2, 2]]
    marginals = crf.log_marginals(emissions, mask, constraints=constraints)
    assert marginals[0, 0, 2] == LOWEST_LOG_MARGINAL
    assert marginals.exp().sum(dim=-1).allclose(torch.ones(1, 4))


def test_forbidden_labels_are_learned_from_without_constraints(monkeypatch):
    """As if nothing were forbidden for that sentence, exactly, and a warning; the others keep their constraints."""
    crf, constraints = random_crf(3), tag_constraints(BIO[:3])
    emissions, mask = random_emissions(2, 3, 3), mask_of([3, 3])
    labels = torch.tensor([[0, 2, 0], [0, 1, 2]])
    warnings = []
    monkeypatch.setattr(hf_elmo.model.heads.crf.logger, "warning_once", warnings.append)
    loss = crf(emissions, labels, mask, constraints=constraints)
    assert len(warnings) == 1
    assert "IOB1" in warnings[0]
    crf(emissions[1:], labels[1:], mask[1:], constraints=constraints)
    assert len(warnings) == 1
    free = loss_by_enumeration(all_sequences(crf, emissions[0]), labels[0].tolist())
    bound = loss_by_enumeration(all_sequences(crf, emissions[1], constraints), labels[1].tolist())
    assert loss.item() == pytest.approx(free + bound, abs=1e-9)


def test_long_sentences_in_float32():
    """300 words, 30 tags, scores of order 10: float32 agrees with float64."""
    labels = ("O", *(f"{letter}-{kind}" for kind in range(7) for letter in "BIES"), "S-only")
    constraints = tag_constraints(labels)
    exact = random_crf(30, scale=3)
    emissions = random_emissions(4, 300, 30, scale=10)
    mask = mask_of([300, 300, 7, 1])
    targets = exact.viterbi(emissions, mask, constraints=constraints)
    targets[:, ::3] = -100
    single = random_crf(30, scale=3, dtype=torch.float32)
    exact_loss = exact(emissions, targets, mask, constraints=constraints)
    loss = single(emissions.float(), targets, mask, constraints=constraints)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-4, atol=1e-4)
    marginals = single.log_marginals(emissions.float(), mask, constraints=constraints)
    expected = exact.log_marginals(emissions, mask, constraints=constraints)
    torch.testing.assert_close(marginals[mask].exp().double(), expected[mask].exp(), rtol=0, atol=1e-4)
    torch.testing.assert_close(marginals[mask].exp().sum(dim=-1), torch.ones(int(mask.sum())))
    assert torch.equal(
        single.viterbi(emissions.float(), mask, constraints=constraints),
        exact.viterbi(emissions, mask, constraints=constraints),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    crf, mask = random_crf(5, dtype=dtype), mask_of([40, 3])
    emissions, labels = random_emissions(2, 40, 5, scale=3, dtype=dtype), torch.zeros(2, 40, dtype=torch.long)
    same = LinearChainCrf(5)
    same.load_state_dict(crf.state_dict())
    assert torch.equal(crf(emissions, labels, mask), same(emissions.float(), labels, mask))
    marginals = crf.log_marginals(emissions, mask)
    assert marginals.dtype == torch.float32
    assert torch.equal(marginals, same.log_marginals(emissions.float(), mask))
    assert marginals.half().isfinite().all()


def test_scores_that_are_not_finite():
    crf, mask = random_crf(3), mask_of([2])
    emissions = random_emissions(1, 2, 3)
    emissions[0, 1, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        crf.viterbi(emissions, mask)
    # What stands outside of the chain does not count.
    assert crf.viterbi(emissions, torch.tensor([[True, False]]))[0, 0] in (0, 1, 2)
    with torch.no_grad():
        crf.transitions[0, 0] = float("inf")
    with pytest.raises(ValueError, match="diverge"):
        crf.viterbi(random_emissions(1, 2, 3), mask)


def test_batch_without_chains():
    crf, mask = random_crf(3), torch.zeros(2, 3, dtype=torch.bool)
    emissions = random_emissions(2, 3, 3)
    loss = crf(emissions, torch.zeros(2, 3, dtype=torch.long), mask)
    loss.backward()
    assert loss == 0
    assert crf.viterbi(emissions, mask).eq(-100).all()
    torch.testing.assert_close(crf.log_marginals(emissions, mask), emissions.log_softmax(dim=-1))


def test_constraints_are_plain_tuples():
    """Tensors made once would belong to the device, or the inference mode, of their first use."""
    constraints = tag_constraints(BIO)
    assert isinstance(constraints, TagConstraints)
    with torch.inference_mode():
        random_crf(5).viterbi(random_emissions(1, 2, 5), mask_of([2]), constraints=constraints)
    emissions = random_emissions(1, 2, 5).requires_grad_()
    random_crf(5)(emissions, torch.tensor([[1, 2]]), mask_of([2]), constraints=tag_constraints(BIO)).backward()
    assert emissions.grad.abs().sum() > 0
