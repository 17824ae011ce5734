"""An energy figure for a paper: counted exactly, by several conventions, with its uncertainty.

python examples/energy.py [FOLDER]     writes energy.html and energy.png there
"""

# %% count: integers, per layer and image
import sys
from pathlib import Path

from matplotlib.figure import Figure

import export
import zoo
from zoo.samples import samples

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
model = zoo.load("danet20-t4.fmnist")
pixels, labels = samples("fmnist")
report = export.estimate(model, model.transform(list(pixels)), labels, device="45nm-fp32")
(folder / "energy.html").write_text(report.to_html(), encoding="utf-8")

# %% the sentence that a reviewer can check
print(report.quote())

# %% the same spikes by every published convention: why a figure has to name its own
device = report.devices[0]
microjoules = {
    name: energy.total.typ / 1e6
    for name in report.operations
    if (energy := report.energy(device, name)).total
}
for name, value in microjoules.items():
    print(f"{name:>10}: {value:8.1f} microjoules an image")

# %% where the energy goes
bands = report.energy(device).layers
share = {
    layer.name: band.typ / 1e6 for layer, band in zip(report.layers, bands, strict=True) if band
}
figure = Figure(figsize=(9, 3.5), dpi=110, layout="constrained")
axes = figure.add_subplot()
axes.bar(list(share), list(share.values()), color="#0072b2")
axes.tick_params(axis="x", rotation=90, labelsize=5)
axes.set(title=f"{report.source.name} on {device.name}", ylabel="microjoules an image")
figure.savefig(folder / "energy.png")
print(f"written: {folder / 'energy.html'}, {folder / 'energy.png'}")
