"""Bulk embedding: inputs of any size to a folder of shards, by any number of processes, interrupted at any time."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch

from ...version import __version__
from ..embedder import Embedder
from ..text_files import MAX_LINE_BYTES
from .output_folder import OutputFolder
from .row_sources import hub_revision, may_be_on_hub
from .run import BulkProgress, ChainedRows, Run
from .shard_writers import OWN_COLUMNS, SHARDS, ShardShape

# Raise it whenever the same input and options would be written otherwise than before.
_FORMAT = 2

_HASHED_ENDS = 2**16
_PROGRAMS = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "h5py", "nupunkt")

_Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def embed_corpus(
    inputs: _Inputs,
    output: str | os.PathLike[str],
    embedder: Embedder | None = None,
    *,
    format: str = "parquet",
    text_column: str = "text",
    columns: Sequence[str] = (),
    split: str | None = None,
    shard_rows: int = 10_000,
    on_bad_row: str = "error",
    max_line_bytes: int = MAX_LINE_BYTES,
    threads: int = 1,
    process: int | None = None,
    processes: int | None = None,
    progress: bool | None = None,
) -> dict[str, Any] | None:
    """Embeds a corpus into a folder of shards, in memory that does not grow.

    A shard has the vectors of `shard_rows` rows of the input, in their order, and depends on these rows alone: the
    result is the same, byte for byte, for any number of processes, and for a run that was killed and started again,
    which keeps the shards that are finished. Without rows there are no shards.

    With several processes (`torchrun`, `accelerate launch`, or `process` and `processes`) each embeds every n-th
    shard; the one that ends last completes the folder. What they need not embed they only read past, so that for
    many processes Parquet is better than text.

    Args:
        inputs: One input or several, as for `hf_elmo.vectors.bulk.row_sources.open_rows`: files of text, JSON lines,
            CSV or Parquet, folders of `datasets`, names of datasets on the hub, `"-"`.
        output: A folder: a new one, an empty one, or one that the same call has begun.
        embedder: The model and the options that decide about the vectors; None: `Embedder()`.
        format: `"parquet"`, `"safetensors"`, or `"hdf5"` (the original layout): `hf_elmo.vectors.bulk.shard_writers`
            says what is where.
        text_column: The column with the text, or with a list of words.
        columns: Further columns to keep (ids, labels ...).
        split: Which split of a folder or of a dataset on the hub.
        shard_rows: Rows in a shard.
        on_bad_row: `"error"`: a row that cannot be read ends the run. `"report"`: it is left out, and named in
            `bad_rows.jsonl`.
        max_line_bytes: Most bytes in a line.
        threads: Threads that torch uses in each process. More of them may round otherwise, so their number is one of
            the options that a run is resumed with; several processes are faster than several threads.
        process: Number of this process, from 0; None: what `torchrun` says (the variable RANK), else 0.
        processes: Number of processes; None: what `torchrun` says (WORLD_SIZE), else 1.
        progress: Show progress; None: on a terminal, in the first process.

    Returns:
        The content of `manifest.json`; None if other processes are still embedding.

    Raises:
        ValueError: for inputs that cannot be read, options that are none or contradict each other, a folder that was
            begun otherwise (another model, option, input or version), a shard that was changed, a bad row, vectors that
            are not finite or that float16 cannot hold.
        OSError: if the folder cannot be written. Finished shards stay.

    Examples:
        >>> import tempfile, hf_elmo
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "corpus.txt").write_text("I read the book.\\nYes!\\n")
        >>> embedder = hf_elmo.Embedder(dtype="float16")
        >>> manifest = hf_elmo.embed_corpus(folder / "corpus.txt", folder / "vectors", embedder)
        >>> manifest["totals"]["words"], [shard["file"] for shard in manifest["shards"]]
        (7, ['data/00000.parquet'])
    """
    sources = [os.fspath(inputs)] if isinstance(inputs, (str, os.PathLike)) else [os.fspath(each) for each in inputs]
    embedder = embedder or Embedder()
    process, processes = _place(process, processes)
    _check_options(sources, format, columns, {"shard_rows": shard_rows, "threads": threads}, on_bad_row, processes)
    # All of a run reads one state of a dataset on the hub, and so does a run that goes on with it.
    revisions = {source: hub_revision(source) for source in sources if may_be_on_hub(source)}
    options = {"text_column": text_column, "columns": columns, "split": split, "max_line_bytes": max_line_bytes}
    rows = ChainedRows(sources, revisions, **options)
    try:
        kept = tuple(zip(columns, rows.types()))
        shape = ShardShape(embedder.dim, embedder.num_layers, embedder.pooling is not None, embedder.dtype, kept)
        writer = SHARDS[format]
        writer.check(shape)
        plan = {
            "format_version": _FORMAT,
            "options": {
                **embedder.options(),
                "device": embedder.device_name().partition(":")[0],
                "format": format,
                "text_column": text_column,
                "split": split,
                "shard_rows": shard_rows,
                "threads": threads,
            },
            "columns": {field.name: str(field.type) for field in shape.schema()},
            "dim": shape.dim,
            "model": embedder.fingerprint(),
            "versions": _versions(),
            "inputs": [_identity(source, revisions.get(source)) for source in sources],
        }
        folder = OutputFolder(Path(output), plan, writer.suffix)
        if (manifest := folder.begin()) is not None:
            return manifest
        shown = progress if progress is not None else process == 0 and sys.stderr is not None and sys.stderr.isatty()
        with _threads(threads), folder.only_process(process), BulkProgress(rows, shown) as bar:
            run = Run(folder, embedder, rows, shape, writer, shard_rows, on_bad_row == "report", bar)
            num_shards = run.embed(lambda shard: shard % processes == process)
        return folder.complete(num_shards)
    finally:
        rows.close()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """torch uses this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _place(process: int | None, processes: int | None) -> tuple[int, int]:
    if (process is None) != (processes is None):
        raise ValueError("Give both the number of this process and that of all processes, or neither.")
    if process is None or processes is None:
        try:
            process, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        except ValueError:
            raise ValueError("The variables RANK and WORLD_SIZE, which torchrun sets, must be numbers.") from None
    if not 0 <= process < processes:
        raise ValueError(f"The number of this process must be from 0 to {processes - 1}, was: {process}.")
    return process, processes


def _check_options(
    sources: Sequence[str],
    format: str,
    columns: Sequence[str],
    counts: dict[str, int],
    on_bad_row: str,
    processes: int,
) -> None:
    if not sources:
        raise ValueError("There is nothing to embed: give inputs.")
    if format not in SHARDS:
        raise ValueError(f"There is no format {format!r}; there are {', '.join(SHARDS)}.")
    if on_bad_row not in ("error", "report"):
        raise ValueError(f"on_bad_row must be 'error' or 'report', was: {on_bad_row!r}.")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, was: {count}.")
    if isinstance(columns, str) or len(set(columns)) != len(columns):
        raise ValueError(f"columns must be a list of different names, was: {columns!r}.")
    if taken := [name for name in columns if name in OWN_COLUMNS]:
        raise ValueError(f"The column {taken[0]!r} cannot be kept: the result has one of its own with that name.")
    if "-" in sources and processes > 1:
        raise ValueError("Standard input cannot be read by several processes: give files.")


def _versions() -> dict[str, str]:
    found = {"hf_elmo": __version__}
    for name in _PROGRAMS:
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            continue
    return found


def _identity(source: str, revision: str | None) -> dict[str, Any]:
    """What tells an input from another one of its name, without reading it whole."""
    path = Path(source)
    if source != "-" and path.is_file():
        digest, size = hashlib.sha256(), path.stat().st_size
        with path.open("rb") as file:
            digest.update(file.read(_HASHED_ENDS))
            file.seek(max(0, size - _HASHED_ENDS))
            digest.update(file.read(_HASHED_ENDS))
        return {"name": path.name, "bytes": size, "sha256_of_ends": digest.hexdigest()}
    if source != "-" and path.is_dir():
        return {"name": path.name, "bytes": sum(each.stat().st_size for each in path.rglob("*") if each.is_file())}
    return {"name": source} if revision is None else {"name": source, "revision": revision}
