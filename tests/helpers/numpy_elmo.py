"""ELMo in plain numpy: slow, in float64, and independent of the package, which is tested against it.

Written from the formulas of the paper (Peters et al. 2018, https://arxiv.org/abs/1802.05365) and of the original
program (bilm-tf), on weights as that program stores them: the names and layouts of its HDF5 files. One sentence and one
word at a time; nothing is batched, padded or packed, so there is nothing to get wrong there.
"""

import numpy as np

# Characters as bilm-tf numbers them inside (bilm/data.py): bytes are themselves. Its programs add 1 to every id at the
# very end, to make 0 free for padding; the 261 rows of `char_embed` are in this order.
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, FILLING = 256, 257, 258, 259, 260


def characters(word, length=50):
    """A word's row of `length` characters, as numbers from 0 to 260."""
    if word == "<S>":
        inside = [BEGIN_SENTENCE]
    elif word == "</S>":
        inside = [END_SENTENCE]
    else:
        inside = list(word.encode("utf-8", "ignore"))[: length - 2]
    row = [BEGIN_WORD, *inside, END_WORD]
    return row + [FILLING] * (length - len(row))


class NumpyElmo:
    """A biLM.

    Args:
        options: The content of an `options.json`.
        weights: Arrays by the keys of the HDF5 file.
        lines: The vocabulary's lines, of a model that reads words.

    Attributes:
        cells: Every cell that was computed, ``(steps, dim)`` after `read`: to see whether the clip fired.
        projected: Likewise every projected output of an LSTM.
    """

    def __init__(self, options, weights, lines=()):
        self.options = options
        self.rows = {line: row for row, line in enumerate(lines)}
        self.weights = {name: np.asarray(array, dtype=np.float64) for name, array in weights.items()}
        self.cells, self.projected = [], []

    def word_vector(self, word):
        """The context-free vector, ``(projection_dim,)``."""
        if "char_cnn" not in self.options:
            return self.weights["embedding"][self.rows.get(word, self.rows["<UNK>"])]
        cnn = self.options["char_cnn"]
        embedded = self.weights["char_embed"][characters(word, cnn["max_characters_per_token"])]
        squash = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[cnn["activation"]]
        features = []
        for number, (width, _) in enumerate(cnn["filters"]):
            kernel = self.weights[f"CNN/W_cnn_{number}"][0]
            bias = self.weights[f"CNN/b_cnn_{number}"]
            windows = [
                np.einsum("wd,wdn->n", embedded[start : start + width], kernel) + bias
                for start in range(len(embedded) - width + 1)
            ]
            features.append(squash(np.max(windows, axis=0)))
        x = np.concatenate(features)
        for number in range(cnn.get("n_highway") or 0):
            layer = {
                name: self.weights[f"CNN_high_{number}/{name}"]
                for name in ("W_carry", "b_carry", "W_transform", "b_transform")
            }
            gate = _sigmoid(x @ layer["W_carry"] + layer["b_carry"])
            transformed = np.maximum(x @ layer["W_transform"] + layer["b_transform"], 0)
            x = gate * transformed + (1 - gate) * x
        if len(x) != self.options["lstm"]["projection_dim"]:
            x = x @ self.weights["CNN_proj/W_proj"] + self.weights["CNN_proj/b_proj"]
        return x

    def read(self, words, state=None):
        """All layers of one sentence.

        Args:
            words: The sentence's words; `<S>` and `</S>` are put around them.
            state: What the call before returned, to read on from there. None: zeros.

        Returns:
            ``(n_layers + 1, words + 2, 2 * projection_dim)``, and the state: one (output, cell) for each
            (direction, layer).
        """
        vectors = [self.word_vector(word) for word in ["<S>", *words, "</S>"]]
        halves, after = [], {}
        for direction in (0, 1):
            sequence = vectors if direction == 0 else vectors[::-1]
            stack = [sequence]
            for layer in range(self.options["lstm"].get("n_layers") or 1):
                start = None if state is None else state[direction, layer]
                outputs, after[direction, layer] = self._lstm(direction, layer, stack[-1], start)
                if layer > 0 and self.options["lstm"].get("use_skip_connections"):
                    outputs = [below + own for below, own in zip(stack[-1], outputs, strict=True)]
                stack.append(outputs)
            halves.append([outputs if direction == 0 else outputs[::-1] for outputs in stack])
        return np.concatenate([np.array(halves[0]), np.array(halves[1])], axis=-1), after

    def _lstm(self, direction, layer, inputs, start):
        prefix = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell/"
        kernel, bias = self.weights[prefix + "W_0"], self.weights[prefix + "B"]
        lstm = self.options["lstm"]
        size = lstm["dim"]
        output, cell = (np.zeros(lstm["projection_dim"]), np.zeros(size)) if start is None else start
        outputs = []
        for x in inputs:
            gates = np.concatenate([x, output]) @ kernel + bias
            into, new, forget, out = (gates[block * size : (block + 1) * size] for block in range(4))
            cell = _sigmoid(forget + 1.0) * cell + _sigmoid(into) * np.tanh(new)
            if lstm.get("cell_clip"):
                cell = np.clip(cell, -lstm["cell_clip"], lstm["cell_clip"])
            output = _sigmoid(out) * np.tanh(cell)
            if lstm["projection_dim"] < size:
                output = output @ self.weights[prefix + "W_P_0"]
                if lstm.get("proj_clip"):
                    output = np.clip(output, -lstm["proj_clip"], lstm["proj_clip"])
                self.projected.append(output)
            self.cells.append(cell)
            outputs.append(output)
        return outputs, (output, cell)


def random_weights(options, seed, lines=()):
    """Weights for `options`, float32, under which activations are of order 1 and both clips of 3 fire.

    Of a model that reads words, `lines` are those of its vocabulary.

    Freshly initialised weights would pass any test: their cells stay near 0, where clips, gates and squashing functions
    do nothing. Here the biases drive cells towards their bound and the projection reaches beyond its own, while the
    recurrent part is small enough that rounding errors do not grow from word to word.
    """
    rng = np.random.default_rng(seed)
    lstm = options["lstm"]
    projection_dim, size = lstm["projection_dim"], lstm["dim"]
    if "char_cnn" in options:
        weights = _random_encoder(options, rng)
    else:
        weights = {"embedding": rng.normal(0, 1.5, (len(lines), projection_dim))}
    for direction in (0, 1):
        for layer in range(lstm.get("n_layers") or 1):
            prefix = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell/"
            from_below = rng.normal(0, 0.7 / np.sqrt(projection_dim), (projection_dim, 4 * size))
            recurrent = rng.normal(0, 0.3 / np.sqrt(projection_dim), (projection_dim, 4 * size))
            weights[prefix + "W_0"] = np.concatenate([from_below, recurrent])
            weights[prefix + "B"] = np.concatenate(
                [
                    rng.normal(1.5, 0.5, size),  # into the cell: open
                    rng.choice([-1.5, 1.5], size) + rng.normal(0, 0.3, size),  # what enters: far from 0, of either sign
                    rng.normal(2, 0.5, size),  # forget: hardly, with the 1 that is added at run time
                    rng.normal(1, 0.5, size),
                ]
            )
            if projection_dim < size:
                weights[prefix + "W_P_0"] = rng.normal(0, 3.5 / np.sqrt(size), (size, projection_dim))
    return {name: array.astype(np.float32) for name, array in weights.items()}


def _random_encoder(options, rng):
    """Weights of the character CNN."""
    cnn, projection_dim = options["char_cnn"], options["lstm"]["projection_dim"]
    dim = cnn["embedding"]["dim"]
    weights = {"char_embed": rng.uniform(-1, 1, (261, dim))}
    for number, (width, count) in enumerate(cnn["filters"]):
        weights[f"CNN/W_cnn_{number}"] = rng.normal(0, 1 / np.sqrt(width * dim), (1, width, dim, count))
        weights[f"CNN/b_cnn_{number}"] = rng.normal(0, 0.5, count)
    features = sum(count for _, count in cnn["filters"])
    for number in range(cnn.get("n_highway") or 0):
        for name in ("carry", "transform"):
            weights[f"CNN_high_{number}/W_{name}"] = rng.normal(0, 1 / np.sqrt(features), (features, features))
            weights[f"CNN_high_{number}/b_{name}"] = rng.normal(0, 0.5, features)
    if features != projection_dim:
        weights["CNN_proj/W_proj"] = rng.normal(0, 1.5 / np.sqrt(features), (features, projection_dim))
        weights["CNN_proj/b_proj"] = rng.normal(0, 0.5, projection_dim)
    return weights


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
