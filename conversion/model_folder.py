"""Our side of every conversion: a model folder as transformers writes it, whole or not there at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from ..hub.model_card import write_card
from ..hub.published_models import Origin
from ..model.modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from ..model.tokenization_elmo import SPECIAL_WORDS, ElmoTokenizer
from ..whole_files import new_folder
from .errors import ConversionError
from .files import InputFile, check_new_folder, read_json_object

_Model = TypeVar("_Model", ElmoModel, ElmoForPreTraining)


def write_model_folder(
    model: ElmoPreTrainedModel,
    vocabulary: Sequence[str] | None,
    destination: str | Path,
    *,
    tokenizer: ElmoTokenizer | None = None,
    origin: Origin | None = None,
) -> None:
    """Writes configuration, weights (safetensors), tokenizer and model card.

    Args:
        model: The model; its `config.vocab_size` counts the vocabulary and four special words.
        vocabulary: The words of the tokenizer, most frequent first, without special words; None for no vocabulary.
        destination: The folder, which must not exist yet, or be empty.
        tokenizer: The tokenizer, if it is not to be made of the vocabulary.
        origin: The files that the model was made from, for its card; None for no card.

    Raises:
        ConversionError: if there is something at `destination`, or model and vocabulary do not fit.
        OSError: if the folder cannot be written. Nothing is left of it then.
    """
    if tokenizer is None:
        tokenizer = ElmoTokenizer.create(
            vocabulary=vocabulary,
            max_characters_per_token=model.config.max_characters_per_token,
            reads_characters=model.config.character_inputs,
        )
    if len(tokenizer) != model.config.vocab_size:
        raise ConversionError(
            f"The vocabulary makes {len(tokenizer)} words with the special ones, but the model has a vocab_size of "
            f"{model.config.vocab_size}: they do not belong together."
        )
    with new_folder(check_new_folder(destination)) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if origin is not None:
            write_card(folder, origin=origin, name=Path(destination).resolve().name)


def load_model_folder(source: str | Path) -> tuple[ElmoModel, list[str] | None]:
    """Reads the biLM of a model folder, and the words of its tokenizer.

    Args:
        source: The folder of an ELMo of any kind: heads and softmax are left out.

    Returns:
        The model, and the words of its tokenizer, without special words; None if it has no vocabulary.

    Raises:
        ConversionError: if it is no such folder, or a file in it is damaged or incomplete.
    """
    return _load(ElmoModel, source)


def load_language_model_folder(source: str | Path) -> tuple[ElmoForPreTraining, list[str] | None]:
    """Reads the language model of a model folder, softmax included, and the words of its tokenizer.

    Raises:
        ConversionError: as `load_model_folder`, and if there is no softmax.
    """
    return _load(ElmoForPreTraining, source)


def _load(kind: type[_Model], source: str | Path) -> tuple[_Model, list[str] | None]:
    config = Path(source) / "config.json"
    if not config.is_file():
        raise ConversionError(f"{source} is not a model folder: there is no config.json in it.")
    model_type = read_json_object(InputFile.at(config)).get("model_type")
    if model_type != "elmo":
        raise ConversionError(f"{config} describes a model of type {model_type!r}, expected 'elmo'.")
    try:
        model, report = kind.from_pretrained(
            str(source), output_loading_info=True, local_files_only=True, use_safetensors=True
        )
        words = _words(Path(source))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConversionError(f"{source} cannot be read: {error}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        if any(key.startswith("softmax.") for key in report["missing_keys"]):
            raise ConversionError(
                f"{source} is not a language model: it has no softmax ({missing}). Only models that came from a "
                "checkpoint, or were trained here, have one."
            )
        raise ConversionError(f"{source}: parameters are missing from model.safetensors: {missing}.")
    return model, words


def _words(folder: Path) -> list[str] | None:
    if not (folder / "tokenizer.json").is_file():
        return None
    numbers = ElmoTokenizer.from_pretrained(str(folder), local_files_only=True).get_vocab()
    return [word for word in sorted(numbers, key=numbers.__getitem__) if word not in SPECIAL_WORDS] or None
