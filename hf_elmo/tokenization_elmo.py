"""The tokenizer: text or words to word ids and rows of characters."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import BatchEncoding, TokenizersBackend
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Ids of characters (bilm-tf, bilm/data.py, `UnicodeCharsVocabulary`), each one up: 0 is padding. Byte b has id b + 1.
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PAD_CHARACTER = 257, 258, 259, 260, 261

PAD, UNK, BOS, EOS = "[PAD]", "[UNK]", "<S>", "</S>"
SPECIAL_WORDS = (PAD, UNK, BOS, EOS)

# Stands for words that the Rust library would drop, cut or refuse; like every word outside of the vocabulary it becomes
# [UNK]. The character is no letter of any text (Unicode, "noncharacters").
_PLACEHOLDER = "\ufffe"

# A word in the sense of the 1 Billion Word Benchmark, on which the published models were trained.
_WORD_CHARACTER = r"[\p{L}\p{M}\p{N}_&&[^\p{Han}]]"
_WORD_PATTERN = "|".join(
    (
        r"""(?:https?://|www\.)[^\s<>"]*[^\s<>"'.,:;!?)\]]""",
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        r"(?:\p{L}\.){2,}",
        r"(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Gov|Sen|Rep|Lt|Col|Sgt|Capt|Rev|Inc|Corp|Co|Ltd|vs|etc)\.(?!\p{L})",
        r"\p{Lu}\.(?=\s+\p{Lu}\p{Ll})",
        rf"{_WORD_CHARACTER}+(?:(?:[-‐‑.]|(?<=\p{{N}})[,:](?=\p{{N}})){_WORD_CHARACTER}+)*",
        r"(?<=[\p{L}\p{N}])['’]\p{L}+",
        r"\.{2,}|-{2,}",
        r"(?!\s)\X",
    )
)


class ElmoTokenizer(TokenizersBackend):
    r"""Splits text into words, and words into the characters that ELMo reads.

    A call returns, per word, `input_ids` (its id in a word vocabulary; `[UNK]` for every word if there is none) and
    `character_ids` (a row of `max_characters_per_token` integers: what the model reads), besides `attention_mask` and
    `token_type_ids`. Every text or list of words is one sentence between `<S>` and `</S>`; a pair is two sentences.

    Words that are given as words (`is_split_into_words=True`) stay as they are, one token each, whatever they hold. Raw
    text is split near the conventions of the 1 Billion Word Benchmark: punctuation apart, `don 't`, `Murray 's`, `U.S.`,
    `mid-October` and `68.88` whole. Chinese characters stand alone; scripts that write no spaces between words else
    are to be split beforehand. For the exact tokens of a published experiment give words.

    A word's row holds its UTF-8 bytes, so a word of more than `max_characters_per_token - 2` bytes (48) is cut there, as in
    the original. `return_truncated_words=True` adds `truncated_words`, 1 for each word that was cut; without it the
    first cut is logged.

    Make one with `create`, load one with `from_pretrained`.
    """

    model_input_names = ["input_ids", "character_ids", "token_type_ids", "attention_mask"]  # noqa: RUF012

    # There is no __init__ on purpose: a subclass of TokenizersBackend that has one reloads as another tokenizer.

    @classmethod
    def create(
        cls, vocabulary: Iterable[str] | None = None, max_characters_per_token: int = 50, **kwargs
    ) -> ElmoTokenizer:
        """Makes a tokenizer.

        Args:
            vocabulary: The words of the word vocabulary, most frequent first. Special words in it (ours, and the
                `<UNK>` of bilm-tf's vocabulary files) are passed over. None: no vocabulary.
            max_characters_per_token: Length of a word's row, its two word marks included.
            kwargs: Passed on: `model_max_length`, `padding_side`, ...

        Raises:
            ValueError: for a vocabulary with an empty word or with a word twice, or a row too short for any character.
        """
        if max_characters_per_token < 3:
            raise ValueError(
                f"max_characters_per_token must be at least 3 (two word marks and a byte), was: {max_characters_per_token}."
            )
        backend = _backend(_number_words(vocabulary or ()))
        return cls(
            tokenizer_object=backend,
            max_characters_per_token=max_characters_per_token,
            pad_token=PAD,
            unk_token=UNK,
            bos_token=BOS,
            eos_token=EOS,
            cls_token=BOS,
            sep_token=EOS,
            **kwargs,
        )

    @property
    def max_characters_per_token(self) -> int:
        """Length of a word's row of characters, its two word marks included."""
        return self.init_kwargs.get("max_characters_per_token", 50)

    def _encode_plus(
        self,
        text,
        text_pair=None,
        is_split_into_words: bool = False,
        return_tensors=None,
        return_overflowing_tokens: bool = False,
        return_truncated_words: bool = False,
        **kwargs,
    ) -> BatchEncoding:
        encode = super()._encode_plus
        rust_text, rust_pair = _without_surrogates(text), _without_surrogates(text_pair)
        if is_split_into_words:
            encode = self._for_given_words()._encode_plus
            rust_text, rust_pair = _as_single_tokens(text), _as_single_tokens(text_pair)
        encoded = encode(
            text=rust_text,
            text_pair=rust_pair,
            is_split_into_words=is_split_into_words,
            return_overflowing_tokens=return_overflowing_tokens,
            **kwargs,
        )
        is_batched = isinstance(text, (list, tuple)) and (
            not is_split_into_words or (len(text) > 0 and isinstance(text[0], (list, tuple)))
        )
        samples = [text] if not is_batched else list(text)
        pairs = [text_pair] if not is_batched else list(text_pair or [None] * len(samples))
        if is_batched and is_split_into_words and text_pair is None:
            pairs = [sample[1] if _is_pair_of_words(sample) else None for sample in samples]
            samples = [sample[0] if _is_pair_of_words(sample) else sample for sample in samples]
        elif is_batched and text_pair is None:
            pairs = [sample[1] if isinstance(sample, (list, tuple)) else None for sample in samples]
            samples = [sample[0] if isinstance(sample, (list, tuple)) else sample for sample in samples]
        encodings = encoded.encodings or []
        origins = encoded["overflow_to_sample_mapping"] if return_overflowing_tokens else range(len(encodings))
        words = [
            self._words(encoding, (samples[origin], pairs[origin]), is_split_into_words)
            for encoding, origin in zip(encodings, origins, strict=True)
        ]
        rows, cut = self._rows(words)
        if cut.any() and not return_truncated_words:
            logger.warning_once(
                f"A word of more than {self.max_characters_per_token - 2} bytes was cut there, as the original ELMo does. "
                "Pass return_truncated_words=True to learn which words are cut."
            )
        bounds = np.cumsum([len(sentence) for sentence in words])[:-1]
        fields: dict[str, Any] = {"character_ids": np.split(rows, bounds)}
        if return_truncated_words:
            fields["truncated_words"] = np.split(cut.astype(np.int64), bounds)
        single = not is_batched and return_tensors is None and not return_overflowing_tokens
        data = encoded.data
        if not is_batched and not single and not return_overflowing_tokens:
            # Without tensors the library takes the batch's dimension away from a single text; tensors keep it.
            data = {name: [value] for name, value in data.items()}
        data = _second(data, _as_plain(fields, return_tensors, single))
        return BatchEncoding(data, encodings, tensor_type=return_tensors)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs) -> list[str]:
        """The words of a text, as written (also those that have no id of their own)."""
        encoded = self._encode_plus(text=text, text_pair=pair, add_special_tokens=add_special_tokens, **kwargs)
        is_split = kwargs.get("is_split_into_words", False)
        return [word for word in self._words(encoded.encodings[0], (text, pair), is_split) if word is not None]

    def pad(
        self,
        encoded_inputs,
        padding=True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors=None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pads encoded sentences to one length, as `PreTrainedTokenizerBase.pad` does, rows of characters included."""
        if isinstance(encoded_inputs, (list, tuple)) and encoded_inputs and isinstance(encoded_inputs[0], Mapping):
            encoded_inputs = {key: [example[key] for example in encoded_inputs] for key in encoded_inputs[0]}
        inputs = dict(encoded_inputs)
        ours = {name: inputs.pop(name) for name in ("character_ids", "truncated_words") if name in inputs}
        padded = super().pad(
            inputs,
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
            return_tensors=None,
            verbose=verbose,
        )
        ids = padded[self.model_input_names[0]]
        single = len(ids) > 0 and not isinstance(ids[0], (list, tuple))
        targets = [len(ids)] if single else [len(sentence) for sentence in ids]
        on_left = (padding_side or self.padding_side) == "left"
        fields = {
            name: [
                _pad_rows(np.asarray(value, dtype=np.int64), target, on_left)
                for value, target in zip([values] if single else values, targets, strict=True)
            ]
            for name, values in ours.items()
        }
        data = _second(padded.data, _as_plain(fields, return_tensors, single))
        return BatchEncoding(data, tensor_type=return_tensors, prepend_batch_axis=False)

    def _for_given_words(self) -> TokenizersBackend:
        """A tokenizer over the same ids that takes each word as it is: no splitter, no special words within words."""
        helper = _WORD_TOKENIZERS.get(self)
        if helper is None or len(helper) != len(self):
            backend = Tokenizer(models.WordLevel(self.get_vocab(), unk_token=self.unk_token))
            helper = TokenizersBackend(tokenizer_object=backend, pad_token=self.pad_token, unk_token=self.unk_token)
            _WORD_TOKENIZERS[self] = helper
        helper.backend_tokenizer.post_processor = self.backend_tokenizer.post_processor
        helper.padding_side, helper.truncation_side = self.padding_side, self.truncation_side
        helper.model_max_length, helper.model_input_names = self.model_max_length, self.model_input_names
        helper.pad_token_id = self.pad_token_id
        return helper

    def _words(self, encoding, sources: tuple, is_split_into_words: bool) -> list[str | None]:
        """The word of each token, as written; None for padding."""
        places = encoding.word_ids if is_split_into_words else encoding.offsets
        words: list[str | None] = []
        for sequence, place, kept, token in zip(
            encoding.sequence_ids, places, encoding.attention_mask, encoding.tokens, strict=True
        ):
            if not kept:
                words.append(None)
            elif sequence is None:
                words.append(token)
            elif is_split_into_words:
                words.append(sources[sequence][place])
            else:
                words.append(sources[sequence][place[0] : place[1]])
        return words

    def _rows(self, sentences: list[list[str | None]]) -> tuple[np.ndarray, np.ndarray]:
        """All sentences' words one below the other: rows ``(words, chars)``, int64, and which words were cut, bool."""
        words = [word for sentence in sentences for word in sentence]
        distinct = {word: number for number, word in enumerate(dict.fromkeys(words))}
        index = np.fromiter((distinct[word] for word in words), dtype=np.int64, count=len(words))
        rows, cut = character_rows(list(distinct), self.max_characters_per_token, self.bos_token, self.eos_token)
        return rows[index], cut[index]


def character_rows(
    words: Sequence[str | None], max_characters_per_token: int = 50, bos_token: str = BOS, eos_token: str = EOS
) -> tuple[np.ndarray, np.ndarray]:
    """The characters of words, as bilm-tf's `UnicodeCharsVocabulary` maps them (each id one up, 0 for padding).

    Args:
        words: Words; None for padding. Lone surrogates have no UTF-8 bytes and are left out, as in the original.
        max_characters_per_token: Length of a row.
        bos_token: The word that stands for the begin of a sentence.
        eos_token: The word that stands for the end of a sentence.

    Returns:
        ``(words, max_characters_per_token)``, int64: mark, bytes, mark, filling; zeros for None. And ``(words,)``, bool:
        whether the word had more bytes than there is room for.
    """
    room = max_characters_per_token - 2
    encoded = [b"" if word is None else word.encode("utf-8", "ignore") for word in words]
    full_lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    lengths = np.minimum(full_lengths, room)
    rows = np.full((len(encoded), max_characters_per_token), PAD_CHARACTER, dtype=np.int64)
    row = np.repeat(np.arange(len(encoded)), lengths)
    column = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    rows[row, column] = np.frombuffer(b"".join(word[:room] for word in encoded), dtype=np.uint8).astype(np.int64) + 1
    rows[:, 0] = BEGIN_WORD
    rows[np.arange(len(encoded)), lengths + 1] = END_WORD
    cut = full_lengths > room
    for number, word in enumerate(words):
        if word is None:
            rows[number] = 0
        elif word in (bos_token, eos_token):
            rows[number] = PAD_CHARACTER
            rows[number, :3] = BEGIN_WORD, BEGIN_SENTENCE if word == bos_token else END_SENTENCE, END_WORD
            cut[number] = False
    return rows, cut


# Kept outside of the tokenizer, whose attributes datasets hashes to recognise work that it has done before.
_WORD_TOKENIZERS: weakref.WeakKeyDictionary[ElmoTokenizer, TokenizersBackend] = weakref.WeakKeyDictionary()


def _number_words(vocabulary: Iterable[str]) -> dict[str, int]:
    numbers = {word: number for number, word in enumerate(SPECIAL_WORDS)}
    for word in vocabulary:
        if word in SPECIAL_WORDS or word == "<UNK>":
            continue
        if not word:
            raise ValueError(f"The vocabulary has an empty word after {len(numbers) - len(SPECIAL_WORDS)} words.")
        if word in numbers:
            raise ValueError(f"The vocabulary has the word {word!r} twice: each word must stand once.")
        numbers[word] = len(numbers)
    return numbers


def _backend(vocabulary: dict[str, int]) -> Tokenizer:
    """The Rust tokenizer of raw text: words by a pattern, ids by look-up, BOS and EOS by a template."""
    backend = Tokenizer(
        # Pipelines take words of WordPiece, unlike words of WordLevel, for whole ones. The prefix makes sure that no
        # word is ever split, and a word longer than all in the vocabulary need not be looked up.
        models.WordPiece(
            vocabulary,
            unk_token=UNK,
            continuing_subword_prefix="\0\0",
            max_input_chars_per_word=max(map(len, vocabulary)),
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {EOS} {BOS}:1 $B:1 {EOS}:1",
        special_tokens=[(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])],
    )
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL_WORDS])
    return backend


def _is_pair_of_words(sample: Any) -> bool:
    return bool(sample) and isinstance(sample[0], (list, tuple))


def _without_surrogates(text: Any) -> Any:
    """The text with another character for each lone surrogate, which Rust cannot hold; nothing moves."""
    if isinstance(text, str):
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return [_without_surrogates(entry) for entry in text] if isinstance(text, (list, tuple)) else text


def _as_single_tokens(words: Any) -> Any:
    """Words such that Rust makes one token of each, of the same length where it has one."""
    if isinstance(words, str):
        if not words or words in (PAD, UNK):
            return _PLACEHOLDER * max(len(words), 1)
        return _without_surrogates(words)
    return [_as_single_tokens(entry) for entry in words] if isinstance(words, (list, tuple)) else words


def _pad_rows(rows: np.ndarray, target: int, on_left: bool) -> np.ndarray:
    missing = target - len(rows)
    widths = [(missing, 0) if on_left else (0, missing)] + [(0, 0)] * (rows.ndim - 1)
    return np.pad(rows, widths) if missing else rows


def _as_plain(fields: dict[str, list[np.ndarray]], return_tensors: Any, single: bool) -> dict[str, Any]:
    """Arrays for tensors; lists, as everything else is a list, for no tensors."""
    if return_tensors is not None:
        return fields
    return {name: values[0].tolist() if single else [v.tolist() for v in values] for name, values in fields.items()}


def _second(data: dict, ours: dict) -> dict:
    """The data with our fields right behind `input_ids`, where `model_input_names` has them."""
    first, *others = data.items()
    return dict([first, *ours.items(), *others])
