"""Whether numbers are whole multiples of a step, in so many bits."""

import numpy as np

from zoo.arrays import Array

__all__ = ["TOLERANCE", "grid", "is_whole", "step"]

TOLERANCE = 1e-3  # of a step: how far a number may lie from its whole multiple
SAMPLE = 32  # weights of a row that are looked at first


def grid(values: Array, bits: int) -> Array:
    """Return the largest scale of which each row of `[rows, n]` is integers of `bits` bits.

    The scales are `[rows]`, 0 where there is none. The largest magnitude may be any integer up to
    2^(bits - 1) - 1; a row of zeros has the scale infinity.
    """
    values = np.abs(np.asarray(values, np.float64).reshape(len(values), -1))
    largest = values.max(axis=1, initial=0.0)
    rows = values / np.where(largest > 0, largest, 1.0)[:, None]
    scales = np.where(largest > 0, 0.0, np.inf)
    # Most rows are refused by a few of their weights.
    sample = rows[:, :: max(1, rows.shape[1] // SAMPLE)]
    for most in range(1, 2 ** (bits - 1)):
        for row in np.flatnonzero((scales == 0) & is_whole(sample * most).all(axis=1)):
            scales[row] = largest[row] / most * is_whole(rows[row] * most).all()
    return np.asarray(scales)


def is_whole(numbers: Array) -> Array:
    """Return which numbers are integers, within `TOLERANCE`."""
    return np.asarray(np.abs(numbers - np.rint(numbers)) <= TOLERANCE)


def step(weights: Array, others: Array, bits: int) -> float:
    """Return the largest number that divides `weights` `[n]` and `others` into integers.

    Those of the weights have `bits` bits. Where there is no such number for both, it is that of the
    weights alone, and 0 for weights that are on no grid, or all zero.
    """
    largest, coarse = float(np.abs(weights).max(initial=0.0)), float(grid(weights[None], bits)[0])
    if not largest or not coarse:
        return 0.0
    parts = range(1, int((2 ** (bits - 1) - 1) / (largest / coarse) + TOLERANCE) + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        return next(
            (coarse / part for part in parts if is_whole(others / coarse * part).all()), coarse
        )
