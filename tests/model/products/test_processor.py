"""Which product a processor gets: its row of the table, by its features, on whatever machine the tests run."""

import itertools
import json
import logging
import platform
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from forced_products import forced, row_of

from hf_elmo.model.products import matrix_products, processor
from hf_elmo.model.products.matrix_products import choose
from hf_elmo.model.products.processor import PRODUCT_NAMES, features, read_row, row_in_use
from hf_elmo.model.products.processor_table import TABLE, row_for

SMALL, LARGE = 4096 * 128, 16384 * 512
ZEN_4 = {"AMD", "avx2", "avx512", "bf16", "vnni"}
XEON = {"Intel", "avx2", "avx512", "bf16", "fp16", "vnni"}


@pytest.fixture
def fresh_row():
    """The row is looked up anew, and forgotten behind."""
    row_in_use.cache_clear()
    yield
    row_in_use.cache_clear()


@pytest.mark.parametrize(
    ("has", "name", "bfloat16", "training"),
    [
        # Products of a large weight in bfloat16 with 1, 32 and 128 rows.
        (ZEN_4, "AMD with AVX-512 and bf16", ["packed", "packed", "packed"], "bfloat16"),
        (XEON, "Intel with AVX-512 and bf16, without AMX", ["packed", "packed", "widened"], "float32"),
        (XEON | {"amx"}, "Intel with AMX", ["packed", "packed", "packed"], "bfloat16"),
        ({"Intel", "avx2", "avx512", "vnni"}, "AVX-512 without bf16", ["half", "half", "widened"], "float32"),
        ({"AMD", "avx2"}, "AVX2 without AVX-512", ["plain", "widened", "widened"], "float32"),
        ({"Intel", "avx2"}, "AVX2 without AVX-512", ["plain", "widened", "widened"], "float32"),
        ({"neon", "sve"}, "any other", ["packed", "packed", "packed"], "float32"),
        (set(), "any other", ["packed", "packed", "packed"], "float32"),
        ({"avx2", "avx512", "bf16"}, "any other", ["packed", "packed", "packed"], "float32"),  # another maker's
    ],
)
def test_each_kind_of_processor_has_its_row(has, name, bfloat16, training):
    row = row_for(frozenset(has))
    assert row.name == name
    assert [row.product("bfloat16", LARGE, rows) for rows in (1, 32, 128)] == bfloat16
    assert row.training == training


def test_products_by_the_number_of_rows():
    """float32 on the Intel machine: with few rows the transposed weight is the quickest, 157 GFLOP/s of 8 rows."""
    row = row_for(frozenset(XEON))
    assert [row.product("float32", LARGE, rows) for rows in (0, 1, 8, 15, 16, 128)] == [
        *["transposed"] * 4,
        *["packed"] * 2,
    ]
    assert {row.product("float32", SMALL, rows) for rows in (1, 8, 128)} == {"packed"}
    assert row.product("float64", LARGE, 8) == "plain"


def test_products_of_avx512_without_bf16():
    """The quickest on Ice Lake, and pairs of small weights alone."""
    row = row_for(frozenset({"Intel", "avx2", "avx512", "vnni"}))
    assert {row.product("float32", SMALL, rows) for rows in (1, 8, 32, 128)} == {"transposed"}
    for dtype in ("bfloat16", "float16"):
        assert [row.product(dtype, LARGE, rows) for rows in (1, 47, 48)] == ["half", "half", "widened"]
        assert {row.product(dtype, SMALL, rows) for rows in (1, 8, 32, 128)} == {"widened"}
    assert [row.product("float32", LARGE, rows) for rows in (1, 2, 128)] == ["transposed", "packed", "packed"]
    assert (row.pairs, row.pairs_of_int8, row.backward) == ((3, 0), 1, "plain")


def test_every_row_is_whole_and_is_reached():
    names = ["Intel", "AMD", "avx2", "avx512", "bf16", "amx"]
    reached = set()
    for count in range(len(names) + 1):
        reached |= {row_for(frozenset(some)).name for some in itertools.combinations(names, count)}
    assert reached == {row.name for row in TABLE}
    for row in TABLE:
        assert row.source
        assert set(row.products) == set(processor.DTYPES)
        for dtype, sizes in row.products.items():
            for bands in sizes.values():
                assert [begin for begin, _ in bands] == sorted({begin for begin, _ in bands})
                assert bands[0][0] == 1
                assert {product for _, product in bands} <= set(PRODUCT_NAMES) - (
                    {"half", "widened"} if dtype == "float32" else set()
                )


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the features are compared with Linux' list")
def test_features_are_those_of_the_system():
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    flags = set(next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split())
    found = features()
    assert ("avx2" in found) == ("avx2" in flags)
    assert ("avx512" in found) == ("avx512f" in flags)
    assert ("bf16" in found) == ("avx512_bf16" in flags)
    assert ("AMD" in found) == ("AuthenticAMD" in text)
    assert ("Intel" in found) == ("GenuineIntel" in text)


def test_features_of_a_torch_without_a_list(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("avx2", "avx512", "avx512_bf16", "vnni", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: True, raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel")
    monkeypatch.setattr(processor, "Path", lambda name: Path("/absent"))
    found = features.__wrapped__()
    assert found == {"Intel", "avx2", "avx512", "bf16", "vnni"}


class TestChoose:
    """The table's word, and what torch has here."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_few_words_do_not_pay_for_widening(self, dtype):
        large = torch.empty(1024, 1025, dtype=dtype)
        products = {
            "float32": {"small": ((1, "plain"),), "large": ((1, "transposed"),)},
            **{
                name: {"small": ((1, "widened"),), "large": ((1, "plain"), (4, "widened"))}
                for name in processor.DTYPES[1:]
            },
        }
        with forced(row_of("plain", "plain", products=products, words_to_widen=100, words_to_widen_once=10)):
            assert choose(large, 3, 1000) == ("plain", False)
            assert choose(large, 4, 1000) == ("transposed", True)
            assert choose(large, 4, 99) == ("plain", False)
            assert choose(large, 10, 10, once=True) == ("transposed", True)
            assert choose(large, 9, 9, once=True) == ("plain", False)
            assert choose(large, 4) == ("transposed", True)
            assert choose(large[:9], 1, 1) == ("plain", True)
            assert choose(large.float(), 4, 99) == ("transposed", False)
            assert choose(large.double(), 4, 99) == ("plain", False)

    @pytest.mark.parametrize("works", [True, False])
    def test_copies_of_16_bits_are_made_where_they_are_kept(self, works, monkeypatch):
        monkeypatch.setattr(matrix_products, "has_half", lambda: works)
        large = torch.empty(1024, 1025, dtype=torch.bfloat16)
        bands = {"small": ((1, "widened"),), "large": ((1, "half"), (48, "widened"))}
        products = {"float32": {"small": ((1, "plain"),), "large": ((1, "transposed"),)}, "bfloat16": bands}
        with forced(row_of("plain", "plain", products=products, words_to_widen=100, words_to_widen_once=10)):
            for rows, words in ((1, 9), (47, 2000), (48, 99)):
                # Without it few words are multiplied as they are.
                other = ("transposed", True) if words >= 100 else ("plain", False)
                assert choose(large, rows, words, keeps_half=True) == (("half", True) if works else other)
                assert choose(large, rows, words) == other
            assert choose(large, 48, 100, keeps_half=True) == ("transposed", True)
            assert choose(large, 47) == (("half", True) if works else ("transposed", True))
            assert choose(large, 20, 20, once=True) == ("transposed", True)
            assert choose(large, 9, 9, once=True) == ("plain", False)

    def test_what_torch_does_not_have_is_plain(self, monkeypatch):
        monkeypatch.setattr(matrix_products, "_onednn_works", lambda dtype: dtype == torch.float32)
        weight = torch.empty(8, 8)
        with forced(row_of("packed", "packed")):
            assert choose(weight, 4) == ("packed", False)
            assert choose(weight.bfloat16(), 4) == ("plain", False)
        with forced(row_of("packed", "widened")):
            assert choose(weight.bfloat16(), 4) == ("packed", True)


class TestFile:
    """The file of `hf-elmo tune`."""

    @pytest.fixture
    def values(self):
        return json.loads(json.dumps({**asdict(row_for(frozenset(XEON))), "has": sorted(features()), "lacks": []}))

    def test_it_counts_where_it_is_named(self, values, tmp_path, monkeypatch, fresh_row, caplog):
        values["products"]["float32"]["large"] = [[1, "plain"], [9, "transposed"]]
        file = tmp_path / "products.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        monkeypatch.setenv("HF_ELMO_PRODUCTS", str(file))
        logger = logging.getLogger(processor.__name__)
        logger.setLevel(logging.INFO)
        logger.addHandler(caplog.handler)
        try:
            assert choose(torch.empty(1025, 1024), 8, 99) == ("plain", False)
            assert choose(torch.empty(1025, 1024), 9, 99) == ("transposed", False)
        finally:
            logger.removeHandler(caplog.handler)
            logger.setLevel(logging.NOTSET)
        (message,) = {record.getMessage() for record in caplog.records}
        assert message.startswith("Matrix products are those for: Intel with AVX-512 and bf16, without AMX (")
        assert "float32: small packed, large plain from 9 rows on transposed; bfloat16: small widened" in message

    def test_another_processor_is_warned_of(self, values, tmp_path, monkeypatch, fresh_row, caplog):
        file = tmp_path / "products.json"
        file.write_text(json.dumps({**values, "has": ["neon", "sve"]}), encoding="utf-8")
        monkeypatch.setenv("HF_ELMO_PRODUCTS", str(file))
        logger = logging.getLogger(processor.__name__)
        logger.addHandler(caplog.handler)
        try:
            row_in_use()
        finally:
            logger.removeHandler(caplog.handler)
        assert "was measured on another processor (neon sve) than this one" in caplog.text

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda values: "text", "is not a file of products"),
            (lambda values: [], "is not a file of products"),
            (lambda values: values.pop("products"), "it has no 'products'"),
            (lambda values: values | {"words_to_widen": -1}, "words_to_widen is -1, not a number of words"),
            (lambda values: values | {"words_to_widen_once": 1.5}, "words_to_widen_once is 1.5, not a number of words"),
            (lambda values: values | {"pairs": [1]}, r"pairs is \[1\], not two numbers of rows"),
            (lambda values: values | {"pairs_of_int8": None}, "pairs_of_int8 is None, not a number of rows"),
            (lambda values: values | {"training": "int8"}, "training is 'int8', not float32 or bfloat16"),
            (lambda values: values | {"backward": "half"}, "backward is 'half', not packed or plain"),
            (
                lambda values: values["products"]["float32"].update(large=[[1, "widened"]]) or values,
                "float32 large has the product 'widened', not one of packed, plain, transposed",
            ),
            (
                lambda values: values["products"]["float32"].update(small=[[1, "half"]]) or values,
                "float32 small has the product 'half', not one of packed, plain, transposed",
            ),
            (
                lambda values: values["products"]["float16"].update(small=[[2, "plain"]]) or values,
                r"the rows of float16 small are \[2\]: they begin with 1 and rise",
            ),
        ],
    )
    def test_what_is_no_such_file_is_refused(self, values, change, message, tmp_path):
        file = tmp_path / "products.json"
        file.write_text(json.dumps(change(values)), encoding="utf-8")
        with pytest.raises(ValueError, match=message) as error:
            read_row(file)
        assert f"{file}, which HF_ELMO_PRODUCTS names" in str(error.value)
        assert "hf-elmo tune --output FILE" in str(error.value)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_what_is_no_json_is_refused(self, content, tmp_path):
        file = tmp_path / "products.json"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of products"):
            read_row(file)

    def test_an_absent_file_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"is not a file of products \(No such file or directory\)"):
            read_row(tmp_path / "absent.json")
