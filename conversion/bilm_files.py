"""Finding the files of an ELMo in the original format: in a folder, beside its weights, in a zip or tar archive."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import h5py

from .errors import ConversionError
from .files import InputFile, files_of_folder, unpacked_zip
from .foreign_files import describe_beginning
from .hdf5_arrays import DAMAGE, opened_hdf5
from .tar_archive import first_name, is_tar, unpacked_tar

OPTIONS_NAME, WEIGHTS_NAME, VOCABULARY_NAME = "options.json", "weights.hdf5", "vocab.txt"
_VOCABULARY_NAMES = (VOCABULARY_NAME, "vocab.txt.gz")

#: Where the options of a model come from, and its vocabulary: a file, or the thing itself.
OptionsSource = str | Path | Mapping[str, Any]
VocabularySource = str | Path | Sequence[str]


class BilmFiles(NamedTuple):
    """The parts of a model: files, or what was given in their place."""

    weights: InputFile
    options: InputFile | Mapping[str, Any]
    vocabulary: InputFile | Sequence[str] | None


@contextmanager
def bilm_files(
    source: str | Path, options: OptionsSource | None = None, vocabulary: VocabularySource | None = None
) -> Iterator[BilmFiles]:
    """Finds the parts of a model; those of an archive are unpacked for a while.

    Args:
        source: As in `load_bilm`.
        options: The options, if they are not to be looked for.
        vocabulary: The vocabulary, likewise.

    Raises:
        ConversionError: if a part is missing, or there are several to choose from.
    """
    source = Path(source)
    if source.is_dir():
        files = files_of_folder(source)
        name, weights = _weights(source, files)
        yield _complete(source, name, weights, files.get, options, vocabulary)
    elif not source.is_file():
        raise ConversionError(f"{source} does not exist, or is neither a file nor a folder.")
    elif _is_zip(source):
        with unpacked_zip(source, _is_part) as files:
            name, weights = _weights(source, files)
            yield _complete(source, name, weights, files.get, options, vocabulary)
    elif is_tar(source):
        with unpacked_tar(source, _is_part) as members:
            files = _beside_weights(source, members)
            name, weights = _weights(source, files)
            yield _complete(source, name, weights, files.get, options, vocabulary)
    else:
        folder = source.parent
        weights = InputFile.at(source)
        with source.open("rb") as stream:
            begin = stream.read(24)
        if known := describe_beginning(begin):
            # Before anything beside it is asked for.
            raise ConversionError(f"{source} is not an HDF5 file: it begins with {begin!r}. {known}")
        yield _complete(folder, source.name, weights, lambda name: _beside(folder, name), options, vocabulary)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        is_cut_off_or_whole = stream.read(4) == b"PK\x03\x04"
    return is_cut_off_or_whole or (zipfile.is_zipfile(path) and not h5py.is_hdf5(path))


def is_bilm_tar(source: Path) -> bool:
    """Whether a tar archive (gzipped or plain) holds weights in HDF5, before anything of an AllenNLP archive."""
    others = ("config.json", "weights.th", "best.th")
    found = first_name(source, lambda path: path.endswith(".hdf5") or PurePosixPath(path).name in others)
    return found is not None and found.endswith(".hdf5")


def _beside_weights(archive: Path, members: Mapping[str, InputFile]) -> dict[str, InputFile]:
    """The files of the folder in an archive that has the weights, by name."""
    folders = sorted({PurePosixPath(path).parent for path in members if path.endswith(".hdf5")})
    if len(folders) > 1:
        raise ConversionError(f"{archive} has weights in several folders: {', '.join(map(str, folders))}. Unpack it.")
    return {PurePosixPath(path).name: file for path, file in members.items() if PurePosixPath(path).parent in folders}


def _is_part(path: str) -> bool:
    name = PurePosixPath(path).name
    # Archives made on a Mac carry a shadow of every file.
    return not name.startswith(".") and _is_name_of_part(name)


def _is_name_of_part(name: str) -> bool:
    return name.endswith((".hdf5", OPTIONS_NAME)) or name in _VOCABULARY_NAMES


def _beside(folder: Path, name: str) -> InputFile | None:
    return InputFile.at(folder / name) if (folder / name).is_file() else None


def _weights(place: Path, files: Mapping[str, InputFile]) -> tuple[str, InputFile]:
    candidates = {name: file for name, file in files.items() if name.endswith(".hdf5")}
    if len(candidates) > 1:
        candidates = {name: file for name, file in candidates.items() if not _is_of_another_kind(file)}
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    if candidates:
        raise ConversionError(
            f"{place} has several files that may hold the weights: {', '.join(candidates)}. Give the right one itself."
        )
    saved = [name for name in files if name.endswith((".th", ".pt", ".pth"))]
    raise ConversionError(
        f"{place} has no file of weights ({WEIGHTS_NAME}, or another .hdf5). It has: {_named(files) or 'no file'}."
        + (f" If {saved[0]} is a state dict of AllenNLP's Elmo, give it itself." if saved else "")
    )


def _named(files: Mapping[str, InputFile], most: int = 20) -> str:
    return ", ".join(list(files)[:most]) + (" ..." if len(files) > most else "")


def _is_of_another_kind(file: InputFile) -> bool:
    """Whether it is a whole HDF5 file, but not of a biLM's weights (vectors computed by one often lie beside it)."""
    try:
        with opened_hdf5(file) as opened:
            # Of a model that reads words there is no char_embed.
            return "char_embed" not in opened and "RNN_0" not in opened
    except (ConversionError, *DAMAGE):
        return False


def _complete(
    place: Path,
    name: str,
    weights: InputFile,
    find: Callable[[str], InputFile | None],
    options: OptionsSource | None,
    vocabulary: VocabularySource | None,
) -> BilmFiles:
    """Adds what is not given from the files that lie beside the weights, whose own name is `name`."""
    found: InputFile | Mapping[str, Any] | None
    if options is not None:
        found = InputFile.at(options) if isinstance(options, (str, Path)) else options
    else:
        found = find(name.removesuffix(WEIGHTS_NAME) + OPTIONS_NAME) or find(OPTIONS_NAME)
        if found is None:
            raise ConversionError(
                f"{place} has no {OPTIONS_NAME}, which tells the sizes of {weights}. Put it there, or give its path "
                "(options=...)."
            )
    words: InputFile | Sequence[str] | None
    if vocabulary is not None:
        words = InputFile.at(vocabulary) if isinstance(vocabulary, (str, Path)) else vocabulary
    else:
        present = [file for file in map(find, _VOCABULARY_NAMES) if file is not None]
        if len(present) > 1:
            raise ConversionError(
                f"{place} has both {' and '.join(_VOCABULARY_NAMES)}: give the path of the right one (vocabulary=...)."
            )
        words = present[0] if present else None
    return BilmFiles(weights, found, words)
