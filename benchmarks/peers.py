"""The libraries that the zoo is measured beside, called as their own documentation calls them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import TorchModel
from torch import Tensor, nn

from zoo.blocks import SamePool
from zoo.danet import DANet, Readout
from zoo.neurons import Lif

__all__ = [
    "SPIKINGJELLY_CHOICE",
    "SPIKINGJELLY_IMPLEMENTATIONS",
    "NeuroBench",
    "SpikingJelly",
    "spikingjelly_sew_resnet",
    "syops_operations",
]

SPIKINGJELLY_CHOICE = "SJ_IF_CUDA_IMPLEMENTATION"
# The first is not in the wheel: it is compiled from its sources.
SPIKINGJELLY_IMPLEMENTATIONS = ("cuda", "triton", "torch")


def spikingjelly_sew_resnet(depth: int, steps: int) -> Callable[[Tensor], Tensor]:
    """Return SpikingJelly's SEW-ResNet in eval mode: `[B, 3, H, W]` -> `[B, 1000]`."""
    return SpikingJelly(depth, steps).eval()


class SpikingJelly(nn.Module):
    """SpikingJelly's SEW-ResNet in multi-step mode: `[B, 3, H, W]` -> `[B, 1000]`.

    It is as published: additive join, integrate-and-fire neurons. Repeating the image over time and
    resetting the neurons belong to every call. On a GPU its neurons are kernels of one of
    `SPIKINGJELLY_IMPLEMENTATIONS`, which the environment variable `SPIKINGJELLY_CHOICE` names
    before the first import.
    """

    def __init__(self, depth: int, steps: int) -> None:
        super().__init__()
        # Its models import a downloader from torchvision, which does not import beside a CPU build
        # of torch.
        downloader = {"torchvision._internally_replaced_utils": ["load_state_dict_from_url"]}
        with _stubs({"torchvision": []} | downloader):
            from spikingjelly.activation_based import functional, neuron, surrogate
            from spikingjelly.activation_based.model import sew_resnet

        build = getattr(sew_resnet, f"sew_resnet{depth}")
        self.net = build(
            cnf="ADD",
            spiking_neuron=neuron.IFNode,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
        )
        functional.set_step_mode(self.net, "m")
        self.steps, self.reset = steps, functional.reset_net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)).mean(0)
        self.reset(self.net)
        return logits


def syops_operations(model: DANet, image: Tensor) -> dict[str, tuple[float, float]]:
    """Return the AC and MAC that syops-counter counts, by the path of the module.

    `image` is `[1, C, H, W]`. The counter is told, as it asks to be, that a `Lif` is a neuron and
    that `SamePool` and `Readout` are average pools.
    """
    nodes = ("IFNode", "LIFNode", "ParametricLIFNode")
    # It imports names that SpikingJelly 2.0 no longer has, and a progress bar.
    stubs = {
        "spikingjelly.clock_driven": ["surrogate", "neuron", "functional"],
        "spikingjelly.clock_driven.neuron": [*nodes, *(f"MultiStep{node}" for node in nodes)],
    }
    with _stubs(stubs | {"progress": [], "progress.bar": ["Bar"]}):
        from syops import engine, ops

    pool = ops.MODULES_MAPPING[nn.AvgPool2d]
    engine.CUSTOM_MODULES_MAPPING = {Lif: ops.LIF_syops_counter_hook, SamePool: pool, Readout: pool}
    counted = engine.add_syops_counting_methods(model)
    counted.start_syops_count(ost=sys.stdout, verbose=False, ignore_list=[])
    with torch.inference_mode():
        counted(image)
    counts = {path: m.__syops__ for path, m in model.named_modules() if hasattr(m, "__syops__")}
    counted.stop_syops_count()
    return {path: (float(acs), float(macs)) for path, (_, acs, macs, _) in counts.items()}


@contextmanager
def _stubs(modules: dict[str, list[str]]) -> Iterator[None]:
    """Put modules of empty classes where a peer imports what it does not need here.

    They are taken away afterwards: torch.onnx would find torchvision's and take it for the real
    one.
    """
    for module, names in modules.items():
        sys.modules[module] = ModuleType(module)
        vars(sys.modules[module]).update({name: type(name, (), {}) for name in names})
    try:
        yield
    finally:
        for module in modules:
            del sys.modules[module]


class NeuroBench:
    """NeuroBench's `SynapticOperations` on a network, which has its hooks until `close`."""

    def __init__(self, model: DANet) -> None:
        self.model = TorchModel(model)
        self.model.register_hooks()

    def run(self, x: Tensor) -> dict[str, float]:
        """Run a batch as NeuroBench's own benchmark does, and return operations per image.

        They are called `Effective_ACs`, `Effective_MACs` and `Dense`.
        """
        with torch.inference_mode():
            predictions = self.model(x)
            counts: dict[str, float] = SynapticOperations()(self.model, predictions, (x, None))
        self.model.reset_hooks()
        return counts

    def close(self) -> None:
        self.model.cleanup_hooks()
