"""What a comparison reads: models of the published sizes with random weights, and real English sentences.

    python -m benchmarks.harness.material FOLDER [--sizes original small] [--text FILE]

makes `FOLDER/SIZE/hdf5` (the original format: what peers read), `FOLDER/SIZE/fp32` and `FOLDER/SIZE/bf16` (model
folders), all of the same numbers, and `FOLDER/sentences.json`. What is there already stays.

The weights are random, from one seed, so that nothing has to be downloaded: how fast a model reads does not depend on
them. The LSTMs' are scaled up, as freshly initialised ones have activations too small to tell right from wrong.

The sentences have 5 to 60 words and stand in the order of the text, as it is a text's own repetitions that a program
may profit from. The text is `lm/wikinews_en/valid.txt.gz` in the folder named by HF_ELMO_SHARED_DATA or in
`../shared/data`, or the one given by --text: a paragraph per line, plain or .gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from .data import shared_data

SIZES = ("original", "small")
SHORTEST, LONGEST = 5, 60
#: Factor of the LSTMs' weights behind their initialisation.
SCALE = 2.2


def make_model(folder: Path, config) -> None:
    """Writes a model with random weights in all the formats.

    Args:
        folder: Gets the folders `hdf5`, `fp32` and `bf16`.
        config: An `ElmoConfig`.
    """
    import torch

    from hf_elmo import ElmoModel, ElmoTokenizer
    from hf_elmo.conversion import load_bilm, save_bilm
    from hf_elmo.whole_files import new_folder

    if folder.exists():
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = ElmoModel(config)
        for name, parameter in model.named_parameters():
            if name.startswith("bilstm.") and "weight" in name:
                parameter.mul_(SCALE)
    with new_folder(folder) as partial:
        save_bilm(model, partial / "hdf5")
        options = json.loads((partial / "hdf5" / "options.json").read_text(encoding="utf-8"))
        # Peers want the number of reading, not that of training.
        options["char_cnn"]["n_characters"] = 262
        (partial / "hdf5" / "options.json").write_text(json.dumps(options), encoding="utf-8")
        model, _ = load_bilm(partial / "hdf5")
        for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            model.to(dtype).save_pretrained(partial / kind)
            ElmoTokenizer.create().save_pretrained(partial / kind)


def make_sentences(path: Path, text: Path) -> None:
    """Writes the sentences of a text as lists of words.

    Args:
        path: The JSON file.
        text: The text file.

    Raises:
        ValueError: for a text without any sentence.
    """
    from nupunkt import sent_tokenize

    from hf_elmo import ElmoTokenizer
    from hf_elmo.whole_files import new_file

    if path.exists():
        return
    tokenizer = ElmoTokenizer.create()
    opened = gzip.open if text.suffix == ".gz" else open
    with opened(text, "rt", encoding="utf-8") as file:
        sentences = [
            words
            for line in file
            for sentence in sent_tokenize(line)
            if SHORTEST <= len(words := tokenizer.tokenize(sentence)) <= LONGEST
        ]
    if not sentences:
        raise ValueError(f"{text} has no sentence of {SHORTEST} to {LONGEST} words.")
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(sentences), encoding="utf-8")


def default_text() -> Path:
    """The text that sentences are taken from, whether it is there or not."""
    return shared_data("lm", "wikinews_en", "valid.txt.gz")


def main(arguments: list[str] | None = None) -> None:
    from hf_elmo import ElmoConfig

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="presets, or JSON objects of ElmoConfig's fields")
    parser.add_argument("--text", type=Path, default=default_text())
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.text.is_file():
        raise SystemExit(f"There is no text {options.text}: name one by --text, or its folder by HF_ELMO_SHARED_DATA.")
    make_sentences(options.folder / "sentences.json", options.text)
    for size in options.sizes:
        make_model(options.folder / size, ElmoConfig.from_preset(size))


if __name__ == "__main__":
    main()
