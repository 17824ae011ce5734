"""A network that lives: one time step a call, for cameras and robots, its membranes kept by the
runtime from call to call.

session = StreamingSession(path, streams=4)      # a file of the `step` form logits =
session.step(frames).logits             # [S, C, H, W] -> [S, K] of this step session.logits
# mean of all steps since each stream was reset: what `sequence` gives after T
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from export.onnx.engines import Array
from export.onnx.runtime import OnnxOutput, Runtime, load_file
from export.onnx.step_form import NEXT, STATE
from zoo.errors import InputError

__all__ = ["StreamingSession"]


class StreamingSession:
    """`streams` independent inputs through one network. Raises `InputError` for what is no `step`
    export of the zoo.
    """

    def __init__(self, path: str | Path, streams: int = 1, runtime: Runtime | None = None) -> None:
        if streams < 1:
            raise InputError(f"{streams} streams: at least one is needed")
        self.about, engine = load_file(path, runtime or Runtime(), form="step")
        fixed = engine.inputs["images"][0]
        if fixed not in (0, streams):
            raise InputError(
                f"{path} takes a batch of {fixed}, not {streams} streams: give streams={fixed}, or write a file of any batch with "
                "`zoo export NAME --form step`"
            )
        self.streams = streams
        states = {
            name: name.removesuffix(STATE) + NEXT for name in engine.inputs if name.endswith(STATE)
        }
        self._stream = engine.stream(streams, states)
        self._sum: Array | float = 0.0
        self.steps = np.zeros(streams, np.int64)  # since each stream was reset

    def step(self, frames: Array) -> OnnxOutput:
        """One time step of every stream: `frames` `[S, C, H, W]`, normalised images or counts of
        events, float32 or numbers that are rounded to it. Raises `InputError` for anything else.
        """
        values = self._stream.step({"images": self.about.checked(frames, self.streams)})
        logits = values.pop("logits")
        self._sum = self._sum + logits
        self.steps += 1
        return OnnxOutput(
            logits, {name.removesuffix(".count"): value for name, value in values.items()}
        )

    @property
    def logits(self) -> Array:
        """Mean over the steps since each stream was reset, `[S, K]`. Raises `InputError` before the
        first.
        """
        if not self.steps.all():
            raise InputError("no step was made since the reset: there are no logits yet")
        mean: Array = self._sum / self.steps[:, None]
        return mean

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget what these streams saw, or all of them."""
        chosen = list(range(self.streams)) if streams is None else list(streams)
        wrong = [i for i in chosen if not 0 <= i < self.streams]
        if wrong:
            raise InputError(f"stream {wrong[0]}: there are {self.streams}, from 0")
        membranes = self._stream.read()
        for membrane in membranes.values():
            membrane[chosen] = 0
        self._stream.write(membranes)
        if isinstance(self._sum, np.ndarray):
            self._sum[chosen] = 0
        self.steps[chosen] = 0

    @property
    def membranes(self) -> dict[str, Array]:
        """A copy of the state: `<path>.membrane` `[S, ...]`."""
        return self._stream.read()

    def restore(self, membranes: Mapping[str, Array]) -> None:
        """Go on from a state that `membranes` gave. Raises `InputError` for one of another network,
        or of other streams.
        """
        known = self._stream.read()
        for name in sorted(known.keys() ^ membranes.keys()):
            where = "is missing" if name in known else f"is none of {self.about.name}"
            raise InputError(f"{name} {where}: this is the state of another network")
        for name, value in membranes.items():
            value, shape = np.asarray(value), known[name].shape
            if value.shape != shape or value.dtype != np.float32:
                raise InputError(
                    f"{name} is {value.dtype} {list(value.shape)}, expected float32 {list(shape)}"
                )
        self._stream.write(membranes)
