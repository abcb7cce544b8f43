"""What a model knows of a word's senses, and which words its context-free layer holds to be near.

    python -m benchmarks.quality.senses [--model FOLDER] [--words beauty ...] [--text FILE ...]
        [--json FILE] [--results FILE]

**Senses.** `read_senses.tsv` has 32 sentences with *read*, eight each as past, present, infinitive and noun. They were
written before the first measurement and have not changed since. A triple is an anchor, another sentence of its sense
and a sentence of another sense. The result is the share of triples in which the anchor's vector of *read* is nearer
(higher cosine) to that of its own sense; a tie counts half. Random vectors give 50 %, and so does the context-free
layer, where all vectors are equal. The columns of single senses are the triples with such an anchor; "verb or noun"
counts the three verbal senses as one. Neighbouring words alone tell something of these senses ("to read", "a good
read"), so the table has a plain baseline: a vector of zeros and ones for the two words before *read* and the two
behind it.

**Neighbours.** The words are the 30,000 most frequent ones of the given texts that have only letters, by default of the
training text in the folder of shared data. Each is read alone. Listed are its nearest words by cosine of the
context-free layer, which sees only letters, and the rank at which words with the same first letters come.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import hf_elmo
from hf_elmo.vectors.embedding import embed_sentences
from hf_elmo.whole_files import new_file

from ..harness.card_results import write_card_results
from ..harness.data import shared_data

SENTENCES = Path(__file__).with_name("read_senses.tsv")
WORD = "read"
# Words that share this many first letters are listed as possible forms of one another.
SAME_LETTERS = 5


def read_sentences(path: Path) -> tuple[list[str], list[list[str]]]:
    """Senses and sentences, as words, from lines `sense TAB sentence`."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return [sense for sense, _ in rows], [sentence.split() for _, sentence in rows]


def cosines(vectors: np.ndarray) -> np.ndarray:
    """``(rows, dim)`` to ``(rows, rows)``."""
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    return unit @ unit.T


def share_of_triples(similarities: np.ndarray, senses: list[str], sense: str | None = None) -> tuple[float, int]:
    """In how many triples (anchor, same sense, other sense) the same sense is more similar, and how many there are.

    Similarities that differ by no more than 1e-6 are a tie, which counts half.

    Args:
        similarities: ``(rows, rows)``.
        senses: The sense of each row.
        sense: The anchor's; None: any.
    """
    labels = np.array(senses)
    won = total = 0
    for anchor, row in enumerate(similarities):
        if sense not in (None, senses[anchor]):
            continue
        same = labels == labels[anchor]
        others = row[~same]
        same[anchor] = False
        differences = row[same][:, None] - others[None, :]
        won += (differences > 1e-6).sum() + (np.abs(differences) <= 1e-6).sum() / 2
        total += differences.size
    return float(won / total), int(total)


def vectors_of_word(model, tokenizer, sentences: list[list[str]]) -> dict[str, np.ndarray]:
    """The vectors of *read* in each layer and in the mix, ``(sentences, dim)`` each."""
    places = [words.index(WORD) for words in sentences]
    layers = embed_sentences(model, tokenizer, sentences, layers="all")
    stacked = np.stack([each.vectors[:, place] for each, place in zip(layers, places, strict=True)], axis=1)
    mixed = embed_sentences(model, tokenizer, sentences)
    mix = np.stack([each.vectors[place] for each, place in zip(mixed, places, strict=True)])
    names = ["context-free layer", *(f"biLSTM layer {number}" for number in range(1, len(stacked)))]
    return {**dict(zip(names, stacked, strict=True)), "mix": mix}


def neighbour_vectors(sentences: list[list[str]]) -> np.ndarray:
    """The baseline: which words stand at the two places before *read*, and at the two behind it."""
    features = []
    for words in sentences:
        padded = ["<S>", "<S>", *map(str.lower, words), "</S>", "</S>"]
        place = words.index(WORD) + 2
        features.append({(offset, padded[place + offset]) for offset in (-2, -1, 1, 2)})
    names = sorted(set().union(*features))
    return np.array([[name in each for name in names] for each in features], dtype=np.float64)


def measure_senses(model, tokenizer) -> dict:
    senses, sentences = read_sentences(SENTENCES)
    coarse = ["noun" if sense == "noun" else "verb" for sense in senses]
    vectors = {**vectors_of_word(model, tokenizer, sentences), "two words on each side": neighbour_vectors(sentences)}
    rows = {}
    for name, matrix in vectors.items():
        similarities = cosines(matrix)
        rows[name] = {"all senses": share_of_triples(similarities, senses)[0]}
        rows[name] |= {sense: share_of_triples(similarities, senses, sense)[0] for sense in dict.fromkeys(senses)}
        rows[name]["verb or noun"] = share_of_triples(similarities, coarse)[0]
    triples = share_of_triples(similarities, senses)[1], share_of_triples(similarities, coarse)[1]
    return {"word": WORD, "sentences": dict(Counter(senses)), "triples": triples, "share": rows}


def card_rows(measured: dict) -> list[tuple[dict, dict, dict, float]]:
    """The shares of the layers that read sentences, for a model card: task, dataset, metric, value."""
    sentences = sum(measured["sentences"].values())
    task = {"type": "feature-extraction", "name": "Senses of one word"}
    dataset = {"type": "read-senses", "name": f"{sentences} sentences with the word {measured['word']}"}
    layers = {name: shares for name, shares in measured["share"].items() if name == "mix" or name.startswith("biLSTM")}
    return [
        (task, dataset, {"type": "accuracy", "name": f"Triples told apart in percent, {name}"}, round(100 * each, 1))
        for name, each in ((name, shares["all senses"]) for name, shares in layers.items())
    ]


def frequent_words(tokenizer, paths: list[Path], most: int) -> list[str]:
    """The most frequent words of letters in text files, plain or .gz."""
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    counts: Counter[str] = Counter()
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            while batch := "".join(islice(lines, 1000)):
                counts.update(word for word, _ in split(batch) if word.isalpha())
    by_frequency = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in by_frequency[:most]]


def context_free_vectors(model, tokenizer, words: list[str]) -> np.ndarray:
    """``(words, projection_dim)``: the character encoder's vectors."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(words), 1000):
            encoded = tokenizer(
                [words[start : start + 1000]], is_split_into_words=True, add_special_tokens=False, return_tensors="pt"
            )
            parts.append(model.character_encoder(encoded["character_ids"][0]).numpy())
    return np.concatenate(parts)


def measure_neighbours(model, tokenizer, words: list[str], candidates: list[str], count: int) -> dict:
    matrix = context_free_vectors(model, tokenizer, candidates)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    found = {}
    for word, vector in zip(words, context_free_vectors(model, tokenizer, words), strict=True):
        similarities = unit @ (vector / np.linalg.norm(vector))
        order = [int(index) for index in np.argsort(-similarities) if candidates[index] != word]
        ranked = [
            {"word": candidates[index], "rank": rank, "cosine": float(similarities[index])}
            for rank, index in enumerate(order, start=1)
        ]
        stem = word[:SAME_LETTERS].lower()
        relatives = [each for each in ranked if each["word"].lower().startswith(stem)]
        found[word] = {"nearest": ranked[:count], "same first letters": relatives[:count]}
    return found


def default_texts() -> list[Path]:
    return [shared_data("lm", name, "train.txt.gz") for name in ("wikipedia_en_2015", "wikinews_en")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=hf_elmo.bundled(), help="model folder; the bundled model if not given")
    parser.add_argument("--words", nargs="*", default=["beauty", "running", "king", "quickly", "Germany", "seven"])
    parser.add_argument(
        "--text", nargs="*", type=Path, help="text to count words in; default: the shared training text"
    )
    parser.add_argument("--candidates", type=int, default=30_000, help="how many frequent words")
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the results there, too")
    parser.add_argument("--results", type=Path, help="write the shares there, too, for a model card")
    options = parser.parse_args(arguments)
    texts = options.text or default_texts()
    if missing := [str(path) for path in texts if not path.is_file()]:
        parser.error(f"there is no text {missing[0]}: give --text, or the folder of data in HF_ELMO_SHARED_DATA")
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(options.model)
    model = hf_elmo.ElmoModel.from_pretrained(options.model).eval()

    senses = measure_senses(model, tokenizer)
    columns = list(next(iter(senses["share"].values())))
    print(f"Share of triples in which the same sense of {WORD!r} is nearer ({senses['triples'][0]:,} triples), in %:")
    print(f"{'':26}" + "".join(f"{column:>14}" for column in columns))
    for name, shares in senses["share"].items():
        print(f"{name:26}" + "".join(f"{100 * share:14.1f}" for share in shares.values()))

    candidates = frequent_words(tokenizer, texts, options.candidates)
    neighbours = measure_neighbours(model, tokenizer, options.words, candidates, options.neighbours)
    print(f"\nNearest of the {len(candidates):,} most frequent words by the context-free layer (cosine):")
    for word, found in neighbours.items():
        print(f"{word:>12}: " + ", ".join(f"{each['word']} {each['cosine']:.2f}" for each in found["nearest"]))
        relatives = ", ".join(f"{each['word']} (rank {each['rank']:,})" for each in found["same first letters"])
        print(f"{'':>12}  {word[:SAME_LETTERS]}...: {relatives or 'none'}")
    if options.json is not None:
        results = {"model": str(options.model), "senses": senses, "neighbours": neighbours}
        with new_file(options.json) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if options.results is not None:
        write_card_results(options.results, card_rows(senses), __spec__.name, arguments)


if __name__ == "__main__":
    main()
