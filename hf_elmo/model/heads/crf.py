"""A linear-chain conditional random field (Lafferty et al. 2001) over the tags of a sentence.

pytorch-crf and torchcrf give neither the marginals that our logits are, nor the likelihood of partly labelled chains,
nor constraints; hence this one. Everything is in log space, and every step is normalised, so that rounding does not
grow with the length of the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from ..lstm.packing import Packing
from ..lstm.tracing import is_traced_whole, reading_orders, scan_rows

logger = logging.get_logger(__name__)

# Score of what is forbidden: beyond all scores there are, yet finite, because gradients of infinities are NaN.
IMPOSSIBLE = -1e9

# The lowest log-probability that is returned: its exponential is 0, and float16 can hold it.
LOWEST_LOG_MARGINAL = -1e4


class TagConstraints(NamedTuple):
    """Which tags a chain may begin with, which may follow which (``transitions[before][after]``), and end with."""

    start: tuple[bool, ...]
    transitions: tuple[tuple[bool, ...], ...]
    end: tuple[bool, ...]


@lru_cache(maxsize=64)
def tag_constraints(labels: tuple[str, ...]) -> TagConstraints | None:
    """What the tagging scheme of labels allows: BIO (IOB2), BIOES, or BILOU, which is BIOES in other letters.

    Args:
        labels: The name of each tag: `O`, or a letter and a type as in `B-person`, or the letter alone.

    Returns:
        None where every sequence is allowed: labels without any `B`, such as IO tags or parts of speech.

    Raises:
        ValueError: for labels of which some follow such a scheme and others do not, or that mix two schemes.
    """
    remedy = "Name all labels by one scheme in id2label, or set crf_constraints=False to allow every sequence."
    parts = {label: re.fullmatch(r"([BIESLU])(?:-(.+))?", label) for label in labels if label != "O"}
    letters = {match[1] for match in parts.values() if match}
    if "B" not in letters:
        return None
    kinds: dict[str, tuple[str, str | None]] = {"O": ("O", None)}
    for label, match in parts.items():
        if match is None:
            raise ValueError(f"Some labels are tags of BIO or BIOES, but {label!r} is neither that nor 'O'. {remedy}")
        letter, kind = match.groups()
        if letter in "IEL" and "B" + label[1:] not in parts:
            raise ValueError(
                f"There is a label {label!r} but no {'B' + label[1:]!r}, with which such an entity would begin: labels "
                f"of the scheme IOB1 are to be converted to BIO. {remedy}"
            )
        kinds[label] = {"L": "E", "U": "S"}.get(letter, letter), kind
    if letters & set("ES") and letters & set("LU"):
        raise ValueError(f"The labels mix the letters of BIOES and of BILOU: {', '.join(sorted(letters))}. {remedy}")
    closes = bool(letters & set("ESLU"))
    tags = [kinds[label] for label in labels]
    start = tuple(letter not in "IE" for letter, _ in tags)
    end = tuple(not (closes and letter in "BI") for letter, _ in tags)
    transitions = tuple(tuple(_may_follow(before, after, closes) for after in tags) for before in tags)
    # Labels that leave sentences of some length without any tag sequence, such as B and E alone, are not a scheme.
    always = any(start[tag] and transitions[tag][tag] and end[tag] for tag in range(len(tags)))
    return TagConstraints(start, transitions, end) if always else None


def _may_follow(before: tuple[str, str | None], after: tuple[str, str | None], closes: bool) -> bool:
    """Whether one tag may follow another; `closes`: whether the scheme marks the last word of an entity."""
    inside = before[0] in "BI" and before[1] == after[1]
    if after[0] in "IE":
        return inside
    return not (closes and before[0] in "BI")


class LinearChainCrf(nn.Module):
    """Scores of tag sequences: the emissions of the words, the transitions between them, and a start and an end.

    All methods take the emissions of a padded batch, and find the chains in it: the words that `mask` keeps in a row
    are one, or several if `segments` changes between them. They compute in float32 at least.

    Args:
        num_tags: Number of tags.
    """

    def __init__(self, num_tags: int):
        super().__init__()
        self.num_tags = num_tags
        self.start = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))
        self.end = nn.Parameter(torch.zeros(num_tags))

    # The work depends on the lengths of the chains, for each of which a compiler would make a graph of its own.
    @torch.compiler.disable
    def forward(
        self,
        emissions: Tensor,
        labels: Tensor | None,
        mask: Tensor,
        segments: Tensor | None = None,
        constraints: TagConstraints | None = None,
        method: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """The exact negative log-likelihood of labels, summed over all chains.

        Args:
            emissions: ``(batch, words, num_tags)``: the score of each tag at each word.
            labels: ``(batch, words)``, int64, at words that the mask keeps below `num_tags`, or -100 for an unknown
                label. The likelihood is then that of all tag sequences that agree with the known ones.
            mask: ``(batch, words)``, bool: true for the words of chains.
            segments: ``(batch, words)``: where it changes within a row, another chain begins. None: a row is one.
            constraints: What is allowed; None: everything. A chain whose labels are not allowed is scored as if
                everything were, and a warning logged.
            method: For the other methods alone, which pass through here too: what is to be computed in place of it.

        Returns:
            A scalar, in nats.
        """
        if method is not None:
            # Parameters that accelerate has offloaded are loaded for `forward`, and for nothing else.
            return method(emissions, mask, segments, constraints)
        if labels is None:
            raise ValueError("The likelihood is that of labels: pass them, -100 for unknown ones.")
        packing = Packing.from_mask(mask, segments)
        if not packing.batch_sizes:
            return 0 * self.transitions.sum()
        packed = self._pack(emissions, packing)
        given = packing.pack(labels).unsqueeze(1)
        excluded = (given != -100) & (given != torch.arange(self.num_tags, device=given.device))
        both = torch.stack([packed, packed.masked_fill(excluded, IMPOSSIBLE)])
        losses, labelled = self._losses(both, packing, constraints)
        impossible = labelled < IMPOSSIBLE / 2
        if constraints is not None and impossible.any():
            logger.warning_once(
                "The labels of a sentence break the tagging scheme of id2label: in BIO, an I- tag that follows no tag "
                "of its kind. Such a sentence is trained on without constraints, but its tags will not be predicted. "
                "Convert the labels (from IOB1 to BIO, say), or set crf_constraints=False."
            )
            losses = torch.where(impossible, self._losses(both, packing, None)[0], losses)
        return losses.sum()

    def log_marginals(
        self,
        emissions: Tensor,
        mask: Tensor,
        segments: Tensor | None = None,
        constraints: TagConstraints | None = None,
    ) -> Tensor:
        """The log-probability of each tag at each word, given the whole sentence.

        Args:
            emissions: As in `forward`.
            mask: As in `forward`.
            segments: As in `forward`.
            constraints: What is allowed; None: everything.

        Returns:
            ``(batch, words, num_tags)``, float32 or float64, none below -10,000. Where there is no word of a chain:
            the log-softmax of the emissions.
        """
        return self(emissions, None, mask, segments, constraints, self._log_marginals)

    def _log_marginals(
        self, emissions: Tensor, mask: Tensor, segments: Tensor | None, constraints: TagConstraints | None
    ) -> Tensor:
        alone = emissions.to(self._dtype(emissions)).log_softmax(dim=-1)
        if is_traced_whole():
            return self._log_marginals_padded(emissions, mask, segments, constraints, alone)
        return self._log_marginals_packed(emissions, mask, segments, constraints, alone)

    @torch.compiler.disable
    def _log_marginals_packed(
        self,
        emissions: Tensor,
        mask: Tensor,
        segments: Tensor | None,
        constraints: TagConstraints | None,
        alone: Tensor,
    ) -> Tensor:
        packing = Packing.from_mask(mask, segments)
        if not packing.batch_sizes:
            return alone.clamp(min=LOWEST_LOG_MARGINAL)
        start, transitions, end = self._scores(alone.dtype, constraints)
        steps = self._pack(emissions, packing).split(packing.batch_sizes)
        forward, _ = _forward(steps, start, transitions)
        backward = [end.expand(len(steps[-1]), -1)]
        for step, following in zip(reversed(steps[:-1]), reversed(steps[1:]), strict=True):
            carried = (transitions + (following + backward[-1]).unsqueeze(-2)).logsumexp(dim=-1)
            ended = end.expand(len(step) - len(following), -1)
            backward.append(torch.cat([carried.log_softmax(dim=-1), ended]))
        marginals = (torch.cat(forward) + torch.cat(backward[::-1])).log_softmax(dim=-1)
        marginals = torch.where(mask.unsqueeze(-1), packing.unpack(marginals), alone)
        return marginals.clamp(min=LOWEST_LOG_MARGINAL)

    def _log_marginals_padded(
        self,
        emissions: Tensor,
        mask: Tensor,
        segments: Tensor | None,
        constraints: TagConstraints | None,
        alone: Tensor,
    ) -> Tensor:
        """The same in a form that a graph can hold: padded rows, one scan over the words for both directions."""
        start, transitions, end = self._scores(alone.dtype, constraints)
        centered = self._centered(emissions)

        def read_forward(emission: Tensor, is_first: Tensor, forward: Tensor) -> tuple[Tensor]:
            before = (forward.unsqueeze(-1) + transitions).logsumexp(dim=-2)
            return ((torch.where(is_first, start, before) + emission).log_softmax(dim=-1),)

        def read_backward(emission: Tensor, is_last: Tensor, _: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
            behind = (transitions + following.unsqueeze(-2)).logsumexp(dim=-1).log_softmax(dim=-1)
            backward = torch.where(is_last, end, behind)
            return backward, backward + emission

        orders = reading_orders(mask, segments)
        firsts = [order.fresh | (order.keep & (order.keep.cumsum(dim=0) == 1)) for order in orders]
        words = centered.transpose(0, 1)
        inputs = [(words.contiguous(), firsts[0]), (words.flip(0), firsts[1])]
        zeros = torch.zeros_like(alone[:, 0])
        (forward, backward), _ = scan_rows((read_forward, read_backward), inputs, orders, ((zeros,), (zeros, zeros)))
        marginals = (forward + backward.flip(0)).transpose(0, 1).log_softmax(dim=-1)
        return torch.where(mask.unsqueeze(-1), marginals, alone).clamp(min=LOWEST_LOG_MARGINAL)

    @torch.compiler.disable
    @torch.no_grad()
    def viterbi(
        self,
        emissions: Tensor,
        mask: Tensor,
        segments: Tensor | None = None,
        constraints: TagConstraints | None = None,
    ) -> Tensor:
        """The most probable tag sequence of each chain.

        Args:
            emissions: As in `forward`.
            mask: As in `forward`.
            segments: As in `forward`.
            constraints: What is allowed; None: everything.

        Returns:
            ``(batch, words)``, int64: tags, -100 where there is no word of a chain.

        Raises:
            ValueError: for scores that are not finite.
        """
        return self(emissions, None, mask, segments, constraints, self._viterbi)

    def _viterbi(
        self, emissions: Tensor, mask: Tensor, segments: Tensor | None, constraints: TagConstraints | None
    ) -> Tensor:
        packing = Packing.from_mask(mask, segments)
        if not packing.batch_sizes:
            return torch.full(mask.shape, -100, device=mask.device)
        scores = self._scores(self._dtype(emissions), constraints)
        start, transitions, end = scores
        packed = self._pack(emissions, packing)
        if not all(part.isfinite().all() for part in (packed, *scores)):
            raise ValueError(
                "The scores of tags are not finite (NaN or infinity), so no tag sequence is the best: the weights of "
                "the model, or its inputs, are broken. Did the training diverge?"
            )
        steps = packed.split(packing.batch_sizes)
        best = [start + steps[0]]
        pointers = []
        for step in steps[1:]:
            score, pointer = (best[-1][: len(step)].unsqueeze(-1) + transitions).max(dim=-2)
            score = score + step
            best.append(score - score.amax(dim=-1, keepdim=True))
            pointers.append(pointer)
        tags = [(best[-1] + end).argmax(dim=-1)]
        for score, pointer in zip(reversed(best[:-1]), reversed(pointers), strict=True):
            carried = pointer.gather(1, tags[-1].unsqueeze(1)).squeeze(1)
            ended = (score[len(pointer) :] + end).argmax(dim=-1)
            tags.append(torch.cat([carried, ended]))
        return packing.unpack(torch.cat(tags[::-1])).masked_fill(~mask, -100)

    def _losses(self, both: Tensor, packing: Packing, constraints: TagConstraints | None) -> tuple[Tensor, Tensor]:
        """Losses of chains, ``(chains,)``, and the lowest score that the labels met in a step, likewise.

        Args:
            both: ``(2, all words, num_tags)``, packed: emissions, and emissions of what agrees with the labels.
            packing: Where the words stand.
            constraints: What is allowed.
        """
        start, transitions, end = self._scores(both.dtype, constraints)
        forward, normalizers = _forward(both.split(packing.batch_sizes, dim=1), start, transitions)
        following = [*packing.batch_sizes[1:], 0]
        ended = [last[:, alive:] for last, alive in zip(forward, following, strict=True)]
        normalizers.append((torch.cat(ended[::-1], dim=1) + end).logsumexp(dim=-1))
        chains = packing.batch_sizes[0]
        # The differences step by step are small numbers, those of the sums would be small ones of large.
        padded = [F.pad(step, (0, chains - step.shape[1])) for step in normalizers]
        losses = torch.stack([step[0] - step[1] for step in padded]).sum(dim=0)
        return losses, torch.stack([step[1] for step in padded]).amin(dim=0)

    def _scores(self, dtype: torch.dtype, constraints: TagConstraints | None) -> list[Tensor]:
        """Start, transitions and end, with `IMPOSSIBLE` for what is not allowed."""
        scores = [part.to(dtype) for part in (self.start, self.transitions, self.end)]
        if constraints is None:
            return scores
        return [
            part.masked_fill(~torch.tensor(allowed, device=part.device), IMPOSSIBLE)
            for part, allowed in zip(scores, constraints, strict=True)
        ]

    def _pack(self, emissions: Tensor, packing: Packing) -> Tensor:
        """Emissions of all words, ``(all words, num_tags)``, packed, the highest of each word 0."""
        return self._centered(packing.pack(emissions))

    def _centered(self, emissions: Tensor) -> Tensor:
        # What all tags of a word have in common has no influence, and is not to eat up digits.
        exact = emissions.to(self._dtype(emissions))
        return exact - exact.detach().amax(dim=-1, keepdim=True)

    @staticmethod
    def _dtype(emissions: Tensor) -> torch.dtype:
        return torch.promote_types(emissions.dtype, torch.float32)


def _forward(steps: Sequence[Tensor], start: Tensor, transitions: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The forward algorithm over packed chains.

    Args:
        steps: For each time step the emissions of the chains that have a word there, ``(..., chains, num_tags)``.
        start: ``(num_tags,)``.
        transitions: ``(from, to)``.

    Returns:
        For each step the log-probability of each tag given the words so far, ``(..., chains, num_tags)``, and the log
        of what it was divided by to be one, ``(..., chains)``: their sum over the steps, and that of the end, is the
        log-partition function.
    """
    forward: list[Tensor] = []
    normalizers: list[Tensor] = []
    for step in steps:
        if forward:
            before = forward[-1][..., : step.shape[-2], :]
            scores = (before.unsqueeze(-1) + transitions).logsumexp(dim=-2) + step
        else:
            scores = start + step
        normalizers.append(scores.logsumexp(dim=-1))
        forward.append(scores - normalizers[-1].unsqueeze(-1))
    return forward, normalizers
