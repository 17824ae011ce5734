"""Other simulators read our files and give the model's spikes, neuron for neuron.

Where one does not, it fails as docs/interop.md says.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import nir
import pytest
import torch
from interop.importers import IMPORTERS, read_by_norse, read_by_snntorch, run, versions
from interop.outcomes import (
    COLUMNS,
    MARGIN,
    NETWORKS,
    NEURONS,
    SHORT,
    VERSIONS,
    Network,
    Neuron,
    Refused,
    Wrong,
    networks_table,
    neurons_table,
)
from snntorch.utils import reset
from support.networks import exact, lively
from torch import Tensor, nn

from export.nir.exporter import Dialect, node_name, to_nir
from export.nir.writer import write_graph
from export.prepare.fold import still_image
from zoo.danet import DANet
from zoo.neurons import Lif

DOCS = Path(__file__).parents[2] / "docs/interop.md"
EXACT_IMPORTERS = [importer for importer in COLUMNS if importer != "Norse"]
NAMED = [(network, steps, size) for network in NETWORKS for steps, size in network.cases]


@dataclass(frozen=True)
class Reference:
    """A network's graph, and what the model computes in float64."""

    graph: nir.NIRGraph
    images: Tensor  # [B, C, H, W]
    logits: Tensor  # [B, K]
    spikes: dict[str, Tensor]  # [T, B, ...], by the node of the neuron


@cache
def reference(
    name: str, size: int, config: tuple[tuple[str, Any], ...], dialect: Dialect = "portable"
) -> Reference:
    """Return a network with images for which no membrane lies near its threshold."""
    model = lively(name, size, **dict(config))
    graph = to_nir(model, dialect=dialect)
    shape = still_image(model, 3).shape
    model.double()
    for seed in range(50):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        logits, spikes, distances = computed(model, images.double())
        if min(float(distance.min()) for distance in distances.values()) > MARGIN:
            lively_layers = [bool(train.any() and not train.all()) for train in spikes.values()]
            assert all(lively_layers), "a layer is silent or never silent"
            return Reference(graph, images, logits, spikes)
    raise AssertionError(f"{name}: with every image a membrane is within {MARGIN} of its threshold")


def computed(model: DANet, images: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the logits, and by layer in order the spikes and the distances from the threshold.

    Spikes, and how far each membrane was from its threshold before the reset, are `[T, B, ...]`.
    """
    spikes: dict[str, Tensor] = {}
    distances: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(lif: Lif, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            current, train = (x.reshape(lif.steps, -1, *x.shape[1:]) for x in (inputs[0], out))
            spikes[name], distances[name] = train, threshold_distances(lif, current, train)

        return hook

    handles = []
    for path, module in model.named_modules():
        if isinstance(module, Lif):
            module.fused = False  # the fused path computes in float32
            handles.append(module.register_forward_hook(record(node_name(path))))
    with torch.inference_mode():
        logits = model(images)
    for handle in handles:
        handle.remove()
    return logits, spikes, distances


def threshold_distances(lif: Lif, current: Tensor, train: Tensor) -> Tensor:
    """Return the distance of every membrane from the threshold, from currents and spikes."""
    beta, threshold = lif.neuron.beta, lif.neuron.threshold
    v, distances = torch.zeros_like(current[0]), []
    for x, fired in zip(current, train, strict=True):
        v = v + x
        distances.append((v - threshold).abs())
        v = beta * v * (1 - fired) if lif.reset == "zero" else beta * v - threshold * fired
    return torch.stack(distances)


def first_differences(
    trains: Mapping[str, Tensor], spikes: dict[str, Tensor], distances: dict[str, Tensor]
) -> dict[int, float]:
    """Return how far from its threshold a membrane is where `trains` first differ from `spikes`.

    By image, of several membranes the farthest. All that they depend on is the same.
    """
    steps, images = next(iter(spikes.values())).shape[:2]
    first: dict[int, float] = {}
    for step in range(steps):
        for name, train in spikes.items():
            different = trains[name][step] != train[step]
            for image in set(range(images)) - first.keys():
                if different[image].any():
                    first[image] = float(distances[name][step, image][different[image]].max())
    return first


def written(graph: nir.NIRGraph, folder: Path) -> Path:
    path = folder / "model.nir"
    write_graph(graph, path)
    return path


@pytest.mark.parametrize("importer", COLUMNS)
@pytest.mark.parametrize(
    ("network", "steps", "size"), NAMED, ids=[f"{n.name}-t{t}{n.data}{n.note}" for n, t, _ in NAMED]
)
def test_networks(network: Network, steps: int, size: int, importer: str, tmp_path: Path) -> None:
    name, config = f"{network.name}-t{steps}{network.data}", tuple(network.config.items())
    expected = reference(name, size, config, network.dialect)
    path = written(expected.graph, tmp_path)
    outcome = network.outcomes[COLUMNS.index(importer)]
    if isinstance(outcome, Refused):
        with pytest.raises(outcome.error, match=outcome.message):
            run(IMPORTERS[importer](path), expected.images, steps)
        return
    accepted: tuple[type[Exception], ...] = outcome.error if isinstance(outcome, Wrong) else ()
    try:
        got = run(IMPORTERS[importer](path), expected.images, steps)
    except accepted:
        return
    different = {
        node: differing(got.nodes.get(node), train) for node, train in expected.spikes.items()
    }
    close = got.output.shape == expected.logits.shape and torch.allclose(
        got.output.double(), expected.logits, rtol=0, atol=1e-5
    )
    if outcome == "exact":
        assert not any(different.values()), different
        assert close
    else:
        assert any(different.values()) or not close, "no longer wrong"


def on_the_edge(model: DANet, images: Tensor) -> DANet:
    """Move the biases of the first layer so that a membrane lies at its threshold in every channel.

    It lies as near as float32 allows.
    """
    before = list(takewhile(lambda module: not isinstance(module, Lif), model.modules()))
    lif = next(module for module in model.modules() if isinstance(module, Lif))
    norm = [module for module in before if isinstance(module, nn.BatchNorm2d)][-1]
    currents: list[Tensor] = []  # at the first step
    handle = lif.register_forward_pre_hook(
        lambda _, inputs: currents.append(inputs[0][: len(images)].double())
    )
    with torch.inference_mode():
        model(images)
    handle.remove()
    below = (lif.neuron.threshold - currents[0]).transpose(0, 1).flatten(1)
    norm.bias.data += below.gather(1, below.abs().argmin(1, keepdim=True))[:, 0].to(norm.bias.dtype)
    return model


@pytest.mark.parametrize("importer", EXACT_IMPORTERS)
@pytest.mark.parametrize("name", ["danet20", "danet20b", "danet20c", "sew-resnet20"])
def test_spikes_first_differ_where_rounding_decides(
    name: str, importer: str, tmp_path: Path
) -> None:
    """Spikes agree on any image, except where a membrane lies on its threshold up to rounding.

    One spike more or less changes thousands behind it, so only the first of an image are compared.
    """
    compared = 0
    for seed, size in enumerate((9, 12, 16)):
        model = lively(f"{name}-t4.fmnist", size, **SHORT)
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 2 / module.weight[0].numel() ** 0.5, generator)
        images = torch.randn(still_image(model, 8).shape, generator=generator)
        path = written(to_nir(on_the_edge(model, images)), tmp_path)
        logits, spikes, distances = computed(model.double(), images.double())
        assert min(float(distance.min()) for distance in distances.values()) < MARGIN / 10
        got = run(IMPORTERS[importer](path), images, 4)
        differ = first_differences(got.nodes, spikes, distances)
        assert all(distance < MARGIN for distance in differ.values()), (seed, differ)
        same = [image for image in range(len(images)) if image not in differ]
        torch.testing.assert_close(got.output.double()[same], logits[same], rtol=0, atol=1e-5)
        compared += len(same)
    assert compared >= 12  # of 24: a network has four membranes on the edge


@pytest.mark.parametrize("importer", EXACT_IMPORTERS)
@pytest.mark.parametrize("name", ["danet20b", "danet20c"])
def test_membranes_exactly_on_the_threshold(name: str, importer: str, tmp_path: Path) -> None:
    """Where no sum is rounded, SpikingJelly alone differs: it fires at the threshold, not above."""
    model = exact(f"{name}-t4.fmnist", 12, **SHORT)
    images = torch.randint(-8, 9, still_image(model, 3).shape) / 4
    path = written(to_nir(model), tmp_path)
    _, spikes, distances = computed(model, images)
    assert any((distance == 0).any() for distance in distances.values())
    differ = first_differences(run(IMPORTERS[importer](path), images, 4).nodes, spikes, distances)
    assert set(differ.values()) == ({0.0} if importer == "SpikingJelly" else set())


def test_the_first_difference_is_found() -> None:
    spikes = {"a": torch.zeros(2, 3, 4), "b": torch.zeros(2, 3, 4)}
    distances = {"a": torch.full((2, 3, 4), 0.5), "b": torch.full((2, 3, 4), 0.25)}
    trains = {name: train.clone() for name, train in spikes.items()}
    assert first_differences(trains, spikes, distances) == {}
    # an earlier step comes before an earlier layer
    trains["a"][1, 0, 2], trains["b"][0, 0, 1], distances["b"][0, 0, 1] = 1, 1, 0.125
    trains["b"][1, 2], trains["a"][1, 2] = 1, 1
    assert first_differences(trains, spikes, distances) == {0: 0.125, 2: 0.5}


def differing(got: Tensor | None, train: Tensor) -> int:
    """Return how many spikes differ: all, where the shapes do or the neuron never ran."""
    if got is None or got.shape != train.shape:
        return train.numel()
    return int((got != train).sum())


@pytest.mark.parametrize("importer", COLUMNS)
@pytest.mark.parametrize("neuron", NEURONS, ids=[neuron.what for neuron in NEURONS])
def test_neurons(neuron: Neuron, importer: str, tmp_path: Path) -> None:
    path = written(one_node(neuron.node), tmp_path)
    outcome = neuron.outcomes[COLUMNS.index(importer)]
    if isinstance(outcome, Refused):
        with pytest.raises(outcome.error, match=outcome.message):
            IMPORTERS[importer](path)
    else:
        assert fired(IMPORTERS[importer](path), neuron.currents) == outcome


def one_node(node: nir.NIRNode) -> nir.NIRGraph:
    ends = {"input": nir.Input(node.input_type), "output": nir.Output(node.output_type)}
    return nir.NIRGraph({**ends, "node": node}, [("input", "node"), ("node", "output")])


def fired(module: torch.nn.Module, currents: tuple[float, ...]) -> str:
    """Return the second neuron's spikes as a string of digits."""
    return "".join(str(int(z)) for z in outputs(module, currents))


def outputs(module: torch.nn.Module, currents: tuple[float, ...]) -> Iterator[float]:
    state = None
    for current in currents:
        out, state = module(torch.full((1, 2, 1, 1), float(current)), state)
        yield out[0, 1].item()


def test_norse_needs_the_time_step(tmp_path: Path) -> None:
    path = written(one_node(NEURONS[0].node), tmp_path)
    assert fired(read_by_norse(path), (0.375,) * 4) == "0101"
    assert fired(read_by_norse(path, dt=1e-3), (0.375,) * 4) == "1111"  # each step counts as ten


def test_snntorch_keeps_its_state_until_it_is_told(tmp_path: Path) -> None:
    module = read_by_snntorch(written(one_node(NEURONS[0].node), tmp_path))
    assert fired(module, (0.375,) * 3) == "010"
    assert fired(module, (0.375,) * 3) == "101"
    reset(module)
    assert fired(module, (0.375,) * 3) == "010"


@pytest.mark.parametrize("title", ["snnTorch", "SpikingJelly", "Norse", "nirtorch"])
def test_the_documented_code_gives_the_logits(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference("danet20-t4.fmnist", 12, tuple(NETWORKS[0].config.items()))
    written(expected.graph, tmp_path)
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text()
    (load,) = re.findall(rf"^### {title}$.*?^```python$(.*?)^```$", text, re.S | re.M)
    (loop,) = re.findall(r"^## Running it$.*?^```python$(.*?)^```$", text, re.S | re.M)
    variables: dict[str, Any] = {"images": expected.images}
    exec(load + loop, variables)
    torch.testing.assert_close(variables["logits"].double(), expected.logits, rtol=0, atol=1e-5)


def test_the_documentation_says_what_was_measured() -> None:
    text = DOCS.read_text()
    assert networks_table() in text, networks_table()
    assert neurons_table() in text, neurons_table()
    for name, version in versions().items():
        assert version == VERSIONS[name], f"{name} {version} is not {VERSIONS[name]}: measure again"
        assert f"{name} {version}" in text
