"""A word vocabulary of another size: rows for new words, or none any more for the last ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

# `[PAD]`, `[UNK]`, `<S>` and `</S>` stand before all words.
_NUM_SPECIAL_WORDS = 4


def resize_word_vocabulary(
    model: PreTrainedModel, tables: Sequence[nn.Module], num_words: int, mean_resizing: bool = True
) -> None:
    """Gives a model a word vocabulary of another size.

    New words come last, which makes them the least frequent ones for a sampled softmax. Parameters of embeddings stay
    the same objects; those of linear layers are new.

    Args:
        model: The model, whose `config.vocab_size` is set.
        tables: What has a row for each word: embeddings, and linear layers. They are changed in place.
        num_words: Words of the vocabulary, special words included.
        mean_resizing: Draw new rows around the mean of the old ones, rather than as those of a fresh layer.

    Raises:
        ValueError: for a number that is not at least that of the special words, and for tables that cannot be resized;
            nothing is changed then.
    """
    if isinstance(num_words, bool) or not isinstance(num_words, int) or num_words < _NUM_SPECIAL_WORDS:
        raise ValueError(
            f"A word vocabulary has at least {_NUM_SPECIAL_WORDS} words, the special ones, but {num_words!r} was given"
            ": give len(tokenizer)."
        )
    for table in tables:
        if not isinstance(table, (nn.Embedding, nn.Linear)):
            raise ValueError(
                f"The rows of words are within an adapter ({type(table).__name__}), and cannot be resized: do that "
                "before the adapter is added, or after merge_and_unload()."
            )
        if table.weight.is_meta:
            raise ValueError(
                "The rows of words are offloaded, and cannot be resized there: load the model without device_map, or "
                "with one that keeps them in memory."
            )
    for table in tables:
        is_trained = table.weight.requires_grad
        if isinstance(table, nn.Embedding):
            model._get_resized_embeddings(table, num_words, mean_resizing=mean_resizing)
        else:
            # A plain linear layer comes back, and ours is to keep its class.
            resized = model._get_resized_lm_head(table, num_words, mean_resizing=mean_resizing)
            table.weight, table.bias, table.out_features = resized.weight, resized.bias, num_words
        table.requires_grad_(is_trained)
    # Vectors of words that a model looks up would outlive the rows that they were computed from.
    model.base_model.character_encoder.cache = None
    model.config.vocab_size = num_words
