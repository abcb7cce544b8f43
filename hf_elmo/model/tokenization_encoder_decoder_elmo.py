"""Two tokenizers as one: ELMo's for sources, any tokenizer for targets."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken
from transformers import BatchEncoding, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import to_numpy

from .tokenization_elmo import ElmoTokenizer

#: Where the two lie in a saved folder.
SOURCE_FOLDER, TARGET_FOLDER = "source_tokenizer", "target_tokenizer"

# What says where to load from, and so concerns both.
_PLACES = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "token",
    "trust_remote_code",
)


class ElmoEncoderDecoderTokenizer(PreTrainedTokenizerBase):
    """The `processing_class` of an `ElmoEncoderDecoderModel`: it reads sources, and reads and writes targets.

    ```python
    tokenizer = ElmoEncoderDecoderTokenizer(ElmoTokenizer.from_pretrained(elmo), train_target_tokenizer(targets))
    batch = tokenizer(["A dog runs ."], text_target=["Ein Hund rennt ."], padding=True, return_tensors="pt")
    tokenizer.batch_decode(model.generate(**tokenizer("A dog runs .", return_tensors="pt")), skip_special_tokens=True)
    ```

    A text goes to the source's tokenizer (`source`), which returns `input_ids` ``(batch, words)`` and `character_ids`
    ``(batch, words, chars)``; `text_target` goes to the target's (`target`), which returns `input_ids` ``(batch,
    tokens)``. Of both together the targets' ids are `labels`. All else is the target's: `decode`, special tokens and
    their ids, the vocabulary, `len()`. So `Trainer`, which gives the model the ids of its `processing_class`, gives it
    those of the targets, and the example scripts of transformers need to know nothing of this.

    Where the target's tokenizer has no `bos_token` or `eos_token`, its `cls_token` and `sep_token` stand for them.
    `save_pretrained` puts the two into the folders `source_tokenizer` and `target_tokenizer`, and `AutoTokenizer` loads
    them as one.

    Args:
        source: An `ElmoTokenizer`.
        target: Any tokenizer that puts its end behind texts, such as `train_target_tokenizer` makes.

    Raises:
        TypeError: for a source that is not an `ElmoTokenizer`, and a target that is not a tokenizer.
        ValueError: for a target without a start, an end or padding of its own, and one that does not put its end
            behind texts.
    """

    def __init__(self, source: ElmoTokenizer, target: PreTrainedTokenizerBase):
        # By remote code, the class of a tokenizer that was loaded before is another object than ours.
        if not hasattr(source, "max_characters_per_token"):
            raise TypeError(f"The source's tokenizer must be an ElmoTokenizer, was: {type(source).__name__}.")
        if not isinstance(target, PreTrainedTokenizerBase):
            raise TypeError(f"The target's tokenizer must be one of transformers, was: {type(target).__name__}.")
        special: dict[str, Any] = dict(target.special_tokens_map)
        special.setdefault("bos_token", special.get("cls_token"))
        special.setdefault("eos_token", special.get("sep_token"))
        special.pop("extra_special_tokens", None)
        special.pop("additional_special_tokens", None)
        super().__init__(
            **{name: str(token) for name, token in special.items() if isinstance(token, (str, AddedToken))},
            model_max_length=target.model_max_length,
            padding_side="right",
            model_input_names=list(source.model_input_names),
        )
        self.source, self.target = source, target
        self._check_target()

    def _check_target(self) -> None:
        name = type(self.target).__name__
        remedy = (
            "hf_elmo.train_target_tokenizer(texts) makes one that fits; or give it what is missing with "
            "target.add_special_tokens, and the decoder rows for it with decoder.resize_token_embeddings(len(target))."
        )
        own = {"start": self.bos_token, "end": self.eos_token, "padding": self.pad_token}
        if missing := [part for part, token in own.items() if token is None]:
            raise ValueError(
                f"The target's tokenizer ({name}) has no token for {' and '.join(missing)} (bos_token or cls_token, "
                f"eos_token or sep_token, pad_token). {remedy}"
            )
        if self.pad_token_id == self.eos_token_id:
            raise ValueError(
                f"The target's tokenizer ({name}) pads with its end ({self.eos_token}): what leaves padding out of the "
                f"loss would leave the end out, and the model would never learn to stop. {remedy}"
            )
        ids = self.target("a")["input_ids"]
        if not ids or ids[-1] != self.eos_token_id:
            raise ValueError(
                f"The target's tokenizer ({name}) does not put its end ({self.eos_token}) behind a text, so that a "
                f"model would never learn to stop: set target.add_eos_token = True, where it has that. {remedy}"
            )

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        *,
        max_length: int | None = None,
        max_target_length: int | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Encodes sources, or targets, or both.

        Args:
            text: A source, or a list of them, as in `ElmoTokenizer`.
            text_pair: Second sentences of the sources.
            text_target: A target, or a list of them.
            text_pair_target: As the target's tokenizer takes it.
            max_length: Where `truncation=True` cuts: words of sources, tokens of targets. None: each where its own
                tokenizer does.
            max_target_length: Likewise, for targets alone.
            kwargs: Of `transformers.PreTrainedTokenizerBase`, for both.

        Returns:
            Fields of the sources, with `labels` if there are targets too; or the fields of the targets alone.

        Raises:
            ValueError: for neither sources nor targets, and for a source without words.
        """
        if text is None and text_target is None:
            raise ValueError("There is nothing to encode: give text (sources) or text_target (targets).")
        sources = targets = None
        if text is not None:
            sources = self.source(text, text_pair, max_length=max_length, **kwargs)
            self._check_words(sources, text, text_pair is not None, kwargs.get("add_special_tokens", True))
        if text_target is not None:
            longest = max_length if max_target_length is None else max_target_length
            targets = self.target(text_target, text_pair_target, max_length=longest, **kwargs)
        if sources is None:
            assert targets is not None
            return targets
        if targets is not None:
            sources["labels"] = targets["input_ids"]
        return sources

    def _check_words(self, sources: BatchEncoding, text: Any, is_pair: bool, has_special: bool) -> None:
        masks = sources.get("attention_mask")
        if masks is None:
            return
        specials = self.source.num_special_tokens_to_add(is_pair) if has_special else 0
        batch = masks if len(masks) and np.ndim(masks[0]) else [masks]
        for number, mask in enumerate(batch):
            if int(np.sum(to_numpy(mask))) <= specials:
                given = text[number] if len(batch) > 1 and isinstance(text, (list, tuple)) else text
                raise ValueError(
                    f"The source {given!r:.80} (number {number} of {len(batch)}) has no words, so that there is "
                    "nothing to write of it: leave such rows out of the data."
                )

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> list[int]:
        """The word ids of a source. They are not what ELMo reads: call the tokenizer for that."""
        return self.source.encode(text, *args, **kwargs)

    def tokenize(self, text: str, *args: Any, **kwargs: Any) -> list[str]:
        """The words of a source."""
        return self.source.tokenize(text, *args, **kwargs)

    def _encode_plus(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        return self.source._encode_plus(*args, **kwargs)

    def pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Pads sources, as `ElmoTokenizer.pad` does; what has no characters is taken for targets."""
        first = encoded_inputs if hasattr(encoded_inputs, "keys") else encoded_inputs[0] if encoded_inputs else {}
        is_source = "character_ids" in first or "layer_states" in first
        return (self.source if is_source else self.target).pad(encoded_inputs, *args, **kwargs)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Of sources: as their tokenizer says."""
        return self.source.num_special_tokens_to_add(pair)

    # From here on all is the target's.

    def __len__(self) -> int:
        return len(self.target)

    @property
    def vocab_size(self) -> int:
        """Size of the target's vocabulary, without tokens that were added later."""
        return self.target.vocab_size

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that were added to the target's vocabulary, by their ids."""
        return self.target.added_tokens_decoder

    def get_vocab(self) -> dict[str, int]:
        """The target's vocabulary."""
        return self.target.get_vocab()

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Ids of tokens of the target's vocabulary."""
        return self.target.convert_tokens_to_ids(tokens)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Tokens of the target's vocabulary."""
        return self.target.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens of a target."""
        return self.target.convert_tokens_to_string(tokens)

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> Any:
        """The text of a target, or the texts of several."""
        return self.target.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **kwargs: Any) -> list[str]:  # type: ignore[override]
        """The texts of targets."""
        return self.target.batch_decode(sequences, skip_special_tokens=skip_special_tokens, **kwargs)

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Adds tokens to the target's vocabulary; `model.resize_token_embeddings(len(tokenizer))` makes their rows."""
        return self.target.add_tokens(new_tokens, special_tokens=special_tokens)

    def add_special_tokens(self, special_tokens_dict: Any, *args: Any, **kwargs: Any) -> int:
        """Adds special tokens to the target's vocabulary."""
        count = self.target.add_special_tokens(special_tokens_dict, *args, **kwargs)
        for name, token in self.target.special_tokens_map.items():
            if name in self.SPECIAL_TOKENS_ATTRIBUTES:
                self._special_tokens_map[name] = str(token)
        return count

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """As in `transformers.PreTrainedTokenizerBase`; the two go into folders of their own.

        Raises:
            ValueError: for a `filename_prefix`, with which the two could not be found again.
        """
        if filename_prefix:
            raise ValueError(f"filename_prefix is {filename_prefix!r}: save to a folder of that name instead.")
        return super().save_pretrained(save_directory, legacy_format, None, push_to_hub, **kwargs)

    # The library calls this before it uploads what `save_pretrained` wrote.
    def _save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike, file_names: tuple[str, ...], **kwargs: Any
    ) -> tuple[str, ...]:
        files = list(file_names)
        for name, tokenizer in ((SOURCE_FOLDER, self.source), (TARGET_FOLDER, self.target)):
            part = copy.copy(tokenizer)
            # The code lies beside the folders.
            vars(part)["_auto_class"] = None
            files += part.save_pretrained(Path(save_directory, name)) or ()
        return tuple(files)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
    ) -> ElmoEncoderDecoderTokenizer:
        """Loads what `save_pretrained` saved.

        Args:
            pretrained_model_name_or_path: A folder, or the name of a repository.
            args: Passed on to the target's tokenizer.
            kwargs: Where to load from, as in the library; all others are passed on to the target's tokenizer.

        Raises:
            ValueError: for a folder in which one of the two is missing.
        """
        # Not above: hf_elmo gives this class to AutoTokenizer as soon as that is imported.
        from transformers import AutoTokenizer

        inside = kwargs.pop("subfolder", None) or ""
        for private in ("_from_auto", "_from_pipeline", "_commit_hash"):
            kwargs.pop(private, None)
        if os.path.isdir(pretrained_model_name_or_path):
            for name in (SOURCE_FOLDER, TARGET_FOLDER):
                if not Path(pretrained_model_name_or_path, inside, name).is_dir():
                    raise ValueError(
                        f"{Path(pretrained_model_name_or_path, inside)} has no {name}: it does not hold the two "
                        "tokenizers of an ElmoEncoderDecoderModel. Save them there with "
                        "ElmoEncoderDecoderTokenizer(source, target).save_pretrained(folder)."
                    )
        places = {name: kwargs.pop(name) for name in _PLACES if name in kwargs}
        # Without a configuration the library would look for the model's, and take its kind of tokenizer.
        target = AutoTokenizer.from_pretrained(
            pretrained_model_name_or_path,
            *args,
            config=PreTrainedConfig(),
            subfolder=f"{inside}/{TARGET_FOLDER}".lstrip("/"),
            **places,
            **kwargs,
        )
        source = ElmoTokenizer.from_pretrained(
            pretrained_model_name_or_path, subfolder=f"{inside}/{SOURCE_FOLDER}".lstrip("/"), **places
        )
        tokenizer = cls(source, target)
        tokenizer.name_or_path = str(pretrained_model_name_or_path)
        return tokenizer


__all__ = ["ElmoEncoderDecoderTokenizer"]
