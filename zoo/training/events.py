"""Recordings of event cameras as frames of event counts.

The package `tonic` reads the files of each data set.

Shapes: N recordings, T time bins, P polarities (off, on), H and W height and width.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_line
from zoo.recordings import Sensor
from zoo.recordings.frames import as_frames, check_inside, count_events, equal_bins
from zoo.training.sources import check_labels

__all__ = ["read_events"]

log = logging.getLogger(__name__)
# By the tag of a data set: tonic's class, which is also the folder that it looks for, ...
CLASSES = {"nmnist": "NMNIST", "dvsgesture": "DVSGesture"}
# ... the folder of each split in it, ...
LAYOUTS = {
    "nmnist": {"train": "Train", "test": "Test"},
    "dvsgesture": {"train": "ibmGestureTrain", "test": "ibmGestureTest"},
}
# ... and the files in that.
FILES = {"nmnist": "[0-9]/*.bin", "dvsgesture": "*/*.npy"}


def read_events(
    data: DatasetSpec, split: str, folder: Path, steps: int, *, skip_bad: bool = False
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return counts uint8 `[N, T, P, H, W]`, labels int64 `[N]`, and how many were left out.

    A recording is cut into `steps` bins (`zoo.recordings.frames.equal_bins`). Nothing is ever
    downloaded. Raises `InputError` if files are missing or damaged, or a label is no class.
    """
    recordings = _open(data, split, folder)
    sensor = Sensor(*recordings.sensor_size[:2])
    order = np.argsort(recordings.data)  # tonic lists some folders in the file system's order
    frames = np.empty((len(order), steps, data.channels, data.size, data.size), np.uint8)
    labels = np.empty(len(order), np.int64)
    count = 0
    for index in order:
        try:
            events, labels[count] = recordings[index]
            if not len(events):
                raise ValueError("no events")
            check_inside(events, sensor)
            bins = equal_bins(events["t"][0], events["t"][-1], steps)
            frames[count] = as_frames(count_events(events, data, sensor, bins), data)
            count += 1
        except (OSError, ValueError, IndexError, EOFError) as error:
            reason = first_line(error)
            message = f"{recordings.data[index]} is not a recording that can be read ({reason})"
            if not skip_bad:
                raise InputError(f"{message}; --skip-bad leaves such recordings out") from None
            log.warning("%s: skipped", message)
    if not count:
        raise InputError(f"none of the {len(order)} recordings in {folder} can be read")
    check_labels(labels[:count], data, str(folder))
    return frames[:count], labels[:count], len(order) - count


def _open(data: DatasetSpec, split: str, folder: Path) -> Any:
    """Return tonic's data set of a split.

    `folder` is tonic's own for the data set, or the one that holds it.
    """
    name, part = CLASSES[data.tag], LAYOUTS[data.tag][split]
    parent = folder.parent if folder.name == name else folder
    if not any((parent / name / part).glob(FILES[data.tag])):
        raise InputError(
            f"{folder} holds no {data.title}: "
            f"expected are files {name}/{part}/{FILES[data.tag]}, as tonic stores them"
        )
    try:
        import tonic.datasets
    except ImportError:
        raise InputError(
            "event data sets are read by the package tonic: pip install 'danet-zoo[events]'"
        ) from None
    # Without the archive that its files came from, tonic takes a folder for incomplete, and would
    # download it.
    complete = {"_check_exists": lambda self: True}
    dataset = type(name, (getattr(tonic.datasets, name),), complete)
    return dataset(str(parent), train=split == "train")
