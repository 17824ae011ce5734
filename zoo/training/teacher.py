"""The teacher that a network is distilled from."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import zoo
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, first_line
from zoo.training.train import Teacher

__all__ = ["load_teacher"]


def load_teacher(word: str, data: DatasetSpec, device: torch.device) -> Teacher:
    """Return a teacher of networks on `data`, in eval mode on `device`.

    `word` is a model of the zoo (a name or a folder), or `module:function`, whose function returns
    any `nn.Module` from normalised images to logits `[B, K]`. Raises `ConfigError` for a teacher
    that cannot be built, or that was trained on other images.
    """
    module, _, function = word.partition(":")
    teacher: nn.Module
    if function and not Path(word).exists():
        teacher = _build(word, module, function)
    else:
        teacher = zoo.load(word)
        _check_fits(word, teacher, data)
    return teacher.to(device).eval().requires_grad_(False)


def _build(word: str, module: str, function: str) -> nn.Module:
    """Return the module that a function of the user's own returns."""
    try:
        build: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module of the user's may raise anything
        raise ConfigError(f"teacher {word!r} cannot be imported: {first_line(error)}") from None
    teacher = build()
    if not isinstance(teacher, nn.Module):
        raise ConfigError(
            f"teacher {word!r} returned {type(teacher).__name__}, not a torch.nn.Module"
        )
    return teacher


def _check_fits(word: str, teacher: DANet, data: DatasetSpec) -> None:
    """Raise `ConfigError` for a model of other classes, or of other images, than `data`."""
    classes, channels = teacher.config.num_classes, teacher.config.in_channels
    if classes != data.num_classes:
        raise ConfigError(
            f"teacher {word!r} tells {classes} classes; {data.title} has {data.num_classes}"
        )
    if channels != data.channels:
        raise ConfigError(
            f"teacher {word!r} takes {channels} channels; {data.title} has {data.channels}"
        )
    trained_on = teacher.origin.data if teacher.origin else data
    for number, (theirs, ours) in enumerate(zip(trained_on.classes, data.classes, strict=False)):
        if theirs != ours:
            raise ConfigError(
                f"teacher {word!r} calls class {number} {theirs!r}; {data.title} calls it {ours!r}"
            )
    if (trained_on.mean, trained_on.std) != (data.mean, data.std):
        raise ConfigError(
            f"teacher {word!r} takes images of mean {list(trained_on.mean)} "
            f"and std {list(trained_on.std)}; "
            f"those of {data.title} have {list(data.mean)} and {list(data.std)}"
        )
