"""Rows of files that are read line by line: text, JSON lines, CSV; plain or packed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from ..text_files import TextFile, open_text
from .rows import ROWS_FOR_TYPES, BadRow, Row, RowSource, fitting, infer_types


class TextRows(RowSource):
    """UTF-8 text, a row a line; plain, gzip, Zstandard, or standard input. It has no columns to keep."""

    def __init__(self, path: str | Path, text_column: str, columns: Sequence[str], max_line_bytes: int):
        self._open_files = ExitStack()
        self.text: TextFile = self._open_files.enter_context(open_text(path))
        super().__init__(self.text.name, text_column, columns, max_line_bytes)
        if str(path) != "-":
            self.size = Path(path).stat().st_size
        self._lines = enumerate(self.text.lines_or_errors(self._count, max_line_bytes), 1)
        self._entries = self._make_entries()

    def _count(self, size: int) -> None:
        # Of a packed file what counts is how much of the file itself is read.
        if self.size is not None and self.text.is_packed and self.text.source is not None:
            self.done = self.text.source.tell()
        else:
            self.done += size

    def types(self) -> list[pa.DataType]:
        if self.columns:
            raise ValueError(f"{self.name} is plain text, which has no columns to keep: {', '.join(self.columns)}.")
        return []

    def read(self, count: int) -> Iterator[Row | BadRow]:
        return islice(self._entries, count)

    def skip(self, count: int) -> int:
        return sum(1 for _ in islice(self._entries, count))

    def close(self) -> None:
        self._open_files.close()

    def _make_entries(self) -> Iterator[Row | BadRow]:
        for number, line in self._lines:
            yield self._bad(number, line) if isinstance(line, ValueError) else Row(line, ())

    def _bad(self, number: int, error: object) -> BadRow:
        place = f"{self.name}, line {number}"
        return BadRow(place, str(error).removeprefix(f"{place}: "))


class _RecordRows(TextRows):
    """Rows with columns whose types are inferred from the first ones, which are kept until they are asked for."""

    def __init__(self, path: str | Path, text_column: str, columns: Sequence[str], max_line_bytes: int):
        super().__init__(path, text_column, columns, max_line_bytes)
        self._types: list[pa.DataType] | None = None
        self._known = {}

    def types(self) -> list[pa.DataType]:
        if self._types is None:
            entries = self._entries
            first = list(islice(entries, ROWS_FOR_TYPES))
            for name in (self.text_column, *self.columns) if self._known else ():
                if name not in self._known:
                    raise self._missing(name, list(self._known))
            self._types = infer_types(self.name, self.columns, [entry for entry in first if isinstance(entry, Row)])
            self._entries = chain(self._fitting_first(first), self._fitting_rest(entries))
        return self._types

    def expect(self, types: list[pa.DataType]) -> None:
        self.types()
        self._types = types

    def _fitting_first(self, first: list[Row | BadRow]) -> Iterator[Row | BadRow]:
        for entry in first:
            yield self._fit(entry, f"{self.name}, one of the first {ROWS_FOR_TYPES:,} rows")

    def _fitting_rest(self, rest: Iterator[Row | BadRow]) -> Iterator[Row | BadRow]:
        for entry in rest:
            yield self._fit(entry, self._place())

    def _fit(self, entry: Row | BadRow, place: str) -> Row | BadRow:
        assert self._types is not None, "they are known before rows are read"
        return entry if isinstance(entry, BadRow) else fitting(entry, self.columns, self._types, place)

    def _place(self) -> str:
        return f"{self.name}, line {self._number}"

    _number = 0
    #: Names of columns in the first rows.
    _known: dict[str, None]


class JsonRows(_RecordRows):
    """JSON lines: an object a line. Blank lines are not rows."""

    def _make_entries(self) -> Iterator[Row | BadRow]:
        for number, line in self._lines:
            self._number = number
            if isinstance(line, ValueError):
                yield self._bad(number, line)
                continue
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield self._bad(number, f"this is not JSON ({error}): expected an object on each line")
                continue
            if not isinstance(values, dict):
                yield self._bad(number, f"expected an object, was: {type(values).__name__} {values!r:.60}")
                continue
            if self._types is None:
                self._known.update(dict.fromkeys(values))
            yield self._row(values, self._place())


class CsvRows(_RecordRows):
    """Comma-separated values (RFC 4180), whose first row names the columns; values are text."""

    def __init__(self, path: str | Path, text_column: str, columns: Sequence[str], max_line_bytes: int):
        super().__init__(path, text_column, columns, max_line_bytes)
        # The module has one limit, for the whole process.
        csv.field_size_limit(max(csv.field_size_limit(), max_line_bytes))
        self._broken: list[BadRow] = []
        self._reader = csv.reader(self._sound_lines(), strict=True)
        try:
            self._header = next(self._reader, [])
        except csv.Error as error:
            raise ValueError(f"{self.name}: the first row, which names the columns, is not CSV: {error}") from None
        for name in (text_column, *columns):
            if name not in self._header:
                raise self._missing(name, self._header)

    def _sound_lines(self) -> Iterator[str]:
        for number, line in self._lines:
            self._number = number
            if isinstance(line, ValueError):
                self._broken.append(self._bad(number, line))
            else:
                yield line + "\n"

    def _make_entries(self) -> Iterator[Row | BadRow]:
        while True:
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                yield BadRow(self._place(), f"this is not CSV: {error}")
                continue
            yield from self._broken
            self._broken.clear()
            if fields is None:
                return
            if not fields:
                continue
            if len(fields) != len(self._header):
                yield BadRow(self._place(), f"{len(fields)} fields, but the first row names {len(self._header)}")
                continue
            yield self._row(dict(zip(self._header, fields)), self._place())
