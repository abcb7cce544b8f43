"""Writing checkpoints of bilm-tf's training: what `tf_checkpoint.py` reads, for bilm-tf and what was built on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..model.configuration_elmo import ElmoConfig
from ..model.modeling_elmo import ElmoForPreTraining
from ..whole_files import new_folder
from .bilm_files import OPTIONS_NAME, VOCABULARY_NAME
from .bilm_hdf5 import biases_with_forget_bias
from .bilm_options import options_of
from .errors import ConversionError
from .files import check_new_folder
from .key_map import to_foreign
from .model_folder import load_language_model_folder
from .tf_checkpoint import STATE_NAME, checkpoint_links, import_tensorflow
from .vocabulary import write_bilm_vocabulary
from .word_rows import ROWS_OF_WORDS

_NAME = "model.ckpt-0"

# What bilm-tf's `LanguageModel` and `train` ask of options beside the sizes, as its `bin/train_elmo.py` sets them.
_OPTIONS_OF_TRAINING = {
    "bidirectional": True,
    "all_clip_norm_val": 10.0,
    "n_epochs": 10,
    "batch_size": 128,
    "unroll_steps": 20,
}
# Where Adagrad begins there.
_INITIAL_ACCUMULATOR = 1.0


def save_tf_checkpoint(model: ElmoForPreTraining, destination: str | Path, *, vocabulary: Sequence[str]) -> None:
    """Writes a language model as bilm-tf's training does: `model.ckpt-0`, `checkpoint`, `options.json`, `vocab.txt`.

    bilm-tf tests such a folder, trains it further (its `restart.py`) and dumps its weights. The state of its optimiser
    (Adagrad), which there is none of here, is that of a training that begins. Options that bilm-tf needs and the model
    does not have are those of its `train_elmo.py`, but for `n_train_tokens`, the length of a text.

    Args:
        model: The model.
        destination: The folder, which must not exist yet, or be empty.
        vocabulary: The words of its vocabulary, most frequent first.

    Raises:
        ConversionError: if TensorFlow is not installed; for a model that the format cannot hold; for another
            vocabulary; or if there is something at `destination`.
        OSError: if the folder cannot be written. Nothing is left of it then.
    """
    config, words = model.config, list(vocabulary)
    options = _training_options(config, words)
    tensorflow = import_tensorflow(f"{destination} is to be a checkpoint of TensorFlow, which is needed to write it")
    state = model.state_dict()
    state |= biases_with_forget_bias(config, state)
    arrays: dict[str, np.ndarray] = {}
    for link in checkpoint_links(config, config.vocab_size - 1):
        if link.foreign.startswith("lm/softmax/"):
            # Here a row of its own stands for padding, which is never predicted: whatever is in it is left out.
            state[link.ours[0]] = state[link.ours[0]].clone().index_fill_(0, torch.tensor([0]), 0)
            link = link._replace(transform=ROWS_OF_WORDS)
        arrays[link.foreign] = to_foreign(link, state).numpy()
    slots = {f"{name}/Adagrad": np.full_like(array, _INITIAL_ACCUMULATOR) for name, array in arrays.items()}
    numbers = {name: np.zeros((), np.float32) for name in ("global_step", "train_perplexity")}
    with new_folder(check_new_folder(destination)) as folder:
        _save(tensorflow, folder / _NAME, arrays | slots | numbers)
        lines = (f'{key}: "{_NAME}"\n' for key in ("model_checkpoint_path", "all_model_checkpoint_paths"))
        (folder / STATE_NAME).write_text("".join(lines), encoding="utf-8", newline="\n")
        text = json.dumps(options, indent=2)
        (folder / OPTIONS_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")
        write_bilm_vocabulary(words, folder / VOCABULARY_NAME)


def convert_to_tf_checkpoint(source: str | Path, destination: str | Path) -> None:
    """Writes the language model of a model folder as a checkpoint of bilm-tf's training.

    Args:
        source: A folder with an `ElmoForPreTraining` and its tokenizer.
        destination: The folder, which must not exist yet, or be empty.

    Raises:
        ConversionError: as `save_tf_checkpoint`; if it is no such folder, or a file in it is damaged or incomplete.
        OSError: if a file cannot be written. Nothing is left of it then.
    """
    check_new_folder(destination)
    model, words = load_language_model_folder(source)
    save_tf_checkpoint(model, destination, vocabulary=words or [])


def _training_options(config: ElmoConfig, words: list[str]) -> dict[str, Any]:
    options = options_of(config, words)
    if len(words) != config.vocab_size - 4:
        raise ConversionError(
            f"The model predicts {config.vocab_size - 4:,} words (vocab_size without 4 special words), but "
            f"{len(words):,} were given: give the words of its tokenizer, in their order."
        )
    if config.character_inputs:
        # Prediction has one more, for padding.
        options["char_cnn"]["n_characters"] = 261
    options.setdefault("dropout", config.dropout)
    return {**_OPTIONS_OF_TRAINING, **options, "n_tokens_vocab": config.vocab_size - 1}


def _save(tensorflow: Any, prefix: Path, arrays: dict[str, np.ndarray]) -> None:
    names = sorted(arrays)
    try:
        tensorflow.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[np.asarray(arrays[name]) for name in names],
        )
    # TensorFlow's errors have no common class but this.
    except Exception as error:
        raise ConversionError(f"TensorFlow cannot write {prefix}: {error}") from None
