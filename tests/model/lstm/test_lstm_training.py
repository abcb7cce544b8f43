"""The LSTM layer's own backward pass: by finite differences, and against autograd through plain operations."""

import copy
import logging
import weakref
from unittest.mock import patch

import pytest
import torch
from amounts import examples
from forced_products import forced, row_of
from hypothesis import example, given
from hypothesis import strategies as st
from low_precision import assert_as_near_on_average, double
from small_models import fill, mask_of, random_words, small_config
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize

from hf_elmo import ElmoConfig, ElmoModel
from hf_elmo.model.lstm import bilstm as bilstm_module
from hf_elmo.model.lstm.bilstm import BiLstm, run_first_that_applies
from hf_elmo.model.lstm.lstm_layer import ElmoState, LstmInputs, LstmLayer, reference_lstm
from hf_elmo.model.lstm.lstm_training import read_layer, unsupported_reason
from hf_elmo.model.lstm.packing import Packing, Words
from hf_elmo.model.products.matrix_products import PRODUCTS, has_onednn

SIZES = st.sampled_from([(7, 5), (5, 5), (64, 16)])
CLIPS = st.sampled_from([(0.6, 0.5), (3.0, 3.0), (None, None), (0.3, None), (None, 0.4)])


def layer_of(sizes=(7, 5), clips=(0.6, 0.5), forget_bias=1.0, seed=0):
    config = small_config(
        cell_size=sizes[0], projection_dim=sizes[1], cell_clip=clips[0], proj_clip=clips[1], forget_bias=forget_bias
    )
    return fill(LstmLayer(config), seed)


def arguments_for(layer, packing, seed=0, dtype=torch.float64):
    """Random inputs and a random state of packed sentences, all of which require gradients."""
    generator = torch.Generator().manual_seed(seed)
    rows, dim = len(packing.rows), layer.weight_hh.shape[1]
    shapes = (len(packing.positions), dim), (rows, dim), (rows, layer.cell_size)
    return [torch.randn(*shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def inputs_of(layer, inputs, batch_sizes, hidden, cell, reverse=False):
    """What `BiLstm` would give to the ways of running if it were this layer alone."""
    return LstmInputs(
        layers=((layer,),),
        reverse=(reverse,),
        words=(Words(inputs),),
        batch_sizes=batch_sizes,
        state=ElmoState(hidden[None, None], cell[None, None]),
        use_skip_connections=False,
        dropout=nn.Dropout(0.0),
        mirror=None,
    )


class Alone(nn.Module):
    """A layer that is run as `BiLstm` runs it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs, batch_sizes, hidden, cell, reverse):
        outputs, state = run_first_that_applies(inputs_of(self.layer, inputs, batch_sizes, hidden, cell, reverse))
        return outputs[0][0], state.hidden[0, 0], state.cell[0, 0]


def weighted_sum(outputs, seed=1):
    """A scalar in which every number of the outputs has a weight of its own."""
    generator = torch.Generator().manual_seed(seed)
    return sum((torch.randn(output.shape, generator=generator).to(output) * output).sum() for output in outputs)


def gradients_of(outputs, tensors, seed=1):
    return torch.autograd.grad(weighted_sum(outputs, seed), tensors, allow_unused=True)


def by_hand(layer, inputs, packing, hidden, cell, reverse):
    """`reference_lstm` of packed sentences, packed again."""
    lengths = mask_lengths(packing)
    padded = nn.utils.rnn.pad_sequence([inputs.new_zeros(n, inputs.shape[1]) for n in lengths], batch_first=True)
    mask = mask_of(lengths)
    order = Packing.from_mask(mask)
    padded = padded.flatten(0, 1).index_copy(0, order.positions, inputs).unflatten(0, mask.shape)
    outputs, *state = reference_lstm(layer, padded, torch.tensor(lengths), hidden, cell, reverse)
    return order.pack(outputs), *state


def mask_lengths(packing):
    """The lengths of packed sentences, in packed order."""
    return [sum(size > row for size in packing.batch_sizes) for row in range(len(packing.rows))]


@examples(60)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any),
    reverse=st.booleans(),
    sizes=SIZES,
    clips=CLIPS,
    forget_bias=st.sampled_from([0.0, 1.0]),
    frozen=st.sets(st.sampled_from(["weight_ih", "weight_hh", "bias", "weight_hr", "inputs", "hidden", "cell"])),
    seed=st.integers(0, 1000),
)
@example([12, 12, 12], True, (7, 5), (0.6, 0.5), 1.0, {"hidden", "cell"}, 0)
@example([1], False, (7, 5), (0.6, 0.5), 1.0, {"weight_ih", "weight_hh", "bias", "weight_hr", "inputs"}, 0)
def test_outputs_and_gradients_are_those_of_the_padded_loop(lengths, reverse, sizes, clips, forget_bias, frozen, seed):
    layer = layer_of(sizes, clips, forget_bias, seed).double()
    packing = Packing.from_mask(mask_of(lengths))
    inputs, hidden, cell = arguments_for(layer, packing, seed)
    tensors = dict(layer.named_parameters()) | {"inputs": inputs, "hidden": hidden, "cell": cell}
    for name in frozen & tensors.keys():
        tensors[name].requires_grad_(False)
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    reason = unsupported_reason(inputs_of(layer, inputs, packing.batch_sizes, hidden, cell))
    assert reason == (None if trained else "no gradients are recorded")
    ours = read_layer(layer, inputs, packing.batch_sizes, hidden, cell, reverse)
    expected = by_hand(layer, inputs, packing, hidden, cell, reverse)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    if trained:
        torch.testing.assert_close(gradients_of(ours, trained), gradients_of(expected, trained), rtol=0, atol=1e-10)


@examples(25)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=64).filter(any),
    reverse=st.booleans(),
    sizes=SIZES,
    clips=CLIPS,
    seed=st.integers(0, 1000),
)
@example([60] * 64, False, (64, 16), (0.6, 0.5), 0)
@example([300, 2, 300], True, (64, 16), (3.0, 3.0), 0)
def test_float32_and_long_batches_are_as_the_plain_path(lengths, reverse, sizes, clips, seed):
    """In float32 products go to another library than those of the plain path."""
    layer = layer_of(sizes, clips, seed=seed)
    packing = Packing.from_mask(mask_of(lengths))
    arguments = arguments_for(layer, packing, seed, torch.float32)
    inputs, *state = arguments
    tensors = [*layer.parameters(), *arguments]
    ours = read_layer(layer, inputs, packing.batch_sizes, *state, reverse)
    plain = layer.read(inputs, packing.batch_sizes, *state, reverse)
    torch.testing.assert_close(ours, plain, rtol=0, atol=2e-5)
    for one, other in zip(gradients_of(ours, tensors), gradients_of(plain, tensors), strict=True):
        # A cell that rounding puts on the other side of its clip has another gradient: hence not every single number.
        assert (one - other).norm() <= 1e-3 * other.norm()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(4, 2), (3, 3)])
def test_finite_differences(sizes, reverse):
    layer = layer_of(sizes, (0.6, 0.3)).double()
    packing = Packing.from_mask(mask_of([4, 3, 1]))
    arguments = arguments_for(layer, packing)
    names, values = zip(*layer.named_parameters(), strict=True)

    def read(inputs, hidden, cell, *values):
        return functional_call(
            layer, dict(zip(names, values, strict=True)), (inputs, packing.batch_sizes, hidden, cell, reverse)
        )

    assert unsupported_reason(inputs_of(layer, arguments[0], packing.batch_sizes, *arguments[1:])) is None
    assert torch.autograd.gradcheck(read, (*arguments, *values))


@pytest.mark.parametrize("value", [0.5, -0.5])
def test_a_value_just_on_its_bound_has_a_gradient(value):
    """As `torch.clamp`: what is on the bound passes its gradient on, what is beyond it does not."""
    layer = LstmLayer(small_config(cell_size=2, projection_dim=1, cell_clip=0.5, proj_clip=None, forget_bias=0.0))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(0.0)
        layer.weight_hr.fill_(1.0)
        # Gates of 1/2, 1/2 and 1: the cell is half of the one before.
        layer.weight_ih[4:6] = 1.0
    layer.double()
    # The second cell is beyond the bound by the least there is.
    cell = torch.tensor([[2 * value, 2 * value * (1 + 2**-50)]], dtype=torch.float64, requires_grad=True)
    inputs, hidden = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    gradients = [
        torch.autograd.grad(read(inputs, [1], hidden, cell, False)[0].sum(), cell)[0]
        for read in (layer.read, lambda *arguments: read_layer(layer, *arguments))
    ]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=0)
    assert gradients[1][0, 0] > 0
    assert gradients[1][0, 1] == 0


def words_of(bilstm, packing, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    dim = bilstm.forward_layers[0].weight_hh.shape[1]
    return torch.randn(len(packing.positions), dim, generator=generator).to(dtype).requires_grad_()


def plain(bilstm):
    """A copy whose layers are read in plain operations."""
    other = copy.deepcopy(bilstm)
    for layer in (*other.forward_layers, *other.backward_layers):
        layer.forward = lambda *args, read=layer.read, compute=None, **kwargs: read(*args, **kwargs)
    return other


@pytest.mark.parametrize("skip", [False, True])
def test_dropout_has_the_masks_of_the_plain_path(skip):
    bilstm = fill(BiLstm(small_config(num_layers=3, dropout=0.4, use_skip_connections=skip))).double().train()
    packing = Packing.from_mask(mask_of([9, 1, 30]))
    words, results = words_of(bilstm, packing, torch.float64), []
    for model in (bilstm, plain(bilstm)):
        torch.manual_seed(5)
        layers, state = model(words, packing)
        outputs = [*layers, *state]
        results.append([*outputs, *gradients_of(outputs, [words, *model.parameters()])])
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_near_to_float64_as_the_plain_path(autocast, steps):
    """By itself (all of the model in it) and under autocast; with few steps weights are not prepacked."""
    bilstm = fill(BiLstm(small_config(cell_size=64, projection_dim=32, cell_clip=3.0, proj_clip=3.0, dropout=0.0)))
    packing = Packing.from_mask(mask_of([steps] * 6 + [1]))
    words = words_of(bilstm, packing)
    right, doubles = plain(bilstm).double(), words.detach().double().requires_grad_()
    exact, _ = right(doubles, packing)
    exact = [*exact, *gradients_of(exact, [doubles, *right.parameters()])]
    errors = []
    for model in (bilstm, plain(bilstm)):
        inputs = words.detach().bfloat16().requires_grad_()
        if not autocast:
            model = copy.deepcopy(model).bfloat16()
            if errors:
                model = plain(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            layers, _ = model(inputs, packing)
        got = [*layers, *gradients_of(layers, [inputs, *model.parameters()])]
        assert {value.dtype for value in layers} == {torch.bfloat16}
        assert {value.dtype for value in got[3:]} == {torch.float32 if autocast else torch.bfloat16}
        errors.append([((one.double() - other).norm() / other.norm()).item() for one, other in zip(got, exact)])
    for ours, theirs in zip(*errors, strict=True):
        assert ours < max(1.2 * theirs, 0.01)


def test_float16_under_autocast_and_by_itself():
    layer = layer_of()
    packing = Packing.from_mask(mask_of([6, 2]))
    inputs, hidden, cell = arguments_for(layer, packing, dtype=torch.float16)
    with torch.autocast("cpu", torch.float16):
        assert unsupported_reason(inputs_of(layer, inputs, packing.batch_sizes, hidden, cell)) is None
        ours = Alone(layer)(inputs, packing.batch_sizes, hidden, cell, False)
        plain = layer.read(inputs, packing.batch_sizes, hidden, cell, False)
    exact = double(layer).read(*double((inputs, packing.batch_sizes, hidden, cell)), False)
    for found, theirs, right in zip(ours, plain, exact, strict=True):
        assert_as_near_on_average(found, theirs, right, torch.float16)
    assert all(gradient.isfinite().all() for gradient in gradients_of(ours, [*layer.parameters(), inputs]))


def test_gradient_checkpointing_keeps_less_and_changes_nothing():
    config = ElmoConfig(**small_config(cell_size=64, projection_dim=16, dropout=0.3).to_dict())
    model = fill(ElmoModel(config)).train()
    ids = random_words([12, 12, 7])
    results, kept = [], []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        alive = weakref.WeakSet()

        def keep(tensor, alive=alive):
            if tensor.dim() == 2 and tensor.shape[1] == 4 * 64 and not isinstance(tensor, nn.Parameter):
                alive.add(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model(character_ids=ids)
        kept.append(len(alive))
        results.append([output.last_hidden_state, *gradients_of([output.last_hidden_state], list(model.parameters()))])
    # The gates of all words: of two layers in two directions.
    assert kept == [4, 0]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_graph_that_is_kept_can_be_walked_again():
    layer = layer_of().double()
    packing = Packing.from_mask(mask_of([5, 3]))
    inputs, hidden, cell = arguments_for(layer, packing)
    loss = weighted_sum(Alone(layer)(inputs, packing.batch_sizes, hidden, cell, True))
    first, second = (torch.autograd.grad(loss, [*layer.parameters(), inputs], retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_second_derivatives_are_refused():
    layer = layer_of().double()
    packing = Packing.from_mask(mask_of([3]))
    inputs, hidden, cell = arguments_for(layer, packing)
    outputs = Alone(layer)(inputs, packing.batch_sizes, hidden, cell, False)[0]
    (first,) = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_parametrised_and_hooked_weights():
    """As those that low-rank adapters add to: a weight is a tensor that was computed."""
    layer = layer_of().double()
    packing = Packing.from_mask(mask_of([5, 2]))
    arguments = arguments_for(layer, packing)
    inputs, hidden, cell = arguments
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight_hh.mul_(2)
    parametrize.register_parametrization(layer, "weight_hh", Doubled())
    seen = []
    layer.bias.register_hook(seen.append)
    assert unsupported_reason(inputs_of(layer, inputs, packing.batch_sizes, hidden, cell)) is None
    weighted_sum(Alone(layer)(inputs, packing.batch_sizes, hidden, cell, False)).backward()
    weighted_sum(other.read(inputs, packing.batch_sizes, hidden, cell, False)).backward()
    torch.testing.assert_close(layer.parametrizations.weight_hh.original.grad, 2 * other.weight_hh.grad)
    torch.testing.assert_close(seen, [other.bias.grad])


def test_transforms_of_torch_func_take_the_plain_path():
    layer = layer_of().double()
    packing = Packing.from_mask(mask_of([4, 4]))
    inputs, hidden, cell = arguments_for(layer, packing)
    parameters = {name: value.detach() for name, value in Alone(layer).named_parameters()}

    def loss(parameters, inputs):
        arguments = inputs, packing.batch_sizes, hidden.detach(), cell.detach(), False
        return functional_call(Alone(layer), parameters, arguments)[0].square().sum()

    expected = torch.autograd.grad(loss(dict(Alone(layer).named_parameters()), inputs), list(layer.parameters()))
    torch.testing.assert_close(list(grad(loss)(parameters, inputs.detach()).values()), list(expected))
    batch = torch.stack([inputs.detach(), 2 * inputs.detach()])
    per_example = vmap(grad(loss), (None, 0))(parameters, batch)
    torch.testing.assert_close([value[0] for value in per_example.values()], list(expected))
    # And with gradients that are wanted outside of the transform.
    assert vmap(lambda x: Alone(layer)(x, packing.batch_sizes, hidden, cell, False)[0])(batch).shape == (2, 8, 5)

    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs.detach(), torch.ones_like(inputs))
        outputs = Alone(layer)(dual, packing.batch_sizes, hidden, cell, False)[0]
        assert torch.autograd.forward_ad.unpack_dual(outputs).tangent is not None


def test_compilers_see_plain_operations():
    layer = layer_of().double()
    packing = Packing.from_mask(mask_of([3, 2]))
    inputs, hidden, cell = arguments_for(layer, packing)
    expected = layer.read(inputs, packing.batch_sizes, hidden, cell, False)
    compiled = torch.compile(Alone(layer).forward, backend="aot_eager", fullgraph=True)
    got = compiled(inputs, packing.batch_sizes, hidden, cell, False)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    tensors = [*layer.parameters(), inputs, hidden, cell]
    torch.testing.assert_close(gradients_of(got, tensors), gradients_of(expected, tensors), rtol=0, atol=1e-10)


def test_it_says_once_which_way_it_goes(caplog):
    layer = layer_of()
    packing = Packing.from_mask(mask_of([3, 2]))
    inputs, hidden, cell = arguments_for(layer, packing, dtype=torch.float32)
    logger = logging.getLogger(bilstm_module.__name__)
    type(bilstm_module.logger).info_once.cache_clear()
    with caplog.at_level(logging.INFO, logger.name):
        logger.addHandler(caplog.handler)
        try:
            for _ in range(2):
                Alone(layer)(inputs, packing.batch_sizes, hidden, cell, False)
                with torch.autocast("cpu", torch.bfloat16):
                    Alone(layer)(inputs, packing.batch_sizes, hidden, cell, False)
            with torch.no_grad():
                Alone(layer)(inputs, packing.batch_sizes, hidden, cell, False)
        finally:
            logger.removeHandler(caplog.handler)
    messages = {record.getMessage() for record in caplog.records if record.name == logger.name}
    assert len(messages) == 3
    assert any("run by the training path for CPUs" in message for message in messages)
    assert any("cells of torch.float32 are read under autocast to torch.bfloat16" in message for message in messages)
    assert any("run by the inference path for CPUs" in message for message in messages)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_onednn_it_is_torchs_own_products(dtype):
    layer = layer_of((64, 16), (3.0, 3.0)).to(dtype)
    packing = Packing.from_mask(mask_of([20, 18]))
    inputs, hidden, cell = arguments_for(layer, packing, dtype=dtype)
    results = []
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled):
            outputs = read_layer(layer, inputs, packing.batch_sizes, hidden, cell, False)
            results.append([*outputs, *gradients_of(outputs, [*layer.parameters(), inputs, hidden, cell])])
    for one, other in zip(*results, strict=True):
        assert (one - other).norm() <= (1e-5 if dtype == torch.float32 else 0.05) * other.norm()


@pytest.mark.skipif(not has_onednn(torch.empty(1)), reason="this torch has no oneDNN")
@pytest.mark.parametrize("backward", ["packed", "plain"])
def test_the_table_says_how_gradients_are_multiplied(backward):
    layer = layer_of((64, 16), (3.0, 3.0))
    packing = Packing.from_mask(mask_of([20, 18]))
    inputs, hidden, cell = arguments_for(layer, packing, dtype=torch.float32)
    made = []
    make = PRODUCTS["packed"]
    note = patch.dict(
        PRODUCTS, packed=lambda weight, transposed=False: made.append(transposed) or make(weight, transposed)
    )
    with forced(row_of("packed", "packed", backward=backward)), note:
        outputs = read_layer(layer, inputs, packing.batch_sizes, hidden, cell, False)
        ours = gradients_of(outputs, [*layer.parameters(), inputs, hidden, cell])
    # Of two weights, forward and, where it pays, backward.
    assert made == [False, False] + ([True, True] if backward == "packed" else [])
    expected = gradients_of(
        by_hand(layer, inputs, packing, hidden, cell, False), [*layer.parameters(), inputs, hidden, cell]
    )
    for one, other in zip(ours, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_tensors_may_lie_in_memory_as_they_like():
    """Transposed weights, a state that is one row seen several times, every other word of a larger tensor."""
    layer = layer_of((64, 16), (3.0, 3.0))
    for name, weight in list(layer.named_parameters()):
        if weight.dim() == 2:
            setattr(layer, name, nn.Parameter(weight.detach().t().contiguous().t()))
    packing = Packing.from_mask(mask_of([20, 20]))
    inputs = torch.randn(80, 16, generator=torch.Generator().manual_seed(0))[::2].requires_grad_()
    hidden, cell = (torch.full((1, size), 0.5).requires_grad_() for size in (16, 64))
    tensors = [*layer.parameters(), inputs, hidden, cell]
    state = hidden.expand(2, 16), cell.expand(2, 64)
    ours = read_layer(layer, inputs, packing.batch_sizes, *state, True)
    expected = layer.read(inputs, packing.batch_sizes, *state, True)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
    for one, other in zip(gradients_of(ours, tensors), gradients_of(expected, tensors), strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
