"""Arrow tables with vectors: what engines pass around, in the same types as the shards of `embed_corpus`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ..embedder import Embedder
from .shard_writers import ShardShape, row_columns


def shape_of(embedder: Embedder) -> ShardShape:
    """The shape of an embedder's rows, without columns to keep."""
    return ShardShape(embedder.dim, embedder.num_layers, embedder.pooling is not None, embedder.dtype)


def with_vectors(embedder: Embedder, table: pa.Table, text_column: str = "text") -> pa.Table:
    """A table with further columns `words` and `vectors`, or `vector`, as in the shards of `embed_corpus`.

    Args:
        embedder: What embeds.
        table: Its rows.
        text_column: The column with the texts, or lists of words.

    Raises:
        ValueError: if there is no such column, or one of a new column's name; for a row without a text.
    """
    shape = shape_of(embedder)
    own = [field for field in shape.schema() if field.name != "row"]
    if text_column not in table.column_names:
        raise ValueError(f"There is no column {text_column!r}: there are {', '.join(table.column_names) or 'none'}.")
    if taken := [field.name for field in own if field.name in table.column_names]:
        raise ValueError(f"The rows have a column {taken[0]!r} already, as the vectors would be called: rename it.")
    texts = table[text_column].to_pylist()
    if None in texts:
        raise ValueError(f"Row {texts.index(None)} of a batch has no text (null): leave such rows out before.")
    rows = list(embedder.embed(texts))
    columns = row_columns(shape, [row.words for row in rows], [row.vectors for row in rows])
    for field, column in zip(own, columns, strict=True):
        table = table.append_column(field, column)
    return table


def with_fixed_sizes(table: pa.Table, dim: int) -> pa.Table:
    """A table whose vectors are of the types of `embed_corpus`, whatever lists an engine has made of them.

    Those of words, and all layers of a pooled one, are lists of fixed size; Spark has no such lists.

    Args:
        table: Its columns `vectors` and `vector` are cast.
        dim: Size of a vector.

    Raises:
        ValueError: if vectors are of another size.
    """
    for place, name in enumerate(table.column_names):
        if name not in ("vectors", "vector"):
            continue
        column = table[name]
        if pa.types.is_floating(column.type.value_type):
            # A pooled vector, which may be null, stays a plain list: see `ShardShape.schema`.
            sizes = pc.unique(pc.list_value_length(column)).drop_null().to_pylist()
            if sizes not in ([], [dim]):
                raise ValueError(f"The vectors in {name!r} do not all have {dim} numbers, but {sizes}.")
            column = column.cast(pa.list_(column.type.value_type))
        else:
            try:
                column = column.cast(_fixed(column.type, dim))
            except pa.ArrowInvalid as error:
                raise ValueError(f"The vectors in {name!r} do not all have {dim} numbers: {error}") from None
        table = table.set_column(place, name, column)
    return table


def _fixed(kind: pa.DataType, dim: int) -> pa.DataType:
    inner = kind.value_type
    return pa.list_(inner, dim) if pa.types.is_floating(inner) else pa.list_(_fixed(inner, dim))
