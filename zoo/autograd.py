"""What autograd keeps of a network in training: less than torch would, for the same gradients.

- The spikes that a `Lif` fired are kept once, as bytes, for all layers that read them
  (`note_spikes`, `kept_as_bytes`).
- The currents that a BatchNorm made are not kept, as they can be computed again from what it read
  (`call_norm`, `normalised_from`).
- An average pool keeps nothing of its input (`average_pool`).
- A block may keep its inputs alone, and be computed again in the backward pass (`recomputed`).

The first two are notes on a tensor, an attribute that any operation on the tensor loses, and that a
change in place makes void. A note says what a module's own forward read and returned, so none is
made where a hook may come between.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.checkpoint import checkpoint

__all__ = [
    "NormInput",
    "average_pool",
    "call_norm",
    "is_bare",
    "is_recorded",
    "is_transformed",
    "kept_as_bytes",
    "normalised_from",
    "note_spikes",
    "recomputed",
]

# The attributes of a tensor that hold its notes.
SPIKES_NOTE = "_danet_spikes_as_bytes"
NORM_NOTE = "_danet_normalised_from"


class NormInput(NamedTuple):
    """The tensors from which `F.batch_norm(..., training=True)` computes another."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


def is_transformed() -> bool:
    """Return whether `torch.func` or forward-mode differentiation is at work.

    They take no function that has a backward pass alone.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_recorded(module: nn.Module) -> bool:
    """Return whether plain autograd keeps what `module` needs in a backward pass of training."""
    return (
        module.training
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not is_transformed()
    )


def is_bare(module: nn.Module) -> bool:
    """Return whether to call `module` is to call its class's forward: no hook, no replacement."""
    own = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    everywhere: bool = _has_any_global_hook()  # type: ignore[no-untyped-call]  # torch's own
    return not (any(own) or everywhere or "forward" in vars(module))


def call_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Return `norm(x)`, with a note of its input where a plain BatchNorm normalises by the batch.

    The class is torch's own, as tools count and fuse BatchNorms by their exact type: a parametrised
    norm has another one.
    """
    current: Tensor = norm(x)
    if type(norm) is nn.BatchNorm2d and is_recorded(norm) and is_bare(norm):
        _note(current, NORM_NOTE, NormInput(x, norm.weight, norm.bias, norm.eps))
    return current


def normalised_from(current: Tensor) -> NormInput | None:
    """Return what a BatchNorm made `current` from, if that was noted and still holds."""
    norm: NormInput | None = _noted(current, NORM_NOTE)
    return norm


def note_spikes(spikes: Tensor, spike_bytes: Tensor, spike_height: Tensor) -> None:
    """Note that `spikes` are `spike_bytes`, uint8 of the same shape and strides, times a height."""
    _note(spikes, SPIKES_NOTE, (spike_bytes, spike_height))


def kept_as_bytes(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autograd keeps `x` as bytes, if it is what a `Lif` just fired.

    All readers of one neuron's spikes share one copy, which costs a quarter (float32) or half
    (bfloat16) of what each of them would keep. Anything else is kept as it is, a view of other
    strides or another dtype too.
    """
    note = _noted(x, SPIKES_NOTE)
    if note is None or not torch.is_grad_enabled():
        return nullcontext()
    spike_bytes, spike_height = note
    # Autograd holds on to `pack`, which therefore must not hold on to `x`.
    pointer, layout = x.data_ptr(), _layout(x)

    def pack(saved: Tensor) -> tuple[Tensor, int] | torch.dtype:
        if _layout(saved) == layout and saved.data_ptr() == pointer:
            return saved.dtype
        return saved, saved._version

    def unpack(packed: tuple[Tensor, int] | torch.dtype) -> Tensor:
        if isinstance(packed, torch.dtype):
            # Not a product of the two, which would convert into a third tensor.
            spikes: Tensor = spike_bytes.to(packed).mul_(spike_height)
            return spikes
        saved, version = packed
        # Torch itself does not check what went through such functions.
        if saved._version != version:
            raise RuntimeError(
                f"a tensor of shape {list(saved.shape)} that the gradient needs was changed in "
                f"place after the forward pass (version {saved._version}, expected {version}): "
                "change a copy, or call backward before"
            )
        return saved

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _layout(x: Tensor) -> tuple[torch.dtype, torch.Size, tuple[int, ...], int]:
    return x.dtype, x.shape, x.stride(), x._version


def _note(x: Tensor, name: str, value: tuple[Any, ...]) -> None:
    setattr(x, name, (value, _versions(x, value)))


def _noted(x: Tensor, name: str) -> Any:
    """Return the note of `x`, unless it or a tensor of the note was changed in place since."""
    value, versions = getattr(x, name, (None, None))
    return value if value is not None and versions == _versions(x, value) else None


def _versions(*values: Any) -> list[Any]:
    return [
        v._version if isinstance(v, Tensor) else _versions(*v) if isinstance(v, tuple) else None
        for v in values
    ]


def average_pool(x: Tensor, window: int, padding: tuple[int, int]) -> Tensor:
    """Return `F.avg_pool2d(x, window, padding=padding)`, with the same gradient for less memory."""
    apply = _AveragePool.apply  # autograd's apply is untyped
    averages: Tensor = apply(x, window, padding)  # type: ignore[no-untyped-call]
    return averages


class _AveragePool(torch.autograd.Function):
    """`F.avg_pool2d` with a gradient that is written once: torch's fills it with zeros, then adds.

    It keeps nothing of its input.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int, padding: tuple[int, int]) -> Tensor:
        ctx.size, ctx.window, ctx.padding = x.shape[-2:], window, padding
        return F.avg_pool2d(x, window, padding=padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        spread = F.interpolate(grad / ctx.window**2, scale_factor=ctx.window, mode="nearest")
        (height, width), (top, left) = ctx.size, ctx.padding
        return spread[:, :, top : top + height, left : left + width], None, None


def recomputed(block: nn.Module, forward: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Return `forward(*inputs)`, of which autograd keeps the inputs and computes the rest again.

    The BatchNorms of `block` count the batch once.
    """
    contexts = (nullcontext(), _UncountedBatch(block))
    out: Tensor = checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: contexts)
    return out


class _UncountedBatch:
    """A context in which the BatchNorms of `block` normalise by their batch without counting it.

    They counted it in the forward pass.
    """

    def __init__(self, block: nn.Module) -> None:
        batch_norm = nn.modules.batchnorm._BatchNorm
        self.norms = [module for module in block.modules() if isinstance(module, batch_norm)]
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        # Not `track_running_stats = False`, with which autograd keeps other tensors than the first
        # time.
        for norm in self.norms:
            batches = norm.num_batches_tracked
            self.before.append((norm.momentum, None if batches is None else batches.clone()))
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and batches is not None:
                norm.num_batches_tracked.copy_(batches)
        self.before.clear()
