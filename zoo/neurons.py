"""The spiking neuron of every network in the zoo, over all time steps at once.

`Lif` runs `snntorch.Leaky` with zero reset one step after the spike (`reset_delay=True`), which is the hard-reset
leaky integrate-and-fire neuron of the literature:

    mem[t] = beta * (1 - spk[t-1]) * mem[t-1] + x[t]
    spk[t] = 1 if mem[t] > threshold else 0

State is local to the call: it starts at zero and is gone when `forward` returns.

Shapes: `T` time steps, `B` batch; time is folded into the batch, so a tensor is `[T*B, ...]`, step-major.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

CACHED_ELEMENTS = 1 << 18  # of one time step, about what keeps its membranes in a core's second-level cache

__all__ = ["ATan", "Lif", "Rectangle"]


@dataclass(frozen=True)
class ATan:
    """Arctangent surrogate gradient `alpha/2 / (1 + (pi/2 alpha u)^2)` (Fang et al., ICCV 2021), as snnTorch computes it."""

    alpha: float = 2.0

    def __call__(self, u: Tensor) -> Tensor:
        return surrogate.atan(self.alpha)(u)  # type: ignore[no-any-return]  # snntorch is untyped

    def derivative(self, u: Tensor) -> Tensor:
        slope = math.pi / 2 * self.alpha
        return torch.addcmul(u.new_full((), 2 / self.alpha), u, u, value=2 / self.alpha * slope**2).reciprocal_()


@dataclass(frozen=True)
class Rectangle:
    """Rectangular surrogate gradient: `height` while `|u| < half_width` (MS-ResNet, Hu et al. 2021)."""

    half_width: float = 0.5
    height: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        return surrogate.custom_surrogate(lambda x, g, _: g * self.derivative(x))(u)  # type: ignore[no-any-return]  # as above

    def derivative(self, u: Tensor) -> Tensor:
        return u.abs().lt(self.half_width).to(u.dtype).mul_(self.height)


class Lif(nn.Module):
    """`snn.Leaky` over `steps` time steps: currents `[T*B, ...]` in, spikes `[T*B, ...]` (0. or 1.) out.

    beta and threshold live in `self.neuron`, an `snn.Leaky` that may be replaced by any other neuron of snnTorch with the
    same call. `fused=False`, or a neuron that the fused path does not know, runs `self.neuron` step by step; both
    paths give the same spikes.
    """

    def __init__(
        self,
        steps: int,
        *,
        beta: float = 0.5,
        threshold: float = 1.0,
        spike_grad: ATan | Rectangle | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.fused = fused
        with torch.device("cpu"):  # snn.Leaky reads its own buffers while it is built, which a meta tensor cannot
            self.neuron = snn.Leaky(
                beta=float(beta),
                threshold=float(threshold),  # an int would make an int64 buffer
                spike_grad=spike_grad or ATan(),
                reset_mechanism="zero",
                reset_delay=True,
            )
        # snnTorch keeps every neuron ever made in a list of the class, and so alive.
        snn.SpikingNeuron.instances.remove(self.neuron)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(self.steps, -1, *x.shape[1:])  # [T, B, ...]
        if self.fused and self._known():
            neuron = self.neuron
            fused = _FusedLif.apply  # autograd's apply is untyped
            spikes: Tensor = fused(  # type: ignore[no-untyped-call]
                x, neuron.beta, neuron.threshold, neuron.graded_spikes_factor, neuron.spike_grad
            )
        else:
            spikes = self._loop(x)
        return spikes.flatten(0, 1)

    def extra_repr(self) -> str:
        return f"steps={self.steps}, fused={self.fused}"

    @property
    def exportable(self) -> bool:
        """Whether `self.neuron` is the neuron of this module's equation, and nothing more."""
        return self._plain() and float(self.neuron.graded_spikes_factor) == 1

    def _plain(self) -> bool:
        n = self.neuron
        # Not `n.reset_mechanism`: to set it changes what snnTorch says, not what it does.
        zero = type(n) is snn.Leaky and n.state_function == n._base_zero and n.reset_delay
        return zero and not (n.state_quant or n.inhibition or n.init_hidden or n.output)

    def _known(self) -> bool:
        n = self.neuron
        return self._plain() and isinstance(n.spike_grad, ATan | Rectangle) and not any(p.requires_grad for p in n.parameters())

    def _loop(self, x: Tensor) -> Tensor:
        mem = torch.zeros_like(x[0], dtype=torch.float32)
        spikes = []
        for current in x.unbind(0):
            spk, mem = self.neuron(current, mem)
            spikes.append(spk)
        self.neuron.mem = torch.zeros(0, device=x.device)  # snnTorch would carry it into the next call
        return torch.stack(spikes).to(x.dtype)


class _FusedLif(torch.autograd.Function):
    """All steps of `snn.Leaky` at once: `[T, B, ...]` -> `[T, B, ...]`. Only the currents are kept for the backward pass,
    which recomputes the membranes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, threshold: Tensor, height: Tensor, spike_grad: ATan | Rectangle) -> Tensor:
        ctx.save_for_backward(x, beta, threshold, height)
        ctx.spike_grad = spike_grad
        spikes = torch.empty_like(x)
        for part in _parts(x):
            fired = torch.empty_like(x[:, part], dtype=torch.float32)
            for t, (mem, _) in enumerate(_membranes(x[:, part].float(), beta, threshold)):
                torch.gt(mem, threshold, out=fired[t])
            spikes[:, part] = fired.mul_(height)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, beta, threshold, height = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        for part in _parts(x):
            keeps = []
            grad_mem = grad[:, part].float() * height
            for t, (mem, keep) in enumerate(_membranes(x[:, part].float(), beta, threshold)):
                keeps.append(keep)
                grad_mem[t] *= ctx.spike_grad.derivative(mem - threshold)
            # The reset is detached, so d/dmem[t] = grad[t] H'(mem[t] - threshold) + keep[t] d/dmem[t+1].
            for t in reversed(range(x.shape[0] - 1)):
                grad_mem[t].addcmul_(grad_mem[t + 1], keeps[t])
            grad_x[:, part] = grad_mem
        return grad_x, None, None, None, None


def _membranes(x: Tensor, beta: Tensor, threshold: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For every step, the membrane (overwritten by the next step) and `beta (1 - spk)`, what is left of it afterwards."""
    beta = beta.clamp(0, 1)
    mem = torch.zeros_like(x[0])
    for t in range(x.shape[0]):
        mem.add_(x[t])
        keep = torch.le(mem, threshold, out=torch.empty_like(mem)).mul_(beta)
        yield mem, keep
        mem.mul_(keep)


def _parts(x: Tensor) -> list[slice]:
    """Slices of the batch of `[T, B, ...]`, on a CPU small enough for its cache over all steps."""
    images = max(1, CACHED_ELEMENTS * x.shape[1] // max(1, x[0].numel())) if x.device.type == "cpu" else x.shape[1]
    return [slice(start, start + images) for start in range(0, x.shape[1], images)]
