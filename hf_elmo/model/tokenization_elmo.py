"""The tokenizer: text or words to word ids and rows of characters."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from tokenizers import AddedToken, Encoding, Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import BatchEncoding, TokenizersBackend
from transformers.utils import PaddingStrategy, TensorType, logging, to_numpy

from .tokenization_fast_path import LaterEncodings, Layout, lay_out, plan

logger = logging.get_logger(__name__)

# Ids of characters (bilm-tf, bilm/data.py, `UnicodeCharsVocabulary`), each one up: 0 is padding. Byte b has id b + 1.
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PAD_CHARACTER = 257, 258, 259, 260, 261
# With a dictionary of characters the marks keep their ids, so that code that reads the marks need not read the
# dictionary: its characters have the ids around the marks, after one for all characters that are not in it.
UNKNOWN_CHARACTER = 1

PAD, UNK, BOS, EOS = "[PAD]", "[UNK]", "<S>", "</S>"
SPECIAL_WORDS = (PAD, UNK, BOS, EOS)

# Stands, in what the Rust library gets, for what it would drop or refuse. No word of a vocabulary has this character,
# which Unicode promises never to make a letter, so whatever holds it is [UNK].
_STAND_IN = "\U0010ffff"
_SURROGATE = re.compile("[\ud800-\udfff]")
# Models of the Rust library that look a word up as a whole (ours of WordPiece do).
_WORD_LOOKUPS = (models.WordPiece, models.WordLevel)

# A word in the sense of the 1 Billion Word Benchmark, on which the published models were trained. Each pattern takes
# time linear in the length of the text: none can try again and again what it has passed over in vain.
_LETTER = r"\p{L}\p{M}\p{N}"
# Joiners within words of Indic and Persian scripts, and soft hyphens, do not end words.
_RUN = rf"[{_LETTER}&&[^\p{{Han}}]](?>[{_LETTER}_\u00ad\u200c\u200d&&[^\p{{Han}}]]*)"
_INITIALS = r"(?>(?:\p{L}\.){2,}|Ph\.D\.)(?![\p{L}\p{N}])"
_DOTTED = rf"{_RUN}(?>(?:\.{_RUN}|(?<=\p{{N}}),(?=\p{{N}}){_RUN})*)"
_UNIT = rf"(?:{_INITIALS}|{_DOTTED})"
_HYPHEN = r"[-\u2010\u2011]"
_WORD = rf"{_UNIT}(?>(?:{_HYPHEN}{_UNIT})*)"
_TITLES = (
    "Mr|Mrs|Ms|Messrs|Dr|Drs|Prof|St|Sr|Gen|Gov|Sen|Sens|Rep|Reps|Lt|Col|Cpl|Sgt|Capt|Cmdr|Maj|Adm|Rev|Hon|Bros|Corp|vs"
)
# What belongs to the character before: marks, shades of skin, tags (as in the flag of Scotland).
_EXTENSION = r"[\p{M}\x{1F3FB}-\x{1F3FF}\x{E0020}-\x{E007F}]*"
_WORD_PATTERN = "|".join(
    (
        r"""(?:https?://|www\.)[^\s<>"]*[^\s<>"'.,:;!?)\]]""",
        r"(?<![\w.+-])(?>[\w.+-]+)@[\w-]+(?:\.[\w-]+)+",
        rf"(?:{_TITLES})\.(?![\p{{L}}\p{{N}}])",
        r"(?:Inc|Ltd|Co|Jr|etc)\.(?=\s\p{Ll})|No\.(?=\s\p{N})",
        r"\p{Lu}\.(?=\s\p{Lu})",
        rf"(?<![^\s(])[-.](?=\p{{N}}){_WORD}",
        rf"{_WORD}(?:{_HYPHEN}(?=\s))?",
        rf"(?<=[\p{{L}}\p{{N}}])['’](?=\p{{L}}){_WORD}",
        r"\.{2,}|-{2,}",
        # Whatever else there is: a character, with the emoji joined to it; of flags, two.
        rf"\p{{Regional_Indicator}}{{2}}|\S{_EXTENSION}(?>(?:\u200d\p{{So}}{_EXTENSION})*)",
    )
)


# What the prefix of pieces of words begins with (`_model`): it tells our tokenizers from those of other models.
_PIECE = "\0\0"


class ElmoTokenizer(TokenizersBackend):
    r"""Splits text into words, and words into the characters that ELMo reads.

    A call returns, per word, `input_ids` (its id in a word vocabulary; `[UNK]` for every word if there is none) and
    `character_ids` (a row of `max_characters_per_token` integers: what the model reads), besides `attention_mask` and
    `token_type_ids`: ``(batch, words)`` and ``(batch, words, chars)``, int64. Every text or list of words is one
    sentence between `<S>` and `</S>`; a pair is two sentences.

    Words that are given as words (`is_split_into_words=True`) stay as they are, one token each, whatever they hold. For
    the exact tokens of a published experiment give words.

    Raw text is split near the conventions of the 1 Billion Word Benchmark, on which the published models were trained:
    punctuation apart, `don 't`, `Murray 's`, `3 : 30`, `5 / 7`; `U.S.`, `Mr.`, `mid-October` and `68.88` whole. Unlike
    there, URLs and e-mail addresses stay whole, and a double hyphen always stands apart. Chinese characters stand
    alone; text in other scripts that write no spaces between words is to be split beforehand. Every character but white
    space lies in exactly one word.

    A word's row holds its UTF-8 bytes, so a word of more than `max_characters_per_token - 2` bytes (48) is cut there,
    as in the original. `return_truncated_words=True` adds `truncated_words`, 1 for each word that was cut; without it
    the first cut is logged. Lone surrogates have no bytes; a word of nothing else has none, like the empty word.

    A tokenizer with `characters` (of a model that came from ELMoForManyLangs) reads Unicode characters in the place of
    bytes; there the id of a word that is cut is that of what is left of it. With `word_ids_in_rows` rows are one
    longer, ``(batch, words, chars + 1)``, and end in the word's id. Without `reads_characters` (of a
    model that reads words) there are no `character_ids`, and no word is cut.

    Make one with `create`, load one with `from_pretrained`. Calls leave the tokenizer as it is: threads may share it.
    """

    model_input_names = ["input_ids", "character_ids", "token_type_ids", "attention_mask"]  # noqa: RUF012

    # There is no __init__ on purpose: a subclass of TokenizersBackend that has one reloads as another tokenizer.

    @classmethod
    def create(
        cls,
        vocabulary: Iterable[str] | None = None,
        max_characters_per_token: int = 50,
        *,
        characters: str | None = None,
        word_ids_in_rows: bool = False,
        lowercase_word_ids: bool = False,
        reads_characters: bool = True,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
    ) -> ElmoTokenizer:
        """Makes a tokenizer.

        Args:
            vocabulary: The words of the word vocabulary, most frequent first. Special words in it (ours, and the
                `<UNK>` of bilm-tf's vocabulary files) are passed over. None: no vocabulary.
            max_characters_per_token: Length of a word's row, its two word marks included.
            characters: The Unicode characters that the model knows, in the order of their ids (`character_numbers`).
                None: it knows the 256 bytes of UTF-8.
            word_ids_in_rows: Put the word's id behind each row of characters, for models with a `word_embed_dim`.
            lowercase_word_ids: Look words up in the vocabulary in lower case; the characters stay as they are. (The
                encodings of the Rust library keep the ids of the words as written.)
            reads_characters: False: only ids of words are made, no rows of characters, for models that read words.
            model_max_length: Where `truncation=True` cuts, in words, `<S>` and `</S>` included. None: nowhere.
            padding_side: "right" or "left".
            truncation_side: "right" or "left".

        Raises:
            TypeError: for a vocabulary that is one str, or has entries that are not str; for a length that is not an
                integer, or characters that are not a str.
            ValueError: for characters of a tokenizer that reads none, an empty word, a word that stands twice, a word
                that is not Unicode text (lone surrogates) or has the noncharacter U+10FFFF, a row too short for any
                character, or characters that stand twice or are lone surrogates.
        """
        _check_length(max_characters_per_token)
        switches: dict[str, Any] = {}
        if characters is not None:
            _check_characters(characters)
            switches["characters"] = characters
        if word_ids_in_rows:
            switches["word_ids_in_rows"] = True
        if lowercase_word_ids:
            switches["lowercase_word_ids"] = True
        if not reads_characters:
            if characters is not None or word_ids_in_rows:
                raise ValueError(
                    "A tokenizer that reads no characters has no rows of them: leave characters and word_ids_in_rows "
                    "out, or reads_characters."
                )
            switches["reads_characters"] = False
            switches["model_input_names"] = [name for name in cls.model_input_names if name != "character_ids"]
        if isinstance(vocabulary, (str, bytes)):
            raise TypeError(
                f"vocabulary must be words (a list, or lines of an open file without their ends), was one "
                f"{type(vocabulary).__name__}: {vocabulary[:40]!r}. If it is a path, read the file first."
            )
        numbers = _number_words(vocabulary or ())
        tokenizer = cls(
            tokenizer_object=_backend(),
            max_characters_per_token=max_characters_per_token,
            pad_token=PAD,
            unk_token=UNK,
            bos_token=BOS,
            eos_token=EOS,
            cls_token=BOS,
            sep_token=EOS,
            model_max_length=model_max_length,
            padding_side=padding_side,
            truncation_side=truncation_side,
            **switches,
        )
        # Not before: the library copies what it is given, which takes seconds for a million words.
        tokenizer.backend_tokenizer.model = _model(numbers, UNK)
        return tokenizer

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> ElmoTokenizer:
        """As in `transformers.PreTrainedTokenizerFast`.

        Raises:
            ValueError: for a folder, or a repository, with the tokenizer of another model.
        """
        tokenizer = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        # The library takes any tokenizer.json.
        model = tokenizer.backend_tokenizer.model
        if not (getattr(model, "continuing_subword_prefix", None) or "").startswith(_PIECE):
            raise ValueError(
                f"{pretrained_model_name_or_path} has no ELMo tokenizer, but a {type(model).__name__} of another "
                "model: load that with AutoTokenizer. ElmoTokenizer.create() makes one for an ELMo model, or "
                "ElmoTokenizer.create(words) one with a word vocabulary."
            )
        return tokenizer

    @property
    def max_characters_per_token(self) -> int:
        """Length of a word's row of characters, its two word marks included."""
        return self.init_kwargs.get("max_characters_per_token", 50)

    @property
    def characters(self) -> str | None:
        """The Unicode characters that have an id of their own, in its order; None: characters are bytes."""
        return self.init_kwargs.get("characters")

    @property
    def word_ids_in_rows(self) -> bool:
        """Whether the word's id stands behind each row of characters."""
        return bool(self.init_kwargs.get("word_ids_in_rows"))

    @property
    def lowercase_word_ids(self) -> bool:
        """Whether words are looked up in the vocabulary in lower case."""
        return bool(self.init_kwargs.get("lowercase_word_ids"))

    @property
    def reads_characters(self) -> bool:
        """Whether there are rows of characters; False: ids of words alone."""
        return self.init_kwargs.get("reads_characters", True)

    @property
    def row_length(self) -> int:
        """Length of a word's row: its characters, and its id if that is wanted; without characters the id alone."""
        if not self.reads_characters:
            return 1
        return self.max_characters_per_token + self.word_ids_in_rows

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Adds words to the end of the vocabulary, as `PreTrainedTokenizerBase.add_tokens` does.

        `model.resize_token_embeddings(len(tokenizer))` gives a language model rows for them. In raw text a word that is
        given as str is found where it stands as a word, and not within others; an `AddedToken` says itself where.

        Args:
            new_tokens: One or more words; those that the vocabulary has are passed over.
            special_tokens: Whether they are special words, which decoding leaves out on request.

        Returns:
            The number of words that were added.
        """
        if not special_tokens:
            several = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else new_tokens
            # The library's default is to find them anywhere: "cat" would cut "concatenate" in three.
            new_tokens = [
                AddedToken(token, single_word=True, normalized=False) if isinstance(token, str) else token
                for token in dict.fromkeys(several or ())
                # The Rust library would count a known word again, and look for it in raw text before splitting that.
                if not isinstance(token, str) or self.backend_tokenizer.token_to_id(token) is None
            ]
        return super().add_tokens(new_tokens, special_tokens)

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """The words of a text, as written (also those that have no id of their own)."""
        _, words = self._encode(text, pair, add_special_tokens=add_special_tokens, **kwargs)
        return [word for word in words[0] if word is not None]

    # The two classes of the library that have this method disagree on its types with each other. It is called by names.
    def _encode_plus(  # type: ignore[override]
        self,
        text: Any,
        text_pair: Any = None,
        is_split_into_words: bool = False,
        return_tensors: Any = None,
        return_overflowing_tokens: bool = False,
        return_truncated_words: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        kwargs["return_overflowing_tokens"] = return_overflowing_tokens
        if is_split_into_words and text_pair is None:
            quickly = self._encode_given_words(text, return_tensors, return_truncated_words, kwargs)
            if quickly is not None:
                return quickly
        encoded, words = self._encode(text, text_pair, is_split_into_words, **kwargs)
        fields: dict[str, np.ndarray] = {}
        if self.reads_characters:
            fields["character_ids"], cut = self._rows(words, encoded[self.model_input_names[0]])
        else:
            cut = np.zeros(sum(map(len, words)), dtype=bool)
        self._mention_cut(cut, return_truncated_words)
        if return_truncated_words:
            fields["truncated_words"] = cut.astype(np.int64)
        lengths = [len(sentence) for sentence in words]
        data = _behind_first(
            {name: _as_tensor(values, return_tensors) for name, values in encoded.data.items()},
            {name: _per_sentence(values, lengths, return_tensors) for name, values in fields.items()},
        )
        if return_tensors is None and not return_overflowing_tokens and not _is_batch(text, is_split_into_words):
            data = {name: values[0] if isinstance(values[0], list) else values for name, values in data.items()}
        return BatchEncoding(data, encoded.encodings, tensor_type=return_tensors)

    def _mention_cut(self, cut: np.ndarray, return_truncated_words: bool) -> None:
        if cut.any() and not return_truncated_words:
            units = "bytes" if self.characters is None else "characters"
            logger.warning_once(
                f"A word of more than {self.max_characters_per_token - 2} {units} was cut there, as the original ELMo "
                "does. Pass return_truncated_words=True to learn which words are cut."
            )

    def _encode_given_words(
        self, text: Any, return_tensors: Any, return_truncated_words: bool, arguments: dict[str, Any]
    ) -> BatchEncoding | None:
        """What `_encode_plus` gives for single sentences of words; None where that takes the Rust tokenizer."""
        if not self.reads_characters or self.characters is not None or self.word_ids_in_rows or self.lowercase_word_ids:
            return None
        samples = _samples(text, None, True)
        if return_tensors not in (None, "pt", "np") or any(len(sample) > 1 for sample in samples):
            return None
        sentences = [sample[0] for sample in samples]
        padding = self._words_like_padding()
        if any(_safe_words(words, padding) is not words for words in sentences):
            return None
        post_processor, model = self.backend_tokenizer.post_processor, self.backend_tokenizer.model
        state = None if post_processor is None else post_processor.__getstate__()
        how = plan(list(map(len, sentences)), state, self.padding_side, arguments)
        unknown = self.backend_tokenizer.token_to_id(model.unk_token) if isinstance(model, _WORD_LOOKUPS) else None
        if how is None or unknown is None:
            return None
        layout = lay_out(sentences, how)
        longest = max(layout.lengths)
        if not longest or (return_tensors is not None and min(layout.lengths) < longest):
            return None
        numbers = [
            unknown if number is None else number for number in map(self.backend_tokenizer.token_to_id, layout.words)
        ]
        specials = layout.specials
        table = {
            self.model_input_names[0]: [*numbers, *(special.number for special in specials), self.pad_token_id],
            "token_type_ids": [
                *[how.template.segment] * len(numbers),
                *(special.segment for special in specials),
                self.pad_token_type_id,
            ],
            "attention_mask": [*[1] * (len(numbers) + len(specials)), 0],
        }
        for name in ("token_type_ids", "attention_mask"):
            wanted = arguments.get(f"return_{name}")
            if not (name in self.model_input_names if wanted is None else wanted):
                del table[name]
        rows, cut = character_rows(
            [*layout.words, *(self.backend_tokenizer.id_to_token(special.number) for special in specials), None],
            self.max_characters_per_token,
            self._boundaries(),
        )
        self._mention_cut(cut, return_truncated_words)
        first, *others = table.items()
        fields = [first, ("character_ids", rows)]
        if return_truncated_words:
            fields.append(("truncated_words", cut))
        data = {
            name: _spread(np.asarray(values, dtype=np.int64), layout, return_tensors)
            for name, values in [*fields, *others]
        }
        if return_tensors is None and not _is_batch(text, True):
            data = {name: values[0] for name, values in data.items()}
        self._eventual_warn_about_too_long_sequence(
            [0] * longest, arguments.get("max_length"), arguments.get("verbose", True)
        )
        # Words and settings as they are now, whenever the encodings are asked for.
        words, working_copy = [list(sentence) for sentence in sentences], self._working_copy(self._for_words())
        arguments = {**arguments, "verbose": False}

        def make() -> Sequence[Encoding] | None:
            encoded = super(ElmoTokenizer, working_copy)._encode_plus(text=words, is_split_into_words=True, **arguments)
            return encoded.encodings

        return LaterEncodings(data, make, return_tensors)

    def _words_like_padding(self) -> set[str | None]:
        """Given words that the Rust tokenizer gets under another name: those that look like padding."""
        return {PAD, self.pad_token} - {BOS, EOS, self.bos_token, self.eos_token}

    def _boundaries(self) -> dict[str, int]:
        own = ((self.bos_token, BEGIN_SENTENCE), (self.eos_token, END_SENTENCE))
        marks = {word: mark for word, mark in own if word is not None}
        return {**marks, BOS: BEGIN_SENTENCE, EOS: END_SENTENCE}

    def _encode(
        self,
        text: Any,
        text_pair: Any = None,
        is_split_into_words: bool = False,
        return_overflowing_tokens: bool = False,
        **kwargs: Any,
    ) -> tuple[BatchEncoding, list[list[str | None]]]:
        """All fields but ours, always as of a batch, and the word of each token: None for padding."""
        samples = _samples(text, text_pair, is_split_into_words)
        make_safe: Callable[[Any], str | Sequence[str]] = _safe_text
        if is_split_into_words:
            make_safe = partial(_safe_words, padding=self._words_like_padding())
        safe = [tuple(map(make_safe, sample)) if len(sample) > 1 else make_safe(sample[0]) for sample in samples]
        # The library keeps how to cut and pad in the Rust tokenizer itself, where threads would overwrite each other's
        # settings and `datasets` would see another tokenizer after each call. So a call has a Rust tokenizer of its
        # own, in a copy of this object. That costs microseconds: the model, with its vocabulary, is shared.
        working_copy = self._working_copy(self._for_words() if is_split_into_words else self._for_text())
        encoded = super(ElmoTokenizer, working_copy)._encode_plus(
            text=cast("list[str]", safe),  # the library's annotation leaves out pairs
            is_split_into_words=is_split_into_words,
            return_overflowing_tokens=return_overflowing_tokens,
            **kwargs,
        )
        if encoded.encodings is None:
            raise ValueError("ElmoTokenizer reads words and text only: encode what the chat template gives as text.")
        origins = encoded["overflow_to_sample_mapping"] if return_overflowing_tokens else range(len(samples))
        words = [
            self._words(encoding, ids, samples[origin], is_split_into_words)
            for encoding, ids, origin in zip(encoded.encodings, encoded["input_ids"], origins, strict=True)
        ]
        if self.lowercase_word_ids:
            self._look_up_in_lower_case(encoded, words)
        return encoded, words

    def _look_up_in_lower_case(self, encoded: BatchEncoding, words: list[list[str | None]]) -> None:
        """Puts the ids of the words in lower case into `encoded`; special words and padding keep theirs."""
        name = self.model_input_names[0]
        kept = {None, *SPECIAL_WORDS, *self.all_special_tokens}
        numbers: dict[str | None, int] = {}
        for word in {word for word in chain.from_iterable(words) if word is not None} - kept:
            number = self.backend_tokenizer.token_to_id(_SURROGATE.sub(_STAND_IN, word.lower()))
            numbers[word] = self.unk_token_id if number is None else number
        encoded[name] = [
            [numbers.get(word, own) for word, own in zip(sentence, ids, strict=True)]
            for sentence, ids in zip(words, encoded[name], strict=True)
        ]

    def _words(self, encoding: Encoding, ids: list[int], sample: tuple, is_split_into_words: bool) -> list[str | None]:
        """The word of each token, as written; None for padding."""
        sequences = encoding.sequence_ids
        words: list[str | None] = [None] * len(sequences)
        for number in range(encoding.n_sequences):
            count = sequences.count(number)
            if not count:
                continue
            first = sequences.index(number)
            if is_split_into_words:
                place = encoding.token_to_word(first)
                assert place is not None, "a token of a sequence is within a word"
                words[first : first + count] = sample[number][place : place + count]
            else:
                source = sample[number]
                words[first : first + count] = [source[a:b] for a, b in encoding.offsets[first : first + count]]
        kept = encoding.attention_mask
        for place, sequence in enumerate(sequences):
            if sequence is None and kept[place]:
                words[place] = self.backend_tokenizer.id_to_token(ids[place])
        return words

    def _rows(self, sentences: list[list[str | None]], ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """All sentences' words one below the other: rows ``(words, chars)``, int64, and which words were cut, bool.

        Where there is a dictionary of characters, the ids of words that were cut are changed to those of what is left.
        """
        words = list(chain.from_iterable(sentences))
        places = {word: number for number, word in enumerate(dict.fromkeys(words))}
        rows, cut = character_rows(
            list(places),
            self.max_characters_per_token,
            self._boundaries(),
            self.characters,
        )
        index = np.fromiter(map(places.__getitem__, words), dtype=np.int64, count=len(words))
        if self.characters is not None and cut.any():
            flags = iter(cut[index].tolist())
            for sentence, numbers in zip(sentences, ids, strict=True):
                for place, word in enumerate(sentence):
                    if next(flags) and word is not None:
                        numbers[place] = self._id_of_cut(word)
        rows, cut = rows[index], cut[index]
        if self.word_ids_in_rows:
            column = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=len(words))
            # A row of padding is to be all zeros, whatever the padding's id.
            column[rows[:, 0] == 0] = 0
            rows = np.concatenate([rows, column[:, None]], axis=1)
        return rows, cut

    def _id_of_cut(self, word: str) -> int:
        """The id of what is left of a word that was cut, as ELMoForManyLangs looks it up."""
        rest = word[: self.max_characters_per_token - 2]
        number = None if rest in SPECIAL_WORDS or _SURROGATE.search(rest) else self.backend_tokenizer.token_to_id(rest)
        return self.unk_token_id if number is None else number

    def _working_copy(self, backend: Tokenizer) -> ElmoTokenizer:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _tokenizer=backend)
        return copy

    def _for_text(self, model: models.Model | None = None) -> Tokenizer:
        """A Rust tokenizer like ours, for one call; over another model, if there is one."""
        ours = self.backend_tokenizer
        backend = Tokenizer(model or ours.model)
        backend.normalizer, backend.pre_tokenizer = ours.normalizer, ours.pre_tokenizer
        backend.post_processor, backend.decoder = ours.post_processor, ours.decoder
        backend.add_tokens([token for _, token in sorted(ours.get_added_tokens_decoder().items())])
        return backend

    def _for_words(self) -> Tokenizer:
        """A Rust tokenizer over the same ids that takes each word as it is: no splitter, no special words in words."""
        ours = self.backend_tokenizer
        size = ours.get_vocab_size(with_added_tokens=True)
        model = ours.model
        if size > ours.get_vocab_size(with_added_tokens=False):
            # Words that were added later are unknown to the model.
            made = _WORD_MODELS.get(self)
            if made is not None and made[0] is ours and made[1] == size:
                model = made[2]
            else:
                model = models.WordLevel(ours.get_vocab(with_added_tokens=True), unk_token=str(self.unk_token))
                _WORD_MODELS[self] = ours, size, model
        backend = Tokenizer(model)
        backend.post_processor = ours.post_processor
        return backend

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pads encoded sentences to one length, as `PreTrainedTokenizerBase.pad` does, rows of characters included.

        Layers computed before (`precompute_layers`) are padded too: `layer_states` ``(layers, words, dim)`` of each
        sentence.
        """
        if isinstance(encoded_inputs, Mapping):
            inputs = dict(encoded_inputs)
        else:
            first = encoded_inputs[0] if encoded_inputs else {}
            inputs = {key: [example[key] for example in encoded_inputs] for key in first}
        ours: dict[str, Any] = {
            name: inputs.pop(name) for name in ("character_ids", "truncated_words") if name in inputs
        }
        layers = inputs.pop("layer_states", None)
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
        if len(ids) == 0:
            ours |= {} if layers is None else {"layer_states": layers}
            return BatchEncoding({**padded, **ours}, tensor_type=return_tensors)
        if return_tensors is None and not isinstance(ids, list):
            return_tensors = "pt" if torch.is_tensor(ids) else "np"
        is_batch = np.ndim(ids[0]) > 0
        lengths = [len(sentence) for sentence in ids] if is_batch else [len(ids)]
        on_left = (padding_side or self.padding_side) == "left"
        fields: dict[str, Any] = {}
        for name, values in ours.items():
            sentences = zip(values if is_batch else [values], lengths, strict=True)
            rows = np.concatenate([self._pad_rows(name, value, length, on_left) for value, length in sentences])
            fields[name] = _per_sentence(rows, lengths, return_tensors)
        if layers is not None:
            fields["layer_states"] = _pad_layers(layers if is_batch else [layers], lengths, on_left, return_tensors)
        if not is_batch:
            fields = {name: values[0] for name, values in fields.items()}
        return BatchEncoding(_behind_first(padded.data, fields), tensor_type=return_tensors)

    def _pad_rows(self, name: str, values: Any, length: int, on_left: bool) -> np.ndarray:
        """One sentence's `character_ids` or `truncated_words`, with zeros up to `length` words."""
        rows = np.asarray(to_numpy(values), dtype=np.int64)
        if name == "character_ids" and not len(rows):
            rows = rows.reshape(0, self.row_length)
        missing = length - len(rows)
        if missing < 0:
            raise ValueError(
                f"{name} has {len(rows)} words where {self.model_input_names[0]} has {length}, padding included."
            )
        return (
            np.pad(rows, [(missing, 0) if on_left else (0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows
        )

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str] | Iterable[list[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: list[str | AddedToken] | None = None,
        special_tokens_map: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> ElmoTokenizer:
        """A tokenizer like this one with another vocabulary: the most frequent words of a corpus.

        Args:
            text_iterator: Texts, or lists of texts.
            vocab_size: The most words that the vocabulary may have, special words included.
            length: The number of texts, for the progress bar.
            new_special_tokens: Special words to add.
            special_tokens_map: New names of special words, by the old ones.
            kwargs: Passed on to `tokenizers.trainers.WordLevelTrainer`, such as `min_frequency`.
        """
        # The Rust library would train our model, a WordPiece, to split words into pieces.
        unk = (special_tokens_map or {}).get(self.unk_token, self.unk_token)
        working_copy = self._working_copy(self._for_text(models.WordLevel(self.get_vocab(), unk_token=self.unk_token)))
        trained = super(ElmoTokenizer, working_copy).train_new_from_iterator(
            text_iterator, vocab_size, length, new_special_tokens, special_tokens_map, **kwargs
        )
        trained.backend_tokenizer.model = _model(trained.get_vocab(), unk)
        return trained


def character_rows(
    words: Sequence[str | None],
    max_characters_per_token: int = 50,
    boundaries: Mapping[str, int] | None = None,
    characters: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The characters of words, as bilm-tf's `UnicodeCharsVocabulary` maps them (each id one up, 0 for padding).

    Or, with a dictionary of characters, as ELMoForManyLangs maps them (its `frontend.py`), but for the numbering.

    Args:
        words: Words; None for padding. Lone surrogates have no UTF-8 bytes and are left out, as in the original.
        max_characters_per_token: Length of a row.
        boundaries: The words that stand for begin (257) and end (258) of a sentence; by default `<S>` and `</S>`.
        characters: The characters that have an id of their own, in its order. None: characters are bytes.

    Returns:
        ``(words, max_characters_per_token)``, int64: mark, bytes, mark, filling; zeros for None. And ``(words,)``,
        bool: whether the word had more characters (bytes) than there is room for.

    Raises:
        ValueError: for a row too short for any character.
    """
    _check_length(max_characters_per_token)
    boundaries = {BOS: BEGIN_SENTENCE, EOS: END_SENTENCE} if boundaries is None else boundaries
    room = max_characters_per_token - 2
    if characters is None:
        in_bytes = [b"" if word is None else word.encode("utf-8", "ignore") for word in words]
        sizes = map(len, in_bytes)
        numbers = np.frombuffer(b"".join(word[:room] for word in in_bytes), dtype=np.uint8).astype(np.int64) + 1
    else:
        in_characters = [word or "" for word in words]
        sizes = map(len, in_characters)
        numbers = _look_up("".join(word[:room] for word in in_characters), characters)
    full_lengths = np.fromiter(sizes, dtype=np.int64, count=len(words))
    lengths = np.minimum(full_lengths, room)
    rows = np.full((len(words), max_characters_per_token), PAD_CHARACTER, dtype=np.int64)
    row = np.repeat(np.arange(len(words)), lengths)
    column = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    rows[row, column] = numbers
    rows[:, 0] = BEGIN_WORD
    rows[np.arange(len(words)), lengths + 1] = END_WORD
    cut = full_lengths > room
    for number in [number for number, word in enumerate(words) if word is None or word in boundaries]:
        word = words[number]
        if word is None:
            rows[number] = 0
        else:
            rows[number] = PAD_CHARACTER
            rows[number, :3] = BEGIN_WORD, boundaries[word], END_WORD
            cut[number] = False
    return rows, cut


def character_numbers(count: int) -> np.ndarray:
    """The ids of the characters of a dictionary, ``(count,)``, int64: from 2 on, the marks (257 to 261) passed over."""
    numbers = np.arange(UNKNOWN_CHARACTER + 1, UNKNOWN_CHARACTER + 1 + count)
    return np.where(numbers < BEGIN_SENTENCE, numbers, numbers + PAD_CHARACTER - BEGIN_SENTENCE + 1)


def _look_up(text: str, characters: str) -> np.ndarray:
    """The ids of all characters of a text, ``(characters,)``, int64."""
    known, numbers = _lookup_table(characters)
    codes = _code_points(text)
    places = np.searchsorted(known, codes)
    places[places == len(known)] = 0
    return np.where(known[places] == codes, numbers[places], UNKNOWN_CHARACTER)


# Here rather than in the tokenizers, whose attributes `datasets` hashes to recognise work that it has done before.
@lru_cache(maxsize=8)
def _lookup_table(characters: str) -> tuple[np.ndarray, np.ndarray]:
    """The code points of a dictionary, sorted, and the id of each."""
    codes = _code_points(characters)
    order = np.argsort(codes)
    return codes[order], character_numbers(len(codes))[order]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


# Models of tokenizers with words that were added later. Kept outside of the tokenizers, whose attributes `datasets`
# hashes to recognise work that it has done before.
_WORD_MODELS: weakref.WeakKeyDictionary[ElmoTokenizer, tuple[Tokenizer, int, models.Model]] = (
    weakref.WeakKeyDictionary()
)


def _check_length(max_characters_per_token: Any) -> None:
    if isinstance(max_characters_per_token, bool) or not isinstance(max_characters_per_token, int):
        raise TypeError(f"max_characters_per_token must be an int, was: {_describe(max_characters_per_token)}.")
    if max_characters_per_token < 3:
        raise ValueError(
            f"max_characters_per_token must be at least 3 (two word marks and a byte), was: {max_characters_per_token}."
        )


def _check_characters(characters: Any) -> None:
    if not isinstance(characters, str):
        raise TypeError(f"characters must be a str of all characters that are known, was: {_describe(characters)}.")
    if not characters or len(set(characters)) < len(characters):
        raise ValueError(
            f"characters must be at least one character, none of them twice, was: {_describe(characters)}."
        )
    if _SURROGATE.search(characters):
        raise ValueError("characters must be Unicode text, but there are lone surrogates among them: leave them out.")


def _number_words(vocabulary: Iterable[str]) -> dict[str, int]:
    numbers = {word: number for number, word in enumerate(SPECIAL_WORDS)}
    for word in vocabulary:
        place = len(numbers) - len(SPECIAL_WORDS)
        if not isinstance(word, str):
            raise TypeError(f"A vocabulary consists of words (str); behind {place} words it has: {_describe(word)}.")
        if word in SPECIAL_WORDS or word == "<UNK>":
            continue
        if not word:
            raise ValueError(f"The vocabulary has an empty word behind {place} words.")
        if word in numbers:
            raise ValueError(f"The vocabulary has the word {word!r} twice: each word must stand once.")
        if _STAND_IN in word or _SURROGATE.search(word):
            raise ValueError(
                f"The vocabulary has the word {word!a}: lone surrogates are not Unicode text, and U+10FFFF is "
                "reserved. Leave it out: the tokenizer makes [UNK] of it."
            )
        numbers[word] = len(numbers)
    return numbers


def _backend() -> Tokenizer:
    """The Rust tokenizer of raw text: words by a pattern, ids by look-up, BOS and EOS by a template."""
    backend = Tokenizer(_model({word: number for number, word in enumerate(SPECIAL_WORDS)}, UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {EOS} {BOS}:1 $B:1 {EOS}:1",
        special_tokens=[(word, SPECIAL_WORDS.index(word)) for word in (BOS, EOS)],
    )
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL_WORDS])
    return backend


def _model(vocabulary: dict[str, int], unk_token: str) -> models.Model:
    """A look-up of whole words.

    A WordPiece, since pipelines take the words of WordPiece, unlike those of WordLevel, for whole ones. It would put a
    word together from others, if one of the vocabulary began with the prefix of pieces; so none does.
    """
    prefix = _PIECE
    while any(word.startswith(prefix) for word in vocabulary):
        prefix += "\0"
    longest = max(map(len, vocabulary))
    return models.WordPiece(
        vocabulary, unk_token=unk_token, continuing_subword_prefix=prefix, max_input_chars_per_word=longest
    )


def _is_batch(text: Any, is_split_into_words: bool) -> bool:
    """Whether this is several texts (or sentences of words): transformers' own rule."""
    if not isinstance(text, (list, tuple)):
        return False
    return not is_split_into_words or (len(text) > 0 and isinstance(text[0], (list, tuple)))


def _samples(text: Any, text_pair: Any, is_split_into_words: bool) -> list[tuple]:
    """What to encode: a tuple of one or two texts, or sentences of words, for each row."""
    if not _is_batch(text, is_split_into_words):
        # An empty pair of a single text counts as no pair, as elsewhere in transformers.
        return [(text, text_pair) if text_pair else (text,)]
    if not text:
        raise ValueError("There is nothing to encode: the batch is empty.")
    if text_pair is not None:
        if not isinstance(text_pair, (list, tuple)):
            raise TypeError(f"The pairs of a batch must be a batch too, were: {_describe(text_pair)}.")
        if len(text) != len(text_pair):
            raise ValueError(f"A batch of {len(text)} needs as many pairs, there are {len(text_pair)}.")
        return list(zip(text, text_pair, strict=True))
    return [tuple(entry) if _is_pair(entry, is_split_into_words) else (entry,) for entry in text]


def _is_pair(entry: Any, is_split_into_words: bool) -> bool:
    if not isinstance(entry, (list, tuple)):
        return False
    if is_split_into_words and not (entry and isinstance(entry[0], (list, tuple))):
        return False
    if len(entry) != 2:
        remedy = "" if is_split_into_words else " Are these words? Then pass is_split_into_words=True."
        raise ValueError(f"A pair has two sides, this one has {len(entry)}: {_describe(entry)}.{remedy}")
    return True


def _safe_text(text: Any) -> str:
    """The text with another character for each lone surrogate, which Rust cannot hold; nothing moves."""
    if not isinstance(text, str):
        raise TypeError(f"Expected a text (str), was: {_describe(text)}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(_STAND_IN, text)
    return text


def _safe_words(words: Any, padding: set[str | None]) -> Sequence[str]:
    """Words of which Rust makes one token each, with the word's id and, but for the empty one, its length."""
    if not isinstance(words, (list, tuple)):
        raise TypeError(f"With is_split_into_words=True a sentence is a list of words, was: {_describe(words)}.")
    try:
        "".join(words).encode()
        if all(words) and padding.isdisjoint(words):
            return words
    except UnicodeEncodeError:
        pass
    except TypeError:
        place, word = next((place, word) for place, word in enumerate(words) if not isinstance(word, str))
        raise TypeError(f"Expected words (str), was at place {place} of a sentence: {_describe(word)}.") from None
    return [
        _STAND_IN * max(len(word), 1) if not word or word in padding or _SURROGATE.search(word) else word
        for word in words
    ]


def _describe(value: Any) -> str:
    text = ascii(value)
    return f"{text if len(text) < 60 else text[:56] + ' ...'} ({type(value).__name__})"


def _as_tensor(values: list, return_tensors: Any) -> Any:
    """A field converted as `BatchEncoding` would, where that is possible, but without a Python object per number."""
    if return_tensors not in ("pt", "np"):
        return values
    try:
        array = np.array(values, dtype=np.int64)
    except ValueError:
        return values
    return torch.from_numpy(array) if return_tensors == "pt" else array


def _per_sentence(values: np.ndarray, lengths: list[int], return_tensors: Any) -> Any:
    """Values of words one below the other, sentence by sentence: lists if no tensors are wanted."""
    if return_tensors is None:
        plain, ends = values.tolist(), np.cumsum(lengths).tolist()
        return [plain[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    if len(set(lengths)) > 1:
        # No tensor can hold these; BatchEncoding says so.
        return np.split(values, np.cumsum(lengths)[:-1])
    values = values.reshape(len(lengths), lengths[0], *values.shape[1:])
    return torch.from_numpy(values) if return_tensors == "pt" else values


def _spread(values: np.ndarray, layout: Layout, return_tensors: Any) -> Any:
    """What each distinct word of a batch has, at all of its places."""
    spread = values.take(layout.places, axis=0)
    if return_tensors is not None:
        spread = spread.reshape(len(layout.lengths), layout.lengths[0], *values.shape[1:])
        return torch.from_numpy(spread) if return_tensors == "pt" else spread
    if layout.places.ndim == 2:
        return spread.tolist()
    return _per_sentence(spread, layout.lengths, None)


def _pad_layers(sentences: Sequence[Any], lengths: list[int], on_left: bool, return_tensors: Any) -> Any:
    """Layers of sentences, ``(layers, words, dim)`` each, with zeros up to `lengths` words."""
    padded = []
    for layers, length in zip(sentences, lengths, strict=True):
        layers = np.asarray(to_numpy(layers))
        if layers.ndim != 3 or layers.shape[1] > length:
            raise ValueError(
                f"layer_states of a sentence must be (layers, words, dim), with as many words as input_ids ({length}, "
                f"padding included), was: {layers.shape}."
            )
        missing = length - layers.shape[1]
        widths = [(0, 0), (missing, 0) if on_left else (0, missing), (0, 0)]
        padded.append(np.pad(layers, widths) if missing else layers)
    if return_tensors is None:
        return [layers.tolist() for layers in padded]
    if len(set(lengths)) > 1:
        # No tensor can hold these; BatchEncoding says so.
        return padded
    batch = np.stack(padded)
    return torch.from_numpy(batch) if return_tensors == "pt" else batch


def _behind_first(data: Mapping[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The data with our fields right behind `input_ids`, where `model_input_names` has them."""
    first, *others = data.items()
    return dict([first, *ours.items(), *others])
