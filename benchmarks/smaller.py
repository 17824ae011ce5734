"""Networks that were made smaller, beside those that they come from: top-1 against energy.

    python benchmarks/smaller.py table [--data TAG=SOURCE ...]
    python benchmarks/smaller.py one-shot NAME [--zeros 0.5 0.9] [--data TAG=SOURCE]

`table` prints a table in Markdown of what weights/ holds, and draws a picture for docs/smaller.md:
top-1 of the whole test split, operations and energy of an image on the first 1,000 of it. Loihi has
no price for the multiplications of the stem, which reads pixels, so its energy is that of all
layers behind it.
`one-shot` sets the smallest weights of all convolutions behind the stem to zero, and trains
nothing: the control.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import zoo
from export.energy import EnergyReport, estimate
from export.energy.devices import find_devices
from export.units import joules
from zoo.danet import DANet
from zoo.errors import ZooError
from zoo.images import to_input
from zoo.manifest import WeightsSpec, read_manifest
from zoo.names import ModelSpec
from zoo.processor import processor
from zoo.publishing.plot_style import COLOURS, label_points, new_figure
from zoo.training.evaluate import count_correct
from zoo.training.pruning import threshold, zeros
from zoo.training.run import load_for_evaluation
from zoo.training.synops import convolutions_of_spikes

COUNTED_IMAGES, BATCH = 1_000, 250
PICTURE = Path(__file__).parents[1] / "docs" / "smaller.png"
DEVICES = ("45nm-fp32", "45nm-int8")
CHIP = "loihi1"


@dataclass(frozen=True)
class Row:
    """A network, its top-1, and what was counted on the first test images."""

    name: str
    spec: ModelSpec
    top1: float
    zeros: float
    report: EnergyReport

    @property
    def synops(self) -> float:
        """SynOps of an image."""
        return self.report.total("acs") / self.report.images

    def picojoules(self, device: str) -> float:
        """The energy of an image, on the chip without that of the stem."""
        energy = self.report.energy(find_devices([device])[device])
        if device != CHIP:
            assert energy.total
            return energy.total.typ
        bands = zip(self.report.layers, energy.layers, strict=True)
        behind = [band for layer, band in bands if not layer.name.startswith("stem")]
        assert None not in behind, f"{device} prices not all layers behind the stem"
        return sum(band.typ for band in behind if band)


def counted(model: DANet, source: str | None) -> EnergyReport:
    """Count the first test images of a network's data."""
    split = load_for_evaluation(model.known_origin.data, "test", model.config.steps, source=source)
    batches = []
    for pixels, labels in split.evaluation(BATCH):
        batches.append((to_input(pixels, model.known_origin.data), labels))
        if len(batches) * BATCH >= COUNTED_IMAGES:
            break
    return estimate(model, batches)


def row(entry: WeightsSpec, sources: dict[str, str]) -> Row:
    """Load and count one entry of the manifest."""
    model, spec = zoo.load(entry.name), ModelSpec.parse(entry.name)
    report = counted(model, sources.get(entry.data.tag))
    return Row(entry.name, spec, entry.metrics["top1"], zeros(model), report)


def entries() -> list[WeightsSpec]:
    """Return the networks that were made smaller, and those of the same name but for that."""
    weights = read_manifest().weights.values()
    specs = {entry.name: ModelSpec.parse(entry.name) for entry in weights}
    plain = {(spec.architecture, spec.dataset) for spec in specs.values() if spec.smaller}
    return [
        entry
        for entry in weights
        if (specs[entry.name].architecture, specs[entry.name].dataset) in plain
    ]


def table(rows: list[Row]) -> str:
    """Return a line for each network, after the one that it comes from."""
    head = ["network", "top-1", "zeros", "SynOps", "firing rate", *DEVICES, f"{CHIP}, no stem"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    plain = {(r.spec.architecture, r.spec.dataset): r for r in rows if not r.spec.smaller}
    for r in sorted(rows, key=lambda r: (r.spec.dataset or "", r.spec.smaller)):
        base = plain[r.spec.architecture, r.spec.dataset]
        energies = [
            f"{joules(r.picojoules(d))} ({r.picojoules(d) / base.picojoules(d):.0%})"
            for d in (*DEVICES, CHIP)
        ]
        synops = f"{r.synops / 1e6:.2f} M ({r.synops / base.synops:.0%})"
        cells = [f"`{r.name}`", f"{r.top1:.2%}", f"{r.zeros:.0%}", synops]
        lines.append(f"| {' | '.join([*cells, f'{r.report.mean_rate:.1%}', *energies])} |")
    return "\n".join(lines)


def draw(rows: list[Row]) -> None:
    """Draw top-1 against energy: a panel for each data set and for 45 nm and the chip."""
    tags = sorted({r.spec.dataset or "" for r in rows})
    figure, panels = new_figure(2 * len(tags))
    places = [(tag, device) for tag in tags for device in (DEVICES[0], CHIP)]
    for (tag, device), axes in zip(places, panels, strict=True):
        points = [
            (r.picojoules(device) / 1e6, 100 * r.top1, r.spec.smaller.lstrip("-") or "as trained")
            for r in rows
            if r.spec.dataset == tag
        ]
        axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], color=COLOURS[0])
        behind = ", no stem" if device == CHIP else ""
        axes.set(title=f"{tag} on {device}{behind}", xlabel="energy of an image, µJ")
        axes.set_xlim(0, 1.15 * max(x for x, _, _ in points))
        axes.margins(y=0.25)
        label_points(axes, points)
    panels[0].set_ylabel("top-1, %")
    figure.savefig(PICTURE, metadata={"Software": None})


@torch.no_grad()
def one_shot(name: str, share: float, source: str | None) -> str:
    """Return what is left of a network whose smallest weights are set to zero, as a line."""
    model = zoo.load(name)
    weights = [conv.weight for conv in convolutions_of_spikes(model).values()]
    smallest = threshold([weight.abs() for weight in weights], share)
    for weight in weights:
        weight.mul_(weight.abs() > smallest)
    data = model.known_origin.data
    split = load_for_evaluation(data, "test", model.config.steps, source=source)
    correct, images = count_correct(model, split, data)
    synops = (report := counted(model, source)).total("acs") / report.images
    return f"| {zeros(model):.0%} | {correct / images:.2%} | {synops / 1e6:.2f} M |"


def source(text: str) -> tuple[str, str]:
    """Split `TAG=SOURCE`."""
    tag, equals, place = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not TAG=SOURCE, as cifar10=FOLDER")
    return tag, place


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description="Compare networks that were made smaller.")
    commands = parser.add_subparsers(dest="command", required=True)
    tables = commands.add_parser("table", help="a table and a picture of what weights/ holds")
    control = commands.add_parser("one-shot", help="zeros, and nothing trained")
    control.add_argument("name", help="a trained network of the zoo")
    control.add_argument("--zeros", nargs="+", type=float, default=[0.5, 0.9], help="shares")
    for command in (tables, control):
        text = "where the images of a data set lie"
        command.add_argument(
            "--data", nargs="*", default=[], type=source, metavar="TAG=SOURCE", help=text
        )
    options = parser.parse_args()
    sources = dict(options.data)
    print(f"torch {torch.__version__}, {processor()}\n")
    if options.command == "table":
        if not (smaller := entries()):
            parser.error("no network of weights/ was made smaller")
        rows = [row(entry, sources) for entry in smaller]
        draw(rows)
        print(table(rows))
    else:
        place = sources.get(ModelSpec.parse(options.name).dataset or "")
        print("| zeros | top-1 | SynOps |\n|---|---|---|")
        for share in options.zeros:
            print(one_shot(options.name, share, place))


if __name__ == "__main__":
    try:
        main()
    except ZooError as error:
        sys.exit(f"smaller.py: {error}")
