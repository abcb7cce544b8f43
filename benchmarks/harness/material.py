"""What a comparison reads: models of the published sizes with random weights, and real English sentences.

    python -m benchmarks.harness.material FOLDER [--sizes original small] [--text FILE]

makes `FOLDER/SIZE/hdf5` (the original format: what peers read), `FOLDER/SIZE/fp32` and `FOLDER/SIZE/bf16` (model
folders), all of the same numbers, and `FOLDER/sentences.json`. What is there already stays.

The weights are random, from one seed, so that nothing has to be downloaded: how fast a model reads does not depend on
them. The LSTMs' are scaled up, as freshly initialised ones have activations too small to tell right from wrong.

The sentences have 5 to 60 words and stand in the order of the text, as it is a text's own repetitions that a program
may profit from. The text is the one given by --text (a paragraph per line, plain or .gz); or else
`lm/wikinews_en/valid.txt.gz` in the folder named by HF_ELMO_SHARED_DATA or in `../shared/data`; or, where that is not,
the reference of Python's language, which every Python carries (`pydoc_data.topics`). `FOLDER/text.json` says which.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import re
from collections.abc import Iterable, Iterator
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


def make_sentences(path: Path, text: Path | None) -> None:
    """Writes the sentences of a text as lists of words, and beside them what was read.

    Args:
        path: The JSON file. `text.json` in its folder gets a JSON object: `"text"` (a name for people), `"sentences"`
            and `"words"` (how many there are).
        text: The text file; None: Python's own reference.

    Raises:
        ValueError: for a text without any sentence.
    """
    from nupunkt import sent_tokenize

    from hf_elmo import ElmoTokenizer
    from hf_elmo.whole_files import new_file

    if path.exists():
        return
    name = f"the language reference of Python {platform.python_version()}" if text is None else text.name
    tokenizer = ElmoTokenizer.create()
    sentences = [
        words
        for paragraph in (python_paragraphs() if text is None else lines_of(text))
        for sentence in sent_tokenize(paragraph)
        if SHORTEST <= len(words := tokenizer.tokenize(sentence)) <= LONGEST
    ]
    if not sentences:
        raise ValueError(f"{name} has no sentence of {SHORTEST} to {LONGEST} words.")
    read = {"text": name, "sentences": len(sentences), "words": sum(map(len, sentences))}
    for file, content in ((path.with_name("text.json"), read), (path, sentences)):
        with new_file(file) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


def text_of(work: Path) -> dict | None:
    """What `make_sentences` says of the text; None for a folder of before it said so."""
    file = work / "text.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def lines_of(text: Path) -> Iterator[str]:
    """The lines of a text file, plain or .gz."""
    opened = gzip.open if text.suffix == ".gz" else open
    with opened(text, "rt", encoding="utf-8") as file:
        yield from file


def python_paragraphs(topics: Iterable[str] | None = None) -> Iterator[str]:
    """The paragraphs of prose in Python's language reference, one line each, without marks of emphasis.

    Args:
        topics: Texts to read instead. Paragraphs stand between empty lines; indented ones are code or grammar, and
            lines of signs underline a heading.
    """
    if topics is None:
        from pydoc_data.topics import topics as of_python

        topics = [of_python[name] for name in sorted(of_python)]
    for topic in topics:
        for paragraph in re.split(r"\n[ \t]*\n", topic):
            if not paragraph.startswith((" ", "\t")) and not re.search(r"^(\W)\1{2,}$|::=", paragraph, re.MULTILINE):
                yield re.sub(r"[*\"`]", "", " ".join(paragraph.split()))


def default_text() -> Path | None:
    """The text that sentences are taken from; None: Python's own reference, as the shared data is not there."""
    text = shared_data("lm", "wikinews_en", "valid.txt.gz")
    return text if text.is_file() else None


def main(arguments: list[str] | None = None) -> None:
    from hf_elmo import ElmoConfig

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="presets, or JSON objects of ElmoConfig's fields")
    parser.add_argument("--text", type=Path, default=default_text())
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.text is not None and not options.text.is_file():
        raise SystemExit(f"There is no text {options.text}: name another by --text.")
    make_sentences(options.folder / "sentences.json", options.text)
    for size in options.sizes:
        make_model(options.folder / size, ElmoConfig.from_preset(size))


if __name__ == "__main__":
    main()
