"""Bare state dicts of AllenNLP's `Elmo` or `_ElmoBiLm`: one file of `torch.save` (`.th`, `.pt`), without an archive.

Programs save them alone (`torch.save(elmo.state_dict(), "elmo.pt")`), inside a larger model of their own, or in a
checkpoint beside other things (`{"model_state_dict": ...}`). The names are those of `allennlp_archive.py`, wherever in
the state dict they begin.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from ..hub.published_models import origin_of
from ..model.modeling_elmo import ElmoModel
from .allennlp_archive import ROOT_KEY, Archive, ElmoInside, find_elmo
from .bilm_files import OPTIONS_NAME, OptionsSource
from .errors import ConversionError
from .files import ZIP_DAMAGE, InputFile, check_new_folder, paths_of
from .model_folder import write_model_folder
from .torch_file import load_tensors

_SUFFIXES = (".th", ".pt", ".pth", ".bin", ".ckpt")
# What a file of torch before 1.6 begins with: a pickle of a number that only it has.
_OLD_FILE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# How deep in a checkpoint the state dict may lie.
_DEEPEST = 3


def is_state_dict(source: str | Path) -> bool:
    """Whether a path is, by its looks, a file of `torch.save`: by its content, or by its name where it is damaged."""
    source = Path(source)
    if not source.is_file():
        return False
    with source.open("rb") as stream:
        begin = stream.read(len(_OLD_FILE))
    if begin == _OLD_FILE:
        return True
    if begin.startswith(b"PK"):
        with suppress(*ZIP_DAMAGE), zipfile.ZipFile(source) as archive:
            if any(name.endswith("/data.pkl") for name in archive.namelist()):
                return True
    return source.suffix in _SUFFIXES


def load_state_dict_elmo(source: str | Path, *, options: OptionsSource | None = None) -> ElmoModel:
    """The ELMo in a state dict, with its learned mixes.

    Args:
        source: The file. Nothing in it is run: it may hold tensors, and plain values beside them.
        options: The ELMo's `options.json`, or its content. None: `<name>_options.json` or `options.json` beside the
            file; and where there is none, the activation, clips and skip connections of all published models (relu, 3,
            with), with a warning.

    Returns:
        The model, in evaluation mode, float32. Its LSTM biases hold the forget bias (`forget_bias` is 0), as in the
        file.

    Raises:
        ConversionError: if anything is missing, surplus, damaged or contradictory: file, key, what was expected; and if
            there is no ELMo inside, or more than one.
        OSError: if the file cannot be read.
    """
    return _model(_read(Path(source), options)[0])


def convert_state_dict(
    source: str | Path,
    destination: str | Path,
    *,
    options: OptionsSource | None = None,
    published: str | None = None,
) -> None:
    """Makes a model folder of the ELMo in a state dict.

    Args:
        source: As in `load_state_dict_elmo`.
        destination: The folder, which must not exist yet, or be empty.
        options: As in `load_state_dict_elmo`.
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_state_dict_elmo`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    found, files = _read(Path(source), options)
    origin = origin_of("allennlp-state-dict", paths_of(source, files), published)
    write_model_folder(_model(found), None, destination, origin=origin)


def _model(found: ElmoInside) -> ElmoModel:
    with torch.device("meta"):
        model = ElmoModel(found.config)
    model.load_state_dict(found.parameters, strict=True, assign=True)
    return model.eval()


def _read(source: Path, options: OptionsSource | None) -> tuple[ElmoInside, list[InputFile]]:
    file = InputFile.at(source)
    content = load_tensors(file)
    state = _innermost(content, _DEEPEST)
    if state is None:
        raise ConversionError(f"{file} {_other_content(content)}")
    files = [file]
    beside = None
    if options is None:
        names = (f"{source.stem}_{OPTIONS_NAME}", OPTIONS_NAME)
        beside = next((source.with_name(name) for name in names if source.with_name(name).is_file()), None)
        options = beside
    if isinstance(options, (str, Path)):
        files.append(InputFile.at(options))
    # A state dict of its own program says nothing of the model but its arrays.
    found = find_elmo(Archive(str(file), file, {}, file, state, {}), options)
    if options is None:
        warnings.warn(
            f"{file} does not tell the model's activation, clips and skip connections, and there is no {OPTIONS_NAME} "
            "beside it: those of all published models are taken (relu, 3, with). Give the file if this model has "
            "others (options=...).",
            stacklevel=4,
        )
    rest = sorted(state.keys() - found.keys)
    if rest:
        warnings.warn(
            f"{file} holds more than an ELMo ({found.prefix}...): {len(rest)} arrays, such as {rest[0]}, are left out.",
            stacklevel=4,
        )
    return found, files


def _innermost(content: Mapping[str, object], depth: int) -> dict[str, object] | None:
    """The state dict that has an ELMo: the content, or something in it."""
    if any(str(key).endswith(ROOT_KEY) for key in content):
        return {str(key): value for key, value in content.items()}
    if depth:
        for value in content.values():
            inner = _innermost(value, depth - 1) if isinstance(value, Mapping) else None
            if inner is not None:
                return inner
    return None


def _other_content(content: Mapping[str, object]) -> str:
    """What a file of torch without an ELMo of AllenNLP seems to be."""
    keys = [str(key) for key in content]
    if any("bilstm.forward_layers." in key for key in keys):
        return (
            "is a state dict of a model of hf_elmo itself, which says nothing of its sizes: make the model of its "
            "configuration, model.load_state_dict(torch.load(file, weights_only=True)), and save it with "
            "model.save_pretrained(folder)."
        )
    if any("embed_tokens" in key or "encoder.layer." in key or "attention" in key for key in keys):
        return "is a state dict of a transformer, and no ELMo: there is nothing to convert."
    listed = ", ".join(sorted(keys)[:5])
    return (
        f"holds no ELMo of AllenNLP: no key ends in {ROOT_KEY}. It has {len(keys)} entries: {listed}"
        f"{' ...' if len(keys) > 5 else ''}."
    )
