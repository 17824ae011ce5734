"""The optimiser of a recipe: groups of parameters, and the learning rate of each step."""

import math
from typing import Any

import torch
from torch import nn

from zoo.danet import DANet
from zoo.training.config import Recipe
from zoo.training.synops import convolutions_of_spikes

__all__ = ["Optimizer", "learning_rate", "parameter_groups"]


class Optimizer:
    """SGD with Nesterov momentum, whose learning rate follows from the global step."""

    def __init__(self, model: DANet, recipe: Recipe) -> None:
        groups = parameter_groups(model, recipe)
        self.factors = [group.pop("factor") for group in groups]
        self.sgd = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True)

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""
        rate: float = self.sgd.param_groups[0]["lr"]
        return rate

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of each group to `rate` times the group's factor."""
        for group, factor in zip(self.sgd.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor


def learning_rate(recipe: Recipe, step: int, per_epoch: int, total: int) -> float:
    """Return the learning rate of a global step, of `total` steps in all."""
    warmup = recipe.warmup_epochs * per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    if recipe.schedule == "linear":
        return recipe.lr * (1 - done)
    return recipe.lr * (0.5 * (1 + math.cos(math.pi * done)))


def parameter_groups(model: DANet, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters in groups by weight decay and by the factor on their learning rate.

    Parameters of two or more dimensions alone decay, and of these not what Grad R prunes, which its
    prior moves. The biases of BatchNorm are a group of their
    own if the recipe gives them another rate.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    norm_biases = {
        id(module.bias)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and recipe.norm_bias_rate != 1
    }
    rewired = recipe.prune and recipe.prune_method == "gradr"
    thetas = {id(c.weight) for c in convolutions_of_spikes(model).values()} if rewired else set()
    weights = [p for p in parameters if p.dim() > 1 and id(p) not in thetas]
    others = [p for p in parameters if p.dim() <= 1 or id(p) in thetas]
    vectors = [p for p in others if id(p) not in norm_biases]
    biases = [p for p in parameters if id(p) in norm_biases]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay, "factor": 1.0},
        {"params": vectors, "weight_decay": 0.0, "factor": 1.0},
        {"params": biases, "weight_decay": 0.0, "factor": recipe.norm_bias_rate},
    ]
    # Checkpoints of runs without such a rate have two groups: an empty third would not load.
    return groups if norm_biases else groups[:2]
