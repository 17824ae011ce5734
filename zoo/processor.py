"""The name of this machine's processor, and whether it computes in bfloat16.

The name stands beside every figure of time.
"""

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["has_bfloat16", "processor"]

# Linux's flags of processors that multiply in bfloat16; the last one is Arm's.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def processor() -> str:
    """Return the processor's name and its number of usable cores, as in `AMD EPYC, 2 cores`."""
    names = _cpuinfo("model name")
    if names:
        return f"{names[0]}, {len(names)} cores"
    return platform.processor() or platform.machine()


def has_bfloat16(device: "torch.device") -> bool:
    """Tell whether a device multiplies in bfloat16 itself.

    A processor that does not is about ten times slower in it. Of a processor this is known on Linux
    alone; elsewhere it is taken for one that does not.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = [*_cpuinfo("flags"), *_cpuinfo("Features")]  # on x86, on Arm
    return bool(flags) and not BFLOAT16_FLAGS.isdisjoint(flags[0].split())


def _cpuinfo(key: str) -> list[str]:
    """Return the values of a key in Linux's description of the processor, one for each core."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
