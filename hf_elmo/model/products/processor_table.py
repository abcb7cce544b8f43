"""Which matrix product each kind of processor is quickest at: data, for people to read and to add to.

A processor gets the first row of `TABLE` that its features fit, so the same processor always computes the same bits,
whatever else it is busy with. `hf-elmo tune` measures a machine and prints its row; docs/performance.md, "What the
processor decides", tells how rows are read and what they rest on.

Products (`matrix_products.py` has them):

- ``packed``: oneDNN's, of a weight laid out for it once; where torch has no such product of the dtype, ``plain``.
- ``plain``: torch's own, of the weight as it is.
- ``transposed``: torch's own, of a copy of the weight whose rows are the parts of sums.
- ``half``: FBGEMM's, of rows in float32 and a copy of the weight in float16, which is kept; bfloat16 loses nothing by
  it. Where torch has no such product, and in training, where no copy can be kept: ``widened``.
- ``widened``: of a float32 copy, by float32's product for as many rows. The copy of a small weight is kept; that of
  a large one serves one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: A weight of at most this many numbers is small: a copy of it costs next to nothing. (512 x 512 numbers of each gate.)
NUMBERS_OF_SMALL = 2**20

#: From how many rows on which product is taken; the first begins at one row.
Bands = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class ProcessorRow:
    """What one kind of processor is quickest at.

    Attributes:
        name: What the log calls it.
        has: The features that it has (`processor.features`).
        lacks: Those that it does not have.
        products: For each dtype (``float32``, ``bfloat16``, ``float16``) the bands of ``small`` and of ``large``
            weights. The number of rows is that of a batch's sentences that have not ended, on average.
        words_to_widen: A large weight of the steps is widened only for at least this many words; for fewer it costs
            more than it saves, and the product for one row is taken.
        words_to_widen_once: The same of a large weight that all words are multiplied with at once, which is widened
            part by part.
        pairs: Up to how many rows the two directions of small and of large float32 weights are one product of MKL's.
        pairs_of_int8: The same of small weights in 8 bits, of which float32 copies are then kept, too.
        training: The quicker dtype of products in training, ``float32`` or ``bfloat16``.
        backward: The quicker product of a float32 weight with gradients, ``rows @ weight``: ``packed``, of a copy made
            for each batch of many steps, or ``plain``.
        source: Where this comes from.
    """

    name: str
    has: frozenset[str]
    lacks: frozenset[str]
    products: Mapping[str, Mapping[str, Bands]]
    words_to_widen: int
    words_to_widen_once: int
    pairs: tuple[int, int]
    pairs_of_int8: int
    training: str
    backward: str
    source: str

    def product(self, dtype: str, numbers: int, rows: int) -> str:
        """The product of a weight of that many numbers with that many rows; `plain` for other dtypes."""
        sizes = self.products.get(dtype)
        if sizes is None:
            return "plain"
        bands = sizes["small" if is_small(numbers) else "large"]
        return [product for begin, product in bands if begin <= max(rows, 1)][-1]


_PACKED: Bands = ((1, "packed"),)
_PLAIN: Bands = ((1, "plain"),)
_WIDENED: Bands = ((1, "widened"),)
_TRANSPOSED: Bands = ((1, "transposed"),)
_HALF_THEN_WIDENED: Bands = ((1, "half"), (48, "widened"))
_ONE_TRANSPOSED: Bands = ((1, "transposed"), (2, "packed"))
_FEW_TRANSPOSED: Bands = ((1, "transposed"), (16, "packed"))

# Without AVX-512 FP16 torch computes float16 in loops of its own, which one row of a large weight bears.
_SLOW_FLOAT16 = {"small": _WIDENED, "large": ((1, "plain"), (4, "widened"))}

TABLE = (
    ProcessorRow(
        name="Intel with AMX",
        has=frozenset({"Intel", "avx512", "bf16", "amx"}),
        lacks=frozenset(),
        products={
            "float32": {"small": _PACKED, "large": _FEW_TRANSPOSED},
            "bfloat16": {"small": _PACKED, "large": _PACKED},
            "float16": {"small": _PLAIN, "large": _PLAIN},
        },
        words_to_widen=32,
        words_to_widen_once=32,
        pairs=(3, 1),
        pairs_of_int8=0,
        training="bfloat16",
        backward="packed",
        source="Not measured. float32 as without AMX; AMX multiplies bfloat16 faster than AVX-512 does float32.",
    ),
    ProcessorRow(
        name="Intel with AVX-512 and bf16, without AMX",
        has=frozenset({"Intel", "avx512", "bf16"}),
        lacks=frozenset({"amx"}),
        products={
            "float32": {"small": _PACKED, "large": _FEW_TRANSPOSED},
            "bfloat16": {"small": _WIDENED, "large": ((1, "packed"), (64, "widened"))},
            "float16": {"small": _PLAIN, "large": _PLAIN},
        },
        words_to_widen=512,
        words_to_widen_once=64,
        pairs=(3, 1),
        pairs_of_int8=0,
        training="float32",
        backward="packed",
        source="A Xeon, two cores, products of (16,384 x 512) with 1, 8, 32, 128 rows, GFLOP/s: float32 plain 28, 71, "
        "142, 278, packed 23, 128, 231, 257 to 306, transposed 26, 157, 184, 269; bfloat16 packed 39, 146, 171, 162; "
        "at small size the whole model 1.9 and 6.3 times AllenNLP in float32, 1.8 and 4.9 in bfloat16. What it costs "
        "to widen (64 rows, 512 words) was measured on Zen 3. Training in bfloat16 costs 1.33 times as much.",
    ),
    ProcessorRow(
        name="AMD with AVX-512 and bf16",
        has=frozenset({"AMD", "avx512", "bf16"}),
        lacks=frozenset(),
        products={
            "float32": {"small": _PACKED, "large": _PACKED},
            "bfloat16": {"small": _PACKED, "large": _PACKED},
            "float16": _SLOW_FLOAT16,
        },
        words_to_widen=32,
        words_to_widen_once=32,
        pairs=(3, 1),
        pairs_of_int8=1,
        training="bfloat16",
        backward="packed",
        source="Zen 4, two cores: docs/performance.md (python -m benchmarks.run, benchmarks.breakdown); training in "
        "bfloat16 is 1.9 times faster. float16 as on Zen 3. pairs_of_int8 from the whole small model, which read "
        "single sentences no faster in 8 bits than in float32. Zen 5 was not measured.",
    ),
    ProcessorRow(
        name="AVX-512 without bf16",
        has=frozenset({"avx512"}),
        lacks=frozenset({"bf16"}),
        products={
            "float32": {"small": _TRANSPOSED, "large": _ONE_TRANSPOSED},
            "bfloat16": {"small": _WIDENED, "large": _HALF_THEN_WIDENED},
            "float16": {"small": _WIDENED, "large": _HALF_THEN_WIDENED},
        },
        words_to_widen=64,
        words_to_widen_once=16,
        pairs=(3, 0),
        pairs_of_int8=1,
        training="float32",
        backward="plain",
        source="Ice Lake (a Xeon with AVX-512 and VNNI), two cores, `hf-elmo tune`; products of (16,384 x 512) with "
        "1, 4, 8, 32, 128 rows, GFLOP/s: float32 plain 13, 23, 29, 74, 235, packed 14, 46, 67, 136, 242, "
        "transposed 19, 32, 47, 112, 197; bfloat16 packed 45, 41, 41, 52, 59, half 42, 144, 216, 230, 219; "
        "float16 plain 18 to 28, half 36, 125, 171, 155, 176; of (4,096 x 128): float32 packed 19, 63, 97, "
        "198, 253, transposed 55, 148, 229, 212, 296. In the whole model many rows were widened faster than "
        "halved. Pairs are those of the whole models (tune would have none), which read a sentence 1.07 times "
        "as fast with them at small size, 1.03 times as fast without at original size; in 8 bits at small "
        "size 1.23 times as fast as in float32 with them, 0.97 times without. Skylake and Cascade Lake were "
        "not measured.",
    ),
    ProcessorRow(
        name="AVX2 without AVX-512",
        has=frozenset({"avx2"}),
        lacks=frozenset({"avx512"}),
        products={
            "float32": {"small": _ONE_TRANSPOSED, "large": _ONE_TRANSPOSED},
            "bfloat16": {"small": _WIDENED, "large": ((1, "plain"), (4, "widened"))},
            "float16": _SLOW_FLOAT16,
        },
        words_to_widen=40,
        words_to_widen_once=8,
        pairs=(3, 1),
        pairs_of_int8=1,
        training="float32",
        backward="packed",
        source="Zen 3, two cores, `hf-elmo tune`; products of (16,384 x 512) with 1, 2, 4, 8, 32, 128 rows, GFLOP/s: "
        "float32 plain 5, 4, 8, 17, 48, 68, packed 9, 17, 27, 45, 88, 112, transposed 10, 10, 6, 14, 41, 74; bfloat16 "
        "plain 15 to 18, widened 6, 10, 18, 31, 73, 105; float16 as bfloat16. (It would have pairs of large weights "
        "left out, which the whole model was not measured without.)",
    ),
    ProcessorRow(
        name="any other",
        has=frozenset(),
        lacks=frozenset(),
        products={
            "float32": {"small": _PACKED, "large": _PACKED},
            "bfloat16": {"small": _PACKED, "large": _PACKED},
            "float16": {"small": _PLAIN, "large": _PLAIN},
        },
        words_to_widen=32,
        words_to_widen_once=32,
        pairs=(3, 1),
        pairs_of_int8=0,
        training="float32",
        backward="packed",
        source="Not measured (ARM with NEON or SVE among them).",
    ),
)


def is_small(numbers: int) -> bool:
    """Whether a weight of that many numbers is small."""
    return numbers <= NUMBERS_OF_SMALL


def row_for(features: frozenset[str]) -> ProcessorRow:
    """The first row of the table that a processor's features fit."""
    return next(row for row in TABLE if row.has <= features and not row.lacks & features)
