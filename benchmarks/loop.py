"""The baseline: the same network as snnTorch's tutorials write one, with the time loop outside and
every layer called per step.

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
        self.mem = self.neuron.init_leaky()

    def forward(self, x: Tensor) -> Tensor:
        spikes, self.mem = self.neuron(x, self.mem)
        return spikes.to(x.dtype)  # snnTorch's spikes are float32 whatever the input is


class Loop(nn.Module):
    """`model` over its time steps one after the other, with the very weights of `model`: `[B, C, H,
    W]` -> `[B, K]`.
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
    """Raises `AssertionError` unless the loop computes the logits of `model`.

    In float64: in float32 the two round differently, one borderline spike flips, and in a deep
    network many more follow.
    """
    reference = copy.deepcopy(model).double().eval()
    for module in reference.modules():
        if isinstance(module, Lif):
            module.fused = False  # the fused neuron's membranes are float32
    with torch.inference_mode():
        expected = reference(x.double())
        given = Loop(reference)(x.double())
    difference = (given - expected).abs().max().item()
    assert difference <= tolerance, (
        f"the loop is not the network: logits differ by {difference:.2g}"
    )
    assert expected.std() > 0, "the network is silent: equal logits prove nothing"


def assert_same_neuron(device: str) -> None:
    """Raises `AssertionError` unless the fused neuron, in float32, fires as snnTorch's own loop
    does and has its gradient.
    """
    steps = 4
    random = torch.Generator().manual_seed(2)
    x, grad = (torch.randn(steps * 8, 16, 7, 7, generator=random).to(device) for _ in range(2))
    found = []
    for fused in (True, False):
        leaf = x.clone().requires_grad_()
        spikes = Lif(steps, fused=fused).to(device).train()(leaf)
        (gradient,) = torch.autograd.grad(spikes, leaf, grad)
        found.append((spikes, gradient))
    (fused_spikes, fused_grad), (spikes, gradient) = found
    assert torch.equal(fused_spikes, spikes) and spikes.any(), (
        "the fused neuron fires otherwise than snnTorch's"
    )
    error = float((fused_grad - gradient).norm() / gradient.norm())
    assert error < 1e-5, f"the fused neuron's gradient differs from snnTorch's by {error:.2g}"
