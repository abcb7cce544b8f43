"""What the machine can do: its facts, its fastest matrix products, and how fast it reads.

    python -m benchmarks.harness.machine [--threads N]

prints them as JSON. `run.py` keeps such a process and measures again in every round, since other work on the machine,
and the clock of its processor, change from minute to minute.

Products are those of an ELMo at original size, `(M, 512) x (512, 16384)` for M of 32, 128 and 256 with weights packed
by oneDNN where torch has that, and 2048 x 2048 x 2048; the fastest counts, each by the median of its repetitions.
Reading is `torch.sum` over a block, again and again; the fastest time counts, as other work easily delays so short a
call. The machine's int8 is that of torch's own products.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

# Of the processor's many flags those that matrix products make use of.
FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
FLAGS += ("asimd", "sve", "bf16", "i8mm")
BLOCK = 512 * 2**20


def facts() -> dict:
    """The processor, the system and the hour; without torch."""
    model, flags = platform.processor() or platform.machine(), []
    try:
        with open("/proc/cpuinfo") as file:
            entries = dict(line.split(":", 1) for line in file if ":" in line)
        entries = {key.strip(): value.strip() for key, value in entries.items()}
        model = entries.get("model name", model)
        present = set(entries.get("flags", entries.get("Features", "")).split())
        flags = [flag for flag in FLAGS if flag in present]
    except OSError:
        pass
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "flags": flags,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def runs_bfloat16_lstm() -> bool:
    """Whether `nn.LSTM` runs in bfloat16 (autocast) here: oneDNN has that for some processors only."""
    import torch

    layer = torch.nn.LSTM(2, 2)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.zeros(1, 1, 2))
    except RuntimeError:
        return False
    return True


class Machine:
    """Makes what is multiplied and read once, and measures as often as it is asked to.

    Args:
        blocks: Bytes of the blocks that are read.
        kinds: The kinds of numbers that are multiplied.
    """

    def __init__(self, blocks: list[int], kinds: Sequence[str] = ("fp32", "bf16", "int8")):
        import torch

        torch.manual_seed(0)
        square = torch.randn(2048, 2048)
        weight, inputs = torch.randn(16384, 512), [torch.randn(rows, 512) for rows in (32, 128, 256)]
        makers = {
            "fp32": lambda: _products(weight, inputs, square),
            "bf16": lambda: _products(weight.bfloat16(), [each.bfloat16() for each in inputs], square.bfloat16()),
            "int8": lambda: _int8_products(weight.shape, [len(each) for each in inputs]),
        }
        self.products = {kind: makers[kind]() for kind in kinds}
        memory = torch.ones(max(blocks) // 4)
        self.blocks = [memory[: max(size // 4, 1)] for size in blocks]

    def measure(self, seconds: float = 0.05) -> dict:
        """Measures each product and each block for about `seconds`.

        Returns:
            `operations`: operations per second by kind of number (None where torch has no such product);
            `bandwidth`: bytes per second, a list beside the blocks.
        """
        import torch

        with torch.inference_mode():
            operations = {kind: _fastest(products, seconds) for kind, products in self.products.items()}
            bandwidth = [4 * len(block) / min(_times(block.sum, seconds)) for block in self.blocks]
        return {"operations": operations, "bandwidth": bandwidth}


#: Products of one kind, the smaller before the larger: operations, and a call.
Products = list[tuple[int, Callable]]


def _fastest(kinds: list[Products], seconds: float) -> float | None:
    """The most operations per second of products of some kinds; None where there are none.

    One that would take more than `20 * seconds` at the speed of the one before it is left out: where a processor has no
    instructions for them (bfloat16 and, in `_int_mm`, 8 bits before AVX-512), large ones take a minute each.
    """
    fastest = 0.0
    for products in kinds:
        speed = math.inf
        for count, run in products:
            if count / speed > 20 * seconds:
                break
            speed = count / statistics.median(_times(run, seconds))
            fastest = max(fastest, speed)
    return fastest or None


def _products(weight, inputs: list, square) -> list[Products]:
    """Products with a weight, packed by oneDNN if it can be, and with a square matrix."""
    import torch

    try:
        # What Inductor makes of linear layers with constant weights; not public, so not to be relied on.
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 128)
        multiply = partial(torch.ops.mkldnn._linear_pointwise, W=packed, B=None, attr="none", scalars=[], algorithm="")
        multiply(inputs[0])
    except (AttributeError, RuntimeError, TypeError):
        multiply = partial(torch.nn.functional.linear, weight=weight)
    products = [(2 * weight.numel() * len(each), partial(multiply, each)) for each in inputs]
    return [products, _square_products(torch.mm, square)]


def _int8_products(shape: tuple[int, int], rows: list[int]) -> list[Products]:
    """As `_products`, in int8; an empty list where torch has none."""
    import torch

    kinds: list[Products] = []
    with contextlib.suppress(AttributeError, RuntimeError, TypeError):
        weight = torch.quantize_per_channel(
            torch.randn(shape), torch.full(shape[:1], 0.01), torch.zeros(shape[0]).long(), 0, torch.qint8
        )
        packed = torch.ops.quantized.linear_prepack(weight, None)
        products: Products = []
        for count in rows:
            run = partial(torch.ops.quantized.linear_dynamic, torch.randn(count, shape[1]), packed, False)
            run()
            products.append((2 * weight.numel() * count, run))
        kinds.append(products)
    with contextlib.suppress(AttributeError, RuntimeError, TypeError):
        square = torch.randint(-128, 128, (2048, 2048), dtype=torch.int8)
        torch._int_mm(square[:32], square)
        kinds.append(_square_products(torch._int_mm, square))
    return kinds


def _square_products(multiply: Callable, square) -> Products:
    return [(2 * rows * len(square) ** 2, partial(multiply, square[:rows], square)) for rows in (32, len(square))]


def _times(run, seconds: float) -> list[float]:
    """The times of calls, of three at least, after one that is not counted; of one that takes long, its time alone."""
    begin = time.perf_counter()
    run()
    first = time.perf_counter() - begin
    if first > 10 * seconds:
        return [first]
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--serve", action="store_true", help="answer requests, as contestant.py does: hello, measure")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    build = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
    }
    if not options.serve:
        print(json.dumps({**facts(), **build, **Machine([BLOCK]).measure(0.3)}, indent=2))
        return
    machine = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "hello":
            machine = Machine(request["blocks"])
        print(json.dumps(build if request["do"] == "hello" else machine.measure()), flush=True)


if __name__ == "__main__":
    main()
