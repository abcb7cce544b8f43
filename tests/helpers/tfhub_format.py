"""Modules of TensorFlow Hub as google/elmo and DeepPavlov's: their variables, and a stand-in that reads them."""

from types import SimpleNamespace

import numpy as np

MIX = {"aggregation/weights": np.array([0.4, -0.3, 1.1], np.float32), "aggregation/scaling": np.float32(1.7)}
DEEPPAVLOV = {
    "aggregation/elmo_output_ELMo_W": MIX["aggregation/weights"],
    "aggregation/elmo_output_ELMo_gamma": np.array([1.7], np.float32),
}
STATES = {
    "bilm/Variable": np.zeros((9, 20), np.float32),
    "bilm/Variable_1": np.zeros((9, 6), np.float32),
    "bilm_1/Variable_3": np.zeros((9, 6), np.float32),
}

# What stands in place of the names that TensorFlow 2.21 gives, in other versions or wrappers of the graph.
SPELLINGS = {
    "prediction": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/rnn/lstm_cell/", "kernel", "bias", "projection/kernel"),
    "TensorFlow 1.0": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/rnn/lstm_cell/", "weights", "biases", "projection/weights"),
    "files of weights": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/LSTMCell/", "W_0", "B", "W_P_0"),
    "training": ("RNN_{d}/rnn/multi_rnn_cell/cell_{i}/lstm_cell/", "kernel", "bias", "projection/kernel"),
    "without a scope": ("RNN_{d}/RNN/MultiRNNCell/Cell{i}/", "kernel", "bias", "projection/kernel"),
}


def module_variables(arrays, spelling="prediction", mix=MIX, padding=True):
    scope, *kinds = SPELLINGS[spelling]
    kinds = dict(zip(("W_0", "B", "W_P_0"), kinds, strict=True))
    named = {}
    for key, array in arrays.items():
        if key.startswith("RNN_"):
            direction, _, _, cell, _, kind = key.split("/")
            key = scope.format(d=direction[-1], i=cell[4:]) + kinds[kind]
        if key == "char_embed" and padding:
            array = np.pad(array, ((1, 0), (0, 0)))
        named[f"bilm/{key}"] = array
    return named | mix | STATES


def stand_in(content):
    class Reader:
        def __init__(self, prefix):
            pass

        def get_variable_to_shape_map(self):
            return {name: list(np.shape(array)) for name, array in content.items()}

        def get_variable_to_dtype_map(self):
            return {name: np.asarray(array).dtype for name, array in content.items()}

        def get_tensor(self, name):
            # Of a scalar TensorFlow's reader returns a number of numpy.
            return content[name]

    return SimpleNamespace(train=SimpleNamespace(load_checkpoint=Reader), __spec__=None)


def write_module(folder):
    """The files of a module, whose content the stand-in does not read."""
    (folder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "tfhub_module.pb", "variables/variables.index"):
        (folder / name).write_bytes(b"x")
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"x")
    return folder
