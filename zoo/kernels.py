"""The GPU kernels of the fused neuron: all time steps of `zoo.neurons.Lif` in one launch.

    mem[t] = decay[t] mem[t-1] + x[t]
    spk[t] = mem[t] > threshold                     decay[t+1] = beta (mem[t] <= threshold)
    d/dx[t] = d/dmem[t] = spike_height grad[t] H'(mem[t] - threshold) + decay[t+1] d/dmem[t+1]

There is next to no arithmetic in this, so its time is that of the bytes it moves. The forward
kernel reads `x` and writes the spikes; the backward kernel reads `x` and the gradient of the spikes
and writes that of `x`. Nothing else goes through memory: the membranes stay in registers, and the
backward kernel computes them again instead of reading them.

Shapes: `T` time steps, `B` batch, `n` elements of one step. Tensors are `[T, B, ...]`, and an
element of step `t` lies `t * n` elements behind its step 0, whatever the memory format within a
step.

Written in Triton, which is not installed everywhere: import this module only where a CUDA tensor
comes in.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# The arguments of a Triton kernel have no Python type, and its decorator is untyped.

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.surrogates import Rectangle, Surrogate

# The loops over time are unrolled: beyond, the compiler takes minutes and runs out of registers.
MAX_STEPS = 64
WARPS = 4
MAX_LOAD_BYTES = 16  # of a thread at once
# A thread of the backward kernel that holds no more has at most 128 registers, and 16 warps fit on
# a processor.
MAX_MEMBRANES = 32
# Steps that are loaded before the first of them is used: a load takes as long as hundreds of
# additions.
STEPS_AHEAD = tl.constexpr(8)

__all__ = ["MAX_STEPS", "lif_backward", "lif_forward"]


def lif_forward(
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    spike_height: Tensor,
    spike_bytes: Tensor | None = None,
) -> Tensor:
    """Return the spikes (0 or `spike_height`) of the currents `x`, `[T, B, ...]`.

    The spikes have the shape, dtype and strides of `x`. `beta`, `threshold` and `spike_height` hold
    one element each, on the device of `x`: nothing waits for their values. `spike_bytes`, uint8
    with the shape and strides of `x`, is filled with the spikes as 0 and 1 in the same pass.

    Raises:
        ValueError: if `spike_bytes` is of another kind, or there are more than `MAX_STEPS` steps.
    """
    x, spikes = _dense(x)
    if spike_bytes is not None:
        _check_bytes(spike_bytes, x)
    _launch(_forward, x, 1, spikes, spike_bytes, beta, threshold, spike_height)
    return spikes


def lif_backward(
    grad: Tensor,
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    spike_height: Tensor,
    surrogate: Surrogate,
) -> Tensor:
    """Return the gradient of the currents `x`, `[T, B, ...]`, from `grad`, that of the spikes.

    It has the dtype and strides of `x`. `grad` may have any float dtype; it is copied only if its
    strides are not those of `x`. Raises `ValueError` for more than `MAX_STEPS` steps.
    """
    assert grad.shape == x.shape
    x, grad_x = _dense(x)
    if _strides(grad) != _strides(x):
        grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)
    constants = (beta, threshold, spike_height, *_coefficients(surrogate))
    _launch(_backward, x, len(x), grad, grad_x, *constants)
    return grad_x


def _check_bytes(spike_bytes: Tensor, x: Tensor) -> None:
    """Raise `ValueError` unless `spike_bytes` is uint8 of the shape and strides of `x`."""
    if (
        spike_bytes.dtype != torch.uint8
        or spike_bytes.shape != x.shape
        or _strides(spike_bytes) != _strides(x)
    ):
        raise ValueError(
            f"spike_bytes is {spike_bytes.dtype} of shape {tuple(spike_bytes.shape)} and strides "
            f"{spike_bytes.stride()}; it must be torch.uint8 of shape {tuple(x.shape)} and strides "
            f"{x.stride()}"
        )


def _dense(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` with its memory step after step without a gap, and an unfilled tensor like it.

    `x` is copied only if its memory is not so.
    """
    like = torch.empty_like(x)  # has the strides of x only if x has no gaps
    if _strides(like) == _strides(x) and x.stride(0) * len(x) == x.numel():
        return x, like
    x = x.contiguous()
    return x, torch.empty_like(x)


def _strides(x: Tensor) -> list[int]:
    """Return the strides that matter: that of a dimension of one element does not."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]


def _coefficients(surrogate: Surrogate) -> tuple[float, float, bool]:
    """Return the arguments of `_derivative` but for `u`."""
    if isinstance(surrogate, Rectangle):
        # An int would be another type of kernel.
        return float(surrogate.half_width), float(surrogate.height), False
    a = 2 / surrogate.alpha
    return a, a * (math.pi / 2 * surrogate.alpha) ** 2, True


def _launch(kernel: Any, x: Tensor, membranes: int, *arguments: Tensor | float | None) -> None:
    """Run `kernel` on all elements of a step of `x`.

    A thread of it holds as many `membranes` of each of its elements.
    """
    if len(x) > MAX_STEPS:
        raise ValueError(
            f"{len(x)} steps are more than the {MAX_STEPS} that the fused kernels take"
        )
    if not x.numel():
        return
    n = x[0].numel()
    loaded, held = MAX_LOAD_BYTES // x.itemsize, MAX_MEMBRANES // triton.next_power_of_2(membranes)
    elements = max(1, min(loaded, held))
    block = 32 * WARPS * elements
    with torch.cuda.device_of(x):  # Triton launches on the current device
        # Without fp_fusion: a fused multiply-add rounds mem * keep + x[t] once where torch rounds
        # twice, and a membrane next to the threshold then ends on its other side.
        kernel[(triton.cdiv(n, block),)](
            x, *arguments, n, T=len(x), BLOCK=block, num_warps=WARPS, enable_fp_fusion=False
        )


@triton.jit
def _forward(
    x,
    spikes,
    spike_bytes,
    beta,
    threshold,
    spike_height,
    n,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the spikes of a block of elements, at every step."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    beta, threshold, spike_height = _parameters(beta, threshold, spike_height)
    mem = tl.full((BLOCK,), 0.0, tl.float32)
    for first in tl.static_range(0, T, STEPS_AHEAD):
        currents = _load(x, at, inside, n, first, T)
        for i in tl.static_range(STEPS_AHEAD):
            if first + i < T:
                mem += currents[i].to(tl.float32)
                fired = mem > threshold
                to = _step(at, first + i, n)
                tl.store(spikes + to, tl.where(fired, spike_height, 0.0), mask=inside)
                if spike_bytes is not None:
                    tl.store(spike_bytes + to, fired, mask=inside)
                mem *= _decay(mem, beta, threshold)


@triton.jit
def _backward(
    x,
    grad,
    grad_x,
    beta,
    threshold,
    spike_height,
    a,
    b,
    ARCTAN: tl.constexpr,
    n,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of the currents of a block of elements, at every step."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    beta, threshold, spike_height = _parameters(beta, threshold, spike_height)
    mem = tl.full((BLOCK,), 0.0, tl.float32)
    mems = ()
    for first in tl.static_range(0, T, STEPS_AHEAD):
        currents = _load(x, at, inside, n, first, T)
        for i in tl.static_range(STEPS_AHEAD):
            if first + i < T:
                mem += currents[i].to(tl.float32)
                mems += (mem,)  # type: ignore[assignment]  # of the growing type
                mem *= _decay(mem, beta, threshold)
    grad_mem = tl.full((BLOCK,), 0.0, tl.float32)
    for first in tl.static_range((T - 1) // STEPS_AHEAD * STEPS_AHEAD, -1, -STEPS_AHEAD):
        grads = _load(grad, at, inside, n, first, T)
        for i in tl.static_range(STEPS_AHEAD - 1, -1, -1):
            if first + i < T:
                u = mems[first + i] - threshold
                # This is `_decay`, written otherwise so that the compiler does not hold on to every
                # result of it since the loop above.
                grad_mem *= tl.where(u <= 0, beta, 0.0)
                grad_mem += grads[i].to(tl.float32) * spike_height * _derivative(u, a, b, ARCTAN)
                tl.store(grad_x + _step(at, first + i, n), grad_mem, mask=inside)


@triton.jit
def _parameters(beta, threshold, spike_height):
    beta = tl.minimum(tl.maximum(tl.load(beta).to(tl.float32), 0.0), 1.0)  # as snn.Leaky clamps it
    return beta, tl.load(threshold).to(tl.float32), tl.load(spike_height).to(tl.float32)


@triton.jit
def _load(x, at, inside, n, first: tl.constexpr, T: tl.constexpr):
    """Load steps `first` to `first + STEPS_AHEAD`, as far as there are any."""
    steps = ()
    for i in tl.static_range(STEPS_AHEAD):
        if first + i < T:
            steps += (tl.load(x + _step(at, first + i, n), mask=inside),)  # type: ignore[assignment]  # as above
    return steps


@triton.jit
def _step(at, t: tl.constexpr, n):
    """Return the offsets of step `t` of the elements `at`.

    They have 64 bits, for a large batch of large images has more than 2^31 elements.
    """
    return at + t * tl.cast(n, tl.int64)


@triton.jit
def _decay(mem, beta, threshold):
    """Return the factor of a membrane at the next step.

    The membrane is multiplied with it, so that NaN stays NaN, as in torch.
    """
    return tl.where(mem <= threshold, beta, 0.0)


@triton.jit
def _derivative(u, a, b, ARCTAN: tl.constexpr):
    """Return H'(u), in the order of operations of `ATan.derivative` and `Rectangle.derivative`."""
    if ARCTAN:
        return 1 / (a + b * u * u)
    else:
        return tl.where(tl.abs(u) < a, b, 0.0)
