"""One process or many. Accelerate starts them, finds the devices and wraps the network for data
parallelism (DDP); here is what it leaves open: BatchNorm over all processes, sharded weights
(FSDP2), and whole states of either.

Every process has its own part of a batch, its own neurons, and the same weights.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from zoo.blocks import Block
from zoo.errors import ConfigError, WeightsError, first_line

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["SyncNorm", "accelerator", "load_state", "spread", "state", "whole"]

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def accelerator(*, shard: bool = False) -> "Accelerator":
    """Of this process, as plain Python or torchrun started it. Raises `ConfigError` where there is
    nobody to `shard` with.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError:
        raise ConfigError("Accelerate is missing: install danet-zoo[train]") from None
    data_parallel = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    # Without being told of the CPU, Accelerate takes each of several processes there for the only
    # one.
    made = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[data_parallel])
    if shard and made.num_processes == 1:
        raise ConfigError("--shard needs several processes: start them with torchrun")
    return made


def spread(net: nn.Module, accelerator: "Accelerator", *, shard: bool) -> nn.Module:
    """`net` on this process's device, taking its part in all processes' work; its parameters may be
    others afterwards.
    """
    net.to(accelerator.device)
    if accelerator.num_processes == 1:
        return net
    if accelerator.device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    else:
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SyncNorm  # the same parameters and statistics, computed together
    if not shard:
        wrapped: nn.Module = accelerator.prepare(net)
        return wrapped
    # Accelerate's own FSDP2 plugin is for GPUs only, and this way the tests shard too.
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 takes no other layout of parameters
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in net.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net


class _Sum(torch.autograd.Function):
    """The sum over all processes, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        torch.distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        torch.distributed.all_reduce(grad)
        return grad


class SyncNorm(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, where torch's `nn.SyncBatchNorm` refuses: on
    CPUs.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = x.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])
        added: Tensor = _Sum.apply(sums)  # type: ignore[no-untyped-call]
        total, squares, n = added.split_with_sizes([x.shape[1], x.shape[1], 1])
        mean = total / n
        variance = (squares / n - mean.square()).clamp_min(0)  # rounding may make it negative
        with torch.no_grad():
            assert (
                self.running_mean is not None
                and self.running_var is not None
                and self.num_batches_tracked is not None
            )
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum or 0.0)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul((self.bias - mean * scale)[:, None, None], x, scale[:, None, None]).to(
            input.dtype
        )


def whole(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state without its sharding; all processes have to ask for it together."""
    return {
        key: value.full_tensor() if isinstance(value, DTensor) else value
        for key, value in values.items()
    }


def state(
    net: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> dict[str, Any]:
    """Everything that goes into a checkpoint; the same for one process and for many, so a run may
    go on with another number.
    """
    return {
        "model": whole(net.state_dict()),
        "average": whole(average),
        "optimizer": get_optimizer_state_dict(net, optimizer, options=WHOLE),
    }


def load_state(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    saved: dict[str, Any],
) -> None:
    """What `state` returned, back into its places. Raises `WeightsError` if it is another
    network's.
    """
    try:
        set_model_state_dict(net, saved["model"], options=WHOLE)
        set_optimizer_state_dict(net, optimizer, saved["optimizer"], options=WHOLE)
        for key, value in average.items():
            new = saved["average"][key].to(value.device)
            value.copy_(
                distribute_tensor(new, value.device_mesh, value.placements)
                if isinstance(value, DTensor)
                else new
            )
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise WeightsError(
            f"the checkpoint is not one of this run ({first_line(error)[:100]}): delete it"
        ) from None
