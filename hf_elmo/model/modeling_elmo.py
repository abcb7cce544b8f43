"""ELMo as a transformers model: the biLM with its scalar mixes, and the language model that it was trained as."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .adapter_names import HeadForAdapters, named_stand_ins, second_names
from .character_encoder import CharacterEncoder, ScaledLinear, check_row_length
from .configuration_elmo import ElmoConfig
from .lstm.bilstm import BiLstm
from .lstm.lstm_layer import ElmoState, LstmLayer
from .lstm.packing import Packing, Words
from .lstm.tracing import is_traced_whole, read_layers_padded
from .remote_code import SavedElmo
from .sampled_softmax import LogUniformSampler, sampled_softmax_losses
from .scalar_mix import ScalarMix
from .word_encoder import WordEncoder

# `[PAD]`, `[UNK]`, `<S>` and `</S>` stand before all words.
_NUM_SPECIAL_WORDS = 4

logger = logging.get_logger(__name__)


@dataclass
class ElmoModelOutput(ModelOutput):
    """What `ElmoModel` returns. All tensors are in the dtype of the weights; rows of padding are zeros.

    Attributes:
        last_hidden_state: ``(batch, words, 2 * projection_dim)``: the ELMo representation, which is the first mix.
        further_representations: ``(batch, num_representations - 1, words, 2 * projection_dim)``: the other mixes, if
            there are any.
        hidden_states: With `output_hidden_states`: the `num_layers + 1` layers, each of that shape. The first is the
            context-free word vector, twice side by side, so that all layers are of one size.
        state: With `return_state`: the LSTM state after the last word of each row.
        attentions: None: an LSTM has none. `EncoderDecoderModel` reads this of every encoder.
    """

    last_hidden_state: Tensor | None = None
    # Pipelines cut an output into rows along the first dimension; a tuple of mixes would have another one there.
    further_representations: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    state: ElmoState | None = None
    attentions: tuple[Tensor, ...] | None = None

    @property
    def elmo_representations(self) -> tuple[Tensor, ...]:
        """All `num_representations` mixes, ``(batch, words, 2 * projection_dim)`` each."""
        first, further = self.last_hidden_state, self.further_representations
        if first is None:
            raise ValueError("This output has no representations: it was made without a last_hidden_state.")
        return (first, *(() if further is None else further.unbind(dim=1)))


@dataclass
class ElmoForPreTrainingOutput(ModelOutput):
    """What `ElmoForPreTraining` returns.

    Attributes:
        loss: With labels: mean of `forward_loss` and `backward_loss`.
        forward_loss: Cross entropy of the next word, in nats per word; in training, against the sample if one is drawn.
        backward_loss: Cross entropy of the previous word, likewise.
        logits: Without labels, or on request: ``(batch, words, vocab_size)``: at each word, scores of the next one.
        backward_logits: Likewise, scores of the previous word.
        hidden_states: With `output_hidden_states`, as in `ElmoModelOutput`.
        state: With `return_state`, as in `ElmoModelOutput`.
        attentions: None, as in `ElmoModelOutput`.
    """

    loss: Tensor | None = None
    forward_loss: Tensor | None = None
    backward_loss: Tensor | None = None
    logits: Tensor | None = None
    backward_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    state: ElmoState | None = None
    attentions: tuple[Tensor, ...] | None = None


class ElmoPreTrainedModel(SavedElmo):
    """What all ELMo models share: configuration, initialisation, loading and saving."""

    if TYPE_CHECKING:
        # Not said at run time, where the library would take the configuration's class from it instead.
        config: ElmoConfig

    config_class = ElmoConfig
    base_model_prefix = "elmo"
    main_input_name = "input_ids"
    # Task heads take the biLM as it is (section 3.2) unless the configuration says otherwise; base models train it.
    freezes_bilm = False
    supports_gradient_checkpointing = True
    _no_split_modules = ["CharacterEncoder", "BiLstm"]  # noqa: RUF012 (the library's convention)
    # The hub's tags in cards that the library makes.
    model_tags = ["elmo", "bilm", "character-cnn"]  # noqa: RUF012
    # The name by which PEFT finds the head (`adapter_names.py`).
    head_ending: ClassVar[str | None] = None
    # A language model's folder is a base model's folder too: its softmax is not missed there.
    _keys_to_ignore_on_load_unexpected = [r"^softmax\."]  # noqa: RUF012

    @property
    def _bilstm(self) -> BiLstm:
        return self.base_model.bilstm

    def _after_loading(self, source: str | os.PathLike | None, report: dict[str, Any]) -> None:
        if self.base_model is not self:
            self._check_task(report)
        self._freeze()
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        prefix = self.base_model_prefix + "."
        self._fresh_parameters = sorted(
            name for name in trained.intersection(report["missing_keys"]) if not name.startswith(prefix)
        )

    # Parameters of the head that the checkpoint lacked, and which are random.
    _fresh_parameters: Sequence[str] = ()

    def train(self, mode: bool = True) -> Self:
        """As in `torch.nn.Module`; warns of a head that was made afresh and is not trained."""
        super().train(mode)
        if mode and self._fresh_parameters:
            parameters = dict(self.named_parameters())
            fixed = [
                name for name in self._fresh_parameters if name in parameters and not parameters[name].requires_grad
            ]
            if fixed:
                parts = sorted({name.partition(".")[0] for name in fixed})
                logger.warning_once(
                    f"{type(self).__name__} was made without weights for {', '.join(parts)}, which are random, and are "
                    "not trained now. With an adapter of PEFT, give the task's task_type, or "
                    f"modules_to_save={parts} in its configuration."
                )
        return self

    def _head_places(self) -> list[str]:
        """The modules that belong to the task and have parameters to train: the head's parts, and the mixes."""
        places = []
        for name, child in self.named_children():
            if name == self.base_model_prefix:
                continue
            if isinstance(child, nn.ModuleList):
                places += [f"{name}.{number}" for number in range(len(child))]
            elif next(child.parameters(), None) is not None:
                places.append(name)
        if self.config.scalar_mix_parameters is None:
            mixes = range(len(self.base_model.scalar_mixes))
            places += [f"{self.base_model_prefix}.scalar_mixes.{number}" for number in mixes]
        return places

    @property
    def head_for_adapters(self) -> HeadForAdapters:
        """The parts of the head under the names by which PEFT finds them."""
        return HeadForAdapters(self, self._second_names())

    def _second_names(self) -> dict[str, str]:
        return {} if self.head_ending is None else second_names(self._head_places(), self.head_ending)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As in `torch.nn.Module`; the names of duplicates include those for adapters."""
        yield from super().named_modules(memo, prefix, remove_duplicate)
        if not remove_duplicate:
            yield from named_stand_ins(self._second_names(), prefix)

    def _check_task(self, report: dict[str, Any]) -> None:
        """Raises ValueError if a checkpoint has a biLM and a head, but another head than this class."""
        name, prefix = type(self).__name__, self.base_model_prefix + "."
        missing, surplus = (
            sorted(key for key in report[kind] if not key.startswith(prefix))
            for kind in ("missing_keys", "unexpected_keys")
        )
        # Weights of anything else are not another task's: the library itself reports that every one of them is missing.
        has_bilm = any(key.startswith(prefix) and key not in report["missing_keys"] for key in self.state_dict())
        # A base model has no head, and the base of any model may be loaded: then only one of the two is there.
        if has_bilm and missing and surplus:
            raise ValueError(
                f"This is not a checkpoint of {name}: it has {surplus[0]} and lacks {missing[0]}. Load it with "
                "the class that its config.json names (architectures). To train another head on its biLM, save its "
                f"base model, ElmoModel.from_pretrained(...).save_pretrained(folder), and make {name} of it."
            )

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Makes the word vocabulary larger or smaller, as after `tokenizer.add_tokens`.

        ELMo reads the characters of words, so for most models this is no more than the count in the configuration. What
        has a row for each word gets rows, or loses its last ones: the softmax of `ElmoForPreTraining`, a word embedding
        (`word_embed_dim`, and that of a model without characters), and the word vectors of a tagger
        (`word_vector_size`).

        Args:
            new_num_tokens: Words of the vocabulary, special words included: `len(tokenizer)`. None: as it is.
            pad_to_multiple_of: Refused: each row of a softmax is a word that can be predicted.
            mean_resizing: As in `transformers.PreTrainedModel`: new rows come from a normal distribution around the
                mean of the old ones, or else from that of a fresh layer.

        Returns:
            The input embeddings; those of characters are not resized.

        Raises:
            ValueError: for less than the special words, for rows beyond the vocabulary, and for parts that cannot be
                resized where they are (within an adapter, or offloaded).
        """
        if pad_to_multiple_of is not None:
            raise ValueError(
                f"pad_to_multiple_of is {pad_to_multiple_of}, but every row of the word vocabulary is a word that can "
                "be predicted: leave it out, and give len(tokenizer)."
            )
        if new_num_tokens is not None and new_num_tokens != self.config.vocab_size:
            _resize_word_vocabulary(self, self._word_tables(), new_num_tokens, mean_resizing)
        return self.get_input_embeddings()

    @property
    def base_model(self) -> ElmoModel:
        """The biLM with its mixes: the model itself, or the one below a head."""
        return cast("ElmoModel", super().base_model)

    def get_input_embeddings(self) -> nn.Embedding:
        """The character embedding, ``(char_vocab_size, char_embed_dim)``; without characters that of words.

        That is ``(vocab_size, projection_dim)``.
        """
        encoder = self.base_model.character_encoder
        return encoder.word_embedding if isinstance(encoder, WordEncoder) else encoder.char_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the character embedding; without characters that of words.

        Raises:
            ValueError: for anything but an embedding.
        """
        if not isinstance(value, nn.Embedding):
            raise ValueError(f"An embedding must be a torch.nn.Embedding, was: {type(value).__name__}.")
        encoder = self.base_model.character_encoder
        if isinstance(encoder, WordEncoder):
            encoder.word_embedding = value
        else:
            encoder.char_embedding = value

    @property
    def device(self) -> torch.device:
        """Where inputs belong: the device of the parameters, or that to which `accelerate` loads offloaded ones."""
        device = super().device
        if device.type != "meta":
            return device
        for module in self.modules():
            hook = getattr(module, "_hf_hook", None)
            for part in getattr(hook, "hooks", [hook]):
                if getattr(part, "execution_device", None) is not None:
                    return torch.device(part.execution_device)
        return device

    @property
    def qconfig(self) -> NoReturn:
        """What torch's own quantisation would put here, which cannot be set."""
        raise AttributeError(f"{type(self).__name__} has no qconfig.")

    @qconfig.setter
    def qconfig(self, value: object) -> None:
        # torch would pass over the biLM, whose layers are not its own, and nobody would notice.
        raise ValueError(
            "The quantisation of torch.ao.quantization does not know the layers of ELMo: hf_elmo.quantize(model), of "
            "the package hf_elmo, puts a model's large matrices into 8 bits."
        )

    def _word_tables(self) -> list[nn.Module]:
        """What has a row for each word of the vocabulary."""
        embedding = self.base_model.character_encoder.word_embedding
        return [] if embedding is None else [embedding]

    def post_init(self) -> None:
        """As in `transformers.PreTrainedModel`; what is not to be trained is frozen."""
        super().post_init()
        # A model's own list: the library adds to it.
        self.model_tags = [tag for tag in self.model_tags if self.config.character_inputs or tag != "character-cnn"]
        self._freeze()

    def _freeze(self) -> None:
        """Freezes what the configuration says is fixed: the mixes' weights if given, the biLM in task heads."""
        if self.base_model is not self and self.freezes_bilm and self.config.freeze_bilm:
            self.base_model.character_encoder.requires_grad_(False)
            self.base_model.bilstm.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, ScalarMix):
                module.requires_grad_(self.config.scalar_mix_parameters is None)
        # A frozen biLM is to leave training mode.
        self.train(self.training)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The original's initialisation (bilm-tf, `bilm/training.py`)."""
        # Only modules with parameters of their own come here: the library passes over those that hold others.
        config = self.config
        if isinstance(module, nn.Embedding):
            # Characters; or words, whose table bilm-tf leaves to TensorFlow, Glorot-uniform.
            bound = 1.0 if config.character_inputs else math.sqrt(6 / sum(module.weight.shape))
            init.uniform_(module.weight, -bound, bound)
            # The library also initialises embeddings of new words alone, none of which is padding.
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                module.weight[module.padding_idx].zero_()
        elif isinstance(module, nn.Conv1d):
            if config.activation == "relu":
                init.uniform_(module.weight, -0.05, 0.05)
            else:
                init.normal_(module.weight, std=math.sqrt(1 / (module.in_channels * module.kernel_size[0])))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ScaledLinear):
            init.normal_(module.weight, std=math.sqrt(1 / module.in_features))
            init.constant_(module.bias, module.initial_bias)
        elif isinstance(module, LstmLayer):
            # Glorot-uniform of TensorFlow's one kernel over input and output together.
            bound = math.sqrt(6 / (2 * config.projection_dim + 4 * config.cell_size))
            init.uniform_(module.weight_ih, -bound, bound)
            init.uniform_(module.weight_hh, -bound, bound)
            init.zeros_(module.bias)
            if module.weight_hr is not None:
                init.xavier_uniform_(module.weight_hr)
        elif isinstance(module, ScalarMix):
            init.copy_(module.weights, torch.tensor(module.initial_weights))
            init.ones_(module.gamma)
        else:
            super()._init_weights(module)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two short sentences, as `input_ids` and, if the model reads characters, `character_ids`."""
        if not self.config.character_inputs:
            return {"input_ids": torch.ones(2, 3, dtype=torch.long)}
        characters = torch.full((2, 3, self.config.row_length), 1)
        return {"input_ids": torch.ones(2, 3, dtype=torch.long), "character_ids": characters}


class ElmoModel(ElmoPreTrainedModel):
    """The biLM and its scalar mixes: one vector per word, from its characters and its whole sentence.

    By default the model keeps no state and draws nothing at random: a sentence's vectors depend on that sentence alone.
    The original programs instead carried the LSTM state from batch to batch; pass `state` to do the same.

    `torch.compile` leaves the biLM out of its graphs, where it is faster (`read`); `torch.compile(fullgraph=True)` and
    `torch.export` trace it whole (`tracing.py`), one graph for all lengths.
    """

    _can_compile_fullgraph = True

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        if config.character_inputs:
            self.character_encoder = CharacterEncoder(config)
        else:
            # It has what is asked of an encoder beyond its own class.
            self.character_encoder = cast("CharacterEncoder", WordEncoder(config))
        self.bilstm = BiLstm(config)
        self.scalar_mixes = nn.ModuleList(
            ScalarMix(config.num_layers + 1, config.do_layer_norm, config.scalar_mix_parameters)
            for _ in range(config.num_representations)
        )
        self.dropout = nn.Dropout(config.representation_dropout)
        self.post_init()

    def train(self, mode: bool = True) -> ElmoModel:
        """As in `torch.nn.Module`; but a biLM none of whose parameters is trained stays in evaluation mode."""
        super().train(mode)
        if mode and not self._trains_bilm():
            self.character_encoder.eval()
            self.bilstm.eval()
        return self

    def _trains_bilm(self) -> bool:
        parts = (self.character_encoder, self.bilstm)
        return any(parameter.requires_grad for part in parts for parameter in part.parameters())

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        layer_states: Tensor | None = None,
        state: ElmoState | None = None,
        return_state: bool = False,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ElmoModelOutput:
        """Reads a batch of sentences.

        Args:
            input_ids: ``(batch, words)``, word ids. Not read, unless the model reads words (`character_inputs` is
                False), or it comes as ``(batch, words, chars)``: then it is taken for `character_ids` (AllenNLP's
                habit).
            character_ids: ``(batch, words, chars)``, integers as `ElmoTokenizer` makes them; 0 is padding. A model that
                reads words takes their ids here too, as ``(batch, words, 1)``.
            attention_mask: ``(batch, words)``, nonzero for words, in any place. None: every word that has characters,
                or an id other than 0.
            token_type_ids: ``(batch, words)``. Where it changes within a row a new sentence begins, with an LSTM state
                of its own. None: each row is one sentence.
            layer_states: ``(batch, num_layers + 1, words, 2 * projection_dim)``: layers computed before, BOS and EOS
                included, to be mixed only. Instead of `character_ids`.
            state: State to start from, one column per row; zeros if None.
            return_state: Return the state after each row.
            output_hidden_states: Return the layers; None: as the configuration says.

        Raises:
            ValueError: for missing or mis-shaped inputs, and for a state together with rows of several sentences.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_tensors(token_type_ids=token_type_ids)
        mask = self.word_mask(input_ids, character_ids, attention_mask, layer_states)
        layers: Sequence[Tensor]
        new_state = None
        if layer_states is not None:
            if state is not None or return_state:
                raise ValueError("layer_states are computed already: there is no LSTM state to start from or return.")
            layers = layer_states.to(self.dtype).unbind(dim=1)
        else:
            characters = self.rows(input_ids, character_ids)
            layers, new_state = self.read(characters, mask, token_type_ids, state, return_state)
        representations = tuple(self.dropout(mix(layers, mask)) for mix in self.scalar_mixes)
        return ElmoModelOutput(
            last_hidden_state=representations[0],
            further_representations=torch.stack(representations[1:], dim=1) if len(representations) > 1 else None,
            hidden_states=tuple(layers) if output_hidden_states else None,
            state=new_state,
        )

    def read(
        self,
        character_ids: Tensor,
        mask: Tensor,
        token_type_ids: Tensor | None = None,
        state: ElmoState | None = None,
        return_state: bool = False,
        backward_character_ids: Tensor | None = None,
    ) -> tuple[list[Tensor], ElmoState | None]:
        """The biLM's layers, before any mix.

        Args:
            character_ids: ``(batch, words, chars)``.
            mask: ``(batch, words)``, bool.
            token_type_ids: ``(batch, words)`` or None, as in `forward`.
            state: As in `forward`.
            return_state: As in `forward`.
            backward_character_ids: Like `character_ids`, if the backward stack is to read other words.

        Returns:
            `num_layers + 1` tensors ``(batch, words, 2 * projection_dim)``, zeros outside of the mask, and the state,
            in the order of the batch, if asked for.
        """
        if torch.jit.is_tracing():
            raise ValueError(
                "torch.jit.trace would record the lengths of these sentences, and read all others wrongly: make a "
                "graph for any number of sentences and words with `hf-elmo export` or torch.export (hf_elmo.export)."
            )
        if token_type_ids is not None:
            _check_words("token_type_ids", token_type_ids.shape, mask)
        if backward_character_ids is not None:
            _check_words("backward_character_ids", backward_character_ids.shape[:-1], mask)
        if state is not None:
            self._check_state(state, mask.shape[0])
        arguments = character_ids, mask, token_type_ids, state, backward_character_ids
        if is_traced_whole():
            # Elsewhere the character encoder checks them.
            for each in (character_ids, backward_character_ids):
                if each is not None:
                    self.check_row_length(each)
            layers, end = read_layers_padded(self.character_encoder, self.bilstm, *arguments)
            return layers, end if return_state else None
        return self._read_packed(*arguments, return_state)

    # The work depends on the lengths of the sentences, for each of which a compiler would make a graph of its own.
    @torch.compiler.disable
    def _read_packed(
        self,
        character_ids: Tensor,
        mask: Tensor,
        token_type_ids: Tensor | None,
        state: ElmoState | None,
        backward_character_ids: Tensor | None,
        return_state: bool,
    ) -> tuple[list[Tensor], ElmoState | None]:
        packing = Packing.from_mask(mask, token_type_ids)
        batch = len(mask)
        carries = state is not None or return_state
        if carries and len(packing.rows.unique()) < len(packing.rows):
            raise ValueError(
                "A row holds several sentences (token_type_ids changes within it), and each begins with a fresh LSTM "
                "state: give every sentence a row of its own to carry a state, or leave state and return_state out."
            )
        words = Words(*self.character_encoder(packing.pack(character_ids), distinct=True))
        backward_words = None
        if backward_character_ids is not None:
            backward_words = Words(*self.character_encoder(packing.pack(backward_character_ids), distinct=True))
        start = None
        if state is not None:
            start = ElmoState(*(part.to(words.vectors).index_select(2, packing.rows) for part in state))
        packed_layers, end = self.bilstm(words, packing, start, backward_words)
        both = (words, words if backward_words is None else backward_words)
        word_layer = torch.cat([each.all() for each in both], dim=-1)
        layers = [packing.unpack(layer) for layer in [word_layer, *packed_layers]]
        if not return_state:
            return layers, None
        before = state if state is not None else self.bilstm.initial_state(batch, words.vectors)
        # A row without words leaves its state as it was.
        return layers, ElmoState(
            *(old.to(new).index_copy(2, packing.rows, new) for old, new in zip(before, end, strict=True))
        )

    def word_mask(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        layer_states: Tensor | None = None,
    ) -> Tensor:
        """Where the words are, ``(batch, words)``, bool: the arguments are those of `forward`.

        Raises:
            ValueError: for missing or mis-shaped inputs.
        """
        check_tensors(
            input_ids=input_ids, character_ids=character_ids, attention_mask=attention_mask, layer_states=layer_states
        )
        if layer_states is None:
            present = self.rows(input_ids, character_ids) > 0
        else:
            expected = (self.config.num_layers + 1, self.config.hidden_size)
            if layer_states.dim() != 4 or (layer_states.shape[1], layer_states.shape[3]) != expected:
                raise ValueError(
                    f"layer_states must be (batch, layers, words, dim) with {expected[0]} layers of dim {expected[1]}, "
                    f"was: {tuple(layer_states.shape)}."
                )
            present = layer_states[:, 0] != 0
        if attention_mask is None:
            return present.any(dim=-1)
        if attention_mask.shape != present.shape[:2]:
            raise ValueError(
                f"attention_mask is {tuple(attention_mask.shape)}, but there are (batch, words) = "
                f"{tuple(present.shape[:2])}."
            )
        return attention_mask != 0

    def rows(self, input_ids: Tensor | None, character_ids: Tensor | None) -> Tensor:
        """What is read of each word, ``(batch, words, chars)``; of a model without characters ``(batch, words, 1)``.

        Raises:
            ValueError: for missing or mis-shaped inputs.
        """
        if self.config.character_inputs:
            return _character_ids(input_ids, character_ids)
        if character_ids is None and input_ids is not None:
            character_ids = input_ids.unsqueeze(-1) if input_ids.dim() == 2 else input_ids
        if character_ids is None or character_ids.dim() != 3 or character_ids.shape[2] != 1:
            given = "neither" if character_ids is None else f"{tuple(character_ids.shape)}"
            raise ValueError(
                f"This ELMo reads words (character_inputs is False): expected input_ids (batch, words), was: {given}. "
                "Pass everything that its own tokenizer returns, as in model(**tokenizer(text, return_tensors='pt'))."
            )
        return character_ids

    def check_row_length(self, character_ids: Tensor) -> None:
        """Raises ValueError for character ids, ``(..., chars)``, whose rows are not of `config.row_length`."""
        check_row_length(character_ids, self.config.row_length, self.config.word_embed_dim > 0)

    def _check_state(self, state: ElmoState, batch: int) -> None:
        sizes = (self.config.projection_dim, self.config.cell_size)
        for name, part, size in zip(("hidden", "cell"), state, sizes, strict=True):
            expected = (2, self.config.num_layers, batch, size)
            if tuple(part.shape) != expected:
                raise ValueError(
                    f"state.{name} must be (directions, layers, batch, dim) = {expected}, was: {tuple(part.shape)}. "
                    "A state belongs to the rows of the batch that it came from."
                )


class WordSoftmax(ScaledLinear):
    """The output layer over the word vocabulary. `[PAD]` is not a word: its score is the lowest there is."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config.projection_dim, config.vocab_size)
        self.pad_token_id = config.pad_token_id

    def forward(self, inputs: Tensor) -> Tensor:
        """``(..., projection_dim)`` to logits ``(..., vocab_size)``."""
        logits = super().forward(inputs)
        if self.pad_token_id is None:
            return logits
        padding = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        padding[self.pad_token_id] = True
        return logits.masked_fill(padding, torch.finfo(logits.dtype).min)


class ElmoForPreTraining(ElmoPreTrainedModel):
    """The bidirectional language model itself: at each word it predicts the next one, and the previous one.

    Both directions share the softmax (section 3.1), over the words of the tokenizer's vocabulary; others are predicted
    as `[UNK]`. The scalar mixes take no part and are frozen.

    In training mode, with `config.num_negative_samples`, each direction's losses are those of a sampled softmax
    (`sampled_softmax.py`), which are not to be compared with those of the full one, taken otherwise.
    """

    # Only where config.tie_word_embeddings says so.
    _tied_weights_keys = {"softmax.weight": "elmo.character_encoder.word_embedding.weight"}  # noqa: RUF012
    # Without labels: which words are scored depends on their values.
    _can_compile_fullgraph = True

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        if config.num_negative_samples is not None:
            # A vocabulary that cannot be sampled from is to be reported now rather than at the first step.
            LogUniformSampler.from_config(config)
        # Trainer then counts the words that have one before them, which are those that are predicted.
        self.loss_type = "ForCausalLM"
        self.elmo = ElmoModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.softmax: nn.Linear = WordSoftmax(config)
        if config.character_inputs:
            # There is no table of words to be tied to, whatever the configuration was told later.
            self._tied_weights_keys = {}
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The softmax, ``(vocab_size, projection_dim)``."""
        return self.softmax

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.softmax = value

    def _word_tables(self) -> list[nn.Module]:
        return [*super()._word_tables(), self.softmax]

    def _freeze(self) -> None:
        super()._freeze()
        self.elmo.scalar_mixes.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        backward_character_ids: Tensor | None = None,
        backward_labels: Tensor | None = None,
        state: ElmoState | None = None,
        return_state: bool = False,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> ElmoForPreTrainingOutput:
        """Predicts neighbours, and scores them against labels.

        Args:
            input_ids: As in `ElmoModel`.
            character_ids: As in `ElmoModel`.
            attention_mask: As in `ElmoModel`; holds for both streams.
            token_type_ids: As in `ElmoModel`. No word is predicted across the border of two sentences.
            labels: ``(batch, words)``: the id of the word at each position (the tokenizer's `input_ids`), -100 for
                words that are not to be predicted. Position t's forward prediction is scored against label t + 1, its
                backward prediction against label t - 1. Rows of running text may have one label more, the word that
                follows the row's last one, or -100: ``(batch, words + 1)``.
            backward_character_ids: ``(batch, words, chars)``: the words for the backward direction, if others than
                `character_ids`.
            backward_labels: Labels for the backward direction, if others than `labels`: ``(batch, words)``, or
                ``(batch, words + 1)`` with the word before the row first.
            state: As in `ElmoModel`.
            return_state: As in `ElmoModel`.
            output_hidden_states: As in `ElmoModel`.
            output_logits: Return logits, ``(batch, words, vocab_size)`` for each direction; None: without labels, and
                in evaluation by `Trainer` (which gives `num_items_in_batch`).
            num_items_in_batch: Divide the summed losses by this number of words, instead of by the number of labels
                that were scored (`Trainer` passes it, to accumulate gradients exactly).

        Raises:
            ValueError: for inputs as in `ElmoModel`, labels that do not fit the words, or the label smoothing of
                `Trainer`.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_tensors(
            token_type_ids=token_type_ids,
            labels=labels,
            backward_character_ids=backward_character_ids,
            backward_labels=backward_labels,
        )
        if labels is None and num_items_in_batch is not None and not output_logits:
            raise ValueError(
                "Trainer took the labels out of the batch, to compute a loss from the logits itself. With "
                "label_smoothing_factor it would score the logits of each word against the word itself, not its "
                "neighbours: leave it out. For a loss of your own (compute_loss_func), let the data collator add "
                "output_logits=True to each batch."
            )
        if backward_labels is not None and labels is None:
            raise ValueError("backward_labels came without labels: give both, or labels alone.")
        mask = self.elmo.word_mask(input_ids, character_ids, attention_mask)
        character_ids = self.elmo.rows(input_ids, character_ids)
        layers, new_state = self.elmo.read(
            character_ids, mask, token_type_ids, state, return_state, backward_character_ids
        )
        forward_top, backward_top = self.dropout(layers[-1]).chunk(2, dim=-1)
        losses: list[Tensor] = []
        if labels is not None:
            if backward_labels is None:
                if backward_character_ids is not None:
                    raise ValueError("backward_character_ids came without backward_labels.")
                # The word that follows a row is not one that its backward direction could predict.
                backward_labels = labels[:, : mask.shape[1]]
            targets = _next_words(labels, mask, token_type_ids), _previous_words(backward_labels, mask, token_type_ids)
            losses = self._losses((forward_top, backward_top), targets, num_items_in_batch)
        with_logits = output_logits
        if with_logits is None:
            # In evaluation, Trainer takes the logits for predictions.
            with_logits = labels is None or (num_items_in_batch is not None and not self.training)
        return ElmoForPreTrainingOutput(
            loss=(losses[0] + losses[1]) / 2 if losses else None,
            forward_loss=losses[0] if losses else None,
            backward_loss=losses[1] if losses else None,
            logits=self.softmax(forward_top) if with_logits else None,
            backward_logits=self.softmax(backward_top) if with_logits else None,
            hidden_states=tuple(layers) if output_hidden_states else None,
            state=new_state,
        )

    def _losses(
        self, tops: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], num_items: Tensor | int | None
    ) -> list[Tensor]:
        """Cross entropy of the labelled positions only: a softmax over words is too dear for the others."""
        chosen = [ids.flatten().ne(-100).nonzero().squeeze(1) for ids in targets]
        words = [top.flatten(0, 1).index_select(0, index) for top, index in zip(tops, chosen, strict=True)]
        labels = [ids.flatten().index_select(0, index) for ids, index in zip(targets, chosen, strict=True)]
        if self.training and self.config.num_negative_samples is not None:
            if hasattr(self.softmax, "get_delta_weight"):
                # `softmax.weight` is then the weights without the adapter's, which would silently never be trained.
                raise ValueError(
                    "A sampled softmax reads single rows of the softmax, past the adapter that is on it: leave softmax "
                    "out of the adapter's target_modules, or set config.num_negative_samples to None."
                )
            sampler = LogUniformSampler.from_config(self.config)
            totals = sampled_softmax_losses(words, labels, self.softmax.weight, self.softmax.bias, sampler)
        else:
            totals = [
                F.cross_entropy(self.softmax(top).float(), ids, reduction="sum")
                for top, ids in zip(words, labels, strict=True)
            ]
        counts = [num_items if num_items is not None else len(ids) for ids in labels]
        return [
            total / (count.to(total.device) if isinstance(count, Tensor) else max(count, 1))
            for total, count in zip(totals, counts, strict=True)
        ]


class _Input(str):
    """The name of an argument that is not to be taken for that of labels.

    `Trainer` takes every argument with "label" in its name for labels that batches must have to be evaluated, and
    drops columns of a dataset that are not arguments.
    """

    __slots__ = ()

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and text != "label" and super().__contains__(text)


def _with_input(function: Callable[..., object], name: str) -> None:
    """Gives an argument of a function a name that `Trainer` takes for that of an input."""
    signature = inspect.signature(function)
    parameters = [
        inspect.Parameter(_Input(each.name), each.kind, default=each.default, annotation=each.annotation)
        if each.name == name
        else each
        for each in signature.parameters.values()
    ]
    vars(function)["__signature__"] = signature.replace(parameters=parameters)


_with_input(ElmoForPreTraining.forward, "backward_labels")


def _character_ids(input_ids: Tensor | None, character_ids: Tensor | None) -> Tensor:
    """Finds the character ids among the inputs, ``(batch, words, chars)``."""
    if character_ids is None and input_ids is not None and input_ids.dim() == 3:
        character_ids = input_ids
    if character_ids is None:
        given = "input_ids alone, which name words but not their letters" if input_ids is not None else "neither"
        raise ValueError(
            f"ELMo reads character_ids of shape (batch, words, chars), but got {given}: pass everything that "
            "ElmoTokenizer returns, as in model(**tokenizer(text, return_tensors='pt'))."
        )
    if character_ids.dim() != 3:
        raise ValueError(f"character_ids must be (batch, words, chars), was: {tuple(character_ids.shape)}.")
    return character_ids


def check_tensors(**inputs: Tensor | None) -> None:
    """Raises ValueError for inputs that are neither a tensor nor None: texts, lists, NumPy's arrays."""
    for name, value in inputs.items():
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(
                f"{name} must be a tensor, was: {type(value).__name__}. The tokenizer makes tensors, as in "
                "model(**tokenizer(text, return_tensors='pt')), and torch.as_tensor makes them of lists and arrays."
            )


def check_finite(scores: Tensor) -> None:
    """Raises ValueError for a head's scores, of any shape, that are not finite. A graph that is whole cannot check."""
    if not is_traced_whole():
        _check_finite(scores)


# A compiled model leaves its graph here, because it depends on the values whether there is an error.
@torch.compiler.disable
def _check_finite(scores: Tensor) -> None:
    if not scores.isfinite().all():
        raise ValueError(
            "The scores are not finite (NaN or infinity): the weights of the model, or its inputs, are broken. Did the "
            "training diverge?"
        )


def label_count(config: ElmoConfig) -> int:
    """The number of labels of a head.

    Raises:
        ValueError: if the configuration has no labels.
    """
    if config.num_labels is None:
        raise ValueError("The configuration has no labels (id2label is None): set num_labels.")
    return config.num_labels


def loss_divisor(num_items: Tensor | int | None, count: Tensor) -> Tensor:
    """What a head divides its summed loss by: `num_items` if it is given, else `count`, but 1 at least.

    A batch without a single label has the loss 0 then; 0 / 0 would make NaN of all weights in one step.
    """
    divisor = count if num_items is None else torch.as_tensor(num_items, device=count.device)
    return divisor.clamp(min=1)


def _check_words(name: str, shape: torch.Size, mask: Tensor) -> None:
    if shape != mask.shape:
        raise ValueError(f"{name} is {tuple(shape)}, but there are (batch, words) = {tuple(mask.shape)}.")


def _next_words(labels: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
    """Targets of the forward direction, ``(batch, words)``: at each word the label behind it, -100 for none."""
    targets = _neighbours(labels, mask, shift=1)
    if segments is not None:
        targets[:, :-1] = targets[:, :-1].masked_fill(segments[:, :-1] != segments[:, 1:], -100)
    return targets


def _previous_words(labels: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
    """Targets of the backward direction, ``(batch, words)``: at each word the label before it, -100 for none."""
    targets = _neighbours(labels, mask, shift=-1)
    if segments is not None:
        targets[:, 1:] = targets[:, 1:].masked_fill(segments[:, :-1] != segments[:, 1:], -100)
    return targets


def _neighbours(labels: Tensor, mask: Tensor, shift: int) -> Tensor:
    width = mask.shape[1]
    if labels.shape[0] != mask.shape[0] or labels.shape[1] not in (width, width + 1):
        raise ValueError(
            f"labels must be (batch, words) or (batch, words + 1) for words of {tuple(mask.shape)}, was: "
            f"{tuple(labels.shape)}."
        )
    neighbours = labels.new_full(mask.shape, -100)
    if shift > 0:
        following = labels[:, 1:]
        # A row of running text says itself which of its words have a next one.
        present = mask[:, 1:] if following.shape[1] < width else mask
        neighbours[:, : following.shape[1]] = following.masked_fill(~present, -100)
    else:
        preceding = labels[:, :-1]
        present = mask[:, :-1] if preceding.shape[1] < width else mask
        neighbours[:, width - preceding.shape[1] :] = preceding.masked_fill(~present, -100)
    return neighbours.masked_fill(~mask, -100)


def _resize_word_vocabulary(
    model: ElmoPreTrainedModel, tables: Sequence[nn.Module], num_words: int, mean_resizing: bool = True
) -> None:
    """Gives a model a word vocabulary of another size.

    New words come last, which makes them the least frequent ones for a sampled softmax. Parameters of embeddings stay
    the same objects; those of linear layers are new.

    Args:
        model: The model, whose `config.vocab_size` is set.
        tables: What has a row for each word: embeddings, and linear layers. Both are changed in place.
        num_words: Words of the vocabulary, special words included.
        mean_resizing: Draw new rows around the mean of the old ones, rather than as those of a fresh layer.

    Raises:
        ValueError: for a number that is not at least that of the special words, and for tables that cannot be resized;
            nothing is changed then.
    """
    if isinstance(num_words, bool) or not isinstance(num_words, int) or num_words < _NUM_SPECIAL_WORDS:
        raise ValueError(
            f"A word vocabulary has at least {_NUM_SPECIAL_WORDS} words, the special ones, but {num_words!r} was given"
            ": give len(tokenizer)."
        )
    checked: list[nn.Embedding | nn.Linear] = []
    for table in tables:
        if not isinstance(table, (nn.Embedding, nn.Linear)):
            raise ValueError(
                f"The rows of words are within an adapter ({type(table).__name__}), and cannot be resized: do that "
                "before the adapter is added, or after merge_and_unload()."
            )
        if table.weight.is_meta:
            raise ValueError(
                "The rows of words are offloaded, and cannot be resized there: load the model without device_map, or "
                "with one that keeps them in memory."
            )
        checked.append(table)
    for table in checked:
        is_trained = table.weight.requires_grad
        if isinstance(table, nn.Embedding):
            model._get_resized_embeddings(table, num_words, mean_resizing=mean_resizing)
        else:
            # A plain linear layer comes back, and ours is to keep its class.
            resized = model._get_resized_lm_head(table, num_words, mean_resizing=mean_resizing)
            table.weight, table.bias, table.out_features = resized.weight, resized.bias, num_words
        table.requires_grad_(is_trained)
    # The softmax that is the table of words was made anew, apart from it.
    model.tie_weights()
    # Vectors of words that a model looks up would outlive the rows that they were computed from.
    model.base_model.character_encoder.cache = None
    model.config.vocab_size = num_words


__all__ = [
    "ElmoForPreTraining",
    "ElmoForPreTrainingOutput",
    "ElmoModel",
    "ElmoModelOutput",
    "ElmoPreTrainedModel",
]
