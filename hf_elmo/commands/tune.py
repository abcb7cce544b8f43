"""`hf-elmo tune`: which matrix products this machine is quickest at."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import note, print_table, say

if TYPE_CHECKING:
    import torch

    from ..model.products.processor_table import Bands, ProcessorRow

# (out, in) of the recurrent weights of the published sizes: 4 * cell_size, projection_dim.
_SIZES = {"small": (4096, 128), "large": (16384, 512)}
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
# Of small weights at most so many rows are read in pairs.
_FEW_ROWS = (1, 2, 3)
# Each product is tried for this many seconds, and three times at least; the shortest time counts.
_SECONDS = 0.2
# A batch is taken to have this many time steps, over which the cost of widened weights is spread.
_STEPS = 25
# For more words than any batch has.
_MOST_WORDS = 2**15
# With less of the processors' time than this share something else was computed meanwhile.
_SHARE_OF_QUIET = 0.8
# Another product needs another copy of the weight: it is to be faster by this factor at least.
_WORTH_A_COPY = 1.1

#: Seconds of each product at hand, by the number of rows.
_Times = dict[int, dict[str, float]]

# Seconds on the clock and seconds of processors of all that was measured.
_spent = {"clock": 0.0, "processors": 0.0}


def tune(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file to write, for HF_ELMO_PRODUCTS.")
    ] = None,
) -> None:
    """Measure this machine's matrix products, and print its row for the table of processors.

    It takes 0.2 seconds or more for each of some 100 products, on a machine that does nothing else. The file that it
    writes counts instead of the table in every process whose environment variable HF_ELMO_PRODUCTS names it. Where
    other programs took part of the processors' time, it says so at the end.
    """
    import torch

    from ..model.products.processor import PRODUCT_NAMES
    from ..whole_files import check_target, new_file

    if output is not None:
        check_target(output, overwrite=True)
    _spent.update(clock=0.0, processors=0.0)
    times, row = measure()
    print_table(
        ["dtype", "size", "rows", *(f"{name}, GFLOP/s" for name in PRODUCT_NAMES)],
        [
            [dtype, size, rows, *(_speed(size, rows, of_rows.get(name)) for name in PRODUCT_NAMES)]
            for (dtype, size), of_size in times.items()
            for rows, of_rows in of_size.items()
        ],
        title="Products of weights with rows",
    )
    say(_as_python(row))
    if disturbed := _disturbed(torch.get_num_threads()):
        note(disturbed)
    if output is not None:
        values = {**asdict(row), "has": sorted(row.has), "lacks": []}
        with new_file(output) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        note(f"{output}: used where HF_ELMO_PRODUCTS={output}")


def measure() -> tuple[dict[tuple[str, str], _Times], ProcessorRow]:
    """Measures the products at hand with the current number of threads.

    Returns:
        Seconds by dtype and size, rows and product; ``widened`` with a share of what it costs to widen. And the row.
    """
    import torch

    from ..model.products.processor import DTYPES, features
    from ..model.products.processor_table import ProcessorRow

    times: dict[tuple[str, str], _Times] = {}
    cost: dict[str, float] = {}
    once: list[int] = []
    with torch.inference_mode():
        for dtype in DTYPES:
            for size, shape in _SIZES.items():
                note(f"measuring {dtype}, {size} weights")
                weight = torch.randn(shape).to(getattr(torch, dtype))
                times[dtype, size] = _times_of(weight)
                if dtype == "float32":
                    continue
                # Small weights are widened once and for all.
                cost[dtype] = 0.0 if size == "small" else _cost_of_widening(weight)
                if size == "large":
                    once.append(_words_to_widen_once(weight))
                for rows, of_rows in times[dtype, size].items():
                    of_rows["widened"] = min(times["float32", size][rows].values()) + cost[dtype] / _STEPS
        alone = {
            size: {rows: min(of_rows.values()) for rows, of_rows in times["float32", size].items()} for size in _SIZES
        }
        pairs = _rows_of_pairs("small", alone["small"]), _rows_of_pairs("large", alone["large"])
        pairs_of_int8 = _rows_of_pairs("small", _times_of_int8())
    products: Mapping[str, Mapping[str, Bands]] = {
        dtype: {size: bands_of(times[dtype, size]) for size in _SIZES} for dtype in DTYPES
    }
    return times, ProcessorRow(
        name=f"{_processor_name()}, measured",
        has=features(),
        lacks=frozenset(),
        products=products,
        words_to_widen=max(_words_to_widen(times, dtype, cost[dtype]) for dtype in ("bfloat16", "float16")),
        words_to_widen_once=max(once),
        pairs=pairs,
        pairs_of_int8=pairs_of_int8,
        training=_faster_training(),
        backward=_faster_backward(),
        source=f"hf-elmo tune, torch {torch.__version__}, {torch.get_num_threads()} threads",
    )


def bands_of(times: _Times) -> Bands:
    """From how many rows on which product is taken: the fastest, but none for which a copy does not pay."""
    bands: list[tuple[int, str]] = []
    for rows, of_rows in sorted(times.items()):
        best = min(of_rows, key=lambda name: of_rows[name])
        if not bands:
            bands.append((1, best))
        elif of_rows[bands[-1][1]] > _WORTH_A_COPY * of_rows[best]:
            bands.append((rows, best))
    return tuple(bands)


def _times_of(weight: torch.Tensor) -> _Times:
    import torch

    from ..model.products.matrix_products import PRODUCTS, has_half, has_onednn

    names = [name for name in PRODUCTS if name != "packed" or has_onednn(weight)]
    if weight.dtype != torch.float32:
        # torch computes this in a loop over single numbers where oneDNN does not.
        names.remove("transposed")
    if weight.dtype == torch.float32 or not has_half():
        names.remove("half")
    times: _Times = {rows: {} for rows in _ROWS}
    for name in names:
        operand = weight.float() if name == "half" else weight
        product = PRODUCTS[name](operand)
        for rows in _ROWS:
            inputs, gates = operand.new_ones(rows, weight.shape[1]), operand.new_ones(rows, weight.shape[0])
            times[rows][name] = _seconds(lambda: product(inputs, gates))  # noqa: B023 (called at once)
    return times


def _times_of_int8() -> dict[int, float]:
    """Seconds of the product of a small weight in 8 bits, by its number of rows; empty where torch has none."""
    import torch

    from ..model.products.matrix_products import Int8Product

    out, inside = _SIZES["small"]
    try:
        product = Int8Product(torch.randn(out, inside))
    except ValueError:
        return {}
    given = {rows: (torch.ones(rows, inside), torch.ones(rows, out)) for rows in _FEW_ROWS}
    return {rows: _seconds(lambda: product(*inputs)) for rows, inputs in given.items()}  # noqa: B023


def _cost_of_widening(weight: torch.Tensor) -> float:
    import torch

    from ..model.products.matrix_products import PRODUCTS, choose

    memory = torch.empty(weight.shape)
    make = PRODUCTS[choose(memory, _ROWS[-1]).product]
    return _seconds(lambda: make(memory.copy_(weight)))


def _words_to_widen_once(weight: torch.Tensor) -> int:
    """From how many rows on a weight that is read once is multiplied faster when it is widened."""
    import torch.nn.functional as F

    from ..model.products.matrix_products import widened_linear

    fewest = _MOST_WORDS
    for rows in reversed(_ROWS):
        inputs = weight.new_ones(rows, weight.shape[1])
        wide = _seconds(lambda: widened_linear(inputs.float(), weight, None).to(weight.dtype))  # noqa: B023
        if wide > _seconds(lambda: F.linear(inputs, weight)):  # noqa: B023
            break
        fewest = rows
    return fewest


def _words_to_widen(times: dict[tuple[str, str], _Times], dtype: str, cost: float) -> int:
    """How many words pay for widening a large weight, with many rows."""
    rows = _ROWS[-1]
    own = min(seconds for name, seconds in times[dtype, "large"][rows].items() if name != "widened")
    saved = (own - min(times["float32", "large"][rows].values())) / rows
    return min(math.ceil(cost / saved), _MOST_WORDS) if saved > 0 else _MOST_WORDS


def _rows_of_pairs(size: str, alone: dict[int, float]) -> int:
    """Up to how many rows MKL's product of a pair of weights is faster than two products.

    Args:
        size: That of the weights.
        alone: Seconds of one product by its number of rows; empty if there is none.
    """
    import torch

    if not alone or not torch.backends.mkl.is_available():
        return 0
    out, inside = _SIZES[size]
    weights = torch.randn(2, inside, out)
    few = 0
    # Of large weights only single sentences are read in pairs.
    for rows in _FEW_ROWS if size == "small" else (1,):
        inputs, gates = torch.ones(2, rows, inside), torch.ones(2, rows, out)
        nearest = min(known for known in alone if known >= rows)
        if _seconds(lambda: torch.baddbmm(gates, inputs, weights)) > 2 * alone[nearest]:  # noqa: B023
            break
        few = rows
    return few


def _faster_training() -> str:
    """The dtype of the faster step of training: a layer of the published original, 16 sentences of 10 words."""
    import torch

    from ..model.configuration_elmo import ElmoConfig
    from ..model.lstm.lstm_layer import LstmLayer
    from ..model.lstm.lstm_training import read_layer

    note("measuring training")
    out, inside = _SIZES["large"]
    layer = LstmLayer(ElmoConfig(cell_size=out // 4, projection_dim=inside))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.05, 0.05)
    sizes = [16] * 10
    inputs, hidden, cell = torch.randn(sum(sizes), inside), torch.zeros(16, inside), torch.zeros(16, out // 4)

    def step(dtype: torch.dtype) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            outputs = read_layer(layer, inputs, sizes, hidden, cell, reverse=False)[0]
        outputs.float().sum().backward()

    seconds = {dtype: _seconds(lambda: step(dtype)) for dtype in (torch.float32, torch.bfloat16)}  # noqa: B023
    is_faster = _WORTH_A_COPY * seconds[torch.bfloat16] < seconds[torch.float32]
    return "bfloat16" if is_faster else "float32"


def _faster_backward() -> str:
    """The faster product of a large float32 weight with gradients of 16 rows; steps share the cost of a copy."""
    import torch

    from ..model.products.matrix_products import has_onednn, packed_product, plain_product

    weight = torch.randn(_SIZES["large"])
    if not has_onednn(weight):
        return "plain"
    gradients = torch.ones(16, len(weight))
    with torch.inference_mode():
        packed, plain = packed_product(weight, transposed=True), plain_product(weight, transposed=True)
        cost = _seconds(lambda: packed_product(weight, transposed=True)) / _STEPS
        is_packed = _seconds(lambda: packed(gradients)) + cost < _seconds(lambda: plain(gradients))
    return "packed" if is_packed else "plain"


def _seconds(run: Callable[[], Any]) -> float:
    """The shortest of some runs, after one that does not count."""
    run()
    taken: list[float] = []
    processors = time.process_time()
    while len(taken) < 3 or sum(taken) < _SECONDS:
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    _spent["clock"] += sum(taken)
    _spent["processors"] += time.process_time() - processors
    return min(taken)


def _disturbed(threads: int) -> str | None:
    """What to say if the products did not have the processors to themselves; None if they had.

    A thread that waits for the others of its product is counted as at work: it does not sleep.
    """
    share = _spent["processors"] / (threads * max(_spent["clock"], 1e-9))
    if share >= _SHARE_OF_QUIET:
        return None
    return (
        f"these figures may be wrong: the products had {100 * share:.0f} % of the time of {threads} "
        f"processor{'s' * (threads > 1)}, so something else was computed meanwhile (or waiting threads sleep: "
        "OMP_WAIT_POLICY). Let nothing else run, and measure again."
    )


def _speed(size: str, rows: int, seconds: float | None) -> str:
    return "" if seconds is None else f"{2e-9 * math.prod(_SIZES[size]) * rows / seconds:.0f}"


def _processor_name() -> str:
    import platform

    import torch

    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return str(ask().get("cpu_name") or platform.processor() or platform.machine())


def _as_python(row: ProcessorRow) -> str:
    lines = ["ProcessorRow("]
    for name, value in asdict(row).items():
        if name == "products":
            lines += ["    products={", *(f"        {dtype!r}: {sizes!r}," for dtype, sizes in value.items()), "    },"]
        elif isinstance(value, frozenset):
            names = ", ".join(map(repr, sorted(value)))
            lines.append(f"    {name}=frozenset({f'{{{names}}}' if names else ''}),")
        else:
            lines.append(f"    {name}={value!r},")
    return "\n".join([*lines, ")"])
