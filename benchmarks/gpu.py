"""The biLM's LSTMs on a GPU: Triton's kernels beside cuDNN, AllenNLP's loop and the plain layers, and the floor.

    python -m benchmarks.gpu [--batches 1 8 64 128] [--lengths 26 100] [--precisions fp32 tf32 bf16] [--output FILE]

The biLM has the original size (2 layers of 2 x 4,096 cells, projections of 512, clips at 3) and random weights; all
sentences of a batch have the same length. Everyone reads the words' vectors and returns all layers, cuDNN the last one.

- **ours**: `hf_elmo.model.lstm.lstm_gpu`. Called as it is, and (ours graph) replayed from a CUDA graph, which leaves
  out the time of Python and of the launches.
- **cuDNN**: `nn.LSTM(512, 4096, 2, bidirectional=True, proj_size=512)`. It has no clips and no skip connection, and its
  directions meet between the layers, so that its second layer has inputs of 1,024. Likewise called in two ways. In
  bfloat16 torch copies all its weights in every call.
- **AllenNLP**: what its `ElmoLstm` computes, written plainly: per step, direction and layer two products, the gates and
  the clips, and the state copied.
- **plain**: `LstmLayer.forward`, with the input's product outside of the loop.

fp32 is exact for everyone; tf32 is `torch.backends.cuda.matmul.allow_tf32` for ours, AllenNLP and plain, and
`torch.backends.cudnn.allow_tf32` (torch's default) for cuDNN; bf16 are bfloat16 weights.

The floor is the sum of two: the input's products for all words together, and the dependent steps, layer after layer.
Each is the larger of two times: operations over the rate of an 8192 x 8192 x 8192 product of that precision, and bytes
over the rate of a copy, both measured here. Bytes are weights, once for the input's products and once in every step,
and activations. A kernel may be faster where it finds a step's weights in the L2 cache.

Times are medians of CUDA events around a call. There are as many words as a batch has; each is read in both directions.

On an NVIDIA H200 (torch 2.11, Triton 3.6, cuDNN 9.19; 4.2 TB/s, 51 TFLOP/s in fp32, 358 in tf32, 678 in bf16), in
milliseconds, from CUDA graphs but for AllenNLP and plain:

                     ours    cuDNN   AllenNLP   plain   floor   ours / floor
    fp32  1 x  26    1.97     1.62       28.8    23.6    1.07       1.84
    fp32 64 x  26    5.92     9.40       29.1    22.1    4.92       1.20
    fp32 64 x 100   21.85    35.19      108.5    73.0   18.93       1.15
    tf32  1 x  26    1.44     1.53       37.0    24.7    1.07       1.35
    tf32 64 x  26    2.11     3.68       36.7    25.7    1.56       1.36
    tf32 64 x 100    7.76    13.11      144.3    97.1    5.98       1.30
    bf16  1 x  26    0.60     1.13       39.0    27.1    0.53       1.13
    bf16 64 x  26    1.23     1.96       39.5    27.5    0.81       1.51
    bf16 64 x 100    4.40     6.44      148.9   102.2    3.12       1.41

Called one at a time, without a graph, ours took 0.5 to 0.7 ms longer for 26 words and up to 1.0 for 100, cuDNN 0.3 to
4.9 and 0.7 to 13.6. That machine's CPU was slow, and what it limits (AllenNLP, plain, cuDNN in bf16) varied by half
from run to run. In exact fp32 at batch 1 cuDNN is ahead: to split the weights takes longer than to read them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from hf_elmo import ElmoConfig, ElmoModel
from hf_elmo.model.lstm.bilstm import BiLstm
from hf_elmo.model.lstm.lstm_gpu import run as run_on_gpu
from hf_elmo.model.lstm.lstm_gpu_kernels import triton
from hf_elmo.model.lstm.lstm_layer import ElmoState, LstmInputs
from hf_elmo.model.lstm.lstm_layer import run as run_plainly
from hf_elmo.model.lstm.packing import Words, mirrored

CELLS, DIM, LAYERS, CLIP = 4096, 512, 2, 3.0
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def milliseconds(run: Callable[[], object], seconds: float = 0.3) -> float:
    """The median time of a call."""
    run()
    run()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < 1000 * seconds and len(times) < 100):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def set_precision(precision: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def measure_limits(precisions: list[str]) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and operations per second of a product."""
    x = torch.empty(2**29, device="cuda")
    y = torch.empty_like(x)
    limits = {"bytes": 8 * x.numel() / milliseconds(partial(y.copy_, x)) * 1e3}
    del x, y
    for precision in precisions:
        set_precision(precision)
        a, b = (torch.randn(8192, 8192, device="cuda").to(DTYPES[precision]) for _ in range(2))
        limits[precision] = 2 * 8192**3 / milliseconds(partial(torch.mm, a, b)) * 1e3
    return limits


def floor(batch: int, length: int, precision: str, limits: dict[str, float]) -> float:
    """Milliseconds below which reading all weights in every step cannot be done."""
    size = DTYPES[precision].itemsize
    words = batch * length

    def least(operations: float, traffic: float) -> float:
        return max(operations / limits[precision], traffic / limits["bytes"]) * 1e3

    inputs = least(2 * words * 4 * CELLS * DIM, size * (4 * CELLS * DIM + words * (DIM + 4 * CELLS)))
    step = least(
        2 * batch * 5 * CELLS * DIM,
        # Weights; per sentence the input's share, h in and out, the cells' outputs in and out, and float32 cells.
        size * (5 * CELLS * DIM + batch * (4 * CELLS + 2 * DIM + 2 * CELLS)) + 8 * batch * CELLS,
    )
    return 2 * LAYERS * (inputs + length * step)


def make_bilstm(dtype: torch.dtype) -> BiLstm:
    # AllenNLP adds the forget bias to the bias when it loads weights.
    sizes = {"cell_size": CELLS, "projection_dim": DIM, "num_layers": LAYERS}
    config = ElmoConfig(**sizes, cell_clip=CLIP, proj_clip=CLIP, forget_bias=0.0)
    with torch.device("cuda"):
        bilstm = BiLstm(config)
    with torch.no_grad():
        for parameter in bilstm.parameters():
            parameter.normal_(0, 0.025)
    return bilstm.to(dtype).eval()


def allennlp_layer(layer, inputs: Tensor, lengths: list[int], reverse: bool) -> Tensor:
    """One direction of a layer on padded sentences, longest first, as AllenNLP's cell goes through them."""
    batch, total, _ = inputs.shape
    output = inputs.new_zeros(batch, total, DIM)
    hidden, memory = inputs.new_zeros(batch, DIM), inputs.new_zeros(batch, CELLS)
    last = batch - 1 if not reverse else 0
    for step in range(total):
        index = total - 1 - step if reverse else step
        while not reverse and lengths[last] <= index:
            last -= 1
        while reverse and last < batch - 1 and lengths[last + 1] > index:
            last += 1
        h, c = hidden[: last + 1].clone(), memory[: last + 1].clone()
        projected = F.linear(inputs[: last + 1, index], layer.weight_ih)
        state = F.linear(h, layer.weight_hh, layer.bias)
        i, f, g, o = (projected + state).chunk(4, dim=1)
        c = torch.sigmoid(i) * torch.tanh(g) + torch.sigmoid(f) * c
        c = c.clamp(-layer.cell_clip, layer.cell_clip)
        h = F.linear(torch.sigmoid(o) * torch.tanh(c), layer.weight_hr).clamp(-layer.proj_clip, layer.proj_clip)
        hidden, memory = hidden.clone(), memory.clone()
        hidden[: last + 1], memory[: last + 1] = h, c
        output[: last + 1, index] = h
    return output


def allennlp(bilstm: BiLstm, inputs: Tensor, lengths: list[int]) -> list[Tensor]:
    """Both directions of all layers."""
    sides, outputs = [inputs, inputs], []
    for depth, layers in enumerate(zip(bilstm.forward_layers, bilstm.backward_layers)):
        read = [allennlp_layer(layer, sides[d], lengths, reverse=d == 1) for d, layer in enumerate(layers)]
        sides = [x + y if depth else y for x, y in zip(sides, read)]
        outputs.append(torch.cat(sides, dim=-1))
    return outputs


def graphed(run: Callable[[], object]) -> Callable[[], None]:
    """The same call, replayed from a CUDA graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def compare(batch: int, length: int, precision: str, bilstm: BiLstm, lstm: nn.LSTM) -> dict[str, float]:
    """Milliseconds of everyone for a batch of sentences of one length."""
    dtype = DTYPES[precision]
    x = torch.randn(length, batch, DIM, device="cuda").to(dtype)
    words = Words(x.flatten(0, 1))
    sizes, padded, lengths = [batch] * length, x.transpose(0, 1).contiguous(), [length] * batch
    mirror = mirrored(sizes).to("cuda")
    inputs = LstmInputs(
        layers=(tuple(bilstm.forward_layers), tuple(bilstm.backward_layers)),
        reverse=(False, True),
        words=(words, words),
        batch_sizes=sizes,
        state=ElmoState(
            torch.zeros(2, LAYERS, batch, DIM, device="cuda", dtype=dtype),
            torch.zeros(2, LAYERS, batch, CELLS, device="cuda", dtype=dtype),
        ),
        use_skip_connections=True,
        dropout=bilstm.dropout,
        mirror=lambda: mirror,
    )
    times = {
        "ours": milliseconds(lambda: run_on_gpu(inputs)),
        "ours graph": milliseconds(graphed(lambda: run_on_gpu(inputs))),
        "cuDNN": milliseconds(lambda: lstm(x)),
        "cuDNN graph": milliseconds(graphed(lambda: lstm(x))),
        "AllenNLP": milliseconds(lambda: allennlp(bilstm, padded, lengths)),
        "plain": milliseconds(lambda: run_plainly(inputs)),
    }
    # Everyone but cuDNN has computed the same. Words lie step by step in ours and sentence by sentence in AllenNLP's.
    ours = run_on_gpu(inputs).layers
    theirs = allennlp(bilstm, padded, lengths)[-1].transpose(0, 1)
    both = torch.cat((ours[0][-1], ours[1][-1]), dim=-1).unflatten(0, (length, batch))
    difference = float((both - theirs).abs().max())
    assert difference < (1e-4 if precision == "fp32" else 0.1), difference
    return times


def whole_model(precision: str, batch: int, length: int) -> float:
    """Milliseconds of `ElmoModel` from character ids, all of them different, to the mix of layers."""
    with torch.device("cuda"):
        model = ElmoModel(ElmoConfig()).to(DTYPES[precision]).eval()
    characters = torch.randint(1, 257, (batch, length, model.config.max_characters_per_token), device="cuda")
    return milliseconds(lambda: model(character_ids=characters).last_hidden_state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 128])
    parser.add_argument("--lengths", type=int, nargs="+", default=[26, 100])
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=["fp32", "tf32", "bf16"])
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    options = parser.parse_args()
    if not torch.cuda.is_available() or triton is None:
        sys.exit("This needs a CUDA GPU and Triton.")
    warnings.filterwarnings("ignore", message="RNN module weights")
    machine = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "transformers": transformers.__version__,
        "cudnn": torch.backends.cudnn.version(),
    }
    with torch.no_grad():
        limits = measure_limits(options.precisions)
        print(json.dumps(machine))
        print(
            "TB/s",
            round(limits["bytes"] / 1e12, 2),
            *(f"{p} {limits[p] / 1e12:.0f} TFLOP/s" for p in options.precisions),
        )
        names = ("ours", "ours graph", "cuDNN", "cuDNN graph", "AllenNLP", "plain")
        print(
            "ms".ljust(18),
            *(name.rjust(12) for name in names),
            "floor".rjust(8),
            "ours/floor",
            "graph/floor",
            "words/s".rjust(10),
        )
        rows = []
        for precision in options.precisions:
            set_precision(precision)
            bilstm = make_bilstm(DTYPES[precision])
            lstm = nn.LSTM(DIM, CELLS, LAYERS, bidirectional=True, proj_size=DIM).to("cuda", DTYPES[precision]).eval()
            lstm.flatten_parameters()
            for length in options.lengths:
                for batch in options.batches:
                    times = compare(batch, length, precision, bilstm, lstm)
                    least = floor(batch, length, precision, limits)
                    rate = batch * length / times["ours"] * 1e3
                    rows.append(
                        {"precision": precision, "batch": batch, "length": length, "floor": least, "ms": times}
                        | {"words_per_second": rate, "ratios": {name: t / times["ours"] for name, t in times.items()}}
                    )
                    print(
                        f"{precision} {batch:3} x {length:3}".ljust(18),
                        *(f"{times[name]:12.2f}" for name in names),
                        f"{least:8.2f} {times['ours'] / least:10.2f} {times['ours graph'] / least:11.2f} {rate:10,.0f}",
                        flush=True,
                    )
            del bilstm, lstm
        models = {p: {} for p in options.precisions}
        for precision in options.precisions:
            set_precision(precision)
            for batch in options.batches:
                models[precision][batch] = whole_model(precision, batch, options.lengths[0])
            row = ", ".join(f"batch {batch} {time:.2f} ms" for batch, time in models[precision].items())
            print(f"ElmoModel, {options.lengths[0]} different words a sentence, {precision}: {row}", flush=True)
    if options.output:
        everything = {"machine": machine, "limits": limits, "lstms": rows, "models": models}
        options.output.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
