"""`options.json`: from its content to a configuration, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..model.configuration_elmo import ElmoConfig
from .errors import ConversionError
from .files import InputFile, read_json_object
from .vocabulary import distinct_words

# No ELMo has a hundredth of them; a model is not to be built from any number that a file claims.
_MOST_LAYERS, _LARGEST_SIZE = 1000, 1_000_000


def vocabulary_name(vocabulary: object) -> str:
    """What messages call a vocabulary: its file, if it is one."""
    return str(vocabulary) if isinstance(vocabulary, InputFile) else "The vocabulary"


def read_options(options: InputFile | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The content of an `options.json`, or what was given in its place, and what messages call it.

    Raises:
        ConversionError: if the file is no JSON object.
    """
    if isinstance(options, InputFile):
        return read_json_object(options), str(options)
    return dict(options), "The options"


def config_of(content: Mapping[str, Any], name: str, vocab_size: int) -> ElmoConfig:
    """The configuration that the content of an `options.json` describes.

    Raises:
        ConversionError: if it describes none, or sizes that no ELMo has.
    """
    _check_counts(content, name)
    try:
        return ElmoConfig.from_options(dict(content), vocab_size=vocab_size)
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{name}: {error}") from None


def _check_counts(content: Mapping[str, Any], name: str) -> None:
    """Raises a ConversionError, by the file's own key, for sizes that no ELMo has; all else is left to `ElmoConfig`."""

    def value_of(*keys: str) -> Any:
        value: Any = content
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    filters = value_of("char_cnn", "filters")
    filters = filters if isinstance(filters, list) else []
    counts = [entry[-1] for entry in filters if isinstance(entry, list) and entry and isinstance(entry[-1], int)]
    for key, number, most in (
        ("lstm.n_layers", value_of("lstm", "n_layers"), _MOST_LAYERS),
        ("lstm.dim", value_of("lstm", "dim"), _LARGEST_SIZE),
        ("char_cnn.n_highway", value_of("char_cnn", "n_highway"), _MOST_LAYERS),
        ("char_cnn.embedding.dim", value_of("char_cnn", "embedding", "dim"), _LARGEST_SIZE),
        ("char_cnn.max_characters_per_token", value_of("char_cnn", "max_characters_per_token"), _LARGEST_SIZE),
        ("the number of char_cnn.filters", len(filters), _MOST_LAYERS),
        ("the largest of char_cnn.filters", max(counts, default=0), _LARGEST_SIZE),
    ):
        if isinstance(number, int) and number > most:
            raise ConversionError(f"{name}: {key} is {number}, expected no more than {most:,}.")


def options_of(config: ElmoConfig, vocabulary: Sequence[str] | None) -> dict[str, Any]:
    """The options that are to be written for a model and its vocabulary without special words.

    Raises:
        ConversionError: for a model that the format cannot hold, or one that reads other words than those.
    """
    try:
        options = config.to_options()
    except ValueError as error:
        raise ConversionError(str(error)) from None
    if not config.character_inputs:
        given = None if vocabulary is None else len(distinct_words(vocabulary, "The vocabulary"))
        if given != config.vocab_size - 4:
            raise ConversionError(
                f"The model reads the {config.vocab_size - 4:,} words of its vocabulary (vocab_size without 4 special "
                f"words), and {'no vocabulary' if given is None else f'one of {given:,} words'} was given: give the "
                "words of its tokenizer, in their order."
            )
        options["n_tokens_vocab"] = config.vocab_size - 1
    return options
