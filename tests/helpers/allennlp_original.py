"""Run in an environment of its own, which has AllenNLP 2.10.1: makes a real archive of a tagger, and tags with it.

    python allennlp_original.py SPECIFICATION.json FOLDER [SPECIFICATION.json FOLDER ...]

The specification holds an AllenNLP configuration (`config`), `sentences`, and namespaces of the vocabulary
(`vocabulary`). FOLDER gets `model.tar.gz` as AllenNLP writes it, and `predictions.json`: for each sentence its labels
and logits, computed by the model loaded from the archive, the first sentence of an ELMo without state.
"""

import importlib.machinery
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock


class Absent:
    """Stands in for packages that AllenNLP imports and that tagging does not need."""

    names = ("torchvision", "conllu", "word2number", "py_rouge", "rouge", "ftfy", "datasets")

    def find_spec(self, name, path=None, target=None):
        is_absent = name.split(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_absent else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


def main(specification, folder):
    sys.meta_path.insert(0, Absent())
    import allennlp_models.tagging.models.crf_tagger  # noqa: F401 (registers the model)
    import torch
    from allennlp.common import Params
    from allennlp.data import Batch, Instance, TokenIndexer, Vocabulary
    from allennlp.data.fields import TextField
    from allennlp.data.tokenizers import Token
    from allennlp.models import Model
    from allennlp.models.archival import archive_model
    from allennlp.modules.augmented_lstm import AugmentedLstm

    # Version 2.10.1 builds no tagger with this encoder, because it misses these attributes; earlier versions had them.
    AugmentedLstm.input_size = property(lambda layer: layer.embed_dim)
    AugmentedLstm.hidden_size = property(lambda layer: layer.lstm_dim)
    torch.set_num_threads(1)
    torch.manual_seed(11)
    vocabulary = Vocabulary(non_padded_namespaces=["*tags", "*labels"])
    for namespace, tokens in specification["vocabulary"].items():
        for token in tokens:
            vocabulary.add_token_to_namespace(token, namespace)
    serialized = folder / "serialized"
    config = specification["config"]
    model = Model.from_params(vocab=vocabulary, params=Params(config["model"]).duplicate())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "elmo_lstm" not in name and "_constraint_mask" not in name and parameter.dim() > 0:
                parameter.add_(torch.randn_like(parameter) * (0.3 if "scalar" not in name else 1.0))
    serialized.mkdir()
    vocabulary.save_to_files(str(serialized / "vocabulary"))
    (serialized / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(model.state_dict(), serialized / "best.th")
    archive_model(str(serialized), archive_path=str(folder / "model.tar.gz"))

    loaded = Model.load(Params.from_file(str(serialized / "config.json")), str(serialized)).eval()
    readers = config["dataset_reader"]["token_indexers"]
    indexers = {name: TokenIndexer.from_params(Params(dict(values))) for name, values in readers.items()}
    instances = [
        Instance({"tokens": TextField([Token(word) for word in words], indexers)})
        for words in specification["sentences"]
    ]
    batch = Batch(instances)
    batch.index_instances(loaded.vocab)
    with torch.no_grad():
        output = loaded.make_output_human_readable(loaded(**batch.as_tensor_dict()))
    lengths = [len(words) for words in specification["sentences"]]
    predictions = [
        {"tags": list(tags)[:length], "logits": logits[:length].tolist()}
        for tags, logits, length in zip(output["tags"], output["logits"], lengths)
    ]
    (folder / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")


if __name__ == "__main__":
    for given, wanted in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        main(json.loads(Path(given).read_text(encoding="utf-8")), Path(wanted))
