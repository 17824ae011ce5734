"""Fine-tune on your images: from a folder of pictures to a model that every command takes.

    python examples/finetune.py [FOLDER [IMAGES]]     trains into FOLDER/run

IMAGES holds a folder of pictures for each class. Without it, bundled pictures of three classes of
clothes are written to FOLDER/images, as if they were yours.
"""

# %% pictures in folders
import sys
from pathlib import Path

from PIL import Image

import zoo
from zoo.samples import samples
from zoo.training.run import train_name

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
if len(sys.argv) > 2:
    images = Path(sys.argv[2])
else:
    images = folder / "images"
    pixels, labels = samples("fmnist")
    for number, (picture, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        if label in (1, 7, 8):
            path = images / {1: "trousers", 7: "sneakers", 8: "bags"}[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[0].numpy()).save(path)

# %% train: from trained weights, with a new last layer; all but the last stage stays as it is
print(
    train_name(
        "danet20-t2.mine",
        run=folder / "run",
        data=str(images),
        init="danet20-t4.fmnist",
        overrides={"epochs": "6", "freeze": '["stem", "stage1", "stage2"]'},
    )
)

# %% use it: the folder loads, and knows its classes
model = zoo.load(folder / "run" / "model")
first = next(images.rglob("*.png"))
logits = model(model.transform([first]))
print(f"{first.parent.name} is taken for {model.known_origin.data.classes[logits.argmax()]}")
