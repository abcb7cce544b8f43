"""The fast path of the tokenizer: sentences of given words to tensors, without the Rust tokenizer.

Words that are given stay as they are, so what Rust would add is a look-up of ids, the special words of its template,
and padding. `plan` says whether a call asks for nothing else; `lay_out` does it for a batch at once. The library's
other view of a batch, its `encodings`, is made on demand (`LaterEncodings`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding
from transformers import BatchEncoding
from transformers.utils import PaddingStrategy, TensorType

# Arguments of `_encode_plus` that ask for more than words, and what stands for not asking.
_PLAIN = {
    "stride": 0,
    "return_overflowing_tokens": False,
    "return_special_tokens_mask": False,
    "return_offsets_mapping": False,
    "return_length": False,
}
# Arguments that are followed here; given words are never split at special words.
_ARRANGED = {
    "add_special_tokens",
    "padding_strategy",
    "truncation_strategy",
    "max_length",
    "pad_to_multiple_of",
    "padding_side",
    "return_token_type_ids",
    "return_attention_mask",
    "split_special_tokens",
    "verbose",
}


class Special(NamedTuple):
    """A special word of a template."""

    number: int
    segment: int


class Template(NamedTuple):
    """What stands before and behind a sentence, and the sentence's own segment."""

    before: tuple[Special, ...]
    behind: tuple[Special, ...]
    segment: int


@lru_cache(maxsize=32)
def read_template(state: bytes) -> Template | None:
    """The template of a Rust post-processor for a single sentence; None for anything else."""
    fields = json.loads(state)
    if fields.get("type") != "TemplateProcessing":
        return None
    sides: list[list[Special]] = [[]]
    segments = []
    for piece in fields["single"]:
        if "Sequence" in piece:
            segments.append(piece["Sequence"]["type_id"])
            sides.append([])
        else:
            special = piece["SpecialToken"]
            numbers = fields["special_tokens"][special["id"]]["ids"]
            sides[-1] += [Special(number, special["type_id"]) for number in numbers]
    return Template(tuple(sides[0]), tuple(sides[1]), segments[0]) if len(segments) == 1 else None


class Plan(NamedTuple):
    """How a batch is laid out: rows of `width` words, or each of its own length if `width` is None."""

    template: Template
    width: int | None
    on_left: bool


def plan(lengths: Sequence[int], state: bytes | None, own_side: str, arguments: dict[str, Any]) -> Plan | None:
    """The layout of a batch of single sentences, or None if Rust is needed for it.

    Args:
        lengths: The words of each sentence.
        state: The state of the Rust post-processor, if there is one.
        own_side: The tokenizer's `padding_side`.
        arguments: Of `_encode_plus`.
    """
    if any(arguments.get(name, plain) != plain for name, plain in _PLAIN.items()):
        return None
    if not arguments.keys() <= _PLAIN.keys() | _ARRANGED:
        return None
    template = Template((), (), 0) if state is None else read_template(state)
    if template is None:
        return None
    if not arguments.get("add_special_tokens", True):
        template = Template((), (), template.segment)
    longest = max(lengths) + len(template.before) + len(template.behind)
    max_length = arguments.get("max_length")
    cuts = getattr(arguments.get("truncation_strategy"), "value", "do_not_truncate") != "do_not_truncate"
    if cuts and (max_length is None or longest > max_length):
        return None
    strategy = arguments.get("padding_strategy", PaddingStrategy.DO_NOT_PAD)
    width = None
    if strategy != PaddingStrategy.DO_NOT_PAD:
        width = longest if strategy == PaddingStrategy.LONGEST else max_length
        multiple = arguments.get("pad_to_multiple_of")
        if width is None or multiple == 0:
            return None
        if multiple is not None:
            width += -width % multiple
        if width < longest:
            return None
    side = arguments.get("padding_side") or own_side
    return Plan(template, width, side == "left") if side in ("left", "right") else None


class Layout(NamedTuple):
    """A batch as indices into a list of things that stand in it.

    Attributes:
        words: The distinct words, behind which come the template's special words, and padding.
        specials: The special words.
        places: For each place of the batch the index of what stands there: ``(sentences, width)``, or flat, sentence
            by sentence, where rows have their own lengths; int64.
        lengths: The length of each row.
    """

    words: list[str]
    specials: list[Special]
    places: np.ndarray
    lengths: list[int]


def lay_out(sentences: Sequence[Sequence[str]], how: Plan) -> Layout:
    """Lays a batch of sentences out."""
    places = {word: place for place, word in enumerate(dict.fromkeys(chain.from_iterable(sentences)))}
    words = list(places)
    template, width, on_left = how
    specials = [*template.before, *template.behind]
    before = range(len(words), len(words) + len(template.before))
    behind = range(before.stop, before.stop + len(template.behind))
    look_up = places.__getitem__
    flat = [place for words in sentences for place in (*before, *map(look_up, words), *behind)]
    index = np.array(flat, dtype=np.int64)
    lengths = [len(words) + len(specials) for words in sentences]
    if width is None:
        return Layout(words, specials, index, lengths)
    padded = np.full((len(sentences), width), behind.stop, dtype=np.int64)
    place, ends = np.arange(width), np.array(lengths)[:, None]
    padded[place >= width - ends if on_left else place < ends] = index
    return Layout(words, specials, padded, [width] * len(sentences))


class LaterEncodings(BatchEncoding):
    """A batch whose `encodings` are made when they are first asked for; what is copied or stored of it has them.

    Args:
        data: The fields.
        make: Makes the encodings.
        tensor_type: As in `BatchEncoding`.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        make: Callable[[], Sequence[Encoding] | None] | None = None,
        tensor_type: str | TensorType | None = None,
    ):
        self._make = make
        self._made: Sequence[Encoding] | None = None
        super().__init__(data, tensor_type=tensor_type, n_sequences=None if make is None else 1)

    @property
    def _encodings(self) -> Sequence[Encoding] | None:
        make = self._make
        if self._made is None and make is not None:
            # In this order, so that another thread finds one of the two at any time.
            self._made = make()
            self._make = None
        return self._made

    @_encodings.setter
    def _encodings(self, encodings: Sequence[Encoding] | None) -> None:
        # The library's __init__ sets None.
        if encodings is not None:
            self._made = encodings

    @property
    def is_fast(self) -> bool:
        """Whether there are encodings, made or not."""
        return self._make is not None or self._made is not None

    def __reduce__(self) -> tuple[type[BatchEncoding], tuple[Any, ...]]:
        return BatchEncoding, (self.data, self._encodings, None, False, self._n_sequences)
