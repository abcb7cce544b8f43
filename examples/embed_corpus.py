"""A file of sentences to a file of vectors.

    python examples/embed_corpus.py corpus.txt vectors.npz --layers mix

A line is a sentence. The output's format follows its name: .npz, .safetensors, .hdf5 or .parquet. Sentences are read,
embedded and written in windows, so the corpus may be larger than memory. `hf-elmo embed` does the same.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoModel, AutoTokenizer

import hf_elmo
from hf_elmo.vectors.files import open_vector_file

CORPUS = Path(__file__).parent / "data" / "corpus.txt"


def sentences(path: Path, is_split: bool) -> Iterator[str | list[str]]:
    """The lines of a file that are not blank, as texts or as lists of words."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield line.split() if is_split else line.strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", default=CORPUS, help="UTF-8 text, a sentence per line")
    parser.add_argument("output", type=Path, nargs="?", default=Path("vectors.npz"), help="a new file")
    parser.add_argument("--model", default=hf_elmo.bundled(), help="a model folder")
    parser.add_argument("--layers", choices=("mix", "top", "average", "all"), default="mix")
    parser.add_argument("--pretokenized", action="store_true", help="words are separated by white space")
    parser.add_argument("--batch-words", type=int, default=2048, help="most words in a batch")
    options = parser.parse_args(arguments)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model)
    num_layers = model.config.num_layers + 1 if options.layers == "all" else None
    texts = sentences(options.corpus, options.pretokenized)
    words = 0
    # The file gets its name at the end of the block, when it is complete.
    with open_vector_file(options.output, dim=model.config.hidden_size, num_layers=num_layers) as writer:
        for embedded in hf_elmo.embed_sentences(
            model, tokenizer, texts, layers=options.layers, batch_words=options.batch_words
        ):
            writer.write(embedded)
            words += len(embedded.words)
            for word in embedded.truncated_words:
                print(f"longer than the model reads: {word[:60]}...")
    print(f"{options.output}: {writer.count} sentences, {words} words")
    return words


if __name__ == "__main__":
    main()
