"""Rows of Parquet files and of datasets, of which other processes' parts are left out unread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..text_files import MAX_LINE_BYTES
from .rows import ROWS_FOR_TYPES, BadRow, Row, RowSource, fitting, infer_types, types_of

_ROWS_AT_ONCE = 1000


class ParquetRows(RowSource):
    """A Parquet file, of which only the wanted columns and row groups are read."""

    def __init__(self, path: str | Path, text_column: str, columns: Sequence[str], max_line_bytes: int):
        super().__init__(str(path), text_column, columns, max_line_bytes)
        self._file: IO[bytes] = Path(path).open("rb")  # noqa: SIM115
        try:
            self._parquet = pq.ParquetFile(self._file)
        except (pa.ArrowInvalid, OSError) as error:
            self._file.close()
            raise ValueError(f"{path} is not a sound Parquet file: {error}") from None
        self.size = self._parquet.metadata.num_rows
        self._schema = self._parquet.schema_arrow

    def types(self) -> list[pa.DataType]:
        return types_of(self, self._schema)

    def read(self, count: int) -> Iterator[Row | BadRow]:
        for table in self._tables(self.done, self.done + count):
            for values in table.to_pylist():
                self.done += 1
                yield self._row(values, f"{self.name}, row {self.done - 1}")

    def skip(self, count: int) -> int:
        assert self.size is not None, "it is in the file"
        skipped = min(count, self.size - self.done)
        self.done += skipped
        return skipped

    def close(self) -> None:
        self._file.close()

    def _tables(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The rows from `start` to `stop`, in pieces."""
        names = list(dict.fromkeys([self.text_column, *self.columns]))
        first = 0
        for group in range(self._parquet.num_row_groups):
            end = first + self._parquet.metadata.row_group(group).num_rows
            if end > start and first < stop:
                place = first
                for batch in self._batches(group, names):
                    begin, finish = max(start - place, 0), min(stop - place, len(batch))
                    place += len(batch)
                    if begin < finish:
                        yield batch.slice(begin, finish - begin)
            first = end

    def _batches(self, group: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=names)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{self.name} is not a sound Parquet file: row group {group}: {error}") from None


class DatasetRows(RowSource):
    """A dataset that `Dataset.save_to_disk` has written."""

    def __init__(self, dataset: Any, name: str, text_column: str, columns: Sequence[str]):
        super().__init__(name, text_column, columns, MAX_LINE_BYTES)
        self._dataset = dataset.with_format(None)
        self.size = len(dataset)

    def types(self) -> list[pa.DataType]:
        return types_of(self, self._dataset.features.arrow_schema)

    def read(self, count: int) -> Iterator[Row | BadRow]:
        names = list(dict.fromkeys([self.text_column, *self.columns]))
        chosen = self._dataset.select_columns(names)
        assert self.size is not None, "a dataset has a length"
        for start in range(self.done, min(self.done + count, self.size), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, self.done + count, self.size)
            for values in chosen.with_format("arrow")[start:stop].to_pylist():
                self.done += 1
                yield self._row(values, f"{self.name}, row {self.done - 1}")

    def skip(self, count: int) -> int:
        assert self.size is not None, "a dataset has a length"
        skipped = min(count, self.size - self.done)
        self.done += skipped
        return skipped


class StreamedRows(RowSource):
    """A dataset that is streamed: of the hub, or a folder of files that `datasets` knows."""

    def __init__(self, dataset: Any, name: str, text_column: str, columns: Sequence[str]):
        super().__init__(name, text_column, columns, MAX_LINE_BYTES)
        self._rows = iter(dataset)
        self._schema = None if dataset.features is None else dataset.features.arrow_schema
        self._first: list[dict[str, Any]] = []
        self._types: list[pa.DataType] | None = None

    def types(self) -> list[pa.DataType]:
        if self._schema is not None:
            return types_of(self, self._schema)
        if self._types is None:
            self._first = list(islice(self._rows, ROWS_FOR_TYPES))
            if self._first:
                for name in (self.text_column, *self.columns):
                    if name not in self._first[0]:
                        raise self._missing(name, list(self._first[0]))
            rows = [self._row(values, self.name) for values in self._first]
            self._types = infer_types(self.name, self.columns, [row for row in rows if isinstance(row, Row)])
        return self._types

    def expect(self, types: list[pa.DataType]) -> None:
        if self._schema is not None:
            super().expect(types)
        else:
            self.types()
            self._types = types

    def read(self, count: int) -> Iterator[Row | BadRow]:
        for values in self._take(count):
            place = f"{self.name}, row {self.done - 1}"
            row = self._row(values, place)
            if isinstance(row, Row) and self._types is not None:
                row = fitting(row, self.columns, self._types, place)
            yield row

    def skip(self, count: int) -> int:
        return sum(1 for _ in self._take(count))

    def _take(self, count: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            values = self._first.pop(0) if self._first else next(self._rows, None)
            if values is None:
                return
            self.done += 1
            yield values
