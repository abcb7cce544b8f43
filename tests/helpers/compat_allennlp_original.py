"""Run in an environment of its own, which has AllenNLP 2.10.1: makes the calls that `test_compat_allennlp.py` makes.

    python compat_allennlp_original.py FOLDER

FOLDER holds `calls.json` and gets `results.npz`: of each call its mask and representations; and `state.pt`, the
state_dict of an `Elmo` after a step of training, with `trained.mask` and `trained.0` in the results.

AllenNLP's own requirements cannot be met any more (torch below 1.13). What it takes to run it with a torch of today:

    pip install torch numpy h5py "transformers<5" "huggingface_hub<1" spacy cached_path lmdb dill base58 more_itertools
    pip install fairscale termcolor tensorboardX jsonnet overrides==3.1.0 typer wandb nltk scikit-learn filelock
    pip install --no-deps allennlp==2.10.1
"""

import importlib.machinery
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock


class _Absent:
    """Stands in for a package that AllenNLP imports for pictures."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


def main(folder):
    sys.meta_path.insert(0, _Absent())
    import numpy as np
    import torch
    from allennlp.modules.elmo import Elmo, batch_to_ids

    torch.set_num_threads(1)
    calls = json.loads((folder / "calls.json").read_text(encoding="utf-8"))
    files = calls["options"], calls["weights"]
    results = {}

    def keep(name, output):
        results[f"{name}.mask"] = output["mask"].numpy()
        for number, representation in enumerate(output["elmo_representations"]):
            results[f"{name}.{number}"] = representation.detach().numpy()

    plain = Elmo(*files, 2, dropout=0.0)
    kept = Elmo(*files, 1, dropout=0.0, keep_sentence_boundaries=True, scalar_mix_parameters=[0.1, 2, -1])
    for number, batch in enumerate(calls["batches"]):
        ids = batch_to_ids(batch)
        results[f"ids {number}"] = ids.numpy()
        keep(f"plain {number}", plain(ids))
        keep(f"kept {number}", kept(ids))
    first = batch_to_ids(calls["batches"][0])
    keep("normalised", Elmo(*files, 1, dropout=0.0, do_layer_norm=True)(first))
    vocabulary, cached = calls["vocabulary"], calls["cached"]
    longest = max(map(len, cached))
    numbers = torch.tensor([[*map(vocabulary.index, words), *[0] * (longest - len(words))] for words in cached])
    elmo = Elmo(*files, 1, dropout=0.0, vocab_to_cache=vocabulary)
    keep("cached", elmo(batch_to_ids(cached), numbers))
    numbers[0, 0] = 99
    keep("not cached", elmo(batch_to_ids(cached), numbers))
    paragraphs = torch.stack([batch_to_ids(each) for each in calls["paragraphs"]], dim=1)
    keep("paragraphs", Elmo(*files, 1, dropout=0.0)(paragraphs))
    trained = Elmo(*files, 1, dropout=0.0, requires_grad=True)
    trained(first)["elmo_representations"][0].square().mean().backward()
    torch.optim.SGD(trained.parameters(), lr=0.1).step()
    torch.save({f"elmo.{name}": value for name, value in trained.state_dict().items()}, folder / "state.pt")
    trained._elmo_lstm._elmo_lstm.reset_states()
    keep("trained", trained(first))
    np.savez(folder / "results.npz", **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
