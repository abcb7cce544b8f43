"""Entities of CoNLL-2003 with the sizes of the paper (Peters et al. 2018), for those who have the data.

    python -m benchmarks.quality.conll2003 --data FOLDER --model FOLDER --glove glove.6B.50d.txt --output conll2003.json

The sizes are those of AllenNLP's `ner_elmo.jsonnet`, with which its authors report a test F1 of 92.51 (paper: 92.22 ±
0.10): ELMo with an L2 penalty of 0.1 on its mix weights, word vectors of 50 dimensions that are trained further, 128
character convolutions of width 3 over characters of 16 dimensions, two biLSTM layers of 2 x 200, dropout 0.5, a CRF
over BIOES tags, Adam with a learning rate of 0.001, batches of 64, gradients clipped at 5, at most 75 epochs, patience
25. Unlike there a word in capitals has a vector of its own, which starts from that of the word in lower case.

The folder must have `eng.train`, `eng.testa` and `eng.testb`, of four columns parted by spaces, IOB1 or BIO. Scores are
as in `wnut17.py`.
"""

from __future__ import annotations

from .tagging import Recipe, parser, run_recipe

FILES = {"train": "eng.train", "dev": "eng.testa", "test": "eng.testb"}
DATASET = {"type": "eriktks/conll2003", "name": "CoNLL-2003"}


def recipe(glove: str | None = None, glove_size: int = 50) -> Recipe:
    """The paper's sizes; without a file of word vectors there are none."""
    head = {
        "task_encoder_layers": 2,
        "task_encoder_size": 200,
        "task_dropout": 0.5,
        "representation_dropout": 0.0,
        "scalar_mix_l2": 0.1,
        "char_cnn_filters": [[3, 128]],
        "char_cnn_embed_dim": 16,
        "use_crf": True,
    }
    if glove is not None:
        head |= {"word_vector_size": glove_size, "freeze_word_vectors": False}
    return Recipe(head=head, batch_size=64, max_epochs=75, patience=25, word_vectors=glove)


def main(arguments: list[str] | None = None) -> dict:
    """Runs the experiment with the options of a command line."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--glove", help="file of word vectors in the text format of GloVe")
    options.add_argument("--glove-size", type=int, default=50, help="size of its vectors")
    chosen = options.parse_args(arguments)
    if chosen.data is None:
        options.error("--data is needed: CoNLL-2003 cannot be passed on, so it does not come with this project")
    return run_recipe(chosen, FILES, recipe(chosen.glove, chosen.glove_size), DATASET, __spec__.name, arguments)


if __name__ == "__main__":
    main()
