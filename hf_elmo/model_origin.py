"""Where a converted model comes from: the files that were read, and which published ELMo they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

#: The formats that `hf_elmo.conversion` reads, as cards call them.
FORMATS = {
    "hdf5": "options.json and weights in HDF5 (bilm-tf, AllenNLP)",
    "tf-checkpoint": "checkpoint of bilm-tf's training (TensorFlow)",
    "allennlp-archive": "archive of AllenNLP",
    "elmoformanylangs": "ELMoForManyLangs",
}

#: By what a published model is recognised.
BY_CHECKSUM, BY_NAME = "the checksum of a file", "the name of a file"

# Some files of a vocabulary count <S>, </S> and <UNK> among their words, some do not.
_SPECIAL_WORDS_OF_BILM = 3


@dataclass(frozen=True)
class SourceFile:
    """A file that a model was made from.

    Attributes:
        name: Its base name, or its path in an archive or folder; nothing of where it lay.
        size: In bytes.
        sha256: In hexadecimal digits.
        other_checksums: `md5:...` and `sha1:...`, by which some publishers name their files. Not kept in cards.
    """

    name: str
    size: int
    sha256: str
    other_checksums: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @classmethod
    def read(cls, path: str | Path, name: str | None = None) -> SourceFile:
        """Takes the checksums of a file.

        Args:
            path: The file.
            name: What it is called, if not by the last part of its path.

        Raises:
            OSError: if it cannot be read.
        """
        digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in ("sha256", "sha1", "md5")}
        size = 0
        with Path(path).open("rb") as stream:
            while chunk := stream.read(1024**2):
                size += len(chunk)
                for digest in digests.values():
                    digest.update(chunk)
        others = frozenset(f"{kind}:{digests[kind].hexdigest()}" for kind in ("sha1", "md5"))
        return cls(name or Path(path).name, size, digests["sha256"].hexdigest(), others)

    @property
    def checksums(self) -> frozenset[str]:
        """All that are known, each as `kind:digits`."""
        return self.other_checksums | {f"sha256:{self.sha256}"}


@dataclass(frozen=True)
class Origin:
    """What a model folder was converted from.

    Attributes:
        format: A key of `FORMATS`; None if it is not known.
        files: The files that were read; an archive, and then what was read of it.
        source: The name of what was given to be converted (a file, a folder, an archive), without its place.
    """

    format: str | None
    files: tuple[SourceFile, ...]
    source: str | None = None

    @classmethod
    def read(cls, format: str | None, source: str | Path, files: Iterable[tuple[str, Path]] = ()) -> Origin:
        """Takes the checksums of the files of a source.

        Args:
            format: A key of `FORMATS`; None if it is not known.
            source: What is converted. If it is an archive, it becomes the first of the files.
            files: The files that are read, each after its name in the source.

        Raises:
            OSError: if one cannot be read.
        """
        source, files = Path(source), list(files)
        parts = [SourceFile.read(path, name) for name, path in files]
        if source.is_file() and not any(path.samefile(source) for _, path in files):
            parts.insert(0, SourceFile.read(source))
        return cls(format, tuple(parts), source.resolve().name)

    @property
    def names(self) -> set[str]:
        """The names by which it may be known."""
        return {file.name for file in self.files} | ({self.source} if self.source else set())


@dataclass(frozen=True)
class PublishedModel:
    """A published ELMo, as `model_cards/published.yaml` describes it; what is empty or None is not stated anywhere.

    Attributes:
        id: By which it can be asked for.
        title: What its card is called.
        formats: Keys of `FORMATS` that it is published in.
        names: Patterns (`*`, `?`) of file names by which it is recognised.
        checksums: Of its files, each as `kind:digits`.
        parameters: The number of its biLM's.
        vocabulary: The number of its words.
        language: Its code (ISO 639), for the hub.
        language_name: The same in English.
        where: The address where it is or was to be had.
        training: The text that it was trained on.
        datasets: That text on the hub.
        words: How that text was split into words.
        license: The licence of the weights, as the hub calls it.
        licence: A sentence on it.
        figures: What its authors measured.
        cite: Its own papers, beside the one of all ELMos.
        tags: Its own, for the hub.
    """

    id: str
    title: str
    formats: tuple[str, ...]
    names: tuple[str, ...] = ()
    checksums: tuple[str, ...] = ()
    parameters: int | None = None
    vocabulary: int | None = None
    language: str | None = None
    language_name: str | None = None
    where: str | None = None
    training: str | None = None
    datasets: tuple[str, ...] = ()
    words: str | None = None
    license: str = "unknown"
    licence: str | None = None
    figures: str | None = None
    cite: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def fits(self, parameters: int, words: int) -> bool:
        """Whether a model of so many parameters and words can be this one."""
        fits_words = self.vocabulary is None or 0 <= self.vocabulary - words <= _SPECIAL_WORDS_OF_BILM
        return fits_words and self.parameters in (None, parameters)


def read_card_file(name: str) -> str:
    """The text of a file of `model_cards/`, which is `hf_elmo.model_cards` where the package is installed."""
    return resources.files("hf_elmo.model_cards").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def published_models() -> Mapping[str, PublishedModel]:
    """All published ELMos that are known, by their ids."""
    import yaml

    models = [
        PublishedModel(**{key: _frozen(value) for key, value in entry.items()})
        for description in yaml.safe_load(read_card_file("published.yaml"))["models"]
        for entry in _expanded(description)
    ]
    return {model.id: model for model in models}


def _expanded(description: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The models of an entry: one, or one for each of `each`, whose values are put where a text names them."""
    variants = description.get("each", [{}])
    known = {each.name for each in fields(PublishedModel)}
    for variant in variants:
        entry = {key: value for key, value in description.items() if key != "each"}
        entry |= {key: value for key, value in variant.items() if key in known}
        yield {key: _filled(value, variant) for key, value in entry.items()} if variant else entry


def _filled(value: Any, variant: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(each, variant) for each in value]
    return value.format(**variant) if isinstance(value, str) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def recognise(
    origin: Origin, parameters: int, words: int, models: Iterable[PublishedModel] | None = None
) -> tuple[PublishedModel, str] | None:
    """Which published model an origin is.

    Args:
        origin: What was converted.
        parameters: The number of the biLM's parameters.
        words: The number of the vocabulary's words, special ones left out.
        models: Those to choose from; None for all that are known.

    Returns:
        The model, and by what it was recognised, for people (the checksum of a file, or its name). None if it is none
        of them, or if names could be of several.
    """
    models = list(published_models().values() if models is None else models)
    checksums = {checksum for file in origin.files for checksum in file.checksums}
    for model in models:
        if checksums & set(model.checksums):
            return model, BY_CHECKSUM
    named = [
        model
        for model in models
        if origin.format in (None, *model.formats)
        and any(fnmatchcase(name, pattern) for name in origin.names for pattern in model.names)
        and model.fits(parameters, words)
    ]
    return (named[0], BY_NAME) if len(named) == 1 else None
