"""A tiny ELMo in the published format, and its layers as the formulas give them: for tests of the old interfaces."""

import json

import h5py
import numpy as np
from numpy_elmo import NumpyElmo, random_weights

OPTIONS = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 6,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 24,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 4], [2, 4], [3, 8]],
        "n_highway": 1,
        "embedding": {"dim": 4},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}
LAYERS, DIM = 3, 12
# Float32 against the formulas in float64.
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


class PublishedElmo:
    """Files of an ELMo, and what it makes of sentences.

    Attributes:
        options: Path of options.json.
        weights: Path of the HDF5 file beside it.
        arrays: What is in it, by key.
    """

    def __init__(self, folder, seed=5):
        arrays = random_weights(OPTIONS, seed)
        self.folder, self.options, self.weights = folder, folder / "options.json", folder / "elmo_weights.hdf5"
        self.arrays = arrays
        self.options.write_text(json.dumps(OPTIONS), encoding="utf-8")
        with h5py.File(self.weights, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        self._formulas = NumpyElmo(OPTIONS, arrays)
        self._known = {}

    def layers(self, words):
        """All layers of a sentence read by itself, boundaries included: ``(3, words + 2, 12)``, float64."""
        key = tuple(words)
        if key not in self._known:
            self._known[key] = self._formulas.read(words)[0]
        return self._known[key]

    def read_on(self, words, state):
        """The same, from the state that another sentence left (None: zeros); and the state after it."""
        return self._formulas.read(words, state)

    def words(self, words):
        """All layers without boundaries: ``(3, words, 12)``."""
        return self.layers(words)[:, 1:-1]


def padded(arrays, length):
    """``(n, dim)`` arrays below each other, ``(arrays, length, dim)``, zeros behind each."""
    result = np.zeros((len(arrays), length, arrays[0].shape[-1]))
    for row, array in zip(result, arrays, strict=True):
        row[: len(array)] = array
    return result
