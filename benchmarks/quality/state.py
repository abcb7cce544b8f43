"""What a carried LSTM state is worth: perplexity with four kinds of state, and how often the clips fire.

    python -m benchmarks.quality.state [--model FOLDER] [--twins FOLDER ...] [--documents 60] [--output FILE.json]

The text is `lm/wikinews_en/valid.txt.gz`, in sentences; a document ends at a blank line. Each direction has:

- *zeros*: every sentence on its own, from a state of zeros;
- *warm-up*: after one sentence that is always the same (for the backward direction it stands behind);
- *true order*: the state carried through each document;
- *shuffled*: the same, but all sentences are shuffled over all documents first (mean over the seeds).

Clips: the share of cells and of projected outputs that stand at the clip, of all words of sentences of 8 to 40 words
read from zeros, by direction and layer.

The bundled model was trained on single sentences. To see what a carried state does, train twins of a small size on the
same text, one with a carried state and one on single sentences, and give both with `--twins`:

    hf-elmo train shared/data/lm/wikipedia_en_2015/train.txt.gz --config small --steps STEPS --no-bf16 --output carried
    hf-elmo train shared/data/lm/wikipedia_en_2015/train.txt.gz --config small --steps STEPS --no-bf16 \
        --whole-sentences --output single

Both have the same updates, and 40 minutes each are enough to see a difference.
"""

from __future__ import annotations

import gzip
import math
import random
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from hf_elmo.language_model.scoring import ScoredSentence, score_sentences

from ..harness.data import shared_data
from .tables import load_language_model, mean_and_spread, parser, read_options, write_table

WARM_UP = "The meeting took place in the afternoon , and many people came ."


def read_documents(count: int) -> list[list[str]]:
    """The sentences of the first documents of the text."""
    from nupunkt import sent_tokenize

    documents: list[list[str]] = [[]]
    with gzip.open(shared_data("lm", "wikinews_en", "valid.txt.gz"), "rt", encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                documents[-1] += [str(sentence) for sentence in sent_tokenize(line.strip())]
            elif documents[-1]:
                if len(documents) == count:
                    break
                documents.append([])
    return [each for each in documents if each]


def perplexities(scored: Iterable[ScoredSentence]) -> dict[str, float]:
    """The perplexity of each direction over all predictions."""
    totals, predictions = np.zeros(2), 0
    for sentence in scored:
        totals += sentence.forward.sum(dtype=np.float64), sentence.backward.sum(dtype=np.float64)
        predictions += len(sentence.forward)
    forward, backward = (math.exp(-total / predictions) for total in totals)
    return {"forward": forward, "backward": backward}


def carried(model, tokenizer, documents: Sequence[Sequence[str]]) -> dict[str, float]:
    """Perplexities with a state that is carried through each document."""
    return perplexities(
        sentence for each in documents for sentence in score_sentences(model, tokenizer, each, carry_state=True)
    )


def warmed_up(model, tokenizer, sentences: Sequence[str]) -> dict[str, float]:
    """Perplexities with the state that the warm-up sentence leaves, before a sentence or behind it."""

    def scored() -> Iterable[ScoredSentence]:
        for sentence in sentences:
            yield from list(score_sentences(model, tokenizer, [WARM_UP, sentence, WARM_UP], carry_state=True))[1:-1]

    return perplexities(scored())


def shuffled(documents: Sequence[Sequence[str]], seed: int) -> list[list[str]]:
    """Documents of the same lengths, of all sentences in a random order."""
    sentences = [sentence for each in documents for sentence in each]
    random.Random(seed).shuffle(sentences)
    remaining = iter(sentences)
    return [[next(remaining) for _ in each] for each in documents]


def clips(model, tokenizer, sentences: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """The shares of cells and of outputs at the clip: for each direction a dict for each layer.

    Sentences are read word by word, so that each state is seen: the backward direction from the last word on.
    """
    elmo, limits = model.base_model, (model.config.cell_clip, model.config.proj_clip)
    counts = np.zeros((2, model.config.num_layers, 2))
    words = 0
    for sentence in sentences:
        encoded = tokenizer([tokenizer.tokenize(sentence)], is_split_into_words=True, return_tensors="pt")
        ids = encoded["character_ids"]
        if not 10 <= ids.shape[1] <= 42:
            continue
        words += ids.shape[1]
        for direction, places in enumerate((range(ids.shape[1]), reversed(range(ids.shape[1])))):
            state = None
            for place in places:
                with torch.inference_mode():
                    output = elmo(character_ids=ids[:, place : place + 1], state=state, return_state=True)
                state = output.state
                for kind, (values, limit) in enumerate(zip((state.cell, state.hidden), limits, strict=True)):
                    if limit is not None:
                        at_clip = values[direction, :, 0].abs() >= limit * (1 - 1e-6)
                        counts[direction, :, kind] += at_clip.float().mean(dim=1).numpy()
    shares = counts / max(words, 1)
    return {
        name: [{"cells": float(cells), "outputs": float(outputs)} for cells, outputs in shares[direction]]
        for direction, name in enumerate(("forward", "backward"))
    }


def measure(folder: str, documents: list[list[str]], seeds: list[int], clip_sentences: int) -> dict:
    """All figures of one model."""
    tokenizer, model = load_language_model(folder)
    sentences = [sentence for each in documents for sentence in each]
    orders = [carried(model, tokenizer, shuffled(documents, seed)) for seed in seeds]
    return {
        "perplexity": {
            "zeros": perplexities(score_sentences(model, tokenizer, sentences)),
            "warm-up": warmed_up(model, tokenizer, sentences),
            "true order": carried(model, tokenizer, documents),
            "shuffled": {
                name: mean_and_spread([each[name] for each in orders])["mean"] for name in ("forward", "backward")
            },
        },
        "clips": clips(model, tokenizer, sentences[:clip_sentences]),
        "sentences": len(sentences),
        "documents": len(documents),
    }


def main(arguments: list[str] | None = None) -> dict:
    """Measures the models of a command line."""
    options = parser(__doc__)
    options.add_argument("--twins", nargs="*", default=[], help="folders of further models, to be compared")
    options.add_argument("--documents", type=int, default=60)
    options.add_argument("--clip-sentences", type=int, default=100, help="of how many sentences the clips are counted")
    options = read_options(options, arguments)
    documents = read_documents(3 if options.quick else options.documents)
    rows = {}
    for folder in [options.model, *options.twins]:
        name = str(folder).rstrip("/").rsplit("/", 1)[-1]
        rows[name] = measure(str(folder), documents, options.seeds, 5 if options.quick else options.clip_sentences)
        print(name, rows[name], flush=True)
    return write_table(options.output, "state", rows, options, __spec__.name)


if __name__ == "__main__":
    main()
