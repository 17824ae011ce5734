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
from collections.abc import Callable
from typing import Any, Literal, Self

import snntorch as snn
import torch
from torch import Tensor, nn

from zoo.autograd import is_recorded, is_transformed
from zoo.errors import ConfigError
from zoo.fused_lif import fused_lif, is_fusible, membrane_dtype
from zoo.surrogates import ATan, Surrogate

Reset = Literal["zero", "subtract"]

__all__ = ["Lif", "Reset"]


class Lif(nn.Module):
    """`snn.Leaky` over `steps` time steps: currents `[T*B, ...]` in, spikes (0. or 1.) out.

    beta and threshold live in `self.neuron`, an `snn.Leaky` that may be replaced by any other
    neuron of snnTorch with the same call, current and membrane -> spikes and membrane; one of
    another call is refused with `ConfigError`. `fused=False`, or a neuron that the fused path does
    not compute (one that resets by subtraction, say), runs `self.neuron` step by step; both paths
    give the same spikes.
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
        # snn.Leaky reads its own buffers while it is built, which a meta tensor cannot.
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
        """Return the spikes `[T*B, ...]` of currents `[T*B, ...]`, in their dtype."""
        if not self._is_fusible() or is_transformed():
            return self._loop(current)
        return fused_lif(current, self.steps, self.neuron, as_bytes=is_recorded(self))

    def _loop(self, current: Tensor) -> Tensor:
        _check_call(self.neuron)
        x = current.reshape(self.steps, -1, *current.shape[1:])  # [T, B, ...]
        mem = torch.zeros_like(x[0], dtype=membrane_dtype(x.dtype))  # [B, ...]
        own_mem, spikes = self.neuron.mem, []
        for x_t in x.unbind(0):
            spk, mem = _spikes_and_membrane(self.neuron, self.neuron(x_t, mem))
            spikes.append(spk)
        # snnTorch would carry them into the next call.
        self.neuron.mem, self.neuron.reset = own_mem, None
        return torch.stack(spikes).to(x.dtype).flatten(0, 1)  # [T*B, ...]

    def _is_fusible(self) -> bool:
        return self.fused and self.reset == "zero" and is_fusible(self.neuron)

    @property
    def reset(self) -> Reset | None:
        """Return the reset of the equation that `self.neuron` computes; None for any other."""
        n = self.neuron
        if type(n) is not snn.Leaky or not n.reset_delay:
            return None
        if n.state_quant or n.inhibition or n.init_hidden:
            return None
        # Not `n.reset_mechanism`: to set it changes what snnTorch says, not what it does.
        if n.state_function == n._base_zero:
            return "zero"
        return "subtract" if n.state_function == n._base_sub else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert as every module does, but keep beta and threshold at float32 or more.

        In a half, a threshold just below 1, as of neurons that fire at 1, would become 1.
        """

        def at_precision(constant: Tensor) -> Tensor:
            moved = fn(constant)
            return constant.to(moved.device) if moved.itemsize < constant.itemsize else moved

        super()._apply(at_precision, recurse)  # type: ignore[no-untyped-call]  # torch's own
        return self

    def extra_repr(self) -> str:
        """Return the options that `print(model)` shows."""
        return f"steps={self.steps}, fused={self.fused}"


def _check_call(neuron: nn.Module) -> None:
    """Raise `ConfigError` for a neuron that does not take a current and a membrane.

    `snn.RLeaky` would take the membrane for the spikes of the step before, and one with
    `init_hidden=True` keeps its own.
    """
    states = list(inspect.signature(neuron.forward).parameters)[1:]
    if not isinstance(neuron, snn.SpikingNeuron) or len(states) != 1 or neuron.init_hidden:
        raise _other_call(neuron)


def _spikes_and_membrane(neuron: nn.Module, outputs: Any) -> tuple[Tensor, Tensor]:
    """Return a neuron's two outputs, or raise `ConfigError` where there are others."""
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        raise _other_call(neuron)
    return outputs


def _other_call(neuron: nn.Module) -> ConfigError:
    kind = type(neuron)
    name = f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"
    options = " with init_hidden=True" if getattr(neuron, "init_hidden", False) else ""
    return ConfigError(
        f"{name}{options} cannot be the neuron of a Lif, which gives it a current and a membrane "
        "and reads spikes and a membrane: valid are snntorch.Leaky and Lapicque, and others with "
        "their call"
    )
