"""The commands that measure single costs run, and what they tell makes sense."""

import sys

import pytest

from benchmarks import fingerprint, int8_products, primitive_cache
from hf_elmo.model.fingerprint import Fingerprint


def test_looks_at_weights(capsys):
    matches = Fingerprint.matches
    shares = fingerprint.main(["--size", "small", "--words", "1", "--calls", "2"])
    assert Fingerprint.matches is matches
    assert len(shares["small", 1]) == 2
    assert all(0 < share < 1 for share in shares["small", 1])
    assert "| small | 1 |" in capsys.readouterr().out


def test_products_of_8_bits(capsys):
    results = int8_products.main(["--rows", "2"])
    for row in results.values():
        # 7 bits of the inputs cost more than 8 bits of the weights, and no sum overflows.
        assert 0 < row["weights rounded"] < row["7 bits"] < 5
        assert row["hf_elmo"] in (row["7 bits"], row["8 bits"])
    assert "original" in capsys.readouterr().out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_reading():
    growth, seconds = primitive_cache.read(20)
    assert growth > -100
    assert seconds > 0
