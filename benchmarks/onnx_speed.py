"""Time of ONNX Runtime beside the bundled model itself: `python -m benchmarks.onnx_speed --threads 1`."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

import hf_elmo
from hf_elmo.export import ElmoGraph, export_onnx

TEXT = (
    "The committee said on Tuesday that it would publish a report about the state of the roads in the north of the "
    "country , where rain has damaged several bridges this year ."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    import onnxruntime

    torch.set_num_threads(arguments.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled()).eval()
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(model, file)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = ElmoGraph(model).input_names
    for batch in (1, 32):
        # Of different lengths, as sentences are.
        words = TEXT.split()
        sentences = [words[row % 3 :: 1 + row % 2][: len(words) - row % 9] for row in range(batch)]
        inputs = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
        arrays = {name: inputs[name].numpy() for name in names}
        computations = {
            "model": lambda inputs=inputs: model(**inputs, output_hidden_states=True),
            "ONNX Runtime": lambda arrays=arrays: session.run(None, arrays),
        }
        times: dict[str, list[float]] = {name: [] for name in computations}
        with torch.inference_mode():
            for number in range(arguments.repeats + 2):
                for name, compute in computations.items():
                    start = time.perf_counter()
                    compute()
                    if number >= 2:
                        times[name].append(time.perf_counter() - start)
        for name, seconds in times.items():
            middle = 1000 * statistics.median(seconds)
            spread = 1000 * (max(seconds) - min(seconds))
            sizes = f"{batch:3} sentences of at most {inputs['input_ids'].shape[1]} words"
            print(f"{sizes}  {name:13} {middle:7.1f} ms (spread {spread:.1f})")


if __name__ == "__main__":
    main()
