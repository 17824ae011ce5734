"""The spiking ResNets that DANet is compared with, from the same parts: each family is a few words of `DANetConfig`.

    spiking-resnet   Conv-BN-LIF-Conv-BN, add, LIF          as built by Fang et al. 2021 for comparison
    sew-resnet       Conv-BN-LIF-Conv-BN-LIF, then a join   Fang et al., NeurIPS 2021, table 1: ADD, AND, IAND
    ms-resnet        LIF-Conv-BN twice, then add            Hu et al. 2021; the shortcut reads the real-valued stream

None has DA links. Imports no torch.
"""

from typing import Any

__all__ = ["BASELINES", "JUST_BELOW_ONE", "baseline_config"]

# snnTorch fires strictly above the threshold; the largest float32 below one makes it fire at one (SEW, Spiking ResNet).
JUST_BELOW_ONE = 1 - 2**-24

_IF: dict[str, Any] = {"links": False, "down": "stride", "beta": 1.0, "threshold": JUST_BELOW_ONE}
_MS: dict[str, Any] = {"links": False, "down": "stride", "beta": 0.25, "threshold": 0.5, "surrogate": "rectangle"}

BASELINES: dict[str, dict[str, Any]] = {
    "spiking-resnet": _IF | {"order": "post"},
    "sew-resnet": _IF | {"order": "c", "join": "add"},
    "ms-resnet": _MS | {"order": "a", "shortcut_reads": "stream"},
}


def baseline_config(family: str, depth: int, variant: str, *, large_images: bool) -> dict[str, Any]:
    """The fields in which a family differs from `DANetConfig`; `variant` is SEW's join, empty for `add`."""
    config = dict(BASELINES[family])
    if variant:
        config["join"] = variant
    if family == "ms-resnet" and depth == 104:
        config["down"] = "pool"  # the published 104 averages before a shortcut's convolution, and has a deep stem
    if large_images:
        config["stem"] = {"ms-resnet": "ms104" if depth == 104 else "ms"}.get(family, "sew")
    return config
