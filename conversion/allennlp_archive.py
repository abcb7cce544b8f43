"""Archives of AllenNLP (`model.tar.gz`): the ELMo inside a model of any task, and whole taggers (`allennlp_tagger`).

An archive holds `config.json`, `weights.th` (a state_dict) and `vocabulary/` (a text file for each namespace), as
`allennlp/models/archival.py` writes it. The ELMo's `options.json` is not part of it, so what the shapes of the weights
do not tell has to be assumed, as all published models have it, or given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..model.configuration_elmo import ElmoConfig
from ..model.model_files import LARGEST_WEIGHT
from ..model.modeling_elmo import ElmoModel
from .bilm_files import OptionsSource, is_bilm_tar
from .errors import ConversionError
from .files import InputFile, read_json_object
from .key_map import TOO_LARGE, ArrayInfo, Entry, Link, Transform, check_arrays, raise_problems, resolve, to_ours
from .tar_archive import is_tar, unpacked_tar
from .torch_file import load_tensors, sound_tensor, tensor_info

CONFIG_NAME, VOCABULARY_FOLDER = "config.json", "vocabulary"
# The second is what a folder of a training run has.
WEIGHTS_NAMES = ("weights.th", "best.th")
OPTIONS_ENDS = ("options.json", "options_file")

#: The transform's and the carry gate's weights in one; AllenNLP's gate is that of the other summand.
_HIGHWAY = Transform(
    lambda both: (both[: len(both) // 2], -both[len(both) // 2 :]),
    lambda transform, carry: torch.cat([transform, -carry]),
)


def allennlp_lstms(prefix: str = "") -> list[Entry]:
    """The key map of AllenNLP's `ElmoLstm`, which ELMoForManyLangs has too (`allennlp/modules/elmo_lstm.py`).

    Args:
        prefix: What stands before its names. Ours are those of `ElmoModel`.
    """
    return [
        Entry(f"{prefix}{direction}_layer_{{i}}.{theirs}", f"bilstm.{direction}_layers.{{i}}.{ours}")
        for direction in ("forward", "backward")
        for theirs, ours in (
            ("input_linearity.weight", "weight_ih"),
            ("state_linearity.weight", "weight_hh"),
            ("state_linearity.bias", "bias"),
            ("state_projection.weight", "weight_hr"),
        )
    ]


#: AllenNLP's names below the module of the biLM (`allennlp/modules/elmo.py`), and ours of `ElmoModel`.
KEY_MAP = [
    Entry("_token_embedder._char_embedding_weights", "character_encoder.char_embedding.weight"),
    Entry("_token_embedder.char_conv_{i}.weight", "character_encoder.convolutions.{i}.weight"),
    Entry("_token_embedder.char_conv_{i}.bias", "character_encoder.convolutions.{i}.bias"),
    *(
        Entry(
            f"_token_embedder._highways._layers.{{i}}.{kind}",
            (f"character_encoder.highways.{{i}}.transform.{kind}", f"character_encoder.highways.{{i}}.carry.{kind}"),
            _HIGHWAY,
        )
        for kind in ("weight", "bias")
    ),
    Entry("_token_embedder._projection.weight", "character_encoder.projection.weight"),
    Entry("_token_embedder._projection.bias", "character_encoder.projection.bias"),
    *allennlp_lstms("_elmo_lstm."),
]
#: The first of them, by which a biLM is found.
ROOT_KEY = "_token_embedder._char_embedding_weights"

# Word vectors that were computed by the character CNN (`vocab_to_cache`), which is there too.
_CACHE_KEY = "_word_embedding.weight"


class Archive(NamedTuple):
    """The parts of an archive.

    Attributes:
        name: Its name in messages.
        config_file: The file of `config`.
        config: The content of `config.json`.
        weights_file: The file of `state`.
        state: The entries of the weights.
        files: All unpacked files by their paths in the archive.
    """

    name: str
    config_file: InputFile
    config: dict[str, Any]
    weights_file: InputFile
    state: dict[str, object]
    files: dict[str, InputFile]

    @property
    def model_type(self) -> str | None:
        """The model's type in `config.json`."""
        model = self.config.get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        return kind if isinstance(kind, str) else None


class ElmoInside(NamedTuple):
    """An ELMo found in a state_dict.

    Attributes:
        prefix: What stands before the names of its biLM.
        mix_prefix: What stands before `scalar_mix_0` ...; None if there are no mixes.
        config: Its configuration.
        parameters: The parameters of `ElmoModel`.
        keys: The keys of the state_dict that belong to it.
    """

    prefix: str
    mix_prefix: str | None
    config: ElmoConfig
    parameters: dict[str, Tensor]
    keys: set[str]


def is_allennlp_archive(source: str | Path) -> bool:
    """Whether this is, by its looks, an archive of AllenNLP (any tar or gzip file without HDF5), or an unpacked one."""
    source = Path(source)
    if source.is_dir():
        return (source / CONFIG_NAME).is_file() and any((source / name).is_file() for name in WEIGHTS_NAMES)
    return source.is_file() and is_tar(source) and not is_bilm_tar(source)


@contextmanager
def opened_archive(source: str | Path) -> Iterator[Archive]:
    """Reads an archive, or the folder of an unpacked one.

    Raises:
        ConversionError: if a part is missing or damaged, or the archive is not to be trusted.
    """
    source = Path(source)
    if source.is_dir():
        files = {
            path.relative_to(source).as_posix(): InputFile(path, str(path))
            for path in sorted(source.rglob("*"))
            if path.is_file() and _is_part(path.relative_to(source).as_posix())
        }
        yield _parts(source, files)
    elif not source.is_file():
        raise ConversionError(f"{source} does not exist, or is neither a file nor a folder.")
    else:
        with unpacked_tar(source, _is_part) as files:
            yield _parts(source, files)


def _is_part(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return parts[0] in (CONFIG_NAME, *WEIGHTS_NAMES) or parts[0].endswith("options.json")
    in_vocabulary = len(parts) == 2 and parts[0] == VOCABULARY_FOLDER and parts[1].endswith(".txt")
    # Old versions put files of the configuration there, named by their places in it.
    return in_vocabulary or (parts[0] == "fta" and parts[-1].endswith("options_file"))


def _parts(source: Path, files: dict[str, InputFile]) -> Archive:
    weights = next((name for name in WEIGHTS_NAMES if name in files), None)
    if weights is None or CONFIG_NAME not in files:
        missing = CONFIG_NAME if CONFIG_NAME not in files else WEIGHTS_NAMES[0]
        raise ConversionError(
            f"{source} has no {missing} on its top level, as an archive of AllenNLP (model.tar.gz) has. Of its "
            f"parts it has: {', '.join(files) or 'none'}."
        )
    config = read_json_object(files[CONFIG_NAME])
    return Archive(str(source), files[CONFIG_NAME], config, files[weights], load_tensors(files[weights]), files)


def load_allennlp_elmo(source: str | Path, *, options: OptionsSource | None = None) -> ElmoModel:
    """The ELMo inside the model of an archive, with its learned mixes.

    Args:
        source: The archive, or the folder of an unpacked one.
        options: The ELMo's `options.json`, or its content, where its activation, clips and skip connections are not
            those of all published models (relu, 3, with), and the archive does not hold it.

    Returns:
        The model, in evaluation mode, float32. Its LSTM biases hold the forget bias (`forget_bias` is 0), as in the
        archive.

    Raises:
        ConversionError: if anything is missing, surplus, damaged or contradictory: file, key, what was expected; and if
            there is no ELMo inside, or more than one.
        OSError: if a file cannot be read.
    """
    with opened_archive(source) as archive:
        found = find_elmo(archive, options)
    with torch.device("meta"):
        model = ElmoModel(found.config)
    model.load_state_dict(found.parameters, strict=True, assign=True)
    return model.eval()


def find_elmo(archive: Archive, options: OptionsSource | None = None) -> ElmoInside:
    """The one ELMo in the weights of an archive, wherever in the model it is; its keys are accounted for.

    Raises:
        ConversionError: as `load_allennlp_elmo`.
    """
    prefix = _prefix(archive)
    entries = {key.removeprefix(prefix): value for key, value in archive.state.items() if key.startswith(prefix)}
    mix_prefix = prefix.removesuffix("_elmo_lstm.") if prefix.endswith("_elmo_lstm.") else None
    mixes = {} if mix_prefix is None else _mix_entries(archive.state, mix_prefix)
    fields = _elmo_fields(archive)
    config = _config(archive, entries, options, fields, max(1, len({key.split(".")[0] for key in mixes})))
    with torch.device("meta"):
        expected = ElmoModel(config).state_dict()
    bilm = {name: value for name, value in expected.items() if not name.startswith("scalar_mixes.")}
    links = [link._replace(foreign=prefix + link.foreign) for link in resolve(KEY_MAP, bilm)]
    state = {prefix + key: value for key, value in entries.items() if key != _CACHE_KEY}
    parameters = read_parameters(archive.weights_file, links, state)
    parameters |= _mixes(archive, config, mix_prefix, mixes)
    keys = {prefix + key for key in entries} | {f"{mix_prefix}{key}" for key in mixes}
    return ElmoInside(prefix, mix_prefix if mixes else None, config, parameters, keys)


def read_parameters(file: InputFile, links: Sequence[Link], state: Mapping[str, object]) -> dict[str, Tensor]:
    """Our parameters from foreign ones, of which every one is accounted for.

    Raises:
        ConversionError: for keys that are missing or surplus, and arrays of another shape or dtype, or not finite.
    """
    check_arrays(file, links, {key: tensor_info(value) for key, value in state.items()})
    tensors = {link.foreign: sound_tensor(state[link.foreign]) for link in links}
    check_finite(file, tensors)
    parameters: dict[str, Tensor] = {}
    taken: set[int] = set()
    for link in links:
        for name, value in to_ours(link, tensors[link.foreign]).items():
            # Arrays of the file become parameters as they are, unless several share memory, which those may not.
            storage = value.untyped_storage()
            if storage.data_ptr() in taken or storage.nbytes() > value.numel() * value.element_size():
                value = value.clone()
            taken.add(value.untyped_storage().data_ptr())
            parameters[name] = value
    return parameters


def check_finite(file: InputFile, arrays: Mapping[str, Tensor]) -> None:
    """Raises a ConversionError that names the arrays with values that are not finite, if there are any."""
    bad = {key: value.numel() - int(value.isfinite().sum()) for key, value in arrays.items()}
    listed = [f"{key} ({count} of {arrays[key].numel()} values)" for key, count in sorted(bad.items()) if count]
    large = [key for key, value in sorted(arrays.items()) if value.numel() and value.abs().max() > LARGEST_WEIGHT]
    problems = {"infinite or not a number": listed, TOO_LARGE: [key for key in large if not bad[key]]}
    raise_problems(f"{file} is no file of usable weights", problems)


def _prefix(archive: Archive) -> str:
    prefixes = sorted(key.removesuffix(ROOT_KEY) for key in archive.state if key.endswith(ROOT_KEY))
    if len(prefixes) == 1:
        return prefixes[0]
    if prefixes:
        raise ConversionError(
            f"{archive.weights_file} holds {len(prefixes)} ELMos ({', '.join(prefixes)}), and only one can be taken: "
            "this may be a multilingual model."
        )
    raise ConversionError(
        f"{archive.weights_file} holds no ELMo: there is no key that ends in {ROOT_KEY}. Its model is of type "
        f"{archive.model_type!r}, with {len(archive.state)} arrays. (ELMos of transformers are other models.)"
    )


def _mix_entries(state: Mapping[str, object], prefix: str) -> dict[str, object]:
    """What belongs to the mixes, by the key behind the prefix."""
    pattern = re.compile(re.escape(prefix) + r"(scalar_mix_\d+\..+)")
    return {match[1]: value for key, value in state.items() if (match := pattern.fullmatch(key))}


def _mixes(
    archive: Archive, config: ElmoConfig, prefix: str | None, entries: Mapping[str, object]
) -> dict[str, Tensor]:
    """Parameters of the scalar mixes; those of a new one if there are none."""
    layers = config.num_layers + 1
    if not entries:
        return {"scalar_mixes.0.weights": torch.zeros(layers), "scalar_mixes.0.gamma": torch.ones(1)}
    numbers = range(config.num_representations)
    links = [
        Link(f"{prefix}scalar_mix_{number}.{theirs}", (f"scalar_mixes.{number}.{ours}",), (1,), _ALONE)
        for number in numbers
        for theirs, ours in (
            ("gamma", "gamma"),
            *((f"scalar_parameters.{layer}", f"weights.{layer}") for layer in range(layers)),
        )
    ]
    found = read_parameters(archive.weights_file, links, {f"{prefix}{key}": value for key, value in entries.items()})
    mixes: dict[str, Tensor] = {}
    for number in numbers:
        ours = f"scalar_mixes.{number}"
        mixes[f"{ours}.weights"] = torch.cat([found[f"{ours}.weights.{layer}"] for layer in range(layers)])
        mixes[f"{ours}.gamma"] = found[f"{ours}.gamma"]
    return mixes


_ALONE = Transform(lambda value: (value,), lambda value: value)


def _elmo_fields(archive: Archive) -> dict[str, Any]:
    """What `config.json` says of its one ELMo besides sizes, as fields of ElmoConfig."""
    sections = [
        section
        for section in _objects(archive.config.get("model"))
        if "weight_file" in section or section.get("type") == "elmo_token_embedder"
    ]
    if len(sections) != 1:
        return {}
    names = {
        "do_layer_norm": "do_layer_norm",
        "dropout": "representation_dropout",
        "scalar_mix_parameters": "scalar_mix_parameters",
    }
    fields = {ours: sections[0][theirs] for theirs, ours in names.items() if sections[0].get(theirs) is not None}
    if isinstance(sections[0].get("requires_grad"), bool):
        fields["freeze_bilm"] = not sections[0]["requires_grad"]
    return fields


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All JSON objects in a value, itself included."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)


def _config(
    archive: Archive,
    entries: Mapping[str, object],
    options: OptionsSource | None,
    fields: Mapping[str, Any],
    num_representations: int,
) -> ElmoConfig:
    sizes = _sizes(archive, entries)
    content, name = _options(archive, options)
    try:
        if content is None:
            config = ElmoConfig(
                **sizes, **fields, forget_bias=0.0, num_representations=num_representations, vocab_size=4
            )
        else:
            config = ElmoConfig.from_options(
                content, **fields, forget_bias=0.0, num_representations=num_representations, vocab_size=4
            )
    except (ValueError, TypeError) as error:
        place = archive.config_file if content is None else f"{name} or {archive.config_file}"
        raise ConversionError(f"{place}: {error}") from None
    for field, size in sizes.items():
        if getattr(config, field) != size:
            raise ConversionError(
                f"{name} is not of the ELMo in {archive.weights_file}: by the one {field} is {getattr(config, field)}, "
                f"by the shapes in the other {size}."
            )
    return config


def _options(archive: Archive, options: OptionsSource | None) -> tuple[dict[str, Any] | None, str]:
    """The content of an `options.json`, if there is one, and its name in messages."""
    if isinstance(options, Mapping):
        return dict(options), "The options"
    if options is not None:
        return read_json_object(InputFile.at(options)), str(options)
    present = [file for path, file in archive.files.items() if path.endswith(OPTIONS_ENDS)]
    if len(present) == 1:
        return read_json_object(present[0]), str(present[0])
    return None, ""


def _sizes(archive: Archive, entries: Mapping[str, object]) -> dict[str, Any]:
    """The sizes that the shapes of a biLM's weights tell."""

    def shape(key: str, rank: int) -> tuple[int, ...]:
        info = tensor_info(entries[key]) if key in entries else ArrayInfo(None, "", "missing")
        if info.fault or info.shape is None or len(info.shape) != rank or 0 in info.shape:
            what = info.fault or f"of shape {info.shape}, expected {rank} dimensions that are not empty"
            raise ConversionError(f"{archive.weights_file}: {_prefix(archive)}{key} is {what}.")
        return info.shape

    def count(template: str) -> int:
        number = 0
        while template.format(number) in entries:
            number += 1
        return number

    filters = count("_token_embedder.char_conv_{}.weight")
    layers = count("_elmo_lstm.forward_layer_{}.state_linearity.weight")
    convolutions = [shape(f"_token_embedder.char_conv_{number}.weight", 3) for number in range(max(1, filters))]
    gates, projection_dim = shape("_elmo_lstm.forward_layer_0.state_linearity.weight", 2)
    return {
        "char_embed_dim": shape(ROOT_KEY, 2)[1],
        "filters": [[width, features] for features, _, width in convolutions],
        "num_highway_layers": count("_token_embedder._highways._layers.{}.weight"),
        "cell_size": gates // 4,
        "projection_dim": projection_dim,
        "num_layers": layers,
    }
