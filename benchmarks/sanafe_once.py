"""Run one layer on SANA-FE's description of Loihi, and write as JSON what it counted.

    .venv-sanafe/bin/python benchmarks/sanafe_once.py LAYER.npz ANSWER.json

`loihi_sanafe.py` calls it, in an environment that has SANA-FE and numpy; nothing of the zoo is
imported here. SANA-FE's model of Loihi takes a step to bring an event to a membrane: what arrives
at step t is integrated at step t + 1. So the chip runs for one step more than the recording has,
and what the neurons cost at the first step, at which nothing can have arrived, is left out.

Shapes: `N` images, `T` time steps, `E` connections.
"""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sanafe

CORE_NEURONS = 1024  # that a core of Loihi holds
# The unit for connections that share the weights of a kernel; the others are dense and sparse.
SYNAPSE = "loihi_conv_synapse"
# SANA-FE rounds membranes to 1/64 as integers of 32 bits. Times 2^16 the step is 2^-22 of a
# threshold of 1, and membranes of up to 512 still fit.
SCALE = 2.0**16

Recording = dict[str, np.ndarray]


def main(recording: str, answer: str) -> None:
    """Run every image of a recording, each on a chip of its own, and write what was counted."""
    with np.load(recording) as file:
        layer: Recording = dict(file)
    arch = sanafe.load_loihi()
    network = build(layer, arch.cores())
    images = [run(arch, network, layer, spikes) for spikes in layer["spikes"]]
    found = {"version": version("sanafe"), "images": images}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


def build(layer: Recording, cores: list[Any]) -> Any:
    """Return the network: inputs that replay spikes, neurons, and one edge per connection.

    The inputs fill the first cores, the neurons those after them.
    """
    inputs, neurons = layer["spikes"].shape[2], len(layer["biases"])
    network = sanafe.Network()
    before = network.create_neuron_group("inputs", inputs)
    after = network.create_neuron_group(
        "neurons",
        neurons,
        model_attributes={
            "threshold": SCALE * float(layer["threshold"]),
            "leak_decay": float(layer["decay"]),
            "reset_mode": str(layer["reset"]),
        },
        soma_hw_name="loihi_lif",
        default_synapse_hw_name=SYNAPSE,
        log_spikes=True,
    )
    for i, position in enumerate(layer["input_positions"].tolist()):
        core, unit = divmod(position, CORE_NEURONS)
        before[i].set_attributes(soma_hw_name=f"loihi_inputs[{unit}]")
        before[i].map_to_core(cores[core])
    taken = math.ceil(inputs / CORE_NEURONS)
    for i, position in enumerate(layer["neuron_positions"].tolist()):
        after[i].map_to_core(cores[taken + position // CORE_NEURONS])
    pairs = list(zip(layer["sources"].tolist(), layer["targets"].tolist(), strict=True))
    before.connect_neurons_sparse(after, {"weight": (SCALE * layer["weights"]).tolist()}, pairs)
    return network


def run(arch: Any, network: Any, layer: Recording, spikes: np.ndarray) -> dict[str, Any]:
    """Return counts and joules of one image, whose input spikes are `[T, inputs]`."""
    chip = sanafe.SpikingChip(arch)
    chip.load(network)
    for neuron, train in zip(chip.mapped_neuron_groups["inputs"], spikes.T, strict=True):
        neuron.set_attributes(model_attributes={"spikes": train.tolist()})
    options = {"spike_trace": True, "perf_trace": True, "processing_threads": 1}
    start = chip.sim(1, **options)
    # Only from here on, or a bias would come a step before the first event.
    for neuron, bias in zip(chip.mapped_neuron_groups["neurons"], layer["biases"], strict=True):
        if bias:
            neuron.set_attributes(model_attributes={"bias": SCALE * float(bias)})
    rest = chip.sim(len(spikes), **options)
    both = (start, rest)
    return {
        "synaptic_events": sum(sum(part["perf_trace"]["spikes"]) for part in both),
        "hops": sum(sum(part["perf_trace"]["hops"]) for part in both),
        "messages": sum(part["packets_sent"] for part in both),
        # An input that replays a spike counts as a neuron that is updated.
        "updates": sum(part["neurons_updated"] for part in both) - int(spikes.sum()),
        "fired": [sorted(neuron.neuron_offset for neuron in step) for step in rest["spike_trace"]],
        "joules": {
            "synapses": sum(part["energy"]["synapse"] for part in both),
            "neurons": rest["energy"]["soma"] + rest["energy"]["dendrite"],
            "messages": sum(part["energy"]["network"] for part in both),
        },
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
