"""Other people's libraries, called the way their own documentation calls them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import TorchModel
from torch import Tensor, nn

from zoo.danet import DANet

__all__ = ["SPIKINGJELLY_CHOICE", "SPIKINGJELLY_IMPLEMENTATIONS", "NeuroBench", "SpikingJelly", "spikingjelly_sew_resnet"]

SPIKINGJELLY_CHOICE = "SJ_IF_CUDA_IMPLEMENTATION"
SPIKINGJELLY_IMPLEMENTATIONS = ("cuda", "triton", "torch")  # the first is not in the wheel: it is compiled from its sources


def spikingjelly_sew_resnet(depth: int, steps: int) -> Callable[[Tensor], Tensor]:
    """`SpikingJelly` in inference: `[B, 3, H, W]` -> `[B, 1000]`."""
    return SpikingJelly(depth, steps).eval()


class SpikingJelly(nn.Module):
    """SpikingJelly's SEW-ResNet in multi-step mode, as published: additive join, integrate-and-fire. `[B, 3, H, W]` -> `[B, 1000]`.

    Repeating the image over time and resetting the neurons belong to every call. On a GPU its neurons are kernels of one of
    `SPIKINGJELLY_IMPLEMENTATIONS`, which the environment variable `SPIKINGJELLY_CHOICE` names before the first import.
    """

    def __init__(self, depth: int, steps: int) -> None:
        super().__init__()
        with _stub_torchvision():
            from spikingjelly.activation_based import functional, neuron, surrogate
            from spikingjelly.activation_based.model import sew_resnet

        build = getattr(sew_resnet, f"sew_resnet{depth}")
        self.net = build(cnf="ADD", spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), detach_reset=True)
        functional.set_step_mode(self.net, "m")
        self.steps, self.reset = steps, functional.reset_net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)).mean(0)
        self.reset(self.net)
        return logits


@contextmanager
def _stub_torchvision() -> Iterator[None]:
    """SpikingJelly's models import a downloader from torchvision, which does not import beside a CPU build of torch.

    Taken away again afterwards: torch.onnx would find the stub and take it for torchvision.
    """
    stubs = {name: ModuleType(name) for name in ("torchvision", "torchvision._internally_replaced_utils")}
    vars(stubs["torchvision._internally_replaced_utils"])["load_state_dict_from_url"] = None
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


class NeuroBench:
    """NeuroBench's `SynapticOperations` on a network of the zoo, which keeps its hooks until `close`."""

    def __init__(self, model: DANet) -> None:
        self.model = TorchModel(model)
        self.model.register_hooks()

    def run(self, x: Tensor) -> dict[str, float]:
        """One batch as NeuroBench's own benchmark runs it: `Effective_ACs`, `Effective_MACs` and `Dense` per image."""
        with torch.inference_mode():
            predictions = self.model(x)
            counts: dict[str, float] = SynapticOperations()(self.model, predictions, (x, None))
        self.model.reset_hooks()
        return counts

    def close(self) -> None:
        self.model.cleanup_hooks()
