"""Frames of events: how many there were at each pixel in a time.

A camera's square centre is scaled to the network's size: `size` columns and rows of the frames are
each as many, or nearly as many, of its pixels.

Shapes: `T` steps, two polarities, `H` and `W` pixels of the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.arrays import Array
from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_line
from zoo.recordings.files import MICROSECONDS, READ_ERRORS, EventFile, Sensor, open_file

__all__ = ["Recording", "as_frames", "check_inside", "count_events", "equal_bins", "read_recording"]


MAX_SILENT_WINDOWS = 1_000_000


@dataclass(frozen=True)
class Recording:
    """A file of events, as a network of `data` takes them.

    It is read in pieces, as often as it is needed, so that it may be longer than the memory.
    """

    path: Path
    data: DatasetSpec
    file: EventFile
    sensor: Sensor

    @classmethod
    def open(
        cls, path: str | Path, data: DatasetSpec, sensor: tuple[int, int] | None = None
    ) -> "Recording":
        """Open a file of events.

        Raises `InputError` if it is none that can be read, holds frames instead, or the camera is
        smaller than the network's images.

        Args:
            path: A file with one of the suffixes of `zoo.recordings.SUFFIXES`.
            data: What the network reads.
            sensor: Width and height of the camera in pixels, if the file does not say them; without
                both it is the network's own size.
        """
        path = Path(path)
        opened = _opened(path, data)
        if not isinstance(opened, EventFile):
            raise InputError(f"{path} holds frames {[*opened.shape]}, and no events with times")
        return cls._of(path, data, opened, sensor)

    @classmethod
    def _of(
        cls, path: Path, data: DatasetSpec, file: EventFile, sensor: tuple[int, int] | None
    ) -> "Recording":
        sensor = Sensor.of(sensor) if sensor is not None else None
        if sensor and file.sensor and sensor != file.sensor:
            raise InputError(f"{path} says {file.sensor} itself: leave the camera's size away")
        size = sensor or file.sensor or Sensor(data.size, data.size)
        if min(size) < data.size:
            raise InputError(
                f"{path}: a camera of {size} pixels is smaller than the "
                f"{data.size}x{data.size} of a model of {data.title}"
            )
        return cls(path, data, file, size)

    def events(self) -> Iterator[Array]:
        """Yield the events in pieces, arrays with the fields t (microseconds), x, y and p (ON).

        Raises `InputError` where the file is damaged, the times go back, or an event lies outside
        of the camera.
        """
        latest = None
        with _damage_of(self.path):
            for piece in self.file.pieces():
                if len(piece):
                    self._check(piece, latest)
                    latest = piece["t"][-1]
                    yield piece

    def _check(self, piece: Array, latest: int | None) -> None:
        times = piece["t"]
        before = times[:1] if latest is None else [latest]
        back = np.flatnonzero(np.diff(times, prepend=before) < 0)
        if len(back):
            earlier = times[back[0] - 1] if back[0] else latest
            raise InputError(
                f"{self.path} is not in the order of time: {times[back[0]]} microseconds come "
                f"after {earlier}"
            )
        try:
            check_inside(piece, self.sensor)
        except ValueError as error:
            raise InputError(
                f"{self.path}: {error}: give the camera's size (--sensor WIDTHxHEIGHT)"
            ) from None

    def frames(self, steps: int) -> Array:
        """Return the events as uint8 `[T, 2, H, W]`, in T = `steps` bins of `equal_bins`.

        Raises `InputError` as `events` does, for a recording that is empty or too short, and for
        fewer steps than one.
        """
        steps = _whole(steps, "T = {!r} frames of a recording")
        if self.span is None:
            raise InputError(f"{self.path} is empty: it holds no events")
        with _damage_of(self.path):
            bins = equal_bins(*self.span, steps)
        counts = np.zeros((steps, 2, self.data.size, self.data.size), np.int64)
        for piece in self.events():
            counts += count_events(piece, self.data, self.sensor, bins)
        return as_frames(counts, self.data)

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """The times of the first and the last event in microseconds; None where there is none.

        The whole file is read for it, once. Raises `InputError` as `events` does.
        """
        span = None
        for piece in self.events():
            span = int(piece["t"][0]) if span is None else span[0], int(piece["t"][-1])
        return span

    def windows(self, microseconds: int) -> Iterator[Array]:
        """Yield a frame uint8 `[2, H, W]` for each time of so many microseconds, one by one.

        They begin with the first event; a time without any is a frame of zeros. Raises `InputError`
        as `events` does, for times that are not above 0, and for a silence of more than
        `MAX_SILENT_WINDOWS` frames, which is a clock that jumped.
        """
        microseconds = _whole(microseconds, "frames of {!r} microseconds")
        begin = None
        counts = np.zeros((1, 2, self.data.size, self.data.size), np.int64)
        for piece in self.events():
            begin = int(piece["t"][0]) if begin is None else begin
            while len(piece):
                silent = (int(piece["t"][0]) - begin) // microseconds
                if silent > MAX_SILENT_WINDOWS:
                    raise InputError(
                        f"{self.path} has no event in {silent:,} frames of {microseconds} "
                        f"microseconds, before {piece['t'][0]}: did its clock jump?"
                    )
                end = begin + microseconds
                stop = np.searchsorted(piece["t"], end)
                counts += count_events(
                    piece[:stop], self.data, self.sensor, range(begin, end, microseconds)
                )
                piece = piece[stop:]
                if len(piece):
                    yield as_frames(counts[0], self.data)
                    counts[:] = 0
                    begin = end
        if begin is not None:
            yield as_frames(counts[0], self.data)


def read_recording(
    path: str | Path,
    data: DatasetSpec,
    steps: int,
    *,
    sensor: tuple[int, int] | None = None,
    changes: list[str] | None = None,
) -> Array:
    """Return a recording as a network of T = `steps` takes it, uint8 `[T, 2, H, W]`.

    A file of numpy may also hold such frames themselves, in the network's order of polarities.
    `changes` is extended by what was done to them, as "scaled from 128x128". Raises `InputError`
    for a file that cannot be read or does not fit.
    """
    path = Path(path)
    opened = _opened(path, data)
    made = [] if changes is None else changes
    if not isinstance(opened, EventFile):
        if sensor is not None:
            raise InputError(f"{path} holds frames: the camera's size is for events")
        return _checked_frames(path, opened, data, steps, made)
    recording = Recording._of(path, data, opened, sensor)
    if min(recording.sensor) != data.size:
        made.append(f"scaled from {recording.sensor}")
    frames = recording.frames(steps)
    if recording.span is not None:
        first, last = recording.span
        made.append(f"events of {(last - first) / MICROSECONDS:g} s in {steps} frames")
    return frames


def _whole(number: float, what: str) -> int:
    """Return a whole number above 0. Raises `InputError` for anything else, which `what` names."""
    try:
        if not isinstance(number, bool) and number >= 1 and number % 1 == 0:
            return int(number)
    except TypeError:
        pass
    raise InputError(f"{what.format(number)}: give a whole number above 0")


def _opened(path: Path, data: DatasetSpec) -> EventFile | Array:
    """Open a file for a network of events. Raises `InputError`."""
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    if not data.events:
        raise InputError(
            f"{path}: {path.suffix} files are recordings of events, and a model of {data.title} "
            "takes images"
        )
    with _damage_of(path):
        return open_file(path)


def equal_bins(first: int, last: int, steps: int) -> range:
    """Return where T = `steps` bins from the first event to the last begin, in microseconds.

    They are equally long; what remains at the end is in none of them, the last event at least, as
    the package tonic does it. Raises `ValueError` for a time that is too short.
    """
    first, last = int(first), int(last)
    length = (last - first) // steps
    if not length:
        raise ValueError(f"it lasts {last - first} microseconds, too short for T = {steps}")
    return range(first, first + steps * length, length)


def check_inside(events: Array, sensor: Sensor) -> None:
    """Raise `ValueError` for an event that lies outside of a camera's pixels."""
    x, y = events["x"], events["y"]
    outside = np.flatnonzero((x < 0) | (x >= sensor.width) | (y < 0) | (y >= sensor.height))
    if len(outside):
        at = f"({x[outside[0]]}, {y[outside[0]]})"
        raise ValueError(f"an event at {at} lies outside of {sensor} pixels")


def count_events(events: Array, data: DatasetSpec, sensor: Sensor, bins: range) -> Array:
    """Return how many events there are in each bin, polarity and pixel, int64 `[T, 2, H, W]`.

    Args:
        events: An array with the fields t, x, y and p; what lies outside of the bins or of the
            square centre is left out.
        data: What the network reads.
        sensor: Width and height of the camera in pixels.
        bins: Where the T bins begin.
    """
    side, size = min(sensor), data.size
    step = (events["t"] - bins.start) // bins.step
    column, row = (events[n] - (whole - side) // 2 for n, whole in zip("xy", sensor, strict=True))
    inside = (step >= 0) & (step < len(bins))
    for place in (column, row):
        inside &= (place >= 0) & (place < side)
    step, column, row = (values[inside].astype(np.int64) for values in (step, column, row))
    channel = np.where(events["p"][inside], data.on_channel, 1 - data.on_channel)
    shape = (len(bins), 2, size, size)
    index = np.ravel_multi_index((step, channel, row * size // side, column * size // side), shape)
    return np.bincount(index, minlength=np.prod(shape)).reshape(shape)


def as_frames(counts: Array, data: DatasetSpec) -> Array:
    """Return counts of events as bytes; `data.max_count` stands for more too."""
    return counts.clip(0, data.max_count).astype(np.uint8)


def _checked_frames(
    path: Path, frames: Array, data: DatasetSpec, steps: int, changes: list[str]
) -> Array:
    """Return frames that a file holds as bytes. Raises `InputError` if they do not fit."""
    expected = (steps, data.channels, data.size, data.size)
    kind = f"{path} holds {frames.dtype} {[*frames.shape]}"
    if frames.shape != expected or frames.dtype.kind not in "biuf":
        raise InputError(
            f"{kind}: a model of {data.title} takes events with fields t, x, y and p, or frames "
            f"{[*expected]} (steps, polarities, rows, columns)"
        )
    wrong = frames[~((frames >= 0) & (frames == np.trunc(frames)))]
    if len(wrong):
        raise InputError(f"{kind} with {wrong[0]:g} in it: a frame holds counts of events")
    if frames.max() > data.max_count:
        changes.append(f"counts above {data.max_count} taken as {data.max_count}")
    return as_frames(frames, data)


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Raise what a reader of `path` finds wrong as an `InputError` of one line."""
    try:
        yield
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(
            f"{path} is not a recording that can be read ({first_line(error)})"
        ) from None
