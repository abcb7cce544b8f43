"""A row of an input, and what every kind of input has; types of columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ..batching import check_words

# From this many rows the types of columns are inferred where the input does not have any.
ROWS_FOR_TYPES = 1000


class Row(NamedTuple):
    """A row: its text or its words, and the values of the columns to keep."""

    text: str | list[str]
    kept: tuple[Any, ...]


class BadRow(NamedTuple):
    """A row that cannot be read.

    Attributes:
        place: Where it stands, such as `"corpus.jsonl, line 7"`.
        reason: What is wrong with it, a sentence.
    """

    place: str
    reason: str


class RowSource(ABC):
    """The rows of one input, read once, from its beginning.

    Args:
        name: What messages call it.
        text_column: The column with the text, or with a list of words.
        columns: Further columns to keep.
        max_line_bytes: Most bytes in a line.

    Attributes:
        size: How much there is to read, in bytes or rows; None where nobody knows.
        done: How much of that has been read.
    """

    size: int | None = None

    def __init__(self, name: str, text_column: str, columns: Sequence[str], max_line_bytes: int):
        self.name, self.text_column, self.columns = name, text_column, tuple(columns)
        self.max_line_bytes = max_line_bytes
        self.done = 0

    @abstractmethod
    def types(self) -> list[pa.DataType]:
        """Types of the columns to keep.

        Raises:
            ValueError: if the input does not have one of them, or not the column of text.
        """

    def expect(self, types: list[pa.DataType]) -> None:
        """Sees to it that the columns to keep are of these types, which inputs before this one have.

        Raises:
            ValueError: if they are of others.
        """
        for name, kind, expected in zip(self.columns, self.types(), types):
            if kind != expected:
                raise ValueError(f"{self.name}: the column {name!r} is {kind}, but {expected} in the inputs before.")

    @abstractmethod
    def read(self, count: int) -> Iterator[Row | BadRow]:
        """The next rows, at most this many."""

    @abstractmethod
    def skip(self, count: int) -> int:
        """Leaves the next rows out; returns how many there were, at most `count`."""

    def close(self) -> None:  # noqa: B027 (some have nothing to close)
        """Closes the input."""

    def _missing(self, name: str, known: Sequence[str]) -> ValueError:
        return ValueError(f"{self.name} has no column {name!r}: it has {', '.join(map(repr, known)) or 'none'}.")

    def _row(self, values: dict[str, Any], place: str) -> Row | BadRow:
        text = values.get(self.text_column)
        if isinstance(text, list):
            try:
                text = check_words(text, repr(self.text_column))
            except ValueError as error:
                return BadRow(place, str(error))
        elif not isinstance(text, str):
            return BadRow(
                place,
                f"{self.text_column!r} must be a text or a list of words, was: {type(text).__name__} {text!r:.60}",
            )
        return Row(text, tuple(values.get(name) for name in self.columns))


def types_of(source: RowSource, schema: pa.Schema) -> list[pa.DataType]:
    for name in (source.text_column, *source.columns):
        if name not in schema.names:
            raise source._missing(name, schema.names)
    kind = schema.field(source.text_column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ValueError(
            f"{source.name}: the column {source.text_column!r} must be text or lists of words, was: "
            f"{schema.field(source.text_column).type}."
        )
    return [schema.field(name).type for name in source.columns]


def infer_types(name: str, columns: Sequence[str], rows: list[Row]) -> list[pa.DataType]:
    types = []
    for place, column in enumerate(columns):
        try:
            kind = pa.array([row.kept[place] for row in rows]).type
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(
                f"{name}: the column {column!r} cannot be kept, for its values are not of one type: {error}"
            ) from None
        types.append(pa.string() if pa.types.is_null(kind) else kind)
    return types


def fitting(row: Row, columns: Sequence[str], types: list[pa.DataType], place: str) -> Row | BadRow:
    """The row, or that one of its values is not of its column's type."""
    for name, value, kind in zip(columns, row.kept, types):
        try:
            pa.array([value], type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return BadRow(place, f"{name!r} must be {kind} as in the first rows, was: {value!r:.60}")
    return row
