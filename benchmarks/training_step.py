"""A training step of the biLM: hf_elmo's own backward pass, the same in plain operations, and AllenNLP.

    [HF_ELMO_ALLENNLP_PYTHON=PYTHON] python -m benchmarks.training_step [--size original] [--batch 16] [--words 20]

One step is, from character ids that are there already, the pass forward of the character encoder and both LSTM stacks
to all layers, and the pass backward from the mean of their squares to the gradients of all parameters. There is no
softmax and no optimiser in it. Each contestant is a process of its own; they take their steps in turn, so that a busy
machine slows all of them, and the first round is not counted. They have the same random weights and the same real
sentences, cut to --words words; that the gradients agree is checked.

    plain           hf_elmo with the LSTMs in plain operations (`LstmLayer.read`)
    hf_elmo         hf_elmo as it is
    hf_elmo bf16    under autocast
    checkpointing   hf_elmo after `model.gradient_checkpointing_enable()`
    AllenNLP        its `_ElmoBiLm`, if HF_ELMO_ALLENNLP_PYTHON names a Python that has AllenNLP 2.10.1

Memory is what the process takes at most during the steps, above what it had before them (weights and imports).

The text is looked for in `lm/wikipedia_en_2015/valid.txt.gz` of the folder named by HF_ELMO_SHARED_DATA or of
`../shared/data`, or is the file given by --text.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from .harness.data import shared_data

MINI = {"char_embed_dim": 16, "filters": [[1, 32], [2, 32], [3, 64], [4, 96], [5, 128]], "num_highway_layers": 1}
MINI |= {"cell_size": 640, "projection_dim": 192}
CONTESTANTS = ("plain", "hf_elmo", "hf_elmo bf16", "checkpointing", "AllenNLP")


class HfElmo:
    """The model of a folder, trained in one of three ways, in either precision."""

    def __init__(self, name: str, folder: Path):
        from transformers.utils import logging

        from hf_elmo import ElmoModel
        from hf_elmo.model.lstm import bilstm

        logging.disable_progress_bar()
        self.model = ElmoModel.from_pretrained(folder / "model").train()
        self.ids = torch.from_numpy(np.load(folder / "ids.npy"))
        self.bf16 = name.endswith("bf16")
        if name == "plain":
            bilstm.WAYS = bilstm.WAYS[-1:]
        if name == "checkpointing":
            self.model.gradient_checkpointing_enable()

    def forward(self) -> list[torch.Tensor]:
        """All layers of the batch."""
        self.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model(character_ids=self.ids, output_hidden_states=True).hidden_states

    def gradients(self) -> list[torch.Tensor]:
        """Those of the character embedding and of the lowest layer's recurrent weights, forward."""
        layer = self.model.bilstm.forward_layers[0]
        return [self.model.character_encoder.char_embedding.weight.grad[1:], layer.weight_hh.grad]


class AllenNlp:
    """AllenNLP's biLM, with the weights that were exported for it."""

    def __init__(self, name: str, folder: Path):
        from .harness.contestant import hide_torchvision

        hide_torchvision()
        from allennlp.modules.elmo import _ElmoBiLm

        files = (str(folder / "hdf5" / file) for file in ("options.json", "weights.hdf5"))
        self.model = _ElmoBiLm(*files, requires_grad=True).train()
        # It adds the boundaries of sentences itself.
        self.ids = torch.from_numpy(np.load(folder / "ids.npy"))[:, 1:-1]

    def forward(self) -> list[torch.Tensor]:
        """All layers of the batch."""
        self.model.zero_grad()
        self.model._elmo_lstm.reset_states()
        return self.model(self.ids)["activations"]

    def gradients(self) -> list[torch.Tensor]:
        """As those of `HfElmo`."""
        layer = self.model._elmo_lstm.forward_layer_0
        return [self.model._token_embedder._char_embedding_weights.grad[1:], layer.state_linearity.weight.grad]


def memory(which: str) -> float:
    """Megabytes of this process, now (`VmRSS`) or at most (`VmHWM`)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[which].split()[0]) / 1024


def serve(name: str, folder: Path, threads: int) -> None:
    """The process of one contestant: a step for each line that comes in."""
    torch.set_num_threads(threads)
    contestant = (AllenNlp if name == "AllenNLP" else HfElmo)(name, folder)
    before = memory("VmRSS")
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        layers = contestant.forward()
        middle = time.perf_counter()
        sum(layer.float().square().mean() for layer in layers).backward()
        end = time.perf_counter()
        del layers
        np.savez(folder / f"{name}.npz", *(gradient.float().numpy() for gradient in contestant.gradients()))
        times = {"forward": middle - begin, "backward": end - middle, "step": end - begin}
        print(json.dumps(times | {"memory": memory("VmHWM") - before}), flush=True)


def sentences(options: argparse.Namespace) -> list[list[str]]:
    """`options.batch` sentences of `options.words` words, in the order of the text."""
    path = options.text
    if path is None:
        path = shared_data("lm", "wikipedia_en_2015", "valid.txt.gz")
    found = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            words = line.split()
            if len(words) >= options.words:
                found.append(words[: options.words])
            if len(found) == options.batch:
                return found
    sys.exit(f"{path} has only {len(found)} lines of {options.words} words.")


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Writes the model, for both programs, and the character ids."""
    from transformers.utils import logging

    from hf_elmo import ElmoConfig, ElmoModel, ElmoTokenizer
    from hf_elmo.conversion import save_bilm
    from hf_elmo.model.configuration_elmo import PRESETS

    logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = MINI if options.size == "mini" else PRESETS[options.size]
    model = ElmoModel(ElmoConfig(**sizes, dropout=0.0, representation_dropout=0.0))
    with torch.no_grad():
        for name, weight in model.bilstm.named_parameters():
            # As they start, cells and outputs are of order 0.01, far from their clips.
            weight.normal_(std=0.1 if "bias" in name else (2 if "weight_hr" in name else 1) / weight.shape[1] ** 0.5)
    model.save_pretrained(folder / "model")
    save_bilm(model, folder / "hdf5")
    batch = ElmoTokenizer.create()(sentences(options), is_split_into_words=True, return_tensors="np")
    np.save(folder / "ids.npy", batch["character_ids"].astype(np.int64))


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Lets all contestants take their steps in turn.

    Returns:
        The results, as in the JSON file.
    """
    prepare(options, folder)
    processes, python = {}, os.environ.get("HF_ELMO_ALLENNLP_PYTHON")
    names = [name for name in options.contestants if name != "AllenNLP" or python]
    if len(names) < len(options.contestants):
        print("AllenNLP is left out: HF_ELMO_ALLENNLP_PYTHON names no Python that has it.", file=sys.stderr)
    try:
        for name in names:
            command = [python if name == "AllenNLP" else sys.executable, "-m", "benchmarks.training_step"]
            command += ["--serve", name, str(folder)]
            command += ["--threads", str(options.threads)]
            processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
            )
            _answer(processes[name], name)
        rounds: list[dict] = []
        for number in range(options.rounds + 1):
            results = {}
            for name, process in processes.items():
                process.stdin.write("step\n")
                process.stdin.flush()
                results[name] = json.loads(_answer(process, name))
            if number:
                rounds.append(results)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    base = names[-1]
    results = {"torch": torch.__version__, "base": base, **{key: getattr(options, key) for key in _SHOWN}}
    results["contestants"] = {name: _summary(name, base, rounds, folder) for name in names}
    return results


def _answer(process: subprocess.Popen, name: str) -> str:
    line = process.stdout.readline()
    if not line:
        sys.exit(f"The process of {name} has ended: see its message above.")
    return line


_SHOWN = ("size", "batch", "words", "rounds", "threads")


def _summary(name: str, base: str, rounds: list[dict], folder: Path) -> dict:
    ratios = sorted(step[base]["step"] / step[name]["step"] for step in rounds)
    with np.load(folder / f"{name}.npz") as own, np.load(folder / f"{base}.npz") as others:
        differences = [
            float(np.abs(own[file] - others[file]).max() / np.abs(others[file]).max()) for file in others.files
        ]
    medians = {part: statistics.median(step[name][part] for step in rounds) for part in rounds[0][name]}
    return {
        **medians,
        "ratio": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]},
        "gradients_differ_by": max(differences),
    }


def print_results(results: dict) -> None:
    """The table."""
    print(", ".join(f"{key} {results[key]}" for key in (*_SHOWN, "torch")) + "; medians of the rounds")
    print(
        f"{'':<15}{'forward':>10}{'backward':>10}{'step':>10}   {'of ' + results['base']:<24}{'memory':>9}   gradients"
    )
    for name, row in results["contestants"].items():
        ratio = "x {median:.2f} ({least:.2f} to {most:.2f})".format(**row["ratio"])
        times = "".join(f"{1e3 * row[part]:7,.0f} ms" for part in ("forward", "backward", "step"))
        print(f"{name:<15}{times}   {ratio:<26}{row['memory']:6,.0f} MB   {row['gradients_differ_by']:.1e}")


def main(arguments: list[str] | None = None) -> dict | None:
    """Runs the measurement with the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("mini", "small", "medium", "original"), default="original")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--text", type=Path, help="UTF-8 text, a sentence on a line, plain or .gz")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        return serve(options.serve[0], Path(options.serve[1]), options.threads)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    print_results(results)
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
