"""A network that is run one time step a call, for cameras and robots.

The runtime keeps the membranes from call to call:

    session = StreamingSession(path, streams=4)  # a file of the `step` form
    logits = session.step(frames).logits         # [S, C, H, W] -> [S, K] of this step
    session.logits                               # mean of all steps since each stream was reset

After T steps that mean is what the `sequence` form gives.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from export.inputs import as_network_input
from export.onnx.runtime import OnnxOutput, Runtime, load_file
from export.onnx.step_form import NEXT, STATE
from zoo.arrays import Array
from zoo.errors import InputError

__all__ = ["StreamingSession"]


class StreamingSession:
    """Independent input streams through one network, each with membranes of its own.

    Raises `InputError` for anything but a `step` export of the zoo.
    """

    def __init__(self, path: str | Path, streams: int = 1, runtime: Runtime | None = None) -> None:
        if streams < 1:
            raise InputError(f"{streams} streams: at least one is needed")
        self.about, engine = load_file(path, runtime or Runtime(), form="step")
        fixed = engine.inputs["images"][0]
        if fixed not in (0, streams):
            raise InputError(
                f"{path} takes a batch of {fixed}, not {streams} streams: give streams={fixed}, "
                "or write a file of any batch with `zoo export NAME --form step`"
            )
        self.streams = streams
        states = [name for name in engine.inputs if name.endswith(STATE)]
        next_states = {name: name.removesuffix(STATE) + NEXT for name in states}
        self._run = engine.start(streams, next_states)
        self._sum: Array | float = 0.0
        self.steps = np.zeros(streams, np.int64)  # since each stream was reset

    def step(self, frames: Array) -> OnnxOutput:
        """Run one time step of every stream, and return its logits and spikes.

        `frames` `[S, C, H, W]` are normalised images or counts of events; numbers of another type
        than float32 are rounded to it. Raises `InputError` for anything else.
        """
        frames = as_network_input(
            frames, name=self.about.name, data=self.about.data, batch=self.streams
        )
        output = OnnxOutput.of(self._run.step({"images": frames}))
        self._sum = self._sum + output.logits
        self.steps += 1
        return output

    @property
    def logits(self) -> Array:
        """Return the mean logits `[S, K]` over the steps since each stream was reset.

        Raises `InputError` before the first step.
        """
        if not self.steps.all():
            raise InputError("no step was made since the reset: there are no logits yet")
        mean: Array = self._sum / self.steps[:, None]
        return mean

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Set the membranes of these streams, or of all, to zero, and begin their means anew."""
        chosen = list(range(self.streams)) if streams is None else list(streams)
        unknown = [i for i in chosen if not 0 <= i < self.streams]
        if unknown:
            raise InputError(f"stream {unknown[0]}: there are {self.streams}, from 0")
        membranes = self._run.read()
        for membrane in membranes.values():
            membrane[chosen] = 0
        self._run.write(membranes)
        if isinstance(self._sum, np.ndarray):
            self._sum[chosen] = 0
        self.steps[chosen] = 0

    @property
    def membranes(self) -> dict[str, Array]:
        """Return a copy of the state: `<path>.membrane` `[S, ...]` of every neuron layer."""
        return self._run.read()

    def restore(self, membranes: Mapping[str, Array]) -> None:
        """Go on from a state that `membranes` gave.

        Raises `InputError` for the state of another network, or of another number of streams.
        """
        own = self._run.read()
        for name in sorted(own.keys() ^ membranes.keys()):
            problem = "is missing" if name in own else f"is none of {self.about.name}"
            raise InputError(f"{name} {problem}: this is the state of another network")
        for name, value in membranes.items():
            value, shape = np.asarray(value), own[name].shape
            if value.shape != shape or value.dtype != np.float32:
                raise InputError(
                    f"{name} is {value.dtype} {list(value.shape)}, expected float32 {list(shape)}"
                )
        self._run.write(membranes)
