"""How a process grows while it reads sentences of many shapes: oneDNN keeps what it generated for each product's shape.

    python -m benchmarks.primitive_cache [--sentences 4000] [--capacity 1024 256 128 32]

So does torch's bridge to oneDNN (ideep), in a cache of its own. Each capacity, of one cache and of both
(`ONEDNN_PRIMITIVE_CACHE_CAPACITY`, `LRU_CACHE_CAPACITY`), has a process of its own, with one thread. It reads sentences
of 1 to 40 words by `hf_elmo.embed_sentences` over a tiny model (16 numbers a vector), which has nothing else to keep,
three distinct words a sentence. Told are the growth of the resident memory between the first sentences and the last,
and the CPU time. Runs on Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from .harness.report import table

VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
#: What each keeps if nothing is said.
DEFAULT = 1024


def resident() -> float:
    """The process's resident memory in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def read(sentences: int) -> tuple[float, float]:
    """Growth in MB and seconds of CPU time while `sentences` sentences are read."""
    import torch

    import hf_elmo

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = hf_elmo.ElmoConfig(
        char_embed_dim=4, filters=[[1, 8], [2, 8]], num_highway_layers=1, cell_size=16, projection_dim=8
    )
    model, tokenizer = hf_elmo.ElmoModel(config).eval(), hf_elmo.ElmoTokenizer.create()
    lengths = torch.randint(1, 41, (sentences,)).tolist()
    words = torch.randint(0, 3 * sentences, (sum(lengths),)).tolist()

    def texts():
        for length in lengths:
            yield [f"w{words.pop()}" for _ in range(length)]

    for _ in hf_elmo.embed_sentences(model, tokenizer, [["a", "word"]] * 64):
        pass
    before, begin = resident(), time.process_time()
    for _ in hf_elmo.embed_sentences(model, tokenizer, texts()):
        pass
    return resident() - before, time.process_time() - begin


def main(arguments: list[str] | None = None) -> dict[tuple[int, int], tuple[float, float]]:
    """Measures with the options of a command line: growth in MB and CPU time in s by both capacities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=4000)
    parser.add_argument("--capacity", type=int, nargs="+", default=[DEFAULT, 256, 128, 32])
    options = parser.parse_args(arguments)
    results = {}
    for capacities in dict.fromkeys(pair for each in options.capacity for pair in ((each, DEFAULT), (each, each))):
        code = f"from benchmarks.primitive_cache import read; print(*read({options.sentences}))"
        environment = {**os.environ, **dict(zip(VARIABLES, map(str, capacities))), "OMP_NUM_THREADS": "1"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE)
        growth, seconds = map(float, run.stdout.split())
        results[capacities] = growth, seconds
    rows = [[*map(str, each), f"{growth:.0f}", f"{seconds:.1f}"] for each, (growth, seconds) in results.items()]
    print(table([*(f"`{name}`" for name in VARIABLES), "growth, MB", "CPU time, s"], rows))
    return results


if __name__ == "__main__":
    main()
