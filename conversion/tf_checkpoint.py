"""Checkpoints of bilm-tf's training in TensorFlow: the whole language model, with the softmax that no HDF5 file has.

The variables are those that `LanguageModel` and `train` make in bilm-tf's `bilm/training.py`. A model of one layer has
names of its own, as TensorFlow makes no `multi_rnn_cell` around a single cell. TensorFlow itself reads the files (the
extra `tf`), through nothing but `tf.train.load_checkpoint`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..hub.published_models import origin_of
from ..model.configuration_elmo import ElmoConfig
from ..model.modeling_elmo import ElmoForPreTraining
from .bilm_files import OPTIONS_NAME, OptionsSource, VocabularySource
from .bilm_hdf5 import WORD_KEY, bilm_links, initial_mixes, read_parameters
from .bilm_options import config_of, read_options, vocabulary_name
from .errors import ConversionError
from .files import InputFile, check_new_folder, files_of_folder, paths_of
from .key_map import SAME, ArrayInfo, Link, check_arrays, show_key
from .model_folder import write_model_folder
from .vocabulary import read_vocabulary_lines
from .word_rows import check_lines, in_our_order, our_order, with_rows

STATE_NAME, _INDEX_SUFFIX = "checkpoint", ".index"
_PART = re.compile(r"(?P<prefix>.+)\.(index|meta|data-\d{5}-of-\d{5})")
_VOCABULARY_NAME = re.compile(r"vocab.*\.txt(\.gz)?")

# From names in bilm-tf's HDF5 files to those of its variables: what its `dump_weights` does, backwards.
_RENAMED = (
    (r"^", "lm/"),
    (r"/RNN/MultiRNNCell/Cell(\d+)/LSTMCell/", r"/rnn/multi_rnn_cell/cell_\1/lstm_cell/"),
    (r"(/lstm_cell/)W_0$", r"\1kernel"),
    (r"(/lstm_cell/)B$", r"\1bias"),
    (r"(/lstm_cell/)W_P_0$", r"\1projection/kernel"),
)

# What training keeps beside the weights: one of these for each weight, under the weight's name, and single numbers.
_SLOT = re.compile(r"(?P<weight>.+)/(?P<slot>Adagrad|Adam|Adam_1|Momentum)")
_NUMBERS = {"global_step", "train_perplexity", "beta1_power", "beta2_power"}

_SOFTMAX, _SOFTMAX_BIAS = "lm/softmax/W", "lm/softmax/b"
_WORDS = f"lm/{WORD_KEY}"
# A fork of bilm-tf makes the table of words in a scope of that name.
_OTHER_WORDS = f"{_WORDS}/{WORD_KEY}"


class _Checkpoint(NamedTuple):
    """A checkpoint's files.

    Attributes:
        prefix: Path without the endings (`.index`, `.data-00000-of-00001` ...), by which TensorFlow knows it.
        beside: All files of its folder, by name.
    """

    prefix: Path
    beside: Mapping[str, InputFile]

    @property
    def files(self) -> list[InputFile]:
        """What TensorFlow reads: the index and the data."""
        matches = {name: _PART.fullmatch(name) for name in self.beside if not name.endswith(".meta")}
        return [self.beside[name] for name, match in matches.items() if match and match["prefix"] == self.prefix.name]


def is_tf_checkpoint(source: str | Path) -> bool:
    """Whether a path looks like a checkpoint of TensorFlow, its folder, or one of its files."""
    source = Path(source)
    if source.is_dir():
        return (source / STATE_NAME).is_file() or any(source.glob(f"*{_INDEX_SUFFIX}"))
    if source.is_file():
        return source.name == STATE_NAME or _PART.fullmatch(source.name) is not None
    return source.with_name(source.name + _INDEX_SUFFIX).is_file()


def load_tf_checkpoint(
    source: str | Path,
    *,
    options: OptionsSource | None = None,
    vocabulary: VocabularySource | None = None,
) -> tuple[ElmoForPreTraining, list[str]]:
    """Reads the language model in a checkpoint of bilm-tf's training.

    The rows of the softmax are put in the order of our vocabulary: `[PAD]` (zeros; never predicted), `[UNK]`, `<S>`,
    `</S>`, then the words in their order.

    Args:
        source: One of

            - a folder that bilm-tf trained in: the checkpoint that its file `checkpoint` names, or its only one;
            - a checkpoint, `model.ckpt-<step>` without ending, or one of its files.

            `options.json` and the vocabulary (`vocab*.txt`, `vocab*.txt.gz`) are looked for beside it.
        options: The options, or their file, if they are elsewhere.
        vocabulary: All lines of the vocabulary with which the model was trained, special words included, or their
            file, if they are elsewhere.

    Returns:
        The model, in evaluation mode, float32, and the words of its vocabulary, without special words. The scalar mixes
        are at their start.

    Raises:
        ConversionError: if TensorFlow is not installed; if anything is missing, surplus, damaged or contradictory:
            file, variable, what was expected.
        OSError: if a file cannot be read.
    """
    return _load(*_parts(source, options, vocabulary))


def _parts(
    source: str | Path, options: OptionsSource | None, vocabulary: VocabularySource | None
) -> tuple[_Checkpoint, InputFile | Mapping[str, Any], InputFile | Sequence[str]]:
    checkpoint = _find(Path(source))
    return checkpoint, _options(checkpoint, options), _vocabulary(checkpoint, vocabulary)


def _load(
    checkpoint: _Checkpoint, options: InputFile | Mapping[str, Any], vocabulary: InputFile | Sequence[str]
) -> tuple[ElmoForPreTraining, list[str]]:
    name = str(checkpoint.prefix)
    reader, found = open_checkpoint(name, name)
    if hint := _other_model(found):
        raise ConversionError(f"{name} {hint}")
    lines = read_vocabulary_lines(vocabulary) if isinstance(vocabulary, InputFile) else list(vocabulary)
    words, rows = our_order(lines, vocabulary_name(vocabulary))
    config = config_of(*read_options(options), vocab_size=4 + len(words))
    for key in (_SOFTMAX, _WORDS, _OTHER_WORDS):
        shape = found[key].shape if key in found else None
        check_lines(name, key, shape, len(lines), vocabulary_name(vocabulary), config)
    links = checkpoint_links(config, len(lines))
    if not config.character_inputs:
        links = with_rows(links, _WORDS, _OTHER_WORDS if _OTHER_WORDS in found else _WORDS, len(lines), rows)
    check_arrays(name, links, _without_training_state(name, found, links), hint=_hint(found, config))
    state = read_parameters(name, links, lambda key: read_variable(reader, name, key))
    if config.tie_word_embeddings:
        state["softmax.weight"] = state["elmo.character_encoder.word_embedding.weight"]
    else:
        state["softmax.weight"] = in_our_order(state["softmax.weight"], rows)
    state["softmax.bias"] = in_our_order(state["softmax.bias"], rows)
    state |= {f"elmo.{key}": value for key, value in initial_mixes(config).items()}
    # Training has 261 characters, prediction, with padding, 262; an options.json that is written one day is for that.
    assert config.original_options is not None, "from_options keeps the options"
    if config.character_inputs:
        config.original_options["char_cnn"]["n_characters"] = 262
    with torch.device("meta"):
        model = ElmoForPreTraining(config)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model.eval(), words


def convert_tf_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    options: OptionsSource | None = None,
    vocabulary: VocabularySource | None = None,
    published: str | None = None,
) -> None:
    """Makes a model folder (`ElmoForPreTraining`, and its tokenizer) of a checkpoint of bilm-tf's training.

    Args:
        source: As in `load_tf_checkpoint`, like the other arguments.
        destination: The folder, which must not exist yet, or be empty.
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_tf_checkpoint`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    parts = _parts(source, options, vocabulary)
    model, words = _load(*parts)
    origin = origin_of("bilm-tf-checkpoint", paths_of(source, [*parts[0].files, *parts[1:]]), published)
    write_model_folder(model, words, destination, origin=origin)


def _find(source: Path) -> _Checkpoint:
    if source.is_dir() or source.name == STATE_NAME:
        folder = source if source.is_dir() else source.parent
        files = files_of_folder(folder)
        present = [name.removesuffix(_INDEX_SUFFIX) for name in files if name.endswith(_INDEX_SUFFIX)]
        latest = _latest(files[STATE_NAME]) if STATE_NAME in files else None
        if latest not in present and len(present) != 1:
            named = f"; its file {STATE_NAME} names {latest!a}" if latest else ""
            raise ConversionError(
                f"{folder} has several checkpoints ({', '.join(present)}){named}: give one of them itself."
                if present
                else f"{folder} has no index of a checkpoint (model.ckpt-<step>{_INDEX_SUFFIX}){named}."
            )
        if latest not in present and latest is not None:
            _warn(f"{files[STATE_NAME]} names {latest!a}, which is not there; {present[0]} is, and is read.")
        checkpoint = _Checkpoint(folder / (latest if latest in present else present[0]), files)
    else:
        found = _PART.fullmatch(source.name)
        prefix = source.with_name(found["prefix"]) if found and source.exists() else source
        index = prefix.with_name(prefix.name + _INDEX_SUFFIX)
        if not index.is_file():
            raise ConversionError(f"{index} is not there: {source} is no checkpoint of TensorFlow, or not all of it.")
        checkpoint = _Checkpoint(prefix, files_of_folder(prefix.parent))
    dumped = [name for name in checkpoint.beside if name.endswith(".hdf5")]
    if source.is_dir() and dumped:
        _warn(
            f"{source} has {', '.join(dumped)} too, which is not read: such files hold no softmax. Should you want one "
            "instead of the checkpoint, give it itself."
        )
    return checkpoint


def _latest(state: InputFile) -> str | None:
    """The name in a `checkpoint` file, without its folder, which is one of the machine that trained."""
    text = state.path.read_bytes().decode("utf-8", "backslashreplace")
    found = re.search(r'^\s*model_checkpoint_path:\s*"([^"\n]+)"', text, re.MULTILINE)
    if found is None:
        raise ConversionError(f'{state} is not a list of checkpoints: it has no line model_checkpoint_path: "...".')
    return re.split(r"[/\\]", found[1])[-1]


def _options(checkpoint: _Checkpoint, options: OptionsSource | None) -> InputFile | Mapping[str, Any]:
    if isinstance(options, (str, Path)):
        return InputFile.at(options)
    if options is not None:
        return options
    beside = checkpoint.beside.get(OPTIONS_NAME)
    if beside is None:
        raise ConversionError(
            f"There is no {OPTIONS_NAME} beside {checkpoint.prefix}, which tells the model's sizes; bilm-tf's training "
            "wrote one into its folder. Put it there, or give its path (options=...)."
        )
    return beside


def _vocabulary(checkpoint: _Checkpoint, vocabulary: VocabularySource | None) -> InputFile | Sequence[str]:
    if isinstance(vocabulary, (str, Path)):
        return InputFile.at(vocabulary)
    if vocabulary is not None:
        return vocabulary
    present = [file for name, file in checkpoint.beside.items() if _VOCABULARY_NAME.fullmatch(name)]
    if len(present) != 1:
        several = f"several vocabularies ({', '.join(file.path.name for file in present)})"
        raise ConversionError(
            f"There {'are ' + several if present else 'is no vocabulary (vocab.txt)'} beside {checkpoint.prefix}. The "
            "softmax predicts the words of the vocabulary that the model was trained with, which is not in the "
            "checkpoint: give that file (vocabulary=...)."
        )
    return present[0]


def import_tensorflow(purpose: str) -> Any:
    """TensorFlow.

    Raises:
        ConversionError: if it cannot be imported: `purpose`, why, and what to do.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise ConversionError(
            f"{purpose} and cannot be imported ({error}). Install it, as the extra `tf` of hf_elmo does; converted "
            "folders do without."
        ) from None
    return tensorflow


def open_checkpoint(prefix: str, name: str) -> tuple[Any, dict[str, ArrayInfo]]:
    """TensorFlow's reader of a checkpoint, and what there is to read.

    Args:
        prefix: The checkpoint's path without endings.
        name: What messages call it.

    Raises:
        ConversionError: if TensorFlow cannot be imported, or finds no index there.
    """
    tensorflow = import_tensorflow(f"{name} is a checkpoint of TensorFlow, which is needed to read it")
    try:
        reader = tensorflow.train.load_checkpoint(prefix)
        dtypes = reader.get_variable_to_dtype_map()
        shapes = reader.get_variable_to_shape_map()
    # Whatever is wrong with a file; TensorFlow's errors have no common class but this.
    except Exception as error:
        raise ConversionError(f"{name}{_INDEX_SUFFIX} is damaged, or not an index of a checkpoint: {error}") from None
    return reader, {key: ArrayInfo(tuple(shape), dtypes[key].name) for key, shape in shapes.items()}


def read_variable(reader: Any, name: str, key: str) -> np.ndarray:
    """The values of a variable.

    Raises:
        ConversionError: if they cannot be read.
    """
    try:
        # Of a single number it gives one of NumPy's, which is no array.
        return np.asarray(reader.get_tensor(key))
    except Exception as error:
        raise ConversionError(
            f"{name}: the values of {show_key(key)} cannot be read; are all its .data files there, and whole? ({error})"
        ) from None


def _other_model(found: Mapping[str, ArrayInfo]) -> str:
    """What kind of model it is, if no biLM of bilm-tf."""
    if not any(key.startswith("lm/") for key in found):
        keys = ", ".join(show_key(key) for key in sorted(found)[:5])
        return f"is not from bilm-tf's training: no variable begins with lm/. There are {len(found)}: {keys} ..."
    if any(key.startswith("lm/rnn/") for key in found):
        return "holds a language model of one direction (lm/rnn), not of two (lm/RNN_0, lm/RNN_1): it is no ELMo."
    return ""


def checkpoint_links(config: ElmoConfig, lines: int) -> list[Link]:
    """The variables of a model of this configuration, softmax included, for a vocabulary of so many lines."""
    links = [
        link._replace(foreign=_variable(link.foreign, config), ours=tuple(f"elmo.{name}" for name in link.ours))
        for link in bilm_links(config)
    ]
    softmax = Link(_SOFTMAX, ("softmax.weight",), (lines, config.projection_dim), SAME)
    return [
        *links,
        *([] if config.tie_word_embeddings else [softmax]),
        Link(_SOFTMAX_BIAS, ("softmax.bias",), (lines,), SAME),
    ]


def _hint(found: Mapping[str, ArrayInfo], config: ElmoConfig) -> str:
    reads_words = not {_WORDS, _OTHER_WORDS}.isdisjoint(found)
    if config.character_inputs and reads_words and "lm/char_embed" not in found:
        return (
            f"The checkpoint is of a model that reads words ({_WORDS}), but its options describe one that reads "
            "characters (char_cnn): they do not belong together."
        )
    if not config.character_inputs and "lm/char_embed" in found:
        return (
            "The checkpoint is of a model that reads characters (lm/char_embed), but its options have no char_cnn: "
            "they do not belong together."
        )
    if reads_words and config.tie_word_embeddings is (_SOFTMAX in found):
        says = "true" if config.tie_word_embeddings else "not true"
        return f"share_embedding_softmax in the options is {says}; of such a model {_SOFTMAX} is what is told above."
    return ""


def _variable(key: str, config: ElmoConfig) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key.replace("/multi_rnn_cell/cell_0/", "/") if config.num_layers == 1 else key


def _without_training_state(name: str, found: Mapping[str, ArrayInfo], links: Sequence[Link]) -> dict[str, ArrayInfo]:
    """Leaves out what training alone needs, and tells what it was."""
    weights = {link.foreign for link in links}
    slots: dict[str, int] = {}
    left, numbers = {}, []
    for key, info in sorted(found.items()):
        slot = _SLOT.fullmatch(key)
        if slot and slot["weight"] in weights:
            slots[slot["slot"]] = slots.get(slot["slot"], 0) + 1
        elif key in _NUMBERS:
            numbers.append(key)
        else:
            left[key] = info
    if slots or numbers:
        counted = [f"{count} arrays of {slot}" for slot, count in slots.items()]
        _warn(f"{name}: left out, as training alone needs it: {', '.join(counted + numbers)}.")
    return left


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
