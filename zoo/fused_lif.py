"""The fused path of `zoo.neurons.Lif`: all time steps in one autograd function that keeps little.

It computes `snn.Leaky` with a delayed reset to zero, spike for spike, and its gradient:

    mem[t] = decay[t] mem[t-1] + x[t]
    spk[t] = 1 if mem[t] > threshold else 0         decay[t+1] = beta (1 - spk[t])
    d/dx[t] = d/dmem[t] = spike_height d/dspk[t] H'(mem[t] - threshold) + decay[t+1] d/dmem[t+1]

`H'` is the surrogate gradient, and the reset is detached. Only the currents are kept for the
backward pass, or what a BatchNorm normalised to make them; the membranes are computed again. On a
GPU the kernels of `zoo.kernels` do the same in one launch.

Shapes: `T` time steps, `B` images; currents and spikes are `[T*B, ...]`, step-major, and inside
`[T, B, ...]`.
"""

import logging
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import snntorch as snn
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.autograd import is_bare, normalised_from, note_spikes
from zoo.surrogates import Surrogate

__all__ = ["fused_lif", "is_fusible", "membrane_dtype"]

log = logging.getLogger(__name__)

# Elements of one time step whose membranes about fill a core's second-level cache.
CACHED_ELEMENTS = 1 << 18

# Gradients of all inputs of `_FusedLif` but the currents.
NO_GRADIENTS = (None,) * 10


def is_fusible(neuron: snn.Leaky) -> bool:
    """Return whether the fused path computes `neuron`, a Leaky that resets to zero.

    Its surrogate has to be one of the zoo's, its constants single numbers that are not learnt, and
    nobody may have hooked it.
    """
    constants = (neuron.beta, neuron.threshold, neuron.graded_spikes_factor)
    return (
        isinstance(neuron.spike_grad, Surrogate)
        and is_bare(neuron)
        and all(value.numel() == 1 and not value.requires_grad for value in constants)
    )


def fused_lif(current: Tensor, steps: int, neuron: snn.Leaky, *, as_bytes: bool) -> Tensor:
    """Return the spikes `[T*B, ...]` that `neuron` fires at currents `[T*B, ...]`.

    With `as_bytes` the layers that read the spikes may share one copy of a byte each (see
    `zoo.autograd.kept_as_bytes`).
    """
    channels_last = current.is_contiguous(memory_format=torch.channels_last)
    if not (current.is_contiguous() or channels_last):
        current = current.contiguous()  # the kernels need whole steps one after the other
    spike_bytes = torch.empty_like(current, dtype=torch.uint8) if as_bytes else None
    norm = normalised_from(current) or (None, None, None, 0.0)
    beta, threshold, spike_height = neuron.beta, neuron.threshold, neuron.graded_spikes_factor
    apply = _FusedLif.apply  # autograd's apply is untyped
    spikes: Tensor = apply(  # type: ignore[no-untyped-call]
        current, steps, beta, threshold, spike_height, neuron.spike_grad, spike_bytes, *norm
    )
    if spike_bytes is not None:
        note_spikes(spikes, spike_bytes, spike_height)
    return spikes


def membrane_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of membranes for currents of `dtype`: float32 or more."""
    return torch.promote_types(dtype, torch.float32)


class _FusedLif(torch.autograd.Function):
    """All steps of `snn.Leaky` at once: currents `[T*B, ...]` -> spikes `[T*B, ...]`.

    With `normalised`, what a BatchNorm read to make the currents, and its weight, bias and eps,
    those are kept for the backward pass instead of the currents. `spike_bytes` is filled with the
    spikes as uint8.
    """

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        steps: int,
        beta: Tensor,
        threshold: Tensor,
        spike_height: Tensor,
        spike_grad: Surrogate,
        spike_bytes: Tensor | None,
        normalised: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        source = current if normalised is None else normalised
        ctx.save_for_backward(source, weight, bias, beta, threshold, spike_height)
        ctx.steps, ctx.eps, ctx.spike_grad = steps, eps, spike_grad
        ctx.is_normalised = normalised is not None
        x = _by_step(current, steps)  # [T, B, ...]
        spike_bytes = None if spike_bytes is None else _by_step(spike_bytes, steps)
        if kernels := _kernels(x):
            fired: Tensor = kernels.lif_forward(x, beta, threshold, spike_height, spike_bytes)
            return fired.flatten(0, 1)
        # Not of the shape of `x`: to flatten that would bind torch.export to one batch.
        spikes = torch.empty_like(current)
        _fire(_by_step(spikes, steps), x, beta, threshold, spike_height, spike_bytes)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        current, weight, bias, beta, threshold, spike_height = ctx.saved_tensors
        if ctx.is_normalised:
            current = F.batch_norm(current, None, None, weight, bias, training=True, eps=ctx.eps)
        x, grad = _by_step(current, ctx.steps), _by_step(grad, ctx.steps)  # [T, B, ...]
        constants = (beta, threshold, spike_height, ctx.spike_grad)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # The gradient is to be differentiated itself.
            spikes = _differentiable_spikes(x, *constants)
            grad_x = torch.autograd.grad(spikes, current, grad, create_graph=True)[0]
        elif kernels := _kernels(x):
            grad_x = kernels.lif_backward(grad, x, *constants).flatten(0, 1)
        else:
            grad_x = torch.empty_like(current)
            _differentiate(_by_step(grad_x, ctx.steps), grad, x, *constants)
        return grad_x, *NO_GRADIENTS


def _fire(
    spikes: Tensor,
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    spike_height: Tensor,
    spike_bytes: Tensor | None,
) -> None:
    """Fill `spikes` and `spike_bytes` from the currents `x`, all `[T, B, ...]`."""
    for part in _batch_slices(x):
        spikes_part = spikes[:, part]
        currents = x[:, part].to(membrane_dtype(x.dtype))
        for t, (mem, _) in enumerate(_membranes(currents, beta, threshold)):
            torch.gt(mem, threshold, out=spikes_part[t])
        if spike_bytes is not None:
            # Five times faster than to uint8, and the same bytes.
            spike_bytes[:, part].view(torch.int8).copy_(spikes_part)
        spikes_part.mul_(spike_height)


def _differentiate(
    grad_x: Tensor,
    grad: Tensor,
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    spike_height: Tensor,
    spike_grad: Surrogate,
) -> None:
    """Fill `grad_x`, the gradient of the currents `x`, from `grad`, that of the spikes.

    All three are `[T, B, ...]`.
    """
    for part in _batch_slices(x):
        decays = []
        grad_part = grad_x[:, part]
        grad_mem = grad_part.to(membrane_dtype(x.dtype))  # itself, where it is wide enough
        # `spike_height`, a scalar, would not widen the gradient.
        torch.mul(grad[:, part].to(grad_mem.dtype), spike_height, out=grad_mem)
        currents = x[:, part].to(grad_mem.dtype)
        for t, (mem, decay) in enumerate(_membranes(currents, beta, threshold)):
            decays.append(decay)
            grad_mem[t].mul_(spike_grad.derivative(mem - threshold))
        for t in reversed(range(1, len(x))):
            grad_mem[t - 1].addcmul_(grad_mem[t], decays[t])
        grad_part.copy_(grad_mem)


def _membranes(x: Tensor, beta: Tensor, threshold: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each step of `x`, `[T, B, ...]`, the membrane and the decay that led to it.

    The decay is `beta (1 - spk)` with the spikes of the step before; the first step, which has none
    before, comes with `beta`.
    """
    beta = beta.clamp(0, 1)
    mem = x[0]
    yield mem, beta
    for current in x.unbind(0)[1:]:
        decay = torch.le(mem, threshold, out=torch.empty_like(mem)).mul_(beta)
        mem = (mem * decay).add_(current)
        yield mem, decay


def _differentiable_spikes(
    x: Tensor, beta: Tensor, threshold: Tensor, spike_height: Tensor, spike_grad: Surrogate
) -> Tensor:
    """Return the spikes `[T, B, ...]` by operations that can be differentiated twice."""
    mem = decay = torch.zeros_like(x[0], dtype=membrane_dtype(x.dtype))
    spikes = []
    for current in x.unbind(0):
        mem = decay * mem + current
        decay = beta.clamp(0, 1) * (mem <= threshold)
        spikes.append(spike_grad(mem - threshold) * spike_height)
    return torch.stack(spikes).to(x.dtype)


def _by_step(x: Tensor, steps: int) -> Tensor:
    """Return `[T*B, ...]` as `[T, B, ...]`."""
    return x.reshape(steps, -1, *x.shape[1:])


def _batch_slices(x: Tensor) -> list[slice]:
    """Return slices of the batch of `[T, B, ...]`, small enough for the cache of a CPU's core."""
    # A compiler takes batches of any size, and tiles on its own.
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    images = max(1, CACHED_ELEMENTS * x.shape[1] // max(1, x[0].numel()))
    return [slice(start, start + images) for start in range(0, x.shape[1], images)]


def _kernels(x: Tensor) -> ModuleType | None:
    """Return the module of GPU kernels if it takes `x`; without it the spikes are the same."""
    # Dynamo does not know all options of a launch.
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return None
    kernels = _import_kernels()
    return kernels if kernels and len(x) <= kernels.MAX_STEPS else None


@cache
def _import_kernels() -> ModuleType | None:
    try:
        from zoo import kernels
    except ImportError as error:
        log.warning("the fused GPU neuron is not used, as Triton cannot be imported: %s", error)
        return None
    return kernels
