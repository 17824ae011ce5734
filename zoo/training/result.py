"""The model folder that a finished run leaves, with its accuracy and its record."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo.danet import DANet
from zoo.files import read_json, write_text
from zoo.processor import processor
from zoo.training import lineage
from zoo.training.data import Split
from zoo.training.evaluate import count_correct, count_correct_by_step
from zoo.training.pruning import zeros
from zoo.training.train import TrainingRun
from zoo.weights import read_model, write_model

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["MAX_ACCURACY_LOSS", "hardware", "write_result"]

MAX_ACCURACY_LOSS = 0.0005  # share of the images that storing weights as float16 may cost


def write_result(model: DANet, run: TrainingRun, accelerator: "Accelerator") -> str:
    """Write the folder `model` of a run with its record; return name and accuracy in words."""
    folder = run.folder / "model"
    test = run.test.to(accelerator.device)
    exact, _ = count_correct(model, test, model.known_origin.data)
    by_step, images, weights_format = _write_weights(
        folder, model, test, exact, accelerator.device, run.recipe.weight_bits
    )
    top1_by_step = [correct / images for correct in by_step]
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kind = "average" if run.recipe.ema else "weights"
    metrics = {
        "top1": top1_by_step[-1],
        "split": run.recipe.evaluated,
        "images": images,
        "weights": f"{kind} of the last step, stored as {weights_format}",
        "top1_by_step": top1_by_step,
        "top1_float32": exact / images,
        **lineage.cost([json.loads(line) for line in lines], run.init),
        "trained_on": hardware(accelerator),
        **_smaller(read_model(folder), run),
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    shutil.copyfile(run.folder / "metrics.jsonl", folder / "metrics.jsonl")
    # The recipe is written last: it says that the folder is complete.
    record = _published(read_json(run.folder / "recipe.json"))
    write_text(folder / "recipe.json", json.dumps(record, indent=2) + "\n")
    name, split = model.known_origin.name, run.recipe.evaluated
    return f"{name}: top-1 {top1_by_step[-1]:.2%} on {images:,} {split} images"


def _write_weights(
    folder: Path, model: DANet, test: Split, exact: int, device: torch.device, bits: int
) -> tuple[list[int], int, str]:
    """Write the weights as float16, or as float32 if that costs more than `MAX_ACCURACY_LOSS`.

    Weights of few bits are float32, as float16 would move them off their levels.

    `exact` is the number of test images that the model classifies correctly before it is stored.
    Return that number for the stored weights after each step, the number of test images, and the
    format.
    """
    name, data = model.known_origin.name, model.known_origin.data
    for weights_format in ("float32",) if bits else ("float16", "float32"):
        half = weights_format == "float16"
        write_model(folder, model.cpu(), name=name, data=data, half=half)
        stored = read_model(folder).to(device)
        by_step, images = count_correct_by_step(stored.per_step, test, data)
        if exact - by_step[-1] <= MAX_ACCURACY_LOSS * images:
            break
    return by_step, images, weights_format


def _smaller(stored: DANet, run: TrainingRun) -> dict[str, Any]:
    """Return the share of zeros and the bits of the weights as they are stored, where few."""
    recipe = run.recipe
    values: dict[str, Any] = {}
    if recipe.prune or recipe.weight_bits:
        values["zeros"] = round(zeros(stored), 4)
    if recipe.weight_bits:
        values["weight_bits"] = recipe.weight_bits
    return values | ({"weight_scale": recipe.weight_scale} if recipe.weight_bits == 8 else {})


def _published(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's record without folders of this machine, which say nothing elsewhere."""
    for part in (record["recipe"], record.get("init", {})):
        if part and Path(part["source"]).exists():
            part["source"] = ""
    return record


def hardware(accelerator: "Accelerator") -> str:
    """Return what a network was trained on, as in `AMD EPYC, 2 cores` or `8 x NVIDIA H100`."""
    if accelerator.device.type != "cuda":
        return processor()
    return f"{accelerator.num_processes} x {torch.cuda.get_device_name(accelerator.device)}"
