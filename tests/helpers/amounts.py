"""How much of the same the README's command tests: a part, which the slow tests complete."""

import os

import pytest
from hypothesis import settings

# In the profile `fixed`, which conftest.py loads unless it is told otherwise.
_IS_PART = os.environ.get("HYPOTHESIS_PROFILE", "fixed") == "fixed"


def examples(number: int, **options) -> settings:
    """Settings of a hypothesis test: a quarter of that many examples (10 at least), and all in other profiles."""
    return settings(max_examples=max(number // 4, 10) if _IS_PART else number, deadline=None, **options)


def first_of(values, fast: int = 1) -> list:
    """Values for `pytest.mark.parametrize`: after the first `fast` ones, all are slow."""
    values = list(values)
    slow = [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values[fast:]
    ]
    return values[:fast] + slow
