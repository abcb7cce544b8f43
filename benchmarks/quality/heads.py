"""The same head on any encoder: what a task gains from its vectors.

The head reads the encoder's vectors with one biLSTM (2 x 128), under dropout. For tags (WNUT-17) a CRF is on top; for
texts (SST-5) and pairs of texts (SNLI) each text is the largest and the mean of its words' outputs, a pair is (u, v,
|u - v|, u * v), and a layer of 128 ReLUs is on top; for a word in two texts (WiC) u and v are the word's outputs. All
arms have the same budget: epochs, batches, rate and patience. The epoch that is best on the development part is tested,
once.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from transformers import set_seed

from hf_elmo.model.heads.crf import LinearChainCrf, tag_constraints

from .encoders import sides
from .tagging import entity_scores
from .task_data import Example, Splits


@dataclass(frozen=True)
class Budget:
    """What every arm may spend.

    Attributes:
        epochs: At most.
        patience: Epochs without a better score on the development part after which training ends.
        batch: Examples in a batch.
        learning_rate: Of AdamW, falling linearly to 0 over all epochs.
        size: Of the head's LSTM, each direction.
        dropout: Before and after the LSTM.
    """

    epochs: int = 15
    patience: int = 5
    batch: int = 32
    learning_rate: float = 2e-3
    size: int = 128
    dropout: float = 0.4


class TaskModel(nn.Module):
    """An encoder with a head.

    Args:
        encoder: As `encoders.py` has them.
        labels: The names of the labels.
        kind: `"tags"`, `"texts"` or `"places"`.
        texts: Sentences of an example.
        budget: Sizes.
    """

    def __init__(self, encoder, labels: Sequence[str], kind: str, texts: int, budget: Budget):
        super().__init__()
        self.encoder, self.kind, self.texts, self.labels = encoder, kind, texts, list(labels)
        self.lstm = nn.LSTM(encoder.size, budget.size, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(budget.dropout)
        width = 2 * budget.size * {"tags": 1, "texts": 2, "places": 1}[kind] * (4 if texts == 2 else 1)
        if kind == "tags":
            self.top: nn.Module = nn.Linear(width, len(labels))
            self.crf = LinearChainCrf(len(labels))
            self.constraints = tag_constraints(tuple(labels))
        else:
            self.top = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), self.dropout, nn.Linear(128, len(labels)))

    def _read(self, split: str, side: int, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        vectors, mask = self.encoder(split, side, numbers)
        packed = pack_padded_sequence(self.dropout(vectors), mask.sum(dim=1), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
        return self.dropout(outputs), mask

    def forward(self, split: str, numbers: Sequence[int], examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Scores: ``(batch, words, labels)`` and the mask for tags, else ``(batch, labels)`` and a mask of true."""
        if self.kind == "tags":
            outputs, mask = self._read(split, 0, numbers)
            return self.top(outputs), mask
        read = []
        for side in range(self.texts):
            outputs, mask = self._read(split, side, numbers)
            if self.kind == "places":
                read.append(outputs[torch.arange(len(examples)), [example.places[side] for example in examples]])
            else:
                absent = ~mask.unsqueeze(-1)
                largest = outputs.masked_fill(absent, -torch.inf).amax(dim=1)
                read.append(torch.cat([largest, outputs.masked_fill(absent, 0).sum(1) / mask.sum(1, keepdim=True)], 1))
        if self.texts == 2:
            u, v = read
            read = [u, v, (u - v).abs(), u * v]
        return self.top(torch.cat(read, dim=1)), torch.ones(len(examples), dtype=torch.bool)

    def loss(self, split: str, numbers: Sequence[int], examples: Sequence[Example]) -> Tensor:
        """The mean negative log-likelihood of an example."""
        scores, mask = self(split, numbers, examples)
        ids = [torch.tensor([self.labels.index(label) for label in example.labels]) for example in examples]
        if self.kind == "tags":
            return self.crf(scores, pad_sequence(ids, batch_first=True), mask, None, self.constraints) / len(examples)
        return F.cross_entropy(scores, torch.cat(ids))

    @torch.no_grad()
    def predict(self, split: str, examples: Sequence[Example], batch: int = 64) -> list[list[str]]:
        """The labels of all examples of a split."""
        self.eval()
        found = []
        for begin in range(0, len(examples), batch):
            some = examples[begin : begin + batch]
            scores, mask = self(split, range(begin, begin + len(some)), some)
            if self.kind == "tags":
                rows = self.crf.viterbi(scores, mask, None, self.constraints)
                found += [
                    [self.labels[tag] for tag in row[keep].tolist()] for row, keep in zip(rows, mask, strict=True)
                ]
            else:
                found += [[self.labels[label]] for label in scores.argmax(dim=1).tolist()]
        return found


def score(predicted: list[list[str]], examples: Sequence[Example], kind: str) -> float:
    """F1 of entities, or accuracy; in percent."""
    gold = [example.labels for example in examples]
    if kind == "tags":
        return entity_scores(predicted, gold)["f1"]
    return 100 * sum(one == other for one, other in zip(predicted, gold, strict=True)) / len(gold)


def run_task(
    kind: str, splits: Splits, make_encoder: Callable[[], nn.Module], budget: Budget, seed: int, tested: str = "test"
) -> dict[str, float]:
    """Trains a head, and what is to be trained of its encoder, with early stopping, and tests it once.

    Args:
        kind: `"tags"`, `"texts"` or `"places"`.
        splits: The task: `train`, `dev` and `test`.
        make_encoder: Makes an encoder of the task; called after the seed is set.
        budget: The same for all arms.
        seed: Of fresh weights, dropout and the order of examples.
        tested: The split that is tested; `"dev"` where the test set is to be spared.

    Returns:
        `dev` and `test` (scores in percent), `epochs` run, `trained_parameters`, and `cpu_seconds`.
    """
    set_seed(seed)
    began = time.process_time()
    train = splits["train"]
    labels = sorted({label for example in train for label in example.labels} - {"O"})
    if kind == "tags":
        # An entity that goes on is a tag of every type, whether or not training has one.
        types = sorted({label[2:] for label in labels})
        labels = ["O", *(f"{letter}-{each}" for each in types for letter in "BI")]
    model = TaskModel(make_encoder(), labels, kind, sides(splits), budget)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=budget.learning_rate, weight_decay=0.01)
    steps = budget.epochs * -(-len(train) // budget.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    best, best_state, waited, epoch = -1.0, None, 0, 0
    while epoch < budget.epochs:
        epoch += 1
        model.train()
        order = torch.randperm(len(train)).tolist()
        for begin in range(0, len(order), budget.batch):
            numbers = order[begin : begin + budget.batch]
            loss = model.loss("train", numbers, [train[number] for number in numbers])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            schedule.step()
        reached = score(model.predict("dev", splits["dev"]), splits["dev"], kind)
        if reached > best:
            best, waited = reached, 0
            best_state = copy.deepcopy({name: each for name, each in model.named_parameters() if each.requires_grad})
        else:
            waited += 1
            if waited >= budget.patience:
                break
    model.load_state_dict(best_state or {}, strict=False)
    return {
        "dev": best,
        "test": best if tested == "dev" else score(model.predict(tested, splits[tested]), splits[tested], kind),
        "epochs": epoch,
        "trained_parameters": sum(each.numel() for each in trained),
        "cpu_seconds": round(time.process_time() - began, 1),
    }
