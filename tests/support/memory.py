"""Memory that an operation in torch holds on to."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["bytes_kept"]


def bytes_kept(run: Callable[[], Tensor]) -> int:
    """Return how many bytes more are allocated after `run` than before it, its result included."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = run()
    assert result.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.function_events)
