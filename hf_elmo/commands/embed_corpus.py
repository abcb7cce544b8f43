"""`hf-elmo embed-corpus`: a corpus of any size to a folder of shards."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..vectors.text_files import MAX_LINE_BYTES
from .console import counted, note, silence_libraries
from .embed import Layers
from .sentences import MaxLineBytes


class ShardFormat(StrEnum):
    """Names in `hf_elmo.vectors.bulk.shard_writers.SHARDS`."""

    parquet = "parquet"
    safetensors = "safetensors"
    hdf5 = "hdf5"


class Pooling(StrEnum):
    """Values of `hf_elmo.vectors.embedder.POOLINGS`."""

    mean = "mean"
    max = "max"


class Dtype(StrEnum):
    """Values of `hf_elmo.vectors.embedder.DTYPES`."""

    float32 = "float32"
    float16 = "float16"


class BadRows(StrEnum):
    """What to do with a row that cannot be read."""

    error = "error"
    report = "report"


def bound_caches() -> None:
    """Bounds what is kept of products' shapes, in a process that has multiplied nothing yet and may run for hours.

    oneDNN keeps what it generates for each shape, and torch's bridge to it (ideep) keeps that once more: up to 1,024
    each, half a gigabyte for a small model. What less of them saves and costs stands in docs/performance.md.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "128")


def embed_corpus(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Text, .jsonl, .csv (.gz, .zst), .parquet, a datasets folder, a hub dataset's name, or -."),
    ],
    output: Annotated[Path, typer.Argument(help="A new folder, or one that the same command has begun.")],
    layers: Annotated[
        Layers, typer.Option(help="The model's learned mix, its top layer, all layers, their mean.")
    ] = Layers.mix,
    pooling: Annotated[
        Pooling | None, typer.Option(help="One vector for each row. [default: one for each word]")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="What a number is stored as.")] = Dtype.float32,
    format: Annotated[ShardFormat, typer.Option(help="hdf5 is the original layout.")] = ShardFormat.parquet,
    text_column: Annotated[str, typer.Option(help="Column with the text, or lists of words.")] = "text",
    column: Annotated[
        list[str] | None, typer.Option("--column", help="A column to keep, such as an id; may be repeated.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a datasets folder or hub dataset.")] = None,
    pretokenized: Annotated[
        bool, typer.Option("--pretokenized", help="Words stand between white space: take them as they are.")
    ] = False,
    split_sentences: Annotated[
        bool, typer.Option("--split-sentences", help="Read each sentence of a row on its own.")
    ] = False,
    keep_boundaries: Annotated[bool, typer.Option("--keep-boundaries", help="<S> and </S> are words, too.")] = False,
    bad_rows: Annotated[
        BadRows, typer.Option(help="A row that cannot be read: end with an error, or report it and go on.")
    ] = BadRows.error,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model folder, or a bundled model. [default: elmo-mini]")
    ] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows in a shard.")] = 10_000,
    batch_words: Annotated[int, typer.Option(min=1, help="Words per batch: more need more memory.")] = 2048,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")] = None,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Show progress. [default: on a terminal]")
    ] = None,
) -> None:
    """Embed a corpus of any size into a folder of shards, which `datasets`, pandas and DuckDB open.

    Start it again after an interruption: finished shards are kept, and the result is the same. Several processes share
    the work: torchrun --nproc-per-node 8 --no-python hf-elmo embed-corpus ...
    """
    bound_caches()
    from ..vectors.bulk.bulk_embedding import embed_corpus as embed
    from ..vectors.embedder import Embedder

    silence_libraries()
    embedder = Embedder(
        model,
        layers=layers.value,
        pooling=None if pooling is None else pooling.value,
        keep_boundaries=keep_boundaries,
        dtype=dtype.value,
        pretokenized=pretokenized,
        split_sentences=split_sentences,
        batch_words=batch_words,
        device=device,
    )
    manifest = embed(
        inputs,
        output,
        embedder,
        format=format.value,
        text_column=text_column,
        columns=column or [],
        split=split,
        shard_rows=shard_rows,
        on_bad_row=bad_rows.value,
        max_line_bytes=max_line_bytes,
        threads=threads,
        progress=progress,
    )
    if manifest is None:
        note(f"{output}: this process is done, others are not yet")
        return
    totals = manifest["totals"]
    if not totals["rows"]:
        raise ValueError(f"{', '.join(inputs)}: there are no rows to embed.")
    if totals["bad_rows"]:
        note(f"{counted(totals['bad_rows'], 'row')} could not be read and were left out: {output / 'bad_rows.jsonl'}")
    if totals["truncated_words"]:
        note(f"{counted(totals['truncated_words'], 'word')} too long for the model, which read only their beginnings")
    rows, words = counted(totals["rows"], "row"), counted(totals["words"], "word")
    note(
        f"{output}: {rows}, {words}, {counted(len(manifest['shards']), 'shard')}, vectors of {manifest['dim']} numbers"
    )
