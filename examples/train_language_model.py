"""A biLM from scratch: train it, measure its perplexity, let it write.

    python examples/train_language_model.py corpus.txt --output my-elmo --steps 2000

The corpus is UTF-8 text, plain or .gz. An interrupted training continues with --resume. `hf-elmo train` has all options
of training; `AutoModel.from_pretrained("my-elmo")` then gives vectors.
"""

import argparse
from pathlib import Path

from transformers import AutoModelForPreTraining, AutoTokenizer

import hf_elmo

CORPUS = Path(__file__).parent / "data" / "corpus.txt"


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="*", default=[str(CORPUS)])
    parser.add_argument("--held-out", type=Path, default=CORPUS, help="text for perplexity, a sentence per line")
    parser.add_argument("--output", default="my-elmo", help="folder for the model and its checkpoints")
    parser.add_argument("--steps", type=int, default=100, help="updates of the weights")
    parser.add_argument("--vocabulary-size", type=int, default=1000, help="words that the model learns to predict")
    parser.add_argument("--cell-size", type=int, default=128, help="of the LSTMs; 4096 in the paper")
    parser.add_argument("--projection", type=int, default=32, help="numbers per word and direction; 512 in the paper")
    parser.add_argument("--rows", type=int, default=8, help="sentences or rows in a batch")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    options = parser.parse_args(arguments)

    config = hf_elmo.ElmoConfig(
        char_embed_dim=16,
        filters=[[1, 16], [2, 16], [3, 32], [4, 32]],  # width and number of the character CNN's filters
        num_highway_layers=1,
        cell_size=options.cell_size,
        projection_dim=options.projection,
    )
    hf_elmo.train(
        options.corpus,
        options.output,
        config,
        vocabulary_size=options.vocabulary_size,
        resume=options.resume,
        carry_state=False,  # each sentence on its own, as vectors are computed later
        per_device_train_batch_size=options.rows,
        max_steps=options.steps,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        logging_steps=50,
        save_steps=500,
    )

    tokenizer = AutoTokenizer.from_pretrained(options.output)
    model = AutoModelForPreTraining.from_pretrained(options.output).eval()
    texts = [line.strip() for line in options.held_out.read_text(encoding="utf-8").splitlines() if line.strip()]
    result = hf_elmo.perplexity(model, tokenizer, texts)
    print(f"perplexity: {result.forward:.1f} forward, {result.backward:.1f} backward")
    print("it writes: The", *hf_elmo.generate(model, tokenizer, "The", max_words=12))
    return result.mean


if __name__ == "__main__":
    main()
