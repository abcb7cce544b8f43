"""The configuration of an ELMo that writes: an ELMo as the encoder, and any decoder with cross-attention."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

# Not from `transformers` itself: hf_elmo registers this configuration while that is still being imported. For the same
# reason this is no subclass of `EncoderDecoderConfig`, whose module imports AutoConfig in its turn.
from transformers.models.auto.configuration_auto import AutoConfig

from ..configuration_elmo import ElmoConfig


class ElmoEncoderDecoderConfig(PreTrainedConfig):
    r"""The two configurations of an `ElmoEncoderDecoderModel`, and the ids with which targets begin and are padded.

    ```python
    decoder = GPT2Config(vocab_size=4000, n_layer=2, bos_token_id=2, eos_token_id=3, pad_token_id=0)
    config = ElmoEncoderDecoderConfig.from_encoder_decoder_configs(ElmoConfig.from_preset("small"), decoder)
    ```

    Attributes:
        encoder: An `ElmoConfig`. With its `freeze_bilm` (the default) the biLM stays as it is, and its mix is trained.
        decoder: Configuration of a decoder with cross-attention, such as `GPT2Config` or `BertConfig`.
        decoder_start_token_id: The id that stands before every target. None: the decoder's own, or its `bos_token_id`.
        pad_token_id: The id of padding behind targets. None: the decoder's, or else its `eos_token_id`.
        eos_token_id: The id that ends a target, where the decoder's configuration has none. None: the decoder's.
    """

    model_type = "elmo-encoder-decoder"
    # A class for the encoder, rather than its model_type, which transformers does not know where hf_elmo is missing.
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "encoder": SubConfigSpec(config_class=ElmoConfig),
        "decoder": SubConfigSpec(
            config_class=AutoConfig, model_type="gpt2", init_kwargs={"is_decoder": True, "add_cross_attention": True}
        ),
    }

    # Given as configurations or dictionaries; configurations once this is made.
    encoder: Any = None
    decoder: Any = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        decoder = self.decoder
        if self.decoder_start_token_id is None:
            own = getattr(decoder, "decoder_start_token_id", None)
            self.decoder_start_token_id = getattr(decoder, "bos_token_id", None) if own is None else own
        if self.pad_token_id is None:
            own = getattr(decoder, "pad_token_id", None)
            ends = self.end_token_ids
            self.pad_token_id = own if own is not None else ends[0] if ends else None

    @property
    def end_token_ids(self) -> list[int]:
        """The ids that end a target; empty if neither this configuration nor the decoder's has one."""
        end = self.eos_token_id
        if end is None:
            end = getattr(self.decoder, "eos_token_id", None)
        return [] if end is None else list(end) if isinstance(end, (list, tuple)) else [end]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in `transformers.PreTrainedConfig`.

        Raises:
            ValueError: for the configuration of another model, which has no encoder or no decoder.
        """
        missing = [part for part in ("encoder", "decoder") if not config_dict.get(part)]
        if missing:
            raise ValueError(
                f"This is a configuration of the model type {config_dict.get('model_type')!r} without "
                f"{' and '.join(missing)}, but an ElmoEncoderDecoderModel has both. Make one of an ELMo and a decoder "
                "with ElmoEncoderDecoderModel.from_encoder_decoder_pretrained(elmo_folder, decoder_folder), and save "
                "that."
            )
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PreTrainedConfig, decoder_config: PreTrainedConfig, **kwargs: Any
    ) -> ElmoEncoderDecoderConfig:
        """The configuration of the two together; the decoder's is copied and made that of one with cross-attention.

        Args:
            encoder_config: An `ElmoConfig`.
            decoder_config: Configuration of the decoder.
            kwargs: Further attributes, such as `decoder_start_token_id`.

        Raises:
            ValueError: for an encoder that is not an ELMo.
        """
        if encoder_config.model_type != cls.sub_configs_defaults["encoder"].model_type:
            raise ValueError(
                f"The encoder's configuration must be an ElmoConfig, was: {type(encoder_config).__name__}."
            )
        encoder, decoder = encoder_config.to_dict(), decoder_config.to_dict()
        for part in (encoder, decoder):
            # What loads their own folders. This model's folder has an entry of its own.
            part.pop("auto_map", None)
            part.pop("custom_pipelines", None)
        decoder |= {"is_decoder": True, "add_cross_attention": True}
        return cls(encoder=encoder, decoder=type(decoder_config).from_dict(decoder), **kwargs)


__all__ = ["ElmoEncoderDecoderConfig"]
