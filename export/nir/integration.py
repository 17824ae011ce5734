"""The constants by which neurons are integrated: explicit Euler with the graph's time step `dt`.

    v[t] = decay v[t-1] + input_gain x[t] + bias_current

With `a = dt / tau`, the three are `1 - a`, `a gain` and `a leak`; or `1`, `dt gain` and `0` for a
neuron without a leak. `a` is rounded to the precision in which the node stores `tau`, so that a
decay which is a power of two comes back without an error whatever `dt` is.
"""

from typing import Any

import numpy as np

from export.nir.nodes import NODE_KINDS
from zoo.arrays import Array
from zoo.errors import ExportError

__all__ = ["Constants", "neuron_constants"]

Constants = tuple[Array, Array, Array]  # decay, input_gain, bias_current


@np.errstate(over="ignore")  # what a precision cannot hold is an infinity
def neuron_constants(
    name: str, node: Any, dt: float, dtype: type[np.floating[Any]] = np.float32
) -> dict[str, Constants]:
    """Return the constants of each state of a neuron, in the order in which they feed each other.

    They are rounded to `dtype` last. Raises `ExportError` for a time constant below `dt`.
    """
    constants = {}
    for integrator in NODE_KINDS[type(node)].integrators:
        gain = getattr(node, integrator.gain)
        tau = getattr(node, integrator.tau) if integrator.tau else None
        leak = getattr(node, integrator.leak) if integrator.leak else np.zeros_like(gain)
        exact = _euler(name, dt, tau, gain, leak)
        decay, input_gain, bias_current = (np.asarray(value, dtype) for value in exact)
        constants[integrator.state] = decay, input_gain, bias_current
    return constants


def _euler(name: str, dt: float, tau: Array | None, gain: Array, leak: Array) -> Constants:
    """Return `decay`, `input_gain` and `bias_current` of one state of the node `name`.

    Without a `tau` there is no leak. Raises `ExportError` for a time constant below `dt`.
    """
    if tau is None:
        gain = np.asarray(dt, np.result_type(gain, np.float32)) * gain
        return np.ones_like(gain), gain, np.zeros_like(gain)
    if not (tau >= dt * (1 - 1e-6)).all():
        raise ExportError(
            f"NIR node {name!r} has a time constant below the time step, {dt} seconds: give a "
            "smaller dt"
        )
    a = np.minimum(np.asarray(dt, np.result_type(tau, np.float32)) / tau, 1)
    return 1 - a, a * gain, a * leak
