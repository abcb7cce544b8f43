"""What it costs to see at each call whether weights were changed: the share of a call's time.

    python -m benchmarks.fingerprint [--size small original] [--words 1 20] [--calls 40]

A model keeps copies of its weights, laid out for its products, and compares fingerprints of weights and copies at each
call (`hf_elmo.forget_weights` says what they see). Sizes are those of `benchmarks.run`: "small" is the bundled model's;
weights are random, which cost what trained ones cost. Each call is timed, and the comparisons within it, in CPU time of
the one thread, as other work would interrupt either; what counts is each call's own share. Sizes take turns. Told are
medians, and quartiles of the share.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import hf_elmo
from hf_elmo.model import fingerprint

from .harness.report import table


class Clock:
    """Adds up the time within `Fingerprint.matches`."""

    def __init__(self):
        self.seconds = 0.0
        self._matches = fingerprint.Fingerprint.matches

    def __enter__(self):
        def timed(known, *arguments):
            begin = time.thread_time()
            result = self._matches(known, *arguments)
            self.seconds += time.thread_time() - begin
            return result

        fingerprint.Fingerprint.matches = timed
        return self

    def __exit__(self, *exception):
        fingerprint.Fingerprint.matches = self._matches


def one_call(model: torch.nn.Module, inputs: dict) -> tuple[float, float]:
    """Seconds of CPU time of a call, and of the comparisons in it."""
    with Clock() as clock, torch.inference_mode():
        begin = time.thread_time()
        model(**inputs)
        return time.thread_time() - begin, clock.seconds


def main(arguments: list[str] | None = None) -> dict[tuple[str, int], list[float]]:
    """Measures with the options of a command line: the shares of all calls, by size and number of words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", default=["small", "original"], help="presets of ElmoConfig")
    parser.add_argument("--words", nargs="+", type=int, default=[1, 20], help="words of the one sentence of a call")
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tokenizer = hf_elmo.ElmoTokenizer.create()
    models = {size: hf_elmo.ElmoModel(hf_elmo.ElmoConfig.from_preset(size)).eval() for size in options.size}
    turns = {}
    for words in options.words:
        inputs = dict(tokenizer([["word"] * words], is_split_into_words=True, return_tensors="pt"))
        turns |= {(size, words): (model, inputs) for size, model in models.items()}
    measured: dict[tuple[str, int], list[tuple[float, float]]] = {turn: [] for turn in turns}
    for number in range(options.calls + 2):
        for turn, (model, inputs) in turns.items():
            # Twice, as the call of another size has emptied the processor's caches.
            one_call(model, inputs)
            if number >= 2:
                measured[turn].append(one_call(model, inputs))
            else:
                one_call(model, inputs)
    rows, shares = [], {}
    for (size, words), calls in measured.items():
        shares[size, words] = [compared / total for total, compared in calls]
        low, middle, high = statistics.quantiles(shares[size, words], n=4)
        total, compared = (statistics.median(each) for each in zip(*calls))
        rows.append(
            [size, str(words), f"{total * 1e3:.2f}", f"{compared * 1e6:.0f}", f"{middle:.1%} ({low:.1%}..{high:.1%})"]
        )
    print(table(["size", "words", "call, ms", "comparisons, us", "share"], rows))
    return shares


if __name__ == "__main__":
    main()
