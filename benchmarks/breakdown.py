"""Where hf_elmo's time goes: in matrix products, in other operators, and outside of torch.

    python -m benchmarks.breakdown [--work FOLDER] [--rows NAME ...] [--json FILE]

The rows are those of `run.py`, each in a process of its own that was warmed up, measured by torch's profiler (which
itself takes about a microsecond an operator). Beside each share stands how fast the products were: the operations of
the floor (`harness/floor.py`) over their time, the weights' bytes over their time, and the ratio to the fastest product
measured in the same process. Where that ratio is small, the products have too few rows to be fast, or their weights are
read slower than a plain sum reads memory. Where products take a small share, the rest are operators on few numbers,
which take some microseconds each however few the numbers are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from hf_elmo.whole_files import new_file

from .harness.contestant import DOES, HfElmo
from .harness.floor import Shape, floor
from .harness.machine import BLOCK, Machine
from .harness.report import table
from .run import ROWS, Row, prepare

#: Operators that are products; the names of torch's profiler.
PRODUCTS = {
    "mkldnn::_linear_pointwise",
    "quantized::linear_dynamic",
    "aten::addmm",
    "aten::mm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::mkldnn_convolution",
    "aten::convolution_backward",
}


def measure(row: Row, kind: str, work: Path, threads: int) -> dict:
    """Profiles a row in this process.

    Returns:
        `seconds` of wall time, of which `products` and `operators` (others) were spent in operators; `count` of
        operators; `operations` and `weight_bytes` of the floor; `fastest`, operations per second of a product.
    """
    from torch.profiler import ProfilerActivity, profile

    contestant = HfElmo(threads)
    contestant.load(str(work / row.size), kind, row.is_trained)
    sentences = json.loads((work / "sentences.json").read_text(encoding="utf-8"))
    if row.words:
        sentences = [each[: row.words] for each in sentences if len(each) >= row.words]
    words, others = sentences[: row.sentences], sentences[row.sentences : row.sentences + row.batch]
    batches = [words[begin : begin + row.batch] for begin in range(0, len(words), row.batch)]

    def run() -> None:
        if row.task == "corpus":
            for _ in contestant.read_corpus(words, row.batch):
                pass
        for batch in batches if row.task != "corpus" else []:
            getattr(contestant, DOES.get(row.task, "read"))(batch)

    fastest = Machine([BLOCK], [kind]).measure()["operations"][kind]
    getattr(contestant, DOES.get(row.task, "read"))(others)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        begin = time.perf_counter()
        run()
        seconds = time.perf_counter() - begin
    events = profiled.key_averages()
    spent = {event.key: event.self_cpu_time_total / 1e6 for event in events}
    products = sum(value for name, value in spent.items() if name in PRODUCTS)
    shape = Shape.of(work / row.size / "fp32")
    of_calls = [batches] if row.task == "corpus" or row.is_trained else [[batch] for batch in batches]
    # Bandwidth plays no part here: only the work is asked for.
    parts = [floor(shape, call, kind, 1.0, lambda size: float("inf"), row.is_trained) for call in of_calls]
    return {
        "row": row.name,
        "kind": kind,
        "words": sum(map(len, words)),
        "seconds": seconds,
        "products": products,
        "operators": sum(spent.values()) - products,
        "count": sum(event.count for event in events),
        "operations": sum(part.operations for part in parts),
        "weight_bytes": sum(part.weight_bytes for part in parts),
        "fastest": fastest,
    }


def line(result: dict) -> list[str]:
    """A measure, for the table."""
    seconds, products = result["seconds"], result["products"]
    speed = result["operations"] / products
    return [
        result["row"],
        result["kind"],
        f"{1e3 * seconds / result['words']:.2f}",
        f"{100 * products / seconds:.0f}",
        f"{100 * result['operators'] / seconds:.0f}",
        f"{100 * (1 - (products + result['operators']) / seconds):.0f}",
        f"{speed / 1e9:.0f}",
        f"{100 * speed / result['fastest']:.0f}",
        f"{result['weight_bytes'] / products / 1e9:.1f}",
        f"{result['count'] / result['words']:.0f}",
    ]


HEADS = ["", "numbers", "ms/word", "% products", "% other operators", "% outside of operators"]
HEADS += ["GFLOP/s of products", "% of the fastest", "GB/s of weights", "operators/word"]


def main(arguments: list[str] | None = None) -> list[dict]:
    """Measures what a command line asks for, and gives all numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for models and sentences, as of benchmarks.run")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only rows whose names hold one of these")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if row.is_read or row.is_trained]
    if options.one:
        row = next(row for row in rows if row.name == options.one[0])
        result = measure(row, options.one[1], options.work, options.threads)
        print(json.dumps(result))
        return [result]
    if options.rows:
        rows = [row for row in rows if any(name in row.name for name in options.rows)]
    results = []
    with ExitStack() as stack:
        work = (options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        prepare(work, None)
        for row in rows:
            for kind in row.kinds:
                command = [sys.executable, "-m", "benchmarks.breakdown", "--work", work, "--threads", options.threads]
                command += ["--one", row.name, kind]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                if done.returncode:
                    raise OSError(f"{row.name} in {kind} failed: {done.stderr.strip()[-500:]}")
                results.append(json.loads(done.stdout.splitlines()[-1]))
                print(*line(results[-1]), file=sys.stderr, sep=", ", flush=True)
    if options.json:
        with new_file(options.json) as temporary:
            temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(HEADS, [line(result) for result in results]))
    return results


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
