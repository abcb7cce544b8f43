"""Writes models in the original format, for tests: from nothing but the description of the format."""

import copy
import json

import h5py

OPTIONS = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 6,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 20,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 4], [2, 6], [3, 8]],
        "n_highway": 2,
        "embedding": {"dim": 4},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}


def options_with(**changes):
    """The options above with other values, wherever they stand; with the value `...` the key is absent."""
    options = copy.deepcopy(OPTIONS)
    for name, value in changes.items():
        section = options["lstm"] if name in options["lstm"] else options["char_cnn"]
        if value is ...:
            del section[name]
        else:
            section[name] = value
    return options


def write_arrays(path, arrays):
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            # In two steps, as bilm-tf does it.
            file.create_dataset(key, array.shape, dtype="float32")[...] = array


def write_original(folder, options, arrays, weights_name="weights.hdf5", options_name="options.json"):
    folder.mkdir(exist_ok=True, parents=True)
    write_arrays(folder / weights_name, arrays)
    (folder / options_name).write_text(json.dumps(options), encoding="utf-8")
    return folder


def read_arrays(path):
    """All arrays of an HDF5 file by key."""
    arrays = {}

    def collect(key, content):
        if isinstance(content, h5py.Dataset):
            arrays[key] = content[()]

    with h5py.File(path, "r") as file:
        file.visititems(collect)
    return arrays
