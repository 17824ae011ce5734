"""The spiking neuron of every network in the zoo, over all time steps at once.

`Lif` runs `snntorch.Leaky` with zero reset one step after the spike (`reset_delay=True`), which is
the hard-reset leaky integrate-and-fire neuron of the literature:

    mem[t] = beta * (1 - spk[t-1]) * mem[t-1] + x[t]
    spk[t] = 1 if mem[t] > threshold else 0

With `reset="subtract"` a spike takes the threshold off the membrane instead:

    mem[t] = beta * mem[t-1] + x[t] - threshold * spk[t-1]

State is local to the call: it starts at zero and is gone when `forward` returns.

Shapes: `T` time steps, `B` batch; time is folded into the batch, so a tensor is `[T*B, ...]`,
step-major.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, Literal, Self

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autograd import is_bare, is_recorded, is_transformed, normalised_from, note_spikes
from zoo.errors import ConfigError
from zoo.surrogates import ATan, Surrogate

log = logging.getLogger(__name__)
# of one time step, about what keeps its membranes in a core's second-level cache
CACHED_ELEMENTS = 1 << 18

Reset = Literal["zero", "subtract"]

__all__ = ["Lif", "Reset"]


class Lif(nn.Module):
    """`snn.Leaky` over `steps` time steps: currents `[T*B, ...]` in, spikes `[T*B, ...]` (0. or 1.)
    out.

    beta and threshold live in `self.neuron`, an `snn.Leaky` that may be replaced by any other
    neuron of snnTorch with the same call, current and membrane -> spikes and membrane; one of
    another call is refused with `ConfigError`. `fused=False`, or a neuron that the fused path does
    not know (one that resets by subtraction, say), runs `self.neuron` step by step; both paths give
    the same spikes.
    """

    def __init__(
        self,
        steps: int,
        *,
        beta: float = 0.5,
        threshold: float = 1.0,
        reset: Reset = "zero",
        spike_grad: Surrogate | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.fused = fused
        # snn.Leaky reads its own buffers while it is built, which a meta tensor cannot
        with torch.device("cpu"):
            self.neuron = snn.Leaky(
                beta=float(beta),
                threshold=float(threshold),  # an int would make an int64 buffer
                spike_grad=spike_grad or ATan(),
                reset_mechanism=reset,
                reset_delay=True,
            )
        # snnTorch keeps every neuron ever made in a list of the class, and so alive.
        snn.SpikingNeuron.instances.remove(self.neuron)

    def forward(self, current: Tensor) -> Tensor:
        if not (self.fused and self._known()) or is_transformed():
            return self._loop(_by_step(current, self.steps)).flatten(0, 1)
        if not (
            current.is_contiguous() or current.is_contiguous(memory_format=torch.channels_last)
        ):
            current = current.contiguous()  # the kernels need whole steps one after the other
        n = self.neuron
        fired = torch.empty_like(current, dtype=torch.uint8) if is_recorded(self) else None
        source = normalised_from(current) or (None, None, None, 0.0)
        fused = _FusedLif.apply  # autograd's apply is untyped
        spikes: Tensor = fused(  # type: ignore[no-untyped-call]  # as said
            current,
            self.steps,
            n.beta,
            n.threshold,
            n.graded_spikes_factor,
            n.spike_grad,
            fired,
            *source,
        )
        if fired is not None:
            note_spikes(spikes, fired, n.graded_spikes_factor)
        return spikes

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert as every module does, but keep beta and threshold at the precision of
        membranes: in a half, a threshold just below 1, as of neurons that fire at 1, would become
        1.
        """

        def kept(constant: Tensor) -> Tensor:
            moved = fn(constant)
            return constant.to(moved.device) if moved.itemsize < constant.itemsize else moved

        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]  # torch's own
        return self

    def extra_repr(self) -> str:
        return f"steps={self.steps}, fused={self.fused}"

    @property
    def reset(self) -> Reset | None:
        """The equation that `self.neuron` computes, by its reset; None if it computes another one."""
        n = self.neuron
        if (
            type(n) is not snn.Leaky
            or not n.reset_delay
            or n.state_quant
            or n.inhibition
            or n.init_hidden
        ):
            return None
        # Not `n.reset_mechanism`: to set it changes what snnTorch says, not what it does.
        return (
            "zero"
            if n.state_function == n._base_zero
            else "subtract"
            if n.state_function == n._base_sub
            else None
        )

    def _known(self) -> bool:
        n = self.neuron
        if self.reset != "zero" or not isinstance(n.spike_grad, Surrogate) or not is_bare(n):
            return False
        return all(
            p.numel() == 1 and not p.requires_grad
            for p in (n.beta, n.threshold, n.graded_spikes_factor)
        )

    def _loop(self, x: Tensor) -> Tensor:
        _check_call(self.neuron)
        mem, idle = torch.zeros_like(x[0], dtype=_wide(x.dtype)), self.neuron.mem
        spikes = []
        for current in x.unbind(0):
            spk, mem = _pair(self.neuron, self.neuron(current, mem))
            spikes.append(spk)
        # snnTorch would carry them into the next call
        self.neuron.mem, self.neuron.reset = idle, None
        return torch.stack(spikes).to(x.dtype)


def _check_call(neuron: nn.Module) -> None:
    """Raises `ConfigError` for a neuron that does not take a current and a membrane: `snn.RLeaky`
    would take the membrane for the spikes of the step before, and one with `init_hidden=True` keeps
    its own.
    """
    states = list(inspect.signature(neuron.forward).parameters)[1:]
    if not isinstance(neuron, snn.SpikingNeuron) or len(states) != 1 or neuron.init_hidden:
        raise _other_call(neuron)


def _pair(neuron: nn.Module, found: Any) -> tuple[Tensor, Tensor]:
    """Spikes and membrane, of which a neuron may return more."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise _other_call(neuron)
    return found


def _other_call(neuron: nn.Module) -> ConfigError:
    kind = type(neuron)
    options = " with init_hidden=True" if getattr(neuron, "init_hidden", False) else ""
    return ConfigError(
        f"{kind.__module__.split('.')[0]}.{kind.__qualname__}{options} cannot be the neuron of a Lif, which gives it a current and "
        "a membrane and reads spikes and a membrane: valid are snntorch.Leaky and Lapicque, and others with their call"
    )


class _FusedLif(torch.autograd.Function):
    """All steps of `snn.Leaky` at once: `[T*B, ...]` -> `[T*B, ...]`. Only the currents are kept
    for the backward pass, which recomputes the membranes; with a `source` not even they, but what
    they were normalised from. `fired`, where it is given, is filled with the spikes as bytes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        steps: int,
        beta: Tensor,
        threshold: Tensor,
        height: Tensor,
        spike_grad: Surrogate,
        fired: Tensor | None,
        source: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(
            current if source is None else source, weight, bias, beta, threshold, height
        )
        ctx.steps, ctx.normalised, ctx.eps, ctx.spike_grad = (
            steps,
            source is not None,
            eps,
            spike_grad,
        )
        x, fired = _by_step(current, steps), None if fired is None else _by_step(fired, steps)
        if kernels := _kernels(x):
            return kernels.lif_forward(x, beta, threshold, height, fired).flatten(0, 1)  # type: ignore[no-any-return]  # untyped
        # not of the shape of `x`: to flatten that would bind torch.export to one batch
        spikes = torch.empty_like(current)
        for part in _parts(x):
            above = _by_step(spikes, steps)[:, part]
            for t, (mem, _) in enumerate(
                _membranes(x[:, part].to(_wide(x.dtype)), beta, threshold)
            ):
                torch.gt(mem, threshold, out=above[t])
            if fired is not None:
                # five times faster than to uint8, and the same bytes
                fired[:, part].view(torch.int8).copy_(above)
            above.mul_(height)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        current, weight, bias, beta, threshold, height = ctx.saved_tensors
        if ctx.normalised:
            current = F.batch_norm(current, None, None, weight, bias, training=True, eps=ctx.eps)
        x, grad = _by_step(current, ctx.steps), _by_step(grad, ctx.steps)
        # the gradient is to be differentiated itself
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            spikes = _differentiable(x, beta, threshold, height, ctx.spike_grad)
            return torch.autograd.grad(spikes, current, grad, create_graph=True)[0], *(None,) * 10
        if kernels := _kernels(x):
            return kernels.lif_backward(grad, x, beta, threshold, height, ctx.spike_grad).flatten(
                0, 1
            ), *(None,) * 10
        grad_x = torch.empty_like(current)
        for part in _parts(x):
            keeps = []
            grad_part = _by_step(grad_x, ctx.steps)[:, part]
            grad_mem = grad_part.to(_wide(x.dtype))  # itself, where it is wide enough
            # `height`, a scalar, would not widen it
            torch.mul(grad[:, part].to(grad_mem.dtype), height, out=grad_mem)
            for t, (mem, keep) in enumerate(
                _membranes(x[:, part].to(grad_mem.dtype), beta, threshold)
            ):
                keeps.append(keep)
                grad_mem[t].mul_(ctx.spike_grad.derivative(mem - threshold))
            # The reset is detached, so d/dmem[t] = grad[t] H'(mem[t] - threshold) + keep[t+1]
            # d/dmem[t+1].
            for t in reversed(range(1, len(x))):
                grad_mem[t - 1].addcmul_(grad_mem[t], keeps[t])
            grad_part.copy_(grad_mem)
        return grad_x, *(None,) * 10


def _by_step(x: Tensor, steps: int) -> Tensor:
    """`[T*B, ...]` -> `[T, B, ...]`."""
    return x.reshape(steps, -1, *x.shape[1:])


def _differentiable(
    x: Tensor, beta: Tensor, threshold: Tensor, height: Tensor, spike_grad: Surrogate
) -> Tensor:
    """The spikes `[T, B, ...]` of the fused neuron, by operations that can be differentiated twice."""
    mem = keep = torch.zeros_like(x[0], dtype=_wide(x.dtype))
    spikes = []
    for current in x.unbind(0):
        mem = keep * mem + current
        keep = beta.clamp(0, 1) * (mem <= threshold)
        spikes.append(spike_grad(mem - threshold) * height)
    return torch.stack(spikes).to(x.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The precision of membranes for currents of `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def _kernels(x: Tensor) -> ModuleType | None:
    """The module of GPU kernels, if `x` is for them; the way without gives the same spikes."""
    # dynamo knows not all options of a launch
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


def _membranes(x: Tensor, beta: Tensor, threshold: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For every step, the membrane and `beta (1 - spk)` of the step before, the part of its
    membrane that was left; the first step, which has none before, comes with `beta`.
    """
    beta = beta.clamp(0, 1)
    mem = x[0]
    yield mem, beta
    for current in x.unbind(0)[1:]:
        keep = torch.le(mem, threshold, out=torch.empty_like(mem)).mul_(beta)
        mem = (mem * keep).add_(current)
        yield mem, keep


def _parts(x: Tensor) -> list[slice]:
    """Slices of the batch of `[T, B, ...]`, on a CPU small enough for its cache over all steps."""
    # a compiler takes batches of any size, and tiles on its own
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    images = max(1, CACHED_ELEMENTS * x.shape[1] // max(1, x[0].numel()))
    return [slice(start, start + images) for start in range(0, x.shape[1], images)]
