"""Executors run a network and hand back spike maps. This one runs a model in torch.

It adds one reduction per neuron layer to a plain forward pass, at once, so that no spike train is kept.

Shapes: `T` time steps, `B` images, `N` images in all, `K` classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from export.energy.spikes import SpikeMaps
from export.nir import node_name
from zoo.blocks import And, IAnd
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.neurons import Lif

__all__ = ["run_torch"]


def run_torch(model: DANet, images: Tensor, *, batch: int = 32) -> Iterator[tuple[Tensor, SpikeMaps]]:
    """For every batch of the normalised still images `[N, C, H, W]`, its logits `[B, K]` and its spikes. Runs in eval mode, on
    the model's device."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for start in range(0, len(images), batch):
            yield _run_batch(model, images[start : start + batch].to(device))
    finally:
        model.train(training)


def _run_batch(model: DANet, images: Tensor) -> tuple[Tensor, SpikeMaps]:
    counted: dict[str, Tensor] = {}
    with torch.inference_mode(), _hooked(model, counted):
        logits = model(images)
        maps = SpikeMaps(model.config.steps, {}, {})
        for name, spikes in counted.items():  # [T, B, H, W]
            events = spikes.round()
            if not torch.equal(events, spikes):
                raise InputError(f"the neurons {name!r} emit values that are no spikes: only neurons of 0 and 1 can be counted")
            events = events.to(torch.int64)
            maps.pixels[name] = events.sum(0).cpu().numpy()
            maps.per_step[name] = events.sum((2, 3)).cpu().numpy()
    return logits.cpu(), maps


@contextmanager
def _hooked(model: DANet, counted: dict[str, Tensor]) -> Iterator[None]:
    """Sums over channels, in float32: exact, as no layer has 2^24 channels."""

    def hook(name: str) -> Any:
        def reduce(module: nn.Module, args: Any, spikes: Tensor) -> None:
            counted[name] = spikes.sum(1, dtype=torch.float32).reshape(model.config.steps, -1, *spikes.shape[2:])

        return reduce

    # A max pool and an AND are of spikes (`export.nir` refuses any other), and so layers of neurons in the graph.
    kinds = Lif | nn.MaxPool2d | And | IAnd
    neurons = [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]
    handles = [module.register_forward_hook(hook(node_name(path))) for path, module in neurons]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
