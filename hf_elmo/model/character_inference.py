"""The character CNN on a CPU, when nothing is to be learned: one matrix product for all convolutions.

A window of the widest filter holds those of the others, so with their weights filled up with zeros all convolutions are
one product (for the published sizes with 17 % more arithmetic, as the widest filter is the most numerous). Words are
taken in order of their length, some at a time: so that a long one makes few others long, and the windows' features stay
in the cache until the maximum is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from .matrix_products import Fingerprint, has_onednn, linear, packed_product, plain_product

if TYPE_CHECKING:
    from .character_encoder import CharacterEncoder

logger = logging.get_logger(__name__)

# Words whose convolutions are computed at once.
_WORDS_AT_ONCE = 64
# So much more arithmetic may the filling with zeros make.
_MOST_FILLING = 1.5
_LEARNED = "gradients are recorded"

# For each encoder the product of its filters, and what that was made of. Outside of the modules, so that it is never
# saved, moved or copied with them.
_packed: WeakKeyDictionary[nn.Module, tuple[Fingerprint, Callable[[Tensor], Tensor]]] = WeakKeyDictionary()


def encodes_for_inference(encoder: CharacterEncoder, rows: Tensor) -> bool:
    """Whether `encode_for_inference` serves for these rows: on a CPU, with nothing to learn, and plain layers."""
    if rows.device.type != "cpu" or not len(rows) or torch.compiler.is_compiling():
        return False
    reason = _why_not(encoder)
    if reason is None:
        logger.info_once("The character CNN of words that are only read is one product for all its filters.")
    elif reason != _LEARNED:
        logger.info_once(f"The character CNN is computed filter by filter: {reason}.")
    return reason is None


def _why_not(encoder: CharacterEncoder) -> str | None:
    """Why words on a CPU are not encoded in the quick way; None if they are."""
    parameters = list(encoder.parameters())
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        return _LEARNED
    if torch.is_autocast_enabled("cpu"):
        return "autocast is at work"
    if any(parameter.is_inference() or parameter.is_meta for parameter in parameters):
        return "its weights are inference tensors, or elsewhere"
    exact = sum(convolution.weight.numel() for convolution in encoder.convolutions)
    filled = _widest(encoder) * encoder.char_embedding.embedding_dim * sum(c.out_channels for c in encoder.convolutions)
    if filled > _MOST_FILLING * exact:
        return "its filters are too unlike in width for one product"
    return None if all(map(_is_bare, encoder.modules())) else "there is an adapter, a hook or a class of another's"


def _is_bare(module: nn.Module) -> bool:
    """Whether a module computes what its class says: no adapter, no offloading, no hook."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__) and (
        module.__class__.__module__.startswith("torch.nn.modules.")
        or module.__class__.__name__ in ("CharacterEncoder", "Highway", "Int8Linear", "ScaledLinear")
    )


def encode_for_inference(encoder: CharacterEncoder, rows: Tensor, word_ids: Tensor | None = None) -> Tensor:
    """What `CharacterEncoder.encode` computes, within rounding: ``(words, chars)`` to ``(words, projection_dim)``.

    Args:
        encoder: The encoder.
        rows: ``(words, chars)``, int64.
        word_ids: ``(words,)``, int64, with a word embedding.
    """
    with torch.no_grad():
        x = _features(encoder, rows)
        for highway in encoder.highways:
            gate = _apply(highway.carry, x).sigmoid_()
            x = _apply(highway.transform, x).relu_().sub_(x).mul_(gate).add_(x)
        if encoder.word_embedding is not None:
            x = torch.cat([encoder.word_embedding(word_ids), x], dim=-1)
        return x if encoder.projection is None else _apply(encoder.projection, x)


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)


def _features(encoder: CharacterEncoder, rows: Tensor) -> Tensor:
    """Convolutions, maximum and activation: ``(words, chars)`` to ``(words, filters)``."""
    widest, chars = _widest(encoder), rows.shape[1]
    # Behind its last character that differs a row only repeats one (the padding of words); of the windows that see
    # nothing else one is as good as many.
    places = torch.arange(1, chars + 1)
    used = ((rows != rows[:, -1:]) * places).amax(dim=1)
    order = used.argsort()
    filters = _filters(encoder)
    features = encoder.char_embedding.weight.new_empty(len(rows), sum(c.out_channels for c in encoder.convolutions))
    for some in order.split(_WORDS_AT_ONCE):
        length = int(used[some[-1]]) + widest
        if length <= chars:
            embedded = F.embedding(rows[some, :length], encoder.char_embedding.weight)
            windows = embedded.unfold(1, widest, 1).transpose(2, 3).flatten(2)
            found = filters(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).amax(dim=1)
        else:
            # A window of the widest filter would not fit behind the last one of the others.
            embedded = encoder.char_embedding(rows[some]).transpose(1, 2)
            found = torch.cat([convolution(embedded).amax(dim=-1) for convolution in encoder.convolutions], dim=-1)
        features[some] = encoder.activation(found)
    return features


def _filters(encoder: CharacterEncoder) -> Callable[[Tensor], Tensor]:
    """All convolutions of windows: ``(windows, widest * char_embed_dim)`` to ``(windows, filters)``."""
    made_of = Fingerprint(parameter for convolution in encoder.convolutions for parameter in convolution.parameters())
    kept = _packed.get(encoder)
    if kept is not None and kept[0] == made_of:
        return kept[1]
    widest = _widest(encoder)
    with torch.no_grad():
        weights = [F.pad(c.weight, (0, widest - c.kernel_size[0])).transpose(1, 2) for c in encoder.convolutions]
        weight = torch.cat(weights).flatten(1)
        bias = torch.cat([c.bias for c in encoder.convolutions])
    product = (packed_product if has_onednn(weight) else plain_product)(weight)

    def filters(windows: Tensor) -> Tensor:
        return product(windows).add_(bias)

    _packed[encoder] = made_of, filters
    return filters


def _widest(encoder: CharacterEncoder) -> int:
    return max(convolution.kernel_size[0] for convolution in encoder.convolutions)
