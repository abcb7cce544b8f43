"""Spark: a data frame with vectors, by `mapInPandas`; each Python worker loads the model once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from ..vectors.bulk.tables import shape_of, with_vectors
from ..vectors.embedder import Embedder

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


class EmbedPartition:
    """The function for `DataFrame.mapInPandas`: batches of a partition in, batches with vectors out.

    Args:
        embedder: What embeds. Spark sends its options; the model must be where the workers are.
        text_column: The column with the texts, or lists of words.
    """

    def __init__(self, embedder: Embedder, text_column: str = "text"):
        self._embedder, self._text_column = embedder, text_column

    def __call__(self, batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            texts = pa.table({self._text_column: pa.Array.from_pandas(batch[self._text_column])})
            found = with_vectors(self._embedder, texts, self._text_column)
            columns = {name: found[name].to_pylist() for name in found.column_names if name != self._text_column}
            yield batch.assign(**columns)


def schema(dataframe: DataFrame, embedder: Embedder) -> StructType:
    """The schema of `embed`: that of the data frame, and `words` and `vectors`, or `vector`, of `array`s of `float`.

    Raises:
        ValueError: for a column that would be there twice, and for float16, which Spark does not have.
    """
    from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType

    if embedder.dtype != "float32":
        raise ValueError(f"Spark has no {embedder.dtype}: embed float32, and store it as you like afterwards.")
    shape = shape_of(embedder)
    vector = ArrayType(FloatType())
    layers = vector if shape.num_layers is None else ArrayType(vector)
    own = [StructField("vector", layers)] if shape.is_pooled else [
        StructField("words", ArrayType(StringType())), StructField("vectors", ArrayType(layers)),
    ]  # fmt: skip
    if taken := [field.name for field in own if field.name in dataframe.columns]:
        raise ValueError(f"The rows have a column {taken[0]!r} already, as the vectors would be called: rename it.")
    return StructType([*dataframe.schema.fields, *own])


def embed(dataframe: DataFrame, embedder: Embedder, text_column: str = "text") -> DataFrame:
    """A Spark data frame with further columns `words` and `vectors`, or `vector`.

    Spark has no lists of fixed size: `hf_elmo.vectors.bulk.tables.with_fixed_sizes` makes them of what it has written.

    Args:
        dataframe: Its rows have a text, or lists of words. Each partition is a task's.
        embedder: What embeds; `threads=1` for as many tasks as there are cores.
        text_column: The column with the texts.

    Raises:
        ValueError: as `schema`; and, when the frame is computed, for a row without a text.

    Examples:
        ```python
        from hf_elmo import Embedder
        from hf_elmo.integrations.spark import embed
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.master("local[2]").getOrCreate()
        texts = spark.read.text("corpus.txt").withColumnRenamed("value", "text")
        embed(texts, Embedder(pooling="mean", threads=1)).write.parquet("vectors")
        ```
    """
    return dataframe.mapInPandas(EmbedPartition(embedder, text_column), schema(dataframe, embedder))
