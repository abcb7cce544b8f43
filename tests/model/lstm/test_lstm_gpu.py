"""The biLM's Triton kernels against the plain layers: on a GPU if there is one, and under Triton's interpreter."""

import copy
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

from hf_elmo.model.lstm import lstm_gpu as lstm_triton
from hf_elmo.model.lstm.bilstm import BiLstm
from hf_elmo.model.lstm.lstm_layer import ElmoState
from hf_elmo.model.lstm.packing import Packing

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_triton = pytest.mark.skipif(lstm_triton.triton is None, reason="Triton is not installed")
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
    """A packing, words in both reading orders and a state, all random."""
    layer = bilstm.forward_layers[0]
    packing = Packing.from_mask(mask_of(lengths).to(DEVICE))
    generator = torch.Generator().manual_seed(seed)
    dim, dtype = layer.weight_hh.shape[1], layer.bias.dtype

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    forward, backward = draw(sum(lengths), dim), draw(sum(lengths), dim)
    shape = (2, len(bilstm.forward_layers), len(packing.rows))
    state = ElmoState(draw(*shape, dim), draw(*shape, layer.cell_size))
    return packing, (forward, backward.index_select(0, packing.mirror)), state


def expected(bilstm, packing, words, state):
    """What the plain layers make of the same, each direction by itself and in the order of the packing."""
    both = (words[0], words[1].index_select(0, packing.mirror))
    read = [
        bilstm.read_stack(side, both[side], packing.batch_sizes, state.hidden[side], state.cell[side])
        for side in range(2)
    ]
    layers = [torch.stack((a, b.index_select(0, packing.mirror))) for a, b in zip(read[0][0], read[1][0])]
    return [*layers, torch.stack((read[0][1], read[1][1])), torch.stack((read[0][2], read[1][2]))]


def got(bilstm, packing, words, state):
    assert lstm_triton.why_not(bilstm, words, packing.batch_sizes) is None
    layers, end = lstm_triton.read_both(bilstm, words, packing.batch_sizes, state)
    return [*layers, end.hidden, end.cell]


def double(bilstm, words, state):
    return (
        copy.deepcopy(bilstm).double(),
        tuple(x.double() for x in words),
        ElmoState(*(x.double() for x in state)),
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
            packing, words, state = inputs_for(bilstm, lengths, seed)
            with torch.no_grad():
                ours = got(bilstm, packing, words, state)
                plain, *exact_inputs = double(bilstm, words, state)
                for x, exact in zip(ours, expected(plain, packing, *exact_inputs), strict=True):
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
        packing, words, state = inputs_for(bilstm, lengths)
        with torch.no_grad():
            ours, plain = (run(bilstm, packing, words, state) for run in (got, expected))
            exact_model, *exact_inputs = double(bilstm, words, state)
            exact = expected(exact_model, packing, *exact_inputs)
        for x, y, z in zip(ours, plain, exact, strict=True):
            assert x.dtype == y.dtype
            assert error(x, z) < 1.5 * error(y, z) + 1e-3


@needs_triton
@on_device
def test_tf32_where_the_user_allows_it():
    bilstm = make(SIZES[-1])
    packing, words, state = inputs_for(bilstm, [3, 2, 2, 1, 1])
    with torch.no_grad():
        exact = [x.double() for x in got(bilstm, packing, words, state)]
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            errors = [error(x, y) for x, y in zip(got(bilstm, packing, words, state), exact, strict=True)]
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
    assert all(1e-6 < e < 3e-3 for e in errors), errors


@needs_triton
@on_device
@pytest.mark.parametrize("sizes", SIZES[:2])
def test_autocast(sizes):
    bilstm = make(sizes)
    packing, words, state = inputs_for(bilstm, [3, 2, 2, 1, 1])
    # The interpreter takes bfloat16 operands of a product for whole numbers.
    with torch.no_grad(), torch.autocast(DEVICE, dtype=torch.float16 if INTERPRETED else torch.bfloat16):
        ours, plain = (run(bilstm, packing, words, state) for run in (got, expected))
    for x, y in zip(ours, plain, strict=True):
        assert x.dtype == y.dtype
        assert error(x, y.double()) < 3e-2


@needs_triton
@on_device
@pytest.mark.parametrize("sizes", SIZES[:2])
def test_many_words_are_read_in_runs_of_steps(sizes, monkeypatch):
    bilstm = make(sizes)
    packing, words, state = inputs_for(bilstm, [6, 4, 4, 2, 1])
    with torch.no_grad():
        whole = got(bilstm, packing, words, state)
        monkeypatch.setattr(lstm_triton, "_WORDS_AT_ONCE", 7)
        for x, y in zip(got(bilstm, packing, words, state), whole, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=2e-6)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU, on which programs may race")
def test_the_same_every_time():
    bilstm = make(SIZES[-1])
    packing, words, state = inputs_for(bilstm, [4, 3, 3, 2, 1])
    with torch.no_grad():
        first = got(bilstm, packing, words, state)
        for _ in range(20):
            for x, y in zip(got(bilstm, packing, words, state), first, strict=True):
                assert torch.equal(x, y)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU")
def test_in_a_cuda_graph():
    bilstm = make((150, 72))
    packing, words, state = inputs_for(bilstm, [6, 5, 5, 3, 3, 2, 1])
    with torch.no_grad():
        first = got(bilstm, packing, words, state)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = got(bilstm, packing, words, state)
        for x in words:
            x.neg_()
        second = got(bilstm, packing, words, state)
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
    packing, words, state = inputs_for(bilstm, [3, 2])
    with torch.no_grad():
        before = got(bilstm, packing, words, state)
        bilstm.load_state_dict(other.state_dict())
        after = got(bilstm, packing, words, state)
        assert error(after[0], before[0].double()) > 0.1
        for x, y in zip(after, got(other, packing, words, state), strict=True):
            assert torch.equal(x, y)
        bilstm.backward_layers[1].weight_hr = nn.Parameter(before[0].new_zeros(5, 7))
        assert not got(bilstm, packing, words, state)[-2][1, 1].any()
        # Neither copies nor files hold packed weights.
        assert len(pickle.dumps(bilstm)) < 1.1 * len(pickle.dumps(other)) + 1000


@needs_triton
@on_device
def test_no_words():
    bilstm = make((40, 33))
    packing, words, state = inputs_for(bilstm, [])
    with torch.no_grad():
        layers, end = lstm_triton.read_both(bilstm, words, packing.batch_sizes, state)
    assert [x.shape for x in layers] == [(2, 0, 33)] * 2
    assert end.cell.shape == state.cell.shape


@pytest.mark.parametrize("device", ["cpu", DEVICE] if torch.cuda.is_available() else ["cpu"])
def test_the_plain_path(device, monkeypatch):
    """Taken for gradients, for float64 and without a GPU; it is the same computation."""
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", device)
    bilstm = make((7, 5), torch.float64)
    packing, words, state = inputs_for(bilstm, [3, 2, 2, 1, 1])
    assert lstm_triton.why_not(bilstm, words, packing.batch_sizes)
    layers, end = lstm_triton.read_both(bilstm, words, packing.batch_sizes, state)
    for x, y in zip([*layers, *end], expected(bilstm, packing, words, state), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    layers[-1].sum().backward()
    assert bilstm.backward_layers[0].weight_ih.grad.abs().sum() > 0
    bilstm.float()
    floats = tuple(x.float() for x in words)
    assert lstm_triton.why_not(bilstm, floats, packing.batch_sizes)
    with torch.no_grad():
        assert (lstm_triton.why_not(bilstm, floats, packing.batch_sizes) is None) == (device != "cpu" or INTERPRETED)


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_under_the_interpreter():
    """Everything above with the kernels run by Triton's interpreter, on the CPU."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert re.search(r"^2\d passed, \d skipped", run.stdout, re.MULTILINE), run.stdout[-3000:]
