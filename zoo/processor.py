"""The processor of this machine: its name, which stands beside every figure of time, and whether it
computes in bfloat16.
"""

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["has_bfloat16", "processor"]

# Linux's words for instructions that multiply in it, the last on Arm
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def processor() -> str:
    """As in `AMD EPYC, 2 cores`: what the system calls it, and how many of its cores there are to
    use.
    """
    names = _cpuinfo("model name")
    return (
        f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()
    )


def has_bfloat16(device: "torch.device") -> bool:
    """Tell whether a device multiplies in bfloat16 itself; a processor that does not is about ten
    times slower in it.

    Of a processor this is known on Linux alone; elsewhere it is taken for one that does not.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = [*_cpuinfo("flags"), *_cpuinfo("Features")]  # on x86, on Arm
    return bool(flags) and not BFLOAT16.isdisjoint(flags[0].split())


def _cpuinfo(key: str) -> list[str]:
    """The values of a key in Linux's description of the processor, one for each core."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return [
        value.strip()
        for name, _, value in (line.partition(":") for line in lines)
        if name.strip() == key
    ]
