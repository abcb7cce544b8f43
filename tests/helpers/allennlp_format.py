"""Writes archives as AllenNLP does, for tests, and computes what its taggers do: from its formulas, in plain numpy."""

import copy
import io
import itertools
import json
import math
import tarfile

import numpy as np
import torch
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS

ARRAYS = random_weights(OPTIONS, seed=5)
EMBEDDER = "text_field_embedder.token_embedder_"
BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
WORDS = ["the", "paris", "is", ".", "naïve", "<s>"]
CHARACTERS = [*"aeisPrthnï日."]

# Blocks of rows in the matrices of torch's recurrent layers.
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KINDS_OF_ARRAYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

CONFIG = {
    "dataset_reader": {
        "type": "conll2003",
        "token_indexers": {
            "tokens": {"type": "single_id", "lowercase_tokens": True},
            "token_characters": {"type": "characters", "min_padding_length": 3},
            "elmo": {"type": "elmo_characters"},
        },
    },
    "model": {
        "type": "crf_tagger",
        "label_encoding": "BIO",
        "dropout": 0.5,
        "include_start_end_transitions": False,
        "text_field_embedder": {
            "token_embedders": {
                "tokens": {"type": "embedding", "embedding_dim": 3, "pretrained_file": "glove.gz", "trainable": True},
                "elmo": {
                    "type": "elmo_token_embedder",
                    "options_file": "https://somewhere/options.json",
                    "weight_file": "https://somewhere/weights.hdf5",
                    "do_layer_norm": False,
                    "dropout": 0.0,
                },
                "token_characters": {
                    "type": "character_encoding",
                    "embedding": {"embedding_dim": 4},
                    "encoder": {
                        "type": "cnn",
                        "embedding_dim": 4,
                        "num_filters": 5,
                        "ngram_filter_sizes": [2, 3],
                        "conv_layer_activation": "relu",
                    },
                },
            }
        },
        "encoder": {
            "type": "lstm",
            "input_size": 12 + 3 + 10,
            "hidden_size": 4,
            "num_layers": 2,
            "dropout": 0.3,
            "bidirectional": True,
        },
        "regularizer": {"regexes": [["scalar_parameters", {"type": "l2", "alpha": 0.1}]]},
    },
    "trainer": {"num_epochs": 75},
}

# Files of `vocabulary/`: padded namespaces begin with the entry of what is unknown.
VOCABULARY = {
    "tokens": ["@@UNKNOWN@@", *WORDS],
    "token_characters": ["@@UNKNOWN@@", *CHARACTERS],
    "labels": BIO,
}


def bilm_state(prefix, arrays=ARRAYS):
    """The parameters of AllenNLP's `_ElmoBiLm` (`allennlp/modules/elmo.py`, `elmo_lstm.py`) from a file of weights."""
    state = {}
    encoder = f"{prefix}_token_embedder."
    state[f"{encoder}_char_embedding_weights"] = np.pad(arrays["char_embed"], ((1, 0), (0, 0)))
    for number in range(sum(key.startswith("CNN/W") for key in arrays)):
        state[f"{encoder}char_conv_{number}.weight"] = arrays[f"CNN/W_cnn_{number}"][0].transpose(2, 1, 0)
        state[f"{encoder}char_conv_{number}.bias"] = arrays[f"CNN/b_cnn_{number}"]
    for number in range(sum(key.endswith("W_carry") for key in arrays)):
        of = {name: arrays[f"CNN_high_{number}/{name}"].T for name in ("W_transform", "W_carry")}
        of |= {name: arrays[f"CNN_high_{number}/{name}"] for name in ("b_transform", "b_carry")}
        highway = f"{encoder}_highways._layers.{number}."
        state[highway + "weight"] = np.concatenate([of["W_transform"], -of["W_carry"]])
        state[highway + "bias"] = np.concatenate([of["b_transform"], -of["b_carry"]])
    state[f"{encoder}_projection.weight"] = arrays["CNN_proj/W_proj"].T
    state[f"{encoder}_projection.bias"] = arrays["CNN_proj/b_proj"]
    for direction, name in enumerate(("forward", "backward")):
        for layer in range(sum(key.startswith("RNN_0") and key.endswith("/B") for key in arrays)):
            of = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell/"
            kernel, bias = arrays[of + "W_0"].T, arrays[of + "B"]
            size = len(bias) // 4
            order = np.concatenate([np.arange(size) + block * size for block in (0, 2, 1, 3)])
            width = arrays[of + "W_P_0"].shape[1]
            cell = f"{prefix}_elmo_lstm.{name}_layer_{layer}."
            state[cell + "input_linearity.weight"] = kernel[order, :width]
            state[cell + "state_linearity.weight"] = kernel[order, width:]
            bias = bias[order].copy()
            bias[size : 2 * size] += 1
            state[cell + "state_linearity.bias"] = bias
            state[cell + "state_projection.weight"] = arrays[of + "W_P_0"].T
    return state


def elmo_state(prefix, num_mixes=1, arrays=ARRAYS, seed=2):
    """Those of `Elmo`: the biLM, and mixes with weights that differ."""
    rng = np.random.default_rng(seed)
    state = bilm_state(f"{prefix}_elmo_lstm.", arrays)
    layers = 1 + sum(key.startswith("RNN_0") and key.endswith("/B") for key in arrays)
    for number in range(num_mixes):
        state[f"{prefix}scalar_mix_{number}.gamma"] = rng.uniform(0.5, 2, 1)
        for layer in range(layers):
            state[f"{prefix}scalar_mix_{number}.scalar_parameters.{layer}"] = rng.normal(0, 1, 1)
    return as_tensors(state)


def tagger_state(config=CONFIG, labels=BIO, seed=9):
    """Random parameters of a tagger of that configuration, under AllenNLP's names."""
    rng = np.random.default_rng(seed)
    model, state = config["model"], {}
    for name, embedder in model["text_field_embedder"]["token_embedders"].items():
        place = f"{EMBEDDER}{name}."
        if embedder["type"] == "elmo_token_embedder":
            state |= elmo_state(f"{place}_elmo.")
            if embedder.get("projection_dim"):
                state |= linear(rng, f"{place}_projection.", embedder["projection_dim"], 12)
        elif embedder["type"] == "embedding":
            state[place + "weight"] = rng.normal(0, 1, (2 + len(WORDS), embedder["embedding_dim"]))
        elif embedder["encoder"]["type"] == "lstm":
            encoder = embedder["encoder"]
            dim, size = encoder["input_size"], encoder["hidden_size"]
            state[place + "_embedding._module.weight"] = rng.normal(0, 1, (2 + len(CHARACTERS), dim))
            shapes = {"weight_ih": (4 * size, dim), "weight_hh": (4 * size, size)}
            for key, shape in (shapes | {"bias_ih": (4 * size,), "bias_hh": (4 * size,)}).items():
                state[f"{place}_encoder._module._module.{key}_l0"] = rng.normal(0, 0.6, shape)
        else:
            encoder = embedder["encoder"]
            dim, count = encoder["embedding_dim"], encoder["num_filters"]
            # More rows than characters, as AllenNLP makes them: one for each word.
            state[place + "_embedding._module.weight"] = rng.normal(0, 1, (40, dim))
            for number, width in enumerate(encoder["ngram_filter_sizes"]):
                conv = f"{place}_encoder._module.conv_layer_{number}."
                state[conv + "weight"] = rng.normal(0, 0.5, (count, dim, width))
                state[conv + "bias"] = rng.normal(0, 0.5, count)
    encoder = model["encoder"]
    output = encoder.get("input_dim")
    if encoder["type"] in GATES:
        size, read, gates = encoder["hidden_size"], encoder["input_size"], GATES[encoder["type"]]
        directions = ("", "_reverse") if encoder.get("bidirectional") else ("",)
        output = size * len(directions)
        for layer in range(encoder.get("num_layers", 1)):
            for direction in directions:
                shapes = {"weight_ih": (gates * size, read), "weight_hh": (gates * size, size)}
                biases = {"bias_ih": (gates * size,), "bias_hh": (gates * size,)} if encoder.get("bias", True) else {}
                for name, shape in (shapes | biases).items():
                    state[f"encoder._module.{name}_l{layer}{direction}"] = rng.normal(0, 0.6, shape)
            read = output
    elif encoder["type"] == "feedforward":
        state |= feedforward_state(rng, "encoder._feedforward.", encoder["feedforward"])
        output = encoder["feedforward"]["hidden_dims"][-1]
    elif encoder["type"] != "pass_through":
        size, highway = encoder["hidden_size"], encoder.get("use_highway", True)
        output = size * (1 + (encoder["type"] == "stacked_bidirectional_lstm"))
        gates = 5 if highway else 4
        for depth, names in enumerate(cells_of(encoder)):
            width = output if depth else encoder["input_size"]
            for name in names:
                cell = f"encoder._module.{name}cell."
                state[cell + "input_linearity.weight"] = rng.normal(0, 0.6, ((gates + highway) * size, width))
                if has_input_bias(encoder):
                    state[cell + "input_linearity.bias"] = rng.normal(0, 0.6, (gates + highway) * size)
                state[cell + "state_linearity.weight"] = rng.normal(0, 0.6, (gates * size, size))
                state[cell + "state_linearity.bias"] = rng.normal(0, 0.6, gates * size)
    feedforward = model.get("feedforward")
    if feedforward:
        state |= feedforward_state(rng, "_feedforward.", feedforward)
        output = feedforward["hidden_dims"][-1]
    state["tag_projection_layer._module.weight"] = rng.normal(0, 1, (len(labels), output))
    state["tag_projection_layer._module.bias"] = rng.normal(0, 1, len(labels))
    if model["type"] == "crf_tagger":
        state["crf.transitions"] = rng.normal(0, 1, (len(labels), len(labels)))
        if model.get("include_start_end_transitions", True):
            state["crf.start_transitions"], state["crf.end_transitions"] = rng.normal(0, 4, (2, len(labels)))
        state["crf._constraint_mask"] = constraint_mask(labels, model.get("label_encoding"))
    return as_tensors(state)


def linear(rng, place, size, read):
    return {f"{place}weight": rng.normal(0, 0.6, (size, read)), f"{place}bias": rng.normal(0, 0.6, size)}


def feedforward_state(rng, place, feedforward):
    state, read = {}, feedforward["input_dim"]
    for number, size in enumerate(feedforward["hidden_dims"]):
        state |= linear(rng, f"{place}_linear_layers.{number}.", size, read)
        read = size
    return state


def cells_of(encoder):
    """For each layer of one of AllenNLP's own LSTMs the names of its cells, forward and backward."""
    layers = range(encoder.get("num_layers", 1))
    kinds = {
        "stacked_bidirectional_lstm": [(f"forward_layer_{layer}.", f"backward_layer_{layer}.") for layer in layers],
        "alternating_lstm": [(f"layer_{layer}.",) for layer in layers],
        "augmented_lstm": [("",)],
    }
    return kinds[encoder["type"]]


def has_input_bias(encoder):
    return encoder["type"] != "stacked_bidirectional_lstm" and encoder.get("use_input_projection_bias", True)


def constraint_mask(labels, encoding):
    """``(labels + 2, labels + 2)``: what may follow what, the start and the end of a sentence behind the labels."""
    count = len(labels)
    if encoding is None:
        return np.ones((count + 2, count + 2))
    mask = np.zeros((count + 2, count + 2))
    for before, after in itertools.product(range(count), repeat=2):
        first, second = labels[before], labels[after]
        mask[before, after] = second[0] in "OB" or (first[0] in "BI" and first[1:] == second[1:])
    mask[count, :count] = [label[0] in "OB" for label in labels]
    mask[:count, count + 1] = 1
    return mask


def as_tensors(state):
    return {
        key: value if torch.is_tensor(value) else torch.from_numpy(np.array(value, np.float32))
        for key, value in state.items()
    }


def changed(config=CONFIG, **changes):
    """A copy of a configuration with other values at paths such as `model__encoder__type`; `...` takes a key out."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = config
        for parent in parents:
            section = section[parent]
        if value is ...:
            del section[key]
        else:
            section[key] = value
    return config


def members_of(config=CONFIG, state=None, vocabulary=VOCABULARY):
    """The content of an archive: bytes by path."""
    weights = io.BytesIO()
    torch.save(tagger_state(config) if state is None else state, weights)
    members = {"config.json": json.dumps(config, indent=2).encode(), "weights.th": weights.getvalue()}
    members["vocabulary/.lock"] = b""
    members["vocabulary/non_padded_namespaces.txt"] = b"*tags\n*labels\n"
    for namespace, entries in vocabulary.items():
        members[f"vocabulary/{namespace}.txt"] = "".join(f"{entry}\n" for entry in entries).encode()
    return members


def write_archive(path, members, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("vocabulary")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class NumpyTagger:
    """What a tagger of AllenNLP computes for one sentence at a time (ELMo's state fresh), in float64."""

    def __init__(self, config, state, vocabulary=VOCABULARY, options=OPTIONS, arrays=ARRAYS):
        self.config, self.vocabulary = config, vocabulary
        self.state = {key: value.double().numpy() for key, value in state.items()}
        self.elmo = NumpyElmo(options, arrays)

    def logits(self, words):
        """``(words, labels)``."""
        embedders = self.config["model"]["text_field_embedder"]["token_embedders"]
        kinds = {"elmo_token_embedder": self._elmo, "embedding": self._words, "character_encoding": self._characters}
        columns = [kinds[embedders[name]["type"]](name, words) for name in sorted(embedders)]
        vectors = np.concatenate(columns, axis=1)
        encoder = self.config["model"]["encoder"]
        if encoder["type"] in ("stacked_bidirectional_lstm", "alternating_lstm", "augmented_lstm"):
            for depth, names in enumerate(cells_of(encoder)):
                # Which of its cells read from the last word to the first.
                backward = [encoder["type"] == "alternating_lstm" and depth % 2 == 1, True]
                if not encoder.get("go_forward", True):
                    backward = [True]
                steps = [-1 if turned else 1 for turned in backward]
                read = [self._own(name, vectors[::step])[::step] for name, step in zip(names, steps, strict=False)]
                vectors = np.concatenate(read, axis=1)
        if encoder["type"] == "feedforward":
            vectors = self._feedforward("encoder._feedforward.", encoder["feedforward"], vectors)
        read = {"gru": self._gru, "rnn": self._rnn}.get(encoder["type"], self._lstm)
        for layer in range(encoder.get("num_layers", 1) if encoder["type"] in GATES else 0):
            forward = read(f"l{layer}", vectors)
            if encoder.get("bidirectional"):
                backward = read(f"l{layer}_reverse", vectors[::-1])[::-1]
                forward = np.concatenate([forward, backward], axis=1)
            vectors = forward
        if self.config["model"].get("feedforward"):
            vectors = self._feedforward("_feedforward.", self.config["model"]["feedforward"], vectors)
        layer = "tag_projection_layer._module."
        return vectors @ self.state[layer + "weight"].T + self.state[layer + "bias"]

    def tags(self, words, labels=BIO):
        """The best sequence of labels: of all allowed ones, each scored."""
        logits = self.logits(words)
        if "crf.transitions" not in self.state:
            return [labels[number] for number in logits.argmax(axis=1)]
        count, mask = len(labels), self.state["crf._constraint_mask"] == 1
        start = self.state.get("crf.start_transitions", np.zeros(count))
        end = self.state.get("crf.end_transitions", np.zeros(count))
        best, best_score = None, -np.inf
        for path in itertools.product(range(count), repeat=len(words)):
            steps = list(itertools.pairwise(path))
            if not (mask[count, path[0]] and mask[path[-1], count + 1] and all(mask[step] for step in steps)):
                continue
            score = start[path[0]] + end[path[-1]] + sum(logits[place, tag] for place, tag in enumerate(path))
            score += sum(self.state["crf.transitions"][step] for step in steps)
            if score > best_score:
                best, best_score = path, score
        return [labels[number] for number in best]

    def _elmo(self, name, words):
        layers, _ = self.elmo.read(words)
        mix = f"{EMBEDDER}{name}._elmo.scalar_mix_0."
        weights = np.exp([self.state[f"{mix}scalar_parameters.{layer}"][0] for layer in range(len(layers))])
        shares = weights / weights.sum()
        vectors = self.state[mix + "gamma"] * np.tensordot(shares, layers[:, 1:-1], axes=1)
        place = f"{EMBEDDER}{name}._projection."
        if place + "weight" not in self.state:
            return vectors
        return vectors @ self.state[place + "weight"].T + self.state[place + "bias"]

    def _feedforward(self, place, feedforward, vectors):
        activations = feedforward["activations"]
        if isinstance(activations, str):
            activations = [activations] * len(feedforward["hidden_dims"])
        for number, name in enumerate(activations):
            layer = f"{place}_linear_layers.{number}."
            vectors = ACTIVATIONS[name](vectors @ self.state[layer + "weight"].T + self.state[layer + "bias"])
        return vectors

    def _words(self, name, words):
        indexer = self.config["dataset_reader"]["token_indexers"][name]
        entries = ["@@PADDING@@", *self.vocabulary["tokens"]]
        forms = [word.lower() if indexer.get("lowercase_tokens") else word for word in words]
        ids = [entries.index(form) if form in entries else 1 for form in forms]
        return self.state[f"{EMBEDDER}{name}.weight"][ids]

    def _characters(self, name, words):
        entries = ["@@PADDING@@", *self.vocabulary["token_characters"]]
        encoder = self.config["model"]["text_field_embedder"]["token_embedders"][name]["encoder"]
        place = f"{EMBEDDER}{name}."
        vectors = []
        for word in words:
            ids = [entries.index(character) if character in entries else 1 for character in word]
            embedded = self.state[place + "_embedding._module.weight"][ids]
            if encoder["type"] == "lstm":
                vectors.append(self._lstm("l0", embedded, f"{place}_encoder._module._module.")[-1])
                continue
            features = []
            for number, width in enumerate(encoder["ngram_filter_sizes"]):
                kernel = self.state[f"{place}_encoder._module.conv_layer_{number}.weight"]
                bias = self.state[f"{place}_encoder._module.conv_layer_{number}.bias"]
                windows = [
                    np.maximum(np.einsum("wd,ndw->n", embedded[begin : begin + width], kernel) + bias, 0)
                    for begin in range(len(word) - width + 1)
                ]
                features.append(np.max(windows, axis=0) if windows else np.zeros(len(bias)))
            vectors.append(np.concatenate(features))
        return np.array(vectors)

    def _own(self, name, inputs):
        """AllenNLP's own LSTM cell (`allennlp/modules/augmented_lstm.py`), with or without a highway."""
        cell = f"encoder._module.{name}cell."
        weight_ih, weight_hh = self.state[cell + "input_linearity.weight"], self.state[cell + "state_linearity.weight"]
        bias_ih = self.state.get(cell + "input_linearity.bias", np.zeros(len(weight_ih)))
        hidden = memory = np.zeros(weight_hh.shape[1])
        size, outputs = len(hidden), []
        for x in inputs:
            projected = weight_ih @ x + bias_ih
            gates = projected[: len(weight_hh)] + weight_hh @ hidden + self.state[cell + "state_linearity.bias"]
            into, forget, new, out = np.split(gates[: 4 * size], 4)
            memory = _sigmoid(forget) * memory + _sigmoid(into) * np.tanh(new)
            hidden = _sigmoid(out) * np.tanh(memory)
            if len(gates) > 4 * size:
                share = _sigmoid(gates[4 * size :])
                hidden = share * hidden + (1 - share) * projected[5 * size :]
            outputs.append(hidden)
        return np.array(outputs)

    def _torch_arrays(self, suffix):
        return {name: self.state.get(f"encoder._module.{name}_{suffix}", 0.0) for name in KINDS_OF_ARRAYS}

    def _gru(self, suffix, inputs):
        of = self._torch_arrays(suffix)
        hidden, outputs = np.zeros(of["weight_hh"].shape[1]), []
        for x in inputs:
            shares = of["weight_ih"] @ x + of["bias_ih"]
            own = of["weight_hh"] @ hidden + of["bias_hh"]
            (r, z, n), (own_r, own_z, own_n) = np.split(shares, 3), np.split(own, 3)
            new = np.tanh(n + _sigmoid(r + own_r) * own_n)
            kept = _sigmoid(z + own_z)
            hidden = (1 - kept) * new + kept * hidden
            outputs.append(hidden)
        return np.array(outputs)

    def _rnn(self, suffix, inputs):
        of = self._torch_arrays(suffix)
        hidden, outputs = np.zeros(of["weight_hh"].shape[1]), []
        bend = ACTIVATIONS[self.config["model"]["encoder"].get("nonlinearity", "tanh")]
        for x in inputs:
            hidden = bend(of["weight_ih"] @ x + of["bias_ih"] + of["weight_hh"] @ hidden + of["bias_hh"])
            outputs.append(hidden)
        return np.array(outputs)

    def _lstm(self, suffix, inputs, place="encoder._module."):
        weight = {name: self.state[f"{place}{name}_{suffix}"] for name in ("weight_ih", "weight_hh")}
        bias = self.state.get(f"{place}bias_ih_{suffix}", 0.0) + self.state.get(f"{place}bias_hh_{suffix}", 0.0)
        hidden = cell = np.zeros(weight["weight_hh"].shape[1])
        outputs = []
        for x in inputs:
            into, forget, new, out = np.split(weight["weight_ih"] @ x + weight["weight_hh"] @ hidden + bias, 4)
            cell = _sigmoid(forget) * cell + _sigmoid(into) * np.tanh(new)
            hidden = _sigmoid(out) * np.tanh(cell)
            outputs.append(hidden)
        return np.array(outputs)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "linear": lambda x: x,
    "gelu": _gelu,
    "gelu_new": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "swish": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}
