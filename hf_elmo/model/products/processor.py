"""What the processor at hand is, and which row of the table of products (`processor_table.py`) counts for it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .processor_table import Bands, ProcessorRow, row_for

logger = logging.get_logger(__name__)

#: The environment variable that names a file of `hf-elmo tune`, whose row then counts instead of the table's.
PRODUCTS_VARIABLE = "HF_ELMO_PRODUCTS"

DTYPES = ("float32", "bfloat16", "float16")
#: The last two are of weights of 16 bits.
PRODUCT_NAMES = ("packed", "plain", "transposed", "half", "widened")

# Our name of a feature, torch's name of it (`torch.cpu.get_capabilities`), and the function of an older torch.
_CAPABILITIES = (
    ("avx2", "avx2", "_is_avx2_supported"),
    ("avx512", "avx512_f", "_is_avx512_supported"),
    ("bf16", "avx512_bf16", "_is_avx512_bf16_supported"),
    ("fp16", "avx512_fp16", None),
    ("vnni", "avx512_vnni", "_is_vnni_supported"),
    ("amx", "amx_bf16", "_is_amx_tile_supported"),
    ("neon", "neon", None),
    ("sve", "sve", None),
)
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """What the processor has: ``Intel`` or ``AMD``, ``avx2``, ``avx512``, ``bf16``, ``fp16``, ``vnni``, ``amx``,
    ``neon``, ``sve``."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    known: Mapping[str, Any] = {} if ask is None else ask()
    found = set()
    for name, capability, function in _CAPABILITIES:
        has = known.get(capability)
        if has is None and function is not None and ask is None:
            has = getattr(torch.cpu, function, bool)()
        if has:
            found.add(name)
    return frozenset(found | _vendor())


def _vendor() -> set[str]:
    text = platform.processor()  # on Windows the vendor is in it
    with suppress(OSError):
        # The first processor's lines are those of all.
        text += Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    return {vendor for word, vendor in _VENDORS.items() if word in text}


@lru_cache(maxsize=1)
def row_in_use() -> ProcessorRow:
    """The row that counts here: that of the file that `HF_ELMO_PRODUCTS` names, or the table's.

    Raises:
        ValueError: for a file that is not one of `hf-elmo tune`.
    """
    file = os.environ.get(PRODUCTS_VARIABLE)
    row = read_row(file) if file else row_for(features())
    if file and row.has != features():
        logger.warning(
            f"{file} was measured on another processor ({' '.join(sorted(row.has))}) than this one "
            f"({' '.join(sorted(features()))}): its products are right here too, but may not be the quickest."
        )
    logger.info(
        f"Matrix products are those for: {row.name} ({' '.join(sorted(features())) or 'no known features'}). "
        + "; ".join(f"{dtype}: {_in_words(row.products[dtype])}" for dtype in DTYPES)
        + "."
    )
    return row


def _in_words(sizes: Mapping[str, Bands]) -> str:
    return ", ".join(
        f"{size} " + " ".join(product if begin == 1 else f"from {begin} rows on {product}" for begin, product in bands)
        for size, bands in sizes.items()
    )


def read_row(file: str | Path) -> ProcessorRow:
    """The row in a file of `hf-elmo tune`.

    Raises:
        ValueError: for a file that is not one.
    """
    try:
        return _row_of(json.loads(Path(file).read_text(encoding="utf-8")), str(file))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file}, which {PRODUCTS_VARIABLE} names, is not a file of products ({_reason(error)}): make one with "
            f"`hf-elmo tune --output FILE`, or unset {PRODUCTS_VARIABLE}."
        ) from None


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _row_of(values: Mapping[str, Any], file: str) -> ProcessorRow:
    products = {
        dtype: {size: _bands(values["products"][dtype][size], dtype, size) for size in ("small", "large")}
        for dtype in DTYPES
    }
    words = {name: values[name] for name in ("words_to_widen", "words_to_widen_once")}
    pairs, pairs_of_int8, training = values["pairs"], values["pairs_of_int8"], values["training"]
    backward = values["backward"]
    for name, count in words.items():
        if not _is_count(count):
            raise ValueError(f"{name} is {count!r}, not a number of words")
    if not (isinstance(pairs, list) and len(pairs) == 2 and all(map(_is_count, pairs))):
        raise ValueError(f"pairs is {pairs!r}, not two numbers of rows")
    if not _is_count(pairs_of_int8):
        raise ValueError(f"pairs_of_int8 is {pairs_of_int8!r}, not a number of rows")
    if training not in ("float32", "bfloat16"):
        raise ValueError(f"training is {training!r}, not float32 or bfloat16")
    if backward not in ("packed", "plain"):
        raise ValueError(f"backward is {backward!r}, not packed or plain")
    return ProcessorRow(
        name=str(values["name"]),
        has=frozenset(values["has"]),
        lacks=frozenset(),
        products=products,
        **words,
        pairs=(pairs[0], pairs[1]),
        pairs_of_int8=pairs_of_int8,
        training=training,
        backward=backward,
        source=file,
    )


def _bands(values: list[list[Any]], dtype: str, size: str) -> Bands:
    allowed = PRODUCT_NAMES[:-2] if dtype == "float32" else PRODUCT_NAMES
    begins = [begin for begin, _ in values]
    unknown = [product for _, product in values if product not in allowed]
    if unknown:
        raise ValueError(f"{dtype} {size} has the product {unknown[0]!r}, not one of {', '.join(allowed)}")
    if not all(map(_is_count, begins)) or begins[:1] != [1] or begins != sorted(set(begins)):
        raise ValueError(f"the rows of {dtype} {size} are {begins}: they begin with 1 and rise")
    return tuple((begin, product) for begin, product in values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
