"""The vocabulary of an archive of AllenNLP: entries of a namespace by their ids."""

from __future__ import annotations

from .allennlp_archive import VOCABULARY_FOLDER, Archive
from .errors import ConversionError
from .files import InputFile
from .vocabulary import read_text

PADDING, UNKNOWN = "@@PADDING@@", "@@UNKNOWN@@"
_NON_PADDED = "non_padded_namespaces.txt"


def namespace_of(archive: Archive, namespace: str) -> dict[str, int]:
    """The entries of a namespace by their ids (`allennlp/data/vocabulary.py`, `set_from_file`).

    Raises:
        ConversionError: if there is no file for it, it is empty, an entry stands twice, or there is no entry for what
            is unknown though there should be one.
    """
    file = _vocabulary_file(archive, f"{namespace}.txt")
    settings = archive.config.get("vocabulary")
    settings = settings if isinstance(settings, dict) else {}
    unknown = settings.get("oov_token") or UNKNOWN
    is_padded = not any(_matches(pattern, namespace) for pattern in _lines(archive, _NON_PADDED))
    entries: dict[str, int] = {settings.get("padding_token") or PADDING: 0} if is_padded else {}
    for number, line in enumerate(_lines(archive, f"{namespace}.txt"), start=1):
        entry = line.replace("@@NEWLINE@@", "\n")
        entry = UNKNOWN if entry == unknown else entry
        if entry in entries:
            raise ConversionError(f"{file}, line {number}: {entry!a} stands there twice, so that its id is not known.")
        entries[entry] = len(entries)
    if len(entries) <= is_padded:
        raise ConversionError(f"{file} is empty: expected an entry on each line.")
    if is_padded and UNKNOWN not in entries:
        raise ConversionError(f"{file} has no entry {unknown!r}, which all that is unknown is taken for.")
    return entries


def _vocabulary_file(archive: Archive, name: str) -> InputFile:
    path = f"{VOCABULARY_FOLDER}/{name}"
    if path not in archive.files:
        there = [other for other in archive.files if other.startswith(VOCABULARY_FOLDER)]
        raise ConversionError(f"{archive.name} has no {path}; there is: {', '.join(there[:20]) or 'no vocabulary'}.")
    return archive.files[path]


def _lines(archive: Archive, name: str) -> list[str]:
    lines = read_text(_vocabulary_file(archive, name)).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _matches(pattern: str, namespace: str) -> bool:
    return namespace.endswith(pattern[1:]) if pattern.startswith("*") else namespace == pattern
