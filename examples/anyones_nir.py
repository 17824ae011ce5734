"""Read a NIR file of someone else, train it, export it to ONNX, and count its energy.

python examples/anyones_nir.py [FOLDER]     writes theirs.nir and theirs.onnx there
"""

# %% a file as another tool would write it: two layers of leaky neurons
import sys
from pathlib import Path

import nir
import numpy as np
import torch

import export
import zoo
from export.onnx.from_nir import write_nir_onnx

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
random = np.random.default_rng(0)


def leaky(neurons: int) -> nir.LIF:
    ones = np.ones(neurons, np.float32)
    return nir.LIF(tau=2e-3 * ones, r=8 * ones, v_leak=0 * ones, v_threshold=ones)


def weights(rows: int, columns: int) -> nir.Affine:
    matrix = random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
    return nir.Affine(matrix, np.zeros(rows, np.float32))


layers = [weights(64, 20), leaky(64), weights(5, 64), leaky(5)]
graph = nir.NIRGraph.from_list(*layers)
graph.metadata["dt"] = 1e-3  # seconds a step; without it, it is assumed and said
nir.write(folder / "theirs.nir", graph)

# %% as a network of snnTorch neurons, which trains: more spikes of neuron 0, for an example
net = zoo.from_nir(folder / "theirs.nir")
frames = (torch.rand(25, 8, 20, generator=torch.Generator().manual_seed(0)) < 0.3).float()
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(20):
    rates = net(frames).mean(0)  # [T, B, K] -> [B, K]
    loss = torch.nn.functional.cross_entropy(10 * rates, torch.zeros(8, dtype=torch.long))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss after 20 steps: {loss.item():.2f}")

# %% their file as ONNX, compared node by node with an interpreter of NIR
print(write_nir_onnx(export.read_nir(folder / "theirs.nir"), folder / "theirs.onnx", name="theirs"))

# %% and counted: what a step of it would cost on a published device
report = export.estimate(folder / "theirs.nir", frames.int(), device="45nm-fp32")
print(report.quote())
