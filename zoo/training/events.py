"""Recordings of event cameras as frames of event counts. The package `tonic` knows the files of
each data set.

Shapes: N recordings, T time bins, P polarities (off, on), H and W height and width.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_line
from zoo.training.sources import check_labels

__all__ = ["read_events"]

log = logging.getLogger(__name__)
# tag -> tonic's class, and the folder that it looks for
CLASSES = {"nmnist": "NMNIST", "dvsgesture": "DVSGesture"}
LAYOUTS = {
    "nmnist": {"train": "Train", "test": "Test"},
    "dvsgesture": {"train": "ibmGestureTrain", "test": "ibmGestureTest"},
}
FILES = {"nmnist": "[0-9]/*.bin", "dvsgesture": "*/*.npy"}


def read_events(
    data: DatasetSpec, split: str, folder: Path, steps: int, *, skip_bad: bool = False
) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts uint8 `[N, T, P, H, W]` (255 stands for more too), labels int64 `[N]`, and how many
    recordings were left out.

    A recording is cut into `steps` bins of equal length in whole microseconds; tonic drops what
    then remains at its end, the last event at least. Raises `InputError` if files are missing or
    damaged; nothing is ever downloaded.
    """
    recordings = _open(data, split, folder)
    # tonic lists some folders in whatever order the file system has
    order = np.argsort(recordings.data)
    frames = np.empty((len(order), steps, data.channels, data.size, data.size), np.uint8)
    labels = np.empty(len(order), np.int64)
    kept = 0
    from tonic.transforms import ToFrame

    binned = ToFrame(sensor_size=recordings.sensor_size, n_time_bins=steps)
    for index in order:
        try:
            events, labels[kept] = recordings[index]
            if not len(events):
                raise ValueError("no events")
            frames[kept] = binned(events).clip(0, 255)
            kept += 1
        except (OSError, ValueError, IndexError, EOFError) as error:
            reason = first_line(error)
            message = f"{recordings.data[index]} is not a recording that can be read ({reason})"
            if not skip_bad:
                raise InputError(f"{message}; --skip-bad leaves such recordings out") from None
            log.warning("%s: skipped", message)
    if not kept:
        raise InputError(f"none of the {len(order)} recordings in {folder} can be read")
    check_labels(labels[:kept], data, str(folder))
    return frames[:kept], labels[:kept], len(order) - kept


def _open(data: DatasetSpec, split: str, folder: Path) -> Any:
    """tonic's data set of a split. `folder` is tonic's own for the data set, or the one that holds
    it.
    """
    name, part = CLASSES[data.tag], LAYOUTS[data.tag][split]
    parent = folder.parent if folder.name == name else folder
    if not any((parent / name / part).glob(FILES[data.tag])):
        raise InputError(
            f"{folder} holds no {data.title}: expected are files {name}/{part}/{FILES[data.tag]}, as tonic stores them"
        )
    try:
        import tonic.datasets
    except ImportError:
        raise InputError(
            "event data sets are read by the package tonic: pip install 'danet-zoo[events]'"
        ) from None
    # tonic takes a folder without the archive that its files came from for incomplete, and would
    # download it.
    return type(name, (getattr(tonic.datasets, name),), {"_check_exists": lambda self: True})(
        str(parent), train=split == "train"
    )
