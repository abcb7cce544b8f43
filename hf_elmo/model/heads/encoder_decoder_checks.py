"""What an `ElmoEncoderDecoderModel` checks before it computes anything, and its loss."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modeling_elmo import loss_divisor

# What the library's decoders call their cross-attention.
_CROSS_ATTENTION = re.compile(r"cross_?att|encoder_att|EncDecAttention", re.IGNORECASE)


def check_encoder(encoder: Any) -> None:
    """Raises ValueError for anything but an `ElmoModel`."""
    # By remote code, the class of an ELMo that was loaded before is another object than ours.
    if getattr(getattr(encoder, "config", None), "model_type", None) != "elmo" or not hasattr(encoder, "scalar_mixes"):
        raise ValueError(
            f"The encoder must be an ElmoModel, was: {type(encoder).__name__}. Of an ELMo with a head, take "
            "model.base_model, or load its folder with ElmoModel.from_pretrained."
        )


def check_cross_attention(decoder: Any) -> None:
    """Raises ValueError for a decoder that cannot attend to a source."""
    name = type(decoder).__name__
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        raise ValueError(
            f"{name} has no cross-attention, so it cannot attend to a source: take a decoder that can have it, such as "
            "GPT2LMHeadModel or BertLMHeadModel."
        )
    if not any(_CROSS_ATTENTION.search(part) for part, _ in decoder.named_modules()):
        raise ValueError(
            f"This {name} was made without cross-attention, so it cannot attend to a source: make it with "
            "add_cross_attention=True in its configuration (for BERT's kind is_decoder=True, too), or load its folder "
            "with ElmoEncoderDecoderModel.from_encoder_decoder_pretrained, which adds it."
        )


# Compiled models leave their graphs here, because it depends on the values whether there is an error. On an accelerator
# the checks would wait for the device.
@torch.compiler.disable
def check_sources(mask: Tensor) -> None:
    """Raises ValueError for a row without words; the mask is ``(batch, words)``."""
    if mask.device.type != "cpu":
        return
    empty = (~mask.bool().any(dim=1)).nonzero()
    if len(empty):
        raise ValueError(
            f"The source in row {int(empty[0])} of the batch has no words (its attention_mask is 0 everywhere): leave "
            "it out."
        )


@torch.compiler.disable
def check_labels(labels: Tensor, vocab_size: int) -> None:
    """Raises ValueError for a label, ``(batch, tokens)``, that is not an id of the decoder."""
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    wrong = labels[(labels != -100) & ((labels < 0) | (labels >= vocab_size))]
    if len(wrong):
        raise ValueError(
            f"A label is {int(wrong[0])}, but the decoder's vocabulary has the ids 0 to {vocab_size - 1} (and -100 for "
            "padding): the target tokenizer is another one than the decoder's. If it has grown, "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def token_loss(logits: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Cross entropy per target, in nats; ``(batch, tokens, vocab_size)`` and ``(batch, tokens)``."""
    labels = labels.to(logits.device)
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"labels are {tuple(labels.shape)}, but there are (batch, tokens) = {tuple(logits.shape[:2])}."
        )
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(exact.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    return total / loss_divisor(num_items, labels.ne(-100).sum())
