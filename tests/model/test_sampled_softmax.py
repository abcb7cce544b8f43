"""Sampled softmax: its sampler against the log-uniform law, its loss against formulas written out by hand."""

import copy
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from amounts import examples
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from small_models import fill, random_words, small_config
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainingArguments

from hf_elmo import ElmoConfig, ElmoForPreTraining
from hf_elmo.model import sampled_softmax
from hf_elmo.model.sampled_softmax import LogUniformSampler, Sample, sampled_softmax_loss, sampled_softmax_losses

VOCABULARY = 41  # [PAD] and 40 classes
BILM_TF_TRAINING = {
    "n_negative_samples_batch": 8192,
    "n_tokens_vocab": 793471,
    "char_cnn": {
        "activation": "relu",
        "embedding": {"dim": 16},
        "filters": [[1, 32], [2, 32]],
        "max_characters_per_token": 50,
        "n_characters": 261,
        "n_highway": 2,
    },
    "lstm": {"dim": 64, "n_layers": 2, "projection_dim": 16, "cell_clip": 3, "proj_clip": 3},
}


def law(classes):
    """The log-uniform law in float64, rank by rank."""
    ranks = np.arange(classes)
    return np.log((ranks + 2) / (ranks + 1)) / np.log(classes + 1)


def chance(observed, expected):
    """Pearson's chi-square: how probable so large a difference is, all totals given."""
    observed, expected = np.asarray(observed, dtype=float), np.asarray(expected, dtype=float)
    assert expected.min() > 5
    statistic = ((observed - expected) ** 2 / expected).sum()
    half = torch.tensor([(len(observed) - 1) / 2, statistic / 2], dtype=torch.float64)
    return torch.special.gammaincc(half[0], half[1]).item()


def problem(words=30, dim=6, vocabulary=VOCABULARY, seed=0):
    """Words, their targets and a softmax, of order 1; the targets follow the law, as a text's do about."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, dim, generator=generator).requires_grad_() for n in (words, vocabulary))
    bias = torch.randn(vocabulary, generator=generator).requires_grad_()
    frequencies = torch.from_numpy(law(vocabulary - 1))
    targets = torch.multinomial(frequencies, words, replacement=True, generator=generator) + 1
    return hidden, targets, weight, bias


def loss_by_hand(hidden, targets, weight, bias, sample, correct=True):
    """A float64 loss, word by word, over a list of competitors from which the target itself is left out."""
    hidden, weight, bias = hidden.double(), weight.double(), bias.double()
    probabilities = law(len(weight) - 1)

    def logit(word, number):
        value = hidden[word] @ weight[number] + bias[number]
        return value - math.log(1 - (1 - probabilities[number - 1]) ** sample.tries) if correct else value

    terms = []
    for word, target in enumerate(targets.tolist()):
        others = [number for number in sample.classes.tolist() if number != target]
        logits = torch.stack([logit(word, number) for number in [target, *others]])
        terms.append(torch.logsumexp(logits, dim=0) - logits[0])
    return torch.stack(terms).sum()


def full_loss(hidden, targets, weight, bias):
    """The softmax over all words but [PAD]."""
    return F.cross_entropy(hidden @ weight[1:].t() + bias[1:], targets - 1, reduction="sum")


def gradients(loss, *parameters):
    return torch.autograd.grad(loss, parameters)


class TestSampler:
    def test_frequencies_follow_the_law(self):
        torch.manual_seed(0)
        sampler = LogUniformSampler(num_classes=20, num_samples=1, first_class=1)
        drawn = Counter(int(sampler.draw().classes) for _ in range(6000))
        assert min(drawn) >= 1
        assert chance([drawn[rank + 1] for rank in range(20)], 6000 * law(20)) > 0.01

    def test_a_large_vocabulary(self):
        """What is drawn first is not bent by being distinct, and rare words come as often as they should."""
        torch.manual_seed(0)
        sampler = LogUniformSampler(num_classes=800_000, num_samples=30)
        ranks = np.array([int(sampler.draw().classes[0]) for _ in range(4000)])
        borders = np.unique(np.geomspace(1, 800_001, 30).astype(int)) - 1
        expected = np.add.reduceat(law(800_000), borders[:-1]) * 4000
        assert chance(np.histogram(ranks, borders)[0], expected) > 0.01

    def test_distinct_classes_and_tries_follow_from_drawing_one_by_one(self):
        """Two of four, in order: p_i p_j / (1 - p_i); the second is found at try t with sum of p_i^(t-1) (1 - p_i)."""
        torch.manual_seed(0)
        sampler, p, count = LogUniformSampler(num_classes=4, num_samples=2), law(4), 8000
        samples = [sampler.draw() for _ in range(count)]
        pairs = Counter(tuple(sample.classes.tolist()) for sample in samples)
        possible = [(i, j) for i in range(4) for j in range(4) if i != j]
        assert sum(pairs[pair] for pair in possible) == count
        expected = [count * p[i] * p[j] / (1 - p[i]) for i, j in possible]
        assert chance([pairs[pair] for pair in possible], expected) > 0.01
        tries = Counter(sample.tries for sample in samples)
        expected = [count * (p ** (t - 1) * (1 - p)).sum() for t in range(2, 8)]
        observed = [tries[t] for t in range(2, 8)]
        assert chance([*observed, count - sum(observed)], [*expected, count - sum(expected)]) > 0.01

    @pytest.mark.parametrize(("classes", "samples"), [(100, 30), (3000, 256)])
    def test_expected_counts(self, classes, samples):
        """How often a class is in a sample, over many samples, against what the correction takes it for."""
        torch.manual_seed(0)
        sampler, count = LogUniformSampler(classes, samples, first_class=1), 3000
        numbers = torch.arange(1, classes + 1)
        seen, expected = torch.zeros(classes + 1), torch.zeros(classes)
        for _ in range(count):
            sample = sampler.draw()
            seen[sample.classes] += 1
            expected += sampler.log_expected_counts(numbers, sample.tries).exp()
        # Five standard deviations of a share, and what stopping at so many distinct ones bends.
        tolerance = 5 * (expected / count * (1 - expected / count) / count).clamp(min=0).sqrt() + 0.005
        assert ((seen[1:] - expected).abs() / count < tolerance).all()
        assert abs(float(expected.sum()) / count - samples) < 0.01 * samples

    def test_expected_counts_of_extremes(self):
        """Where `1 - (1 - p) ** tries` itself would lose all digits; and a class that is always there."""
        sampler = LogUniformSampler(num_classes=800_000, num_samples=1)
        p = float(law(800_000)[-1])
        rarest = torch.tensor([799_999])
        assert sampler.log_expected_counts(rarest, 1).exp().item() == pytest.approx(p, rel=1e-5)
        assert sampler.log_expected_counts(rarest, 1000).exp().item() == pytest.approx(1000 * p, rel=1e-4)
        for classes in (1, 2, 800_000):
            every = LogUniformSampler(classes, classes).log_expected_counts(torch.tensor([0, classes - 1]), math.inf)
            assert every.tolist() == [0, 0]

    @examples(100)
    @given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 3), st.integers(0, 2**32))
    def test_samples_are_distinct_words(self, classes, samples, first, seed):
        sample = LogUniformSampler(classes, samples, first).draw(generator=torch.Generator().manual_seed(seed))
        numbers = sample.classes.tolist()
        assert len(numbers) == len(set(numbers)) == min(classes, samples)
        assert first <= min(numbers) <= max(numbers) < first + classes
        assert sample.tries >= len(numbers)
        assert (sample.tries == math.inf) == (samples >= classes)

    @pytest.mark.parametrize("chunk", [1, 7, 64, 100_000])
    @pytest.mark.parametrize("samples", [1, 2, 20, 39])
    def test_any_chunks_give_what_drawing_one_by_one_gives(self, chunk, samples, monkeypatch):
        drawn = []
        draw = LogUniformSampler._draw_with_replacement

        def recorded(self, *args):
            drawn.append(draw(self, *args))
            return drawn[-1]

        monkeypatch.setattr(sampled_softmax, "_draws_at_once", lambda *sizes: chunk)
        monkeypatch.setattr(LogUniformSampler, "_draw_with_replacement", recorded)
        sample = LogUniformSampler(40, samples, 5).draw(generator=torch.Generator().manual_seed(samples))
        found, tries = [], 0
        for rank in torch.cat(drawn).tolist():
            if len(found) < samples:
                tries += 1
                if rank not in found:
                    found.append(rank)
        assert sample.classes.tolist() == [rank + 5 for rank in found]
        assert sample.tries == tries

    @pytest.mark.parametrize(("classes", "samples"), [(12_000, 2048), (800_000, 8192), (3000, 2999), (50, 1)])
    def test_one_chunk_is_enough_and_not_too_much(self, classes, samples, monkeypatch):
        """Speed: draws come in about the number that is needed."""
        calls = []
        draw = LogUniformSampler._draw_with_replacement
        monkeypatch.setattr(
            LogUniformSampler, "_draw_with_replacement", lambda self, n, *rest: calls.append(n) or draw(self, n, *rest)
        )
        torch.manual_seed(0)
        tries = [LogUniformSampler(classes, samples).draw().tries for _ in range(10)]
        assert len(calls) < 20
        assert sum(calls) < 2 * sum(tries) + 1000

    def test_chance_comes_from_the_generator_that_checkpoints_restore(self):
        sampler = LogUniformSampler(1000, 100)
        torch.manual_seed(3)
        sampler.draw()
        state = torch.get_rng_state()
        first, second = sampler.draw(), sampler.draw()
        LogUniformSampler(30_000, 5000).draw()
        torch.set_rng_state(state)
        again = sampler.draw(), sampler.draw()
        for one, other in zip((first, second), again, strict=True):
            assert torch.equal(one.classes, other.classes)
            assert one.tries == other.tries
        assert not torch.equal(first.classes, second.classes)

    def test_a_generator_of_its_own_leaves_the_global_one_alone(self):
        sampler, state = LogUniformSampler(1000, 100), torch.get_rng_state()
        one, other = (sampler.draw(generator=torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(one.classes, other.classes)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ((0, 1), "num_classes must be a whole number of at least 1, was: 0"),
            ((5, 0), "num_samples must be a whole number of at least 1, was: 0"),
            ((5, 2.0), r"num_samples must be a whole number of at least 1, was: 2\.0"),
            ((5, True), "num_samples must be a whole number of at least 1, was: True"),
            ((5, 2, -1), "first_class must be a whole number of at least 0, was: -1"),
        ],
    )
    def test_impossible_sizes(self, sizes, message):
        with pytest.raises(ValueError, match=message):
            LogUniformSampler(*sizes)


class TestLoss:
    @pytest.mark.parametrize("correct", [False, True])
    @pytest.mark.parametrize("surplus", [0, 100])
    def test_every_class_once_is_the_full_softmax(self, correct, surplus):
        hidden, targets, weight, bias = problem()
        sampler = LogUniformSampler(VOCABULARY - 1, VOCABULARY - 1 + surplus, first_class=1)
        loss = sampled_softmax_loss(hidden, targets, weight, bias, sampler, correct=correct)
        expected = full_loss(hidden, targets, weight, bias)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5 * len(targets))
        parameters = hidden, weight, bias
        for got, want in zip(gradients(loss, *parameters), gradients(expected, *parameters), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("correct", [False, True])
    @pytest.mark.parametrize("samples", [1, 5, 30])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_loss_by_hand(self, samples, correct, seed):
        hidden, targets, weight, bias = problem(seed=seed)
        sampler = LogUniformSampler(VOCABULARY - 1, samples, first_class=1)
        sample = sampler.draw(generator=torch.Generator().manual_seed(seed))
        # Among the targets there are some of the sample, and others.
        assert 0 < torch.isin(targets, sample.classes).sum() < len(targets)
        loss = sampled_softmax_loss(hidden, targets, weight, bias, sampler, sample, correct)
        expected = loss_by_hand(hidden, targets, weight, bias, sample, correct)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
        parameters = hidden, weight, bias
        for got, want in zip(gradients(loss, *parameters), gradients(expected, *parameters), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    def test_a_sample_of_accidental_hits_only(self):
        """Nothing is left to be confused with: no loss, and gradients that are numbers."""
        hidden, _, weight, bias = problem(words=3)
        targets, sample = torch.tensor([7, 7, 7]), Sample(torch.tensor([7]), 1)
        sampler = LogUniformSampler(VOCABULARY - 1, 1, first_class=1)
        loss = sampled_softmax_loss(hidden, targets, weight, bias, sampler, sample)
        assert loss.item() == 0
        assert all((gradient == 0).all() for gradient in gradients(loss, hidden, weight, bias))

    @pytest.mark.slow
    def test_bias_of_the_mean_gradient_shrinks_with_the_number_of_samples(self):
        """Of the mean over many samples, against the full softmax; and the correction is what it takes."""
        hidden, targets, weight, bias = problem(words=20)
        # Smaller logits: a distribution that sharp would hang on a few words, in a sample or not.
        hidden, bias = 0.3 * hidden.detach(), 0.3 * bias.detach()
        full = gradients(full_loss(hidden, targets, weight, bias), weight)[0]

        def bias_of(samples, correct=True, draws=600):
            torch.manual_seed(0)
            sampler = LogUniformSampler(VOCABULARY - 1, samples, first_class=1)
            total = torch.zeros_like(full)
            for _ in range(draws):
                loss = sampled_softmax_loss(hidden, targets, weight, bias, sampler, correct=correct)
                total += gradients(loss, weight)[0]
            return float((total / draws - full).norm() / full.norm())

        # The noise of these means is 0.03 or less.
        few, more, many = (bias_of(samples) for samples in (2, 8, 32))
        assert few > 2 * more > 4 * many
        assert many < 0.05
        assert bias_of(16, correct=False) > 2 * bias_of(16)
        assert bias_of(40, draws=1) < 1e-5

    def test_each_set_of_words_has_a_sample_of_its_own(self):
        hidden, targets, weight, bias = problem()
        sampler = LogUniformSampler(VOCABULARY - 1, 6, first_class=1)
        torch.manual_seed(4)
        one, other = sampled_softmax_losses([hidden, hidden], [targets, targets], weight, bias, sampler)
        torch.manual_seed(4)
        samples = sampler.draw(), sampler.draw()
        for loss, sample in zip((one, other), samples, strict=True):
            assert loss.item() == pytest.approx(
                loss_by_hand(hidden, targets, weight, bias, sample).item(), rel=1e-5, abs=1e-5
            )
        assert abs(one - other) > 0.1

    def test_no_words(self):
        hidden, targets, weight, bias = problem()
        sampler = LogUniformSampler(VOCABULARY - 1, 6, first_class=1)
        losses = sampled_softmax_losses([hidden, hidden[:0]], [targets, targets[:0]], weight, bias, sampler)
        assert losses[1].item() == 0
        sum(losses).backward()
        assert weight.grad.isfinite().all()

    @pytest.mark.parametrize("wrong", [0, VOCABULARY, -100])
    def test_targets_that_are_no_words(self, wrong):
        hidden, targets, weight, bias = problem()
        targets[3] = wrong
        with pytest.raises(ValueError, match=rf"Labels reach from .*{wrong}.* has words 1 to {VOCABULARY - 1}"):
            sampled_softmax_loss(hidden, targets, weight, bias, LogUniformSampler(VOCABULARY - 1, 6, 1))

    def test_gradients_are_the_same_bit_by_bit_with_several_threads(self):
        hidden, targets, weight, bias = problem(words=2000, dim=64, vocabulary=3000)
        sampler = LogUniformSampler(2999, 500, first_class=1)
        samples = [sampler.draw(generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]

        def run():
            losses = sampled_softmax_losses(
                [hidden, hidden], [targets, targets.flip(0)], weight, bias, sampler, samples
            )
            return gradients(sum(losses), hidden, weight, bias)

        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            with Dtypes() as dtypes:
                first = run()
            # On a machine with one free core threads come in turn, and all orders are the same by luck: so the
            # operations whose gradients add up in the order of threads are not to be there at all.
            assert torch.float32 not in dtypes.seen.get("index", set()) | dtypes.seen["index_select"]
            for _ in range(5):
                assert all(torch.equal(one, other) for one, other in zip(first, run(), strict=True))
        finally:
            torch.set_num_threads(threads)

    @pytest.mark.parametrize("mode", ["autocast", "bf16"])
    def test_bf16(self, mode):
        """The matrix product runs in bf16, and everything after it in float32."""
        hidden, targets, weight, bias = problem(words=60, dim=16)
        sampler = LogUniformSampler(VOCABULARY - 1, 20, first_class=1)
        sample = sampler.draw(generator=torch.Generator().manual_seed(0))
        parameters = hidden, weight, bias
        exact = sampled_softmax_loss(hidden, targets, weight, bias, sampler, sample)
        expected = gradients(exact, *parameters)
        if mode == "bf16":
            parameters = [parameter.detach().bfloat16().requires_grad_() for parameter in parameters]
        with Dtypes() as dtypes, torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            loss = sampled_softmax_loss(parameters[0], targets, *parameters[1:], sampler, sample)
        assert dtypes.seen["mm"] == {torch.bfloat16}
        assert dtypes.seen["add"] == dtypes.seen["_log_softmax"] == {torch.float32}
        assert loss.dtype == torch.float32
        # What it costs to round the operands alone; every product and every gradient is rounded besides.
        doubles = [each.detach().bfloat16().double().requires_grad_() for each in (hidden, weight, bias)]
        rounded = sampled_softmax_loss(doubles[0], targets, *doubles[1:], sampler, sample)
        eps = torch.finfo(torch.bfloat16).eps
        assert abs(loss.item() - exact.item()) <= 3 * abs(rounded.item() - exact.item()) + eps * exact.item()
        costs = gradients(rounded, *doubles)
        for got, cost, want, parameter in zip(gradients(loss, *parameters), costs, expected, parameters, strict=True):
            assert got.dtype == parameter.dtype
            assert (got - want).norm() <= 3 * (cost - want).norm() + eps * want.norm()


class Dtypes(TorchDispatchMode):
    """Notes in which types operations take their tensors."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [argument for argument in args if isinstance(argument, torch.Tensor)]
        self.seen.setdefault(function.overloadpacket.__name__, set()).update(tensor.dtype for tensor in tensors)
        return function(*args, **(kwargs or {}))


def language_model(samples, **fields):
    fields = {"vocab_size": VOCABULARY, "dropout": 0.0, "num_negative_samples": samples, **fields}
    return fill(ElmoForPreTraining(small_config(**fields)))


def batch(rows=4, words=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = random_words([words] * rows, seed=seed)
    return {"character_ids": ids, "labels": torch.randint(1, VOCABULARY, (rows, words), generator=generator)}


def full_losses(model, character_ids, labels):
    """Of both directions, per word, from the model's logits by hand."""
    with torch.no_grad():
        output = model(character_ids=character_ids)
    scored = [(output.logits[:, :-1], labels[:, 1:]), (output.backward_logits[:, 1:], labels[:, :-1])]
    return [
        -logits[..., 1:].double().log_softmax(-1).gather(-1, (words - 1).unsqueeze(-1)).mean().item()
        for logits, words in scored
    ]


class TestModel:
    def test_training_samples_once_per_direction(self):
        """Against the loss by hand with the samples that the generator gives next, one after the other."""
        model, inputs = language_model(6).train(), batch()
        torch.manual_seed(9)
        output = model(**inputs, output_hidden_states=True)
        torch.manual_seed(9)
        sampler = LogUniformSampler(VOCABULARY - 1, 6, first_class=1)
        forward, backward = output.hidden_states[-1].detach().chunk(2, dim=-1)
        pairs = [(forward[:, :-1], inputs["labels"][:, 1:]), (backward[:, 1:], inputs["labels"][:, :-1])]
        expected = [
            loss_by_hand(
                top.flatten(0, 1), words.flatten(), model.softmax.weight, model.softmax.bias, sampler.draw()
            ).item()
            / words.numel()
            for top, words in pairs
        ]
        assert output.forward_loss.item() == pytest.approx(expected[0], rel=1e-5)
        assert output.backward_loss.item() == pytest.approx(expected[1], rel=1e-5)
        assert output.loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)

    def test_evaluation_takes_the_full_softmax(self):
        model, inputs = language_model(6), batch()
        expected = full_losses(model, **inputs)
        state = torch.get_rng_state()
        output = model.eval()(**inputs)
        assert torch.equal(torch.get_rng_state(), state)
        assert [output.forward_loss.item(), output.backward_loss.item()] == pytest.approx(expected, rel=1e-5)
        assert model.train()(**inputs).forward_loss.item() != pytest.approx(expected[0], rel=1e-2)

    @pytest.mark.parametrize("samples", [None, VOCABULARY - 1, 8192])
    def test_training_with_all_classes_is_the_full_softmax(self, samples):
        model, inputs = language_model(samples).train(), batch()
        output = model(**inputs)
        expected = full_losses(model, **inputs)
        assert [output.forward_loss.item(), output.backward_loss.item()] == pytest.approx(expected, rel=1e-5)

    def test_a_frozen_bilm_does_not_switch_sampling_off(self):
        """It leaves training mode by itself; what is trained then is the softmax."""
        model, inputs = language_model(6), batch()
        model.elmo.requires_grad_(False)
        model.train()
        assert not model.elmo.bilstm.training
        loss = model(**inputs).loss
        assert loss.item() != pytest.approx(sum(full_losses(model, **inputs)) / 2, rel=1e-2)
        loss.backward()
        assert model.softmax.weight.grad.abs().sum() > 0

    def test_pad_is_neither_scored_nor_trained(self):
        model = language_model(VOCABULARY - 5).train()
        for seed in range(5):
            model(**batch(seed=seed)).loss.backward()
        assert (model.softmax.weight.grad[0] == 0).all()
        assert model.softmax.bias.grad[0] == 0
        assert (model.softmax.weight.grad[1:].abs().sum(dim=1) > 0).all()

    def test_a_vocabulary_without_padding(self):
        """Then id 0 is the most frequent word."""
        model = language_model(VOCABULARY, pad_token_id=None).train()
        inputs = batch()
        inputs["labels"][0, 4] = 0
        output = model(**inputs)
        logits = model.eval()(character_ids=inputs["character_ids"]).logits[:, :-1].double()
        expected = F.cross_entropy(logits.flatten(0, 1), inputs["labels"][:, 1:].flatten())
        assert output.forward_loss.item() == pytest.approx(expected.item(), rel=1e-5)

    def test_logits_in_training_are_of_all_words(self):
        output = language_model(6).train()(**batch(), output_logits=True)
        assert output.logits.shape == output.backward_logits.shape == (4, 9, VOCABULARY)

    def test_bf16_model_and_autocast(self):
        model, inputs = language_model(20).train(), batch()
        torch.manual_seed(0)
        exact = model(**inputs).loss
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(**inputs).loss
        mixed.backward()
        assert model.softmax.weight.grad.dtype == torch.float32
        torch.manual_seed(0)
        model.zero_grad()
        low = model.bfloat16()(**inputs).loss
        low.backward()
        finite = all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        # What it costs to round the weights alone: the lower loss rounds everything else, too.
        torch.manual_seed(0)
        cost = abs(model.float()(**inputs).loss.item() - exact.item())
        for loss in (mixed, low):
            assert loss.dtype == torch.float32
            assert abs(loss.item() - exact.item()) <= 3 * cost + torch.finfo(torch.bfloat16).eps * exact.item()
        assert finite

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"pad_token_id": 3}, r"\[PAD\], id 0, before all of them, but pad_token_id is 3: renumber"),
            ({"vocab_size": 1}, "vocab_size 1 has no word to predict"),
        ],
    )
    def test_vocabularies_that_have_no_ranks(self, fields, message):
        with pytest.raises(ValueError, match=message):
            language_model(6, **fields)
        language_model(None, **fields)

    def test_gradients_of_parts_of_a_batch_add_up(self):
        """`num_items_in_batch`, as `Trainer` passes it; all classes are sampled, so that chance takes no part."""
        whole, parts = language_model(VOCABULARY).train(), language_model(VOCABULARY).train()
        inputs = batch()
        inputs["labels"][1, 4:] = -100
        whole(**inputs, num_items_in_batch=torch.tensor(50)).loss.backward()
        for rows in ([0], [1], [2, 3]):
            part = {name: tensor[rows] for name, tensor in inputs.items()}
            parts(**part, num_items_in_batch=torch.tensor(50)).loss.backward()
        for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


class TestTrainer:
    """The stock `Trainer`, as everybody has it."""

    def train(self, folder, samples, resume=None, **arguments):
        rows = [batch(rows=1, seed=seed) for seed in range(8)]
        data = Dataset.from_list([{name: tensor[0].tolist() for name, tensor in row.items()} for row in rows])
        model = language_model(samples, dropout=0.1)
        arguments = {"save_strategy": "no", "learning_rate": 0.1, "num_train_epochs": 2, **arguments}
        arguments = TrainingArguments(folder, use_cpu=True, report_to="none", disable_tqdm=True, **arguments)
        trainer = Trainer(model=model, args=arguments, train_dataset=data.with_format("torch"))
        trainer.train(resume_from_checkpoint=resume)
        return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}

    def test_resume_draws_the_same_samples(self, tmp_path):
        steps = {"save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
        straight = self.train(tmp_path / "a", 6, **steps)
        shutil.copytree(tmp_path / "a" / "checkpoint-3", tmp_path / "b" / "checkpoint-3")
        torch.manual_seed(77)
        resumed = self.train(tmp_path / "b", 6, resume=str(tmp_path / "b" / "checkpoint-3"), **steps)
        for name, parameter in straight.items():
            assert torch.equal(parameter, resumed[name]), name

    def test_accumulated_gradients(self, tmp_path, monkeypatch):
        """Steps of two and two rows are those of four rows, with all classes and no dropout."""
        monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
        common = {"optim": "sgd", "num_train_epochs": 1, "max_grad_norm": 0}
        one = self.train(tmp_path / "a", VOCABULARY, per_device_train_batch_size=4, **common)
        two = self.train(
            tmp_path / "b", VOCABULARY, per_device_train_batch_size=2, gradient_accumulation_steps=2, **common
        )
        start = dict(language_model(VOCABULARY).named_parameters())
        assert not torch.allclose(one["softmax.weight"], start["softmax.weight"], atol=1e-4)
        for name, parameter in one.items():
            torch.testing.assert_close(parameter, two[name], rtol=1e-4, atol=1e-6, msg=name)


class TestConfiguration:
    def test_saved_and_loaded(self, tmp_path):
        model = language_model(6)
        model.save_pretrained(tmp_path)
        assert (tmp_path / "sampled_softmax.py").is_file()
        assert ElmoForPreTraining.from_pretrained(tmp_path).config.num_negative_samples == 6
        assert ElmoConfig().num_negative_samples is None

    @pytest.mark.parametrize(
        ("options", "samples"),
        [
            ({}, 8192),
            ({"n_negative_samples_batch": ...}, None),
            ({"n_negative_samples_batch": 17}, 17),
            ({"n_negative_samples_batch": None}, None),
            ({"sample_softmax": True}, 8192),
            ({"sample_softmax": False}, None),
        ],
    )
    def test_options(self, options, samples):
        """bilm-tf's keys (`bilm/training.py`); what it ignores, or what we never change, comes back as it was."""
        options = {**copy.deepcopy(BILM_TF_TRAINING), **options}
        options = {key: value for key, value in options.items() if value is not ...}
        config = ElmoConfig.from_options(options)
        assert config.num_negative_samples == samples
        assert config.to_options() == options

    @pytest.mark.parametrize("sampled", [..., True, False])
    @pytest.mark.parametrize("before", [..., None, 17])
    @pytest.mark.parametrize("after", [None, 17, 300])
    def test_changed_values_are_written(self, sampled, before, after):
        options = copy.deepcopy(BILM_TF_TRAINING)
        options |= {"n_negative_samples_batch": before, "sample_softmax": sampled}
        options = {key: value for key, value in options.items() if value is not ...}
        config = ElmoConfig.from_options(options)
        config.num_negative_samples = after
        written = config.to_options()
        assert ElmoConfig.from_options(written).num_negative_samples == after
        ours = {"n_negative_samples_batch", "sample_softmax"}
        assert {k: v for k, v in written.items() if k not in ours} == {
            k: v for k, v in options.items() if k not in ours
        }

    def test_an_override(self):
        assert ElmoConfig.from_options(BILM_TF_TRAINING, num_negative_samples=5).num_negative_samples == 5
        assert ElmoConfig.from_options(BILM_TF_TRAINING, num_negative_samples=None).num_negative_samples is None

    @pytest.mark.parametrize("wrong", [0, -1, 2.5, "8192", True])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match="num_negative_samples must be a whole number of at least 1, was: "):
            ElmoConfig(num_negative_samples=wrong)
        with pytest.raises(ValueError, match="num_negative_samples must be a whole number of at least 1, was: "):
            ElmoConfig.from_options({**BILM_TF_TRAINING, "n_negative_samples_batch": wrong})
