"""Write every page of a checkout that repeats the manifest.

    python -m zoo.publishing.cards

These are a model card for each bundled model, the table of MODEL_CARD.md and the README, a plot of
accuracy against energy, and `weights/results.csv`. For maintainers.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from zoo.errors import ConfigError, ZooError
from zoo.files import write_text
from zoo.manifest import Manifest, WeightsSpec, read_manifest, weights_folder
from zoo.names import ModelSpec
from zoo.publishing.figures import microjoules, training_hours, under_attack
from zoo.publishing.model_card import model_card
from zoo.publishing.plot import plot

__all__ = ["main", "results", "table", "write"]

PAGES = ("MODEL_CARD.md", "README.md")  # with the table
PLOT = "docs/accuracy-energy.png"
BEGIN = "<!-- weights: written by `python -m zoo.publishing.cards` -->"
END = "<!-- end of weights -->"
HEADINGS = (
    *("name", "data", "T", "parameters", "top-1"),
    *("energy of an image", "SynOps", "firing rate", "ms an image", "trained in", "provenance"),
)
COLUMNS = (
    "name", "data", "provenance", "licence", "steps", "parameters", "top1", "split", "images",
    "top1_float32", "robust_top1", "robust_eps", "robust_images",
    "onnx_top1", "onnx_milliseconds", "training_hours", "trained_on",
    "initialised_from", "training_hours_total", "core_hours", "core_hours_total",
    "profile", "convention", "energy_uj", "energy_lo_uj", "energy_hi_uj",
    "images_lo_uj", "images_hi_uj", "synops", "firing_rate", "zeros", "weight_bits", "repo",
    "revision",
)  # fmt: skip


def table(manifest: Manifest) -> str:
    """Return the manifest as a table in Markdown, with a line for each entry."""
    rows = [HEADINGS, *(_row(entry) for entry in manifest.weights.values())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(HEADINGS) + "|", *lines[1:]])


def _row(entry: WeightsSpec) -> tuple[str, ...]:
    """Return the cells of an entry under `HEADINGS`."""
    metrics, energy = entry.metrics, entry.energy
    top1 = milliseconds = hours = synops = firing_rate = ""
    if "top1" in metrics:
        top1 = f"{metrics['top1']:.2%} on {metrics['images']:,} {metrics['split']} images"
    if "robust_top1" in metrics:
        top1 += f"; under attack {under_attack(metrics)}"
    if energy:
        synops, firing_rate = f"{energy['synops'] / 1e6:.2f} M", f"{energy['firing_rate']:.1%}"
    if "onnx_milliseconds" in metrics:
        milliseconds = f"{metrics['onnx_milliseconds']:.2g} ({metrics['onnx_on']})"
    if "training_hours" in metrics:
        hours = f"{training_hours(metrics)} ({metrics['trained_on']})"
    price = energy and f"{microjoules(energy)}, {energy['profile']}, {energy['convention']}"
    licence = f" ({entry.data.licence})" if entry.data.licence else ""
    provenance = f"trained here, [recipe and log](weights/{entry.name})"
    if entry.provenance == "converted":
        provenance = f"converted: {entry.source}"
    parameters = f"{entry.parameters:,}"
    if "zeros" in metrics:
        parameters += f", {metrics['zeros']:.0%} of those that spikes meet zero"
    if "weight_bits" in metrics:
        parameters += f", of {metrics['weight_bits']} bits"
    return (
        *(entry.name, entry.data.title + licence, str(_steps(entry)), parameters),
        *(top1 or "not measured", price or "not measured", synops, firing_rate),
        *(milliseconds, hours, provenance),
    )


def results(manifest: Manifest) -> str:
    """Return the manifest as CSV, with full figures; a cell is empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for entry in manifest.weights.values():
        energy = entry.energy or {}
        band, interval = energy.get("microjoules", {}), energy.get("interval") or {}
        cells = asdict(entry) | {
            **{key: value for key, value in entry.metrics.items() if key in COLUMNS},
            **{key: energy.get(key) for key in ("profile", "convention", "synops", "firing_rate")},
            "data": entry.data.tag,
            "steps": _steps(entry),
            "energy_uj": band.get("typ"),
            "energy_lo_uj": band.get("lo"),
            "energy_hi_uj": band.get("hi"),
            "images_lo_uj": interval.get("lo"),
            "images_hi_uj": interval.get("hi"),
        }
        writer.writerow(cells)
    return text.getvalue()


def write(root: Path) -> None:
    """Write the tables, the plot, the CSV and every bundled model's card in a checkout.

    Raises `ConfigError`, and writes nothing, for a page without a place for the table.
    """
    manifest, folder = read_manifest(), weights_folder()
    pages = {root / page: _with_table(root / page, table(manifest)) for page in PAGES}
    (root / PLOT).parent.mkdir(exist_ok=True)
    plot(manifest, root / PLOT)
    for path, text in pages.items():
        write_text(path, text)
    write_text(folder / "results.csv", results(manifest))
    for entry in manifest.weights.values():
        if (folder / entry.name).is_dir():
            card = model_card(entry, steps=_steps(entry))
            write_text(folder / entry.name / "README.md", card)


def _with_table(page: Path, markdown: str) -> str:
    """Return the text of a page with the table in its place. Raises `ConfigError` without one."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(
            f"{page} lacks the lines {BEGIN!r} and {END!r}, between which the table goes"
        )
    return f"{before}{BEGIN}\n\n{markdown}\n\n{END}{after}"


def _steps(entry: WeightsSpec) -> int:
    return ModelSpec.parse(entry.name).steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, which has no option but `--help`."""
    argparse.ArgumentParser(
        prog="python -m zoo.publishing.cards",
        description=(
            f"Write every page of this checkout that repeats weights/manifest.json: the tables in "
            f"{' and '.join(PAGES)}, the plot {PLOT}, weights/results.csv, and the card README.md "
            "of each model in weights/. For maintainers; needs pip install 'danet-zoo[dev]'."
        ),
    ).parse_args(arguments)
    write(weights_folder().parent)


if __name__ == "__main__":
    try:
        main()
    except (ZooError, OSError) as error:
        sys.exit(f"zoo.publishing.cards: {error}")
