"""A ResNet with ReLUs, with the names of torchvision's and timm's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ResNet", "lively_ann"]


class _BasicBlock(nn.Module):
    """As torchvision's, with its names."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1:
            conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu2(branch + shortcut)
        return out


class ResNet(nn.Module):
    """An ANN for 32 pixels, with the names of torchvision's and timm's."""

    def __init__(self, blocks: Sequence[int] = (3, 3, 3), widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        before = widths[0]
        for stage, (number, width) in enumerate(zip(blocks, widths, strict=True), 1):
            layers = []
            for index in range(number):
                layers.append(_BasicBlock(before, width, 2 if index == 0 and stage > 1 else 1))
                before = width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits


def lively_ann(ann: ResNet) -> ResNet:
    """Give random weights the statistics that images leave in their BatchNorms."""
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        ann.train()(torch.randn(64, 3, 32, 32))
    return ann.eval()
