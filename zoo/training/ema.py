"""An exponential moving average of a network's weights."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["ModelEma"]


class ModelEma:
    """Averages every weight and every BatchNorm statistic over the steps of a training.

    `values` are named as in `state_dict`, and empty if `decay` is 0. Early on, where there is
    little to average, the decay is `(1 + step) / (10 + step)`.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {}
        if decay:
            self.values = {key: value.detach().clone() for key, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights of `net` after `step`; counters are copied."""
        if not self.values:
            return
        new_share = 1 - min(self.decay, (1 + step) / (10 + step))
        current = net.state_dict()
        plain: list[tuple[Tensor, Tensor]] = []
        sharded: list[tuple[Tensor, Tensor]] = []
        for key, value in self.values.items():
            if value.is_floating_point():
                (sharded if isinstance(value, DTensor) else plain).append((value, current[key]))
            else:
                value.copy_(current[key])
        # All tensors of a kind at once: one launch on a GPU instead of one for each tensor.
        for pairs in (plain, sharded):
            if pairs:
                averages, weights = zip(*pairs, strict=True)
                torch._foreach_lerp_(averages, weights, new_share)
