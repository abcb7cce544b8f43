"""The batches that a biLM is trained on: rows of running text, or whole sentences.

In the original (bilm-tf, `bilm/data.py`) every row of a batch goes on where the same row of the batch before ended, and
the LSTM state with it; the two directions read the sentences in different orders. Here a batch is computed from its
number alone, so that training resumes anywhere without reading what lies before, and every word of the text is
predicted exactly once per epoch and direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..model.tokenization_elmo import SPECIAL_WORDS, ElmoTokenizer, character_rows
from .corpus import Corpus

# Places of the boundaries in the tables of words, before the lexicon.
_BOS, _EOS, _FIRST_WORD = 0, 1, 2


@dataclass(frozen=True)
class WordTable:
    """What the model reads and predicts of each word: `<S>`, `</S>`, then the words of a corpus' lexicon.

    Attributes:
        character_ids: ``(2 + distinct words, chars)``, int16; int32 for other characters than bytes, and word ids.
            ``(2 + distinct words, 1)``, int32, where only word ids are read.
        word_ids: ``(2 + distinct words,)``, int64: ids in the tokenizer's vocabulary.
    """

    character_ids: np.ndarray
    word_ids: np.ndarray

    @classmethod
    def of(cls, lexicon: list[str], tokenizer: ElmoTokenizer) -> WordTable:
        """The table of a lexicon. Special words that stand in a text are words like others, outside the vocabulary."""
        if not tokenizer.reads_characters:
            ids = _word_ids(lexicon, tokenizer, None)
            return cls(ids.astype(np.int32)[:, None], ids)
        length, characters = tokenizer.max_characters_per_token, tokenizer.characters
        boundaries, _ = character_rows([SPECIAL_WORDS[2], SPECIAL_WORDS[3]], length, characters=characters)
        are_bytes_alone = characters is None and not tokenizer.word_ids_in_rows
        shape = _FIRST_WORD + len(lexicon), tokenizer.row_length
        letters = np.empty(shape, dtype=np.int16 if are_bytes_alone else np.int32)
        letters[:_FIRST_WORD, :length] = boundaries
        for begin in range(0, len(lexicon), 2**16):
            rows, _ = character_rows(lexicon[begin : begin + 2**16], length, boundaries={}, characters=characters)
            letters[_FIRST_WORD + begin : _FIRST_WORD + begin + len(rows), :length] = rows
        # Of characters as of bytes the model reads the first, but words are looked up as they are read by these alone.
        ids = _word_ids(lexicon, tokenizer, None if characters is None else length - 2)
        if tokenizer.word_ids_in_rows:
            letters[:, -1] = ids
        return cls(letters, ids)

    def ids(self, places: np.ndarray) -> Tensor:
        """Word ids, int64, of the shape of `places`."""
        return torch.from_numpy(self.word_ids[places])

    def characters(self, places: np.ndarray) -> Tensor:
        """``(..., chars)``, int64."""
        return torch.from_numpy(self.character_ids[places].astype(np.int64))


def _word_ids(lexicon: list[str], tokenizer: ElmoTokenizer, end: int | None) -> np.ndarray:
    """The ids of `<S>`, `</S>` and the words, ``(2 + distinct words,)``, int64; words are looked up up to `end`."""
    numbers, unknown = tokenizer.get_vocab(), tokenizer.unk_token_id
    words = (unknown if word[:end] in SPECIAL_WORDS else numbers.get(word[:end], unknown) for word in lexicon)
    return np.fromiter((tokenizer.bos_token_id, tokenizer.eos_token_id, *words), dtype=np.int64)


class EpochOrder:
    """A corpus as one direction reads it in one epoch: sentence after sentence, shuffled or in the order of the text.

    Position p is the p-th prediction. Forward, a sentence is read as `<S> first ... last` and each word predicts the
    next one, up to `</S>`; backward as `</S> last ... first`, down to `<S>`.
    """

    def __init__(self, corpus: Corpus, seed: int, epoch: int, backward: bool, shuffle: bool = True):
        self.corpus = corpus
        self.backward = backward
        count = len(corpus.ends)
        if shuffle:
            self.order = np.random.default_rng([seed, epoch, int(backward)]).permutation(count)
        else:
            self.order = np.arange(count)[::-1] if backward else np.arange(count)
        ends = np.asarray(corpus.ends)
        lengths = np.diff(ends, prepend=0)[self.order]
        self.starts = np.concatenate([[0], np.cumsum(lengths + 1)])

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is read and what is predicted at positions, both as places in a `WordTable`, of the same shape."""
        rank = np.searchsorted(self.starts, positions, side="right") - 1
        offset = positions - self.starts[rank]
        sentence = self.order[rank]
        end = np.asarray(self.corpus.ends)[sentence]
        length = self.starts[rank + 1] - self.starts[rank] - 1
        if self.backward:
            here, there, first, last = end - offset, end - 1 - offset, _EOS, _BOS
        else:
            here, there, first, last = end - length + offset - 1, end - length + offset, _BOS, _EOS
        words = self.corpus.words
        limit = len(words) - 1
        read = np.where(offset == 0, first, words[np.clip(here, 0, limit)] + _FIRST_WORD)
        predicted = np.where(offset == length, last, words[np.clip(there, 0, limit)] + _FIRST_WORD)
        return read, predicted


class RunningText(Dataset):
    """Batches of rows of running text, each the continuation of the same row in the batch before.

    The text, in its order of the epoch, is cut into as many rows as all processes have together, equally long but for
    one word, and these into batches of `unroll_steps` words; the last batch of an epoch is shorter. Only then may a row
    be a word longer than another. Both directions have orders of their own.

    A batch has `character_ids` and `backward_character_ids` ``(rows, words, chars)``, `attention_mask` and `input_ids`
    ``(rows, words)``, `labels` and `backward_labels` ``(rows, words + 1)``: as `ElmoForPreTraining` takes them.
    """

    carries_state = True

    def __init__(
        self,
        corpus: Corpus,
        table: WordTable,
        rows: int,
        unroll_steps: int,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
        shuffle: bool = True,
    ):
        """Plans the batches of one process.

        Args:
            corpus: The text.
            table: Its words.
            rows: Rows of a batch of one process.
            unroll_steps: Words of a row, which is how far gradients reach back.
            seed: Decides the orders.
            process: Number of this process, from 0; each has rows of its own.
            processes: Number of processes.
            shuffle: Shuffle the sentences in each epoch, and for each direction in another way. False: leave them in
                the order of the text, for texts whose sentences are to be predicted from the sentences before.

        Raises:
            ValueError: if the text does not fill one batch of every process.
        """
        self.corpus, self.table, self.unroll_steps, self.seed, self.shuffle = corpus, table, unroll_steps, seed, shuffle
        all_rows = rows * processes
        _check_size(corpus, all_rows * unroll_steps, f"{all_rows} rows of {unroll_steps} words")
        bounds = np.arange(all_rows + 1) * corpus.num_predictions // all_rows
        self.begins = bounds[:-1][process * rows : (process + 1) * rows]
        self.ends = bounds[1:][process * rows : (process + 1) * rows]
        self.length = -(-int(np.diff(bounds).max()) // unroll_steps)

    def __len__(self) -> int:
        return self.length

    @lru_cache(maxsize=2)  # noqa: B019 (the current epoch of a training that lives as long as the process)
    def orders(self, epoch: int) -> tuple[EpochOrder, EpochOrder]:
        """How the two directions read the text in an epoch."""
        forward, backward = (
            EpochOrder(self.corpus, self.seed, epoch, is_backward, self.shuffle) for is_backward in (False, True)
        )
        return forward, backward

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        """The batch at a place, which is the epoch and the number of the batch in it."""
        epoch, number = place
        begin = self.begins + number * self.unroll_steps
        lengths = np.clip(self.ends - begin, 0, self.unroll_steps)
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]
        forward, backward = self.orders(epoch)
        read, predicted = forward.read(np.where(mask, begin[:, None] + columns, 0))
        # The backward direction reads a row from its last word to its first, and finds the next batch before it.
        back_read, back_predicted = backward.read(np.where(mask, (begin + lengths - 1)[:, None] - columns, 0))
        present = torch.from_numpy(mask)
        none = torch.full((len(mask), 1), -100)
        return {
            "input_ids": self.table.ids(read) * present,
            "character_ids": self.table.characters(read) * present.unsqueeze(-1),
            "backward_character_ids": self.table.characters(back_read) * present.unsqueeze(-1),
            "attention_mask": present.long(),
            "labels": torch.cat([none, self.table.ids(predicted).masked_fill(~present, -100)], dim=1),
            "backward_labels": torch.cat([self.table.ids(back_predicted).masked_fill(~present, -100), none], dim=1),
        }


class WholeSentences(Dataset):
    """Batches of whole sentences of like lengths, each read with a fresh state; both directions read the same ones.

    A batch has about `words` predictions per process. Its fields are those of `RunningText` without
    `backward_character_ids`; a row is a sentence.
    """

    carries_state = False

    # Sentences are sorted by length among those of this many batches; then the batches are shuffled.
    _WINDOW = 100

    def __init__(
        self, corpus: Corpus, table: WordTable, words: int, seed: int = 0, process: int = 0, processes: int = 1
    ):
        """Plans the batches of one process.

        Args:
            corpus: The text.
            table: Its words.
            words: Predictions of a batch, per direction and process.
            seed: Decides the order.
            process: Number of this process, from 0; each has batches of its own.
            processes: Number of processes.

        Raises:
            ValueError: if the text does not fill one batch of every process.
        """
        self.corpus, self.table, self.words, self.seed = corpus, table, words, seed
        self.process, self.processes = process, processes
        _check_size(corpus, words * processes, f"{words} words" + (f" x {processes} processes" * (processes > 1)))
        self.steps = max(1, round(corpus.num_predictions / (words * processes)))
        if self.steps * processes > len(corpus.ends):
            raise ValueError(
                f"The text has {len(corpus.ends):,} sentences, fewer than batches of {words:,} words: sentences are "
                "too long, or batches too small."
            )

    def __len__(self) -> int:
        return self.steps

    @lru_cache(maxsize=2)  # noqa: B019 (the current epoch of a training that lives as long as the process)
    def batches(self, epoch: int) -> list[np.ndarray]:
        """The sentences of every batch of an epoch, those of all processes in turn."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.corpus.ends))
        lengths = np.diff(np.asarray(self.corpus.ends), prepend=0) + 1
        count = self.steps * self.processes
        windows = -(-count // self._WINDOW)
        made = []
        for sentences, share in zip(
            _shares(order, lengths, windows), np.diff(np.arange(windows + 1) * count // windows), strict=True
        ):
            by_length = sentences[np.argsort(lengths[sentences], kind="stable")]
            made.extend(_shares(by_length, lengths, share))
        return [made[number] for number in random.permutation(count)]

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        """The batch at a place, which is the epoch and the number of the batch in it."""
        epoch, number = place
        sentences = self.batches(epoch)[number * self.processes + self.process]
        ends = np.asarray(self.corpus.ends)
        stops = ends[sentences]
        starts = np.where(sentences > 0, ends[sentences - 1], 0)
        lengths = stops - starts
        columns = np.arange(lengths.max() + 2)
        places = np.clip(starts[:, None] + columns - 1, 0, len(self.corpus.words) - 1)
        read = self.corpus.words[places] + _FIRST_WORD
        read[:, 0] = _BOS
        np.put_along_axis(read, lengths[:, None] + 1, _EOS, axis=1)
        present = torch.from_numpy(columns < lengths[:, None] + 2)
        ids = self.table.ids(read)
        labels = ids.masked_fill(~present, -100)
        # As many labels as predictions, by which `Trainer` divides: the first word is never the next one.
        backward_labels = labels.scatter(1, torch.from_numpy(lengths + 1).unsqueeze(1), -100)
        labels[:, 0] = -100
        return {
            "input_ids": ids * present,
            "character_ids": self.table.characters(read) * present.unsqueeze(-1),
            "attention_mask": present.long(),
            "labels": labels,
            "backward_labels": backward_labels,
        }


def _shares(items: np.ndarray, sizes: np.ndarray, count: int) -> list[np.ndarray]:
    """Cuts items into `count` runs of about equal size in all, none of them empty."""
    total = np.cumsum(sizes[items])
    bounds = np.searchsorted(total, np.arange(1, count) * total[-1] / count)
    # A huge item fills several shares; each of them takes one of the next items instead.
    least, most = np.arange(1, count), len(items) - np.arange(count - 1, 0, -1)
    bounds = np.minimum(np.maximum.accumulate(np.maximum(bounds, least) - least) + least, most)
    return np.split(items, bounds)


def _check_size(corpus: Corpus, needed: int, batch: str) -> None:
    if corpus.num_predictions < needed:
        raise ValueError(
            f"The text has {corpus.num_predictions:,} words (ends of sentences among them), fewer than one batch of "
            f"{batch}: give more text, or make batches smaller."
        )


class Epochs(Sampler):
    """The places of an epoch's batches, each as a list of one (`Trainer` sets the epoch)."""

    def __init__(self, batches: RunningText | WholeSentences):
        self.batches = batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter([(self.epoch, number)] for number in range(len(self.batches)))


class BatchLoader(DataLoader):
    """Loads batches that are made as a whole, epoch by epoch, so that `Trainer` can skip to any of them at no cost."""

    def __init__(self, batches: RunningText | WholeSentences, **options: Any):
        self.epochs = Epochs(batches)
        super().__init__(batches, batch_sampler=self.epochs, collate_fn=_only, **options)

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self.epochs.set_epoch(epoch)


def _only(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    (item,) = items
    return item
