"""Heads that judge whole texts: classes or numbers for a text or a pair of texts, and the best of several choices."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import MultipleChoiceModelOutput, SequenceClassifierOutput
from transformers.utils import can_return_tuple

from ..character_encoder import ScaledLinear
from ..configuration_elmo import ElmoConfig
from ..modeling_elmo import ElmoModel, ElmoPreTrainedModel, check_finite, check_tensors, label_count, loss_divisor
from .task_encoder import TaskEncoder

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


class TextPairScorer(nn.Module):
    """From the vectors of words to scores of a text, or of a pair of texts.

    A text's vector is the maximum and the mean of its encoded words side by side (the two poolings of Howard & Ruder
    2018, section 3.3; the maximum alone is InferSent's). Both are over all of its words with BOS and EOS, as in
    InferSent: these two have read the whole text, and a text without words still has them.

    A pair is compared as in InferSent (Conneau et al. 2017, section 3): ``[u, v, |u - v|, u * v]``, and a hidden layer.
    A single text is ``[u, 0, 0, 0]``, so one model reads both, and a row's scores do not depend on what the other rows
    of its batch are.

    Args:
        config: Sizes and dropout of the task encoder and of the hidden layer.
        num_scores: Number of scores.
    """

    def __init__(self, config: ElmoConfig, num_scores: int):
        super().__init__()
        # ELMo's vectors come with dropout of their own.
        self.encoder = TaskEncoder(
            config.hidden_size, config.task_encoder_size, config.task_encoder_layers, config.task_dropout, 0.0
        )
        self.hidden = ScaledLinear(4 * 2 * self.encoder.output_size, config.classifier_size)
        self.dropout = nn.Dropout(config.task_dropout)
        self.scores = nn.Linear(config.classifier_size, num_scores)

    def forward(self, vectors: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """Scores texts.

        Args:
            vectors: ``(batch, words, hidden_size)``.
            mask: ``(batch, words)``, bool: true for words.
            segments: ``(batch, words)``: 0 for words of the first text, others for words of the second. None: every row
                is a single text.

        Returns:
            ``(batch, num_scores)``.
        """
        encoded = self.encoder(vectors, mask, segments)
        if segments is None:
            segments = torch.zeros_like(mask, dtype=torch.long)
        in_first, in_second = mask & (segments == 0), mask & (segments != 0)
        first, second = pool(encoded, in_first), pool(encoded, in_second)
        is_pair = (in_first.any(dim=1) & in_second.any(dim=1)).unsqueeze(1)
        difference = (first - second).abs().masked_fill(~is_pair, 0)
        compared = torch.cat([first, second, difference, first * second], dim=-1)
        return self.scores(self.dropout(F.relu(self.hidden(compared))))


def pool(vectors: Tensor, mask: Tensor) -> Tensor:
    """The maximum and the mean over the words that a mask keeps; zeros where it keeps none.

    Args:
        vectors: ``(batch, words, dim)``.
        mask: ``(batch, words)``, bool.

    Returns:
        ``(batch, 2 * dim)``, the maximum first.
    """
    kept = mask.unsqueeze(-1)
    largest = vectors.masked_fill(~kept, torch.finfo(vectors.dtype).min).amax(dim=1)
    largest = largest.masked_fill(~kept.any(dim=1), 0)
    mean = vectors.masked_fill(~kept, 0).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
    return torch.cat([largest, mean], dim=-1)


class ElmoForSequenceClassification(ElmoPreTrainedModel):
    """Classes of a text or of a pair of texts, or numbers for them (`problem_type`), as in the library's own models."""

    freezes_bilm = True
    head_ending = "classifier"

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.num_labels = label_count(config)
        self.elmo = ElmoModel(config)
        self.text_scorer = TextPairScorer(config, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        layer_states: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classifies texts.

        Args:
            input_ids: As in `ElmoModel`.
            character_ids: As in `ElmoModel`, ``(batch, words, chars)``.
            attention_mask: As in `ElmoModel`.
            token_type_ids: ``(batch, words)``: 0 for words of the first text, 1 for words of the second. None: every
                row is a single text. Rows with one text and rows with two may stand in one batch.
            layer_states: As in `ElmoModel`, instead of `character_ids`.
            labels: What the texts are. Classes: ``(batch,)``, integers below `num_labels`, -100 for a text that is
                not to be scored. Several classes at once (`problem_type="multi_label_classification"`):
                ``(batch, num_labels)``, 0 or 1. Numbers (`"regression"`): ``(batch,)`` or ``(batch, num_labels)``.
                Where the configuration has no `problem_type` it is set by the first labels, as in the library: one
                label is a number, integers are classes, and others are several classes at once.
            num_items_in_batch: Divide the summed loss by this number of labels, instead of by the number of labels here
                (`Trainer` passes it, to accumulate gradients exactly).
            output_hidden_states: As in `ElmoModel`.

        Returns:
            `logits` ``(batch, num_labels)``; with labels `loss`, in nats where it is a cross entropy; `hidden_states`
            if asked for.

        Raises:
            ValueError: for inputs as in `ElmoModel`, labels that do not fit the texts or the configuration, and (when
                not training) scores that are not finite.
        """
        check_tensors(token_type_ids=token_type_ids, labels=labels)
        mask = self.elmo.word_mask(input_ids, character_ids, attention_mask, layer_states)
        _check_texts(mask, token_type_ids)
        outputs = self.elmo(
            input_ids=input_ids,
            character_ids=character_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            layer_states=layer_states,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.text_scorer(outputs.last_hidden_state, mask, token_type_ids)
        if not self.training:
            check_finite(logits)
        loss = None
        if labels is not None:
            if self.config.problem_type is None:
                self.config.problem_type = _problem_type(self.num_labels, labels)
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class ElmoForMultipleChoice(ElmoPreTrainedModel):
    """The right one of several choices, each of which is a text or a pair (a question and an answer, say)."""

    freezes_bilm = True
    head_ending = "classifier"

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.elmo = ElmoModel(config)
        self.text_scorer = TextPairScorer(config, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        layer_states: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Scores choices; all arguments are those of `ElmoForSequenceClassification` with choices behind the batch.

        Args:
            input_ids: ``(batch, choices, words)``.
            character_ids: ``(batch, choices, words, chars)``, or ``(batch, choices, words * chars)``, which is what
                `DataCollatorForMultipleChoice` makes of them.
            attention_mask: ``(batch, choices, words)``.
            token_type_ids: ``(batch, choices, words)``.
            layer_states: ``(batch, choices, num_layers + 1, words, 2 * projection_dim)``, or the last three in one, as
                the same collator has them.
            labels: ``(batch,)``, the number of the right choice, from 0; -100 for a row that is not to be scored.
            num_items_in_batch: As in `ElmoForSequenceClassification`.
            output_hidden_states: Return the layers, ``(batch * choices, words, 2 * projection_dim)`` each.

        Returns:
            `logits` ``(batch, choices)``; with labels `loss`, in nats; `hidden_states` if asked for.

        Raises:
            ValueError: for missing or mis-shaped inputs, labels that do not name a choice, and (when not training)
                scores that are not finite.
        """
        check_tensors(
            input_ids=input_ids,
            character_ids=character_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            layer_states=layer_states,
            labels=labels,
        )
        if character_ids is None and input_ids is not None and input_ids.dim() == 4:
            input_ids, character_ids = None, input_ids
        if character_ids is not None and character_ids.dim() == 3:
            character_ids = self._with_rows_of_characters(character_ids, attention_mask)
        if layer_states is not None and layer_states.dim() == 3:
            layer_states = self._with_layers(layer_states, attention_mask)
        given = next((each for each in (layer_states, character_ids, input_ids) if each is not None), None)
        if given is None:
            raise ValueError(
                "There are no choices to read: pass everything that ElmoTokenizer returns, with choices behind the "
                "batch, character_ids (batch, choices, words, chars)."
            )
        dims = 5 if layer_states is not None else 4 if character_ids is not None else 3
        if given.dim() != dims:
            raise ValueError(
                f"Inputs of a multiple choice have choices behind the batch, character_ids (batch, choices, words, "
                f"chars), but one has the shape {tuple(given.shape)}."
            )
        flat = {
            name: None if tensor is None else tensor.flatten(0, 1)
            for name, tensor in {
                "input_ids": input_ids,
                "character_ids": character_ids,
                "attention_mask": attention_mask,
                "layer_states": layer_states,
            }.items()
        }
        segments = None if token_type_ids is None else token_type_ids.flatten(0, 1)
        mask = self.elmo.word_mask(**flat)
        _check_texts(mask, segments)
        outputs = self.elmo(
            **flat, token_type_ids=segments, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = self.text_scorer(outputs.last_hidden_state, mask, segments).view(given.shape[:2])
        if not self.training:
            check_finite(logits)
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, "single_label_classification", num_items_in_batch)
        return MultipleChoiceModelOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _with_rows_of_characters(self, character_ids: Tensor, like: Tensor | None) -> Tensor:
        """``(batch, choices, words * chars)`` to ``(batch, choices, words, chars)``."""
        chars = self.config.row_length
        words, rest = divmod(character_ids.shape[2], chars)
        if rest or (like is not None and words != like.shape[-1]):
            raise ValueError(
                f"character_ids of shape {tuple(character_ids.shape)} are not (batch, choices, words * chars) for "
                + ("words" if like is None else f"{like.shape[-1]} words")
                + f" of {chars} characters: pass (batch, choices, words, chars)."
            )
        return character_ids.unflatten(2, (words, chars))

    def _with_layers(self, layer_states: Tensor, like: Tensor | None) -> Tensor:
        """``(batch, choices, layers * words * dim)`` to ``(batch, choices, layers, words, dim)``."""
        layers, dim = self.config.num_layers + 1, self.config.hidden_size
        words, rest = divmod(layer_states.shape[2], layers * dim)
        if rest or (like is not None and words != like.shape[-1]):
            raise ValueError(
                f"layer_states of shape {tuple(layer_states.shape)} are not (batch, choices, layers * words * dim) for "
                + ("words" if like is None else f"{like.shape[-1]} words")
                + f" in {layers} layers of {dim}: pass (batch, choices, layers, words, dim)."
            )
        return layer_states.unflatten(2, (layers, words, dim))


def classification_loss(
    logits: Tensor, labels: Tensor, problem_type: str, num_items: Tensor | int | None = None
) -> Tensor:
    """The loss of the library's own models for a problem type: cross entropy, binary cross entropy or squared error.

    Unlike theirs it is divided by `num_items` for all three, not for the first alone, without which `Trainer`'s losses
    are too large by the number of batches whose gradients it accumulates.

    Args:
        logits: ``(batch, num_labels)``.
        labels: ``(batch,)``, or ``(batch, num_labels)`` if there are several per text.
        problem_type: `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.
        num_items: Number of labels to divide by; None: the number of those here, -100 aside.

    Raises:
        ValueError: for labels of another shape, or outside of the label set.
    """
    num_labels = logits.shape[-1]
    labels = labels.to(logits.device)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if problem_type == "single_label_classification":
        # (batch, 1) as well, as the library's own.
        labels = labels.flatten()
        _check_shape(labels, logits.shape[:1], problem_type)
        if labels.is_floating_point():
            raise ValueError(f"labels of classes must be integers, was: {labels.dtype}.")
        _check_classes(labels, num_labels)
        total = F.cross_entropy(logits, labels.long(), ignore_index=-100, reduction="sum")
        count = labels.ne(-100).sum()
    else:
        if labels.numel() == logits.numel() and num_labels == 1:
            labels = labels.reshape(logits.shape)
        _check_shape(labels, logits.shape, problem_type)
        if problem_type == "regression":
            total = F.mse_loss(logits, labels.to(logits.dtype), reduction="sum")
        else:
            _check_shares(labels)
            total = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")
        count = torch.tensor(labels.numel(), device=logits.device)
    return total / loss_divisor(num_items, count)


def _problem_type(num_labels: int, labels: Tensor) -> ProblemType:
    """The kind of problem that labels are for, as the library guesses it."""
    if num_labels == 1:
        return "regression"
    return "single_label_classification" if labels.dtype in (torch.long, torch.int) else "multi_label_classification"


def _check_texts(mask: Tensor, segments: Tensor | None) -> None:
    if mask.shape[1] == 0:
        raise ValueError("There are no words to classify, not even BOS and EOS: were all of them truncated?")
    if segments is not None and segments.shape != mask.shape:
        raise ValueError(
            f"token_type_ids are {tuple(segments.shape)}, but there are (batch, words) = {tuple(mask.shape)}."
        )


def _check_shape(labels: Tensor, expected: torch.Size, problem_type: str) -> None:
    if labels.shape != expected:
        raise ValueError(
            f"labels must have the shape {tuple(expected)} for {problem_type}, was: {tuple(labels.shape)}. (The "
            "problem_type of the configuration is set by the first labels if it is not given.)"
        )


# A compiled model leaves its graph here, because it depends on the values whether there is an error.
@torch.compiler.disable
def _check_shares(labels: Tensor) -> None:
    if labels.device.type != "cpu":
        return
    wrong = labels[(labels < 0) | (labels > 1)]
    if len(wrong):
        raise ValueError(
            f"A label is {wrong[0].item():g}, but for multi_label_classification each of a text's labels is 1 where "
            "the class is one of its own and 0 where not. Are these numbers, or numbers of classes? Then set "
            'problem_type="regression" or "single_label_classification".'
        )


@torch.compiler.disable
def _check_classes(labels: Tensor, num_labels: int) -> None:
    # On an accelerator the check would wait for the device; there the loss itself reports it.
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    wrong = labels[(labels != -100) & ((labels < 0) | (labels >= num_labels))]
    if len(wrong):
        raise ValueError(
            f"A label is {int(wrong[0])}, but the labels of {num_labels} classes are 0 to {num_labels - 1} (and -100 "
            "for none): set num_labels in from_pretrained, or number the classes from 0."
        )


__all__ = ["ElmoForMultipleChoice", "ElmoForSequenceClassification"]
