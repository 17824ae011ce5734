"""Draw what the spikes look like: a raster of one layer, all firing rates, and one layer's maps.

python examples/spikes.py [FOLDER]     writes spikes.png there
"""

# %% a trained network, and images that are part of the installation
import sys
from pathlib import Path

from matplotlib.figure import Figure

import zoo
from zoo.samples import samples

model = zoo.load("danet20-t4.fmnist")
pixels, labels = samples("fmnist")
x = model.transform(list(pixels[:64]))  # [B, C, H, W]
layers = zoo.features(model, x)  # of each layer of neurons: spikes [T, B, C, H, W] and rate

# %% the layer with the highest rate, on the first image
name, busiest = max(layers.items(), key=lambda item: item[1].rate)
steps = len(busiest.spikes)
print(f"{name} fires most: {busiest.rate:.1%} of its neurons at a step")

# %% draw it
figure = Figure(figsize=(9, 6.5), dpi=110, layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(5, 4))

raster, rates = above.subplots(1, 2)
trains = [train.flatten()[:150].nonzero()[:, 0] for train in busiest.spikes[:, 0]]
raster.eventplot(trains, lineoffsets=range(1, steps + 1), linelengths=0.8, colors="#0072b2")
raster.invert_yaxis()
raster.set(title=f"{name}, one image", xlabel="neuron (the first 150)", ylabel="step")
raster.set_yticks(range(1, steps + 1))

rates.barh(list(layers), [100 * layer.rate for layer in layers.values()], color="#d55e00")
rates.invert_yaxis()
rates.tick_params(axis="y", labelsize=6)
rates.set(title="firing rates", xlabel="% of a layer's neurons at a step")

below.suptitle(f"{name}: share of the channels that fire, by place")
for step, panel in enumerate(below.subplots(1, steps)):
    panel.imshow(busiest.spikes[step, 0].float().mean(0), cmap="viridis", vmin=0, vmax=1)
    panel.set(title=f"step {step + 1}", xticks=[], yticks=[])

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "spikes.png")
print(f"written: {folder / 'spikes.png'}")
