"""What bf16 and int8 cost in quality: entities of WNUT-17, and the perplexity of a text.

    python -m benchmarks.quality.precision [--model FOLDER] [--seeds N ...] [--output FILE.json]

A tagger on a frozen ELMo is trained in float32 as in `wnut17.py`, and saved. Then it tags the test set from words, biLM
included, in float32, in bfloat16 (`dtype=torch.bfloat16`) and in 8 bits (`hf_elmo.quantize`). The results are the F1 of
entities in percent, and the share of words with the same tag as in float32. The language model's perplexity, in both
directions, is that of the first paragraphs of a text that it was not trained on.

Data is found as in `wnut17.py`; the text is `lm/wikinews_en/valid.txt.gz` in the same folder.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
from pathlib import Path

import torch
import transformers

import hf_elmo
from hf_elmo.vectors.layer_store import precompute_layers

from ..harness.data import shared_data
from .tagging import (
    Arm,
    Sentence,
    entity_scores,
    label_names,
    plain_tags,
    read_columns,
    tokenize,
    train_once,
    write_json,
)
from .wnut17 import FILES, recipe

KINDS = ("fp32", "bf16", "int8")


def load(auto, folder: str | Path, kind: str):
    """A model in one of the kinds of numbers, by the documented one-liners."""
    model = auto.from_pretrained(folder, dtype=torch.bfloat16 if kind == "bf16" else torch.float32).eval()
    return hf_elmo.quantize(model) if kind == "int8" else model


def tag(model, tokenizer, sentences: list[Sentence], names: list[str]) -> list[list[str]]:
    """The best sequences of BIO tags."""
    found: list[list[str]] = []
    with torch.inference_mode():
        for begin in range(0, len(sentences), 64):
            words = [words for words, _ in sentences[begin : begin + 64]]
            inputs = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
            found += [plain_tags([names[label] for label in row]) for row in model.decode(**inputs)]
    return found


def tags_of_kinds(splits: dict[str, list[Sentence]], model_folder: str, seeds: list[int]) -> dict[str, list[dict]]:
    """Trains a tagger with each seed, and tags the test set with it in all kinds.

    Returns:
        For each kind and seed its entity scores (`f1`, `precision`, `recall`, `strict_f1`), and `same`, the percentage
        of tags that are those of fp32.
    """
    plan = recipe()
    names = label_names(splits["train"], plan.scheme)
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(model_folder)
    gold = [tags for _, tags in splits["test"]]
    results: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as work:
        bilm = hf_elmo.ElmoModel.from_pretrained(model_folder).eval()
        data = {name: tokenize(sentences, tokenizer, names, plan.scheme) for name, sentences in splits.items()}
        layers = {name: precompute_layers(split, bilm, work) for name, split in data.items()}

        def make(fields):
            return hf_elmo.ElmoForTokenClassification.from_pretrained(model_folder, **fields)

        for seed in seeds:
            folder = Path(work) / f"tagger-{seed}"
            arm = Arm("ELMo, frozen", make, layers, plan.learning_rate)
            train_once(arm, plan, names, tokenizer, seed, folder)
            found = {
                kind: tag(load(hf_elmo.ElmoForTokenClassification, folder, kind), tokenizer, splits["test"], names)
                for kind in KINDS
            }
            exact = [label for row in found["fp32"] for label in row]
            for kind, rows in found.items():
                same = statistics.mean(a == b for a, b in zip(exact, (x for row in rows for x in row), strict=True))
                results[kind].append({"seed": seed, **entity_scores(rows, gold), "same": round(100 * same, 2)})
                print(kind, results[kind][-1], flush=True)
    return results


def main(arguments: list[str] | None = None) -> dict:
    """Runs the experiment with the options of a command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", help="folder of a pretrained language model (default: the bundled elmo-mini)")
    options.add_argument("--data", type=Path, help="the folder of which ner/wnut17 and lm/wikinews_en are parts")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--limit", type=int, help="most sentences of each file, for a quick try")
    options.add_argument("--paragraphs", type=int, default=500, help="paragraphs of the perplexity")
    options.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    options.add_argument("--output", type=Path, help="JSON file for all scores")
    options = options.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    data = options.data or shared_data()
    model_folder = options.model or hf_elmo.bundled()
    with gzip.open(data / "lm" / "wikinews_en" / "valid.txt.gz", "rt", encoding="utf-8") as lines:
        text = [line.strip() for line, _ in zip(lines, range(options.paragraphs))]
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(model_folder)
    perplexities = {}
    for kind in KINDS:
        found = hf_elmo.perplexity(load(hf_elmo.ElmoForPreTraining, model_folder, kind), tokenizer, text)
        perplexities[kind] = [found.forward, found.backward]
    splits = {name: read_columns(data / "ner" / "wnut17" / file, options.limit) for name, file in FILES.items()}
    results = {"perplexity": perplexities, "tags": tags_of_kinds(splits, model_folder, options.seeds)}
    if options.output is not None:
        write_json(results, options.output)
    print("| | entity F1 | change of F1 | tags as in fp32, % | perplexity, forward | backward |")
    print("|---|---:|---:|---:|---:|---:|")
    exact = [run["f1"] for run in results["tags"]["fp32"]]
    for kind, runs in results["tags"].items():
        changes = [run["f1"] - before for run, before in zip(runs, exact, strict=True)]
        forward, backward = perplexities[kind]
        print(
            f"| {kind} | {statistics.mean(run['f1'] for run in runs):.2f} | "
            f"{statistics.mean(changes):+.2f} ({min(changes):+.2f}..{max(changes):+.2f}) | "
            f"{statistics.mean(run['same'] for run in runs):.2f} | {forward:.3f} | {backward:.3f} |"
        )
    return results


if __name__ == "__main__":
    main()
