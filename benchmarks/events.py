"""Measure what events buy: a network of simulated saccades beside one of still images.

    python benchmarks/events.py [--events NAME] [--still NAME] [--data FOLDER]

Prints two tables for docs/events.md, in Markdown: the top-1 after each step of the network of
events, on all test images; and of both networks at several T the top-1, operations and energy of an
image, on every device that prices all that both of them do.
"""

import argparse
from dataclasses import dataclass

import torch

import zoo
from export.energy import EnergyReport, estimate
from export.units import joules
from zoo.danet import DANet, set_steps
from zoo.images import to_input
from zoo.processor import processor
from zoo.training.data import FOLDERS, Images, SaccadeSplit, load_split

BATCH = 250
COUNTED_IMAGES = 1_000  # the first of the test split, for operations and energy
STILL_STEPS = (1, 2, 4)
EVENT_STEPS = (2, 4, 8)


def test_split(model: DANet, folder: str) -> Images | SaccadeSplit:
    """Return the test images of a network's data, with events of all eight moves."""
    split = load_split(model.known_origin.data, "test", folder, steps=model.config.steps)
    assert isinstance(split, Images | SaccadeSplit)
    return split


@torch.inference_mode()
def accuracies(model: DANet, split: Images | SaccadeSplit) -> list[float]:
    """Return the share of images told right after 1, 2, ... T steps."""
    right = torch.zeros(model.config.steps)
    for pixels, labels in split.evaluation(BATCH):
        x = to_input(pixels, model.known_origin.data)
        logits = model.per_step(x).cumsum(0)  # [T, B, K]; a sum is as great as a mean
        right += (logits.argmax(2) == labels).sum(1)
    return (right / split.images).tolist()


@dataclass(frozen=True)
class Row:
    """A network at one T: top-1 on all test images, and what was counted on the first of them."""

    model: str
    steps: int
    top1: float
    report: EnergyReport


def row(name: str, steps: int, folder: str) -> Row:
    """Measure a network at T = `steps`; one of events sees the first so many of the moves."""
    model = zoo.load(name)
    split = test_split(model, folder)
    set_steps(model, steps)
    data = model.known_origin.data
    right = total = 0
    counted: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.inference_mode():
        for pixels, labels in split.evaluation(BATCH):
            x = to_input(pixels[:, :steps] if data.events else pixels, data)
            right += int((model(x).argmax(1) == labels).sum())
            total += len(labels)
            if total <= COUNTED_IMAGES:
                counted.append((x, labels))
    return Row(name, steps, right / total, estimate(model, counted))


def table(rows: list[Row]) -> str:
    """Return a line for each row, with the devices that price all of them."""
    totals = [{e.device.name: e.total for e in row.report.energies if e.total} for row in rows]
    devices = [name for name in totals[0] if all(name in total for total in totals)]
    head = ["network", "T", "top-1", "SynOps", "MACs", "firing rate", *devices]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row, total in zip(rows, totals, strict=True):
        images = row.report.images
        acs, macs = (row.report.total(key) / images for key in ("acs", "macs"))
        cells = [row.model, row.steps, f"{row.top1:.2%}", f"{acs / 1e6:.2f} M"]
        cells += [f"{macs / 1e6:.2f} M", f"{row.report.mean_rate:.1%}"]
        cells += [joules(total[name].typ) for name in devices]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--events", default="danet20-t8.i2e-fmnist", help="a network of events")
    parser.add_argument("--still", default="danet20-t4.fmnist", help="one of the still images")
    parser.add_argument("--data", default=str(FOLDERS["fmnist"]), help="the images' source")
    options = parser.parse_args()

    model = zoo.load(options.events)
    shares = accuracies(model, test_split(model, options.data))
    print(f"{options.events}, torch {torch.__version__}, {processor()}\n")
    print(f"| after step | {' | '.join(str(t) for t in range(1, len(shares) + 1))} |")
    print("|---" * (len(shares) + 1) + "|")
    print(f"| top-1 | {' | '.join(f'{share:.2%}' for share in shares)} |\n")
    rows = [row(options.still, steps, options.data) for steps in STILL_STEPS]
    rows += [row(options.events, steps, options.data) for steps in EVENT_STEPS]
    print(table(rows))


if __name__ == "__main__":
    main()
