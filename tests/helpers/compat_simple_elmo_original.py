"""Run in an environment of its own, which has simple_elmo 0.9.2: makes calls for `test_compat_simple_elmo.py`.

    python compat_simple_elmo_original.py FOLDER

FOLDER holds the model (`options.json`, `model.hdf5`) and `texts.json`, and gets `results.npz`. The environment, with a
TensorFlow of today: `pip install simple_elmo tensorflow-cpu tf_keras`.
"""

import json
import os
import sys
from pathlib import Path

# Its LSTM is one of Keras 2.
os.environ["TF_USE_LEGACY_KERAS"] = "1"


def main(folder):
    import numpy as np
    from simple_elmo import ElmoModel

    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    model = ElmoModel()
    model.load(str(folder), max_batch_size=2)
    results = {}
    for layers in ("average", "top", "all"):
        for warmup in (False, True):
            results[f"{layers} {warmup}"] = model.get_elmo_vectors(texts, warmup=warmup, layers=layers)
    results["mean"] = model.get_elmo_vector_average(texts, warmup=False, layers="average")
    np.savez(folder / "results.npz", **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
