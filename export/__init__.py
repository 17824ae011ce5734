"""What a model becomes: a NIR graph, an ONNX file, a verification, an energy figure.

    estimate(model_or_graph, images)    what it does on images, counted and priced

`export` imports `zoo`, never the other way, and nothing is imported before it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.energy import EnergyReport, estimate

__all__ = ["EnergyReport", "estimate"]

PROJECT = "danet-zoo"  # by which the command tells this package from another of the same name


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import export.energy

    return getattr(export.energy, name)
