"""Entities of WNUT-17 (Derczynski et al. 2017) with a frozen ELMo, beside a character encoder trained from scratch.

    python -m benchmarks.quality.wnut17 --output wnut17.json [--results FILE]

Six types of emerging and rare entities in social media. The biLM is run once over all text; a run of the head then
takes minutes on a laptop. Both models have the same head: the mix, a biLSTM and a CRF. Scores are F1 of whole entities
on `emerging.test.annotated`, counted as the conlleval script does (seqeval's default), in percent: the best sequence
(Viterbi), and the best tag of each word (argmax), which is also counted by the letter of BIO (strict). Mean and
standard deviation are over the seeds. Of 15 epochs the best by Viterbi's F1 on the development set counts; learning
rates were chosen by it as well, for each of the two models.

The data (CC BY 4.0, https://github.com/leondz/emerging_entities_17) is read from the folder given by --data, or
from `ner/wnut17` in the folder of shared data (HF_ELMO_SHARED_DATA, or `../shared/data`).
"""

from __future__ import annotations

from ..harness.data import shared_data
from .tagging import Recipe, parser, run_recipe

FILES = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
DATASET = {"type": "leondz/wnut_17", "name": "WNUT-17"}


def recipe() -> Recipe:
    """One biLSTM layer of 2 x 128, because there is little text to learn from."""
    head = {
        "task_encoder_layers": 1,
        "task_encoder_size": 128,
        "task_dropout": 0.5,
        "representation_dropout": 0.0,
        "use_crf": True,
    }
    return Recipe(
        head=head,
        batch_size=16,
        learning_rate=3e-3,
        baseline_learning_rate=1e-3,
        schedule="linear",
        max_epochs=15,
        patience=15,
    )


def main(arguments: list[str] | None = None) -> dict:
    """Runs the experiment with the options of a command line."""
    options = parser(__doc__.splitlines()[0]).parse_args(arguments)
    if options.data is None:
        options.data = shared_data("ner", "wnut17")
    return run_recipe(options, FILES, recipe(), DATASET, __spec__.name, arguments)


if __name__ == "__main__":
    main()
