"""The baseline of all timings: our network as snnTorch's tutorials write one.

The time loop is outside, and every layer is called at every step:

    mem1, mem2, ... = lif1.init_leaky(), lif2.init_leaky(), ...
    for step in range(num_steps):
        cur1 = bn1(conv1(x))
        spk1, mem1 = lif1(cur1, mem1)
        ...
        outputs.append(fc(pooled))
    logits = torch.stack(outputs).mean(0)
"""

import copy

import torch
from torch import Tensor, nn

from zoo.danet import DANet, Readout, Repeat
from zoo.neurons import Lif

__all__ = ["Loop", "assert_same", "assert_same_neuron"]


class StepLif(nn.Module):
    """One step of `snn.Leaky`, called directly; its membrane goes in and comes out."""

    def __init__(self, lif: Lif) -> None:
        super().__init__()
        self.neuron = lif.neuron
        self.mem = self.neuron.init_leaky()

    def start(self) -> None:
        """Set the membrane to its state before the first step."""
        self.mem = self.neuron.init_leaky()

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor
        spikes, self.mem = self.neuron(x, self.mem)
        return spikes.to(x.dtype)  # snnTorch's spikes are float32 whatever the input is


class Loop(nn.Module):
    """A network that computes its time steps one after the other: `[B, C, H, W]` -> `[B, K]`.

    It shares the weights of `model`.
    """

    def __init__(self, model: DANet) -> None:
        super().__init__()
        self.steps = model.config.steps
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.net = copy.deepcopy(model, shared)
        self.neurons: list[StepLif] = []
        for path, module in list(self.net.named_modules()):
            if isinstance(module, Lif):
                self.neurons.append(StepLif(module))
                self.net.set_submodule(path, self.neurons[-1])
            elif isinstance(module, Readout | Repeat):
                module.steps = 1

    def forward(self, x: Tensor) -> Tensor:
        for neuron in self.neurons:
            neuron.start()
        outputs = [self.net(x) for _ in range(self.steps)]
        return torch.stack(outputs).mean(0)


def assert_same(model: DANet, x: Tensor, tolerance: float = 1e-4) -> None:
    """Raise `AssertionError` unless the loop computes the logits of `model`.

    In float64: in float32 the two round differently, one borderline spike flips, and in a deep
    network many more follow.
    """
    reference = copy.deepcopy(model).double().eval()
    for module in reference.modules():
        if isinstance(module, Lif):
            module.fused = False  # the fused neuron's membranes are float32
    with torch.inference_mode():
        expected = reference(x.double())
        logits = Loop(reference)(x.double())
    error = (logits - expected).abs().max().item()
    assert error <= tolerance, f"the loop is not the network: logits differ by {error:.2g}"
    assert expected.std() > 0, "the network is silent: equal logits prove nothing"


def assert_same_neuron(device: str) -> None:
    """Raise `AssertionError` unless the fused neuron fires as snnTorch's own loop does.

    In float32 its spikes must be the same, and its gradient within 1e-5.
    """
    steps = 4
    random = torch.Generator().manual_seed(2)
    x, grad = (torch.randn(steps * 8, 16, 7, 7, generator=random).to(device) for _ in range(2))

    def run(fused: bool) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        spikes = Lif(steps, fused=fused).to(device).train()(leaf)
        return spikes, torch.autograd.grad(spikes, leaf, grad)[0]

    (fused_spikes, fused_grad), (spikes, gradient) = run(True), run(False)
    is_same = torch.equal(fused_spikes, spikes)
    assert is_same and spikes.any(), "the fused neuron fires otherwise than snnTorch's"
    error = float((fused_grad - gradient).norm() / gradient.norm())
    assert error < 1e-5, f"the fused neuron's gradient differs from snnTorch's by {error:.2g}"
