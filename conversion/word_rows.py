"""Arrays with a row for each word of a vocabulary, in the order of bilm-tf's files and in ours.

bilm-tf numbers words by the lines of the vocabulary file, wherever in it the special words stand. Ours are `[PAD]`,
which bilm-tf does not have, `[UNK]`, `<S>`, `</S>`, then the words in their order.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.configuration_elmo import ElmoConfig
from .errors import ConversionError
from .key_map import Link, Transform
from .vocabulary import BILM_SPECIAL_WORDS, distinct_words

# Special words that stand before all others in our vocabulary.
_OUR_SPECIAL_WORDS = 4


def _from_usual_order(array: Tensor) -> Tensor:
    begin, end, unknown, *_ = range(len(BILM_SPECIAL_WORDS))
    order = torch.tensor([unknown, begin, end, *range(len(BILM_SPECIAL_WORDS), len(array))])
    return in_our_order(array, order.to(array.device))


def _to_usual_order(rows: Tensor) -> Tensor:
    if not rows.is_meta and rows[0].count_nonzero():
        raise ValueError("its row 0, padding, is not zero, but the format has no place for it.")
    return torch.cat([rows[2:_OUR_SPECIAL_WORDS], rows[1:2], rows[_OUR_SPECIAL_WORDS:]])


#: ``(lines, ...)`` of a vocabulary that begins with the special words, as all that bilm-tf's authors made, and
#: ``(vocab_size, ...)``.
ROWS_OF_WORDS = Transform(lambda array: (_from_usual_order(array),), _to_usual_order)


def our_order(lines: Sequence[str], name: str) -> tuple[list[str], Tensor]:
    """The words of our vocabulary, and which line each of `[UNK]`, `<S>`, `</S>` and the words is on; int64.

    Raises:
        ConversionError: for a vocabulary without one of the special words.
    """
    # A word that stands twice has its last row: so bilm-tf numbers its targets.
    rows = {word: row for row, word in enumerate(lines)}
    begin, end, unknown = BILM_SPECIAL_WORDS
    if missing := [word for word in BILM_SPECIAL_WORDS if word not in rows]:
        raise ConversionError(
            f"{name} has no line {', '.join(missing)}, without which bilm-tf trains no model: expected the file of the "
            "training, as it was, with one word per line."
        )
    words = distinct_words(lines, name)
    order = [rows[word] for word in (unknown, begin, end, *words)]
    if surplus := len(lines) - len(order):
        warnings.warn(
            f"{name}: {surplus} of its {len(lines):,} lines are repeated, blank, or special words here ([PAD], [UNK]). "
            "Their rows are left out: probabilities are a little higher than they were.",
            stacklevel=3,
        )
    return words, torch.tensor(order)


def in_our_order(array: Tensor, rows: Tensor) -> Tensor:
    """``(lines, ...)`` to ``(vocab_size, ...)``: a row of zeros for `[PAD]`, then the given rows."""
    ours = array.new_zeros(1 + len(rows), *array.shape[1:])
    torch.index_select(array, 0, rows, out=ours[1:])
    return ours


def check_lines(
    file: object, key: str, shape: Sequence[int] | None, lines: int, vocabulary: object, config: ElmoConfig
) -> None:
    """Compares the vocabulary with an array of which it names the rows; a line too many shifts all words behind it.

    Args:
        file: The file, as messages are to name it.
        key: The array's key.
        shape: Its shape; None if there is none.
        lines: Lines of the vocabulary.
        vocabulary: The vocabulary's file, as messages are to name it.
        config: The configuration, with the options that it came from.

    Raises:
        ConversionError: if the numbers of rows, of lines, and that in the options are not the same.
    """
    if not shape:
        return
    of_training = (config.original_options or {}).get("n_tokens_vocab", shape[0])
    if of_training != shape[0]:
        raise ConversionError(
            f"{file}: {key} has {shape[0]:,} rows, but n_tokens_vocab in its options is {of_training!r}: they are of "
            "different trainings."
        )
    if lines != shape[0]:
        raise ConversionError(
            f"{vocabulary} has {lines:,} lines, but {key} in {file} has {shape[0]:,} rows: expected the file of the "
            "training, as it was, with its special words (<S>, </S>, <UNK>) and without another line."
        )


def with_rows(links: Sequence[Link], foreign: str, key: str, lines: int, rows: Tensor) -> list[Link]:
    """Links whose array `foreign` has the rows of a vocabulary, and is called `key` in the file."""
    reorder = Transform(lambda array: (in_our_order(array, rows),), None)
    return [
        link._replace(foreign=key, shape=(lines, *link.shape[1:]), transform=reorder)
        if link.foreign == foreign
        else link
        for link in links
    ]
