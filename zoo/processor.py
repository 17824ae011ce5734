"""What computes: the name of this machine's processor, which every figure of time has beside it."""

import platform
from pathlib import Path

__all__ = ["processor"]


def processor() -> str:
    """As in `AMD EPYC, 2 cores`: what the system calls it, and how many of its cores there are to use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()
