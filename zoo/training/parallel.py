"""Training in one process or many.

Accelerate starts them, finds the devices and wraps the network for data parallelism (DDP). What it
leaves open is here: BatchNorm over all processes on CPUs, sharded weights (FSDP2), and full states
of either. Every process has its own part of a batch, its own neurons, and the same weights.
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

__all__ = [
    "SyncNorm",
    "accelerator",
    "full_state_dict",
    "full_tensors",
    "load_full_state_dict",
    "wrap_for_distributed",
]

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def accelerator(*, shard: bool = False) -> "Accelerator":
    """Return the accelerator of this process, as plain Python or torchrun started it.

    Raises `ConfigError` where there is no other process to `shard` with, or no Accelerate.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError:
        raise ConfigError("Accelerate is missing: install danet-zoo[train]") from None
    data_parallel = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    # Accelerate takes each of several processes on a CPU for the only one, unless told of the CPU.
    on_cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[data_parallel])
    if shard and accelerator.num_processes == 1:
        raise ConfigError("--shard needs several processes: start them with torchrun")
    return accelerator


def wrap_for_distributed(net: nn.Module, accelerator: "Accelerator", *, shard: bool) -> nn.Module:
    """Return a module that computes `net` on this process's part of the batch.

    `net` is changed in place: it moves to the device of this process, its BatchNorms are replaced
    by synchronised ones, and with `shard` its parameters are replaced by sharded ones. Build an
    optimiser of its parameters afterwards.
    """
    net.to(accelerator.device)
    if accelerator.num_processes == 1:
        return net
    if accelerator.device.type == "cuda":
        # torch does not type this method.
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    else:
        SyncNorm.convert(net)
    if shard:
        return _shard(net, accelerator)
    wrapped: nn.Module = accelerator.prepare(net)
    return wrapped


def _shard(net: nn.Module, accelerator: "Accelerator") -> nn.Module:
    """Divide the weights of every block, and of what lies outside them, among the processes.

    Accelerate's own plugin for FSDP2 is for GPUs only; without it the tests shard on CPUs too.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # FSDP2 takes no other memory layout of parameters; `to` with one is missing in torch's stub.
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in net.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net


class _SumOverProcesses(torch.autograd.Function):
    """Sums a tensor over all processes, and its gradient likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the sum of every process's `x`."""
        x = x.clone()
        torch.distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the sum of every process's gradient."""
        grad = grad.clone()
        torch.distributed.all_reduce(grad)
        return grad


class SyncNorm(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, on CPUs, where `nn.SyncBatchNorm` refuses."""

    @classmethod
    def convert(cls, net: nn.Module) -> None:
        """Replace every `nn.BatchNorm2d` inside `net`, in its place and with the same name."""
        for parent in list(net.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.BatchNorm2d:
                    setattr(parent, name, cls.sharing(child))

    @classmethod
    def sharing(cls, norm: nn.BatchNorm2d) -> "SyncNorm":
        """Return a synchronised norm that shares the parameters and statistics of `norm`."""
        sync = cls(norm.num_features, norm.eps, norm.momentum)
        sync.weight, sync.bias = norm.weight, norm.bias
        sync.running_mean, sync.running_var = norm.running_mean, norm.running_var
        sync.num_batches_tracked = norm.num_batches_tracked
        return sync.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Return `[B, C, H, W]` normalised by the mean and variance over all processes."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = x.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])
        # torch does not type `apply`.
        totals: Tensor = _SumOverProcesses.apply(sums)  # type: ignore[no-untyped-call]
        total, squares, n = totals.split_with_sizes([x.shape[1], x.shape[1], 1])
        mean = total / n
        variance = (squares / n - mean.square()).clamp_min(0)  # rounding may make it negative
        self._track(mean, variance * n / (n - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of the batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum or 0.0)
        self.running_var.lerp_(variance, self.momentum or 0.0)
        self.num_batches_tracked += 1


def full_tensors(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state without its sharding; all processes have to call this together."""
    return {
        key: value.full_tensor() if isinstance(value, DTensor) else value
        for key, value in values.items()
    }


def full_state_dict(
    net: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> dict[str, Any]:
    """Return the states of network, average and optimiser, as a checkpoint holds them.

    They are the same for one process and for many, so that a run may go on with another number. All
    processes have to call this together.
    """
    return {
        "model": full_tensors(net.state_dict()),
        "average": full_tensors(average),
        "optimizer": get_optimizer_state_dict(net, optimizer, options=FULL),
    }


def load_full_state_dict(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    saved: dict[str, Any],
) -> None:
    """Load what `full_state_dict` returned, sharded as the network is.

    Raises `WeightsError` for the state of another network.
    """
    try:
        set_model_state_dict(net, saved["model"], options=FULL)
        set_optimizer_state_dict(net, optimizer, saved["optimizer"], options=FULL)
        for key, value in average.items():
            value.copy_(_like(saved["average"][key].to(value.device), value))
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise WeightsError(
            f"the checkpoint is not one of this run ({first_line(error)[:100]}): delete it"
        ) from None


def _like(tensor: Tensor, target: Tensor) -> Tensor:
    """Return `tensor` sharded as `target` is."""
    if isinstance(target, DTensor):
        return distribute_tensor(tensor, target.device_mesh, target.placements)
    return tensor
