"""`estimate`: count what a network does on images, and price it.

Shapes: `N` images, `T` time steps, `B` images of a batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import nir
import torch
from torch import Tensor

import zoo
from export.energy import parallel
from export.energy.conventions import EXACT, find_convention
from export.energy.counting.count import count
from export.energy.devices import find_devices
from export.energy.executors import Executor, executor
from export.energy.report import EnergyReport
from export.energy.totals import Totals
from export.inputs import check_normalised
from zoo.danet import DANet
from zoo.errors import ConfigError, InputError

__all__ = ["Batches", "estimate"]

# normalised images or frames, and their labels [B]
Batches = Iterable[tuple[Tensor, Tensor | None]]
Names = str | Path | Sequence[str | Path]


def estimate(
    model_or_graph: "DANet | nir.NIRGraph | str | Path | Executor",
    images: Tensor | Batches,
    labels: Tensor | Sequence[int] | None = None,
    *,
    convention: str = EXACT.name,
    device: Names = (),
    profile: Names = (),
    steps: int | None = None,
    dt: float | None = None,
    batch: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> EnergyReport:
    """Count what a network does on images, and price it.

    In processes that `torchrun` started, a tensor of images is split between them, and all of them
    return the same report; batches are taken as the part of the process that gives them.

    Args:
        model_or_graph: a model, a NIR graph, a file `.onnx` or `.nir`, or an executor.
        images: normalised, `[N, ...]`, or frames `[T, N, ...]` for a network that takes such; or
            batches of them with labels, of which only integers are kept.
        labels: one for each image of a tensor.
        convention: how operations are counted, one of `CONVENTIONS`.
        device: names of devices, or `.toml` files of your own; all shipped ones by default.
        profile: another word for `device`.
        steps: T, of a graph that does not say it; a model and an ONNX file know theirs.
        dt: seconds a step, of a graph that does not say it.
        batch: how many images of a tensor are run at once.
        progress: called with the number of images done.

    Raises:
        ExportError, InputError: for a network that cannot be counted or images it cannot take.
        ConfigError: for an unknown convention or device.
    """
    chosen = find_convention(convention)
    devices = tuple(find_devices(_device_names(device, profile)).values())
    if not isinstance(images, Tensor) and hasattr(images, "dtype"):
        raise InputError(
            f"images are a {type(images).__name__}: give a tensor, as torch.from_numpy(images)"
        )
    run = _executor(model_or_graph, images, steps=steps, dt=dt)
    if isinstance(images, Tensor):
        images = _batches(run, images, labels, run.batch if batch is None else batch)
    elif labels is not None or batch is not None:
        what = "batches have labels, and a size, of their own"
        raise InputError(f"labels and batch are for a tensor of images: {what}")
    totals, correct, labelled = _count(run, images, progress)
    if not totals.images:
        raise InputError("there are no images to count")
    packages = ("torch", "snntorch", "nir", "numpy")
    return EnergyReport(
        source=run.source,
        images=totals.images,
        accuracy=correct / labelled if labelled == totals.images else None,
        convention=chosen,
        devices=devices,
        layers=tuple(totals.layers),
        operations=totals.operations(),
        versions={"danet-zoo": zoo.__version__} | {name: version(name) for name in packages},
    )


def _device_names(device: Names, profile: Names) -> list[str]:
    if device and profile:
        raise ConfigError("device and profile are two words for the same: give one of them")
    names = device or profile
    return [str(name) for name in ([names] if isinstance(names, str | Path) else names)]


def _executor(
    model_or_graph: "DANet | nir.NIRGraph | str | Path | Executor",
    images: Tensor | Batches,
    *,
    steps: int | None,
    dt: float | None,
) -> Executor:
    if not isinstance(model_or_graph, Executor):
        like = images if isinstance(images, Tensor) else None
        return executor(model_or_graph, steps=steps, like=like, dt=dt)
    if steps is not None or dt is not None:
        what = "an executor has been given its own"
        raise InputError(f"steps and dt are for a graph or a file: {what}")
    return model_or_graph


def _count(
    run: Executor, batches: Batches, progress: Callable[[int], None] | None
) -> tuple[Totals, int, int]:
    """Return the counts of all processes, and how many of how many labels were predicted."""
    totals = Totals(run.source.steps)
    correct = labelled = 0
    for x, labels in batches:
        if run.source.data:
            check_normalised(x.numpy(force=True), run.source.data)
        logits, spikes = run.run(x)
        if labels is not None:
            correct += int((logits.argmax(1) == labels.cpu()).sum())
            labelled += len(labels)
        step_spikes = {name: spikes.pixels[name].sum((1, 2, 3)) for name in run.neurons}
        totals.add(count(run.layers, spikes), step_spikes)
        if progress:
            progress(totals.images)
    return parallel.gather(totals, correct, labelled)


def _batches(
    run: Executor, images: Tensor, labels: Tensor | Sequence[int] | None, batch: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the batches of this process."""
    labels = None if labels is None else torch.as_tensor(labels)
    axis = 0 if run.entry.static else 1
    label_shape = "none" if labels is None else list(labels.shape)
    one_each = labels is None or labels.shape == images.shape[axis : axis + 1]
    if images.dim() < axis + 2 or not one_each or batch < 1:
        given = f"images {list(images.shape)}, labels {label_shape}, batch {batch}"
        expected = "[N, ...] or [T, N, ...], a label for each image, and a batch of at least one"
        raise InputError(f"{given}: expected {expected}")
    mine = parallel.rank_range(images.shape[axis])
    for start in range(mine.start, mine.stop, batch):
        part = slice(start, min(start + batch, mine.stop))
        yield images[(slice(None),) * axis + (part,)], None if labels is None else labels[part]
