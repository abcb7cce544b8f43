"""One process's run over a corpus: the rows of all inputs in one sequence, shard by shard, with progress."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from ...whole_files import new_file
from ..embedder import Embedder
from ..memory import give_back_memory
from .output_folder import OutputFolder
from .row_sources import open_rows
from .rows import BadRow, Row, RowSource
from .shard_writers import ShardError, ShardShape, ShardWriter

# After this many words, which is a window of `embed_sentences`, free memory goes back to the system.
_WORDS_BETWEEN_TRIMS = 16_384


class ChainedRows:
    """The rows of several inputs, one after the other; each input is opened when its turn comes.

    Args:
        sources: The inputs.
        revisions: The commits of those of them that are on the hub.
        options: Further arguments of `open_rows`.
    """

    def __init__(self, sources: Sequence[str], revisions: dict[str, str | None], **options: Any):
        self._sources, self._revisions, self._options = sources, revisions, options
        # By size, where an input is a file: only for progress.
        self._sizes = [float(max(1, os.path.getsize(each))) if os.path.isfile(each) else 1.0 for each in sources]
        self._number = 0
        self._current: RowSource | None = self._open(0)
        self._types = self._current.types()

    def _open(self, number: int) -> RowSource:
        source = self._sources[number]
        return open_rows(source, revision=self._revisions.get(source), **self._options)

    def types(self) -> list[pa.DataType]:
        """Types of the columns to keep, which are those of the first input."""
        return self._types

    def read(self, count: int) -> Iterator[Row | BadRow]:
        """The next rows, at most this many."""
        while self._current is not None and count:
            for row in self._current.read(count):
                count -= 1
                yield row
            if count:
                self._go_on()

    def skip(self, count: int) -> int:
        """Leaves the next rows out; returns how many there were, at most `count`."""
        skipped = 0
        while self._current is not None and skipped < count:
            skipped += self._current.skip(count - skipped)
            if skipped < count:
                self._go_on()
        return skipped

    def _go_on(self) -> None:
        self.close()
        self._number += 1
        if self._number < len(self._sources):
            self._current = self._open(self._number)
            self._current.expect(self._types)

    @property
    def share_done(self) -> float | None:
        """The share of the inputs that has been read, from 0 to 1; None if nobody knows."""
        done = sum(self._sizes[: self._number])
        if self._current is not None:
            if self._current.size is None:
                return None
            done += self._sizes[self._number] * min(1.0, self._current.done / max(1, self._current.size))
        return done / sum(self._sizes)

    def close(self) -> None:
        """Closes what is open."""
        if self._current is not None:
            self._current.close()
            self._current = None


class BulkProgress:
    """How much of the input is read, how many words are embedded, how fast, and how long the rest will take.

    Args:
        rows: What is read.
        shown: Whether it is shown, on stderr.
    """

    def __init__(self, rows: ChainedRows, shown: bool):
        self._rows, self._words, self._started = rows, 0, 0.0
        known = rows.share_done is not None
        self._bar = tqdm(
            total=1.0 if known else None,
            disable=not shown,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}" if known else "{elapsed}{postfix}",
        )

    def __enter__(self) -> BulkProgress:
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.close()

    def add(self, words: int) -> None:
        """A row more, of this many words, is embedded."""
        if self._bar.disable:
            return
        now, share = time.time(), self._rows.share_done or 0.0
        if not self._words:
            # What was skipped before tells nothing of the time that is left.
            self._started = self._bar.start_t = now
            self._bar.initial = self._bar.n = share
        self._words += words
        if now - self._started > 1:
            rate = self._words / (now - self._started)
            self._bar.set_postfix_str(f"{self._words:,} words, {rate:,.0f} words/s", refresh=False)
        self._bar.update(share - self._bar.n)


class Run:
    """One process's part of the work.

    Args:
        folder: Where the shards are.
        embedder: The model and its options.
        rows: The rows.
        shape: What the rows of the result have.
        writer: The class of writers of shards.
        shard_rows: Rows in a shard.
        reports_bad_rows: Rows that cannot be read are left out and recorded; otherwise they are errors.
        progress: Is told of every row.
    """

    def __init__(
        self,
        folder: OutputFolder,
        embedder: Embedder,
        rows: ChainedRows,
        shape: ShardShape,
        writer: type[ShardWriter],
        shard_rows: int,
        reports_bad_rows: bool,
        progress: BulkProgress,
    ):
        self._folder, self._embedder, self._rows, self._shape = folder, embedder, rows, shape
        self._writer, self._shard_rows = writer, shard_rows
        self._reports_bad_rows, self._progress = reports_bad_rows, progress

    def embed(self, is_mine: Callable[[int], bool]) -> int:
        """Embeds the shards of this process that are not finished yet.

        Args:
            is_mine: Which shards are this process's.

        Returns:
            The number of shards of all processes.
        """
        for shard in count():
            record = self._folder.record(shard)
            if record is not None and is_mine(shard):
                self._folder.check(shard, record)
            if record is None and self._folder.is_complete():
                return shard
            if record is None and is_mine(shard):
                num_rows = self._embed_shard(shard)
            else:
                num_rows = self._rows.skip(self._shard_rows)
                if record is not None and num_rows != record["input_rows"]:
                    raise ValueError(
                        f"Shard {shard} was made of {record['input_rows']:,} rows, but the input has {num_rows:,} "
                        "there now: embed it into another folder."
                    )
            if num_rows < self._shard_rows:
                return shard + (num_rows > 0)
        raise AssertionError("inputs have an end")

    def _embed_shard(self, shard: int) -> int:
        entries = self._rows.read(self._shard_rows)
        first = next(entries, None)
        if first is None:
            return 0
        start, target = shard * self._shard_rows, self._folder.shard_path(shard)
        part = _Part(chain([first], entries), start, self._reports_bad_rows)
        is_written = False
        try:
            with new_file(target) as temporary:
                words, truncated = self._write(part, temporary, target)
                is_written = True
            sizes = {"first_row": start, "input_rows": part.num_rows, "rows": part.num_rows - len(part.bad_rows)}
            self._folder.finish(
                shard, {**sizes, "words": words, "truncated_words": truncated, "bad_rows": part.bad_rows}
            )
        except ValueError as error:
            raise ValueError(f"Shard {shard} (from row {start:,} on): {error}") from error
        except OSError as error:
            # What fails otherwise is the input, or the model's folder.
            if not is_written and not isinstance(error, ShardError):
                raise
            reason = str(error) if error.strerror is None else f"{target} cannot be written: {error.strerror}"
            finished = self._folder.num_finished()
            raise OSError(
                f"{reason}. What is finished stays (shards: {finished}): mend that, and start the same command again."
            ) from error
        return part.num_rows

    def _write(self, part: _Part, temporary: Path, target: Path) -> tuple[int, int]:
        """Writes a shard; its numbers of words, and of words that were too long for the model."""
        words = truncated = trimmed_at = 0
        writer = self._writer(temporary, self._shape, target)
        try:
            for row in self._embedder.embed(part.texts()):
                number, kept = part.next_row()
                writer.write(number, kept, row.words, row.vectors)
                words, truncated = words + len(row.words), truncated + len(row.truncated_words)
                self._progress.add(len(row.words))
                if words - trimmed_at >= _WORDS_BETWEEN_TRIMS:
                    give_back_memory()
                    trimmed_at = words
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        return words, truncated


class _Part:
    """The rows of a shard on their way to the embedder, which reads some ahead."""

    def __init__(self, entries: Iterable[Row | BadRow], start: int, reports_bad_rows: bool):
        self._entries, self._start, self._reports_bad_rows = entries, start, reports_bad_rows
        self._waiting: deque[tuple[int, tuple[Any, ...]]] = deque()
        self.num_rows = 0
        self.bad_rows: list[dict[str, Any]] = []

    def texts(self) -> Iterator[str | list[str]]:
        """The texts of the rows that can be read."""
        for entry in self._entries:
            number = self._start + self.num_rows
            self.num_rows += 1
            if isinstance(entry, Row):
                self._waiting.append((number, entry.kept))
                yield entry.text
            elif self._reports_bad_rows:
                self.bad_rows.append({"row": number, "place": entry.place, "reason": entry.reason})
            else:
                raise ValueError(
                    f"{entry.place}: {entry.reason}. Mend the row and start again, or have such rows left out and "
                    "reported (on_bad_row='report')."
                )

    def next_row(self) -> tuple[int, tuple[Any, ...]]:
        """The number and the values to keep of the row whose vectors come next."""
        return self._waiting.popleft()
