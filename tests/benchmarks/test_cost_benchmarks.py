"""The commands that measure single costs run, and what they tell makes sense."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import fingerprint, int8_products, primitive_cache
from hf_elmo.model.fingerprint import Fingerprint
from hf_elmo.model.products.matrix_products import has_onednn


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


_MANY_SHAPES = """
import torch
from benchmarks.primitive_cache import resident
from hf_elmo.commands.embed_corpus import bound_caches
from hf_elmo.model.products.matrix_products import packed_product
from hf_elmo.vectors.memory import give_back_memory

if {bounded}:
    bound_caches()
torch.set_num_threads(1)
product = packed_product(torch.ones(512, 64))
product(torch.ones(2000, 64))
before = resident()
with torch.inference_mode():
    for rows in range(1, 600):
        product(torch.ones(rows, 64))
give_back_memory()
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(not has_onednn(torch.empty(1)), reason="torch has no oneDNN here")
def test_a_long_run_keeps_little_of_the_shapes_of_products():
    """Both caches are bounded: one alone keeps most of it (on Ice Lake 100 MB of 160)."""
    growth = {}
    environment = {name: value for name, value in os.environ.items() if name not in primitive_cache.VARIABLES}
    for bounded in (False, True):
        run = subprocess.run(
            [sys.executable, "-c", _MANY_SHAPES.format(bounded=bounded)],
            env={**environment, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
            check=True,
            stdout=subprocess.PIPE,
        )
        growth[bounded] = float(run.stdout)
    if growth[False] < 20:
        pytest.skip(f"this processor's products leave {growth[False]:.0f} MB behind")
    assert growth[True] < 0.5 * growth[False]
