"""A trace of a network, which says what module feeds which: one recorded forward pass.

Everything between two modules of a zoo network is a module too (sums, pools, the repetition over
time), so the recorded calls are the whole computation, in an order in which it can be repeated.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from export.prepare.neurons import check_modules, check_shapes
from zoo.activity import forward_hooks
from zoo.danet import DANet
from zoo.errors import ExportError
from zoo.neurons import Lif

__all__ = ["INPUT", "Call", "leaves", "trace"]

INPUT = "input"


@dataclass(frozen=True)
class Call:
    """One call of a module."""

    path: str  # the module's dotted name
    module: nn.Module
    inputs: tuple[str, ...]  # the paths whose outputs it read, in the order of its arguments
    in_shape: tuple[int, ...]  # of the first input, [N, C, H, W]
    out_shape: tuple[int, ...]


def leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give path and module of each that computes: those without children, and `Lif`."""
    inside = tuple(path + "." for path, module in model.named_modules() if isinstance(module, Lif))
    for path, module in model.named_modules():
        if isinstance(module, Lif) or not (any(module.children()) or path.startswith(inside)):
            yield path, module


def trace(model: DANet, x: Tensor) -> list[Call]:
    """Return the calls of `model(x)` in the order in which they ran.

    `x` is a still image, `[B, C, H, W]`, or events `[T, B, C, H, W]`. Raises `ExportError` for a
    module that has no exact export.
    """
    check_modules(model)
    calls: list[Call] = []
    producer = {id(x): INPUT}
    # An id is only unique while its tensor lives, so it is forgotten with it.
    forget: list[Any] = []

    def record(path: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        try:
            inputs = tuple(producer[id(a)] for a in args)
        except KeyError:
            raise ExportError(
                f"{path} reads a tensor that no module made: only networks of modules can be "
                "exported"
            ) from None
        calls.append(Call(path, module, inputs, tuple(args[0].shape), tuple(output.shape)))
        key = id(output)
        producer[key] = path
        forget.append(weakref.ref(output, lambda _: producer.pop(key, None)))

    def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
        producer[id(args[0])] = INPUT  # of events, a view with time folded into the batch

    def check(path: str, lif: Lif, args: tuple[Any, ...]) -> None:
        check_shapes(path, lif, tuple(args[0].shape[1:]))

    modules = dict(leaves(model))
    neurons = {path: module for path, module in modules.items() if isinstance(module, Lif)}
    with (
        forward_hooks(modules, lambda path: partial(record, path)),
        forward_hooks(neurons, lambda path: partial(check, path), before=True),
        forward_hooks({"stem": model.stem}, lambda _: begin, before=True),
        torch.inference_mode(),
    ):
        model(x)
    return calls
