"""The character CNN in training: one product for all filters, against convolution by convolution."""

import copy
import logging

import pytest
import torch
from amounts import examples
from hypothesis import example, given
from hypothesis import strategies as st
from small_models import fill, random_words, small_config
from torch import nn

from hf_elmo.model import character_encoder
from hf_elmo.model.character_encoder import CharacterEncoder, unsupported_reason
from hf_elmo.model.tokenization_elmo import character_rows

SIZES = [
    {},
    {"num_highway_layers": 2, "activation": "tanh"},
    {"filters": [[2, 3]]},
    {"filters": [[3, 2], [2, 4], [4, 9]], "char_embed_dim": 3},
]


def encoder_of(sizes, chars, dtype=torch.float64):
    return fill(CharacterEncoder(small_config(**sizes, max_characters_per_token=chars))).to(dtype)


def gradients(encoder, vectors):
    """Of a sum to which each number of each word belongs by a weight of its own."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(vectors.shape, generator=generator, dtype=torch.float64).to(vectors.dtype)
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return torch.autograd.grad((vectors * weights).sum(), parameters, allow_unused=True)


@examples(60)
@given(
    words=st.lists(st.text(max_size=60), min_size=1, max_size=90),
    sizes=st.sampled_from(SIZES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    chars=st.sampled_from([8, 50]),
)
@example([""], {}, torch.float64, 8)
@example(["a" * number for number in range(61)], {}, torch.float64, 50)
@example(["a" * number for number in range(61)], SIZES[3], torch.float32, 8)
def test_vectors_and_gradients_are_those_of_the_convolutions(words, sizes, dtype, chars):
    encoder = encoder_of(sizes, chars, dtype)
    rows = torch.unique(torch.from_numpy(character_rows(words, chars)[0]), dim=0)
    assert unsupported_reason(encoder, rows, in_training=True) is None
    ours, plain = encoder(rows), encoder.encode(rows)
    assert ours.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    for one, other in zip(gradients(encoder, ours), gradients(encoder, plain), strict=True):
        assert (one - other).norm() <= tolerance * other.norm() + tolerance


@pytest.mark.parametrize("frozen", ["char_embedding", "convolutions", "convolutions.0.weight", "highways"])
def test_parts_may_be_frozen(frozen):
    encoder = encoder_of(SIZES[1], 8)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    rows = random_words([30])[0]
    ours, plain = gradients(encoder, encoder(rows)), gradients(encoder, encoder.encode(rows))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_padding_character_has_no_gradient():
    encoder = encoder_of({}, 8)
    rows = torch.zeros(2, 8, dtype=torch.long)
    rows[1, 0] = 5
    (of_embedding, *_) = gradients(encoder, encoder(rows))
    assert of_embedding[5].abs().max() > 0
    assert not of_embedding[0].any()


def test_much_less_is_kept_for_the_pass_backward():
    """Where the maxima are, not all that they are the maxima of."""
    encoder = encoder_of({"filters": [[1, 64], [2, 64]], "num_highway_layers": 0}, 50, torch.float32)
    rows = torch.randint(1, 257, (200, 50), generator=torch.Generator().manual_seed(0))

    def kept(read):
        numbers = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: numbers.append(t.numel()) or t, lambda t: t):
            read(rows)
        return sum(numbers)

    assert kept(encoder) < 0.1 * kept(encoder.encode)


class TestWhichWay:
    @pytest.fixture
    def said(self, caplog):
        """What the log says in the test."""
        logger = logging.getLogger(character_encoder.__name__)
        logger.setLevel(logging.INFO)
        logger.addHandler(caplog.handler)
        type(character_encoder.logger).info_once.cache_clear()
        yield caplog
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.NOTSET)

    def test_in_training(self, said):
        encoder = encoder_of({}, 8)
        encoder(random_words([3])[0]).sum().backward()
        assert "The character CNN in training is one product for all its filters." in said.text

    @pytest.mark.parametrize(
        ("sizes", "prepare", "reason"),
        [
            ({}, lambda encoder: encoder.to(torch.bfloat16), "its weights are of 16 bits"),
            ({"filters": [[1, 40], [6, 2]]}, lambda encoder: encoder, "too unlike in width"),
            (
                {},
                lambda encoder: encoder.convolutions[0].register_forward_hook(lambda *_: None),
                "there is an adapter, a hook",
            ),
        ],
    )
    def test_filter_by_filter(self, said, sizes, prepare, reason):
        encoder = encoder_of(sizes, 8, torch.float32)
        prepare(encoder)
        encoder(random_words([3])[0]).sum().backward()
        assert "filter by filter" in said.text
        assert reason in said.text

    def test_with_hooks_and_adapters_elsewhere(self, said):
        """As transformers registers one on the embedding for gradient checkpointing."""
        encoder = encoder_of({}, 8)
        called = []
        for part in (encoder.char_embedding, encoder.projection):
            part.register_forward_hook(lambda module, *_: called.append(module))
        encoder(random_words([3])[0]).sum().backward()
        assert "in training is one product" in said.text
        assert called == [encoder.char_embedding, encoder.projection]

    def test_under_autocast(self, said):
        encoder = encoder_of({}, 8, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            encoder(random_words([3])[0]).float().sum().backward()
        assert "filter by filter: autocast is on" in said.text

    def test_transforms_of_torch_func(self, said):
        encoder = encoder_of({}, 8)
        rows = random_words([3])[0]

        def total(parameters):
            return torch.func.functional_call(encoder, parameters, (rows,)).sum()

        parameters = dict(encoder.named_parameters())
        found = torch.func.grad(total)({name: value.detach() for name, value in parameters.items()})
        assert "filter by filter: a transform of torch.func is at work" in said.text
        expected = torch.autograd.grad(encoder(rows).sum(), list(parameters.values()))
        for name, value in zip(parameters, expected, strict=True):
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def test_a_copy_in_training_learns_the_same():
    """Some steps of an optimiser, with vectors that are looked up anew after each."""
    ours = encoder_of({}, 8)
    plain = copy.deepcopy(ours)
    plain.forward = nn.Module.__getattribute__(plain, "encode")
    rows = random_words([40])[0]
    target = torch.randn(40, ours(rows).shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for encoder in (ours, plain):
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (encoder(rows) - target).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-10, atol=1e-10)
