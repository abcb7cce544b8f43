"""The convolutions of the character CNN in training on a CPU: one product for all filters, forward and backward.

In plain operations every filter is computed at every place of words that are all as long as the longest one, all of
that is kept, and each maximum hands a gradient back to all those places. Here words are taken in the order of their
length, some at a time, and all that is kept is where each filter's maximum is: other windows have no gradient. Where a
filter is at its maximum in several windows the first one gets the gradient, which plain operations share among them.
Such windows nearly always have the same characters, and then it is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

#: The number of words whose convolutions are computed at once.
WORDS_AT_ONCE = 64


def in_order_of_length(rows: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Which words to take at once, and how many characters the longest of them has.

    Behind its last character that differs a row only repeats one, the padding of words.

    Args:
        rows: ``(words, chars)``.
    """
    places = torch.arange(1, rows.shape[1] + 1)
    used = ((rows != rows[:, -1:]) * places).amax(dim=1)
    for some in used.argsort().split(WORDS_AT_ONCE):
        yield some, int(used[some[-1]])


def maxima_of_filters(rows: Tensor, characters: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The maximum of each filter over the windows of each word: ``(words, filters)``.

    Args:
        rows: Words as rows of characters, ``(words, chars)``, int64.
        characters: Their embeddings ``(words, chars, char_embed_dim)``, float32 or float64, as all others.
        weights: Of each convolution ``(filters, char_embed_dim, width)``.
        biases: Of each ``(filters,)``.
    """
    widest = max(weight.shape[2] for weight in weights)
    # A window of the widest filter contains those of the others.
    filled = [F.pad(weight, (0, widest - weight.shape[2])).transpose(1, 2).flatten(1) for weight in weights]
    widths = [(len(weight), weight.shape[2]) for weight in weights]
    found: Tensor = _Maxima.apply(rows, characters, torch.cat(filled), torch.cat(list(biases)), widths)
    return found


class _Context(FunctionCtx):
    """What the pass forward leaves for the pass backward."""

    widths: list[tuple[int, int]]
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _Maxima(torch.autograd.Function):
    """`maxima_of_filters` with filters that are all as wide as the widest, ``(filters, width * char_embed_dim)``."""

    @staticmethod
    def forward(
        ctx: _Context, rows: Tensor, characters: Tensor, weight: Tensor, bias: Tensor, widths: list[tuple[int, int]]
    ) -> Tensor:
        maxima = weight.new_empty(len(rows), len(weight))
        places = torch.empty(len(rows), len(weight), dtype=torch.int32)
        for some, windows, outside in _windows(rows, characters, widths):
            values = (windows.flatten(0, 1) @ weight.t()).unflatten(0, windows.shape[:2])
            if outside is not None:
                values[:, -len(outside) :].masked_fill_(outside, -torch.inf)
            found, place = values.max(dim=1)
            maxima[some] = found.add_(bias)
            places[some] = place.int()
        ctx.widths = widths
        ctx.save_for_backward(rows, characters, weight, places)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_maxima,) = gradients
        rows, characters, weight, places = ctx.saved_tensors
        _, of_characters, of_weight, of_bias, _ = ctx.needs_input_grad
        d_characters = torch.zeros_like(characters) if of_characters else None
        d_weight = torch.zeros_like(weight) if of_weight else None
        widest = max(width for _, width in ctx.widths)
        for some, windows, _ in _windows(rows, characters, ctx.widths):
            words, count = windows.shape[:2]
            d_values = weight.new_zeros(words, count, len(weight))
            d_values.scatter_(1, places[some].long().unsqueeze(1), of_maxima[some].unsqueeze(1))
            d_values = d_values.flatten(0, 1)
            if d_weight is not None:
                d_weight.addmm_(d_values.t(), windows.flatten(0, 1))
            if d_characters is not None:
                d_windows = (d_values @ weight).view(words, count, widest, -1)
                of_some = characters.new_zeros(words, count + widest - 1, characters.shape[2])
                for place in range(widest):
                    of_some[:, place : place + count] += d_windows[:, :, place]
                # What lies behind a row was added to it, and is nobody's.
                seen = min(of_some.shape[1], characters.shape[1])
                d_characters[some, :seen] = of_some[:, :seen]
        return None, d_characters, d_weight, of_maxima.sum(dim=0) if of_bias else None, None


def _windows(
    rows: Tensor, characters: Tensor, widths: list[tuple[int, int]]
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """The windows of the widest filter, of some words at a time.

    Yields:
        Which words; their windows ``(words, windows, width * char_embed_dim)``; and, where the last of them reach
        behind the rows, at which of those that is so for which filter, ``(last windows, filters)``.
    """
    widest, chars = max(width for _, width in widths), rows.shape[1]
    for some, longest in in_order_of_length(rows):
        # Of the windows that see nothing but the last character, repeated, one is as good as many.
        seen, outside = characters[some, : longest + widest], None
        if longest + widest > chars:
            seen = F.pad(seen, (0, 0, 0, widest - 1))
            last = torch.cat([torch.full((count,), chars - width) for count, width in widths])
            outside = torch.arange(chars - widest + 1, chars).unsqueeze(1) > last
        yield some, seen.unfold(1, widest, 1).transpose(2, 3).flatten(2), outside
