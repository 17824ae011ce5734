"""Small networks that spike, and a count of their operations that shares nothing with the counter:
torch convolutions with ones.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from zoo.blocks import Add, Block, SamePool
from zoo.danet import DANet, Readout
from zoo.neurons import Lif


def brute_force(model: DANet, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the accumulates of each image by layer.

    Every convolution of the stem is left out: its input is real.
    """
    counts: dict[str, torch.Tensor] = {}
    windows = {
        path.rpartition(".")[0]: m.window
        for path, m in model.named_modules()
        if isinstance(m, SamePool)
    }

    def conv(path: str) -> Callable[..., None]:
        def hook(module: nn.Conv2d, args: Any, output: Any) -> None:
            if path.startswith("stem"):
                return
            events = args[0].double() * windows.get(path.rpartition(".")[0], 1) ** 2
            assert torch.equal(events, events.round())
            ones = torch.ones_like(module.weight, dtype=torch.float64)
            hits = F.conv2d(
                events, ones, None, module.stride, module.padding, module.dilation, module.groups
            )
            counts[path.replace(".", "_")] = (
                hits.unflatten(0, (model.config.steps, -1)).sum((0, 2, 3, 4)).long()
            )

        return hook

    def readout(module: nn.Module, args: Any, output: Any) -> None:
        events = args[0].unflatten(0, (model.config.steps, -1)).sum((0, 2, 3, 4))
        counts["head_fc"] = events.long() * model.config.num_classes

    with hooked(model, nn.Conv2d, conv), hooked(model, Readout, lambda path: readout):
        model(images)
    return counts


def brute_force_adds(model: DANet, images: torch.Tensor) -> torch.Tensor:
    """Additions of all sums, of each image: of elements, or in order c of events."""
    adds: list[torch.Tensor] = []
    identity = {
        f"{path}.add"
        for path, m in model.named_modules()
        if isinstance(m, Block) and m.shortcut is None
    }

    def add(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            # the stream is what others are added to
            added = args[:1] if path in identity else args[1:]
            for value in added:
                value = value if model.config.order == "c" else torch.ones_like(value)
                adds.append(value.unflatten(0, (model.config.steps, -1)).sum((0, 2, 3, 4)))

        return hook

    with hooked(model, Add, add):
        model(images)
    return torch.stack(adds).sum(0).long()


def by_module(model: DANet, image: torch.Tensor) -> tuple[float, int]:
    """Accumulates and MAC of one image by the rules of syops-counter, of what the modules of a
    model read and write.
    """
    accumulates, macs = 0.0, 0

    def operations(module: nn.Module, read: torch.Tensor, written: torch.Tensor) -> int:
        match module:
            case nn.Conv2d():
                return written.numel() * (module.weight[0].numel() + (module.bias is not None))
            case nn.Linear():
                return read.numel() * module.out_features + module.out_features
            case nn.BatchNorm2d():
                return 2 * read.numel()
        return read.numel()

    def hook(path: str) -> Callable[..., None]:
        def add(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal accumulates, macs
            n, values = operations(module, args[0], output), set(args[0].unique().tolist())
            if isinstance(module, Lif):
                accumulates += n
            elif values <= {0.0, 1.0}:
                accumulates += n * args[0].double().mean().item()
            else:
                macs += n

        return add

    kinds = (
        nn.Conv2d
        | nn.Linear
        | nn.BatchNorm2d
        | nn.MaxPool2d
        | nn.AvgPool2d
        | SamePool
        | Readout
        | Lif
    )
    with hooked(model, kinds, hook):
        model(image)
    return accumulates, macs


class hooked:
    """Forward hooks on all modules of a kind, gone on exit."""

    def __init__(self, model: nn.Module, kind: Any, hook: Callable[[str], Any]) -> None:
        self.handles = [
            m.register_forward_hook(hook(path))
            for path, m in model.named_modules()
            if isinstance(m, kind)
        ]
        self.inference = torch.inference_mode()

    def __enter__(self) -> None:
        self.inference.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.inference.__exit__(*error)
        for handle in self.handles:
            handle.remove()
