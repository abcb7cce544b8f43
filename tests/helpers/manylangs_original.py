"""Writes models of ELMoForManyLangs for tests, and reads sentences with them in plain numpy.

Both from nothing but that program's sources (biLM.py, elmo.py, frontend.py, modules/): files as its training writes
them, and its formulas on its own names and layouts, in float64, for one word of one sentence at a time.
"""

import json
from collections import OrderedDict

import numpy as np
import torch

OPTIONS = {
    "encoder": {"name": "elmo", "projection_dim": 6, "cell_clip": 3, "proj_clip": 3, "dim": 20, "n_layers": 2},
    "token_embedder": {
        "name": "cnn",
        "activation": "relu",
        "filters": [[1, 4], [2, 6], [3, 8]],
        "n_highway": 2,
        "word_dim": 5,
        "char_dim": 4,
        "max_characters_per_token": 12,
    },
    "classifier": {"name": "sampled_softmax", "n_samples": 8192},
    "dropout": 0.1,
}
OPTIONS_NAME = "cnn_4_5_6_20.json"
SPECIAL_WORDS = ["<oov>", "<bos>", "<eos>", "<pad>"]
SPECIAL_CHARACTERS = ["<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>"]


def dictionaries(sentences, most_words=None):
    """`char.dic` and `word.dic` of a text, as lists of entries: ids are places (biLM.py, `train`)."""
    counts = {}
    for word in (word for sentence in sentences for word in sentence):
        counts[word] = counts.get(word, 0) + 1
    by_count = sorted(counts, key=lambda word: -counts[word])[:most_words]
    characters = dict.fromkeys(character for word in counts for character in word)
    return [*characters, *SPECIAL_CHARACTERS], [*SPECIAL_WORDS, *by_count]


def random_tensors(options, characters, words, seed=0):
    """The three state dicts, float32, with weights under which activations are of order 1 and clips of 3 fire."""
    rng = np.random.default_rng(seed)

    def normal(scale, *shape):
        return torch.from_numpy(rng.normal(0, scale, shape).astype(np.float32))

    cnn, lstm = options["token_embedder"], options["encoder"]
    dim, projected, size = cnn["char_dim"], lstm["projection_dim"], lstm["dim"]
    embedder = {"char_emb_layer.embedding.weight": normal(1, characters, dim)}
    if cnn["word_dim"]:
        embedder["word_emb_layer.embedding.weight"] = normal(1, words, cnn["word_dim"])
    for number, (width, count) in enumerate(cnn["filters"]):
        embedder[f"convolutions.{number}.weight"] = normal(1 / np.sqrt(width * dim), count, dim, width)
        embedder[f"convolutions.{number}.bias"] = normal(0.5, count)
    features = sum(count for _, count in cnn["filters"])
    for number in range(cnn["n_highway"]):
        embedder[f"highways._layers.{number}.weight"] = normal(1 / np.sqrt(features), 2 * features, features)
        embedder[f"highways._layers.{number}.bias"] = normal(0.5, 2 * features)
    wide = features + cnn["word_dim"]
    embedder["projection.weight"] = normal(1.5 / np.sqrt(wide), projected, wide)
    embedder["projection.bias"] = normal(0.5, projected)
    encoder = {}
    for layer in range(lstm["n_layers"]):
        for direction in ("forward", "backward"):
            name = f"{direction}_layer_{layer}"
            encoder[f"{name}.input_linearity.weight"] = normal(0.7 / np.sqrt(projected), 4 * size, projected)
            encoder[f"{name}.state_linearity.weight"] = normal(0.3 / np.sqrt(projected), 4 * size, projected)
            bias = normal(0.4, 4 * size)
            # Gates into the cell open, little forgotten, and what enters far from 0: cells run into their bound.
            signs = torch.from_numpy(rng.choice([-1.5, 1.5], size).astype(np.float32))
            bias += torch.cat([torch.full((size,), 1.5), torch.full((size,), 3.0), signs, torch.ones(size)])
            encoder[f"{name}.state_linearity.bias"] = bias
            encoder[f"{name}.state_projection.weight"] = normal(3.5 / np.sqrt(size), projected, size)
    classifier = {
        "column_emb.weight": normal(1, words, projected),
        "column_bias.weight": normal(1, words, 1),
        "oov_column": normal(1, projected, 1),
    }
    return embedder, encoder, classifier


def write_manylangs(folder, options, characters, words, tensors, *, config_path=None, classifier=False, zipped=True):
    """A model's folder. The path of its options is that on the machine of those who trained it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, entries in (("char.dic", characters), ("word.dic", words)):
        lines = (f"{entry}\t{number}\n" for number, entry in enumerate(entries))
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")
    arguments = {"seed": 1, "gpu": 0, "train_path": "/data/raw", "optimizer": "adam", "model": "output/1", "lr": 0.001}
    arguments["config_path"] = config_path or f"/users/somebody/configs/{OPTIONS_NAME}"
    (folder / "config.json").write_text(json.dumps(arguments), encoding="utf-8")
    if config_path is None:
        (folder / OPTIONS_NAME).write_text(json.dumps(options), encoding="utf-8")
    names = ["token_embedder.pkl", "encoder.pkl", *(["classifier.pkl"] if classifier else [])]
    for name, tensors_of_part in zip(names, tensors, strict=False):
        # What `Module.state_dict()` gives.
        content = OrderedDict(tensors_of_part)
        content._metadata = OrderedDict({"": {"version": 1}})
        # The format of torch 0.4, with which the published models were written, and of today.
        torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)
    return folder


class NumpyManyLangs:
    """A model.

    Attributes:
        cells: Every cell that was computed; `projected`: every output of an LSTM. To see whether clips fired.
    """

    def __init__(self, options, characters, words, embedder, encoder):
        self.options = options
        self.characters = {entry: number for number, entry in enumerate(characters)}
        self.words = {entry: number for number, entry in enumerate(words)}
        self.weights = {name: value.numpy().astype(np.float64) for name, value in {**embedder, **encoder}.items()}
        self.cells, self.projected = [], []

    def word_vector(self, word):
        """The context-free vector, ``(projection_dim,)``; `<bos>` and `<eos>` are boundaries."""
        cnn = self.options["token_embedder"]
        length = cnn["max_characters_per_token"]
        word = word[: length - 2]
        unknown = self.characters["<oov>"]
        if word in ("<bos>", "<eos>"):
            inside = [self.characters[word]]
        else:
            inside = [self.characters.get(character, unknown) for character in word]
        # Begin and end of a word change places in that program.
        row = [self.characters["<eow>"], *inside, self.characters["<bow>"]]
        row += [self.characters["<pad>"]] * (length - len(row))
        embedded = self.weights["char_emb_layer.embedding.weight"][row]
        squash = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[cnn["activation"]]
        features = []
        for number, (width, _) in enumerate(cnn["filters"]):
            kernel = self.weights[f"convolutions.{number}.weight"]
            windows = [
                np.einsum("wd,ndw->n", embedded[start : start + width], kernel) for start in range(length - width + 1)
            ]
            features.append(squash(np.max(windows, axis=0) + self.weights[f"convolutions.{number}.bias"]))
        x = np.concatenate(features)
        for number in range(cnn["n_highway"]):
            both = self.weights[f"highways._layers.{number}.weight"] @ x
            transformed, gate = np.split(both + self.weights[f"highways._layers.{number}.bias"], 2)
            gate = _sigmoid(gate)
            x = gate * x + (1 - gate) * np.maximum(transformed, 0)
        if cnn["word_dim"]:
            number = self.words.get(word, self.words["<oov>"])
            x = np.concatenate([self.weights["word_emb_layer.embedding.weight"][number], x])
        return self.weights["projection.weight"] @ x + self.weights["projection.bias"]

    def read(self, words, state=None):
        """All layers of one sentence, boundaries included.

        Args:
            words: The words; `<bos>` and `<eos>` are put around them.
            state: What the call before returned, to read on from there. None: zeros.

        Returns:
            ``(n_layers + 1, words + 2, 2 * projection_dim)``, and the state.
        """
        vectors = [self.word_vector(word) for word in ["<bos>", *words, "<eos>"]]
        halves, after = [], {}
        for direction in ("forward", "backward"):
            stack = [vectors[:: 1 if direction == "forward" else -1]]
            for layer in range(self.options["encoder"]["n_layers"]):
                name = f"{direction}_layer_{layer}"
                outputs, after[name] = self._lstm(name, stack[-1], (state or {}).get(name))
                if layer > 0:
                    outputs = [below + own for below, own in zip(stack[-1], outputs, strict=True)]
                stack.append(outputs)
            halves.append([np.array(layer[:: 1 if direction == "forward" else -1]) for layer in stack])
        return np.concatenate([np.array(halves[0]), np.array(halves[1])], axis=-1), after

    def _lstm(self, name, inputs, start):
        lstm = self.options["encoder"]
        output, cell = start or (np.zeros(lstm["projection_dim"]), np.zeros(lstm["dim"]))
        outputs = []
        for x in inputs:
            gates = self.weights[f"{name}.input_linearity.weight"] @ x
            gates += self.weights[f"{name}.state_linearity.weight"] @ output
            into, forget, new, out = np.split(gates + self.weights[f"{name}.state_linearity.bias"], 4)
            cell = _sigmoid(into) * np.tanh(new) + _sigmoid(forget) * cell
            if lstm["cell_clip"]:
                cell = np.clip(cell, -lstm["cell_clip"], lstm["cell_clip"])
            output = self.weights[f"{name}.state_projection.weight"] @ (_sigmoid(out) * np.tanh(cell))
            if lstm["proj_clip"]:
                output = np.clip(output, -lstm["proj_clip"], lstm["proj_clip"])
            self.cells.append(cell)
            self.projected.append(output)
            outputs.append(output)
        return outputs, (output, cell)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
