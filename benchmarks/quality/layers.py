"""What each layer is good for, by linear probes: parts of speech, entities, senses.

    python -m benchmarks.quality.layers [--parts pos norwegian ner wic read mix] [--model FOLDER] [--output FILE.json]

Each part for the model's layers and their average, and for those of a model of the same sizes with random weights:

- *pos*: accuracy of universal parts of speech, UD English-PUD in five folds of sentences.
- *norwegian*: the same of a language that the model was not trained on, UD Norwegian-NynorskLIA, train to test.
- *ner*: F1 of entities, WNUT-17, train to test, tags by a linear probe of each word alone.
- *wic*: accuracy on WiC's test: the same sense if the cosine of the word's two vectors reaches a threshold, which is
  chosen on the training part.
- *read*: `read_occurrences.py`.
- *mix*: F1 of entities with a head (`heads.py`) on the last layer, the average, and the learned mix, five seeds.

A probe has nothing to choose: its regularisation is fixed. A seed is that of the folds and of the random model. With
`--quick` there are slices of 100 sentences, and the development parts are in place of the tests. Expected CPU time
of everything: see `benchmarks/quality/README.md`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..harness.data import shared_data
from .encoders import FrozenLayers, elmo_vectors
from .heads import Budget, run_task
from .probes import by_layer, cross_validated, fit, layers_of_words
from .read_occurrences import measure_both
from .tables import load, mean_and_spread, parser, random_model, read_options, write_table
from .tagging import entity_scores
from .task_data import Example, read_conllu, wic, wnut17

PARTS = ("pos", "norwegian", "ner", "wic", "read", "mix")


def flat(sentences: list[tuple[list[str], list[str]]]) -> tuple[list[list[str]], list[str], list[str]]:
    """Sentences, the labels of all words, and each word's group: its sentence."""
    labels = [label for _, row in sentences for label in row]
    groups = [str(number) for number, (words, _) in enumerate(sentences) for _ in words]
    return [words for words, _ in sentences], labels, groups


def parts_of_speech(model, tokenizer, limit: int | None, seed: int) -> dict[str, float]:
    """Accuracy by layer, cross-validated on UD English-PUD."""
    path = shared_data("ud", "UD_English-PUD", "en_pud-ud-test.conllu.gz")
    sentences, labels, groups = flat(read_conllu(path)[:limit])
    layers = by_layer(layers_of_words(model, tokenizer, sentences))
    return {name: cross_validated(vectors, labels, groups, 5, seed) for name, vectors in layers.items()}


def norwegian(model, tokenizer, limit: int | None, seed: int, test: str) -> dict[str, float]:
    """Accuracy by layer, trained and tested on UD Norwegian-NynorskLIA."""
    folder = shared_data("ud", "UD_Norwegian-NynorskLIA")
    parts = {}
    for split in ("train", test):
        sentences, labels, _ = flat(read_conllu(folder / f"no_nynorsklia-ud-{split}.conllu.gz")[:limit])
        parts[split] = by_layer(layers_of_words(model, tokenizer, sentences)), np.array(labels)
    (train, known), (tested, gold) = parts["train"], parts[test]
    return {name: float((fit(train[name], known, seed=seed).predict(tested[name]) == gold).mean()) for name in train}


def entities(model, tokenizer, limit: int | None, seed: int, test: str) -> dict[str, float]:
    """F1 of WNUT-17's entities by layer, in percent."""
    splits = wnut17(limit)
    parts = {}
    for split in ("train", test):
        sentences = [example.texts[0] for example in splits[split]]
        labels = [label for example in splits[split] for label in example.labels]
        parts[split] = by_layer(layers_of_words(model, tokenizer, sentences)), labels
    (train, known), (tested, _) = parts["train"], parts[test]
    gold = [example.labels for example in splits[test]]
    ends = np.cumsum([len(row) for row in gold])[:-1]
    scores = {}
    for name in train:
        predicted = fit(train[name], known, seed=seed).predict(tested[name])
        scores[name] = entity_scores([row.tolist() for row in np.split(predicted, ends)], gold)["f1"]
    return scores


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score from which on "true" is most often right; of equal ones the lowest."""
    candidates = np.unique(scores)
    right = [((scores >= each) == labels).mean() for each in candidates]
    return float(candidates[int(np.argmax(right))])


def word_cosines(model, tokenizer, examples: list[Example]) -> dict[str, np.ndarray]:
    """The cosine of a word's vectors in two sentences, by layer: ``(examples,)`` each."""
    found: list[np.ndarray] = []
    for side in (0, 1):
        sentences = [example.texts[side] for example in examples]
        stacked = layers_of_words(model, tokenizer, sentences)
        begins = np.cumsum([0, *(len(words) for words in sentences)])[:-1]
        found.append(stacked[:, begins + [example.places[side] for example in examples]])
    cosines = {}
    for (name, one), other in zip(by_layer(found[0]).items(), by_layer(found[1]).values(), strict=True):
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines[name] = (one * other).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def senses(model, tokenizer, limit: int | None, test: str) -> dict[str, float]:
    """Accuracy on WiC by layer, with the threshold that is best on its training part."""
    splits = wic(limit)
    labels = {split: np.array([example.labels[0] == "T" for example in splits[split]]) for split in ("train", test)}
    train, tested = (word_cosines(model, tokenizer, splits[split]) for split in ("train", test))
    return {
        name: float(((tested[name] >= best_threshold(train[name], labels["train"])) == labels[test]).mean())
        for name in train
    }


def mixes(model, tokenizer, limit: int | None, seeds: list[int], budget: Budget, test: str) -> dict[str, dict]:
    """F1 of WNUT-17's entities under a head, on the last layer, the average and the learned mix of layers."""
    splits = wnut17(limit)
    layers = FrozenLayers(elmo_vectors(model, tokenizer), splits)
    return {
        mix: mean_and_spread(
            [run_task("tags", splits, partial(layers.encoder, mix), budget, seed, test)["test"] for seed in seeds]
        )
        for mix in ("last", "average", "learned")
    }


def main(arguments: list[str] | None = None) -> dict:
    """Runs the parts with the options of a command line."""
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = read_options(options, arguments)
    limit, test = (100, "dev") if options.quick else (None, "test")
    tokenizer, model = load(options.model)
    rows: dict = {}
    for part in options.parts:
        if part == "read":
            rows[part] = measure_both(model, tokenizer, options.seeds[0])
        elif part == "mix":
            seeds = options.seeds if len(options.seeds) < 3 else [1, 2, 3, 4, 5]
            budget = Budget(epochs=2) if options.quick else Budget()
            rows[part] = mixes(model, tokenizer, limit, seeds, budget, test)
        else:
            rows[part] = {"model": {}, "random": {}}
            for arm in ("model", "random"):
                runs = []
                for seed in options.seeds:
                    encoder = model if arm == "model" else random_model(options.model, seed)
                    if part == "pos":
                        runs.append(parts_of_speech(encoder, tokenizer, limit, seed))
                    elif part == "norwegian":
                        runs.append(norwegian(encoder, tokenizer, limit, seed, test))
                    elif part == "ner":
                        runs.append(entities(encoder, tokenizer, limit, seed, test))
                    else:
                        runs.append(senses(encoder, tokenizer, limit, test))
                    if arm == "model" and part in ("norwegian", "ner", "wic"):
                        # Nothing there depends on the seed.
                        break
                rows[part][arm] = {name: mean_and_spread([run[name] for run in runs]) for name in runs[0]}
        print(part, rows[part], flush=True)
    return write_table(options.output, "layers", rows, options, __spec__.name)


if __name__ == "__main__":
    main()
