"""A published ELMo to a model folder with a card, checked, and to the hub.

    python examples/convert_and_publish.py elmo_2x1024_128_2048cnn_1xhighway_weights.hdf5 my-elmo --repo user/my-elmo

The options.json must be beside the weights. Without --push only the list of files is printed and nothing is sent.
--push needs a token (`hf auth login`). Without arguments the bundled model is first written in the original format.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from transformers import AutoModel, AutoTokenizer

import hf_elmo
from hf_elmo.conversion import convert_from_folder, convert_to_folder, load_bilm
from hf_elmo.hub.model_card import check_card
from hf_elmo.hub.upload import upload
from hf_elmo.hub.upload_files import files_for_hub


def same_numbers(first, second, tokenizer) -> bool:
    """Whether two models give the same vectors, bit for bit."""
    sentences = ["A sentence to compare.", "And another one?"]
    pairs = zip(*(hf_elmo.embed_sentences(model, tokenizer, sentences, "all") for model in (first, second)))
    return all(np.array_equal(one.vectors, two.vectors) for one, two in pairs)


def main(arguments: list[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="weights in HDF5, their folder or their zip")
    parser.add_argument("folder", nargs="?", default="my-elmo", help="the new model folder")
    parser.add_argument("--published", help="name of the published model, for its card (pt-brwac, ja ...)")
    parser.add_argument("--repo", default="user/my-elmo", help="the repository on the hub")
    parser.add_argument("--push", action="store_true", help="send it")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as work:
        source = options.source or str(Path(work) / "hdf5")
        if options.source is None:
            convert_from_folder(hf_elmo.bundled(), source)
        convert_to_folder(source, options.folder, published=options.published)
        original, _ = load_bilm(source)

    tokenizer = AutoTokenizer.from_pretrained(options.folder)
    model = AutoModel.from_pretrained(options.folder)
    print("same numbers as the original file:", same_numbers(original.eval(), model.eval(), tokenizer))

    # Conversion has written a card that names the source files; edit it before a push.
    check_card(Path(options.folder) / "README.md")
    files = files_for_hub(Path(options.folder), options.repo)
    for file in files:
        print(f"{file.size:12,}  {file.name}  ({file.origin})")
    if options.push:
        print(upload(files, options.repo).repo_url)
    else:
        print(f"not sent to {options.repo}: give --push")
    return [file.name for file in files]


if __name__ == "__main__":
    main()
