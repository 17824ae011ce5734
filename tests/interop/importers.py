"""Other simulators, each reading a `.nir` file in the way its own documentation describes.

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

DT = 1e-4  # seconds; the time step of our files
NodeMap = dict[type, Callable[[Any], nn.Module]]


@dataclass(frozen=True)
class Run:
    """A simulator's run of a file.

    Attributes:
        nodes: The output `[T, B, ...]` of every node, by its name.
        output: The output of the network `[B, K]`, averaged over the steps.
    """

    nodes: dict[str, Tensor]
    output: Tensor


def versions() -> dict[str, str]:
    """Return the installed version of every simulator."""
    packages = ("snntorch", "norse", "spikingjelly", "nirtorch", "nir")
    return {package: version(package) for package in packages}


def read_by_snntorch(path: Path) -> nn.Module:
    """Read a file by snnTorch, whose time step is fixed at 1e-4.

    The state lives in the modules, so a second input needs a second import, or `utils.reset`.
    """
    return snntorch_import(nir.read(path))


def read_by_spikingjelly(path: Path) -> nn.Module:
    """Read a file by SpikingJelly, to be run step by step: its multi-step mode has no SumPool2d."""
    return spikingjelly_import(path, dt=DT, step_mode="s")


def read_by_norse(path: Path, dt: float = DT) -> nn.Module:
    """Read a file by `norse.torch.from_nir`, whose own default time step is 1e-3."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"nirtorch\.load is being deprecated", DeprecationWarning)
        return norse.torch.from_nir(nir.read(path), dt=dt)


def read_by_norse_modules(path: Path) -> nn.Module:
    """Read a file into Norse's modules, connected by `nirtorch.nir_to_torch`.

    Norse itself connects them by the deprecated `nirtorch.load`.
    """
    kinds = (nir.Affine, nir.Conv2d, nir.Flatten, nir.Linear, nir.IF, nir.LIF, nir.SumPool2d)
    module_of = {kind: lambda node: _import_norse_module(node, dt=DT) for kind in kinds}
    return nirtorch.nir_to_torch(nir.read(path), module_of)


def read_by_nirtorch(path: Path) -> nn.Module:
    """Read a file by `nirtorch.nir_to_torch` with our own map of nodes.

    The map holds NIR's equations in torch, for all that nirtorch's own lacks or gets wrong.
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
    """Run a network that is shown `x` `[B, C, H, W]` at every step."""
    trains: dict[str, list[Tensor]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            trains.setdefault(name, []).append(out[0] if isinstance(out, tuple) else out)

        return hook

    handles = [child.register_forward_hook(record(name)) for name, child in module.named_children()]
    state, outputs = None, []
    with torch.inference_mode():
        for _ in range(steps):
            out, state = module(x, state)
            outputs.append(out)
    for handle in handles:
        handle.remove()
    nodes = {name: torch.stack(train) for name, train in trains.items()}
    return Run(nodes, torch.stack(outputs).mean(0))


def nodes() -> NodeMap:
    """Return NIR's equations, integrated by explicit Euler, for `nirtorch.nir_to_torch`.

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
    sizes = (tuple(map(int, value)) for value in (node.kernel_size, node.stride, node.padding))
    kernel, stride, padding = sizes
    pool = nn.functional.avg_pool2d
    return _Function(lambda x: pool(x, kernel, stride, padding, divisor_override=1))


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
    """A neuron of NIR; an IF or LIF fires where `v > v_threshold`.

    A leaky one computes `v <- v + dt / tau (v_leak - v + r x)`, another `v <- v + dt r x`.
    """

    def __init__(self, node: nir.I | nir.IF | nir.LI | nir.LIF) -> None:
        super().__init__()
        leaky = isinstance(node, nir.LI | nir.LIF)
        rate, leak = (DT / node.tau, node.v_leak) if leaky else (DT, 0)
        self.decay = _tensor(1 - rate if leaky else 1)
        self.input_gain = _tensor(rate * node.r)
        self.bias_current = _tensor(rate * leak)
        self.fires = isinstance(node, nir.IF | nir.LIF)
        if self.fires:
            self.threshold, self.reset = _tensor(node.v_threshold), _tensor(node.v_reset)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before = torch.zeros_like(x) if state is None else state
        v = self.decay * before + (self.input_gain * x + self.bias_current)
        if not self.fires:
            return v, v
        spikes = v > self.threshold
        return spikes.to(x.dtype), torch.where(spikes, self.reset, v)
