"""Are numbers whole multiples of a step, in so many bits?"""

from typing import Any

import numpy as np

__all__ = ["NEAR", "grid", "step", "whole"]

Array = np.ndarray[Any, np.dtype[Any]]
NEAR = 1e-3  # of a step: how far a number may lie from its whole multiple


def grid(values: Array, bits: int) -> Array:
    """The scale `[rows]` of which each row of `[rows, n]` is integers of `bits` bits: the largest,
    or 0 where there is none.

    The largest magnitude may be any integer up to 2^(bits - 1) - 1; a row of zeros has the scale
    infinity.
    """
    values = np.abs(np.asarray(values, np.float64).reshape(len(values), -1))
    largest = values.max(axis=1, initial=0.0)
    rows = values / np.where(largest > 0, largest, 1.0)[:, None]
    scales = np.where(largest > 0, 0.0, np.inf)
    # most rows are refused by a few of their weights
    sample = rows[:, :: max(1, rows.shape[1] // 32)]
    for most in range(1, 2 ** (bits - 1)):
        for row in np.flatnonzero((scales == 0) & whole(sample * most).all(axis=1)):
            scales[row] = largest[row] / most * whole(rows[row] * most).all()
    return np.asarray(scales)


def whole(numbers: Array) -> Array:
    """Which numbers are integers, within `NEAR`."""
    return np.asarray(np.abs(numbers - np.rint(numbers)) <= NEAR)


def step(weights: Array, others: Array, bits: int) -> float:
    """The largest number of which `weights` `[n]` are integers of `bits` bits and `others` are
    integers.

    Without regard to `others` if there is none with it, and 0 for weights that are on no grid, or
    all zero.
    """
    largest, coarse = float(np.abs(weights).max(initial=0.0)), float(grid(weights[None], bits)[0])
    if not largest or not coarse:
        return 0.0
    parts = range(1, int((2 ** (bits - 1) - 1) / (largest / coarse) + NEAR) + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        return next(
            (coarse / part for part in parts if whole(others / coarse * part).all()), coarse
        )
