"""An exponential moving average of a network."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["ModelEma"]


class ModelEma:
    """The average of every weight and every BatchNorm statistic, `values`, as `state_dict` names
    them; empty if `decay` is 0.

    Early on, where there is little to average, the decay is `(1 + step) / (10 + step)`.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {}
        if decay:
            self.values = {key: value.detach().clone() for key, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the network after `step`."""
        if not self.values:
            return
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        now = net.state_dict()
        plain: list[tuple[Tensor, Tensor]] = []
        sharded: list[tuple[Tensor, Tensor]] = []
        for key, value in self.values.items():
            if value.is_floating_point():
                (sharded if isinstance(value, DTensor) else plain).append((value, now[key]))
            else:
                value.copy_(now[key])
        # all of a kind at once: one launch on a GPU instead of one for each tensor
        for pairs in (plain, sharded):
            if pairs:
                torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], share)
