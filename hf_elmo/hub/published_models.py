"""What is known of the published ELMos, and which of them some files are.

The facts are in `model_cards/published.json`, those of `conversion/SOURCES.md` in a form for programs. A model is known
by the checksum of a file, or else by a file's name, which proves little: a model card says which it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

# What differs in texts that several models share.
_PLACES = ("key", "label")


@dataclass(frozen=True)
class Published:
    """A published model. What its authors do not state is None or empty.

    Attributes:
        name: A short name, of one model only.
        title: What people call it.
        formats: The formats that it is to be had in (of those in `Origin.format`).
        names: Patterns of the names of its files, of which one is enough; with a slash, the file's folder comes first.
            A list stands for files that must all be there.
        where: Addresses.
        language: Its language's code, None if it is not known, or has none.
        license: The hub's identifier of its licence.
        license_text: What is known of the licence.
        training_data: The text.
        datasets: Names of the text's corpora, as the hub has them in metadata.
        words: The words that it wants.
        parameters: How many its biLM has.
        citations: Whom to cite.
        checksums: Of each file its name (`file`) and its published `sha256`, `sha1`, `md5`.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    names: tuple[str | Sequence[str], ...]
    where: tuple[str, ...]
    license: str
    license_text: str
    citations: tuple[str, ...]
    language: str | None = None
    training_data: str | None = None
    datasets: tuple[str, ...] = ()
    words: str | None = None
    parameters: int | None = None
    checksums: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """A file that a model was made from."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Origin:
    """Where a model folder comes from.

    Attributes:
        format: The format of the files.
        files: The files that were read.
        published: The name of the published model that they are; None if they are not those of a known one.
        matched: How that is known: "checksum", "file name", or "statement" of the maker of the folder.
    """

    format: str
    files: tuple[SourceFile, ...] = field(default=())
    published: str | None = None
    matched: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts and lists, for metadata."""
        content = {**asdict(self), "files": [asdict(file) for file in self.files]}
        return {key: value for key, value in content.items() if value is not None}

    @classmethod
    def from_dict(cls, content: Any) -> Origin:
        """The opposite of `as_dict`.

        Raises:
            ValueError: naming what is missing or wrong.
        """
        try:
            files = tuple(SourceFile(**file) for file in content.get("files", ()))
            origin = cls(**{**content, "files": files})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"This is not a description of a model's origin: {error}") from None
        sizes = [file.size for file in files]
        texts = [origin.format, *(text for file in files for text in (file.name, file.sha256))]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(size, int) for size in sizes):
            raise ValueError(
                "This is not a description of a model's origin: format, names and sha256 must be text, sizes int."
            )
        return origin


def published_models() -> dict[str, Published]:
    """All published models that are known, by their names.

    Raises:
        ValueError: if an entry of `published.json` is incomplete.
    """
    text = resources.files("hf_elmo.model_cards").joinpath("published.json").read_text(encoding="utf-8")
    models: dict[str, Published] = {}
    for entry in json.loads(text):
        for variant in entry.pop("variants", [{}]):
            model = published_model({**entry, **variant})
            if model.name in models:
                raise ValueError(f"published.json has two models called {model.name}.")
            models[model.name] = model
    return models


def published_model(entry: Mapping[str, Any]) -> Published:
    """One entry of `published.json`; its `key` and `label` are put in where its texts have `{key}` and `{label}`.

    Raises:
        ValueError: naming the fields that are missing or unknown.
    """
    known = {each.name for each in fields(Published)}
    required = ("name", "title", "formats", "names", "where", "license", "license_text", "citations")
    wrong = sorted((set(required) - set(entry)) | (set(entry) - known - set(_PLACES)))
    if wrong:
        raise ValueError(
            f"The published model {entry.get('name', '?')} has fields missing or unknown: {', '.join(wrong)}."
        )
    places = {f"{{{name}}}": entry[name] for name in _PLACES if name in entry}
    filled = {name: _filled(value, places) for name, value in entry.items() if name not in _PLACES}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in filled.items()
    }
    return Published(**values)


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(each, places) for each in value]
    if isinstance(value, str):
        for place, text in places.items():
            value = value.replace(place, text)
    return value


def find_published(name: str) -> Published:
    """The published model of a name.

    Raises:
        ValueError: if there is none; the names that there are.
    """
    models = published_models()
    if name not in models:
        raise ValueError(f"No published model is called {name!r}; there are: {', '.join(models)}.")
    return models[name]


def origin_of(format: str, paths: Iterable[str | Path], published: str | None = None) -> Origin:
    """Describes the files that a model was made from, and tells which published model they are.

    Args:
        format: The format that they were read as.
        paths: The files. Each is read once or twice, for its checksums.
        published: The name of the published model that they are, as far as the caller knows. None: what
            checksums and names of files tell.

    Raises:
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read.
    """
    read = [Path(path).absolute() for path in dict.fromkeys(paths)]
    files = tuple(SourceFile(path.name, path.stat().st_size, _digest(path, "sha256")) for path in read)
    if published is not None:
        return Origin(format, files, find_published(published).name, "statement")
    candidates = [model for model in published_models().values() if format in model.formats]
    by_checksum = [model for model in candidates if _has_checksum(model, read, files)]
    by_name = [model for model in candidates if _has_name(model, read) and not _contradicts(model, read, files)]
    for found, matched in ((by_checksum, "checksum"), (by_name, "file name")):
        if len(found) == 1:
            return Origin(format, files, found[0].name, matched)
    return Origin(format, files)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        # MD5 and SHA-1 prove nothing against malice; they are what some authors published.
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _has_checksum(model: Published, paths: Sequence[Path], files: Sequence[SourceFile]) -> bool:
    sha256 = {entry["sha256"] for entry in model.checksums if "sha256" in entry}
    return any(file.sha256 in sha256 for file in files) or any(_agreements(model, paths, files))


def _contradicts(model: Published, paths: Sequence[Path], files: Sequence[SourceFile]) -> bool:
    """Whether a file has the name of a published one, and another checksum."""
    return not all(_agreements(model, paths, files))


def _agreements(model: Published, paths: Sequence[Path], files: Sequence[SourceFile]) -> list[bool]:
    """For each file with a published checksum under its name, whether it is that file."""
    agreements = []
    for path, file in zip(paths, files, strict=True):
        for entry in model.checksums:
            if entry["file"] == path.name:
                algorithm = next(name for name in ("sha256", "sha1", "md5") if name in entry)
                digest = file.sha256 if algorithm == "sha256" else _digest(path, algorithm)
                agreements.append(digest == entry[algorithm])
    return agreements


def _has_name(model: Published, paths: Sequence[Path]) -> bool:
    def is_there(pattern: str) -> bool:
        parts = pattern.count("/") + 1
        return any(fnmatchcase("/".join(path.parts[-parts:]), pattern) for path in paths)

    return any(
        is_there(pattern) if isinstance(pattern, str) else all(map(is_there, pattern)) for pattern in model.names
    )
