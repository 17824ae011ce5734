"""The spiking neuron of every network in the zoo, over all time steps at once.

`Lif` runs `snntorch.Leaky` with zero reset one step after the spike (`reset_delay=True`), which is the hard-reset
leaky integrate-and-fire neuron of the literature:

    mem[t] = beta * (1 - spk[t-1]) * mem[t-1] + x[t]
    spk[t] = 1 if mem[t] > threshold else 0

With `reset="subtract"` a spike takes the threshold off the membrane instead:

    mem[t] = beta * mem[t-1] + x[t] - threshold * spk[t-1]

State is local to the call: it starts at zero and is gone when `forward` returns.

Shapes: `T` time steps, `B` batch; time is folded into the batch, so a tensor is `[T*B, ...]`, step-major.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any, Literal

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.surrogates import ATan, Surrogate

log = logging.getLogger(__name__)
CACHED_ELEMENTS = 1 << 18  # of one time step, about what keeps its membranes in a core's second-level cache
# Attributes of tensors, which any operation on them loses: how autograd can keep less of them.
BYTES = "_danet_spikes_as_bytes"
NORMALISED = "_danet_normalised_from"

Reset = Literal["zero", "subtract"]

__all__ = ["Lif", "Reset", "kept_as_bytes", "normalise_again"]


class Lif(nn.Module):
    """`snn.Leaky` over `steps` time steps: currents `[T*B, ...]` in, spikes `[T*B, ...]` (0. or 1.) out.

    beta and threshold live in `self.neuron`, an `snn.Leaky` that may be replaced by any other neuron of snnTorch with the
    same call. `fused=False`, or a neuron that the fused path does not know (one that resets by subtraction, say), runs
    `self.neuron` step by step; both paths give the same spikes.
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
        with torch.device("cpu"):  # snn.Leaky reads its own buffers while it is built, which a meta tensor cannot
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
        x = current.reshape(self.steps, -1, *current.shape[1:])  # [T, B, ...]
        if not (self.fused and self._known()):
            return self._loop(x).flatten(0, 1)
        if not (current.is_contiguous() or current.is_contiguous(memory_format=torch.channels_last)):
            x = x.contiguous()  # the kernels need whole steps one after the other
        n = self.neuron
        fired = None
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            fired = torch.empty_like(x, dtype=torch.uint8)
        source = _noted(current, NORMALISED)
        fused = _FusedLif.apply  # autograd's apply is untyped
        spikes: Tensor = fused(  # type: ignore[no-untyped-call]  # as said
            x, n.beta, n.threshold, n.graded_spikes_factor, n.spike_grad, fired, *(source or (None, None, None, 0.0))
        )
        spikes = spikes.flatten(0, 1)
        if fired is not None:
            _note(spikes, BYTES, (fired.flatten(0, 1), n.graded_spikes_factor))
        return spikes

    def extra_repr(self) -> str:
        return f"steps={self.steps}, fused={self.fused}"

    @property
    def reset(self) -> Reset | None:
        """The equation that `self.neuron` computes, by its reset; None if it computes another one."""
        n = self.neuron
        if type(n) is not snn.Leaky or not n.reset_delay or n.state_quant or n.inhibition or n.init_hidden or n.output:
            return None
        # Not `n.reset_mechanism`: to set it changes what snnTorch says, not what it does.
        return "zero" if n.state_function == n._base_zero else "subtract" if n.state_function == n._base_sub else None

    @property
    def exportable(self) -> bool:
        """Whether `self.neuron` computes an equation of this module, and nothing more."""
        return self.reset is not None and float(self.neuron.graded_spikes_factor) == 1

    def _known(self) -> bool:
        n = self.neuron
        return self.reset == "zero" and isinstance(n.spike_grad, Surrogate) and not any(p.requires_grad for p in n.parameters())

    def _loop(self, x: Tensor) -> Tensor:
        mem = torch.zeros_like(x[0], dtype=torch.float32)
        spikes = []
        for current in x.unbind(0):
            spk, mem = self.neuron(current, mem)
            spikes.append(spk)
        self.neuron.mem = torch.zeros(0, device=x.device)  # snnTorch would carry it into the next call
        return torch.stack(spikes).to(x.dtype)


def kept_as_bytes(x: Tensor) -> AbstractContextManager[object]:
    """Inside, autograd keeps `x` as bytes for the backward pass, if it is what a `Lif` just fired.

    All readers of one neuron's spikes share one copy, which costs a quarter (float32) or half (bfloat16) of what each of them
    would keep. Anything else is kept as it is.
    """
    kept = _noted(x, BYTES)
    if kept is None or not torch.is_grad_enabled():
        return nullcontext()
    fired, height = kept
    pointer, shape = x.data_ptr(), x.shape  # autograd holds on to `pack`, which therefore must not hold on to `x`

    def pack(saved: Tensor) -> Tensor | torch.dtype:
        return saved.dtype if saved.data_ptr() == pointer and saved.shape == shape else saved

    def unpack(packed: Tensor | torch.dtype) -> Tensor:
        return packed if isinstance(packed, Tensor) else fired * height.to(packed)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def normalise_again(current: Tensor, norm: nn.BatchNorm2d, source: Tensor) -> None:
    """Let a `Lif` that reads `current = norm(source)` keep nothing: `norm` keeps `source`, from which it can be computed again."""
    if norm.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        _note(current, NORMALISED, (source, norm.weight, norm.bias, norm.eps))


def _note(x: Tensor, name: str, value: tuple[Any, ...]) -> None:
    setattr(x, name, (x._version, value))


def _noted(x: Tensor, name: str) -> tuple[Any, ...] | None:
    """What was noted of `x`, unless it was changed in place since."""
    noted = getattr(x, name, None)
    return noted[1] if noted is not None and noted[0] == x._version else None


class _FusedLif(torch.autograd.Function):
    """All steps of `snn.Leaky` at once: `[T, B, ...]` -> `[T, B, ...]`. Only the currents are kept for the backward pass,
    which recomputes the membranes; with a `source` not even they, but what they were normalised from. `fired`, where it is
    given, is filled with the spikes as bytes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
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
        ctx.save_for_backward(x if source is None else source, weight, bias, beta, threshold, height)
        ctx.shape, ctx.normalised, ctx.eps, ctx.spike_grad = x.shape, source is not None, eps, spike_grad
        if kernels := _kernels(x):
            return kernels.lif_forward(x, beta, threshold, height, fired)  # type: ignore[no-any-return]  # a module's attribute
        spikes = torch.empty_like(x)
        for part in _parts(x):
            above = torch.empty_like(x[:, part], dtype=torch.float32)
            for t, (mem, _) in enumerate(_membranes(x[:, part].float(), beta, threshold)):
                torch.gt(mem, threshold, out=above[t])
            if fired is not None:
                fired[:, part] = above
            spikes[:, part] = above.mul_(height)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, beta, threshold, height = ctx.saved_tensors
        if ctx.normalised:
            x = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps).reshape(ctx.shape)
        if kernels := _kernels(x):
            return kernels.lif_backward(grad, x, beta, threshold, height, ctx.spike_grad), *(None,) * 9
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
        return grad_x, *(None,) * 9


def _kernels(x: Tensor) -> ModuleType | None:
    """The module of GPU kernels, if `x` is for them; the way without gives the same spikes."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():  # dynamo knows not all options of a launch
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
