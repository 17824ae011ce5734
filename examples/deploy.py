"""Deploy and prove: export to ONNX, let every spike be compared, and run the file without torch.

python examples/deploy.py [FOLDER]     writes danet20.onnx there
"""

# %% export; the file gets its name only if it is the model, spike for spike
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

import zoo
from export.onnx.exporter import write_onnx
from zoo.samples import samples

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
model = zoo.load("danet20-t4.fmnist")
proof = write_onnx(model, folder / "danet20.onnx")
print(proof)

# %% what a deployment needs: onnxruntime, numpy, and normalised images
pixels, labels = samples("fmnist")
images = model.transform(list(pixels)).numpy()  # [B, C, H, W]
session = onnxruntime.InferenceSession(folder / "danet20.onnx")
begun = time.perf_counter()
logits, *counts = session.run(None, {"images": images})
seconds = time.perf_counter() - begun
accuracy = np.mean(logits.argmax(1) == labels.numpy())
print(f"top-1 on {len(images)} bundled images: {accuracy:.1%}; "
      f"{1000 * seconds / len(images):.2f} ms an image on this machine")  # fmt: skip

# %% the file says how often every layer fired, which is what an energy is counted from
names = [output.name for output in session.get_outputs()][1:]
for name, count in list(zip(names, counts, strict=True))[:3]:
    print(f"{name}: {count.mean():,.0f} spikes an image")
