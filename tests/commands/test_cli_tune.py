"""`hf-elmo tune`: what is measured, written, and used again."""

import json
import time
from unittest.mock import Mock

import pytest
import torch
from typer.testing import CliRunner

from hf_elmo.commands import tune
from hf_elmo.commands.app import app
from hf_elmo.model.products.matrix_products import has_half, has_onednn
from hf_elmo.model.products.processor import features, read_row
from hf_elmo.model.products.processor_table import ProcessorRow


@pytest.fixture
def result(tmp_path, monkeypatch):
    """The command on weights of a few numbers."""
    monkeypatch.setattr(tune, "_SIZES", {"small": (16, 3), "large": (32, 5)})
    monkeypatch.setattr(tune, "_ROWS", (1, 4))
    monkeypatch.setattr(tune, "_SECONDS", 0)
    result = CliRunner().invoke(app, ["tune", "--output", str(tmp_path / "products.json")])
    assert result.exit_code == 0, result.output
    return result


def test_what_it_writes_is_what_it_prints_and_can_be_used(result, tmp_path):
    file = tmp_path / "products.json"
    row = read_row(file)
    assert row.has == features()
    assert f"HF_ELMO_PRODUCTS={file}" in result.stderr
    lines = result.stdout.splitlines()
    start = lines.index("ProcessorRow(")
    printed = eval("\n".join(lines[start:]), {"ProcessorRow": ProcessorRow})
    assert printed.products == row.products == json_products(file)
    for name in ("has", "pairs", "training", "backward"):
        assert getattr(printed, name) == getattr(row, name)
    assert printed.pairs_of_int8 == row.pairs_of_int8 <= 3
    assert printed.words_to_widen == row.words_to_widen > 0
    assert printed.words_to_widen_once == row.words_to_widen_once > 0
    # A line for each dtype, size and number of rows.
    assert lines[0].split("\t")[:4] == ["dtype", "size", "rows", "packed, GFLOP/s"]
    table = [line.split("\t") for line in lines[1:start]]
    assert [line[:3] for line in table] == [
        [dtype, size, rows]
        for dtype in ("float32", "bfloat16", "float16")
        for size in ("small", "large")
        for rows in ("1", "4")
    ]
    for dtype, _, _, packed, plain, transposed, half, widened in table:
        assert bool(packed) == has_onednn(torch.empty(1, dtype=getattr(torch, dtype)))
        assert plain
        assert bool(transposed) == (dtype == "float32")
        assert bool(half) == (dtype != "float32" and has_half())
        assert bool(widened) == (dtype != "float32")


def json_products(file):
    products = json.loads(file.read_text(encoding="utf-8"))["products"]
    return {
        dtype: {size: tuple(map(tuple, bands)) for size, bands in sizes.items()} for dtype, sizes in products.items()
    }


def test_where_there_is_no_product_of_8_bits_nothing_is_paired(monkeypatch):
    monkeypatch.setattr(torch.ops.quantized, "linear_prepack", Mock(side_effect=RuntimeError("no engine")))
    assert tune._times_of_int8() == {}
    assert tune._rows_of_pairs("small", {}) == 0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # To make it, packed, plain: in 25 steps the copy costs as much as is saved by a fortieth of a second in each.
        ([1.0, 0.10, 0.15], "packed"),
        ([1.0, 0.10, 0.13], "plain"),
        ([0.0, 0.15, 0.10], "plain"),
    ],
)
def test_the_copy_for_gradients_is_to_pay_for_itself(monkeypatch, seconds, expected):
    monkeypatch.setattr(tune, "_SIZES", {"large": (32, 5)})
    monkeypatch.setattr("hf_elmo.model.products.matrix_products.has_onednn", lambda weight: True)
    monkeypatch.setattr("hf_elmo.model.products.matrix_products.packed_product", lambda weight, transposed: None)
    monkeypatch.setattr(tune, "_seconds", lambda run: seconds.pop(0))
    assert tune._faster_backward() == expected


def test_another_product_is_taken_where_a_copy_pays():
    times = {
        1: {"packed": 1.0, "plain": 1.5},
        2: {"packed": 1.05, "plain": 1.0},  # not worth it
        8: {"packed": 2.0, "plain": 1.0},
        16: {"packed": 1.0, "plain": 1.0, "transposed": 0.95},
    }
    assert tune.bands_of(times) == ((1, "packed"), (8, "plain"))


def test_words_that_pay_for_widening():
    """Of 128 rows 1.28 s are saved: 10 ms a word, so 2 s are paid for by 200 words."""
    times = {
        ("float32", "large"): {128: {"packed": 1.0, "plain": 3.0}},
        ("bfloat16", "large"): {128: {"plain": 2.28, "widened": 1.08}},
        ("float16", "large"): {128: {"plain": 0.9, "widened": 1.08}},
    }
    assert tune._words_to_widen(times, "bfloat16", 2.0) == pytest.approx(200, abs=1)
    assert tune._words_to_widen(times, "float16", 2.0) == 2**15


@pytest.mark.parametrize(("faster", "expected"), [({1, 2, 8}, 8), ({1, 2, 4, 8}, 1), ({1, 2, 4}, 2**15)])
def test_words_that_pay_for_widening_in_parts(monkeypatch, faster, expected):
    """The fewest from which on it is always faster."""
    monkeypatch.setattr(tune, "_ROWS", (1, 2, 4, 8))
    rows = {}
    monkeypatch.setattr(
        "hf_elmo.model.products.matrix_products.widened_linear",
        lambda inputs, weight, bias: rows.update(now=len(inputs), wide=True) or inputs,
    )
    monkeypatch.setattr("torch.nn.functional.linear", lambda inputs, weight: rows.update(wide=False))

    def seconds(run):
        run()
        return 1.0 if not rows["wide"] else 0.5 if rows["now"] in faster else 2.0

    monkeypatch.setattr(tune, "_seconds", seconds)
    assert tune._words_to_widen_once(torch.ones(4, 3, dtype=torch.bfloat16)) == expected


@pytest.mark.parametrize(
    ("clock", "processors", "threads", "said"),
    [
        (10.0, 19.5, 2, None),
        (10.0, 9.8, 1, None),
        (10.0, 12.0, 2, "the products had 60 % of the time of 2 processors"),
        (10.0, 2.0, 1, "the products had 20 % of the time of 1 processor,"),
    ],
)
def test_a_machine_that_computes_something_else_is_told(monkeypatch, clock, processors, threads, said):
    monkeypatch.setattr(tune, "_spent", {"clock": clock, "processors": processors})
    told = tune._disturbed(threads)
    assert told is None if said is None else said in told


def test_time_on_the_clock_and_of_the_processors_is_counted(monkeypatch):
    """A product that waits takes time on the clock alone."""
    monkeypatch.setattr(tune, "_SECONDS", 0)
    monkeypatch.setattr(tune, "_spent", {"clock": 0.0, "processors": 0.0})
    tune._seconds(lambda: time.sleep(0.05))
    assert tune._spent["clock"] >= 0.15
    assert "something else was computed" in tune._disturbed(1)


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "measure", lambda: pytest.fail("it measures"))
    result = CliRunner().invoke(app, ["tune", "--output", str(tmp_path / "absent" / "products.json")])
    assert result.exit_code == 1
    assert "absent" in result.stderr
