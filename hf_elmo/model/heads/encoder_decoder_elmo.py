"""ELMo that writes: the biLM reads a source, and a decoder with cross-attention writes the target."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self, cast

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    EncoderDecoderModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from ..lstm.bilstm import BiLstm
from ..modeling_elmo import ElmoModel, check_tensors
from ..remote_code import SavedElmo
from .configuration_encoder_decoder_elmo import ElmoEncoderDecoderConfig
from .encoder_decoder_checks import check_cross_attention, check_encoder, check_labels, check_sources, token_loss


class ElmoEncoderDecoderModel(SavedElmo, EncoderDecoderModel):
    """An `ElmoModel` and any decoder of transformers with cross-attention: translation, summaries, headlines.

    ```python
    encoder = ElmoModel.from_pretrained(hf_elmo.bundled())
    decoder = GPT2LMHeadModel(GPT2Config(vocab_size=len(target), add_cross_attention=True, bos_token_id=2, ...))
    model = ElmoEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.generate(**tokenizer(["A dog runs ."], return_tensors="pt"), num_beams=4)
    ```

    The decoder attends to the ELMo representation, which is its first mix; where the two are not of one size, a linear
    layer stands between them. `from_encoder_decoder_pretrained` takes both from folders.

    What differs from `EncoderDecoderModel`, to which the rest belongs:

    - `forward` names ELMo's inputs, so that `Trainer` does not drop them.
    - The loss is divided by the targets of the whole step (`num_items_in_batch`), so that accumulated gradients are
      those of one large batch. The library's would be too large by the number of accumulation steps.
    - The biLM is frozen, if the encoder's configuration says so (`freeze_bilm`, the default); its mix is trained. Give
      the mix a learning rate of its own, such as 0.1: it hardly moves with that of a decoder.
    - The embeddings of tokens are the decoder's.
    - Saved folders hold the code of all ELMo models, for `trust_remote_code=True`.
    """

    if TYPE_CHECKING:
        # An ElmoEncoderDecoderConfig, which is not a subclass of the library's.
        config: Any
        encoder: ElmoModel
        decoder: Any

    config_class: type[PreTrainedConfig] | None = ElmoEncoderDecoderConfig
    # Without this, `Trainer` would look into the signature; the loss below does use `num_items_in_batch`.
    accepts_loss_kwargs = True

    def __init__(
        self,
        config: PreTrainedConfig | None = None,
        encoder: ElmoModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        """Makes a model of parts, or a fresh one of a configuration.

        Args:
            config: An `ElmoEncoderDecoderConfig`; None: that of the two parts.
            encoder: An `ElmoModel`, without a head; None: a fresh one.
            decoder: A causal language model with cross-attention; None: a fresh one.

        Raises:
            ValueError: if both a configuration and one of the parts are missing, for an encoder that is not an
                `ElmoModel`, for a decoder without cross-attention, and for start, end or padding ids that are missing
                or are not ids of the decoder.
        """
        if encoder is not None:
            check_encoder(encoder)
        if decoder is not None:
            check_cross_attention(decoder)
        if config is None:
            if encoder is None or decoder is None:
                raise ValueError("Give a configuration, or both an encoder (ElmoModel) and a decoder.")
            # Which it is; but the library's own classes do not say so of themselves.
            decoder.config.is_decoder = decoder.config.add_cross_attention = True
            config = ElmoEncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        elif config.model_type != ElmoEncoderDecoderConfig.model_type:
            raise ValueError(f"The configuration must be an ElmoEncoderDecoderConfig, was: {type(config).__name__}.")
        # By remote code, the class of the configuration that was loaded is another object than ours.
        self.config_class = type(config)
        if encoder is None:
            encoder = ElmoModel(config.encoder)
        if decoder is None:
            decoder = AutoModelForCausalLM.from_config(config.decoder)
            check_cross_attention(decoder)
        super().__init__(config=config, encoder=encoder, decoder=decoder)
        self._check_token_ids()
        self._freeze()

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | os.PathLike | None = None,
        decoder_pretrained_model_name_or_path: str | os.PathLike | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> Self:
        """Makes a model of an ELMo and a decoder, as `EncoderDecoderModel.from_encoder_decoder_pretrained` does.

        Cross-attention that the decoder's folder lacks is made afresh.

        Args:
            encoder_pretrained_model_name_or_path: Folder (or name) of an ELMo; of one with a head, the base is taken.
            decoder_pretrained_model_name_or_path: Folder (or name) of a decoder.
            model_args: Passed on to `ElmoModel.from_pretrained`.
            kwargs: With the prefix `encoder_` or `decoder_`: passed on to that part's `from_pretrained`
                (`encoder_representation_dropout=0.2`); `encoder_model` and `decoder_model` are models to take as they
                are. Others are attributes of the `ElmoEncoderDecoderConfig`, such as `decoder_start_token_id`.

        Raises:
            ValueError: as the class, and if a part has neither a folder nor a model.
        """
        own = {name: kwargs.pop(name) for name in ("decoder_start_token_id",) if name in kwargs}
        parts: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
        for name in list(kwargs):
            part, _, rest = name.partition("_")
            if part in parts and rest:
                parts[part][rest] = kwargs.pop(name)
        encoder, decoder = parts["encoder"].pop("model", None), parts["decoder"].pop("model", None)
        for part, model, path in (
            ("encoder", encoder, encoder_pretrained_model_name_or_path),
            ("decoder", decoder, decoder_pretrained_model_name_or_path),
        ):
            if model is None and path is None:
                raise ValueError(f"There is no {part}: give its folder, or {part}_model=.")
        if encoder is None:
            encoder = ElmoModel.from_pretrained(encoder_pretrained_model_name_or_path, *model_args, **parts["encoder"])
        if decoder is None:
            decoder = _load_decoder(cast("str", decoder_pretrained_model_name_or_path), parts["decoder"])
        check_encoder(encoder)
        check_cross_attention(decoder)
        config = ElmoEncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config, **own, **kwargs)
        return cls(config=config, encoder=encoder, decoder=decoder)

    @property
    def _bilstm(self) -> BiLstm:
        return self.encoder.bilstm

    def _after_loading(self, source: str | os.PathLike | None, report: dict[str, Any]) -> None:
        missing = set(report["missing_keys"])
        for part in ("encoder", "decoder"):
            names = {name for name, _ in getattr(self, part).named_parameters(prefix=part)}
            if names <= missing:
                raise ValueError(
                    f"{source} has no weights of the {part} ({part}. ...): it is not a whole ElmoEncoderDecoderModel. "
                    "Save one with save_pretrained, or make one of two folders with "
                    "from_encoder_decoder_pretrained(elmo_folder, decoder_folder)."
                )
        self._freeze()

    def _freeze(self) -> None:
        """Freezes the biLM, if the configuration says so, and mixes that are given by it."""
        self.encoder._freeze()
        if self.config.encoder.freeze_bilm:
            self.encoder.character_encoder.requires_grad_(False)
            self.encoder.bilstm.requires_grad_(False)
        # A frozen biLM is to leave training mode.
        self.train(self.training)

    def _check_token_ids(self) -> None:
        """Raises ValueError for start, end or padding ids that the decoder's vocabulary has not."""
        size, ends = self.config.decoder.vocab_size, self.config.end_token_ids
        start, padding = self.config.decoder_start_token_id, self.config.pad_token_id
        found = f"decoder_start_token_id is {start}, eos_token_id is {ends or None} and pad_token_id is {padding}"
        remedy = (
            "Give the decoder's configuration the ids of the target tokenizer, as in GPT2Config(vocab_size=len(target),"
            " bos_token_id=target.bos_token_id, eos_token_id=target.eos_token_id, pad_token_id=target.pad_token_id), "
            "or give decoder_start_token_id, eos_token_id and pad_token_id to ElmoEncoderDecoderConfig."
        )
        if start is None or padding is None or not ends:
            raise ValueError(f"Targets need a start, an end and padding, but {found}. {remedy}")
        if any(not 0 <= number < size for number in (start, padding, *ends)):
            raise ValueError(f"The decoder's vocabulary has the ids 0 to {size - 1}, but {found}. {remedy}")

    @property
    def max_target_length(self) -> int | None:
        """The most tokens of a target, the start included: the decoder's positions. None: without a limit."""
        return getattr(self.config.decoder, "max_position_embeddings", None)

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embedding, ``(vocab_size, dim)``: ELMo reads characters, and has none."""
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.set_input_embeddings(value)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Makes the decoder's vocabulary larger or smaller, as after `add_tokens` of the target tokenizer."""
        return self.decoder.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        layer_states: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Reads sources, and scores each next token of their targets.

        Args:
            input_ids: ``(batch, words)``, as in `ElmoModel`.
            character_ids: ``(batch, words, chars)``, as in `ElmoModel`.
            attention_mask: ``(batch, words)``, as in `ElmoModel`; the decoder attends to these words.
            token_type_ids: ``(batch, words)``, as in `ElmoModel`.
            layer_states: As in `ElmoModel`: the biLM's layers, if they were computed before.
            decoder_input_ids: ``(batch, tokens)``, int64: the targets behind their start. None: made of the labels.
            decoder_attention_mask: ``(batch, tokens)``, nonzero for tokens. None: all but padding of the labels.
            encoder_outputs: What the encoder returned before; the sources are then not read again.
            past_key_values: What the decoder remembers of earlier tokens.
            decoder_inputs_embeds: ``(batch, tokens, dim)``: in the place of `decoder_input_ids`.
            labels: ``(batch, tokens)``, int64: the targets, their end included; -100 for padding.
            use_cache: Whether to return `past_key_values`.
            num_items_in_batch: Number of targets to divide the loss by, which `Trainer` passes; None: those here.
            kwargs: Passed on to the encoder, or to the decoder if they begin with `decoder_`; `output_attentions` and
                `output_hidden_states` to both.

        Returns:
            `logits` ``(batch, tokens, vocab_size)``; with labels `loss`, in nats per token.

        Raises:
            ValueError: for inputs as in `ElmoModel`, sources without a word, neither targets nor labels, targets beyond
                the decoder's positions, and labels that are not ids of the decoder.
        """
        check_tensors(labels=labels, decoder_input_ids=decoder_input_ids)
        if encoder_outputs is None:
            attention_mask = self.encoder.word_mask(input_ids, character_ids, attention_mask, layer_states).long()
            check_sources(attention_mask)
            kwargs |= {
                "character_ids": character_ids,
                "token_type_ids": token_type_ids,
                "layer_states": layer_states,
            }
        if labels is not None:
            check_labels(labels, self.config.decoder.vocab_size)
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
                if decoder_attention_mask is None:
                    # From the labels: the start of a target may have the id of padding.
                    decoder_attention_mask = F.pad(labels[:, :-1].ne(-100).long(), (1, 0), value=1)
        targets = decoder_input_ids if decoder_input_ids is not None else decoder_inputs_embeds
        if targets is None:
            raise ValueError(
                "There is nothing to predict: give labels, or decoder_input_ids. With label smoothing Trainer keeps "
                "the labels for itself: DataCollatorForSeq2Seq(tokenizer, model=model) adds decoder_input_ids."
            )
        if self.max_target_length is not None and targets.shape[1] > self.max_target_length:
            raise ValueError(
                f"A target has {targets.shape[1]} tokens, but the decoder has positions for {self.max_target_length}: "
                f"cut targets (max_length={self.max_target_length}, truncation=True; max_target_length of the example "
                "scripts), or take a decoder with more positions."
            )
        written = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        outputs = cast("Seq2SeqLMOutput", written)
        if labels is not None:
            outputs.loss = token_loss(cast("Tensor", outputs.logits), labels, num_items_in_batch)
        return outputs

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in `transformers.GenerationMixin`: tokens of the targets that the decoder writes for sources.

        Args:
            inputs: The same as `input_ids`.
            args: As there: `generation_config` and what follows it.
            kwargs: All that the tokenizer returned for the sources (`character_ids` ...), and what steers generation
                (`num_beams`, `max_new_tokens`, `do_sample` ...).

        Returns:
            ``(batch * num_return_sequences, tokens)``, int64, the start included; or what `return_dict_in_generate`
            asks for.

        Raises:
            ValueError: as `forward`, and for a length beyond the decoder's positions.
        """
        self._check_length(args[0] if args else kwargs.get("generation_config"), kwargs)
        characters = kwargs.get("character_ids")
        if inputs is None and kwargs.get("input_ids") is None and characters is not None:
            # Generation wants something of this name, of which it reads the size.
            kwargs["input_ids"] = characters[..., 0]
        if kwargs.get("encoder_outputs") is None:
            mask = self.encoder.word_mask(
                kwargs.get("input_ids") if inputs is None else inputs,
                characters,
                kwargs.get("attention_mask"),
                kwargs.get("layer_states"),
            )
            # Generation would take the source's ids of the target's padding for padding.
            kwargs["attention_mask"] = mask.long()
            check_sources(mask)
        # The library's annotation wants a class that it knows alone.
        return cast("Any", super()).generate(inputs, *args, **kwargs)

    def _check_length(self, generation_config: Any, options: dict[str, Any]) -> None:
        """Raises ValueError if generation may go beyond the decoder's positions."""
        if self.max_target_length is None:
            return
        config = self.generation_config if generation_config is None else generation_config
        more = options.get("max_new_tokens", config.max_new_tokens)
        prompt = options.get("decoder_input_ids")
        begun = 1 if prompt is None else prompt.shape[1]
        longest = options.get("max_length", config.max_length) if more is None else begun + more
        if longest is not None and longest > self.max_target_length:
            raise ValueError(
                f"Generation may go on to {longest} tokens, the start included, but the decoder has positions for "
                f"{self.max_target_length}: set max_new_tokens to at most {self.max_target_length - begun}."
            )


def _load_decoder(path: str, arguments: dict[str, Any]) -> PreTrainedModel:
    if "config" in arguments:
        config = arguments.pop("config")
    else:
        config, arguments = AutoConfig.from_pretrained(path, **arguments, return_unused_kwargs=True)
    config.is_decoder = True
    config.add_cross_attention = True
    return AutoModelForCausalLM.from_pretrained(path, config=config, **arguments)


__all__ = ["ElmoEncoderDecoderModel"]
