"""What autograd keeps of a network in training: less than torch would keep, and enough for the same
gradients.

* The spikes that a `Lif` fired are kept once, as bytes, for all modules that read them
(`note_spikes`, `kept_as_bytes`). * The currents that a BatchNorm made are not kept, as they can be
computed again from what it read (`call_norm`, `normalised_from`).

Both are notes on a tensor, an attribute that any operation on the tensor loses, and that a change
in place makes void. A note says what a module's own forward read and returned, so none is made
where a hook may come between.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

__all__ = [
    "call_norm",
    "is_bare",
    "is_recorded",
    "is_transformed",
    "kept_as_bytes",
    "normalised_from",
    "note_spikes",
]

BYTES = "_danet_spikes_as_bytes"
NORMALISED = "_danet_normalised_from"

# what a BatchNorm read, its weight, its bias, its epsilon
Source = tuple[Tensor, Tensor | None, Tensor | None, float]


def is_transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work, which take no function that
    has a backward pass alone.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_recorded(module: nn.Module) -> bool:
    """Whether autograd as it usually is keeps what `module` needs in a backward pass of training."""
    return (
        module.training
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not is_transformed()
    )


def is_bare(module: nn.Module) -> bool:
    """Whether to call `module` is to call the forward of its class: nobody hooked or replaced it."""
    own = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    everywhere: bool = _has_any_global_hook()  # type: ignore[no-untyped-call]  # torch's own
    return not (any(own) or everywhere or "forward" in vars(module))


def call_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(x)`, with a note of what it was made from, where a plain BatchNorm normalises by the
    batch.

    The class is torch's own, as tools count and fuse BatchNorms by their exact type: a parametrised
    norm has another one.
    """
    current: Tensor = norm(x)
    if type(norm) is nn.BatchNorm2d and is_recorded(norm) and is_bare(norm):
        _note(current, NORMALISED, (x, norm.weight, norm.bias, norm.eps))
    return current


def normalised_from(current: Tensor) -> Source | None:
    """From what `F.batch_norm(..., training=True)` computes `current` again, if that was noted and
    still holds.
    """
    source: Source | None = _noted(current, NORMALISED)
    return source


def note_spikes(spikes: Tensor, fired: Tensor, height: Tensor) -> None:
    """Note that `spikes` are `fired * height`, where `fired` is uint8 of the same shape and
    strides.
    """
    _note(spikes, BYTES, (fired, height))


def kept_as_bytes(x: Tensor) -> AbstractContextManager[object]:
    """Inside, autograd keeps `x` as bytes for the backward pass, if it is what a `Lif` just fired.

    All readers of one neuron's spikes share one copy, which costs a quarter (float32) or half
    (bfloat16) of what each of them would keep. Anything else is kept as it is, a view of other
    strides or another dtype too.
    """
    kept = _noted(x, BYTES)
    if kept is None or not torch.is_grad_enabled():
        return nullcontext()
    fired, height = kept
    # Autograd holds on to `pack`, which therefore must not hold on to `x`.
    pointer, layout = x.data_ptr(), (x.dtype, x.shape, x.stride(), x._version)

    def pack(saved: Tensor) -> tuple[Tensor, int] | torch.dtype:
        found = (saved.dtype, saved.shape, saved.stride(), saved._version)
        return (
            saved.dtype
            if found == layout and saved.data_ptr() == pointer
            else (saved, saved._version)
        )

    def unpack(packed: tuple[Tensor, int] | torch.dtype) -> Tensor:
        if isinstance(packed, torch.dtype):
            # not a product of the two, which would convert into a third tensor
            spikes: Tensor = fired.to(packed).mul_(height)
            return spikes
        saved, version = packed
        # torch itself does not check what went through such functions
        if saved._version != version:
            raise RuntimeError(
                f"a tensor of shape {list(saved.shape)} that the gradient needs was changed in place after the forward pass "
                f"(version {saved._version}, expected {version}): change a copy, or call backward before"
            )
        return saved

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _note(x: Tensor, name: str, value: tuple[Any, ...]) -> None:
    setattr(x, name, (value, _versions(x, value)))


def _noted(x: Tensor, name: str) -> Any:
    """What was noted of `x`, unless it or a tensor of the note was changed in place since."""
    value, versions = getattr(x, name, (None, None))
    return value if value is not None and versions == _versions(x, value) else None


def _versions(*values: Any) -> list[Any]:
    return [
        v._version if isinstance(v, Tensor) else _versions(*v) if isinstance(v, tuple) else None
        for v in values
    ]
