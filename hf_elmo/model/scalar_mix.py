"""The learned weighted sum of the biLM's layers (Peters et al. 2018, equation 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScalarMix(nn.Module):
    """``gamma * sum_k softmax(weights)_k * layer_k``: equal weights and gamma 1 before training.

    Args:
        num_layers: Number of layers to mix, the word layer included.
        do_layer_norm: Normalise each layer first, with one mean and one variance over all words of the batch (without
            scale and shift, as AllenNLP's `ScalarMix`; BOS and EOS count as words). The result for a sentence then
            depends on its batch.
        initial_weights: Weights before the softmax to start from; zeros if None.
    """

    def __init__(self, num_layers: int, do_layer_norm: bool = False, initial_weights: Sequence[float] | None = None):
        super().__init__()
        self.do_layer_norm = do_layer_norm
        self.initial_weights = [float(w) for w in initial_weights or [0] * num_layers]
        self.weights = nn.Parameter(torch.tensor(self.initial_weights))
        self.gamma = nn.Parameter(torch.ones(1))

    def layer_weights(self) -> Tensor:
        """``(num_layers,)``, before the softmax."""
        return self.weights

    def forward(self, layers: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Mixes the layers.

        Args:
            layers: `num_layers` tensors ``(batch, words, dim)``.
            mask: ``(batch, words)``, true for words; needed with `do_layer_norm` only.

        Returns:
            ``(batch, words, dim)``.

        Raises:
            ValueError: if there are more or fewer layers than weights, or the mask is missing.
        """
        weights = self.layer_weights()
        if len(layers) != len(weights):
            raise ValueError(f"This mix has weights for {len(weights)} layers, but was given {len(layers)}.")
        if self.do_layer_norm:
            if mask is None:
                raise ValueError("A scalar mix with do_layer_norm needs the mask of words.")
            layers = [_normalize(layer, mask) for layer in layers]
        shares = torch.softmax(weights, dim=0)
        mixed = sum(share * layer for share, layer in zip(shares, layers, strict=True))
        return self.gamma * mixed


def _normalize(layer: Tensor, mask: Tensor) -> Tensor:
    """One mean and one variance over all elements of all words, as AllenNLP (`eps` 1e-12 inside the root).

    Padding stays zero, where AllenNLP shifts it as well.
    """
    # A batch has more elements than float16 can count.
    exact = layer.to(torch.promote_types(layer.dtype, torch.float32))
    kept = mask.to(exact.dtype).unsqueeze(-1)
    count = (kept.sum() * exact.shape[-1]).clamp(min=1)
    mean = (exact * kept).sum() / count
    variance = (((exact - mean) * kept) ** 2).sum() / count
    return ((exact - mean) * kept / torch.sqrt(variance + 1e-12)).to(layer.dtype)
