"""Write the page: the site, onnxruntime-web, and for each network its file and what it says of it.

    index.html, style.css, *.js     the site, as it is in this package
    runtime/                        onnxruntime-web
    page.json                       the networks, and the prices of every device
    models/NAME.onnx, NAME.json     a network, one step a call, with spike trains; and its record
    samples/*.json                  pictures that networks of the same data and shape read

Nothing else is needed: any static host serves the folder.
"""

import base64
import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.energy.conventions import CONVENTIONS, QUEUE, WORD_BYTES
from export.energy.devices import Device, find_devices
from export.energy.executors import Source, TorchExecutor
from export.energy.operations import OPERATIONS, Operation
from export.nir.exporter import node_name
from export.onnx.exporter import write_onnx
from export.onnx.streaming import StreamingSession
from export.page.plan import facts, plan
from export.page.runtime import runtime_files
from zoo.activity import layer_spikes
from zoo.arrays import Array
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import ExportError, InputError
from zoo.files import read_json_if_whole, write_text
from zoo.images import read_image, to_input
from zoo.manifest import read_manifest
from zoo.neurons import Lif
from zoo.saccades import MOVES, with_saccades
from zoo.samples import drawings, samples

__all__ = ["write_page"]

SITE = Path(__file__).parent / "site"
SCRATCH = ".page-"  # of a folder within, while a page is written
MAX_SAMPLES = 24
CANDIDATES = 6  # pictures that are looked at together for the one to record
MARGINS = (1e-5, 3e-6, 1e-6)  # shares of a threshold; float32 rounds to 1e-7 at each addition
ACCURACY = ("top1", "images", "split", "top1_by_step")
PRICED = tuple(kind for kind in OPERATIONS if kind not in ("hop", "access"))


def write_page(
    models: Sequence[DANet],
    folder: Path,
    *,
    pictures: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Write a page of `models` to `folder`. `progress` is told the name of each before its export.

    The page shows `pictures`, image files, or without them the bundled ones of each network's data;
    they become part of it. A page that lies in the folder is replaced.

    Raises `ExportError` for a network that a page cannot run or count, or whose data has no
    bundled pictures, and where the installation lacks onnxruntime-web; `InputError` for a file that
    is no image.
    """
    runtime_files()
    names = [_name(model) for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ExportError(f"{twice} is given twice: give each network once")
    earlier = _earlier(folder)
    others = [file for file in folder.glob("*") if not file.name.startswith(SCRATCH)]
    if others and earlier is None:
        raise ExportError(f"{folder} holds files that are no page: give a new or an empty folder")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Until all of it is there, the page before stays as it is.
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch:
            made = Path(scratch)
            _write_files(models, names, made, pictures, progress)
            files = [file.relative_to(made) for file in made.rglob("*") if file.is_file()]
            # that which names the others comes last
            for file in sorted(files, key=lambda file: file.name == "page.json"):
                (folder / file).parent.mkdir(exist_ok=True)
                (made / file).replace(folder / file)
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
    kept = set().union(*map(_files, models))
    for old in (earlier or set()) - kept:
        (folder / old).unlink(missing_ok=True)


def _files(model: DANet) -> set[str]:
    """Return the files that a page has of a network alone, and of its pictures."""
    name = _name(model)
    return {f"models/{name}.onnx", f"models/{name}.json", f"samples/{_pictures_name(model)}.json"}


def _earlier(folder: Path) -> set[str] | None:
    """Return the files of the networks of the page that lies in a folder; None if none does."""
    page = read_json_if_whole(folder / "page.json")
    models = page.get("models")
    if not isinstance(models, list) or "conventions" not in page:
        return None
    known = [model for model in models if isinstance(model, dict)]
    files = {f"samples/{model.get('pictures')}.json" for model in known}
    for model in known:
        files |= {f"models/{model.get('name')}{suffix}" for suffix in (".onnx", ".json")}
    return {file for file in files if file.count("/") == 1}  # no name leads elsewhere


def _write_files(
    models: Sequence[DANet],
    names: Sequence[str],
    folder: Path,
    pictures: Sequence[Path],
    progress: Callable[[str], None],
) -> None:
    for sub in ("runtime", "models", "samples"):
        (folder / sub).mkdir()
    summaries = []
    for model, name in zip(models, names, strict=True):
        progress(name)
        summaries.append(_write_model(model, name, folder, pictures))
    runtime = runtime_files()
    for file in runtime:
        shutil.copyfile(file, folder / "runtime" / file.name)
    for file in SITE.iterdir():
        shutil.copyfile(file, folder / file.name)
    devices = [_device(device) for device in find_devices([]).values()]
    conventions = [asdict(convention) for convention in CONVENTIONS.values()]
    values = {
        "models": summaries,
        "devices": devices,
        "conventions": conventions,
        "runtime": {file.name: file.stat().st_size for file in runtime},
    }
    _write_json(folder / "page.json", values)


def _name(model: DANet) -> str:
    """Return a network's name, with the format of its weights where they are rounded."""
    origin = model.known_origin
    return origin.name + ("" if origin.weight_format == "float32" else f".{origin.weight_format}")


def _pictures_name(model: DANet) -> str:
    """Return the name of the pictures that a network reads: of its data, in its shape."""
    data = model.known_origin.data
    return f"{data.images.tag}-{data.images.channels}x{data.size}x{data.size}"


def _write_model(model: DANet, name: str, folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Write a network's file, its record, and the pictures it reads; return a summary of it."""
    data = model.known_origin.data
    pixels, titles = _own_pictures(files, data) if files else _bundled_pictures(data)
    path = folder / "models" / f"{name}.onnx"
    verification = write_onnx(model, path, form="step", outputs="trains")
    executor = TorchExecutor(model)
    summary = {
        "name": name,
        "title": data.title,
        "pictures": _pictures_name(model),
        "steps": model.config.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": model.known_origin.weight_format,
        **_published(executor.source),
    }
    record = summary | {
        "bytes": path.stat().st_size,
        "proof": str(verification),
        "data": _data(data),
        "plan": plan(executor.layers),
        "facts": (known := facts(executor)),
        "accesses": _accesses(known),
        "neurons": [
            {"node": node_name(path), "output": path}
            for path, module in model.named_modules()
            if isinstance(module, Lif)
        ],
        "recorded": _recorded(model, path, pixels),
    }
    _write_json(folder / "models" / f"{name}.json", record)
    pictures = {
        "titles": titles,
        "shape": list(pixels.shape[1:]),
        "pixels": [base64.b64encode(picture.numpy().tobytes()).decode() for picture in pixels],
    }
    _write_json(folder / "samples" / f"{summary['pictures']}.json", pictures)
    return summary


def _own_pictures(files: Sequence[Path], data: DatasetSpec) -> tuple[Tensor, list[str]]:
    """Return image files as a network reads them, bytes `[N, C, H, W]`, and their names."""
    if data.events and not data.still:
        raise ExportError(f"a page shows pictures, and networks of {data.title} take recordings")
    pixels = [read_image(file, data.images) for file in files]
    return torch.stack(pixels), [file.name for file in files]


def _bundled_pictures(data: DatasetSpec) -> tuple[Tensor, list[str]]:
    """Return bundled pictures of a network's data, one of each class first, and what they are."""
    images = data.images
    drawn = drawings(images.tag)
    try:
        pixels, labels = drawn or samples(images.tag)
    except InputError:
        raise ExportError(
            f"a page shows pictures, and none of {data.title} are bundled: give some of yours, "
            "--images FILE ..."
        ) from None
    firsts = [int((labels == label).nonzero()[0]) for label in sorted({*labels.tolist()})]
    others = [i for i in range(len(labels)) if i not in firsts]
    chosen = torch.tensor([*firsts, *others][:MAX_SAMPLES])
    source = "drawings in the public domain" if drawn else f"test images of {images.title}"
    titles = [f"{data.label(label)}, of the {source}" for label in labels[chosen].tolist()]
    return pixels[chosen], titles


def _recorded(model: DANet, path: Path, pixels: Tensor) -> dict[str, Any]:
    """Return the spikes of every layer and step, and the logits, for one of the pictures.

    onnxruntime computes them from the file that the page runs. A browser adds up in another order,
    which decides where a membrane lies at its threshold, so a picture is taken whose membranes keep
    away from it (`_steadiest`).
    """
    data, steps = model.known_origin.data, model.config.steps
    x = to_input(with_saccades(pixels, data, steps), data)
    picture, margin = _steadiest(model, x)
    one = x.narrow(1 if data.events else 0, picture, 1).numpy()
    session, spikes = StreamingSession(path), []
    for step in range(steps):
        output = session.step(one[step] if data.events else one)
        spikes.append({layer: _places(train) for layer, train in output.spikes.items()})
    logits = session.logits[0].tolist()
    return {"picture": picture, "margin": margin, "spikes": spikes, "logits": logits}


def _places(train: Array) -> list[int]:
    """Return how many spikes there are, the sum of their places, and that of their squares.

    The last two tell apart spikes at other places; a page computes them too.
    """
    places = np.flatnonzero(train) + 1
    return [len(places), int(places.sum()), int((places**2).sum())]


def _steadiest(model: DANet, x: Tensor) -> tuple[int, float]:
    """Return the picture that keeps all its spikes while thresholds move most, and by how much.

    That is one of `MARGINS`, or 0 where even the least changes a spike of every picture. `x` is a
    batch of pictures; the first that keeps them at the largest margin will do.
    """
    axis = 1 if model.known_origin.data.events else 0
    best, seen = (0, 0.0), 0
    for part in torch.split(x.double(), CANDIDATES, axis):
        picture, margin = _steadiest_of(model, part)
        if margin > best[1]:
            best = seen + picture, margin
        if margin == MARGINS[0]:
            break
        seen += part.shape[axis]
    return best


def _steadiest_of(model: DANet, x: Tensor) -> tuple[int, float]:
    def spikes(factor: float) -> list[Tensor]:
        moved = copy.deepcopy(model).double()
        for module in moved.modules():
            if isinstance(module, Lif):
                module.neuron.threshold.data.mul_(factor)
        return [layer.spikes for layer in layer_spikes(moved, x, "*").values()]

    exact = spikes(1.0)
    for margin in MARGINS:
        lower, upper = spikes(1 - margin), spikes(1 + margin)
        layers = [*zip(exact, lower, strict=True), *zip(exact, upper, strict=True)]
        for picture in range(exact[0].shape[1]):
            if all(torch.equal(one[:, picture], two[:, picture]) for one, two in layers):
                return picture, margin
    return 0, 0.0


def _data(data: DatasetSpec) -> dict[str, Any]:
    """Return how pictures become the network's input."""
    images = data.images
    return {
        "title": data.title,
        "size": data.size,
        "channels": images.channels,
        "classes": [data.label(index) for index in range(data.num_classes)],
        "mean": data.mean,
        "std": data.std,
        # of simulated saccades: the share of the range that is an event, and the moves
        "saccades": {"ratio": data.ratio, "moves": MOVES} if data.still else None,
    }


def _published(source: Source) -> dict[str, Any]:
    """Return the accuracy and energy that the manifest has of weights of the zoo, else None."""
    entry = read_manifest().weights.get(source.name)
    files = entry.files.values() if entry and source.weight_format == "float32" else ()
    if entry is None or source.weights_sha256 not in {file.sha256 for file in files}:
        return {"accuracy": None, "energy": None}
    return {
        "accuracy": {key: entry.metrics.get(key) for key in ACCURACY},
        "energy": entry.energy
        and {
            "device": entry.energy["profile"],
            "microjoules": entry.energy["microjoules"]["typ"],
            "synops": entry.energy["synops"],
        },
    }


def _device(device: Device) -> dict[str, Any]:
    """Return the picojoules of each operation, low, typical and high, of those with a price."""
    bands = {kind: device.price(Operation(kind)) for kind in PRICED}
    return {
        "name": device.name,
        "title": device.title,
        "note": device.note,
        "prices": {kind: [b.lo, b.typ, b.hi] for kind, b in bands.items() if b},
    }


def _accesses(known: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return what an access to each memory of a network costs, on each device that prices it."""
    sizes = {QUEUE.bytes}
    for row in known.values():
        sizes |= {row["weightBytes"], row["stateBytes"]}
        sizes |= {WORD_BYTES * row["inputs"], WORD_BYTES * row["outputs"]}
    prices: dict[str, dict[str, list[float]]] = {}
    for name, device in find_devices([]).items():
        bands = {size: device.price(Operation("access", size)) for size in sorted(sizes)}
        prices[name] = {f"access:{n}": [b.lo, b.typ, b.hi] for n, b in bands.items() if b}
    return {name: known_prices for name, known_prices in prices.items() if known_prices}


def _write_json(path: Path, values: object) -> None:
    write_text(path, json.dumps(values, allow_nan=False, separators=(",", ":")) + "\n")
