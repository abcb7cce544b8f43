"""Running text for training a biLM: its words counted, numbered by frequency, and memory-mapped."""

from __future__ import annotations

import array
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetGenerationError

from ..model.tokenization_elmo import SPECIAL_WORDS, ElmoTokenizer
from ..vectors.batching import check_words
from ..vectors.text_files import MAX_LINE_BYTES, STANDARD_INPUT, lines_of_files
from ..whole_files import new_folder

_FILES = ("words.npy", "ends.npy", "lexicon.json")


@dataclass(frozen=True)
class Corpus:
    """A text as numbers, on disk: four bytes per word, whatever the size of the text only a little memory.

    Attributes:
        lexicon: The distinct words, by falling frequency (words of one frequency in the order of their letters).
        counts: ``(distinct words,)``, int64: how often each stands in the text.
        words: ``(all words,)``, int32, memory-mapped: the text, each word as its place in the lexicon.
        ends: ``(sentences,)``, int64: the place in `words` behind each sentence.
        origin: What it was made of, as `save` was told.
    """

    lexicon: list[str]
    counts: np.ndarray
    words: np.ndarray
    ends: np.ndarray
    origin: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Corpus:
        """Opens a corpus that `save` wrote.

        Raises:
            ValueError: if the folder holds none, or a damaged one.
        """
        folder = Path(folder)
        try:
            stored = json.loads((folder / "lexicon.json").read_text(encoding="utf-8"))
            words = np.load(folder / "words.npy", mmap_mode="r", allow_pickle=False)
            ends = np.load(folder / "ends.npy", mmap_mode="r", allow_pickle=False)
            lexicon, counts = stored["words"], np.asarray(stored["counts"], dtype=np.int64)
            sound = len(lexicon) == len(counts) and len(ends) and ends[-1] == len(words) == counts.sum()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{folder} is not a numbered text ({error}): delete it, and it is made anew.") from None
        if not sound:
            raise ValueError(f"{folder} is damaged (its files do not fit each other): delete it, and it is made anew.")
        return cls(lexicon, counts, words, ends, stored["origin"])

    @classmethod
    def save(cls, sentences: Iterable[list[str]], folder: str | Path, origin: dict[str, Any]) -> Corpus:
        """Numbers sentences and writes them to a folder, which appears when it is complete.

        Args:
            sentences: Lists of words; empty ones are passed over.
            folder: The folder; one that is there already is replaced.
            origin: What the sentences were made of, to tell later whether the corpus is still up to date; JSON.

        Raises:
            ValueError: if there is not a single word.
        """
        folder = Path(folder)
        numbers: dict[str, int] = {}
        with new_folder(folder, overwrite=True) as partial:
            ends = array.array("q")
            total = 0
            with open(partial / "first_seen", "wb") as file:
                for number, sentence in enumerate(sentences):
                    sentence = check_words(sentence, f"Sentence {number}")
                    if not sentence:
                        continue
                    row = array.array("i", [numbers.setdefault(word, len(numbers)) for word in sentence])
                    row.tofile(file)
                    total += len(row)
                    ends.append(total)
            if not total:
                raise ValueError("There is not a single word in the text.")
            first_seen = np.memmap(partial / "first_seen", dtype=np.int32, mode="r")
            counts = np.zeros(len(numbers), dtype=np.int64)
            for begin in range(0, total, _BLOCK):
                counts += np.bincount(first_seen[begin : begin + _BLOCK], minlength=len(numbers))
            names = list(numbers)
            totals = counts.tolist()
            order = sorted(range(len(names)), key=lambda number: (-totals[number], names[number]))
            place = np.empty(len(names), dtype=np.int32)
            place[order] = np.arange(len(names), dtype=np.int32)
            words = np.lib.format.open_memmap(partial / "words.npy", mode="w+", dtype=np.int32, shape=(total,))
            for begin in range(0, total, _BLOCK):
                words[begin : begin + _BLOCK] = place[first_seen[begin : begin + _BLOCK]]
            words.flush()
            del words, first_seen
            np.save(partial / "ends.npy", np.frombuffer(ends, dtype=np.int64), allow_pickle=False)
            stored = {
                "origin": origin,
                "words": [names[number] for number in order],
                "counts": counts[order].tolist(),
            }
            (partial / "lexicon.json").write_text(json.dumps(stored), encoding="utf-8")
            (partial / "first_seen").unlink()
        return cls.load(folder)

    @property
    def num_predictions(self) -> int:
        """Words to predict per direction: all, and the end of every sentence."""
        return len(self.words) + len(self.ends)

    def vocabulary(self, size: int | None = None, min_count: int = 1) -> list[str]:
        """The most frequent words, as `by_frequency` gives them."""
        return by_frequency(dict(zip(self.lexicon, self.counts.tolist(), strict=True)), size, min_count)

    def sentence(self, number: int) -> list[str]:
        """The words of one sentence."""
        begin = self.ends[number - 1] if number else 0
        return [self.lexicon[place] for place in self.words[begin : self.ends[number]]]


_BLOCK = 2**22

# bilm-tf's unknown word does not stand in texts.
_NO_WORDS = {*SPECIAL_WORDS, "<UNK>"}


def read_texts(files: Iterable[str | Path], max_line_bytes: int = MAX_LINE_BYTES) -> IterableDataset:
    """Text files as a streamed dataset of lines, column `text`.

    Args:
        files: UTF-8 text, plain or packed with gzip or Zstandard; `-` is standard input, which can be read once.
        max_line_bytes: Most bytes in a line.

    Raises:
        ValueError: if a file is missing, or none is given; while reading, as `vectors.text_files.TextFile.lines`.
    """
    return IterableDataset.from_generator(
        _lines, gen_kwargs={"files": _check_files(files), "max_line_bytes": max_line_bytes}
    )


def read_sentences(
    files: Iterable[str | Path], split_sentences: bool = True, max_line_bytes: int = MAX_LINE_BYTES
) -> Dataset:
    """Text files as a memory-mapped dataset of sentences, column `text`.

    Args:
        files: As for `read_texts`.
        split_sentences: Split each line into sentences; otherwise a line is a sentence.
        max_line_bytes: Most bytes in a line.

    Raises:
        ValueError: if a file is missing or not text, or there is not a single sentence.
        OSError: if a file cannot be read.
    """
    paths = _check_files(files)
    # The library finds what it has made of the same arguments again, and so the states of the files are among them.
    options = {"files": paths, "split": split_sentences, "max_line_bytes": max_line_bytes, "states": _states(paths)}
    try:
        return Dataset.from_generator(_sentences_of_files, gen_kwargs=options)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, (ValueError, OSError)):
            raise error.__cause__ from None
        raise


def _check_files(files: Iterable[str | Path]) -> list[str]:
    paths = [str(file) for file in files]
    missing = [path for path in paths if path != "-" and not Path(path).is_file()]
    if missing or not paths:
        raise ValueError(f"There is no such text file: {', '.join(missing) or 'none was given'}.")
    return paths


def _states(paths: Iterable[str]) -> list[list[Any]]:
    """What tells whether files are those of before. Standard input never is."""
    states: list[list[Any]] = []
    for path in paths:
        if path == "-":
            states.append([STANDARD_INPUT, secrets.token_hex(8)])
        else:
            status = Path(path).stat()
            states.append([str(Path(path).resolve()), status.st_size, status.st_mtime_ns])
    return states


def _lines(files: list[str], max_line_bytes: int) -> Iterator[dict[str, str]]:
    for line in lines_of_files(files, max_line_bytes):
        yield {"text": line}


def _sentences_of_files(
    files: list[str], split: bool, max_line_bytes: int, states: list[list[Any]]
) -> Iterator[dict[str, str]]:
    is_empty = True
    for line in lines_of_files(files, max_line_bytes):
        for sentence in _sentences({"text": [line]}, split)["text"]:
            is_empty = False
            yield {"text": sentence}
    # The library's own error for nothing says nothing of text.
    if is_empty:
        raise ValueError(f"There is no text in {', '.join(files)}.")


def _sentences(batch: dict[str, list[str]], split: bool) -> dict[str, list[str]]:
    import nupunkt

    lines = (line for line in batch["text"] if line and not line.isspace())
    if not split:
        return {"text": list(lines)}
    parts = (part for line in lines for part in nupunkt.sent_tokenize(line))
    # Its annotation covers an option, not taken here, that gives a score beside each sentence.
    return {"text": [part for part in parts if isinstance(part, str)]}


def words_of(
    texts: Dataset | IterableDataset, tokenizer: ElmoTokenizer | None = None, split_sentences: bool = False
) -> Iterator[list[str]]:
    """The sentences of a dataset, memory-mapped or streamed, as lists of words.

    Args:
        texts: With a column `text` of str, or a column `tokens` of lists of words.
        tokenizer: The tokenizer that splits text into words. None: words stand between white space, as in text that is
            tokenised.
        split_sentences: Split text into sentences first; otherwise a text is one.

    Raises:
        ValueError: for a dataset with neither column.
    """
    for batch in texts.iter(batch_size=1000):
        if "tokens" in batch:
            yield from batch["tokens"]
            continue
        if "text" not in batch:
            raise ValueError(f"The dataset has no column text, nor tokens; it has: {', '.join(batch)}.")
        for text in _sentences(batch, split_sentences)["text"]:
            if tokenizer is None:
                yield text.split()
            else:
                yield [word for word, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def word_counts(sentences: Iterable[list[str]]) -> Counter[str]:
    """The number of times that each word stands in the sentences."""
    counts: Counter[str] = Counter()
    for number, words in enumerate(sentences):
        counts.update(check_words(words, f"Sentence {number}"))
    return counts


def by_frequency(counts: Mapping[str, int], size: int | None = None, min_count: int = 1) -> list[str]:
    """The most frequent words, as `ElmoTokenizer.create` takes them: without special words.

    Words of one frequency stand in the order of their letters, so that a vocabulary is the same every time.

    Args:
        counts: The number of times that each word stands in a text.
        size: At most this many words; None: all.
        min_count: Only words that stand there at least this often.
    """
    kept = [word for word, count in counts.items() if count >= min_count and word not in _NO_WORDS]
    return sorted(kept, key=lambda word: (-counts[word], word))[:size]


def prepare(
    files: Iterable[str | Path],
    folder: str | Path,
    split_sentences: bool = True,
    pretokenized: bool = False,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Corpus:
    """The corpus of text files in a folder: opened if it was made of these files, as they are now; else made.

    Args:
        files: As for `read_texts`.
        folder: Where the corpus is kept.
        split_sentences: Split each line into sentences; otherwise a line is a sentence.
        pretokenized: Words stand between white space; otherwise `ElmoTokenizer` splits them.
        max_line_bytes: Most bytes in a line.

    Raises:
        ValueError: if a file is missing or not text, or there is not a single word.
    """
    folder, paths = Path(folder), _check_files(files)
    texts = read_texts(paths, max_line_bytes)
    origin = {"files": _states(paths), "split_sentences": split_sentences, "pretokenized": pretokenized}
    if folder.is_dir():
        kept = Corpus.load(folder)
        if kept.origin == origin:
            return kept
    tokenizer = None if pretokenized else ElmoTokenizer.create()
    try:
        return Corpus.save(with_progress(words_of(texts, tokenizer, split_sentences)), folder, origin)
    except ValueError as error:
        # What is wrong with a line is said with its file's name already.
        if any(str(error).startswith(STANDARD_INPUT if path == "-" else path) for path in paths):
            raise
        raise ValueError(f"{', '.join(paths)}: {error}") from None


def with_progress(sentences: Iterable[list[str]]) -> Iterator[list[str]]:
    """The sentences, with a bar that counts their words (where `datasets` shows its bars)."""
    from datasets.utils import is_progress_bar_enabled
    from tqdm import tqdm

    with tqdm(desc="Counting words", unit=" words", unit_scale=True, disable=not is_progress_bar_enabled()) as bar:
        for sentence in sentences:
            yield sentence
            bar.update(len(sentence))
