"""Model folders: where the bundled ones are, and how any is found, loaded and described."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..model.model_files import read_json_object, stored_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..model.heads.token_classification_elmo import ElmoForTokenClassification
    from ..model.modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
    from ..model.remote_code import SavedElmo
    from ..model.tokenization_elmo import ElmoTokenizer

_Model = TypeVar("_Model", bound="SavedElmo")

#: The model_type of a model that reads, and that of one that writes.
READS, WRITES = "elmo", "elmo-encoder-decoder"

_BUNDLED = Path(__file__).parents[1] / "pretrained"


def bundled(name: str = "elmo-mini") -> str:
    """The folder of a model that comes with the package, for `from_pretrained`.

    Args:
        name: The model's name.

    Raises:
        ValueError: if no such model is bundled.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled("elmo-mini"))
        >>> model.config.model_type
        'elmo'
    """
    folder = _BUNDLED / name
    if not (folder / "config.json").is_file():
        names = sorted(entry.parent.name for entry in _BUNDLED.glob("*/config.json"))
        raise ValueError(f"No model {name!r} comes with hf_elmo; there is: {', '.join(names) or 'none'}.")
    return str(folder)


def find_folder(name: str | None, model_types: Sequence[str] = (READS,)) -> Path:
    """The model folder that was asked for; None asks for the bundled model, and the name of a bundled one for that.

    Args:
        name: A path, or the name of a bundled model.
        model_types: Which kinds of models it may hold.

    Raises:
        ValueError: if it is not a folder of an ELMo in the Hugging Face format, with what to do.
    """
    if name is None:
        return Path(bundled())
    folder = Path(name)
    if not folder.exists():
        try:
            return Path(bundled(name))
        except ValueError as error:
            raise ValueError(f"There is no model folder {name}. ({error})") from None
    config = folder / "config.json"
    if not config.is_file():
        is_foreign = folder.suffix in (".hdf5", ".h5", ".zip") or any(folder.glob("*.hdf5"))
        remedy = f"convert it first: hf-elmo convert {name} NEW_FOLDER" if is_foreign else "give a model folder."
        raise ValueError(f"{name} is not a model folder (it has no config.json): {remedy}")
    model_type = read_json_object(config).get("model_type")
    if model_type is None and (folder / "token_embedder.pkl").is_file():
        raise ValueError(f"{name} is a folder of ELMoForManyLangs: convert it first: hf-elmo convert {name} NEW_FOLDER")
    if model_type not in model_types:
        expected = " or ".join(map(repr, model_types))
        raise ValueError(
            f"{config} has the model_type {model_type!r}, expected {expected}: this is another kind of model."
        )
    return folder


def load(name: str | None, device: str | None = None) -> tuple[ElmoModel, ElmoTokenizer]:
    """Loads the biLM of a model folder, whatever head it was saved with, and its tokenizer.

    Args:
        name: As for `find_folder`.
        device: A device of torch's; None: a GPU if there is one.

    Returns:
        `ElmoModel`, in evaluation mode, and `ElmoTokenizer`.

    Raises:
        ValueError: for a folder that is not complete and sound, and for a device that is not there.
    """
    from ..model.modeling_elmo import ElmoModel

    return _load(ElmoModel, find_folder(name), device)


def load_language_model(name: str | None, device: str | None = None) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    """Loads the language model of a folder and its tokenizer; arguments as for `load`.

    Returns:
        `ElmoForPreTraining`, in evaluation mode, and `ElmoTokenizer`.

    Raises:
        ValueError: as `load`, and for a folder without the softmax over words.
    """
    from ..model.modeling_elmo import ElmoForPreTraining

    return _load(ElmoForPreTraining, find_folder(name), device)


def load_as_saved(folder: Path) -> tuple[SavedElmo, PreTrainedTokenizerBase]:
    """Loads the model of a folder with the head, or the decoder, that it was saved with, on the CPU.

    Returns:
        The model, in evaluation mode, and its tokenizer, or tokenizers.

    Raises:
        ValueError: as `load`, and for a head that this package does not know.
    """
    from ..model import elmo_models

    config = read_json_object(folder / "config.json")
    if config.get("model_type") == WRITES:
        return _load_model(elmo_models.ElmoEncoderDecoderModel, folder, "cpu"), _load_two_tokenizers(folder)
    name = (architectures(config) or ["ElmoModel"])[0]
    model_class = getattr(elmo_models, name, None)
    if not isinstance(model_class, type) or not issubclass(model_class, elmo_models.ElmoPreTrainedModel):
        raise ValueError(f"{folder / 'config.json'} names the architecture {name!r}, which is not a model of hf_elmo.")
    return _load(model_class, folder, "cpu")


def load_tagger(name: str, device: str | None = None) -> tuple[ElmoForTokenClassification, ElmoTokenizer]:
    """Loads a tagger of words and its tokenizer; arguments as for `load`.

    Returns:
        `ElmoForTokenClassification`, in evaluation mode, and `ElmoTokenizer`.

    Raises:
        ValueError: as `load`, and for a folder of another kind of model.
    """
    from ..model.heads.token_classification_elmo import ElmoForTokenClassification

    folder = find_folder(name)
    content = read_json_object(folder / "config.json")
    kinds = architectures(content) or ["ElmoModel"]
    if "ElmoForTokenClassification" not in kinds:
        raise ValueError(
            f"{folder} does not hold a tagger of words (ElmoForTokenClassification), but: {', '.join(kinds)}."
        )
    return _load(ElmoForTokenClassification, folder, device)


def load_with_head(name: str | None, device: str | None = None) -> tuple[ElmoPreTrainedModel, ElmoTokenizer]:
    """Loads the model of a folder with its task head, if it has one; arguments as for `load`.

    Returns:
        A model of the class that its config.json names (of a language model the biLM), in evaluation mode, and
        `ElmoTokenizer`.

    Raises:
        ValueError: as `load`.
    """
    from ..model import elmo_models

    folder = find_folder(name)
    named = architectures(read_json_object(folder / "config.json"))
    heads = {each for each in elmo_models.__all__ if each.startswith("ElmoFor") and each != "ElmoForPreTraining"}
    chosen = next((each for each in named if each in heads), "ElmoModel")
    return _load(getattr(elmo_models, chosen), folder, device)


def architectures(config: dict[str, Any]) -> list[str]:
    """The classes of models that a config.json names."""
    named = config.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _load(model_class: type[_Model], folder: Path, device: str | None) -> tuple[_Model, ElmoTokenizer]:
    from ..model.tokenization_elmo import ElmoTokenizer

    if not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"{folder} has no tokenizer.json. Make one with ElmoTokenizer.create(...).save_pretrained({str(folder)!r})."
        )
    try:
        tokenizer = ElmoTokenizer.from_pretrained(folder, local_files_only=True)
    # Every library below has errors of its own; to the user all mean that the folder is damaged.
    except Exception as error:
        raise ValueError(f"The model in {folder} cannot be loaded: {_first_line(error)}") from error
    return _load_model(model_class, folder, device), tokenizer


def _load_two_tokenizers(folder: Path) -> PreTrainedTokenizerBase:
    from ..model.tokenization_encoder_decoder_elmo import ElmoEncoderDecoderTokenizer

    try:
        return ElmoEncoderDecoderTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"The tokenizers in {folder} cannot be loaded: {_first_line(error)}") from error


def _load_model(model_class: type[_Model], folder: Path, device: str | None) -> _Model:
    import torch

    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The device {device} cannot be used: {_first_line(error)}") from None
    stored = {name.removeprefix("elmo."): tensor.shape for name, tensor in stored_tensors(folder).items()}
    assert model_class.config_class is not None, "every model of ours has one"
    try:
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            fresh = model_class(config)
        # Of weights that are one only one is stored.
        tied = {*fresh.all_tied_weights_keys}
        sizes = {name: tuple(value.shape) for name, value in fresh.state_dict().items() if name not in tied}
    except Exception as error:
        raise ValueError(f"The model in {folder} cannot be loaded: {_first_line(error)}") from error
    # Before memory is asked for, which a damaged configuration may want without end.
    _check_fit(
        folder,
        [name for name in sizes if name.removeprefix("elmo.") not in stored],
        [name for name, shape in sizes.items() if stored.get(name.removeprefix("elmo."), shape) != shape],
    )
    try:
        model, report = model_class.from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:
        raise ValueError(f"The model in {folder} cannot be loaded: {_first_line(error)}") from error
    _check_fit(folder, report["missing_keys"], [key for key, *_ in report["mismatched_keys"]])
    return model.to(device).eval()


def _check_fit(folder: Path, missing: Iterable[str], mismatched: Iterable[str]) -> None:
    """Raises a ValueError if weights are missing, or of other shapes than the configuration says."""
    missing = set(missing)
    if missing and all(name.startswith("softmax.") for name in missing):
        raise ValueError(
            f"{folder} is not a language model: the softmax over words is missing. (Published ELMo weights come "
            "without it. hf-elmo train makes a language model.)"
        )
    if wrong := sorted({*missing, *mismatched}):
        raise ValueError(
            f"The weights in {folder} are not those of its config.json: {len(wrong)} are missing or of another shape, "
            f"such as {wrong[0]}."
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def describe(folder: Path) -> dict[str, Any]:
    """What there is to know about a model folder from its configuration and the tables of contents of its weights.

    Raises:
        ValueError: if the configuration is impossible, or a file of weights is missing or damaged.
    """
    from ..model.configuration_elmo import ElmoConfig
    from ..model.heads.configuration_encoder_decoder_elmo import ElmoEncoderDecoderConfig

    content = read_json_object(folder / "config.json")
    decoder: Any = None
    try:
        if content.get("model_type") == WRITES:
            both = ElmoEncoderDecoderConfig.from_pretrained(folder, local_files_only=True)
            config, decoder = both.encoder, both.decoder
        else:
            config = ElmoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{folder / 'config.json'} describes no ELMo: {error}") from None
    tensors = [(name, each.dtype, math.prod(each.shape)) for name, each in stored_tensors(folder).items()]
    files = sorted(folder.iterdir())
    switches = {name: getattr(config, name) for name in _SIZES_AND_SWITCHES}
    facts = {
        "folder": str(folder),
        "model": ", ".join(architectures(content) or ["ElmoModel"]),
        "sizes and switches": {**switches, "hidden_size": config.hidden_size},
        "parameters": _count_parameters(tensors),
        "dtype": ", ".join(sorted({dtype for _, dtype, _ in tensors})),
        "vocabulary": f"{config.vocab_size:,} words, special ones included" if config.vocab_size > 4 else "none",
        "origin": "options.json and HDF5 (bilm-tf, AllenNLP)" if config.original_options else "transformers",
        "remote code": "yes" if any(folder.glob("modeling_*.py")) else "no",
        "files": {path.name: path.stat().st_size for path in files if path.is_file() and path.suffix != ".py"},
    }
    if decoder is not None:
        facts["decoder"] = {
            "model_type": decoder.model_type,
            "vocab_size": decoder.vocab_size,
            "hidden_size": decoder.hidden_size,
            "num_hidden_layers": decoder.num_hidden_layers,
            "max_position_embeddings": getattr(decoder, "max_position_embeddings", None),
        }
    return facts


_SIZES_AND_SWITCHES = (
    "character_inputs",
    "char_vocab_size",
    "byte_characters",
    "word_embed_dim",
    "char_embed_dim",
    "filters",
    "num_highway_layers",
    "activation",
    "max_characters_per_token",
    "cell_size",
    "projection_dim",
    "num_layers",
    "use_skip_connections",
    "cell_clip",
    "proj_clip",
    "forget_bias",
    "num_representations",
    "do_layer_norm",
    "scalar_mix_parameters",
)

# Beginnings of parameters' names (in a model on top of the biLM, "elmo." or "encoder." comes before the first three).
_PARTS = {
    "character_encoder.": "character encoder",
    "bilstm.": "biLSTM",
    "scalar_mixes.": "scalar mixes",
    "softmax.": "softmax",
    "decoder.": "decoder",
    "enc_to_dec_proj.": "projection to the decoder",
}


def _count_parameters(tensors: list[tuple[str, str, int]]) -> dict[str, int]:
    """Parameters of each part. The biLM's, mixes and softmax left out, is the number that is published for an ELMo."""
    counts: Counter[str] = Counter()
    for name, _, size in tensors:
        name = name.removeprefix("elmo.").removeprefix("encoder.")
        counts[next((part for start, part in _PARTS.items() if name.startswith(start)), "task head")] += size
    parts = {part: counts[part] for part in (*_PARTS.values(), "task head") if part in counts}
    return {"biLM": counts["character encoder"] + counts["biLSTM"], **parts, "all": counts.total()}
