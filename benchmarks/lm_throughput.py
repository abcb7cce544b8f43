"""Words per second in training a biLM: hf_elmo, beside the same model of `nn.LSTM` layers with a full softmax.

    python -m benchmarks.lm_throughput [--rounds 15] [--threads 1] [--output FILE.json]

The architecture is that of the bundled elmo-mini. Both models read the same running text, 64 rows of 20 words for each
direction, with the LSTM state carried along, and are updated by AdamW after each batch (with --muon hf_elmo's also by
Muon on its hidden matrices). They have the same character CNN, highway, layer sizes, skip connection and
vocabulary (12,000 words). They differ in three things:

- hf_elmo computes each distinct word of a batch once; the other has the character CNN read all words of it.
- hf_elmo's LSTMs are its own, with clips; the other's are `nn.LSTM(proj_size=...)`, which has none.
- hf_elmo's softmax samples 2,048 words per direction; the other's is over the whole vocabulary.

One step is everything from the numbered text to the updated weights. A word counts once, though both directions read
it. One round takes a step of each model in float32 and in bfloat16 (autocast), in turn, so that a busy machine slows
all of them; with one thread times are CPU time, which is wall time on a machine with nothing else to do; with
more they are wall time. The first round is not counted. What counts is the median of the rounds, and the median of each
round's ratio.

Parts of a step are told apart by hooks: the backward pass goes from the loss to the top of the LSTMs, from there to the
words' vectors, and from there to the characters.

With --rounds 12, on one core of an AMD EPYC (AVX-512 with bfloat16) whose other core was busy, torch 2.13: words per
second and milliseconds of a step (forward + backward), medians.

                    words/s   characters     LSTMs    softmax   optimizer   step
    hf_elmo bf16      3,250      47 +  94   72 + 126   18 +  23      8       394
    nn.LSTM bf16      1,196     143 + 334   68 + 126  161 + 220      8     1,071
    hf_elmo fp32      1,713      50 +  97  176 + 322   34 +  55      8       747
    nn.LSTM fp32        753     163 + 379  167 + 314  261 + 403      9     1,700

That is 2.64 times as many words in bfloat16 (2.53 to 3.05), 2.30 in float32 (2.09 to 2.64). The LSTMs themselves take
as long: all of it is won by the distinct words and the samples.

With --rounds 9 --precisions fp32 --muon, on one core of an AMD EPYC (Zen 3) whose other core was quiet, AdamW takes 18
ms of a step of 1,326, and Muon with AdamW 181 of 1,462: 12 % of a step of 1,280 words.

With --rounds 12 --threads 2, both cores being quiet: 5,316 words/s against 2,107 in bfloat16, 2.46 times as many (1.85
to 2.82), and 3,223 against 1,431 in float32, 2.27 times (1.93 to 2.38).

The text is looked for in `lm/wikipedia_en_2015/valid.txt.gz` of the folder named by HF_ELMO_SHARED_DATA or of
`../shared/data`, or is the files given by --text; the vocabulary is its most frequent words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import datasets
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_elmo import ElmoConfig, ElmoForPreTraining
from hf_elmo.model.character_encoder import CharacterEncoder
from hf_elmo.training.batches import RunningText, WordTable
from hf_elmo.training.corpus import prepare
from hf_elmo.training.muon import MuonWithAdamW, is_hidden_matrix
from hf_elmo.training.trainer import make_model

from .harness.data import shared_data

#: elmo-mini.
SIZES = {
    "char_embed_dim": 16,
    "filters": [[1, 32], [2, 32], [3, 64], [4, 96], [5, 128]],
    "num_highway_layers": 1,
    "cell_size": 640,
    "projection_dim": 192,
    "dropout": 0.0,
}
PARTS = ("data", "characters", "LSTMs", "softmax", "optimizer")
#: hf_elmo's model that takes its steps with Muon.
MUON = "hf_elmo, Muon"


def _now() -> float:
    """Seconds: of the clock if there are several threads, whose CPU time counts their waiting for each other."""
    return time.perf_counter() if torch.get_num_threads() > 1 else time.process_time()


class EveryWord(CharacterEncoder):
    """The character CNN of all words of a batch, one by one."""

    def forward(self, character_ids: Tensor) -> Tensor:
        """``(rows, words, chars)`` to ``(rows, words, projection_dim)``."""
        return self.encode(character_ids.flatten(0, 1)).unflatten(0, character_ids.shape[:2])


class PlainStacks(nn.Module):
    """Both directions, layer by layer `nn.LSTM` with a projection, because of the skip connection."""

    def __init__(self, config: ElmoConfig):
        super().__init__()
        size, projection = config.cell_size, config.projection_dim
        # `proj_size` has to be smaller than the cell.
        options = {"batch_first": True, "proj_size": projection if config.has_lstm_projection else 0}
        self.stacks = nn.ModuleList(
            nn.ModuleList(nn.LSTM(projection, size, **options) for _ in range(config.num_layers)) for _ in range(2)
        )

    def forward(self, words: list[Tensor], states: list | None) -> tuple[Tensor, list]:
        """``(rows, words, dim)`` of each direction to the top layer, ``(rows, words, 2 * dim)``, and the states."""
        tops, new_states = [], []
        for direction, (stack, x) in enumerate(zip(self.stacks, words, strict=True)):
            x = x.flip(1) if direction else x
            for depth, layer in enumerate(stack):
                y, state = layer(x, None if states is None else states[len(new_states)])
                new_states.append(tuple(part.detach() for part in state))
                x = x + y if depth else y
            tops.append(x.flip(1) if direction else x)
        return torch.cat(tops, dim=-1), new_states


class PlainBilm(nn.Module):
    """The biLM made of torch's own layers, as one would write it first."""

    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.characters = EveryWord(config)
        self.lstms = PlainStacks(config)
        self.softmax = nn.Linear(config.projection_dim, config.vocab_size)

    def forward(
        self, character_ids, backward_character_ids, labels, backward_labels, state=None, **others
    ) -> tuple[Tensor, list]:
        """The mean loss of both directions and the state, for a batch of `RunningText`, whose rows are all full."""
        words = [self.characters(ids) for ids in (character_ids, backward_character_ids)]
        top, state = self.lstms(words, state)
        tops, targets = top.chunk(2, dim=-1), (labels[:, 1:], backward_labels[:, :-1])
        losses = [
            F.cross_entropy(self.softmax(x).flatten(0, 1).float(), ids.flatten())
            for x, ids in zip(tops, targets, strict=True)
        ]
        return sum(losses) / 2, state


class Stopwatch:
    """Time of the parts of steps."""

    def __init__(self):
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.mark = _now()

    def lap(self, part: str) -> None:
        """What was done since the last lap was this part."""
        now = _now()
        self.seconds[part] += now - self.mark
        self.mark = now

    def watch(self, characters: nn.Module, lstms: nn.Module, top) -> None:
        """Tells the passes through two modules from the rest of the model, which is the softmax.

        Args:
            characters: Makes the words' vectors.
            lstms: Reads them.
            top: Finds the top layer in what `lstms` returns.
        """
        characters.register_forward_hook(self._after_characters)
        lstms.register_forward_hook(lambda _, __, output: self._after_lstms(top(output)))

    def _after_characters(self, module, inputs, vectors: Tensor | tuple[Tensor, Tensor]) -> None:
        self.lap("characters, forward")
        vectors = vectors[0] if isinstance(vectors, tuple) else vectors
        # The engine takes the nodes made last first: all of the LSTMs are done when the first such gradient is used.
        vectors.register_hook(lambda gradient: self._lap_once("LSTMs, backward"))

    def _after_lstms(self, top: Tensor) -> None:
        self.lap("LSTMs, forward")
        top.register_hook(lambda gradient: self.lap("softmax, backward"))

    def _lap_once(self, part: str) -> None:
        if part not in self.seconds:
            self.lap(part)


class Contestant:
    """A model in training, in one precision."""

    def __init__(self, model: nn.Module, batches: RunningText, bf16: bool, muon: bool):
        self.model, self.batches, self.bf16 = model.train(), batches, bf16
        self.own = isinstance(model, ElmoForPreTraining)
        if muon:
            parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
            for name, parameter in model.named_parameters():
                parts[is_hidden_matrix(name, parameter, model)].append(parameter)
            self.optimizer = MuonWithAdamW(parts[True], [{"params": parts[False]}], fused=True)
        else:
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
        self.watch = Stopwatch()
        if self.own:
            self.watch.watch(model.elmo.character_encoder, model.elmo.bilstm, lambda output: output[0][-1])
        else:
            self.watch.watch(model.characters, model.lstms, lambda output: output[0])
        self.state = None
        self.loss = float("nan")

    def step(self, number: int) -> dict[str, float]:
        """One update; seconds of each part of it."""
        watch = self.watch
        watch.begin()
        # The last batch of an epoch has rows of different lengths, which are not to be compared here.
        batch = self.batches[divmod(number, len(self.batches) - 1)]
        watch.lap("data")
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            if self.own:
                outputs = self.model(**batch, state=self.state, return_state=True)
                loss, self.state = outputs.loss, outputs.state.detach()
            else:
                loss, self.state = self.model(**batch, state=self.state)
        watch.lap("softmax, forward")
        loss.backward()
        watch.lap("characters, backward")
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        watch.lap("optimizer")
        self.loss = loss.item()
        return dict(watch.seconds)


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Trains both models on the same text in turn; the results, as in the JSON file."""
    corpus = prepare(options.text, folder / "corpus", split_sentences=True)
    torch.manual_seed(0)
    config = ElmoConfig(**{**SIZES, "cell_size": options.cell}, num_negative_samples=options.samples)
    _, tokenizer = make_model(corpus, config, vocabulary_size=options.vocabulary)
    batches = RunningText(corpus, WordTable.of(corpus.lexicon, tokenizer), options.rows, options.words)
    if len(batches) < 2:
        sys.exit(f"The text has {corpus.num_predictions:,} words: too few for a batch of full rows.")
    models = {"hf_elmo": lambda: ElmoForPreTraining(config), "nn.LSTM": lambda: PlainBilm(config)}
    if options.muon:
        models[MUON] = models["hf_elmo"]
    contestants = {
        (name, precision): Contestant(make(), batches, precision == "bf16", name == MUON)
        for name, make in models.items()
        for precision in options.precisions
    }
    rounds = []
    for number in range(options.rounds + 1):
        seconds = {key: contestant.step(number) for key, contestant in contestants.items()}
        if number:
            rounds.append({key: {"step": sum(parts.values()), **parts} for key, parts in seconds.items()})
    words = options.rows * options.words
    results = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "words_per_step": words,
        "vocabulary": config.vocab_size,
        "samples": options.samples,
        "words_of_text": len(corpus.words),
        "parameters": {
            name: _parameters(contestants[name, options.precisions[0]].model) for name in ("hf_elmo", "nn.LSTM")
        },
        "models": [],
        "ratios": {},
    }
    for (name, precision), contestant in contestants.items():
        times = [step[name, precision] for step in rounds]
        speeds = sorted(words / step["step"] for step in times)
        results["models"].append(
            {
                "model": name,
                "precision": precision,
                "words_per_second": statistics.median(speeds),
                "least": speeds[0],
                "most": speeds[-1],
                "milliseconds": {part: 1e3 * statistics.median(step[part] for step in times) for part in times[0]},
                "last_loss": contestant.loss,
            }
        )
    for first, second in itertools.product(contestants, repeat=2):
        if first[0] == "hf_elmo" and second[0] == "nn.LSTM":
            ratios = sorted(step[second]["step"] / step[first]["step"] for step in rounds)
            results["ratios"][f"hf_elmo {first[1]} : nn.LSTM {second[1]}"] = {
                "median": statistics.median(ratios),
                "least": ratios[0],
                "most": ratios[-1],
            }
    return results


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def print_results(results: dict) -> None:
    """The tables."""
    own, plain = results["parameters"].values()
    print(
        f"{own:,} parameters (nn.LSTM: {plain:,}, with two biases), vocabulary {results['vocabulary']:,}, "
        f"{results['samples']:,} samples, {results['words_per_step']:,} words per step, "
        f"{results['threads']} thread(s), {results['rounds']} rounds; medians (least to most):"
    )
    for model in results["models"]:
        print(
            f"  {model['model']:<13} {model['precision']:<5} {model['words_per_second']:8,.0f} words/s "
            f"({model['least']:,.0f} to {model['most']:,.0f})"
        )
    for name, ratio in results["ratios"].items():
        print(f"  {name:<30} {ratio['median']:.2f} x ({ratio['least']:.2f} to {ratio['most']:.2f})")
    print(f"Milliseconds of a step: {'forward + backward':>30}")
    print(f"  {'':<18}" + "".join(f"{part:>17}" for part in PARTS) + f"{'step':>9}")
    for model in results["models"]:
        times = model["milliseconds"]
        cells = [
            f"{times[part]:.0f}"
            if part in times
            else f"{times[f'{part}, forward']:.0f} + {times[f'{part}, backward']:.0f}"
            for part in PARTS
        ]
        name = f"{model['model']} {model['precision']}"
        print(f"  {name:<18}" + "".join(f"{cell:>17}" for cell in cells) + f"{times['step']:9.0f}")


def main(arguments: list[str] | None = None) -> dict:
    """Runs the measurement with the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", help="UTF-8 text, plain or .gz")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--words", type=int, default=20, help="words of a row in a batch")
    parser.add_argument("--vocabulary", type=int, default=12_000)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--cell", type=int, default=SIZES["cell_size"], help="size of the LSTMs' cells")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--muon", action="store_true", help="let hf_elmo take its steps with Muon, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    if options.text is None:
        options.text = [shared_data("lm", "wikipedia_en_2015", "valid.txt.gz")]
    datasets.disable_progress_bars()
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(options, Path(folder))
    finally:
        torch.set_num_threads(threads)
    print_results(results)
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
