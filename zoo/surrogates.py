"""Surrogate gradients, which take the place of the derivative of a spike.

A spike has no derivative at the threshold. A surrogate is a function of `u`, the membrane less the
threshold: called, it gives the spikes, 1 where `u > 0`, as snnTorch does, and has `derivative` as
its gradient. The fused neuron computes `derivative` alone.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from snntorch import surrogate
from torch import Tensor

from zoo.autograd import is_transformed

__all__ = ["ATan", "Rectangle", "Surrogate"]


@dataclass(frozen=True)
class ATan:
    """Arctangent surrogate gradient `alpha/2 / (1 + (pi/2 alpha u)^2)`, as snnTorch computes it.

    Source: Fang et al., ICCV 2021.
    """

    alpha: float = 2.0

    def __call__(self, u: Tensor) -> Tensor:
        """Return the spikes: 1 where `u > 0`, else 0."""
        if is_transformed():
            return _spike(u, self)
        return surrogate.atan(self.alpha)(u)  # type: ignore[no-any-return]  # snntorch is untyped

    def derivative(self, u: Tensor) -> Tensor:
        """Return the surrogate gradient at `u`, of its shape and dtype."""
        # 1 / (a + b u^2)
        a = 2 / self.alpha
        b = a * (math.pi / 2 * self.alpha) ** 2
        return torch.addcmul(u.new_full((), a), u, u, value=b).reciprocal_()


@dataclass(frozen=True)
class Rectangle:
    """Rectangular surrogate gradient: `height` while `|u| < half_width`.

    Source: MS-ResNet, Hu et al. 2021.
    """

    half_width: float = 0.5
    height: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        """Return the spikes: 1 where `u > 0`, else 0."""
        if is_transformed():
            return _spike(u, self)
        spike = surrogate.custom_surrogate(lambda x, grad, _: grad * self.derivative(x))
        return spike(u)  # type: ignore[no-any-return]  # as above

    def derivative(self, u: Tensor) -> Tensor:
        """Return the surrogate gradient at `u`, of its shape and dtype."""
        return u.abs().lt(self.half_width).to(u.dtype).mul_(self.height)


Surrogate = ATan | Rectangle


class _Spike(torch.autograd.Function):
    """1 where `u > 0`, with the surrogate's derivative, in the form that `torch.func` asks for.

    snnTorch's form is the older one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: Surrogate) -> Tensor:
        return u.gt(0).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        u, ctx.surrogate = inputs
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.surrogate.derivative(*ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        derivative: Tensor = ctx.surrogate.derivative(*ctx.saved_tensors)
        return tangent * derivative


def _spike(u: Tensor, surrogate: Surrogate) -> Tensor:
    spikes: Tensor = _Spike.apply(u, surrogate)  # type: ignore[no-untyped-call]  # torch does not type it
    return spikes
