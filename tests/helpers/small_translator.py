"""Small models that write, their two tokenizers, and pairs of sentences."""

import torch
from small_models import fill, small_config
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel

from hf_elmo import (
    ElmoEncoderDecoderModel,
    ElmoEncoderDecoderTokenizer,
    ElmoModel,
    ElmoTokenizer,
    train_target_tokenizer,
)

SOURCES = [
    "A dog runs .",
    "Two cats sat on the red mat and slept .",
    "Birds sing",
    "No , a fish does not bark at all .",
]
TARGETS = ["Ein Hund rennt .", "Zwei Katzen .", "Vögel singen heute laut", "Nein , ein Fisch bellt gar nicht ."]
# Ids of the target tokenizers of these tests.
IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def target_tokenizer():
    return train_target_tokenizer(TARGETS, vocab_size=300)


def two_tokenizers():
    return ElmoEncoderDecoderTokenizer(ElmoTokenizer.create(), target_tokenizer())


def small_elmo(seed=0, **fields):
    """An ElmoModel of 2 x 5; its layers are of order 1."""
    return fill(
        ElmoModel(small_config(**{"max_characters_per_token": 50, "representation_dropout": 0.0, **fields})), seed
    )


def small_decoder(kind="gpt2", vocab_size=300, positions=48, seed=0, **fields):
    """A decoder of one layer of 16 with cross-attention, whose weights are large enough to write different texts."""
    torch.manual_seed(seed)
    common = {"vocab_size": vocab_size, "add_cross_attention": True, **IDS}
    if kind == "gpt2":
        sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": positions}
        dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        model = GPT2LMHeadModel(GPT2Config(**{**common, **sizes, **dropouts, **fields}))
    else:
        sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
        sizes |= {"max_position_embeddings": positions, "is_decoder": True}
        dropouts = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
        model = BertLMHeadModel(BertConfig(**{**common, **sizes, **dropouts, **fields}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                # What is read of the source is to outweigh the tokens before.
                parameter.mul_(60 if "crossattention" in name else 15)
    return model.eval()


def small_translator(kind="gpt2", elmo_fields=(), **fields):
    """An `ElmoEncoderDecoderModel` with random weights, in evaluation mode."""
    torch.manual_seed(1)
    return ElmoEncoderDecoderModel(
        encoder=small_elmo(**dict(elmo_fields)), decoder=small_decoder(kind, **fields)
    ).eval()


def save_translator(folder, **fields):
    """Saves a model and its tokenizers; returns the folder."""
    small_translator(**fields).save_pretrained(folder)
    two_tokenizers().save_pretrained(folder)
    return folder
