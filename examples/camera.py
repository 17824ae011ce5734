"""See through an event camera: its events become frames, and each frame is a step of a network.

python examples/camera.py [FOLDER] [RECORDING]     writes camera.onnx and saccades.npy there
"""

# %% a network of events, in the form that is run one step a call; no torch is needed to run it
import sys
import time
from pathlib import Path

import numpy as np

import zoo
from export import StreamingSession
from export.onnx.exporter import write_onnx
from zoo.recordings import Recording
from zoo.saccades import saccades
from zoo.samples import samples

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
model = zoo.load("danet20-t8.i2e-fmnist")
print(write_onnx(model, folder / "camera.onnx", form="step"))

# %% a recording: yours, or what a camera would see that moves by a pixel in front of two pictures
FRAME = 10_000  # microseconds
data = model.known_origin.data
pixels, labels = samples(data.still)
frames = saccades(pixels[:2], data.ratio).flatten(0, 1).numpy()  # [16, 2, H, W], ON first
when, channel, row, column = frames.nonzero()
times = when * FRAME + np.random.default_rng(0).integers(1, FRAME, len(when))
times[0] = 0  # a recording begins with its first event
fields = [("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.bool_)]
events = np.array(list(zip(times, column, row, channel == data.on_channel, strict=True)), fields)
np.save(folder / "saccades.npy", np.sort(events, order="t"))
recording = Recording.open(sys.argv[2] if len(sys.argv) > 2 else folder / "saccades.npy", data)

# %% at the camera's own pace: after T steps the network has decided, and begins anew
session = StreamingSession(folder / "camera.onnx")
begun = time.perf_counter()
for number, frame in enumerate(recording.windows(FRAME), 1):
    time.sleep(max(0.0, begun + number * FRAME / 1e6 - time.perf_counter()))
    output = session.step(frame[None].astype(np.float32))
    logits = session.logits[0]  # the mean of the steps so far
    late = time.perf_counter() - begun - number * FRAME / 1e6
    print(f"{number * FRAME / 1000:5.0f} ms  step {session.steps[0]}  {frame.sum():4} events  "
          f"{data.label(logits.argmax()):12} {logits.max():6.2f}  {1000 * late:4.1f} ms after its "
          "last event")  # fmt: skip
    if session.steps[0] == model.config.steps:
        session.reset()
