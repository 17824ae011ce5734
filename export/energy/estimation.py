"""`estimate`: count what a network does on images, price it, and hand over a report that renders
itself.

Shapes: `N` images, `T` time steps, `B` images of a batch, `K` classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import torch
from rich.console import Console
from torch import Tensor

import zoo
from export.energy import parallel
from export.energy.conventions import find_convention
from export.energy.counting.count import count
from export.energy.executors import Executor, executor
from export.energy.output import html, json_csv, terminal
from export.energy.profiles import find_profiles
from export.energy.report import EnergyCounts
from export.energy.totals import Totals
from export.inputs import check_normalised
from zoo.danet import DANet
from zoo.errors import InputError

__all__ = ["Batches", "EnergyReport", "estimate"]

# normalised images or frames, and their labels [B]
Batches = Iterable[tuple[Tensor, Tensor | None]]


class EnergyReport(EnergyCounts):
    """Exact counts and their energy, rendered for terminal, machine and browser."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`, as `report.schema.json` describes them. Counts are exact
        sums over all images; energies are picojoules an image.
        """
        return json_csv.to_json(self)

    def to_csv(self) -> str:
        """A line for each layer: counts over all images, and picojoules an image on every profile."""
        return json_csv.to_csv(self)

    def to_html(self) -> str:
        """One page that needs nothing else."""
        return html.render([self])

    def print(self, console: Console) -> None:
        """The costliest layers and the totals."""
        terminal.render(self, console)


def estimate(
    model_or_graph: "DANet | nir.NIRGraph | str | Path | Executor",
    images: Tensor | Batches,
    labels: Tensor | Sequence[int] | None = None,
    *,
    convention: str = "exact",
    profile: str | Path | Sequence[str | Path] = (),
    steps: int | None = None,
    dt: float | None = None,
    batch: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> EnergyReport:
    """Count what a network does on images, and price it.

    `model_or_graph`: a model, a NIR graph, or a file `.onnx` or `.nir`. `images`: normalised, `[N,
    ...]`, or frames `[T, N, ...]` for a network that takes such; or batches of them with labels, of
    which only integers are kept. `profile`: names, or `.toml` files of your own (all shipped ones
    by default). `steps`: T, and `dt`: seconds a step, of a graph that does not say it. `progress`:
    given the images done.

    In processes that `torchrun` started, a tensor of images is split between them, and all of them
    return the same report; batches are taken as the part of the process that gives them.

    Raises `ExportError` or `InputError` for a network that cannot be counted or images that it
    cannot take, `ConfigError` for an unknown convention or profile.
    """
    chosen = find_convention(convention)
    words = [profile] if isinstance(profile, str | Path) else profile
    profiles = tuple(find_profiles([str(word) for word in words]).values())
    like = images if isinstance(images, Tensor) else None
    if isinstance(model_or_graph, Executor):
        if steps is not None or dt is not None:
            raise InputError(
                "steps and dt are for a graph or a file: an executor has been given its own"
            )
        run = model_or_graph
    else:
        run = executor(model_or_graph, steps=steps, like=like, dt=dt)
    if isinstance(images, Tensor):
        images = _batches(run, images, labels, run.batch if batch is None else batch)
    elif labels is not None or batch is not None:
        raise InputError(
            "labels and batch are for a tensor of images: batches have labels, and a size, of their own"
        )
    totals, right, labelled = _count(run, images, progress)
    if not totals.images:
        raise InputError("there are no images to count")
    return EnergyReport(
        source=run.source,
        images=totals.images,
        accuracy=right / labelled if labelled == totals.images else None,
        convention=chosen,
        profiles=profiles,
        layers=tuple(totals.layers),
        tallies=totals.tallies(),
        versions={
            "danet-zoo": zoo.__version__,
            **{name: version(name) for name in ("torch", "snntorch", "nir", "numpy")},
        },
    )


def _count(
    run: Executor, batches: Batches, progress: Callable[[int], None] | None
) -> tuple[Totals, int, int]:
    """Counts summed over all processes, and how many labelled images were classified correctly, and
    how many there were.
    """
    totals = Totals(run.source.steps)
    right = labelled = 0
    for x, labels in batches:
        if run.source.data:
            check_normalised(x.numpy(force=True), run.source.data)
        logits, spikes = run.run(x)
        if labels is not None:
            right += int((logits.argmax(1) == labels.cpu()).sum())
            labelled += len(labels)
        totals.add(
            count(run.layers, spikes),
            {name: spikes.pixels[name].sum((1, 2, 3)) for name in run.neurons},
        )
        if progress:
            progress(totals.images)
    return parallel.gather(totals, right, labelled)


def _batches(
    run: Executor, images: Tensor, labels: Tensor | Sequence[int] | None, batch: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """This process's part."""
    labels = None if labels is None else torch.as_tensor(labels)
    axis = 0 if run.entry.static else 1
    given = f"images {list(images.shape)}, labels {'none' if labels is None else list(labels.shape)}, batch {batch}"
    if (
        images.dim() < axis + 2
        or (labels is not None and labels.shape != images.shape[axis : axis + 1])
        or batch < 1
    ):
        raise InputError(
            f"{given}: expected [N, ...] or [T, N, ...], a label for each image, and a batch of at least one"
        )
    mine = parallel.rank_range(images.shape[axis])
    for start in range(mine.start, mine.stop, batch):
        part = slice(start, min(start + batch, mine.stop))
        yield images[(slice(None),) * axis + (part,)], None if labels is None else labels[part]
