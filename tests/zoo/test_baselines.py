"""Spiking, SEW and MS ResNet, spike for spike against small implementations written from their
papers.

The references know nothing of the zoo's blocks: they take its weights by name, keep one membrane
per neuron, and run time as the outermost loop. Neurons: SEW-ResNet and Spiking ResNet (Fang et al.,
NeurIPS 2021) integrate and fire at `v >= 1`; MS-ResNet (Hu et al. 2021) decays by 0.25 and fires at
`v > 0.5`; all reset to zero.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.danet import DANet
from zoo.datasets import DATASETS
from zoo.families import JUST_BELOW_ONE
from zoo.names import ModelSpec

STEPS = 4
SMALL = {"depths": (2, 1), "widths": (16, 32), "steps": STEPS, "links": False, "down": "stride"}
IF = {"beta": 1.0, "threshold": JUST_BELOW_ONE}


class Reference:
    """One time step of a published network; `spikes` has the output of each neuron over time."""

    def __init__(self, model: DANet, *, decay: float, fires: Callable[[Tensor], Tensor]) -> None:
        self.weights, self.depths = model.state_dict(), model.config.depths
        self.convs = 3 if model.config.bottleneck else 2
        self.decay, self.fires = decay, fires
        self.membranes: dict[str, Tensor] = {}
        self.spikes: dict[str, list[Tensor]] = {}

    def neuron(self, name: str, x: Tensor) -> Tensor:
        v = self.decay * self.membranes.get(name, torch.zeros(())) + x
        fired = self.fires(v)
        self.membranes[name] = v.masked_fill(fired, 0.0)
        self.spikes.setdefault(name, []).append(fired.float())
        return fired.float()

    def conv_bn(self, conv: str, bn: str, x: Tensor, stride: int = 1) -> Tensor:
        return self.bn(bn, self.conv(conv, x, stride))

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def bn(self, name: str, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            *(
                self.weights[f"{name}.{key}"]
                for key in ("running_mean", "running_var", "weight", "bias")
            ),
            eps=2**-40,
        )

    def stride_of(self, conv: int, stride: int) -> int:
        """In a bottleneck the 3x3, its second convolution, carries the stride."""
        return stride if conv == self.convs - 1 else 1

    def classify(self, x: Tensor) -> Tensor:
        return F.linear(
            x.mean((2, 3)), self.weights["head.fc.weight"], self.weights["head.fc.bias"]
        )

    def run(self, step: Callable[["Reference", Tensor], Tensor], images: Tensor) -> Tensor:
        return torch.stack([step(self, images) for _ in range(STEPS)]).mean(0)


def blocks(ref: Reference, first_stride: int) -> list[tuple[str, int]]:
    return [
        (f"stage{k}.block{i}", (first_stride if k == 1 else 2) if i == 0 else 1)
        for k, depth in enumerate(ref.depths, 1)
        for i in range(depth)
    ]


JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, s: a + s,
    "and": lambda a, s: a * s,
    "iand": lambda a, s: (1.0 - a) * s,
}


def spiking_stem(ref: Reference, images: Tensor) -> Tensor:
    return F.max_pool2d(
        ref.neuron("stem.lif", ref.conv_bn("stem.conv", "stem.bn", images, 2)), 3, 2, 1
    )


def sew_step(ref: Reference, images: Tensor, join: str) -> Tensor:
    x = spiking_stem(ref, images)
    for block, stride in blocks(ref, 1):
        branch = shortcut = x
        for i in range(1, ref.convs + 1):
            current = ref.conv_bn(
                f"{block}.conv{i}", f"{block}.bn{i}", branch, ref.stride_of(i, stride)
            )
            branch = ref.neuron(f"{block}.lif{i}", current)
        if f"{block}.shortcut.conv.weight" in ref.weights:
            current = ref.conv_bn(f"{block}.shortcut.conv", f"{block}.shortcut.bn", x, stride)
            shortcut = ref.neuron(f"{block}.shortcut.lif", current)
        x = JOINS[join](branch, shortcut)
    return ref.classify(x)


def spiking_resnet_step(ref: Reference, images: Tensor) -> Tensor:
    x = spiking_stem(ref, images)
    for block, stride in blocks(ref, 1):
        branch = shortcut = x
        for i in range(1, ref.convs + 1):
            branch = ref.conv_bn(
                f"{block}.conv{i}", f"{block}.bn{i}", branch, ref.stride_of(i, stride)
            )
            if i < ref.convs:
                branch = ref.neuron(f"{block}.lif{i}", branch)
        if f"{block}.shortcut.conv.weight" in ref.weights:
            shortcut = ref.conv_bn(f"{block}.shortcut.conv", f"{block}.shortcut.bn", x, stride)
        x = ref.neuron(f"{block}.lif{ref.convs}", branch + shortcut)
    return ref.classify(x)


def ms_step(ref: Reference, images: Tensor, deep: bool) -> Tensor:
    if deep:
        x = ref.conv("stem.conv2", ref.conv("stem.conv1", images, 2))
        x = ref.conv_bn("stem.conv3", "stem.bn", x)
    else:
        x = ref.conv_bn("stem.conv", "stem.bn", images, 2)
    for block, stride in blocks(ref, 2):
        branch = shortcut = x
        for i, step in ((1, stride), (2, 1)):
            branch = ref.conv_bn(
                f"{block}.conv{i}", f"{block}.bn{i}", ref.neuron(f"{block}.lif{i}", branch), step
            )
        if f"{block}.shortcut.conv.weight" in ref.weights:
            pooled = F.avg_pool2d(x, stride) if deep else x
            shortcut = ref.conv_bn(
                f"{block}.shortcut.conv", f"{block}.shortcut.bn", pooled, 1 if deep else stride
            )
        x = branch + shortcut
    return ref.classify(ref.neuron("head.lif", x))


@pytest.fixture
def compare(pixels: Callable[..., Tensor], record: Callable[..., Any]) -> Callable[..., None]:
    def compare(model: DANet, ref: Reference, step: Callable[[Reference, Tensor], Tensor]) -> None:
        images = pixels(2, 1, 32, 32) * 2
        calls = record(model)
        logits = model(images)
        torch.testing.assert_close(ref.run(step, images), logits)
        assert calls.keys() == ref.spikes.keys()
        for name, spikes in ref.spikes.items():
            assert torch.equal(calls[name][0][1], torch.cat(spikes)), name
        assert (
            0.02
            < torch.cat([s.flatten() for made in ref.spikes.values() for s in made]).mean()
            < 0.9
        )

    return compare


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("join", JOINS)
def test_sew_resnet(
    join: str, bottleneck: bool, exact: Callable[..., DANet], compare: Callable[..., None]
) -> None:
    model = exact(**SMALL, **IF, order="c", join=join, stem="sew", bottleneck=bottleneck)
    compare(
        model,
        Reference(model, decay=1.0, fires=lambda v: v >= 1.0),
        lambda ref, x: sew_step(ref, x, join),
    )


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
def test_spiking_resnet(
    bottleneck: bool, exact: Callable[..., DANet], compare: Callable[..., None]
) -> None:
    model = exact(**SMALL, **IF, order="post", stem="sew", bottleneck=bottleneck)
    compare(model, Reference(model, decay=1.0, fires=lambda v: v >= 1.0), spiking_resnet_step)


@pytest.mark.parametrize("deep", [False, True], ids=["18", "104"])
def test_ms_resnet(deep: bool, exact: Callable[..., DANet], compare: Callable[..., None]) -> None:
    words = {"stem": "ms104", "down": "pool"} if deep else {"stem": "ms"}
    neuron = {"beta": 0.25, "threshold": 0.5, "surrogate": "rectangle"}
    model = exact(**SMALL | words, **neuron, order="a", shortcut_reads="stream")
    compare(
        model,
        Reference(model, decay=0.25, fires=lambda v: v > 0.5),
        lambda ref, x: ms_step(ref, x, deep),
    )


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("spiking-resnet18-t4.in1k", IF | {"order": "post", "stem": "sew"}),
        (
            "sew-resnet50-t4.in1k",
            IF | {"order": "c", "join": "add", "stem": "sew", "bottleneck": True},
        ),
        ("sew-resnet18iand-t4.in1k", IF | {"order": "c", "join": "iand", "stem": "sew"}),
        (
            "sew-resnet20-t4.fmnist",
            IF | {"order": "c", "join": "add", "stem": "small", "widths": (16, 32, 64)},
        ),
        (
            "ms-resnet34-t6.in1k",
            {"order": "a", "stem": "ms", "down": "stride", "shortcut_reads": "stream", "steps": 6},
        ),
        (
            "ms-resnet104-t4.in1k",
            {"order": "a", "stem": "ms104", "down": "pool", "beta": 0.25, "threshold": 0.5},
        ),
    ],
)
def test_names_mean_the_networks_tested_above(name: str, fields: dict[str, Any]) -> None:
    spec = ModelSpec.parse(name)
    config = spec.config(DATASETS[spec.dataset or ""])
    assert config["links"] is False
    assert {key: config[key] for key in fields} == fields


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((f"{family}18-t4.in1k", 11_689_512) for family in ("spiking-resnet", "sew-resnet")),
        *((f"{family}34-t4.in1k", 21_797_672) for family in ("spiking-resnet", "sew-resnet")),
        *((f"{family}50-t4.in1k", 25_557_032) for family in ("spiking-resnet", "sew-resnet")),
        *((f"{family}101-t4.in1k", 44_549_160) for family in ("spiking-resnet", "sew-resnet")),
        *((f"{family}152-t4.in1k", 60_192_808) for family in ("spiking-resnet", "sew-resnet")),
        ("sew-resnet18and-t4.in1k", 11_689_512),
        ("ms-resnet18-t4.in1k", 11_693_736),
        ("ms-resnet34-t4.in1k", 21_801_896),
        ("ms-resnet104-t4.in1k", 77_350_504),
    ],
)
def test_parameter_counts(name: str, expected: int) -> None:
    with torch.device("meta"):
        model: nn.Module = zoo.create(name)
    assert sum(p.numel() for p in model.parameters()) == expected
