"""Other simulators, each reading a `.nir` file as its own documentation says, and what every node
of it gives.

Shapes: `T` time steps, `B` batch; an image is `[B, C, H, W]` and is shown at every step.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import nirtorch
import numpy as np
import torch
from snntorch.import_nir import import_from_nir as snntorch_import
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
    import norse.torch
    from norse.torch.utils.import_nir import _import_norse_module
    from spikingjelly.activation_based.nir_exchange import import_from_nir as spikingjelly_import

__all__ = ["DT", "IMPORTERS", "Run", "nodes", "run", "versions"]

DT = 1e-4  # the step of our files, in seconds
NodeMap = dict[type, Callable[[Any], nn.Module]]


@dataclass(frozen=True)
class Run:
    """What a simulator made of a file: every node's output `[T, B, ...]`, and the mean of the last
    one `[B, K]`.
    """

    nodes: dict[str, Tensor]
    output: Tensor


def versions() -> dict[str, str]:
    """Simulator -> the version that is installed."""
    return {
        name: version(name) for name in ("snntorch", "norse", "spikingjelly", "nirtorch", "nir")
    }


def read_by_snntorch(path: Path) -> nn.Module:
    """The step is fixed at 1e-4. The state lives in the modules, so a second input needs a second
    import, or `utils.reset`.
    """
    return snntorch_import(nir.read(path))


def read_by_spikingjelly(path: Path) -> nn.Module:
    """Step by step: its multi-step mode has no SumPool2d."""
    return spikingjelly_import(path, dt=DT, step_mode="s")


def read_by_norse(path: Path, dt: float = DT) -> nn.Module:
    """`norse.torch.from_nir`, whose own default step is 1e-3."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"nirtorch\.load is being deprecated", DeprecationWarning)
        return norse.torch.from_nir(nir.read(path), dt=dt)


def read_by_norse_modules(path: Path) -> nn.Module:
    """Norse's modules, connected by `nirtorch.nir_to_torch` instead of the deprecated
    `nirtorch.load`.
    """
    kinds = (nir.Affine, nir.Conv2d, nir.Flatten, nir.Linear, nir.IF, nir.LIF, nir.SumPool2d)
    return nirtorch.nir_to_torch(
        nir.read(path), {kind: lambda node: _import_norse_module(node, dt=DT) for kind in kinds}
    )


def read_by_nirtorch(path: Path) -> nn.Module:
    """`nirtorch.nir_to_torch` with a map of our own: NIR's equations in torch, for all that its
    default map lacks or gets wrong.
    """
    return nirtorch.nir_to_torch(nir.read(path), nodes())


IMPORTERS: dict[str, Callable[[Path], nn.Module]] = {
    "snnTorch": read_by_snntorch,
    "SpikingJelly": read_by_spikingjelly,
    "Norse": read_by_norse,
    "Norse's modules": read_by_norse_modules,
    "nirtorch": read_by_nirtorch,
}


def run(module: nn.Module, x: Tensor, steps: int) -> Run:
    """`x` `[B, C, H, W]` at every step."""
    seen: dict[str, list[Tensor]] = {}

    def see(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, out: seen.setdefault(name, []).append(
            out[0] if isinstance(out, tuple) else out
        )

    handles = [child.register_forward_hook(see(name)) for name, child in module.named_children()]
    state, outputs = None, []
    with torch.inference_mode():
        for _ in range(steps):
            out, state = module(x, state)
            outputs.append(out)
    for handle in handles:
        handle.remove()
    return Run(
        {name: torch.stack(values) for name, values in seen.items()}, torch.stack(outputs).mean(0)
    )


def nodes() -> NodeMap:
    """NIR's equations for `nirtorch.nir_to_torch`, with explicit Euler.

    nirtorch itself gives an edge that closes a cycle a delay of one step, which is the `Delay` of
    our files.
    """
    return {
        nir.Affine: _affine,
        nir.Delay: lambda node: nn.Identity(),
        nir.Flatten: lambda node: nn.Flatten(node.start_dim, node.end_dim),
        nir.Scale: lambda node: _Function(lambda x, scale: scale * x, node.scale),
        nir.SumPool2d: _sum_pool,
        nir.Threshold: lambda node: _Function(
            lambda x, threshold: (x > threshold).to(x.dtype), node.threshold
        ),
    } | dict.fromkeys((nir.I, nir.IF, nir.LI, nir.LIF), _Neuron)


def _affine(node: nir.Affine) -> nn.Module:
    linear = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    linear.load_state_dict({"weight": _tensor(node.weight), "bias": _tensor(node.bias)})
    return linear


def _sum_pool(node: nir.SumPool2d) -> nn.Module:
    kernel, stride, padding = (
        tuple(map(int, v)) for v in (node.kernel_size, node.stride, node.padding)
    )
    return _Function(
        lambda x: nn.functional.avg_pool2d(x, kernel, stride, padding, divisor_override=1)
    )


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


class _Function(nn.Module):
    """A function of the input and of constants."""

    def __init__(self, function: Callable[..., Tensor], *constants: Any) -> None:
        super().__init__()
        self.function, self.constants = function, [_tensor(values) for values in constants]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.constants)


class _Neuron(nn.Module):
    """`v <- v + dt / tau (v_leak - v + r x)`, or `v + dt r x` without a leak; IF and LIF fire where
    `v > v_threshold`.
    """

    def __init__(self, node: nir.I | nir.IF | nir.LI | nir.LIF) -> None:
        super().__init__()
        leaky = isinstance(node, nir.LI | nir.LIF)
        a, leak = (DT / node.tau, node.v_leak) if leaky else (DT, 0)
        self.keep, self.gain, self.drive = (
            _tensor(1 - a if leaky else 1),
            _tensor(a * node.r),
            _tensor(a * leak),
        )
        self.fire = (
            (_tensor(node.v_threshold), _tensor(node.v_reset))
            if isinstance(node, nir.IF | nir.LIF)
            else None
        )

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = self.keep * (torch.zeros_like(x) if state is None else state) + (
            self.gain * x + self.drive
        )
        if self.fire is None:
            return v, v
        fired = v > self.fire[0]
        return fired.to(x.dtype), torch.where(fired, self.fire[1], v)
