"""WikiText-2: a biLM beside a plain `nn.LSTM` language model of the same size, trained for the same time.

    python -m benchmarks.quality.wikitext2 [--minutes 6] [--arms elmo lstm-sgd ...] --output wikitext2.json

Every arm is trained for the same CPU time (one thread; making and scoring of models not counted), from one seed, with
matrix products in bfloat16, which nearly doubles the speed of all of them (in float32 on processors where oneDNN has no
`nn.LSTM` in bfloat16):

- `elmo`: the biLM with a sampled softmax, AdamW, a short warm-up and a cosine to zero; rows are the text in its order,
  with the LSTM state carried along. It spends half of its time on the backward direction, which is not compared.
- `elmo-shuffled`: the state is carried, but from sentence to sentence in random order, as in the original.
- `elmo-sentences`: whole sentences, each read with a fresh state.
- `elmo-adagrad`: as `elmo`, with the original's recipe (`hf_elmo.training.trainer.ORIGINAL_RECIPE`).
- `lstm-sgd`: two layers of `nn.LSTM` on word embeddings, which are the output layer's weights too, trained as
  pytorch/examples' `word_language_model`: SGD with a learning rate of 20, 20 rows of 35 words in the order of the text,
  gradients clipped at 0.25, dropout 0.2; the learning rate is divided by 4 whenever the validation text is not
  predicted better. There it is looked at once per epoch; here after each tenth of the time, on a twentieth of the text.
- `lstm-adamw`: the same model, with the optimiser, schedule and dropout of `elmo`.

What is predicted is the same in all arms: every word and the end (`</S>`, the examples' `<eos>`) of every line that is
not blank. The vocabulary is all words of the training text, `<unk>` being one of them, and `[UNK]`, `<S>` and `</S>`;
as no other words stand in the validation and test text, `[UNK]` is never to be predicted. A line, which is a paragraph
or a heading, is what is called a sentence above. Published perplexities also count an `<eos>` for each blank line, a
third of all lines and easily predicted: they are lower for it, and not to be compared with these.

Perplexity is of the full softmax, exact over the whole text, of one direction. Running text: in 10 rows, as in the
examples, with the state carried along from the begin of a row to its end. By sentence: each read with a fresh state
(`hf_elmo.perplexity`), of the first 800 sentences only, as it takes longer. Scores are float32.

With `--minutes 3 --scored valid --running elmo lstm-sgd lstm-adamw elmo-adagrad`, on one core of an AMD EPYC, the other
being busy, torch 2.13, one seed; perplexity of the validation text:

                    parameters   steps   epochs   words/s   running   by sentence: forward   backward
    elmo            10,312,193     531     0.33     3,774     410.1                  458.0      455.0
    lstm-sgd        10,273,809     391     0.13     1,517     636.9
    lstm-adamw      10,273,809     393     0.13     1,525   1,301.5
    elmo-sentences  10,312,193     237     0.15     1,681                            669.7      697.0
    elmo-shuffled   10,312,193     397     0.24     2,820                            502.3      510.8

The two recipes later, with `--minutes 3 --arms elmo elmo-adagrad --scored valid --running`:

                    parameters   steps   epochs   words/s   running   by sentence: forward   backward
    elmo            10,312,193     610     0.38     4,334                            406.0      418.4
    elmo-adagrad    10,312,193     561     0.35     3,985                            571.5    1,042.9

These are the first minutes of a training, a third of the text at most; `elmo-adagrad` was not run to its end.
`elmo-shuffled` computes the same as `elmo`, on as many distinct words, so the difference of their speeds is what the
neighbours' work does even to CPU time: less than such a difference proves nothing about the state. `elmo-sentences` is
slow by itself: paragraphs are long, so that a batch of 1,280 words is 10 rows of 140 steps instead of 64 of 20, and its
perplexity says more about that than about the state.

The text is looked for in `lm/wikitext-2` of the folder named by HF_ELMO_SHARED_DATA or of `../shared/data`, or in the
folder given by --data: train.txt, valid.txt and test.txt, each of them plain or .gz.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import TrainerCallback

import hf_elmo
from hf_elmo import ElmoConfig, ElmoForPreTraining, ElmoTokenizer
from hf_elmo.language_model.scoring import perplexity
from hf_elmo.model.lstm.lstm_layer import ElmoState
from hf_elmo.training.batches import RunningText, WordTable
from hf_elmo.training.corpus import Corpus, prepare
from hf_elmo.training.trainer import (
    ORIGINAL_RECIPE,
    LanguageModelTrainer,
    LanguageModelTrainingArguments,
    make_model,
)

from ..harness.data import shared_data
from ..harness.machine import runs_bfloat16_lstm

#: Arms of the biLM: how it reads the text, and its recipe where it is not the modern one.
BILM_ARMS = {
    "elmo": {"shuffle_sentences": False},
    "elmo-shuffled": {},
    "elmo-sentences": {"carry_state": False},
    "elmo-adagrad": {"shuffle_sentences": False, **ORIGINAL_RECIPE},
}
LSTM_ARMS = ("lstm-sgd", "lstm-adamw")
ARMS = ("elmo", "lstm-sgd", "lstm-adamw", "elmo-sentences", "elmo-shuffled", "elmo-adagrad")

MODERN_RECIPE = {
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}
WARM_UP = 0.05
FILTERS = [[1, 32], [2, 32], [3, 64], [4, 96], [5, 128]]
# As in the examples.
LSTM_ROWS, LSTM_STEPS, EVALUATED_ROWS = 20, 35, 10
SGD_RATE, SGD_CLIP, SGD_DROPOUT = 20.0, 0.25, 0.2
SGD_LOOKS, SGD_LOOK_SHARE = 10, 1 / 20


class Budget:
    """CPU time for a training; stopped while the model is only looked at."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.used = 0.0
        self.since: float | None = None

    def start(self) -> None:
        """From now on time counts."""
        self.since = time.process_time()

    def stop(self) -> None:
        """Up to now."""
        self.used, self.since = self.spent, None

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return self.used + (0.0 if self.since is None else time.process_time() - self.since)

    @property
    def share(self) -> float:
        """Share of it that is used."""
        return self.spent / self.seconds

    def rate(self, step: int = 0) -> float:
        """Factor of the learning rate now: up to 1 in the first twentieth, then down to 0 along a cosine."""
        if self.share < WARM_UP:
            # The first update is not to be lost.
            return max(self.share / WARM_UP, 0.01)
        return 0.5 + 0.5 * math.cos(math.pi * min((self.share - WARM_UP) / (1 - WARM_UP), 1.0))


class StopInTime(TrainerCallback):
    """Ends a training when its time is used up."""

    def __init__(self, budget: Budget):
        self.budget = budget

    def on_train_begin(self, args, state, control, **others):
        self.budget.start()

    def on_step_end(self, args, state, control, **others):
        control.should_training_stop |= self.budget.share >= 1

    def on_train_end(self, args, state, control, **others):
        self.budget.stop()


class TimedTrainer(LanguageModelTrainer):
    """A training whose schedule goes by time, not by steps, of which nobody knows the number before."""

    budget: Budget

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.args.lr_scheduler_type != "cosine":
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self.budget.rate)
        return self.lr_scheduler


@dataclass
class Data:
    """WikiText-2 as numbers.

    Attributes:
        texts: `train`, `valid` and `test`.
        tokenizer: With all words of the training text.
    """

    texts: dict[str, Corpus]
    tokenizer: ElmoTokenizer

    @classmethod
    def read(cls, folder: Path, work: Path) -> Data:
        """Reads the files of a folder; numbered texts go to another one.

        Raises:
            ValueError: for a missing file, or words that the training text does not have.
        """
        texts = {}
        for name in ("train", "valid", "test"):
            file = folder / f"{name}.txt"
            file = file if file.is_file() else folder / f"{name}.txt.gz"
            texts[name] = prepare([file], work / name, split_sentences=False, pretokenized=True)
        words = texts["train"].vocabulary()
        for name, text in texts.items():
            if unknown := set(text.lexicon) - set(words):
                raise ValueError(f"{name} has {len(unknown)} words that train has not, one is {min(unknown)!r}.")
        return cls(texts, ElmoTokenizer.create(words))

    def rows(self, name: str, rows: int, steps: int) -> RunningText:
        """A text in its order, as batches of rows that go on from batch to batch."""
        text = self.texts[name]
        rows = min(rows, max(1, text.num_predictions // steps))
        return RunningText(text, WordTable.of(text.lexicon, self.tokenizer), rows, steps, shuffle=False)

    def sentences(self, name: str, most: int) -> list[list[str]]:
        """The first sentences of a text as lists of words."""
        return [self.texts[name].sentence(number) for number in range(min(most, len(self.texts[name].ends)))]


class WordLstm(nn.Module):
    """A word-level language model: embedding, two LSTM layers, and the embedding's weights again as the softmax."""

    def __init__(self, vocab_size: int, size: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.lstm = nn.LSTM(size, size, num_layers=2, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.softmax = nn.Linear(size, vocab_size)
        self.softmax.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.softmax.bias)

    def forward(self, batch: dict[str, Tensor], state: tuple | None) -> tuple[Tensor, tuple]:
        """Summed cross entropy of the next words of a batch of `RunningText`, and the state."""
        hidden, state = self.lstm(self.dropout(self.embedding(batch["input_ids"])), state)
        logits = self.softmax(self.dropout(hidden)).flatten(0, 1)
        loss = F.cross_entropy(logits.float(), batch["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum")
        return loss, tuple(part.detach() for part in state)


def running_perplexity(score: Callable, batches: RunningText, share: float = 1.0) -> tuple[float, int]:
    """Perplexity of a text, and the number of predictions.

    Args:
        score: From a batch and a state to the summed loss of the batch and the next state.
        batches: The text.
        share: Part of it that is read.
    """
    total, count, state = 0.0, 0, None
    with torch.no_grad():
        for number in range(max(1, round(share * len(batches)))):
            batch = batches[0, number]
            loss, state = score(batch, state)
            total += float(loss)
            count += int((batch["labels"] != -100).sum())
    return math.exp(total / count), count


def train_lstm(arm: str, data: Data, options: argparse.Namespace, budget: Budget) -> tuple[WordLstm, dict]:
    """Trains the plain model by one of its two recipes."""
    by_sgd = arm == "lstm-sgd"
    model = WordLstm(len(data.tokenizer), options.lstm_size, SGD_DROPOUT if by_sgd else options.dropout)
    batches = data.rows("train", LSTM_ROWS, LSTM_STEPS)
    looked_at = data.rows("valid", EVALUATED_ROWS, LSTM_STEPS)
    rate, looks, best, best_weights = SGD_RATE, [], math.inf, None
    recipe = MODERN_RECIPE
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"], fused=True
    )
    words = steps = 0
    state = None
    budget.start()
    for step in itertools.count():
        epoch, number = divmod(step, len(batches))
        state = state if number else None
        batch = batches[epoch, number]
        count = int((batch["labels"] != -100).sum())
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            loss, state = model.train()(batch, state)
        (loss / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), SGD_CLIP if by_sgd else recipe["max_grad_norm"])
        if by_sgd:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= rate * parameter.grad
        else:
            optimizer.param_groups[0]["lr"] = recipe["learning_rate"] * budget.rate()
            optimizer.step()
        model.zero_grad()
        words, steps = words + count, step + 1
        finished = budget.share >= 1
        if by_sgd and (finished or budget.share * SGD_LOOKS >= len(looks) + 1):
            budget.stop()
            found, _ = running_perplexity(model.eval(), looked_at, share=SGD_LOOK_SHARE)
            looks.append({"seconds": budget.spent, "perplexity": found, "learning_rate": rate})
            if found < best:
                best, best_weights = found, copy.deepcopy(model.state_dict())
            else:
                rate /= 4
            budget.start()
        if finished:
            break
    budget.stop()
    if best_weights is not None:
        model.load_state_dict(best_weights)
    return model, {"steps": steps, "words": words, "looks": looks}


def train_bilm(
    arm: str, data: Data, options: argparse.Namespace, budget: Budget, folder: Path
) -> tuple[ElmoForPreTraining, dict]:
    """Trains a biLM."""
    config = ElmoConfig(
        filters=FILTERS,
        num_highway_layers=1,
        cell_size=options.cell_size,
        projection_dim=options.projection,
        dropout=options.dropout,
        num_negative_samples=options.samples,
    )
    text = data.texts["train"]
    model, tokenizer = make_model(text, config, vocabulary=text.vocabulary())
    args = LanguageModelTrainingArguments(
        output_dir=str(folder),
        **{**MODERN_RECIPE, **BILM_ARMS[arm]},
        per_device_train_batch_size=options.rows,
        unroll_steps=options.steps,
        # Time ends the training.
        max_steps=10**8,
        bf16=options.precision == "bf16",
        use_cpu=True,
        save_strategy="no",
        logging_steps=100,
        report_to="none",
        disable_tqdm=True,
        seed=options.seed,
    )
    trainer = TimedTrainer(model, args, text, tokenizer, callbacks=[StopInTime(budget)])
    trainer.budget = budget
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    epochs = trainer.state.epoch
    words = round(epochs * text.num_predictions)
    log = [{name: entry[name] for name in ("step", "loss")} for entry in trainer.state.log_history if "loss" in entry]
    return model, {"steps": trainer.state.global_step, "words": words, "log": log}


def run_arm(arm: str, data: Data, options: argparse.Namespace, folder: Path) -> dict:
    """Trains and scores one model; its entry in the results."""
    torch.manual_seed(options.seed)
    budget = Budget(60 * options.minutes)
    if arm in BILM_ARMS:
        model, result = train_bilm(arm, data, options, budget, folder)

        def score(batch: dict, state: ElmoState | None) -> tuple[Tensor, ElmoState]:
            # Without labels the backward direction costs no softmax.
            batch = {**batch, "backward_labels": torch.full_like(batch["backward_labels"], -100)}
            outputs = model(**batch, state=state, return_state=True)
            return outputs.forward_loss * (batch["labels"] != -100).sum(), outputs.state

    else:
        model, result = train_lstm(arm, data, options, budget)
        score = model
    model.eval()
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    result = {"arm": arm, "parameters": parameters, "seconds": budget.spent, **result}
    result["epochs"] = result["words"] / data.texts["train"].num_predictions
    result["words_per_second"] = result["words"] / budget.spent
    started = time.process_time()
    for name in options.scored:
        if arm in options.running:
            found, count = running_perplexity(score, data.rows(name, EVALUATED_ROWS, LSTM_STEPS))
            result[name] = {"running": found, "predictions": count}
        else:
            result[name] = {}
        if arm in BILM_ARMS and name == "valid" and options.sentences:
            each = perplexity(model, data.tokenizer, data.sentences(name, options.sentences))
            apart = {"forward": each.forward, "backward": each.backward, "predictions": each.words}
            result[name] |= {"by_sentence": apart}
    return {**result, "scoring_seconds": time.process_time() - started}


def print_results(results: dict) -> None:
    """The two tables."""
    print(f"\n{results['minutes']:g} minutes of CPU time for each, {results['vocabulary']:,} words to predict")
    print(f"{'':<16}{'parameters':>12}{'steps':>8}{'epochs':>8}{'words/s':>9}", end="")
    print(f"{'running: valid':>16}{'test':>8}{'by sentence: forward':>22}{'backward':>10}")
    for arm in results["arms"]:
        valid, test = arm.get("valid", {}), arm.get("test", {})
        apart = valid.get("by_sentence", {})
        cells = valid.get("running"), test.get("running"), apart.get("forward"), apart.get("backward")
        cells = ["-" if value is None else f"{value:.1f}" for value in cells]
        print(
            f"{arm['arm']:<16}{arm['parameters']:>12,}{arm['steps']:>8,}{arm['epochs']:>8.2f}"
            f"{arm['words_per_second']:>9,.0f}{cells[0]:>16}{cells[1]:>8}{cells[2]:>22}{cells[3]:>10}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> dict:
    """Runs the comparison with the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of train.txt, valid.txt and test.txt")
    parser.add_argument("--minutes", type=float, default=6.0, help="CPU time of each training")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--scored", nargs="*", choices=("valid", "test"), default=["valid", "test"])
    parser.add_argument("--running", nargs="*", choices=ARMS, default=list(ARMS), help="arms scored on running text")
    parser.add_argument("--sentences", type=int, default=800, help="of validation text, scored each on its own")
    parser.add_argument("--cell-size", type=int, default=512, help="of the biLM's LSTMs")
    parser.add_argument("--projection", type=int, default=192, help="of the biLM")
    parser.add_argument("--samples", type=int, default=2048, help="of the biLM's softmax")
    parser.add_argument("--rows", type=int, default=64, help="of the biLM's batches")
    parser.add_argument("--steps", type=int, default=20, help="words of a row in the biLM's batches")
    parser.add_argument("--lstm-size", type=int, default=272, help="of the plain model's embedding and layers")
    parser.add_argument("--dropout", type=float, default=0.0, help="of all arms but lstm-sgd")
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="of training; bf16 where nn.LSTM has it")
    parser.add_argument("--threads", type=int, default=1, help="CPU time is that of all of them together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the results, written after each arm")
    options = parser.parse_args(arguments)
    has_bfloat16 = runs_bfloat16_lstm()
    options.precision = options.precision or ("bf16" if has_bfloat16 else "fp32")
    if options.precision == "bf16" and not has_bfloat16:
        parser.error("nn.LSTM does not run in bfloat16 on this processor: give --precision fp32")
    if options.data is None:
        options.data = shared_data("lm", "wikitext-2")
    datasets.disable_progress_bars()
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as work:
            data = Data.read(options.data, Path(work))
            results = {
                "minutes": options.minutes,
                "vocabulary": len(data.tokenizer) - 1,
                "words": {name: len(text.words) for name, text in data.texts.items()},
                "options": {name: value for name, value in vars(options).items() if name not in ("data", "output")},
                "versions": {"torch": torch.__version__, "hf_elmo": hf_elmo.__version__},
                "arms": [],
            }
            for arm in options.arms:
                results["arms"].append(run_arm(arm, data, options, Path(work) / arm))
                if options.output is not None:
                    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                print_results(results)
    finally:
        torch.set_num_threads(threads)
    return results


if __name__ == "__main__":
    main()
