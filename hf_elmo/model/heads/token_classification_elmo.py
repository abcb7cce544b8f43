"""A head that tags words: task encoder, scores of tags, and a CRF over each sentence (the paper's NER)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils import can_return_tuple

from ..character_encoder import CharacterEncoder, CharacterSizes
from ..configuration_elmo import ElmoConfig
from ..lstm.highway_lstm import HighwayLstmLayer
from ..lstm.tracing import begins, encode_padded, is_traced_whole
from ..modeling_elmo import ElmoModel, ElmoPreTrainedModel, check_finite, check_tensors, label_count, loss_divisor
from ..scalar_mix import ScalarMix
from ..tokenization_elmo import BEGIN_SENTENCE, END_SENTENCE, SPECIAL_WORDS
from .crf import LinearChainCrf, TagConstraints, tag_constraints
from .glove import look_up, read_word_vectors
from .task_encoder import TaskEncoder
from .unicode_characters import UnicodeCharacterCnn, UnicodeCharacterLstm, UnicodeCharacters


@dataclass
class ElmoTokenClassifierOutput(TokenClassifierOutput):
    """What `ElmoForTokenClassification` returns.

    Attributes:
        loss: With labels: negative log-likelihood, in nats per labelled word.
        logits: ``(batch, words, num_labels)``, float32: with a CRF the log-probability of each label at each word,
            given the whole sentence. At BOS, EOS and padding, which are not in a chain, the log-softmax of the scores.
        hidden_states: With `output_hidden_states`: the layers of the biLM, as in `ElmoModelOutput`.
        tags: With `output_tags`: ``(batch, words)``, int64: the best label sequence of each sentence, -100 at BOS, EOS
            and padding.
    """

    tags: Tensor | None = None


class ElmoForTokenClassification(ElmoPreTrainedModel):
    """Labels of words: ELMo, optional further word vectors, a task encoder, and a CRF (or each word alone).

    The chain of the CRF is the words of a sentence without BOS and EOS; a row of several sentences (`token_type_ids`)
    is several chains. A label of -100 is unknown, and marginalised over. `logits` are log-marginals, of which each is
    the best guess at its word; `decode` gives the best sequence, which keeps to the tagging scheme of `id2label`.
    """

    freezes_bilm = True
    head_ending = "classifier"

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.num_labels = label_count(config)
        self.elmo = ElmoModel(config)
        self.word_vectors = None
        if config.word_vector_size > 0:
            self.word_vectors = nn.Embedding(config.vocab_size, config.word_vector_size, padding_idx=0)
        self.char_cnn = _char_cnn(config)
        self.elmo_projection = None
        if config.elmo_projection_size > 0:
            self.elmo_projection = nn.Linear(config.hidden_size, config.elmo_projection_size)
        size = (config.elmo_projection_size or config.hidden_size) + config.word_vector_size
        if self.char_cnn is not None:
            size += config.char_lstm_size or sum(count for _, count in config.char_cnn_filters or ())
        # Dropout falls once on each part of the input: on ELMo's here only if its vectors come without.
        dropout, comes_with_dropout = config.task_dropout, config.representation_dropout > 0
        self.further_dropout = nn.Dropout(dropout if comes_with_dropout else 0.0)
        self.task_encoder = TaskEncoder(
            size,
            config.task_encoder_size,
            config.task_encoder_layers,
            dropout,
            input_dropout=0.0 if comes_with_dropout else None,
            bidirectional=config.task_encoder_bidirectional,
            highways=config.task_encoder_highways,
            kind=config.task_encoder_kind,
            begins_backward=config.task_encoder_begins_backward,
        )
        sizes = [self.task_encoder.output_size, *(config.task_feedforward_sizes or ())]
        self.feedforward = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.feedforward_activations = [ACT2FN[name] for name in config.feedforward_activations]
        self.feedforward_dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sizes[-1], self.num_labels)
        self.crf = LinearChainCrf(self.num_labels) if config.use_crf else None
        # An impossible set of labels is to be reported at once; the set may still change until the first call.
        self.constraints()
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
        output_tags: bool | None = None,
        **kwargs: Any,
    ) -> ElmoTokenClassifierOutput:
        """Labels words.

        Args:
            input_ids: As in `ElmoModel`; read if there are word vectors (`word_vector_size`).
            character_ids: As in `ElmoModel`, ``(batch, words, chars)``.
            attention_mask: As in `ElmoModel`.
            token_type_ids: As in `ElmoModel`: every segment is a sentence, and a chain, of its own.
            layer_states: As in `ElmoModel`, instead of `character_ids`. With `input_ids` or `character_ids` beside them
                BOS and EOS are known by these; else the first and the last row of each segment are.
            labels: ``(batch, words)``: integers below `num_labels`, -100 for unknown. Not read at BOS, EOS and padding.
            num_items_in_batch: Divide the summed loss by this number of words, instead of by the number of labelled
                words here (`Trainer` passes it, to accumulate gradients exactly).
            output_hidden_states: As in `ElmoModel`.
            output_tags: Return the best label sequences; None: as the configuration says, but not in training.

        Raises:
            ValueError: for inputs as in `ElmoModel`, missing inputs of the parts beside ELMo, labels that do not fit
                the words or the label set, the label smoothing of `Trainer` on a constrained CRF, and (when not
                training) scores that are not finite.
        """
        check_tensors(input_ids=input_ids, token_type_ids=token_type_ids, labels=labels)
        if input_ids is not None and input_ids.dim() == 3:
            input_ids, character_ids = None, input_ids if character_ids is None else character_ids
        mask = self.elmo.word_mask(input_ids, character_ids, attention_mask, layer_states)
        if mask.shape[1] == 0:
            raise ValueError("There are no words to label, not even BOS and EOS: were all of them truncated?")
        if token_type_ids is not None and token_type_ids.shape != mask.shape:
            raise ValueError(
                f"token_type_ids are {tuple(token_type_ids.shape)}, but there are (batch, words) = {tuple(mask.shape)}."
            )
        words = mask & ~_boundaries(mask, token_type_ids, input_ids, character_ids, self.config)
        outputs = self.elmo(
            input_ids=input_ids,
            character_ids=character_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            layer_states=layer_states,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        further = map(self.further_dropout, self._further_vectors(input_ids, character_ids))
        elmo = outputs.last_hidden_state
        vectors = torch.cat([elmo if self.elmo_projection is None else self.elmo_projection(elmo), *further], dim=-1)
        encoded = self.task_encoder(vectors, words, token_type_ids)
        for layer, activation in zip(self.feedforward, self.feedforward_activations, strict=True):
            encoded = self.feedforward_dropout(activation(layer(encoded)))
        scores = self.classifier(encoded)
        if not self.training:
            check_finite(scores.masked_fill(~words.unsqueeze(-1), 0))
        constraints = self.constraints()
        if labels is None and num_items_in_batch is not None and constraints is not None:
            raise ValueError(
                "Trainer took the labels out of the batch, to compute a loss from the logits itself. With "
                "label_smoothing_factor it would want of the CRF what the tagging scheme of id2label forbids it: leave "
                "it out, or train with crf_constraints=False (which may be changed to True in the configuration "
                "afterwards). So with a loss of your own (compute_loss_func)."
            )
        loss = None
        if labels is not None:
            labels = _checked_labels(labels.to(scores.device), words, self.num_labels)
            loss = self._loss(scores, labels, words, token_type_ids, constraints, num_items_in_batch)
        if self.crf is not None:
            logits = self.crf.log_marginals(scores, words, token_type_ids, constraints)
        else:
            logits = scores.to(torch.promote_types(scores.dtype, torch.float32))
        tags = None
        if output_tags or (output_tags is None and self.config.output_tags and not self.training):
            if self.crf is not None:
                tags = self.crf.viterbi(scores, words, token_type_ids, constraints)
            else:
                tags = logits.argmax(dim=-1).masked_fill(~words, -100)
        return ElmoTokenClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states, tags=tags)

    @torch.no_grad()
    def decode(self, *args: Any, **kwargs: Any) -> list[list[int]]:
        """The best label sequences, computed without dropout.

        Args:
            args: The inputs of `forward`.
            kwargs: Likewise.

        Returns:
            For each row the labels of its words, BOS, EOS and padding left out; those of all its sentences in a row.

        Raises:
            ValueError: as `forward`.
        """
        training = self.training
        self.eval()
        try:
            tags = self(*args, **{**kwargs, "labels": None, "output_tags": True, "return_dict": True}).tags
        finally:
            self.train(training)
        return [row[row != -100].tolist() for row in tags]

    @torch.compiler.disable
    def constraints(self) -> TagConstraints | None:
        """What sequences of labels the CRF allows: those of the scheme of `id2label`, as the configuration has it now.

        Raises:
            ValueError: if the names of the labels mix schemes.
        """
        if self.crf is None or not self.config.crf_constraints:
            return None
        # Training scripts name the labels after the model is made.
        names = {int(label): name for label, name in (self.config.id2label or {}).items()}
        return tag_constraints(tuple(str(names.get(label)) for label in range(self.num_labels)))

    def load_word_vectors(self, path: str | Path, vocabulary: Mapping[str, int]) -> float:
        """Sets the word vectors to those of a file in GloVe's text format.

        A word that the file does not have gets the vector of the word in lower case, or else zeros.

        Args:
            path: The file, as in `read_word_vectors`, with vectors of `word_vector_size`.
            vocabulary: The id of each word, as in `tokenizer.get_vocab()`.

        Returns:
            The share of the vocabulary's words, special words aside, that have a vector now.

        Raises:
            ValueError: if the model has no word vectors, the vocabulary does not fit it, or the file is another one.
        """
        if self.word_vectors is None:
            raise ValueError(
                "This model has no word vectors: set word_vector_size in its configuration, as in "
                "from_pretrained(..., word_vector_size=100)."
            )
        words = {word: number for word, number in vocabulary.items() if word not in SPECIAL_WORDS}
        rows = self.word_vectors.num_embeddings
        if not words or max(words.values()) >= rows:
            raise ValueError(
                f"The vocabulary has {len(vocabulary)} words, special words included, and the model has vectors for "
                f"{rows}: make the tokenizer with the task's words (ElmoTokenizer.create(vocabulary)), and set "
                "vocab_size to len(tokenizer)."
            )
        found = read_word_vectors(path, {*words, *map(str.lower, words)}, self.config.word_vector_size)
        matrix = torch.zeros(self.word_vectors.weight.shape)
        count = 0
        for word, number in words.items():
            vector = look_up(word, found)
            if vector is not None:
                matrix[number] = torch.from_numpy(vector)
                count += 1
        with torch.no_grad():
            self.word_vectors.weight.copy_(matrix)
        return count / len(words)

    def _head_places(self) -> list[str]:
        fixed = {"word_vectors"} if self.config.freeze_word_vectors else set()
        return [place for place in super()._head_places() if place not in fixed]

    def _word_tables(self) -> list[nn.Module]:
        return [*super()._word_tables(), *([] if self.word_vectors is None else [self.word_vectors])]

    def _further_vectors(self, input_ids: Tensor | None, character_ids: Tensor | None) -> list[Tensor]:
        """What the words' vectors have beside ELMo, ``(batch, words, ...)`` each."""
        vectors = []
        if self.char_cnn is not None:
            if character_ids is None:
                raise ValueError(
                    "The character CNN beside ELMo (char_cnn_filters) reads character_ids: pass them, too."
                )
            self.elmo.check_row_length(character_ids)
            # Without the word's id, which may stand behind.
            characters = character_ids[..., : self.config.max_characters_per_token]
            if isinstance(self.char_cnn, CharacterEncoder) and is_traced_whole():
                vectors.append(encode_padded(self.char_cnn, characters))
            else:
                vectors.append(self.char_cnn(characters))
        if self.word_vectors is not None:
            if input_ids is None:
                raise ValueError(
                    "The word vectors (word_vector_size) are looked up by input_ids, (batch, words): pass them, too."
                )
            if not is_traced_whole():
                _check_word_ids(input_ids, self.word_vectors.num_embeddings)
            vectors.append(self.word_vectors(input_ids))
        return vectors

    def _loss(
        self,
        scores: Tensor,
        labels: Tensor,
        words: Tensor,
        segments: Tensor | None,
        constraints: TagConstraints | None,
        num_items: Tensor | int | None,
    ) -> Tensor:
        """The loss per labelled word, and the penalty of the mix weights."""
        if self.crf is not None:
            total = self.crf(scores, labels, words, segments, constraints)
        else:
            exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
            total = F.cross_entropy(exact.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        count = labels.ne(-100).sum()
        divisor = loss_divisor(num_items, count)
        loss = total / divisor
        if self.training and self.config.scalar_mix_l2 > 0:
            # An adapter around a mix hands its attributes on.
            mixes = (cast("ScalarMix", mix) for mix in self.elmo.scalar_mixes)
            penalty = torch.stack([mix.weights.square().sum() for mix in mixes]).sum()
            # A batch of which this one is a part shall have the penalty once.
            loss = loss + self.config.scalar_mix_l2 * penalty * (count / divisor)
        return loss

    def _freeze(self) -> None:
        if self.word_vectors is not None:
            self.word_vectors.requires_grad_(not self.config.freeze_word_vectors)
        super()._freeze()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LinearChainCrf):
            for parameter in module.parameters():
                init.zeros_(parameter)
        elif isinstance(module, HighwayLstmLayer):
            init.xavier_uniform_(module.weight_ih)
            init.xavier_uniform_(module.weight_hh)
            init.zeros_(module.bias)
            if module.input_bias is not None:
                init.zeros_(module.input_bias)
        elif module is self.word_vectors and self.config.freeze_word_vectors:
            # Until vectors are loaded nothing is known of the words, which zeros say.
            init.zeros_(module.weight)
        else:
            super()._init_weights(module)


def _char_cnn(config: ElmoConfig) -> CharacterEncoder | UnicodeCharacters | None:
    """The small character network beside ELMo, if any: over ELMo's bytes with their marks, or over an alphabet."""
    filters, characters = config.char_cnn_filters, config.char_cnn_characters
    if config.char_lstm_size and characters is not None:  # the configuration refuses one without the other
        return UnicodeCharacterLstm(characters, config.char_cnn_embed_dim, config.char_lstm_size)
    if filters is None:
        return None
    if characters is None:
        return CharacterEncoder(_char_cnn_sizes(config, filters))
    return UnicodeCharacterCnn(characters, config.char_cnn_embed_dim, filters, config.activation)


def _char_cnn_sizes(config: ElmoConfig, filters: list[list[int]]) -> CharacterSizes:
    """The sizes of the small character CNN: convolutions alone."""
    return CharacterSizes(
        char_vocab_size=config.char_vocab_size,
        char_embed_dim=config.char_cnn_embed_dim,
        filters=filters,
        activation=config.activation,
        row_length=config.max_characters_per_token,
    )


def _boundaries(
    mask: Tensor, segments: Tensor | None, input_ids: Tensor | None, character_ids: Tensor | None, config: ElmoConfig
) -> Tensor:
    """BOS at the begin of sentences, and EOS at their ends, ``(batch, words)``, bool.

    A word that is written like one of them, within a sentence, is a word.
    """
    first = _begins(mask, segments)
    last = _begins(mask.flip(1), None if segments is None else segments.flip(1)).flip(1)
    if character_ids is not None and not config.character_inputs:
        input_ids, character_ids = character_ids[..., 0], None
    if character_ids is not None:
        kinds = character_ids[..., 1]
        return (first & (kinds == BEGIN_SENTENCE)) | (last & (kinds == END_SENTENCE))
    if input_ids is not None:
        return (first & (input_ids == config.bos_token_id)) | (last & (input_ids == config.eos_token_id))
    # Layers that were computed before have rows for BOS and EOS.
    return first | last


def _begins(mask: Tensor, segments: Tensor | None) -> Tensor:
    """The first words of sentences, ``(batch, words)``, bool; words that the mask leaves out are in none."""
    first = mask & (mask.cumsum(dim=1) == 1)
    return first if segments is None else first | begins(mask, segments)


# A compiled model leaves its graph here, because it depends on the values whether there is an error.
@torch.compiler.disable
def _check_word_ids(input_ids: Tensor, vocab_size: int) -> None:
    # On an accelerator the check would wait for the device; there the embedding itself reports it.
    if input_ids.device.type == "cpu" and input_ids.numel() and int(input_ids.max()) >= vocab_size:
        raise ValueError(
            f"A word has the id {int(input_ids.max())}, but the model has word vectors for {vocab_size} words: is its "
            "vocab_size that of the tokenizer (len(tokenizer))?"
        )


@torch.compiler.disable
def _checked_labels(labels: Tensor, words: Tensor, num_labels: int) -> Tensor:
    """The labels, int64, -100 for all that is not a word of a sentence."""
    if labels.shape != words.shape:
        raise ValueError(
            f"labels are {tuple(labels.shape)}, but there are (batch, words) = {tuple(words.shape)}: each word, BOS, "
            "EOS and padding included, has one label, -100 for none."
        )
    if labels.is_floating_point():
        raise ValueError(f"labels must be integers, was: {labels.dtype}.")
    labels = labels.long().masked_fill(~words, -100)
    wrong = labels[(labels != -100) & ((labels < 0) | (labels >= num_labels))]
    if len(wrong):
        raise ValueError(
            f"A label is {int(wrong[0])}, but the {num_labels} labels of the model (num_labels) are 0 to "
            f"{num_labels - 1}, and -100 for none: set num_labels in from_pretrained, or number the labels from 0."
        )
    return labels


__all__ = ["ElmoForTokenClassification", "ElmoTokenClassifierOutput"]
