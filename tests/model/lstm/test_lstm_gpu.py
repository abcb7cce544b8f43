"""The biLM's Triton kernels against the plain layers: on a GPU if there is one, and under Triton's interpreter."""

import copy
import dataclasses
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from places import CHECKOUT
from small_models import fill, mask_of, small_config
from torch import nn

from hf_elmo.model.lstm import lstm_gpu
from hf_elmo.model.lstm.bilstm import BiLstm
from hf_elmo.model.lstm.lstm_layer import ElmoState, LstmInputs, run
from hf_elmo.model.lstm.packing import Packing, Words

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_triton = pytest.mark.skipif(not lstm_gpu.has_triton(), reason="Triton is not installed")
on_device = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no GPU here; `test_under_the_interpreter` runs this in Triton's interpreter",
)

#: Cells and dim: of no and of full blocks, without projection, of several blocks of cells and slices.
SIZES = [(5, 5), (40, 33), (64, 32)] if INTERPRETED else [(7, 5), (5, 5), (150, 72), (1024, 128), (2100, 512)]
OPTIONS = [
    {},
    {"use_skip_connections": False, "num_layers": 3, "forget_bias": 0.0},
    {"cell_clip": None},
    {"proj_clip": None, "num_layers": 1},
]
few_sentences = st.lists(st.integers(1, 30), min_size=1, max_size=5)
#: Several blocks of columns.
many_sentences = st.lists(st.integers(1, 9), min_size=65, max_size=150)


def make(sizes, dtype=torch.float32, **options):
    config = small_config(cell_size=sizes[0], projection_dim=sizes[1], **options)
    return fill(BiLstm(config)).to(DEVICE, dtype)


def inputs_for(bilstm, lengths, seed=0):
    """Random words, others for each direction, and a random state."""
    layer = bilstm.forward_layers[0]
    packing = Packing.from_mask(mask_of(lengths).to(DEVICE))
    generator = torch.Generator().manual_seed(seed)
    dim, dtype = layer.weight_hh.shape[1], layer.bias.dtype

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    shape = (2, len(bilstm.forward_layers), len(packing.rows))
    mirror = packing.mirror
    return LstmInputs(
        layers=(tuple(bilstm.forward_layers), tuple(bilstm.backward_layers)),
        reverse=(False, True),
        words=(Words(draw(sum(lengths), dim)), Words(draw(sum(lengths), dim))),
        batch_sizes=packing.batch_sizes,
        state=ElmoState(draw(*shape, dim), draw(*shape, layer.cell_size)),
        use_skip_connections=bilstm.use_skip_connections,
        dropout=bilstm.dropout,
        mirror=lambda: mirror,
    )


def listed(outputs):
    return [*(torch.stack(pair) for pair in zip(*outputs.layers)), *outputs.state]


def expected(inputs):
    """What plain operations make of the same."""
    return listed(run(inputs))


def got(inputs):
    if not INTERPRETED:
        assert lstm_gpu.unsupported_reason(inputs) is None
    return listed(lstm_gpu.run(inputs))


def double(inputs):
    return dataclasses.replace(
        inputs,
        layers=tuple(tuple(copy.deepcopy(layer).double() for layer in layers) for layers in inputs.layers),
        words=tuple(Words(each.vectors.double()) for each in inputs.words),
        state=ElmoState(*(x.double() for x in inputs.state)),
    )


def error(x, exact):
    return float((x.double() - exact).norm() / exact.norm().clamp_min(1e-9))


@needs_triton
@on_device
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("sizes", SIZES)
def test_float32_is_exact(sizes, options):
    bilstm = make(sizes, **options)

    # The interpreter is slow.
    @settings(deadline=None, max_examples=20, phases=[Phase.explicit] if INTERPRETED else list(Phase))
    @given(few=few_sentences, many=many_sentences, seed=st.integers(0, 1000))
    @example([4, 2, 2, 1], [2] * 3 + [1] * 63, 0)
    def check(few, many, seed):
        for lengths in (few, many):
            inputs = inputs_for(bilstm, lengths, seed)
            with torch.no_grad():
                for x, exact in zip(got(inputs), expected(double(inputs)), strict=True):
                    assert x.dtype == torch.float32
                    torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-5)

    check()


@needs_triton
@on_device
@pytest.mark.parametrize("dtype", [torch.float16] if INTERPRETED else [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", SIZES[1:])
def test_16_bits_are_no_worse_than_plain(sizes, dtype):
    bilstm = make(sizes, dtype)
    for lengths in ([1], [5, 3, 3, 1], [2] * 5 + [1] * 13):
        inputs = inputs_for(bilstm, lengths)
        with torch.no_grad():
            ours, plain, exact = got(inputs), expected(inputs), expected(double(inputs))
        for x, y, z in zip(ours, plain, exact, strict=True):
            assert x.dtype == y.dtype
            assert error(x, z) < 1.5 * error(y, z) + 1e-3


@needs_triton
@on_device
def test_tf32_where_the_user_allows_it():
    bilstm = make(SIZES[-1])
    inputs = inputs_for(bilstm, [3, 2, 2, 1, 1])
    with torch.no_grad():
        exact = [x.double() for x in got(inputs)]
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            errors = [error(x, y) for x, y in zip(got(inputs), exact, strict=True)]
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
    # TF32 has the 10 bits of float16 behind the point: some, and at most three roundings of them.
    assert all(1e-6 < e < 3 * 2**-10 for e in errors), errors


@needs_triton
@on_device
@pytest.mark.parametrize("sizes", SIZES[:2])
def test_autocast(sizes):
    bilstm = make(sizes)
    inputs = inputs_for(bilstm, [3, 2, 2, 1, 1])
    # The interpreter takes bfloat16 operands of a product for whole numbers.
    with torch.no_grad(), torch.autocast(DEVICE, dtype=torch.float16 if INTERPRETED else torch.bfloat16):
        ours, plain = got(inputs), expected(inputs)
    with torch.no_grad():
        exact = expected(double(inputs))
    for x, y, z in zip(ours, plain, exact, strict=True):
        assert x.dtype == y.dtype
        assert error(x, z) < 1.5 * error(y, z) + 1e-3


@needs_triton
@on_device
@pytest.mark.parametrize("sizes", SIZES[:2])
def test_many_words_are_read_in_runs_of_steps(sizes, monkeypatch):
    bilstm = make(sizes)
    inputs = inputs_for(bilstm, [6, 4, 4, 2, 1])
    with torch.no_grad():
        whole = got(inputs)
        monkeypatch.setattr(lstm_gpu, "_WORDS_AT_ONCE", 7)
        for x, y in zip(got(inputs), whole, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=2e-6)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU, on which programs may race")
def test_the_same_every_time():
    bilstm = make(SIZES[-1])
    inputs = inputs_for(bilstm, [4, 3, 3, 2, 1])
    with torch.no_grad():
        first = got(inputs)
        for _ in range(20):
            for x, y in zip(got(inputs), first, strict=True):
                assert torch.equal(x, y)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU")
def test_in_a_cuda_graph():
    bilstm = make((150, 72))
    inputs = inputs_for(bilstm, [6, 5, 5, 3, 3, 2, 1])
    with torch.no_grad():
        first = got(inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = got(inputs)
        for each in inputs.words:
            each.vectors.neg_()
        second = got(inputs)
        for _ in range(2):
            graph.replay()
            for x, y in zip(outputs, second, strict=True):
                assert torch.equal(x, y)
    assert error(first[0], second[0].double()) > 0.1


@needs_triton
@on_device
def test_changed_weights_are_seen():
    bilstm = make((7, 5))
    other = fill(BiLstm(small_config(cell_size=7, projection_dim=5)), seed=1).to(DEVICE)
    inputs = inputs_for(bilstm, [3, 2])
    with torch.no_grad():
        before = got(inputs)
        bilstm.load_state_dict(other.state_dict())
        after = got(inputs)
        assert error(after[0], before[0].double()) > 0.1
        for x, y in zip(after, got(inputs_for(other, [3, 2])), strict=True):
            assert torch.equal(x, y)
        bilstm.backward_layers[1].weight_hr = nn.Parameter(before[0].new_zeros(5, 7))
        assert not got(inputs)[-2][1, 1].any()
        before = got(inputs)
        bilstm.forward_layers[0].forget_bias = -2.0
        assert error(got(inputs)[0], before[0].double()) > 1e-3
        # Neither copies nor files hold packed weights.
        assert len(pickle.dumps(bilstm)) < 1.1 * len(pickle.dumps(other)) + 1000


@pytest.mark.parametrize("device", ["cpu", DEVICE] if torch.cuda.is_available() else ["cpu"])
def test_what_is_refused(device, monkeypatch):
    """Gradients, float64, words elsewhere than on a GPU, one direction alone."""
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", device)
    bilstm = make((7, 5), torch.float64)
    inputs = inputs_for(bilstm, [3, 2, 2, 1, 1])
    assert lstm_gpu.unsupported_reason(inputs)
    outputs, _ = bilstm(torch.randn(9, 5, dtype=torch.float64, device=device), Packing.from_mask(mask_of([9])))
    outputs[-1].sum().backward()
    assert bilstm.backward_layers[0].weight_ih.grad.abs().sum() > 0
    bilstm.float()
    inputs = inputs_for(bilstm, [3, 2, 2, 1, 1])
    assert lstm_gpu.unsupported_reason(inputs)
    one = dataclasses.replace(inputs, layers=inputs.layers[:1], words=inputs.words[:1])
    with torch.no_grad():
        assert (lstm_gpu.unsupported_reason(inputs) is None) == (device != "cpu")
        assert lstm_gpu.unsupported_reason(one)


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_under_the_interpreter():
    """Everything above with the kernels run by Triton's interpreter, on the CPU."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert re.search(r"^(1|2)\d passed, \d skipped", run.stdout, re.MULTILINE), run.stdout[-3000:]
