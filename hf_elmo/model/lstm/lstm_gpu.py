"""The biLM's LSTMs on a GPU: one kernel for each layer reads all words in both directions.

A step of a layer reads all of its weights and uses each for a handful of sentences, so what counts is that the memory
never rests. The kernel is persistent: one program on each multiprocessor, half of them for each direction, go through
the time steps together, and a barrier among the programs of a direction stands where a launch would end. A step has
three phases:

1. Gates: the input's share (one matrix product for all words, made before) plus ``W_hh h``, the four gates, the cell
   clip and the output gate. A program has some cells, and all four gates of them.
2. Projection: ``W_hr`` times the outputs of all cells. To occupy every program the sum over the cells is cut into
   slices, whose sums lie side by side in memory. (Atomic additions would save a phase, and results would vary.)
3. The slices' sums are added up, in order, and the projection clip falls on the total.

Layers follow one another. To read layer 1 one step behind layer 0 would halve the barriers, but layer 1 would then have
to read its input weights in every step, and both layers' weights (at original size in bfloat16 84 MB and not 42) are
more than an L2 cache holds.

Weights are the left operand and sentences the columns: tensor cores work on 64 rows at a time, and a batch may be one
sentence. Sums, gates and cells are float32 throughout. Lengths are data, so that nothing is compiled or captured for
them: there is one compilation for each dtype and block of columns (16, 32 or 64 sentences).

float32 products are as good as float32's own unless `torch.backends.cuda.matmul.allow_tf32` is set: both factors are
split into two TF32 numbers, of whose four products the least is left out.

Triton's interpreter runs one program after the other, so that none can wait for another: there each direction has one
program.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..fingerprint import Fingerprint, only_plain_operations_reason
from .lstm_layer import ElmoState, LstmInputs, LstmLayer, LstmOutputs, not_bare_reason

#: Triton runs programs one by one in Python, on tensors of any device.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: The input's part of the gates is computed for about this many words at a time.
_WORDS_AT_ONCE = 8192


class _Weights(NamedTuple):
    """Both directions of a layer, in the dtype of the products."""

    transposed_ih: tuple[Tensor, Tensor]
    bias: tuple[Tensor, Tensor]
    weight_hh: Tensor
    weight_hr: Tensor | None


#: What CUDA graphs read at each replay.
_captured: list[Tensor] = []
#: For the forward direction of each layer, what its packed weights were made of, and the weights.
_packed: WeakKeyDictionary[nn.Module, tuple[Fingerprint, _Weights]] = WeakKeyDictionary()


def _nearest_tf32(x: Tensor) -> Tensor:
    """`_nearest`."""
    return ((x.contiguous().view(torch.int32) + 4096) & -8192).view(torch.float32)


def _weights(layers: tuple[LstmLayer, LstmLayer], dtype: torch.dtype, split: bool) -> _Weights:
    """The packed weights of both directions of a layer, made anew if a parameter was changed or moved."""
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    settings = dtype, split, *(layer.forget_bias for layer in layers)
    made_of = None
    # Whether an inference tensor was changed cannot be known.
    if not any(parameter.is_inference() for parameter in parameters):
        kept = _packed.get(layers[0])
        if kept is not None and kept[0].matches(parameters, *settings):
            return kept[1]
        made_of = Fingerprint(parameters, *settings)

    def both(name: str) -> Tensor:
        stacked = torch.stack([getattr(layer, name).detach().to(dtype) for layer in layers])
        return stacked if split or dtype != torch.float32 else _nearest_tf32(stacked)

    biases = []
    for layer in layers:
        bias = layer.bias.detach().clone()
        bias[layer.cell_size : 2 * layer.cell_size] += layer.forget_bias
        biases.append(bias.to(dtype))
    forward_ih, backward_ih = (layer.weight_ih.detach().to(dtype).t() for layer in layers)
    weights = _Weights(
        transposed_ih=(forward_ih, backward_ih),
        bias=(biases[0], biases[1]),
        weight_hh=both("weight_hh"),
        weight_hr=None if layers[0].weight_hr is None else both("weight_hr"),
    )
    if made_of is None:
        _packed.pop(layers[0], None)
    else:
        _packed[layers[0]] = made_of, weights
    return weights


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(x: int, least: int, most: int) -> int:
    """The smallest power of two that is not below `x`, within bounds."""
    return min(max(1 << (x - 1).bit_length(), least), most)


@lru_cache(maxsize=256)
def _blocks(
    cells: int, dim: int, batch: int, dtype: torch.dtype, split: bool, programs: int, shared: int
) -> dict[str, int]:
    """Sizes of blocks: at original size one block of cells, and one of the projection's sums, for each program.

    Args:
        cells: Cells of a layer.
        dim: Size of its output.
        batch: Number of sentences.
        dtype: Of the weights.
        split: Whether factors are split.
        programs: Number of programs.
        shared: Bytes of shared memory that a program has.
    """
    half = max(programs // 2, 1)
    size = dtype.itemsize
    block_n = _power_of_two(batch, 16, 64)
    block_c = _power_of_two(_cdiv(cells, half), 16, 64)
    block_p = _power_of_two(_cdiv(dim, 8), 16, 64)
    block_k = 128 // size
    slices = min(max(half // _cdiv(dim, block_p), 1), 16, max(cells // block_k, 1))
    slices = 1 << (slices.bit_length() - 1)
    slice_ = _cdiv(_cdiv(cells, slices), block_k) * block_k
    # The projection's blocks are smaller: twice as long ones keep as many bytes on the way.
    block_l = 2 * block_k if slice_ % (2 * block_k) == 0 and not split else block_k
    sentences = block_n * (2 if split else 1)
    stage = max((4 * block_c + sentences) * block_k, (block_p + sentences) * block_l) * size
    return {
        "SLICES": slices,
        "SLICE": slice_,
        "BLOCK_N": block_n,
        "BLOCK_C": block_c,
        "BLOCK_P": block_p,
        "BLOCK_K": block_k,
        "BLOCK_L": block_l,
        "BLOCK_E": 512,
        "STAGES": max(min(4, (shared - 16384) // stage), 1),
        "num_warps": 4 if split or block_n == 16 else 8,
    }


def _runs(starts: list[int]) -> list[tuple[int, int]]:
    """Steps ``(first, end)`` of about `_WORDS_AT_ONCE` words, from the first word of each step and their number."""
    runs, first, steps = [], 0, len(starts) - 1
    for end in range(1, steps + 1):
        if end == steps or starts[end + 1] - starts[first] > _WORDS_AT_ONCE:
            runs.append((first, end))
            first = end
    return runs


def _to_device(numbers: list[int], device: torch.device) -> Tensor:
    """int32, without waiting for the GPU."""
    tensor = torch.tensor(numbers, dtype=torch.int32)
    if device.type != "cuda":
        return tensor
    tensor = tensor.pin_memory()
    if torch.cuda.is_current_stream_capturing():
        _captured.append(tensor)
    return tensor.to(device, non_blocking=True)


class _Workspace(NamedTuple):
    """What the layers share while words are read. Every operation costs the CPU as long as a step costs the GPU.

    Attributes:
        starts: The first word of each step, and the number of all words.
        on_device: The same and one more number, which is not looked at.
        runs: Steps ``(first, end)`` to read at a time.
        split: Whether factors are split.
        blocks: Sizes of blocks.
        workers: Number of programs for each direction.
        share: ``(2, words of a run, 4 * cell_size)``, where the input's share of the gates goes.
        shares: Its halves.
        y: ``(2, parts, sentences, cell_size)``, where the cells' outputs go.
        sums: ``(2, slices, sentences, projection_dim)``, float32, where the slices of the projection go.
    """

    starts: list[int]
    on_device: Tensor
    runs: list[tuple[int, int]]
    split: bool
    blocks: dict[str, int]
    workers: int
    share: Tensor
    shares: tuple[Tensor, Tensor]
    y: Tensor
    sums: Tensor

    @classmethod
    def begin(
        cls, batch_sizes: list[int], starts: list[int], on_device: Tensor, cells: int, dim: int, dtype: torch.dtype,
        split: bool, projects: bool,
    ) -> _Workspace:  # fmt: skip
        device, batch, parts = on_device.device, batch_sizes[0], 2 if split else 1
        programs, shared = 4, 2**16
        if not _INTERPRETED:
            properties = torch.cuda.get_device_properties(device)
            programs = properties.multi_processor_count
            # The stub of torch lacks it.
            shared = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
        blocks = _blocks(cells, dim, batch, dtype, split, programs, shared)
        tiles = _cdiv(cells, blocks["BLOCK_C"]) * _cdiv(batch, blocks["BLOCK_N"])
        runs = _runs(starts)
        share = torch.empty(2, max(starts[b] - starts[a] for a, b in runs), 4 * cells, dtype=dtype, device=device)
        return cls(
            starts=starts,
            on_device=on_device,
            runs=runs,
            split=split,
            blocks=blocks,
            workers=1 if _INTERPRETED else min(programs // 2, tiles),
            share=share,
            shares=(share[0], share[1]),
            y=torch.empty(2, parts, batch, cells if projects else 0, dtype=dtype, device=device),
            sums=torch.empty(2, blocks["SLICES"], batch, dim if projects else 0, device=device, dtype=torch.float32),
        )

    def layer(
        self, layer: LstmLayer, weights: _Weights, words: tuple[Tensor, Tensor], hidden: Tensor, cell: Tensor,
        out: Tensor, counters: tuple[Tensor, ...],
    ) -> None:  # fmt: skip
        """Both directions of one layer.

        Args:
            layer: One of the two, for its clips.
            weights: Of both.
            words: Of both, in their reading orders.
            hidden: ``(2, 2, parts, sentences, projection_dim)``, the state to start from in slot 1; overwritten.
            cell: ``(2, sentences, cell_size)``, float32, likewise; becomes the last cells.
            out: ``(2, all words, projection_dim)``, for the outputs.
            counters: ``(2, 32)`` int32 zeros for each run.
        """
        # Triton takes long to import, and is not everywhere.
        from .lstm_gpu_kernels import layer_kernel

        projects = weights.weight_hr is not None
        for counter, (first, last) in zip(counters, self.runs):
            begin, end = self.starts[first], self.starts[last]
            whole = end - begin == self.starts[-1]
            for x, bias, weight, share in zip(words, weights.bias, weights.transposed_ih, self.shares):
                if whole:
                    torch.addmm(bias, x, weight, out=share)
                else:
                    torch.addmm(bias, x[begin:end], weight, out=share[: end - begin])
            layer_kernel[(2 * self.workers,)](
                first, last, self.on_device, counter, self.share, begin, self.share.shape[1], hidden,
                weights.weight_hh, cell, self.y, weights.weight_hr if projects else weights.weight_hh, self.sums, out,
                self.starts[-1], cell.shape[1], layer.cell_clip or 0.0, layer.proj_clip or 0.0, 0,
                CELLS=cell.shape[2], DIM=out.shape[2], PROJECTS=projects, CLIPS_CELL=layer.cell_clip is not None,
                CLIPS_PROJ=layer.proj_clip is not None, SPLIT=self.split, PARTS=self.y.shape[1],
                COMPILED=not _INTERPRETED, launch_cooperative_grid=True, **self.blocks,
            )  # fmt: skip


def _product_dtype(inputs: LstmInputs) -> torch.dtype:
    """That of the matrix products."""
    kind = inputs.words[0].vectors.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs.layers[0][0].bias.dtype


def has_triton() -> bool:
    """Whether Triton can be imported."""
    from .lstm_gpu_kernels import triton

    return triton is not None


def unsupported_reason(inputs: LstmInputs) -> str | None:
    """Why `run` cannot compute this; None if it can. (Under Triton's interpreter it computes on any device.)"""
    device = inputs.words[0].vectors.device
    if device.type != "cuda" or torch.version.hip is not None:
        return f"the words are on {device}, which is not a CUDA GPU"
    if len(inputs.layers) != 2:
        return "one direction is read alone"
    if not _INTERPRETED and torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is older than NVIDIA's Ampere"
    if not has_triton():
        return "Triton is not installed"
    layers = inputs.all_layers()
    reason = not_bare_reason(layers)
    if reason is not None:
        return reason
    weights = [parameter for layer in layers for parameter in layer.parameters()]
    vectors = [words.vectors for words in inputs.words]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*vectors, *weights)):
        return "gradients are recorded"
    tensors = [*vectors, *inputs.state, *weights]
    if any(tensor.device != device for tensor in tensors):
        return "words, states and weights are on several devices"
    dtype = _product_dtype(inputs)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the weights are {dtype}"
    if _INTERPRETED and dtype == torch.bfloat16:
        # It takes them for whole numbers.
        return "Triton's interpreter cannot multiply numbers in bfloat16"
    batch = inputs.batch_sizes[0]
    if inputs.state.hidden.shape[2] != batch:
        return "there are states of sentences without words"
    if batch * layers[0].cell_size * 8 >= 2**31:
        return f"a batch of {batch} sentences is too large"
    return only_plain_operations_reason(tensors)


def run(inputs: LstmInputs) -> LstmOutputs:
    """Reads packed sentences in both directions. Outputs require no gradients."""
    mirror = inputs.mirror()
    # Each direction's words in the order in which it reads them.
    halves = (inputs.words[0].all(), inputs.words[1].select(mirror).all())
    state, batch_sizes = inputs.state, inputs.batch_sizes
    device, layers, batch = halves[0].device, len(inputs.layers[0]), batch_sizes[0]
    projects = inputs.layers[0][0].weight_hr is not None
    dtype = _product_dtype(inputs)
    split = dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
    # What the plain path returns where autocast mixes dtypes.
    cell_dtype = torch.promote_types(dtype, state.cell.dtype)
    out_dtype = dtype if projects else cell_dtype
    starts = [0, *accumulate(batch_sizes)]
    last = [0] * batch
    for start, n, following in zip(starts, batch_sizes, [*batch_sizes[1:], 0]):
        last[following:n] = range(start + following, start + n)
    with (
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
    ):
        on_device = _to_device([*starts, starts[-1], *last], device)
        dim, size = state.hidden.shape[-1], state.cell.shape[-1]
        workspace = _Workspace.begin(batch_sizes, starts, on_device, size, dim, dtype, split, projects)
        runs = len(workspace.runs)
        counters = torch.zeros(layers * runs, 64, dtype=torch.int32, device=device).unbind(0)
        y = torch.empty(layers, 2, starts[-1], dim, dtype=out_dtype, device=device)
        cells = torch.empty(layers, 2, batch, size, dtype=torch.float32, device=device)
        cells.copy_(state.cell.transpose(0, 1))
        # Slot 1 is that of the step before the first.
        hidden = torch.empty(layers, 2, 2, 2 if split else 1, batch, dim, dtype=dtype, device=device)
        given = state.hidden.transpose(0, 1).to(dtype)
        high = given if dtype != torch.float32 else _nearest_tf32(given)
        hidden[:, 1, :, 0] = high
        if split:
            hidden[:, 1, :, 1] = _nearest_tf32(given - high)
        outputs: list[Tensor] = []
        x = torch.empty(0)
        each_depth = zip(*inputs.layers, hidden.unbind(0), cells.unbind(0), y.unbind(0), strict=True)
        for depth, (layer, other, h, c, out) in enumerate(each_depth):
            if inputs.dropout.training:
                halves = (inputs.dropout(halves[0]), inputs.dropout(halves[1]))
                x = torch.stack(halves)
            typed = halves if halves[0].dtype == dtype else (halves[0].to(dtype), halves[1].to(dtype))
            weights = _weights((layer, other), dtype, split)
            workspace.layer(layer, weights, typed, h, c, out, counters[depth * runs : (depth + 1) * runs])
            x = x + out if inputs.use_skip_connections and depth > 0 else out
            forward, backward = x.unbind(0)
            halves = (forward, backward)
            outputs.append(x)
        end_hidden = y.index_select(2, on_device[len(starts) + 1 :])
        both = [[y[0] for y in outputs], [y[1].index_select(0, mirror) for y in outputs]]
    return LstmOutputs(both, ElmoState(end_hidden.transpose(0, 1), cells.transpose(0, 1).to(cell_dtype)))
