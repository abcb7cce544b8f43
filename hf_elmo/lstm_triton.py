"""The biLM's LSTMs on a GPU: one kernel per layer reads all words in both directions.

A step of a layer reads all of its weights and uses each for a handful of sentences, so what counts is that the memory
never rests. The kernel is persistent: as many programs as the GPU runs at once, half of them for each direction, go
through the time steps together, and a barrier among the programs of a direction stands for the end of a launch. A step
has three phases:

1. Gates: the input's share (one matrix product for all words, made before) plus ``W_hh h``, the four gates, the cell
   clip and the output gate. A program owns some cells, and all four gates of them.
2. Projection: ``W_hr`` times the outputs of all cells. To occupy every program the sum over the cells is cut into
   slices, whose results lie side by side in memory: no atomic additions, so results do not vary from run to run.
3. The slices are added up, in order, and the projection clip falls on their sum.

Weights are the left operand and sentences the columns: tensor cores work on 64 rows at a time, and a batch may have
only one sentence. Sums are float32 throughout, as are cells. Lengths are data: nothing is compiled or captured anew for
another length or batch, but for the block of columns (16, 32, 64 or 128).

float32 weights are exact unless `torch.backends.cuda.matmul.allow_tf32` is set: both factors are split into two TF32
numbers, and three of the four products are added, the rounding errors being around 2e-7 of the product.

`_gates_step` and its neighbours are the phases as kernels of their own, for Triton's interpreter, which runs programs
one after the other and so cannot have them wait for each other.
"""

from __future__ import annotations

import os
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.utils import logging

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

if TYPE_CHECKING:
    from .bilstm import BiLstm, ElmoState

logger = logging.get_logger(__name__)

#: Triton has no GPU here, and runs its programs one by one in Python.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: The input's share of the gates is computed for about so many words at a time.
_WORDS_AT_ONCE = 8192
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

if triton is not None:

    @triton.jit
    def _high(x):
        """The part of a float32 number that TF32 can hold."""
        return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)

    @triton.jit
    def _add_product(acc, weights, high, low, PRECISION: tl.constexpr):
        if PRECISION == "split":
            weights_high = _high(weights)
            acc = tl.dot(weights - weights_high, high, acc, input_precision="tf32")
            acc = tl.dot(weights_high, low, acc, input_precision="tf32")
            acc = tl.dot(weights_high, high, acc, input_precision="tf32")
        else:
            acc = tl.dot(weights, high, acc, input_precision=PRECISION)
        return acc

    @triton.jit
    def _put_parts(parts, size, where, x, mask, PRECISION: tl.constexpr):
        """Stores a right operand of `_add_product`."""
        if PRECISION == "split":
            high = _high(x)
            tl.store(parts + where, high, mask=mask)
            tl.store(parts + size + where, x - high, mask=mask)
        else:
            tl.store(parts + where, x.to(parts.dtype.element_ty), mask=mask)

    @triton.jit
    def _load_block(pointers, rows, columns, EVEN: tl.constexpr, SHARED: tl.constexpr):
        """A block of a matrix, zeros outside of it. SHARED: other programs wrote it, so this one's L1 may be stale."""
        modifier: tl.constexpr = ".cg" if SHARED else ""
        if EVEN:
            return tl.load(pointers, cache_modifier=modifier)
        return tl.load(pointers, mask=rows[:, None] & columns[None, :], other=0.0, cache_modifier=modifier)

    @triton.jit
    def _tanh(x):
        # Exact for large |x| too, where exp overflows to infinity.
        e = tl.exp(-2 * tl.abs(x))
        t = (1 - e) / (1 + e)
        small = x * (1 - x * x * (1 / 3))
        return tl.where(tl.abs(x) < 0.01, small, tl.where(x < 0, -t, t))

    @triton.jit
    def _sigmoid(x):
        return 1 / (1 + tl.exp(-x))

    @triton.jit
    def _gates_tile(
        tile, direction, t, start, n, share, begin, end, hidden, w_hh, cell, cells_out, out, words, batch, cell_clip,
        CELLS: tl.constexpr, DIM: tl.constexpr, PROJECTS: tl.constexpr, CLIPS_CELL: tl.constexpr,
        PRECISION: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
        BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
    ):  # fmt: skip
        """One step of some cells of some sentences."""
        columns = tl.cdiv(n, BLOCK_N)
        c = (tile // columns) * BLOCK_C + tl.arange(0, BLOCK_C)
        s = (tile % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
        k = tl.arange(0, BLOCK_K)
        here = (c < CELLS)[:, None] & (s < n)[None, :]
        shares = share + ((direction * (end - begin) + start - begin + s)[None, :].to(tl.int64) * (4 * CELLS) + c[:, None])
        i = tl.load(shares, mask=here, other=0.0).to(tl.float32)
        f = tl.load(shares + CELLS, mask=here, other=0.0).to(tl.float32)
        g = tl.load(shares + 2 * CELLS, mask=here, other=0.0).to(tl.float32)
        o = tl.load(shares + 3 * CELLS, mask=here, other=0.0).to(tl.float32)
        # Two slots of hidden state, since others still read the last step's while one writes this step's.
        size = batch * DIM
        state = hidden + (((t + 1) % 2) * 2 + direction) * PARTS * size
        weights = w_hh + (direction * 4 * CELLS + c)[:, None].to(tl.int64) * DIM + k[None, :]
        right = state + s[None, :] * DIM + k[:, None]
        EVEN: tl.constexpr = CELLS % BLOCK_C == 0 and DIM % BLOCK_K == 0
        for start_k in tl.range(0, DIM, BLOCK_K, num_stages=STAGES):
            inside = start_k + k < DIM
            high = _load_block(right + start_k, inside, s < n, False, True)
            low = high
            if PRECISION == "split":
                low = _load_block(right + size + start_k, inside, s < n, False, True)
            w = weights + start_k
            i = _add_product(i, _load_block(w, c < CELLS, inside, EVEN, False), high, low, PRECISION)
            f = _add_product(
                f, _load_block(w + CELLS * DIM, c < CELLS, inside, EVEN, False), high, low, PRECISION
            )
            g = _add_product(
                g, _load_block(w + 2 * CELLS * DIM, c < CELLS, inside, EVEN, False), high, low, PRECISION
            )
            o = _add_product(
                o, _load_block(w + 3 * CELLS * DIM, c < CELLS, inside, EVEN, False), high, low, PRECISION
            )
        where = cell + (direction * batch + s)[None, :] * CELLS + c[:, None]
        new = _sigmoid(f) * tl.load(where, mask=here, other=0.0) + _sigmoid(i) * _tanh(g)
        if CLIPS_CELL:
            new = tl.minimum(tl.maximum(new, -cell_clip), cell_clip)
        tl.store(where, new, mask=here)
        y = _sigmoid(o) * _tanh(new)
        if PROJECTS:
            into = cells_out + direction * PARTS * batch * CELLS
            _put_parts(into, batch * CELLS, s[None, :] * CELLS + c[:, None], y, here, PRECISION)
        else:
            row = (direction * words + start + s)[None, :].to(tl.int64) * DIM
            tl.store(out + row + c[:, None], y.to(out.dtype.element_ty), mask=here)
            into = hidden + ((t % 2) * 2 + direction) * PARTS * size
            _put_parts(into, size, s[None, :] * DIM + c[:, None], y, here, PRECISION)

    @triton.jit
    def _projection_tile(
        tile, direction, n, cells_out, w_hr, slices, batch,
        CELLS: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr, PARTS: tl.constexpr, SLICES: tl.constexpr,
        SLICE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
    ):  # fmt: skip
        """Some rows of the projection of some sentences, summed over one slice of the cells."""
        columns = tl.cdiv(n, BLOCK_N)
        s = (tile % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
        part = (tile // columns) % SLICES
        p = (tile // columns // SLICES) * BLOCK_P + tl.arange(0, BLOCK_P)
        k = part * SLICE + tl.arange(0, BLOCK_K)
        size = batch * CELLS
        weights = w_hr + (direction * DIM + p)[:, None] * CELLS + k[None, :]
        right = cells_out + direction * PARTS * size + s[None, :] * CELLS + k[:, None]
        acc = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
        EVEN: tl.constexpr = DIM % BLOCK_P == 0 and SLICE % BLOCK_K == 0 and SLICES * SLICE == CELLS
        for start_k in tl.range(0, SLICE, BLOCK_K, num_stages=STAGES):
            inside = start_k + k < CELLS
            high = _load_block(right + start_k, inside, s < n, False, True)
            low = high
            if PRECISION == "split":
                low = _load_block(right + size + start_k, inside, s < n, False, True)
            w = _load_block(weights + start_k, p < DIM, inside, EVEN, False)
            acc = _add_product(acc, w, high, low, PRECISION)
        where = slices + ((direction * SLICES + part) * batch + s)[None, :] * DIM + p[:, None]
        tl.store(where, acc, mask=(p < DIM)[:, None] & (s < n)[None, :])

    @triton.jit
    def _sum_tile(
        tile, direction, t, start, n, slices, hidden, out, words, batch, proj_clip,
        DIM: tl.constexpr, CLIPS_PROJ: tl.constexpr, PRECISION: tl.constexpr, PARTS: tl.constexpr,
        SLICES: tl.constexpr, BLOCK_E: tl.constexpr,
    ):  # fmt: skip
        """Some elements of the step's hidden state."""
        e = tile * BLOCK_E + tl.arange(0, BLOCK_E)
        here = e < n * DIM
        size = batch * DIM
        part = tl.arange(0, SLICES)
        terms = tl.load(
            slices + direction * SLICES * size + part[:, None] * size + e[None, :],
            mask=here[None, :],
            other=0.0,
            cache_modifier=".cg",
        )
        h = tl.sum(terms, axis=0)
        if CLIPS_PROJ:
            h = tl.minimum(tl.maximum(h, -proj_clip), proj_clip)
        first = (direction * words + start).to(tl.int64) * DIM
        tl.store(out + first + e, h.to(out.dtype.element_ty), mask=here)
        # What is carried on is what a step-by-step computation in the output's dtype would carry on.
        _put_parts(hidden + ((t % 2) * 2 + direction) * PARTS * size, size, e, h, here, PRECISION)

    @triton.jit
    def _barrier(counter, target, BARRIER: tl.constexpr):
        """Waits until `target` programs in all have come here since the counter was zero."""
        tl.debug_barrier()
        tl.atomic_add(counter, 1, sem="release", scope="gpu")
        if BARRIER == 0:
            while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
                pass
        else:
            arrived = target - 1
            while arrived < target:
                arrived = tl.inline_asm_elementwise(
                    "ld.acquire.gpu.global.u32 $0, [$1];", "=r,l", [counter], dtype=tl.int32, is_pure=False, pack=1
                )
        tl.debug_barrier()

    @triton.jit(do_not_specialize=["first", "last", "begin", "end", "words", "batch", "cell_clip", "proj_clip"])
    def _layer(
        first, last, starts, counters, share, begin, end, hidden, w_hh, cell, cells_out, w_hr, slices, out, words,
        batch, cell_clip, proj_clip,
        CELLS: tl.constexpr, DIM: tl.constexpr, PROJECTS: tl.constexpr, CLIPS_CELL: tl.constexpr,
        CLIPS_PROJ: tl.constexpr, PRECISION: tl.constexpr, PARTS: tl.constexpr, SLICES: tl.constexpr,
        SLICE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
        BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr, STAGES: tl.constexpr,
        PHASE: tl.constexpr, BARRIER: tl.constexpr,
    ):  # fmt: skip
        """Steps `first` to `last` of both directions of a layer, PHASE of them or (0) all; `share` is that of the words
        `begin` to `end`. For all phases the programs must run at the same time."""
        direction = tl.program_id(0) % 2
        worker = tl.program_id(0) // 2
        workers = tl.num_programs(0) // 2
        counter = counters + direction * 32
        target = 0
        # `while`, not `range`: the interpreter fails on bounds that are data with NumPy 2.4.
        t = first
        while t < last:
            start = tl.load(starts + t)
            n = tl.load(starts + t + 1) - start
            columns = tl.cdiv(n, BLOCK_N)
            if PHASE == 0 or PHASE == 1:
                tile = worker
                while tile < tl.cdiv(CELLS, BLOCK_C) * columns:
                    _gates_tile(
                        tile, direction, t, start, n, share, begin, end, hidden, w_hh, cell, cells_out, out, words, batch,
                        cell_clip, CELLS, DIM, PROJECTS, CLIPS_CELL, PRECISION, PARTS, BLOCK_N, BLOCK_C, BLOCK_K, STAGES,
                    )  # fmt: skip
                    tile += workers
            if PHASE == 0:
                target += workers
                _barrier(counter, target, BARRIER)
            if PROJECTS:
                if PHASE == 0 or PHASE == 2:
                    tile = worker
                    while tile < tl.cdiv(DIM, BLOCK_P) * SLICES * columns:
                        _projection_tile(
                            tile, direction, n, cells_out, w_hr, slices, batch,
                            CELLS, DIM, PRECISION, PARTS, SLICES, SLICE, BLOCK_N, BLOCK_P, BLOCK_K, STAGES,
                        )  # fmt: skip
                        tile += workers
                if PHASE == 0:
                    target += workers
                    _barrier(counter, target, BARRIER)
                if PHASE == 0 or PHASE == 3:
                    tile = worker
                    while tile < tl.cdiv(n * DIM, BLOCK_E):
                        _sum_tile(
                            tile, direction, t, start, n, slices, hidden, out, words, batch, proj_clip,
                            DIM, CLIPS_PROJ, PRECISION, PARTS, SLICES, BLOCK_E,
                        )  # fmt: skip
                        tile += workers
                if PHASE == 0:
                    target += workers
                    _barrier(counter, target, BARRIER)
            t += 1


class _Weights(NamedTuple):
    """Both directions of a layer, in the dtype of the products."""

    weight_ih: tuple[Tensor, Tensor]
    bias: tuple[Tensor, Tensor]
    weight_hh: Tensor
    weight_hr: Tensor | None


#: Of each biLM its packed weights, and the parameters' places and versions that they were made of.
_packed: WeakKeyDictionary = WeakKeyDictionary()


def _weights(bilstm: BiLstm, depth: int, dtype: torch.dtype) -> _Weights:
    """The packed weights of a layer, made anew if a parameter has been changed or moved."""
    layers = (bilstm.forward_layers[depth], bilstm.backward_layers[depth])
    parameters = [p for layer in layers for p in layer.parameters()]
    # An inference tensor has no version, so whether it was changed cannot be known.
    known = not any(p.is_inference() for p in parameters)
    made_of = [(p.data_ptr(), p._version) for p in parameters] + [layer.forget_bias for layer in layers] if known else None
    held = _packed.setdefault(bilstm, {})
    if known and (depth, dtype) in held and held[depth, dtype][0] == made_of:
        return held[depth, dtype][1]
    with torch.no_grad():
        biases = []
        for layer in layers:
            bias = layer.bias.clone()
            bias[layer.cell_size : 2 * layer.cell_size] += layer.forget_bias
            biases.append(bias.to(dtype))
        weights = _Weights(
            weight_ih=tuple(layer.weight_ih.detach().to(dtype) for layer in layers),
            bias=tuple(biases),
            weight_hh=torch.stack([layer.weight_hh.detach().to(dtype) for layer in layers]),
            weight_hr=None
            if layers[0].weight_hr is None
            else torch.stack([layer.weight_hr.detach().to(dtype) for layer in layers]),
        )
    # One dtype is held at a time: autocast switched on and off is rarer than memory is short.
    held.clear() if any(key[1] != dtype for key in held) else None
    held[depth, dtype] = (made_of, weights)
    return weights


def _power_of_two(x: int, least: int, most: int) -> int:
    """The smallest power of two that is not below `x`, within bounds that are powers of two."""
    return min(max(triton.next_power_of_2(x), least), most)


def _blocks(cells: int, dim: int, batch: int, dtype: torch.dtype, programs: int) -> dict:
    """Block sizes: at original size one block of 64 cells, and one of the projection, for each program."""
    half = max(programs // 2, 1)
    block_k = 32 if dtype == torch.float32 else 64
    block_n = _power_of_two(batch, 16, 64)
    block_p = _power_of_two(triton.cdiv(dim, 8), 16, 64)
    slices = max(1, half // triton.cdiv(dim, block_p))
    slices = min(1 << (slices.bit_length() - 1), 16, max(1, cells // block_k))
    slices = 1 << (slices.bit_length() - 1)
    return {
        "BLOCK_N": block_n,
        "BLOCK_C": _power_of_two(triton.cdiv(cells, half), 16, 64),
        "BLOCK_P": block_p,
        "BLOCK_K": block_k,
        "BLOCK_E": 512,
        "SLICES": slices,
        "SLICE": triton.cdiv(triton.cdiv(cells, slices), block_k) * block_k,
        "STAGES": 4,
        "BARRIER": 0,
        "num_warps": 4,
    }


def _precision(dtype: torch.dtype) -> str:
    """How `_add_product` multiplies."""
    if dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return "split"


class _Steps(NamedTuple):
    """Where the words of each step are.

    Attributes:
        starts: The first word of each step, and the number of all words.
        on_device: The same.
        last: ``(sentences,)``: each sentence's last word.
    """

    starts: list[int]
    on_device: Tensor
    last: Tensor

    @classmethod
    def of(cls, batch_sizes: list[int], device: torch.device) -> _Steps:
        starts = [0, *accumulate(batch_sizes)]
        last = [0] * batch_sizes[0]
        for start, n, following in zip(starts, batch_sizes, [*batch_sizes[1:], 0]):
            last[following:n] = range(start + following, start + n)
        return cls(
            starts,
            torch.tensor(starts, dtype=torch.int32, device=device),
            torch.tensor(last, dtype=torch.long, device=device),
        )

    def chunks(self) -> list[tuple[int, int]]:
        """Runs of steps ``(first, end)`` of about `_WORDS_AT_ONCE` words."""
        ends, first = [], 0
        for t in range(1, len(self.starts)):
            if t == len(self.starts) - 1 or self.starts[t + 1] - self.starts[first] > _WORDS_AT_ONCE:
                ends.append((first, t))
                first = t
        return ends


def _read_layer(
    layer, weights: _Weights, words: tuple[Tensor, Tensor], steps: _Steps, hidden: Tensor, cell: Tensor, out_dtype,
    persistent: bool, **blocks,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Both directions of one layer.

    Args:
        layer: One of the two, for its sizes and clips.
        weights: Of both.
        words: Of both, in their reading orders.
        steps: Of both.
        hidden: ``(2, sentences, projection_dim)``, the state to start from.
        cell: ``(2, sentences, cell_size)``, likewise.
        out_dtype: Of the outputs.
        persistent: One launch for all steps; else one for each phase of each step.
        blocks: Block sizes to use instead of those chosen.

    Returns:
        Outputs ``(2, all words, projection_dim)`` and, in float32, the last cells.
    """
    dtype, device = weights.weight_hh.dtype, words[0].device
    cells, dim = weights.weight_hh.shape[1] // 4, weights.weight_hh.shape[2]
    batch = hidden.shape[1]
    projects = weights.weight_hr is not None
    precision = _precision(dtype)
    parts = 2 if precision == "split" else 1
    programs = 4 if _INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count
    blocks = _blocks(cells, dim, batch, dtype, programs) | blocks
    slices = blocks["SLICES"] if projects else 1
    out = torch.empty(2, steps.starts[-1], dim, dtype=out_dtype, device=device)
    cell = cell.to(torch.float32, copy=True).contiguous()
    carried = torch.empty(2, 2, parts, batch, dim, dtype=dtype, device=device)
    hidden = hidden.to(dtype)
    if parts == 2:
        high = (hidden.contiguous().view(torch.int32) & -8192).view(torch.float32)
        carried[1, :, 0], carried[1, :, 1] = high, hidden - high
    else:
        carried[1, :, 0] = hidden
    cells_out = torch.empty(2, parts, batch, cells if projects else 0, dtype=dtype, device=device)
    sums = torch.empty(2, slices, batch, dim if projects else 0, dtype=torch.float32, device=device)
    counters = torch.zeros(2, 32, dtype=torch.int32, device=device)
    widest = triton.cdiv(cells, blocks["BLOCK_C"]) * triton.cdiv(batch, blocks["BLOCK_N"])
    grid = (2 * min(programs // 2, widest),)

    def launch(first: int, last: int, share: Tensor, begin: int, end: int, phase: int, **options) -> None:
        _layer[grid](
            first, last, steps.on_device, counters, share, begin, end, carried, weights.weight_hh, cell, cells_out,
            weights.weight_hr if projects else weights.weight_hh, sums, out, len(words[0]), batch,
            layer.cell_clip or 0.0, layer.proj_clip or 0.0,
            CELLS=cells, DIM=dim, PROJECTS=projects, CLIPS_CELL=layer.cell_clip is not None,
            CLIPS_PROJ=layer.proj_clip is not None, PRECISION=precision, PARTS=parts, PHASE=phase, **blocks, **options,
        )  # fmt: skip

    for first, last in steps.chunks():
        begin, end = steps.starts[first], steps.starts[last]
        share = torch.empty(2, end - begin, 4 * cells, dtype=dtype, device=device)
        for direction in range(2):
            x, weight = words[direction][begin:end], weights.weight_ih[direction]
            torch.addmm(weights.bias[direction], x, weight.t(), out=share[direction])
        if persistent:
            counters.zero_()
            launch(first, last, share, begin, end, 0, launch_cooperative_grid=True)
        else:
            for t in range(first, last):
                for phase in (1, 2, 3) if projects else (1,):
                    launch(t, t + 1, share, begin, end, phase)
    return out, cell


def why_not(bilstm: BiLstm, words: tuple[Tensor, Tensor], batch_sizes: list[int]) -> str | None:
    """Why `read_both` would take the plain path here; None if it would not."""
    weight = bilstm.forward_layers[0].weight_hh
    if triton is None:
        return "Triton is not installed"
    if not (words[0].is_cuda or _INTERPRETED):
        return f"the words are on {words[0].device}"
    if words[0].is_cuda and torch.cuda.get_device_capability(words[0].device) < (8, 0):
        return "the GPU is older than Ampere"
    if torch.is_grad_enabled() and (any(x.requires_grad for x in words) or weight.requires_grad):
        return "gradients are recorded"
    if _compute_dtype(bilstm, words[0]) not in _DTYPES:
        return f"the weights are {weight.dtype}"
    if batch_sizes and batch_sizes[0] * 4 * weight.shape[0] >= 2**31:
        return f"there are {batch_sizes[0]} sentences"
    return None


def _compute_dtype(bilstm: BiLstm, words: Tensor) -> torch.dtype:
    """That of the matrix products."""
    kind = words.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else bilstm.forward_layers[0].weight_hh.dtype


def read_both(
    bilstm: BiLstm, words: tuple[Tensor, Tensor], batch_sizes: list[int], state: ElmoState
) -> tuple[list[Tensor], ElmoState]:
    """Reads packed sentences in both directions.

    Args:
        bilstm: The layers.
        words: For the forward and for the backward direction ``(all words, projection_dim)``, each packed in the order
            in which its direction reads (`Packing.mirror`).
        batch_sizes: Number of sentences at each time step; falls.
        state: The state to start from, in packed order.

    Returns:
        Per layer the outputs ``(2, all words, projection_dim)`` in the orders of `words`, and the state after each
        sentence's last word, in packed order.
    """
    reason = why_not(bilstm, words, batch_sizes)
    if reason is not None:
        logger.warning_once(f"The LSTMs run step by step, because {reason}.")
        return _read_plainly(bilstm, words, batch_sizes, state)
    logger.info_once("The LSTMs run in Triton kernels, one for each layer.")
    if not batch_sizes:
        return [torch.stack(words) for _ in bilstm.forward_layers], state
    dtype = _compute_dtype(bilstm, words[0])
    cell_dtype = torch.promote_types(dtype, state.cell.dtype)
    projects = bilstm.forward_layers[0].weight_hr is not None
    out_dtype = dtype if projects else cell_dtype
    steps = _Steps.of(batch_sizes, words[0].device)
    outputs, last_hidden, last_cell = [], [], []
    x = words
    with torch.no_grad(), torch.autocast(words[0].device.type, enabled=False):
        for depth, layer in enumerate(bilstm.forward_layers):
            x = tuple(bilstm.dropout(one) for one in x)
            y, cell = _read_layer(
                layer,
                _weights(bilstm, depth, dtype),
                tuple(one.to(dtype) for one in x),
                steps,
                state.hidden[:, depth],
                state.cell[:, depth],
                out_dtype,
                persistent=not _INTERPRETED,
            )
            last_hidden.append(y.index_select(1, steps.last))
            last_cell.append(cell.to(cell_dtype))
            if bilstm.use_skip_connections and depth > 0:
                y = torch.stack(x) + y
            outputs.append(y)
            x = tuple(y)
    return outputs, type(state)(torch.stack(last_hidden, dim=1), torch.stack(last_cell, dim=1))


def _read_plainly(bilstm, words, batch_sizes, state):
    """`read_both` in terms of `LstmLayer.forward`."""
    x, outputs, last_hidden, last_cell = words, [], [], []
    for depth, pair in enumerate(zip(bilstm.forward_layers, bilstm.backward_layers)):
        x = tuple(bilstm.dropout(one) for one in x)
        y, hidden, cell = zip(
            *(
                layer(x[d], batch_sizes, state.hidden[d, depth], state.cell[d, depth], reverse=False)
                for d, layer in enumerate(pair)
            )
        )
        if bilstm.use_skip_connections and depth > 0:
            y = tuple(a + b for a, b in zip(x, y))
        outputs.append(torch.stack(y))
        last_hidden.append(torch.stack(hidden))
        last_cell.append(torch.stack(cell))
        x = y
    return outputs, type(state)(torch.stack(last_hidden, dim=1), torch.stack(last_cell, dim=1))
