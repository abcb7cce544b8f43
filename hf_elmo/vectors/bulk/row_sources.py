"""Rows of text from where people have them: text, JSON lines, CSV, Parquet, folders of `datasets`, the hub.

A row that cannot be read is given as a `BadRow`, in its place, and the rows after it are read all the same. Rows that
another process has are skipped for what it costs to find where they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..text_files import MAX_LINE_BYTES
from .line_rows import CsvRows, JsonRows, TextRows
from .rows import RowSource
from .table_rows import DatasetRows, ParquetRows, StreamedRows

_PACKED = (".gz", ".zst")
_JSON, _CSV = (".jsonl", ".ndjson", ".json"), (".csv",)


def open_rows(
    source: str | Path,
    text_column: str = "text",
    columns: Sequence[str] = (),
    split: str | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    revision: str | None = None,
) -> RowSource:
    """The rows of an input, whose kind its name tells.

    Args:
        source: A file (`.jsonl`, `.csv`, `.parquet`, anything else is text; the first two and text also packed, as
            `.gz` or `.zst`), `-` for text on standard input, a folder (of `Dataset.save_to_disk`, or of files that
            `datasets.load_dataset` knows), or the name of a dataset on the hub, which is streamed.
        text_column: The column with the text, or with a list of words; text has only this one.
        columns: Further columns to keep.
        split: Which split of a folder or of a dataset on the hub; it may be left out where there is only one.
        max_line_bytes: Most bytes in a line.
        revision: Of a dataset on the hub: a commit, branch or tag; None: the main branch as it is now.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not what its name says, or does not have such columns or such a split.
    """
    name = str(source)
    path = Path(source)
    if name != "-" and (path.is_dir() or not path.exists()):
        return _dataset_rows(path, name, text_column, columns, split, revision)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet":
        return ParquetRows(path, text_column, columns, max_line_bytes)
    reader = JsonRows if kind in _JSON else CsvRows if kind in _CSV else TextRows
    return reader(source, text_column, columns, max_line_bytes)


def may_be_on_hub(source: str) -> bool:
    """Whether an input is the name of a dataset on the hub: no file or folder here, and one slash within."""
    path = Path(source)
    is_name = source.count("/") == 1 and not path.is_absolute() and not source.startswith(".")
    return is_name and not path.exists()


def hub_revision(name: str) -> str | None:
    """The commit that the main branch of a dataset on the hub is at; None where the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name).sha
    # Whatever it is, opening the dataset tells it, or finds the dataset in the cache.
    except Exception:
        return None


def _dataset_rows(
    path: Path, name: str, text_column: str, columns: Sequence[str], split: str | None, revision: str | None
) -> DatasetRows | StreamedRows:
    import datasets

    is_saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    if not path.exists() and not may_be_on_hub(name):
        raise FileNotFoundError(f"There is no file or folder {name}, and no dataset on the hub has such a name.")
    try:
        if is_saved:
            dataset = datasets.load_from_disk(name)
        else:
            dataset = datasets.load_dataset(name, streaming=True, revision=None if path.exists() else revision)
    # It has errors of many kinds for what is missing, damaged or not to be reached.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = (
            f"The dataset {name}" if path.exists() else f"There is no file or folder {name}, and as one of the hub it"
        )
        raise ValueError(f"{what} cannot be opened: {reason}") from error
    if isinstance(dataset, dict):
        if split is None and len(dataset) == 1:
            split = next(iter(dataset))
        if split not in dataset:
            raise ValueError(f"{name} has the splits {', '.join(dataset)}: name one of them, was: {split}.")
        dataset = dataset[split]
    return (DatasetRows if is_saved else StreamedRows)(dataset, name, text_column, columns)
