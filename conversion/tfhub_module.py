"""ELMos as modules of TensorFlow Hub: `google/elmo`, and those that DeepPavlov exported, mix included.

A module is a SavedModel; its weights are a checkpoint, `variables/variables`. The variables are those of bilm-tf's
graph for prediction (`bilm/model.py`), in a scope `bilm`, and of the mix, in a scope `aggregation`. The module does not
hold the model's `options.json`: what shapes do not tell is taken as all published models have it, or given.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from ..hub.published_models import origin_of
from ..model.configuration_elmo import ElmoConfig
from ..model.modeling_elmo import ElmoModel
from .bilm_files import OptionsSource
from .bilm_hdf5 import bilm_links, initial_mixes, read_parameters
from .bilm_options import config_of, read_options
from .errors import ConversionError
from .files import InputFile, check_new_folder, paths_of
from .foreign_files import describe_dtypes
from .key_map import SAME, ArrayInfo, Link, Transform, check_arrays, show_key
from .model_folder import write_model_folder
from .tar_archive import first_name, is_tar, unpacked_tar
from .tf_checkpoint import open_checkpoint, read_variable

_FOLDER, _NAME = "variables", "variables"
_PART = re.compile(rf"{_NAME}\.(index|data-\d{{5}}-of-\d{{5}})")

# Names of LSTM variables, of any version of TensorFlow. (No module's own list of them was ever published; with
# TensorFlow 2.21 bilm-tf's graph has RNN_0/RNN/MultiRNNCell/Cell0/rnn/lstm_cell/projection/kernel and the like.)
_LSTM = re.compile(
    r"(?P<stack>RNN_[01])/(?:.*?/)?cell_?(?P<layer>\d+)/(?:.*?/)??"
    r"(?P<kind>projection/kernel|projection/weights|W_P_0|kernel|weights|W_0|bias|biases|B)",
    re.IGNORECASE,
)
_KINDS = {"kernel": "W_0", "weights": "W_0", "w_0": "W_0", "bias": "B", "biases": "B", "b": "B"}
# The states that bilm-tf carries from batch to batch, of each call of the module.
_STATE = re.compile(r"bilm(_\d+)?/(.*/)?Variable(_\d+)?")
# google/elmo's names, and DeepPavlov's.
_MIX = {
    "weights": re.compile(r"aggregation/(weights|\w*ELMo_W)"),
    "gamma": re.compile(r"aggregation/(scaling|\w*ELMo_gamma)"),
}
# Of all modules that were published.
_PUBLISHED: dict[str, Any] = {"activation": "relu", "cell_clip": 3.0, "proj_clip": 3.0, "use_skip_connections": True}

_NUMBER = Transform(lambda gamma: (gamma.reshape(1),), lambda gamma: gamma.reshape(1))


class _Module(NamedTuple):
    """A module's files.

    Attributes:
        name: Its name in messages.
        prefix: Path of the checkpoint without endings.
        files: The files that are read.
    """

    name: str
    prefix: Path
    files: list[InputFile]


def is_tfhub_module(source: str | Path) -> bool:
    """Whether a path looks like a module: its folder, that of its variables, one of their files, or a tar of it."""
    source = Path(source)
    if source.is_dir():
        in_place = source / _FOLDER if source.name != _FOLDER else source
        return (source / "saved_model.pb").is_file() or (in_place / f"{_NAME}.index").is_file()
    if source.is_file() and is_tar(source):
        return first_name(source, lambda path: _is_part(path) or path.endswith("saved_model.pb")) is not None
    return (_PART.fullmatch(source.name) is not None and source.is_file()) or (
        source.name == _NAME and source.with_name(f"{_NAME}.index").is_file()
    )


def _is_part(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return len(parts) >= 2 and parts[-2] == _FOLDER and _PART.fullmatch(parts[-1]) is not None


def load_tfhub_module(source: str | Path, *, options: OptionsSource | None = None) -> ElmoModel:
    """The ELMo in a module of TensorFlow Hub, with its mix.

    Args:
        source: The module's folder, its folder `variables`, a file in that, or a tar archive of the module as
            TensorFlow Hub and DeepPavlov offer it.
        options: The model's `options.json`, or its content, where its activation, clips and skip connections are not
            those of all published models (relu, 3, with).

    Returns:
        The model, in evaluation mode, float32.

    Raises:
        ConversionError: if TensorFlow is not installed; if anything is missing, surplus, damaged or contradictory:
            file, variable, what was expected.
        OSError: if a file cannot be read.
    """
    with _opened(Path(source)) as module:
        return _load(module, options)


def convert_tfhub_module(
    source: str | Path,
    destination: str | Path,
    *,
    options: OptionsSource | None = None,
    published: str | None = None,
) -> None:
    """Makes a model folder of a module of TensorFlow Hub.

    Args:
        source: As in `load_tfhub_module`, like `options`.
        destination: The folder, which must not exist yet, or be empty.
        options: As in `load_tfhub_module`.
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_tfhub_module`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    with _opened(Path(source)) as module:
        model = _load(module, options)
        files = module.files + ([InputFile.at(options)] if isinstance(options, (str, Path)) else [])
        origin = origin_of("tfhub-module", paths_of(source, files), published)
    write_model_folder(model, None, destination, origin=origin)


@contextmanager
def _opened(source: Path) -> Iterator[_Module]:
    if source.is_file() and is_tar(source):
        with unpacked_tar(source, _is_part) as files, TemporaryDirectory(prefix="hf_elmo-") as folder:
            if not files:
                raise ConversionError(
                    f"{source} has no {_FOLDER}/{_NAME}.index in it, where a module of TensorFlow Hub has its weights."
                )
            if len({PurePosixPath(path).parent for path in files}) > 1:
                raise ConversionError(f"{source} has several modules in it: {', '.join(sorted(files))}. Unpack it.")
            for path, file in files.items():
                # TensorFlow finds the parts of a checkpoint by their names.
                file.path.rename(Path(folder) / PurePosixPath(path).name)
            yield _Module(str(source), Path(folder) / _NAME, [InputFile(Path(folder) / _NAME, str(source))])
        return
    place = source if source.is_dir() else source.parent
    if source.is_dir() and (source / _FOLDER).is_dir():
        place = source / _FOLDER
    parts = [InputFile.at(path) for path in sorted(place.glob(f"{_NAME}.*")) if _PART.fullmatch(path.name)]
    if not any(part.path.suffix == ".index" for part in parts):
        raise ConversionError(
            f"{source} has no {_FOLDER}/{_NAME}.index, where a module of TensorFlow Hub has its weights: is it whole?"
        )
    yield _Module(str(place / _NAME), place / _NAME, parts)


def _load(module: _Module, options: OptionsSource | None) -> ElmoModel:
    reader, variables = open_checkpoint(str(module.prefix), module.name)
    states = {key for key in variables if _STATE.fullmatch(key)}
    found = {key: info for key, info in variables.items() if key not in states}
    names = _names(module.name, found)
    config = _config(module.name, {name: found[key] for name, key in names.items()}, options)
    links = [
        link._replace(foreign=names.get(link.foreign, f"bilm/{link.foreign}"))
        if link.foreign != "char_embed"
        else _characters(link, found, names)
        for link in bilm_links(config)
    ]
    mixes = _mix_links(found, config)
    check_arrays(module.name, [*links, *mixes], found, hint=describe_dtypes(info.dtype for info in found.values()))
    state = read_parameters(module.name, [*links, *mixes], lambda key: read_variable(reader, module.name, key))
    if states:
        warnings.warn(
            f"{module.name}: {len(states)} states of LSTMs are left out: here each sentence begins anew.", stacklevel=3
        )
    with torch.device("meta"):
        model = ElmoModel(config)
    model.load_state_dict(initial_mixes(config) | state, strict=True, assign=True)
    return model.eval()


def _names(file: str, found: Mapping[str, ArrayInfo]) -> dict[str, str]:
    """The variables of the biLM: their names by those of bilm-tf's HDF5 files."""
    names: dict[str, str] = {}
    for key in sorted(found):
        inside = key.removeprefix("bilm/")
        if inside == key:
            continue
        if lstm := _LSTM.fullmatch(inside):
            kind = lstm["kind"].lower()
            # Of a projection the two names differ from those of the gates by what stands before.
            short = "W_P_0" if kind.startswith("projection/") or kind == "w_p_0" else _KINDS[kind]
            inside = f"{lstm['stack']}/RNN/MultiRNNCell/Cell{lstm['layer']}/LSTMCell/{short}"
        if inside in names:
            raise ConversionError(
                f"{file} has two variables for {inside}: {show_key(names[inside])} and {show_key(key)}."
            )
        names[inside] = key
    if "char_embed" not in names:
        keys = ", ".join(show_key(key) for key in sorted(found)[:5])
        raise ConversionError(
            f"{file} is no ELMo: it has no variable bilm/char_embed. There are {len(found)}: {keys} ..."
        )
    return names


def _characters(link: Link, found: Mapping[str, ArrayInfo], names: Mapping[str, str]) -> Link:
    """The table of characters, in which bilm-tf's graph for prediction has a row for padding too."""
    key = names["char_embed"]
    shape = found[key].shape
    if shape is not None and len(shape) == 2 and shape[0] == link.shape[0] + 1:
        return link._replace(foreign=key, shape=(link.shape[0] + 1, *link.shape[1:]), transform=SAME)
    return link._replace(foreign=key)


def _mix_links(found: Mapping[str, ArrayInfo], config: ElmoConfig) -> list[Link]:
    """The mix of the module; none if the module has none, whose mix is then a new one."""
    keys = {kind: [key for key in sorted(found) if pattern.fullmatch(key)] for kind, pattern in _MIX.items()}
    if not any(keys.values()):
        return []
    gamma = keys["gamma"][0] if keys["gamma"] else "aggregation/scaling"
    weights = keys["weights"][0] if keys["weights"] else "aggregation/weights"
    shape = found[gamma].shape if gamma in found else (1,)
    return [
        Link(weights, ("scalar_mixes.0.weights",), (config.num_layers + 1,), SAME),
        Link(gamma, ("scalar_mixes.0.gamma",), () if shape == () else (1,), _NUMBER),
    ]


def _config(file: str, found: Mapping[str, ArrayInfo], options: OptionsSource | None) -> ElmoConfig:
    sizes = _sizes(file, found)
    if options is None:
        warnings.warn(
            f"{file} does not tell the model's activation, clips and skip connections: those of all published "
            "models are taken (relu, 3, with). Give its options.json if this model has others (options=...).",
            stacklevel=4,
        )
        try:
            return ElmoConfig(**sizes, **_PUBLISHED, vocab_size=4)
        except (ValueError, TypeError) as error:
            raise ConversionError(f"{file}: {error}") from None
    content, name = read_options(InputFile.at(options) if isinstance(options, (str, Path)) else options)
    config = config_of(content, name, vocab_size=4)
    for field, size in sizes.items():
        if getattr(config, field) != size:
            raise ConversionError(
                f"{name} is not of the ELMo in {file}: by the one {field} is {getattr(config, field)}, by the shapes "
                f"in the other {size}."
            )
    return config


def _sizes(file: str, found: Mapping[str, ArrayInfo]) -> dict[str, Any]:
    """The sizes that shapes tell; arrays by their names in bilm-tf's HDF5 files."""

    def shape(key: str, rank: int) -> tuple[int, ...]:
        info = found.get(key, ArrayInfo(None, ""))
        if info.shape is None or len(info.shape) != rank or 0 in info.shape:
            what = "missing" if key not in found else f"of shape {info.shape}, expected {rank} sizes above 0"
            raise ConversionError(f"{file}: bilm/{key} is {what}.")
        return info.shape

    def count(template: str) -> int:
        number = 0
        while template.format(number) in found:
            number += 1
        return number

    cell = "RNN_0/RNN/MultiRNNCell/Cell{}/LSTMCell/W_0"
    kernels = [shape(f"CNN/W_cnn_{number}", 4) for number in range(max(1, count("CNN/W_cnn_{}")))]
    inputs, gates = shape(cell.format(0), 2)
    return {
        "char_embed_dim": shape("char_embed", 2)[1],
        "filters": [[width, features] for _, width, _, features in kernels],
        "num_highway_layers": count("CNN_high_{}/W_carry"),
        "cell_size": gates // 4,
        "projection_dim": inputs // 2,
        "num_layers": max(1, count(cell)),
    }
