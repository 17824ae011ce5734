"""The figures of a manifest entry: taken from reports, and written out for people."""

from typing import Any

from zoo.errors import WeightsError
from zoo.manifest import WeightsSpec

__all__ = [
    "attacked_figures",
    "energy_figures",
    "exported_figures",
    "microjoules",
    "training_hours",
    "under_attack",
]

# How far the accuracies of the weights and of the exported file may lie apart: images near a
# decision boundary may fall on its other side.
MAX_ACCURACY_DIFFERENCE = 0.001

REPORT_KEYS = {"profiles", "images", "accuracy", "convention", "counts", "firing_rate"}
METRICS_KEYS = {"top1", "images"}
ATTACKED_KEYS = {"model", "weights_sha256", "holds", "robust_top1", "eps", "images", "attacks"}
EVALUATION_KEYS = {"model", "images", "top1", "images_per_second", "processor"}


def energy_figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return what the manifest keeps of an energy report.

    That is an image's energy on the report's only priced device, and what it was counted on.
    Raises `WeightsError` for what is no report, or prices none or several devices.
    """
    if missing := REPORT_KEYS - report.keys():
        raise WeightsError(
            f"the report lacks {min(missing)}: it is what `zoo energy ... --out` writes"
        )
    priced = [device for device in report["profiles"] if device["total_pj"]]
    if len(priced) != 1 or report["accuracy"] is None:
        raise WeightsError(
            "an entry's energy is that of one priced device on labelled images: "
            "`zoo energy ... --device NAME`"
        )
    (device,) = priced
    total, interval = device["total_pj"], device["interval_pj"]
    images, counts = report["images"], report["counts"]
    return {
        "profile": device["name"],
        "convention": report["convention"],
        "images": images,
        "split": "test",
        "accuracy": report["accuracy"],
        # The device's band, then the interval over images.
        "microjoules": {key: total[key] / 1e6 for key in ("lo", "typ", "hi")},
        "interval": interval and {key: interval[key] / 1e6 for key in ("lo", "hi")},
        "synops": counts["acs"] / images,
        "macs": counts["macs"] / images,
        "firing_rate": report["firing_rate"],
    }


def exported_figures(metrics: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return `metrics` with the accuracy and the time of the exported file.

    `evaluation` is what `zoo evaluate FILE.onnx --json` prints. Raises `WeightsError` if its
    accuracy is another than that of the weights, or if either lacks a figure.
    """
    for values, keys, title in (
        (metrics, METRICS_KEYS, "the folder's metrics.json"),
        (evaluation, EVALUATION_KEYS, "the evaluation"),
    ):
        if missing := keys - values.keys():
            raise WeightsError(
                f"{title} lacks {min(missing)}: it is what `zoo evaluate ... --json` prints, "
                "or `zoo train` leaves"
            )
    model, top1, images = evaluation["model"], evaluation["top1"], evaluation["images"]
    if images != metrics["images"] or abs(top1 - metrics["top1"]) > MAX_ACCURACY_DIFFERENCE:
        raise WeightsError(
            f"{model} has {top1:.2%} on {images:,} images, the weights {metrics['top1']:.2%} on "
            f"{metrics['images']:,}: these are not the same network"
        )
    runtime = model.partition("(")[2].rstrip(")")
    return metrics | {
        "onnx_top1": top1,
        "onnx_milliseconds": round(1000 / evaluation["images_per_second"], 3),
        "onnx_on": f"{runtime}, {evaluation['processor']}",
    }


def attacked_figures(
    entry: WeightsSpec, metrics: dict[str, Any], attacked: dict[str, Any]
) -> dict[str, Any]:
    """Return `metrics` with the accuracy under attack of an entry's network.

    `attacked` is what `zoo attack NAME --json` prints. Raises `WeightsError` for that of other
    weights, and for a figure that cannot be trusted.
    """
    if missing := ATTACKED_KEYS - attacked.keys():
        raise WeightsError(
            f"the record of the attack lacks {min(missing)}: it is what `zoo attack ... --json` "
            "prints"
        )
    if attacked["weights_sha256"] not in {file.sha256 for file in entry.files.values()}:
        raise WeightsError(f"the attack was on other weights of {attacked['model']}")
    if not attacked["holds"] or not {"pgd", "square"} <= {*attacked["attacks"]}:
        raise WeightsError(
            f"the figure of the attack on {entry.name} is too high: a check failed, or it lacks "
            "pgd and square"
        )
    return metrics | {
        "robust_top1": attacked["robust_top1"],
        "robust_eps": attacked["eps"],
        "robust_images": attacked["images"],
        "robust_attacks": attacked["attacks"],
    }


def under_attack(metrics: dict[str, Any]) -> str:
    """Write out the accuracy under attack, as in `1.2% of 500 images at 8/255 (fgsm, pgd)`."""
    return (
        f"{metrics['robust_top1']:.1%} of {metrics['robust_images']:,} images at "
        f"{metrics['robust_eps']:g}/255 ({', '.join(metrics['robust_attacks'])})"
    )


def microjoules(energy: dict[str, Any]) -> str:
    """Write out the energy of an image, as in `1.1 µJ (device 1.1 to 3.35; images 1.09 to 1.10)`.

    The band of its device, where it has one, and the 95 % interval over images are two
    uncertainties that are never merged.
    """
    lo, typ, hi = (energy["microjoules"][key] for key in ("lo", "typ", "hi"))
    spans = [f"device {lo:.3g} to {hi:.3g}"] if lo != hi else []
    if interval := energy.get("interval"):
        spans.append(f"images {interval['lo']:.4g} to {interval['hi']:.4g}")
    return f"{typ:.3g} µJ" + (f" ({'; '.join(spans)})" if spans else "")


def training_hours(metrics: dict[str, Any]) -> str:
    """Write out the hours of training, and those in all if it started from trained weights."""
    own, total = f"{metrics['training_hours']:.1f} h", metrics.get("training_hours_total")
    if "initialised_from" not in metrics:
        return own
    in_all = "unknown" if total is None else f"{total:.1f} h"
    return f"{own} from {metrics['initialised_from']}, {in_all} in all"
