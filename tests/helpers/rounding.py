"""Comparisons with formulas that are computed in float64."""

import numpy as np


def assert_within_rounding(found, expected):
    """Fails if numbers in float32 are further than 1e-6 of the largest expected one (1 at least) from the formulas'."""
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, atol=1e-6 * scale, rtol=0)
