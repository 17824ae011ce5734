"""What the manifest says of its weights, written out: a model card for each, the table of
MODEL_CARD.md and the README, a plot of accuracy against energy, and `weights/results.csv`.

python -m zoo.publishing.cards      write them again, in a checkout
"""

import csv
import io
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.datasets import DATASETS
from zoo.errors import ConfigError
from zoo.manifest import REPO, FileSpec, Manifest, WeightsSpec, read_manifest, weights_folder
from zoo.names import GRAMMAR, ModelSpec
from zoo.provenance import UNKNOWN

__all__ = ["microjoules", "model_card", "plot", "results", "table", "write"]

PAGES = ("MODEL_CARD.md", "README.md")  # with the table
PLOT = "docs/accuracy-energy.png"
BEGIN, END = (
    "<!-- weights: written by `python -m zoo.publishing.cards` -->",
    "<!-- end of weights -->",
)
COLUMNS = (
    "name", "data", "provenance", "licence", "steps", "parameters", "top1", "split", "images",
    "top1_float32", "onnx_top1", "onnx_milliseconds", "training_hours", "trained_on",
    "initialised_from", "training_hours_total", "core_hours", "core_hours_total",
    "profile", "convention", "energy_uj", "energy_lo_uj", "energy_hi_uj", "images_lo_uj", "images_hi_uj", "synops", "firing_rate",
    "repo", "revision",
)  # fmt: skip
HUB_DATASETS = {  # ids of the data on the Hub
    "in1k": "ILSVRC/imagenet-1k",
    "tin200": "zh-plus/tiny-imagenet",
    "cifar10": "uoft-cs/cifar10",
    "fmnist": "zalando-datasets/fashion_mnist",
}
REFERENCES = {
    "sew-resnet": """@inproceedings{fang2021deep,
  title     = {Deep Residual Learning in Spiking Neural Networks},
  author    = {Fang, Wei and Yu, Zhaofei and Chen, Yanqi and Huang, Tiejun and Masquelier, Timoth{\\'e}e and Tian, Yonghong},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}""",
    "ms-resnet": """@article{hu2024advancing,
  title   = {Advancing Spiking Neural Networks Toward Deep Residual Learning},
  author  = {Hu, Yifan and Deng, Lei and Wu, Yujie and Yao, Man and Li, Guoqi},
  journal = {IEEE Transactions on Neural Networks and Learning Systems},
  year    = {2024}
}""",
}
REFERENCES["spiking-resnet"] = REFERENCES["sew-resnet"]


def model_card(entry: WeightsSpec, *, steps: int, repo: str | None = None) -> str:
    """`README.md` of a model folder, with the metadata that the Hub reads; `repo` is where to load
    what the zoo does not have.
    """
    from huggingface_hub import EvalResult, ModelCardData
    from jinja2 import Environment, PackageLoader, StrictUndefined

    own = entry.data.tag not in DATASETS
    dataset = None if entry.provenance == UNKNOWN else HUB_DATASETS.get(entry.data.tag)
    if own and entry.provenance != UNKNOWN and re.fullmatch(REPO, entry.data.title):
        dataset = entry.data.title
    measured: dict[str, Any] = {
        "task_type": "image-classification",
        "dataset_type": dataset or entry.data.tag,
        "dataset_name": entry.data.title,
        "dataset_split": entry.metrics.get("split"),
        "metric_type": "accuracy",
        "metric_value": entry.metrics.get("top1"),
    }
    metadata = ModelCardData(
        license=entry.licence.lower(),
        library_name="danet-zoo",
        pipeline_tag="image-classification",
        tags=["spiking-neural-network", "neuromorphic", "snntorch", "energy"],
        datasets=[dataset] if dataset else None,
        model_name=entry.name,
        eval_results=[EvalResult(**measured)] if "top1" in entry.metrics else None,
    )
    markdown: dict[str, Any] = {
        "trim_blocks": True,
        "lstrip_blocks": True,
        "keep_trailing_newline": True,
        "autoescape": False,
    }
    pages = Environment(
        loader=PackageLoader("zoo.publishing", "."), undefined=StrictUndefined, **markdown
    )
    match, ours = GRAMMAR.fullmatch(entry.name), read_manifest().weights.get(entry.name)
    known = ours is not None and _tensors(ours) == _tensors(entry)
    return pages.get_template("card.md.j2").render(
        metadata=metadata.to_yaml(), entry=entry, steps=steps, repo=repo, known=known,
        family=match["family"] if match else "", own=own, references=REFERENCES, microjoules=microjoules, hours=_hours,
    )  # fmt: skip


def _tensors(entry: WeightsSpec) -> dict[str, FileSpec]:
    """The files of an entry that hold its weights: another model may have the same name."""
    return {file: spec for file, spec in entry.files.items() if file.endswith(".safetensors")}


def microjoules(energy: dict[str, Any]) -> str:
    """The figure of an entry, with the band of its profile, where it has one, and the 95 % interval
    over images: two uncertainties that are never merged. As in `1.1 µJ (device 1.1 to 3.35; images
    1.096 to 1.104)`.
    """
    lo, typ, hi = (energy["microjoules"][key] for key in ("lo", "typ", "hi"))
    spans = [f"device {lo:.3g} to {hi:.3g}"] if lo != hi else []
    if interval := energy.get("interval"):
        spans.append(f"images {interval['lo']:.4g} to {interval['hi']:.4g}")
    return f"{typ:.3g} µJ" + (f" ({'; '.join(spans)})" if spans else "")


def table(known: Manifest) -> str:
    """In Markdown, a line for each entry."""
    head = (
        "name",
        "data",
        "T",
        "parameters",
        "top-1",
        "energy of an image",
        "SynOps",
        "firing rate",
        "ms an image",
        "trained in",
    )
    lines = [f"| {' | '.join([*head, 'provenance'])} |", "|---" * (len(head) + 1) + "|"]
    for entry in known.weights.values():
        e, m, top1 = entry.energy, entry.metrics, "not measured"
        if "top1" in m:
            top1 = f"{m['top1']:.2%} on {m['images']:,} {m['split']} images"
        licence = f" ({entry.data.licence})" if entry.data.licence else ""
        how = f"trained here, [recipe and log](weights/{entry.name})"
        if entry.provenance == "converted":
            how = f"converted: {entry.source}"
        figures = (
            (
                f"{microjoules(e)}, {e['profile']}, {e['convention']}",
                f"{e['synops'] / 1e6:.2f} M",
                f"{e['firing_rate']:.1%}",
            )
            if e
            else ("not measured", "", "")
        )
        cost = (
            f"{m['onnx_milliseconds']:.2g} ({m['onnx_on']})" if "onnx_milliseconds" in m else "",
            f"{_hours(m)} ({m['trained_on']})" if "training_hours" in m else "",
        )
        cells = (
            entry.name,
            entry.data.title + licence,
            str(_steps(entry)),
            f"{entry.parameters:,}",
            top1,
            *figures,
            *cost,
            how,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(known: Manifest, path: Path) -> None:
    """Top-1 against the energy of an image, a mark for each entry that has both; one colour for
    each data set.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    measured = [
        (e, e.energy["microjoules"], 100 * e.metrics["top1"])
        for e in known.weights.values()
        if e.energy and "top1" in e.metrics
    ]
    for title in sorted({entry.data.title for entry, _, _ in measured}):
        entries = [row for row in measured if row[0].data.title == title]
        x, y = [energy["typ"] for _, energy, _ in entries], [top1 for _, _, top1 in entries]
        band = [
            [abs(energy[edge] - energy["typ"]) for _, energy, _ in entries] for edge in ("lo", "hi")
        ]
        axes.errorbar(x, y, xerr=band, fmt="o", capsize=3, label=title)
        for entry, energy, top1 in entries:
            axes.annotate(
                entry.name.partition(".")[0],
                (energy["typ"], top1),
                xytext=(8, -3),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xscale("log")
    if measured:  # a decade at least, and room for the names
        energies = [energy[edge] for _, energy, _ in measured for edge in ("lo", "hi")]
        axes.set_xlim(min(energies) / 3, max(energies) * 4)
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", labelsize=7)
    axes.set_xlabel("energy of an image, µJ (45 nm, exact counts)")
    axes.set_ylabel("top-1, %")
    axes.grid(visible=True, alpha=0.3)
    if measured:
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def results(known: Manifest) -> str:
    """The same as CSV, with full figures; a cell is empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for entry in known.weights.values():
        e = entry.energy or {}
        band, interval = e.get("microjoules", {}), e.get("interval") or {}
        energy = {
            "energy_uj": band.get("typ"),
            "energy_lo_uj": band.get("lo"),
            "energy_hi_uj": band.get("hi"),
        }
        energy |= {"images_lo_uj": interval.get("lo"), "images_hi_uj": interval.get("hi")}
        figures = {key: e.get(key) for key in ("profile", "convention", "synops", "firing_rate")}
        measured = {key: value for key, value in entry.metrics.items() if key in COLUMNS}
        writer.writerow(
            asdict(entry)
            | measured
            | energy
            | figures
            | {"data": entry.data.tag, "steps": _steps(entry)}
        )
    return text.getvalue()


def write(root: Path) -> None:
    """The tables, the plot, the CSV and every bundled model's card, in the checkout at `root`."""
    known = read_manifest()
    texts = {}
    for page in (root / name for name in PAGES):
        before, begun, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        if not begun or END not in rest:
            raise ConfigError(
                f"{page} lacks the lines {BEGIN!r} and {END!r}, between which the table goes"
            )
        texts[page] = f"{before}{BEGIN}\n\n{table(known)}\n\n{END}{rest.partition(END)[2]}"
    (root / PLOT).parent.mkdir(exist_ok=True)
    plot(known, root / PLOT)
    for page, text in texts.items():
        page.write_text(text, encoding="utf-8")
    (weights_folder() / "results.csv").write_text(results(known), encoding="utf-8")
    for entry in known.weights.values():
        if (weights_folder() / entry.name).is_dir():
            card = model_card(entry, steps=_steps(entry))
            (weights_folder() / entry.name / "README.md").write_text(card, encoding="utf-8")


def _hours(metrics: dict[str, Any]) -> str:
    """The hours of training, and in all if the weights started from those of other networks."""
    own, total = metrics["training_hours"], metrics.get("training_hours_total")
    if "initialised_from" not in metrics:
        return f"{own:.1f} h"
    return f"{own:.1f} h from {metrics['initialised_from']}, {'unknown' if total is None else f'{total:.1f} h'} in all"


def _steps(entry: WeightsSpec) -> int:
    return ModelSpec.parse(entry.name).steps


if __name__ == "__main__":
    write(weights_folder().parent)
