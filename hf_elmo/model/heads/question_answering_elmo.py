"""Extractive question answering: where in a context the answer to a question starts and ends."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import QuestionAnsweringModelOutput
from transformers.utils import can_return_tuple, logging

from ..configuration_elmo import ElmoConfig
from ..lstm.tracing import is_traced_whole
from ..modeling_elmo import ElmoModel, ElmoPreTrainedModel, check_finite, check_tensors, loss_divisor
from ..tokenization_elmo import BEGIN_SENTENCE, END_SENTENCE
from .attention_flow import AttentionFlow, SelfAttention, TrilinearSimilarity
from .task_encoder import TaskEncoder

logger = logging.get_logger(__name__)


class ElmoForQuestionAnswering(ElmoPreTrainedModel):
    """ELMo with a head that finds the answer to a question in a context, or finds that there is none.

    The head is that of the paper's SQuAD model (Peters et al. 2018, after Clark & Gardner 2017 and Seo et al. 2017): a
    contextual biLSTM shared by question and context, attention flow, a linear layer with ReLU, on request
    self-attention (`config.context_self_attention`), `config.task_encoder_layers` modelling biLSTMs, which give the
    answer's start, and one more for its end. ELMo comes in twice, with a mix of its own each time: as the input of the
    contextual biLSTM and beside its output, so that the attention sees it too. So the configuration of this model has
    `num_representations` of at least 2, whatever the one that it is made from says; mixes that a checkpoint lacks
    start afresh.

    A row is a question and its context as two segments (`token_type_ids`), each with its boundaries: `<S> question
    </S> <S> context </S>`. The question is segment `config.question_segment`: 0 as a rule; `run_qa.py` puts the context
    first where the tokenizer pads on the left, and then it is to be 1.

    Scores are over the whole row. Only words of the context can start or end an answer: everything else has the lowest
    score of the dtype (its probability is 0), but for position 0, whatever stands there. It means that there is no
    answer, as in `run_qa.py`, and has a learned score of its own.
    """

    freezes_bilm = True
    head_ending = "qa_outputs"

    def __init__(self, config: ElmoConfig):
        if config.num_representations < 2:
            config = copy.deepcopy(config)
            config.num_representations = 2
        super().__init__(config)
        size, layers, dropout = config.task_encoder_size, config.task_encoder_layers, config.task_dropout
        self.elmo = ElmoModel(config)
        # Dropout falls once on the input of each layer; that of ELMo's vectors is its own.
        self.contextual_encoder = TaskEncoder(config.hidden_size, size, min(layers, 1), 0.0)
        self.attention_flow = AttentionFlow(self.contextual_encoder.output_size + config.hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.fusion = nn.Linear(self.attention_flow.output_size, 2 * size)
        self.self_attention = SelfAttention(2 * size) if config.context_self_attention else None
        self.modelling_encoder = TaskEncoder(2 * size, size, layers, dropout)
        self.end_encoder = TaskEncoder(2 * size + self.modelling_encoder.output_size, size, min(layers, 1), 0.0)
        start_size, end_size = self.modelling_encoder.output_size, self.end_encoder.output_size
        self.start_scores = nn.Linear(start_size, 1)
        self.end_scores = nn.Linear(end_size, 1)
        self.no_answer_scores = nn.Linear(start_size + end_size, 2)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TrilinearSimilarity):
            # Glorot-uniform of the one vector of three times this size that the three parts make up.
            bound = (6 / (3 * len(module.row_weight) + 1)) ** 0.5
            for weight in (module.row_weight, module.column_weight, module.product_weight):
                init.uniform_(weight, -bound, bound)
        elif module is self.fusion or module is getattr(self.self_attention, "output", None):
            # The size of what goes in depends on ELMo's; what comes out is to be of order 1 for any of them.
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two questions of one word, with contexts of one word."""
        characters = torch.full((2, 6, self.config.row_length), 1)
        segments = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
        return {
            "input_ids": torch.ones(2, 6, dtype=torch.long),
            "character_ids": characters,
            "token_type_ids": segments,
        }

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        layer_states: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Scores every word as the start and as the end of the answer.

        Args:
            input_ids: As in `ElmoModel`.
            character_ids: ``(batch, words, chars)``, as `ElmoTokenizer` makes them of pairs.
            attention_mask: As in `ElmoModel`.
            token_type_ids: ``(batch, words)``: which words are the question's (`config.question_segment`); all others
                are the context's.
            layer_states: As in `ElmoModel`: the layers of whole rows, computed before.
            start_positions: ``(batch,)``: the index in its row of each answer's first word. 0, or the row's first word,
                says that there is no answer. An index outside of the row, on a boundary or on padding is ignored.
            end_positions: ``(batch,)``: likewise, its last word.
            output_hidden_states: As in `ElmoModel`.
            num_items_in_batch: Divide the summed losses by this number of rows, instead of by the number of labels that
                are not ignored.

        Returns:
            `start_logits` and `end_logits`, ``(batch, words)``, and with labels `loss`: the mean of the two cross
            entropies, in nats per question.

        Raises:
            ValueError: for inputs as in `ElmoModel`, without `token_type_ids`, or with a row that lacks words of a
                question or of a context, and (when not training) for scores that are not finite.
        """
        check_tensors(token_type_ids=token_type_ids, start_positions=start_positions, end_positions=end_positions)
        mask = self.elmo.word_mask(input_ids, character_ids, attention_mask, layer_states)
        if token_type_ids is None and hasattr(self, "peft_config"):
            # PEFT's class for question answering has an argument of that name, and does not pass it on.
            token_type_ids = self._segments_between_boundaries(mask, input_ids, character_ids)
        question, context = self._question_and_context(mask, token_type_ids)
        outputs = self.elmo(
            input_ids=input_ids,
            character_ids=character_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            layer_states=layer_states,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        first, second = outputs.elmo_representations[:2]
        encoded = self.contextual_encoder(first, question | context, token_type_ids)
        vectors = torch.cat([encoded, second], dim=-1)

        asked, asked_mask, _ = _gather(vectors, question)
        read, read_mask, places = _gather(vectors, context)
        fused = torch.relu(self.fusion(self.dropout(self.attention_flow(read, asked, read_mask, asked_mask))))
        if self.self_attention is not None:
            fused = self.self_attention(fused, read_mask)
        modelled = self.modelling_encoder(fused, read_mask)
        ends = self.dropout(self.end_encoder(torch.cat([fused, modelled], dim=-1), read_mask))
        summary = torch.cat([modelled, ends], dim=-1).masked_fill(~read_mask.unsqueeze(-1), -torch.inf).amax(dim=1)
        no_answer = self.no_answer_scores(summary)
        start_logits, end_logits = (
            _over_rows(scores.squeeze(-1), read_mask, places, mask.shape[1], no_answer[:, kind])
            for kind, scores in enumerate((self.start_scores(modelled), self.end_scores(ends)))
        )

        if not self.training:
            check_finite(torch.stack([start_logits, end_logits]))
        loss = None
        if start_positions is not None and end_positions is not None:
            targets = (_targets(labels, mask, question, context) for labels in (start_positions, end_positions))
            losses = [
                _cross_entropy(logits, target, num_items_in_batch)
                for logits, target in zip((start_logits, end_logits), targets, strict=True)
            ]
            loss = (losses[0] + losses[1]) / 2
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start_logits, end_logits=end_logits, hidden_states=outputs.hidden_states
        )

    def _segments_between_boundaries(
        self, mask: Tensor, input_ids: Tensor | None, character_ids: Tensor | None
    ) -> Tensor | None:
        """The tokenizer's `token_type_ids` of rows `<S> ... </S> <S> ... </S>`, as their boundaries tell them.

        None if there are only layers, which have no boundaries to be seen.

        Raises:
            ValueError: for a row in which not exactly one `<S>` follows a `</S>`.
        """
        if character_ids is None and input_ids is not None and input_ids.dim() == 3:
            character_ids = input_ids
        if character_ids is not None and not self.config.character_inputs:
            input_ids, character_ids = character_ids[..., 0], None
        if character_ids is not None:
            kinds = character_ids[..., 1]
            starts, ends = kinds == BEGIN_SENTENCE, kinds == END_SENTENCE
        elif input_ids is not None:
            # One id each, though the library lets eos_token_id be a list.
            bos, eos = cast("int", self.config.bos_token_id), cast("int", self.config.eos_token_id)
            starts, ends = input_ids == bos, input_ids == eos
        else:
            return None
        border = F.pad(mask[:, 1:] & mask[:, :-1] & starts[:, 1:] & ends[:, :-1], (1, 0))
        count = border.sum(dim=1)
        wrong = count != 1
        if not is_traced_whole() and wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                "PEFT does not pass token_type_ids on, and without them question and context are told apart by the "
                f"'</S> <S>' between them, of which row {row} of the batch has {int(count[row])}: pairs of the "
                "tokenizer have one, if no text has these words itself. peft_model.get_base_model()(**inputs) takes "
                "token_type_ids, and has the adapter."
            )
        return border.long().cumsum(dim=1) * mask

    def _question_and_context(self, mask: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the words of the question and of the context are, boundaries left out: ``(batch, words)``, bool."""
        if segments is None:
            raise ValueError(
                "Question answering needs token_type_ids, which tell the question from the context: pass everything "
                "that the tokenizer returns for a pair, as in model(**tokenizer(question, context, "
                "return_tensors='pt'))."
            )
        if segments.shape != mask.shape:
            raise ValueError(
                f"token_type_ids is {tuple(segments.shape)}, but there are (batch, words) = {tuple(mask.shape)}."
            )
        is_question = segments == self.config.question_segment
        parts = _without_boundaries(mask & is_question), _without_boundaries(mask & ~is_question)
        if is_traced_whole():
            return parts
        for name, part in zip(("question", "context"), parts, strict=True):
            empty = ~part.any(dim=1)
            if empty.any():
                raise ValueError(
                    f"Row {int(empty.nonzero()[0])} of the batch has no words of a {name} between '<S>' and '</S>'. A "
                    "row must hold both, as tokenizer(question, context) makes it, with the question as segment "
                    f"{self.config.question_segment} of token_type_ids (config.question_segment). Was the context "
                    "empty, or cut away by truncation? Then leave the row out, or raise max_length."
                )
        return parts


def _without_boundaries(segment: Tensor) -> Tensor:
    """The segment, ``(batch, words)``, without its first and its last word."""
    place = segment.cumsum(dim=1)
    return segment & (place > 1) & (place < place[:, -1:])


def _gather(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The masked words of each row, moved to its front.

    Args:
        vectors: ``(batch, words, dim)``.
        mask: ``(batch, words)``, bool.

    Returns:
        ``(batch, longest, dim)``; ``(batch, longest)``, bool: where it is a word; and ``(batch, longest)``: where in
        the row it stood, no place of a row twice. In a graph that must be whole `longest` is the number of words.
    """
    if not is_traced_whole():
        return _gather_longest(vectors, mask)
    place = torch.arange(mask.shape[1], device=mask.device)
    counts = mask.sum(dim=1, keepdim=True)
    new_place = torch.where(mask, mask.cumsum(dim=1) - 1, counts + (~mask).cumsum(dim=1) - 1)
    places = torch.zeros_like(new_place).scatter(1, new_place, place.expand_as(new_place))
    index = places.unsqueeze(-1).expand(-1, -1, vectors.shape[-1])
    return vectors.gather(1, index), place < counts, places


# The widths of question and context depend on the values, and for each a compiler would make a graph of its own.
@torch.compiler.disable
def _gather_longest(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    counts = mask.sum(dim=1, keepdim=True)
    longest = int(counts.max())
    places = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[:, :longest]
    kept = torch.arange(longest, device=mask.device) < counts
    return vectors.take_along_dim(places.unsqueeze(-1), dim=1), kept, places


def _over_rows(scores: Tensor, mask: Tensor, places: Tensor, width: int, no_answer: Tensor) -> Tensor:
    """The way back: scores ``(batch, longest)`` of gathered words to ``(batch, width)``, `no_answer` at position 0."""
    lowest = torch.finfo(scores.dtype).min
    rows = scores.new_full((scores.shape[0], width), lowest)
    rows = rows.scatter(1, places, scores.masked_fill(~mask, lowest))
    return torch.cat([no_answer.unsqueeze(1).to(rows.dtype), rows[:, 1:]], dim=1)


def _targets(labels: Tensor, mask: Tensor, question: Tensor, context: Tensor) -> Tensor:
    """Positions to score against, ``(batch,)``: 0 for no answer, -100 for those to be ignored."""
    width = mask.shape[1]
    labels = labels.reshape(-1).to(device=mask.device, dtype=torch.long)
    if len(labels) != len(mask):
        raise ValueError(f"There are {len(labels)} start or end positions for {len(mask)} rows.")
    # `run_qa.py` marks a question without an answer at the row's first word, wherever the padding puts it.
    labels = torch.where(labels == mask.to(torch.uint8).argmax(dim=1), 0, labels)
    inside = (labels >= 0) & (labels < width)
    place = labels.clamp(0, width - 1).unsqueeze(1)
    if (question.gather(1, place).squeeze(1) & inside).any():
        logger.warning_once(
            "Some start or end positions lie within the question. They are ignored; if they are many, the tokenizer "
            "puts the context first (as run_qa.py does with padding_side='left'): set config.question_segment to 1."
        )
    possible = context.gather(1, place).squeeze(1) | (labels == 0)
    return labels.masked_fill(~(inside & possible), -100)


def _cross_entropy(logits: Tensor, targets: Tensor, num_items: Tensor | int | None) -> Tensor:
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    return total / loss_divisor(num_items, (targets != -100).sum())


__all__ = ["ElmoForQuestionAnswering"]
