"""Another Python that has ELMoForManyLangs itself: reads sentences with a model's folder for this one.

As a program it takes the folder and a JSON file of calls (lists of sentences), and writes an .npz of their arrays. As a
module it is the other end. That program needs `overrides==3.1.0`, which nothing else does any more.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

PYTHON = "HF_ELMO_MANYLANGS_PYTHON"


def read_with_original(python, folder, calls, carry_state):
    """What the original makes of calls of `sents2elmo(sentences, output_layer)`.

    Args:
        python: The program of that Python.
        folder: A model's folder.
        calls: Of each call the sentences and the output layer.
        carry_state: Leave its state from call to call, as it does; False: forget it before each call.

    Returns:
        For each call the arrays of its sentences.
    """
    request, answer = folder.parent / "calls.json", folder.parent / "answer.npz"
    request.write_text(json.dumps({"calls": calls, "carry_state": carry_state}), encoding="utf-8")
    process = subprocess.run(
        [python, __file__, str(folder), str(request), str(answer)], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-3000:]
    with np.load(answer) as arrays:
        return [
            [arrays[f"{call}.{number}"] for number in range(len(sentences))]
            for call, (sentences, _) in enumerate(calls)
        ]


def main(folder, request, answer):
    import elmoformanylangs

    content = json.loads(Path(request).read_text(encoding="utf-8"))
    most = max(len(sentences) for sentences, _ in content["calls"])
    # It shuffles the batches of a call, if there are several.
    embedder = elmoformanylangs.Embedder(folder, batch_size=most)
    arrays = {}
    for call, (sentences, layer) in enumerate(content["calls"]):
        if not content["carry_state"]:
            embedder.model.encoder.reset_states()
        for number, array in enumerate(embedder.sents2elmo(sentences, layer)):
            arrays[f"{call}.{number}"] = array
    np.savez(answer, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
