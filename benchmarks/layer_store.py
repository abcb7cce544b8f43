"""What stored layers save: reading and collating them, against computing them with the biLM.

    python -m benchmarks.layer_store [--preset small] [--sentences 320] [--batch 32] [--rounds 5] [--folder DIR]

The model has random weights, which cost what trained ones cost; the sentences are the first of WNUT-17. One round times
each way once over all batches, in turn, so that a busy machine slows all of them; what counts is the median of the
rounds, and the ratio of each round. "Compute" is the biLM alone, on batches that are collated already. "Read" is all of
it: from the file (in the page cache, after the first round) to the collated batch.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
from datasets import Dataset
from transformers import DataCollatorForTokenClassification

import hf_elmo

from .harness.data import shared_data


def wnut_sentences(count: int) -> list[list[str]]:
    """The first sentences of WNUT-17's training set, as words."""
    path = shared_data("ner", "wnut17", "wnut17train.conll")
    if not path.is_file():
        sys.exit(f"{path} is missing: name the folder of shared data in HF_ELMO_SHARED_DATA.")
    sentences: list[list[str]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        # Lines between sentences may hold white space.
        if line.strip():
            sentences[-1].append(line.split("\t")[0])
        elif sentences[-1]:
            sentences.append([])
    return [sentence for sentence in sentences if sentence][:count]


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=("small", "medium", "original"))
    parser.add_argument("--sentences", type=int, default=320)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to store the layers; a temporary folder if not given")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))

    sentences = wnut_sentences(options.sentences)
    tokenizer = hf_elmo.ElmoTokenizer.create()
    encoded = tokenizer(sentences, is_split_into_words=True)
    dataset = Dataset.from_dict({**encoded, "labels": [[0] * len(ids) for ids in encoded["input_ids"]]})
    words = sum(map(len, encoded["input_ids"]))
    model = hf_elmo.ElmoModel(hf_elmo.ElmoConfig.from_preset(options.preset)).eval()
    collate = DataCollatorForTokenClassification(tokenizer)
    # In an order of training: batches of any lengths, rows from all over the file.
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1)).tolist()
    parts = [order[start : start + options.batch] for start in range(0, len(order), options.batch)]
    batches = [collate(dataset.__getitems__(part)) for part in parts]

    def compute():
        with torch.inference_mode():
            for batch in batches:
                model.read(batch["character_ids"], batch["attention_mask"] != 0, batch["token_type_ids"])

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        stores, building, sizes = {}, {}, {}
        for dtype in ("float32", "float16"):
            before = set(folder.glob("*.arrow"))
            start = time.perf_counter()
            stores[dtype] = hf_elmo.precompute_layers(dataset, model, folder, dtype=dtype)
            building[dtype] = time.perf_counter() - start
            sizes[dtype] = sum(path.stat().st_size for path in set(folder.glob("*.arrow")) - before)

        def read(source):
            for part in parts:
                collate(source.__getitems__(part))

        compute()
        rounds = []
        for _ in range(options.rounds):
            seconds = {"compute": timed(compute)}
            seconds |= {dtype: timed(lambda store=store: read(store)) for dtype, store in stores.items()}
            seconds["characters"] = timed(lambda: read(dataset))
            seconds["find"] = timed(lambda: hf_elmo.precompute_layers(dataset, model, folder))
            rounds.append(seconds)

    def median(name):
        return statistics.median(seconds[name] for seconds in rounds)

    print(f"{options.preset}: {len(dataset)} sentences, {words} words with boundaries, batches of {options.batch},")
    print(f"{torch.get_num_threads()} thread(s), {options.rounds} rounds; medians (least to most):")
    for name, title in [
        ("compute", "compute with the biLM"),
        ("float32", "read and collate, float32"),
        ("float16", "read and collate, float16"),
        ("characters", "read and collate characters (no biLM)"),
        ("find", "find the store again (hashes, no biLM)"),
    ]:
        times = sorted(seconds[name] for seconds in rounds)
        line = f"  {title:<40} {1e3 * median(name):9.1f} ms ({1e3 * times[0]:.1f} to {1e3 * times[-1]:.1f})"
        if name in stores:
            ratios = sorted(seconds["compute"] / seconds[name] for seconds in rounds)
            line += f", {statistics.median(ratios):.1f} x less ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(line)
    for dtype, seconds in building.items():
        found = "" if sizes[dtype] else " (it was there already)"
        print(f"  building the {dtype} store: {seconds:.2f} s, {sizes[dtype] / words:.0f} bytes per word{found}")


if __name__ == "__main__":
    main()
