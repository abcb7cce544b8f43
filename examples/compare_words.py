"""One word in several sentences: how near are its vectors?

    python examples/compare_words.py --word read "I read it yesterday." "Can you read it now?" "It is a good read."

Prints the cosine of every pair of sentences. Vectors of one use of the word are nearer to each other than to those of
another use.
"""

import argparse

import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

import hf_elmo

SENTENCES = [
    "Yesterday I read the whole book.",
    "She read his letter and burned it.",
    "Can you read the letter now?",
    "The novel is a good read.",
]


def main(arguments: list[str] | None = None) -> torch.Tensor:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="texts that contain the word")
    parser.add_argument("--word", default="read")
    parser.add_argument("--model", default=hf_elmo.bundled(), help="a model folder")
    parser.add_argument("--layer", type=int, help="0 is without context; default: the mix of all layers")
    options = parser.parse_args(arguments)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model)
    layers = "mix" if options.layer is None else "all"
    found = []
    for sentence, embedded in zip(
        options.sentences, hf_elmo.embed_sentences(model, tokenizer, options.sentences, layers=layers)
    ):
        if options.word not in embedded.words:
            parser.error(f"{options.word!r} is not a word of {sentence!r}, whose words are {embedded.words}")
        # (words, dim), or (layers, words, dim) of all layers.
        vectors = embedded.vectors if options.layer is None else embedded.vectors[options.layer]
        found.append(torch.from_numpy(vectors[embedded.words.index(options.word)]))

    unit = F.normalize(torch.stack(found), dim=-1)
    cosines = unit @ unit.T
    for sentence, row in zip(options.sentences, cosines):
        print(" ".join(f"{value:6.3f}" for value in row), " ", sentence)
    return cosines


if __name__ == "__main__":
    main()
