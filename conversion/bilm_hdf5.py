"""The original format of ELMo: `options.json` and an HDF5 file of weights (bilm-tf, AllenNLP, the NLPL repository).

The layout is that of bilm-tf's `dump_weights` (`bilm/training.py`); every published ELMo but those of
ELMoForManyLangs has it. Neither the softmax of the language model nor scalar mixes are part of it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ..hub.published_models import origin_of
from ..model.configuration_elmo import ElmoConfig
from ..model.model_files import LARGEST_WEIGHT
from ..model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from ..model.scalar_mix import ScalarMix
from ..whole_files import new_folder
from .bilm_files import (
    OPTIONS_NAME,
    VOCABULARY_NAME,
    WEIGHTS_NAME,
    BilmFiles,
    OptionsSource,
    VocabularySource,
    bilm_files,
)
from .bilm_options import config_of, options_of, read_options, vocabulary_name
from .errors import ConversionError
from .files import InputFile, check_new_folder, paths_of
from .foreign_files import describe_dtypes
from .hdf5_arrays import list_arrays, opened_hdf5, read_float32
from .key_map import (
    TOO_LARGE,
    TRANSPOSED,
    ArrayInfo,
    Entry,
    Link,
    Transform,
    check_arrays,
    raise_problems,
    resolve,
    to_foreign,
    to_ours,
)
from .model_folder import load_model_folder, write_model_folder
from .vocabulary import distinct_words, read_vocabulary_lines, write_bilm_vocabulary
from .word_rows import ROWS_OF_WORDS, check_lines, our_order, with_rows


def _without_padding_row(embedding: Tensor) -> Tensor:
    if not embedding.is_meta and embedding[0].count_nonzero():
        raise ValueError(
            "its row 0, padding, is not zero, but the format has no place for it (every reader puts zeros there)."
        )
    return embedding[1:]


#: ``(261, dim)``, and a row of zeros for padding before it.
PADDING_ROW_ADDED = Transform(
    lambda rows: (torch.cat([rows.new_zeros(1, *rows.shape[1:]), rows]),), _without_padding_row
)

#: TensorFlow's ``(height 1, width, in, out)`` and torch's ``(out, in, width)``.
CONVOLUTION = Transform(
    lambda kernel: (kernel.squeeze(0).permute(2, 1, 0),), lambda weight: weight.permute(2, 1, 0).unsqueeze(0)
)


def _swap_gates(rows: Tensor) -> Tensor:
    """TensorFlow's gates i, j (the new content), f, o to torch's i, f, g, o, or back: rows ``(4 * cell, ...)``."""
    i, second, third, o = rows.chunk(4)
    return torch.cat([i, third, second, o])


GATES = Transform(lambda bias: (_swap_gates(bias),), _swap_gates)

#: One kernel over input and output side by side, ``(2 * projection, 4 * cell)``: `weight_ih` and `weight_hh`.
GATE_KERNEL = Transform(
    lambda kernel: _swap_gates(kernel.T).chunk(2, dim=1),
    lambda weight_ih, weight_hh: _swap_gates(torch.cat([weight_ih, weight_hh], dim=1)).T,
)


def _lstm_entries(scope: str, layers: str) -> list[Entry]:
    return [
        Entry(f"{scope}/LSTMCell/W_0", (f"{layers}.weight_ih", f"{layers}.weight_hh"), GATE_KERNEL),
        Entry(f"{scope}/LSTMCell/B", f"{layers}.bias", GATES),
        Entry(f"{scope}/LSTMCell/W_P_0", f"{layers}.weight_hr", TRANSPOSED),
    ]


#: The table of a model that reads words.
WORD_KEY = "embedding"
# A fork of bilm-tf makes the table in a scope of that name.
_OTHER_WORD_KEY = f"{WORD_KEY}/{WORD_KEY}"

KEY_MAP = [
    Entry("char_embed", "character_encoder.char_embedding.weight", PADDING_ROW_ADDED),
    Entry("CNN/W_cnn_{i}", "character_encoder.convolutions.{i}.weight", CONVOLUTION),
    Entry("CNN/b_cnn_{i}", "character_encoder.convolutions.{i}.bias"),
    Entry("CNN_high_{i}/W_carry", "character_encoder.highways.{i}.carry.weight", TRANSPOSED),
    Entry("CNN_high_{i}/b_carry", "character_encoder.highways.{i}.carry.bias"),
    Entry("CNN_high_{i}/W_transform", "character_encoder.highways.{i}.transform.weight", TRANSPOSED),
    Entry("CNN_high_{i}/b_transform", "character_encoder.highways.{i}.transform.bias"),
    Entry("CNN_proj/W_proj", "character_encoder.projection.weight", TRANSPOSED),
    Entry("CNN_proj/b_proj", "character_encoder.projection.bias"),
    *_lstm_entries("RNN_0/RNN/MultiRNNCell/Cell{i}", "bilstm.forward_layers.{i}"),
    *_lstm_entries("RNN_1/RNN/MultiRNNCell/Cell{i}", "bilstm.backward_layers.{i}"),
    Entry(WORD_KEY, "character_encoder.word_embedding.weight", ROWS_OF_WORDS),
]


def load_bilm(
    source: str | Path,
    *,
    options: OptionsSource | None = None,
    vocabulary: VocabularySource | None = None,
) -> tuple[ElmoModel, list[str] | None]:
    """Reads an ELMo in the original format.

    Args:
        source: One of

            - a folder with one file of weights (`weights.hdf5`, `model.hdf5` or another `.hdf5`) and `options.json`;
            - a file of weights, with its options beside it: `options.json`, or `<name>_options.json` for
              `<name>_weights.hdf5` (so AllenNLP's downloads are called);
            - a zip or tar archive of such a folder (the NLPL repository's, CLARIN's).

            A `vocab.txt` or `vocab.txt.gz` there is read too.
        options: The options, or their file, if they are elsewhere.
        vocabulary: The words of the vocabulary, most frequent first, or their file, if they are elsewhere. For a model
            that reads words (options without `char_cnn`) all lines of the vocabulary that it was trained with, special
            words included, without which its rows have no names.

    Returns:
        The model, in evaluation mode, float32; and its vocabulary without special words, None if there is none. The
        vocabulary counts in `config.vocab_size`. The scalar mixes, which are not in the format, are at their start.

    Raises:
        ConversionError: if anything is missing, surplus, damaged or contradictory: file, key, what was expected.
        OSError: if a file cannot be read.
    """
    with bilm_files(source, options, vocabulary) as parts:
        return _load(parts)


def _load(parts: BilmFiles) -> tuple[ElmoModel, list[str] | None]:
    content, name = read_options(parts.options)
    lines, rows = _lines(parts.vocabulary), None
    words = None if lines is None else distinct_words(lines, vocabulary_name(parts.vocabulary))
    if "char_cnn" not in content:
        if lines is None:
            with opened_hdf5(parts.weights) as weights:
                if "char_embed" in weights:
                    raise ConversionError(
                        f"{name} has no char_cnn, but the weights in {parts.weights} are of a model that reads "
                        "characters (char_embed): expected its options.json, as it was."
                    )
            raise ConversionError(
                f"{name} has no char_cnn: the model reads words, by the lines of the vocabulary that it was trained "
                f"with, and there is none (vocab.txt) beside {parts.weights}. Give that file (vocabulary=...)."
            )
        words, rows = our_order(lines, vocabulary_name(parts.vocabulary))
    config = config_of(content, name, vocab_size=4 + len(words or ()))
    links = bilm_links(config)
    with opened_hdf5(parts.weights) as weights:
        found = list_arrays(parts.weights, weights)
        if lines is not None and rows is not None:
            key = _OTHER_WORD_KEY if _OTHER_WORD_KEY in found else WORD_KEY
            shape = found[key].shape if key in found else None
            check_lines(parts.weights, key, shape, len(lines), vocabulary_name(parts.vocabulary), config)
            links = with_rows(links, WORD_KEY, key, len(lines), rows)
        if config.num_layers == 1 and "RNN_0/RNN/LSTMCell/W_0" in found:
            links = [_of_single_layer(link) for link in links]
        check_arrays(parts.weights, links, found, hint=_hint(found, config))
        state = read_parameters(parts.weights, links, partial(read_float32, parts.weights, weights))
    with torch.device("meta"):
        model = ElmoModel(config)
    # The arrays become the parameters: there is never a second copy of the whole model.
    model.load_state_dict(state | initial_mixes(config), strict=True, assign=True)
    return model.eval(), words


def save_bilm(model: ElmoPreTrainedModel, destination: str | Path, *, vocabulary: Sequence[str] | None = None) -> None:
    """Writes `options.json`, `weights.hdf5` and, if there is a vocabulary, `vocab.txt`, for bilm-tf or AllenNLP.

    What came from this format goes back bit for bit, and keys of the options that are not used here go back too.
    Softmax, heads and scalar mixes have no place in it (with a warning for mixes that have been trained). A
    `forget_bias` other than 1, which the format implies, is put into the biases. Of a model that reads words, the rows
    of its table are in the order of `vocab.txt`, special words first.

    Args:
        model: An ElmoModel, or a model with one inside.
        destination: The folder, which must not exist yet, or be empty.
        vocabulary: The words of the vocabulary, most frequent first; needed for a model that reads words.

    Raises:
        ConversionError: for a model that the format cannot hold, a vocabulary that is not the model's, or if there is
            something at `destination`.
        OSError: if the folder cannot be written. Nothing is left of it then.
    """
    bilm = getattr(model, "base_model", None)
    if not isinstance(bilm, ElmoModel):
        raise ConversionError(f"Only an ElmoModel, or a model with one inside, can be written, was: {type(model)}.")
    config = bilm.config
    options = options_of(config, vocabulary)
    parameters = {name: value for name, value in bilm.state_dict().items() if not name.startswith("scalar_mixes.")}
    links = resolve(KEY_MAP, parameters)
    if links != bilm_links(config):
        raise ConversionError("The sizes of the model's parameters are not those of its configuration.")
    if any(not torch.equal(value.cpu(), start) for value, start in _mixes(bilm)):
        warnings.warn("The weights of the scalar mixes are not part of the format, and are left out.", stacklevel=2)
    parameters |= biases_with_forget_bias(config, parameters)
    with new_folder(check_new_folder(destination)) as folder:
        with h5py.File(folder / WEIGHTS_NAME, "w") as weights:
            for link in links:
                weights.create_dataset(link.foreign, data=to_foreign(link, parameters).numpy())
        text = json.dumps(options, indent=2)
        (folder / OPTIONS_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")
        if vocabulary is not None:
            write_bilm_vocabulary(vocabulary, folder / VOCABULARY_NAME)


def convert_to_folder(
    source: str | Path,
    destination: str | Path,
    *,
    options: OptionsSource | None = None,
    vocabulary: VocabularySource | None = None,
    published: str | None = None,
) -> None:
    """Makes a model folder (configuration, safetensors, tokenizer) of an ELMo in the original format.

    Args:
        source: As in `load_bilm`, like the other arguments.
        destination: The folder, which must not exist yet, or be empty.
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_bilm`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    with bilm_files(source, options, vocabulary) as parts:
        model, words = _load(parts)
    origin = origin_of("bilm-hdf5", paths_of(source, parts), published)
    write_model_folder(model, words, destination, origin=origin)


def convert_from_folder(source: str | Path, destination: str | Path) -> None:
    """Writes the biLM of a model folder in the original format, and its tokenizer's vocabulary, if it has one.

    Args:
        source: A folder that transformers wrote for an ELMo of any kind.
        destination: The folder, which must not exist yet, or be empty.

    Raises:
        ConversionError: as `load_model_folder` and `save_bilm`.
        OSError: if a file cannot be written. Nothing is left of the folder then.

    Examples:
        >>> import os
        >>> import hf_elmo
        >>> hf_elmo.conversion.convert_from_folder(hf_elmo.bundled(), "original")
        >>> sorted(os.listdir("original"))
        ['options.json', 'vocab.txt', 'weights.hdf5']
    """
    check_new_folder(destination)
    model, words = load_model_folder(source)
    save_bilm(model, destination, vocabulary=words)


def _lines(vocabulary: InputFile | Sequence[str] | None) -> list[str] | None:
    if vocabulary is None:
        return None
    return read_vocabulary_lines(vocabulary) if isinstance(vocabulary, InputFile) else list(vocabulary)


def bilm_links(config: ElmoConfig) -> list[Link]:
    """The key map, filled in for a model of this configuration."""
    with torch.device("meta"):
        parameters = ElmoModel(config).state_dict()
    return resolve(KEY_MAP, {name: value for name, value in parameters.items() if not name.startswith("scalar_mixes.")})


def _of_single_layer(link: Link) -> Link:
    """The key of a model with one layer, for which bilm-tf's training makes no MultiRNNCell (`bilm/training.py`)."""
    return link._replace(foreign=link.foreign.replace("/MultiRNNCell/Cell0/", "/"))


def _hint(found: Mapping[str, ArrayInfo], config: ElmoConfig) -> str:
    keys = [key for key in found if key != "sentence_to_index"]
    if keys and all(key.isdecimal() for key in keys):
        return "This looks like a file of vectors that an ELMo computed for sentences, not like a file of its weights."
    has_layers = any(key.startswith("RNN_0/") for key in found)
    if (
        config.character_inputs
        and has_layers
        and "char_embed" not in found
        and {WORD_KEY, _OTHER_WORD_KEY} & set(found)
    ):
        return (
            "The weights are of a model that reads words (embedding), but the options describe one that reads "
            "characters (char_cnn): they do not belong together."
        )
    if not config.character_inputs and "char_embed" in found:
        return (
            "The weights are of a model that reads characters (char_embed), but the options have no char_cnn: they do "
            "not belong together."
        )
    if WORD_KEY in found and "char_embed" not in found and not has_layers:
        return "This looks like a file of word vectors, which bilm-tf reads besides the weights, not instead of them."
    return describe_dtypes(info.dtype for info in found.values())


def read_parameters(file: object, links: Sequence[Link], read: Callable[[str], np.ndarray]) -> dict[str, Tensor]:
    """Reads the parameters of a model from a file whose arrays were found to be those of the links.

    Args:
        file: The file, as messages are to name it.
        links: What to read.
        read: Gives the array of a foreign key, in float32.

    Raises:
        ConversionError: with a list of all arrays that hold infinite values, such that are not numbers, or such that
            nothing can be computed with.
    """
    state: dict[str, Tensor] = {}
    not_finite: list[str] = []
    too_large: list[str] = []
    for link in links:
        array = read(link.foreign)
        # Torch's isfinite takes more than twice the memory of what it looks at, and a softmax may have gigabytes.
        if bad := array.size - np.count_nonzero(np.isfinite(array)):
            not_finite.append(f"{link.foreign} ({bad} of {array.size} values)")
        elif array.size and max(float(array.max()), -float(array.min())) > LARGEST_WEIGHT:
            too_large.append(link.foreign)
        state |= to_ours(link, torch.from_numpy(array))
    problems = {"infinite or not a number": sorted(not_finite), TOO_LARGE: sorted(too_large)}
    raise_problems(f"{file} is no file of usable weights", problems)
    return state


def initial_mixes(config: ElmoConfig) -> dict[str, Tensor]:
    """The scalar mixes of an ElmoModel at their start, float32, by the names of its parameters."""
    start = _initial_mix(config)
    return {
        f"scalar_mixes.{number}.{name}": value.clone()
        for number in range(config.num_representations)
        for name, value in start.items()
    }


def _initial_mix(config: ElmoConfig) -> dict[str, Tensor]:
    mix = ScalarMix(config.num_layers + 1, config.do_layer_norm, config.scalar_mix_parameters)
    return {name: value.float() for name, value in mix.state_dict().items()}


def _mixes(model: ElmoModel) -> Iterator[tuple[Tensor, Tensor]]:
    """The parameters of the scalar mixes, each with its start."""
    start = _initial_mix(model.config)
    for mix in model.scalar_mixes:
        for name, value in mix.state_dict().items():
            yield value, start[name].to(value.dtype)


def biases_with_forget_bias(config: ElmoConfig, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases of the LSTMs as formats hold them that imply a forget bias of 1: those that are to be changed."""
    if config.forget_bias == 1.0:
        return {}
    return {
        name: _with_forget_bias(value, config.forget_bias - 1.0)
        for name, value in parameters.items()
        if "bilstm." in name and name.endswith(".bias")
    }


def _with_forget_bias(bias: Tensor, addition: float) -> Tensor:
    """Torch's gates i, f, g, o: ``(4 * cell,)``."""
    i, f, g, o = bias.chunk(4)
    return torch.cat([i, f + addition, g, o])
