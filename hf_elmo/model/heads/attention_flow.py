"""Attention between a question and its context, and of a context to itself, as in the paper's model for SQuAD."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TrilinearSimilarity(nn.Module):
    """How alike two words are: ``w_1 . x + w_2 . y + w_3 . (x * y)`` (Seo et al. 2017, equation 1).

    Written as three products, so that no tensor of ``(rows, columns, dim)`` arises.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.row_weight = nn.Parameter(torch.empty(dim))
        self.column_weight = nn.Parameter(torch.empty(dim))
        self.product_weight = nn.Parameter(torch.empty(dim))

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """``(batch, rows, dim)`` and ``(batch, columns, dim)`` to ``(batch, rows, columns)``."""
        own = (rows @ self.row_weight).unsqueeze(2) + (columns @ self.column_weight).unsqueeze(1)
        return own + (rows * self.product_weight) @ columns.transpose(1, 2)


class AttentionFlow(nn.Module):
    """Attention in both directions between a context and a question (BiDAF; Seo et al. 2017, section 2, layer 4).

    Args:
        dim: Size of a word's vector.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.similarity = TrilinearSimilarity(dim)
        self.output_size = 4 * dim

    def forward(self, context: Tensor, question: Tensor, context_mask: Tensor, question_mask: Tensor) -> Tensor:
        """Reads the context with the question in mind.

        Args:
            context: ``(batch, context words, dim)``.
            question: ``(batch, question words, dim)``.
            context_mask: ``(batch, context words)``, bool: true for words; at least one per row.
            question_mask: ``(batch, question words)``, likewise.

        Returns:
            ``(batch, context words, 4 * dim)``: per word of the context its vector ``h``, its view ``u`` of the
            question (context to query), ``h * u``, and ``h * v``, where ``v`` is the context as the question sees it,
            one vector for all words (query to context). Rows of padding hold numbers without meaning.
        """
        scores = _without(self.similarity(context, question), ~question_mask.unsqueeze(1))
        to_question = _softmax(scores, question.dtype) @ question
        best = _without(scores.amax(dim=2), ~context_mask)
        to_context = _softmax(best, context.dtype).unsqueeze(1) @ context
        return torch.cat([context, to_question, context * to_question, context * to_context], dim=-1)


class SelfAttention(nn.Module):
    """A context's attention to itself, added to what goes in (Clark & Gardner 2017, section 3.1, "Self-Attention").

    Memory and time grow with the square of the context's length.

    Args:
        dim: Size of a word's vector.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.similarity = TrilinearSimilarity(dim)
        self.output = nn.Linear(3 * dim, dim)

    def forward(self, context: Tensor, mask: Tensor) -> Tensor:
        """Reads each word with all others in mind.

        Args:
            context: ``(batch, words, dim)``.
            mask: ``(batch, words)``, bool: true for words.

        Returns:
            ``(batch, words, dim)``.
        """
        itself = torch.eye(context.shape[1], dtype=torch.bool, device=context.device)
        hidden = itself.unsqueeze(0) | ~mask.unsqueeze(1)
        # A word that is alone has nothing to see: its row of weights would otherwise be even over padding.
        alone = hidden.all(dim=2, keepdim=True)
        weights = _softmax(_without(self.similarity(context, context), hidden), context.dtype).masked_fill(alone, 0)
        seen = weights @ context
        return context + torch.relu(self.output(torch.cat([context, seen, context * seen], dim=-1)))


def _without(scores: Tensor, hidden: Tensor) -> Tensor:
    # Not minus infinity: a row that is hidden as a whole must not become NaN.
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


def _softmax(scores: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(dtype)
