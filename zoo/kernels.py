"""The GPU kernels of the fused neuron: all time steps of `zoo.neurons.Lif` in one launch, forward
and backward.

    mem[t] = keep[t-1] mem[t-1] + x[t]        keep[t] = beta (mem[t] <= threshold)        spk[t] = mem[t] > threshold
    d/dx[t] = d/dmem[t] = height grad[t] H'(mem[t] - threshold) + keep[t] d/dmem[t+1]

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
# What a Triton kernel takes has no Python type, and its decorator is untyped.

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.surrogates import Rectangle, Surrogate

# the loops over time are unrolled: beyond, the compiler takes minutes and runs out of registers
MAX_STEPS = 64
WARPS = 4
VECTOR = 16  # bytes, the widest load of a thread
# that a thread of the backward kernel holds; it then has at most 128 registers, and 16 warps fit on
# a processor
MEMBRANES = 32
# steps that are loaded before the first of them is used: a load takes as long as hundreds of
# additions
AHEAD = tl.constexpr(8)

__all__ = ["MAX_STEPS", "lif_backward", "lif_forward"]


def lif_forward(
    x: Tensor, beta: Tensor, threshold: Tensor, height: Tensor, packed: Tensor | None = None
) -> Tensor:
    """Spikes (0 or `height`) of the currents `x`, `[T, B, ...]` -> `[T, B, ...]` of the same dtype
    and strides.

    `beta`, `threshold` and `height` hold one element each, on the device of `x`: nothing waits for
    their values. `packed`, uint8 with the shape and strides of `x`, is filled with the spikes as 0
    and 1 in the same pass.
    """
    x, spikes = _dense(x)
    if packed is not None and (
        packed.dtype != torch.uint8 or packed.shape != x.shape or _strides(packed) != _strides(x)
    ):
        raise ValueError(
            f"packed is {packed.dtype} of shape {tuple(packed.shape)} and strides {packed.stride()}; "
            f"it must be torch.uint8 of shape {tuple(x.shape)} and strides {x.stride()}"
        )
    _launch(_forward, x, 1, spikes, packed, beta, threshold, height)
    return spikes


def lif_backward(
    grad: Tensor, x: Tensor, beta: Tensor, threshold: Tensor, height: Tensor, surrogate: Surrogate
) -> Tensor:
    """Gradient of the currents `x`, `[T, B, ...]` with the dtype and strides of `x`, from `grad`,
    that of the spikes.

    `grad` may have any float dtype; it is copied only if its strides are not those of `x`.
    """
    assert grad.shape == x.shape
    x, grad_x = _dense(x)
    if _strides(grad) != _strides(x):
        grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)
    _launch(_backward, x, len(x), grad, grad_x, beta, threshold, height, *_coefficients(surrogate))
    return grad_x


def _dense(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x`, or a copy of it if its memory is not step after step without a gap; and an unfilled
    tensor like it.
    """
    like = torch.empty_like(x)  # has the strides of x only if x has no gaps
    if _strides(like) == _strides(x) and x.stride(0) * len(x) == x.numel():
        return x, like
    x = x.contiguous()
    return x, torch.empty_like(x)


def _strides(x: Tensor) -> list[int]:
    """The strides that matter: that of a dimension of one element does not."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]


def _coefficients(surrogate: Surrogate) -> tuple[float, float, bool]:
    """What `_derivative` takes."""
    if isinstance(surrogate, Rectangle):
        # an int would be another type of kernel
        return float(surrogate.half_width), float(surrogate.height), False
    return 2 / surrogate.alpha, 2 / surrogate.alpha * (math.pi / 2 * surrogate.alpha) ** 2, True


def _launch(kernel: Any, x: Tensor, held: int, *arguments: Tensor | float | None) -> None:
    """Run `kernel`, of which a thread holds `held` membranes of each of its elements, on all
    elements of a step of `x`.
    """
    if len(x) > MAX_STEPS:
        raise ValueError(
            f"{len(x)} steps are more than the {MAX_STEPS} that the fused kernels take"
        )
    if not x.numel():
        return
    n = x[0].numel()
    elements = max(1, min(VECTOR // x.itemsize, MEMBRANES // triton.next_power_of_2(held)))
    block = 32 * WARPS * elements
    with torch.cuda.device_of(x):  # Triton launches on the current device
        # Without fp_fusion: a fused multiply-add rounds mem * keep + x[t] once where torch rounds
        # twice, and a membrane next to the threshold then ends on its other side.
        kernel[(triton.cdiv(n, block),)](
            x, *arguments, n, T=len(x), BLOCK=block, num_warps=WARPS, enable_fp_fusion=False
        )


@triton.jit
def _forward(x, spikes, packed, beta, threshold, height, n, T: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    beta, threshold, height = _parameters(beta, threshold, height)
    mem = tl.full((BLOCK,), 0.0, tl.float32)
    for first in tl.static_range(0, T, AHEAD):
        currents = _load(x, at, inside, n, first, T)
        for i in tl.static_range(AHEAD):
            if first + i < T:
                mem += currents[i].to(tl.float32)
                fired = mem > threshold
                to = _step(at, first + i, n)
                tl.store(spikes + to, tl.where(fired, height, 0.0), mask=inside)
                if packed is not None:
                    tl.store(packed + to, fired, mask=inside)
                mem *= _keep(mem, beta, threshold)


@triton.jit
def _backward(
    x,
    grad,
    grad_x,
    beta,
    threshold,
    height,
    a,
    b,
    ARCTAN: tl.constexpr,
    n,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    beta, threshold, height = _parameters(beta, threshold, height)
    mem = tl.full((BLOCK,), 0.0, tl.float32)
    mems = ()
    for first in tl.static_range(0, T, AHEAD):
        currents = _load(x, at, inside, n, first, T)
        for i in tl.static_range(AHEAD):
            if first + i < T:
                mem += currents[i].to(tl.float32)
                mems += (mem,)  # type: ignore[assignment]  # of the growing type
                mem *= _keep(mem, beta, threshold)
    grad_mem = tl.full((BLOCK,), 0.0, tl.float32)
    for first in tl.static_range((T - 1) // AHEAD * AHEAD, -1, -AHEAD):
        grads = _load(grad, at, inside, n, first, T)
        for i in tl.static_range(AHEAD - 1, -1, -1):
            if first + i < T:
                u = mems[first + i] - threshold
                # This is `_keep`, in other words so that the compiler does not hold on to every
                # result of it since the loop above.
                grad_mem *= tl.where(u <= 0, beta, 0.0)
                grad_mem += grads[i].to(tl.float32) * height * _derivative(u, a, b, ARCTAN)
                tl.store(grad_x + _step(at, first + i, n), grad_mem, mask=inside)


@triton.jit
def _parameters(beta, threshold, height):
    beta = tl.minimum(tl.maximum(tl.load(beta).to(tl.float32), 0.0), 1.0)  # as snn.Leaky clamps it
    return beta, tl.load(threshold).to(tl.float32), tl.load(height).to(tl.float32)


@triton.jit
def _load(x, at, inside, n, first: tl.constexpr, T: tl.constexpr):
    """Steps `first` to `first + AHEAD`, as far as there are any."""
    steps = ()
    for i in tl.static_range(AHEAD):
        if first + i < T:
            steps += (tl.load(x + _step(at, first + i, n), mask=inside),)  # type: ignore[assignment]  # as above
    return steps


@triton.jit
def _step(at, t: tl.constexpr, n):
    """Where step `t` of the elements `at` lies: in 64 bits, for a large batch of large images has
    more than 2^31 elements.
    """
    return at + t * tl.cast(n, tl.int64)


@triton.jit
def _keep(mem, beta, threshold):
    """What is left of a membrane at the next step. It is multiplied with, so that NaN stays NaN, as
    in torch.
    """
    return tl.where(mem <= threshold, beta, 0.0)


@triton.jit
def _derivative(u, a, b, ARCTAN: tl.constexpr):
    """H'(u), in the order of operations of `ATan.derivative` and `Rectangle.derivative`."""
    if ARCTAN:
        return 1 / (a + b * u * u)
    else:
        return tl.where(tl.abs(u) < a, b, 0.0)
