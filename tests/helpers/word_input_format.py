"""biLMs of bilm-tf that read words: their files, their variables, and a stand-in that reads these for TensorFlow."""

from types import SimpleNamespace

import numpy as np
from original_format import OPTIONS, write_original

WORDS = ["the", ".", "cat", "naïve", "sat", "日本語", "The", "on", "mat"]
LINES = ["<S>", "</S>", "<UNK>", *WORDS]


def word_options(**changes):
    """What bilm-tf's training writes for a model without `char_cnn`."""
    lstm = {key: value for key, value in {**OPTIONS["lstm"], **changes}.items() if value is not ...}
    return {"lstm": lstm, "bidirectional": True, "dropout": 0.1, "batch_size": 128, "unroll_steps": 20}


def write_words(folder, options, arrays, lines=LINES):
    write_original(folder, options, arrays)
    (folder / "vocab.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def random_softmax(options, lines, tied=False):
    rng = np.random.default_rng(8)
    size = options["lstm"]["projection_dim"]
    weights = {"lm/softmax/W": rng.normal(0, 2 / np.sqrt(size), (lines, size)), "lm/softmax/b": rng.normal(0, 1, lines)}
    return {name: array.astype(np.float32) for name, array in weights.items() if not (tied and name.endswith("W"))}


def variables(options, arrays, key="embedding"):
    """Arrays of an HDF5 file under the names of bilm-tf's training."""
    renamed = {}
    for name, array in arrays.items():
        if name.startswith("RNN_"):
            direction, _, _, cell, _, weight = name.split("/")
            stack = f"multi_rnn_cell/cell_{cell[4:]}/" if options["lstm"]["n_layers"] > 1 else ""
            weight = {"W_0": "kernel", "B": "bias", "W_P_0": "projection/kernel"}[weight]
            name = f"{direction}/rnn/{stack}lstm_cell/{weight}"
        renamed[f"lm/{key if name == 'embedding' else name}"] = array
    return renamed


def stand_in(content):
    """A module that reads what TensorFlow would have read."""

    class Reader:
        def __init__(self, prefix):
            pass

        def get_variable_to_shape_map(self):
            return {name: list(array.shape) for name, array in content.items()}

        def get_variable_to_dtype_map(self):
            return {name: array.dtype for name, array in content.items()}

        def get_tensor(self, name):
            return content[name]

    return SimpleNamespace(train=SimpleNamespace(load_checkpoint=Reader), __spec__=None)
