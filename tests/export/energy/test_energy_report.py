import ast
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from support.networks import lively

import export
import export.energy
from export.energy import COUNTS, estimate
from export.nir.exporter import DT
from zoo.errors import ConfigError, InputError

DOCS = Path(__file__).parents[3] / "docs/energy.md"


@pytest.fixture(scope="module")
def images():
    return torch.randn(10, 1, 20, 20, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def report(tiny, images):
    with torch.no_grad():
        labels = tiny(images).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    return estimate(tiny, images, labels, batch=2)


def by_hand():
    """The network of docs/energy.md, and its two frames."""
    shape = (2, 3, 3)
    ones = np.ones(shape, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([1, 3, 3])}),
        "conv": nir.Conv2d(
            (3, 3), np.ones((2, 1, 3, 3), np.float32), 1, 1, 1, 1, np.zeros(2, np.float32)
        ),
        "lif": nir.LIF(
            tau=ones * DT * 1.001, r=ones, v_leak=0 * ones, v_threshold=ones / 2, v_reset=0 * ones
        ),
        "flat": nir.Flatten({"input": np.array(shape)}, 0, -1),
        "matrix": nir.Linear(np.ones((2, 18), np.float32)),
        "output": nir.Output({"output": np.array([2])}),
    }
    frames = torch.zeros(2, 1, 1, 3, 3, dtype=torch.int64)
    frames[0, 0, 0, 0, 0] = frames[1, 0, 0, 1, 1] = 1
    return nir.NIRGraph(
        nodes, list(zip(nodes, list(nodes)[1:], strict=False)), metadata={"input": "events"}
    ), frames


def test_the_example_of_the_documentation():
    graph, frames = by_hand()
    report = export.estimate(graph, frames, steps=2, device="45nm-fp32")
    conv, lif, matrix = report.layers
    assert (conv.counts["acs"], lif.counts["spikes"], matrix.counts["acs"]) == (26, 26, 52)
    assert (lif.counts["updates"], lif.counts["updates_with_input"]) == (36, 26)
    assert (conv.dense_macs_padded, conv.dense_macs_valid, conv.events, lif.step_spikes) == (
        162,
        2 * 49,
        (2,),
        (8, 18),
    )
    text = DOCS.read_text()
    for convention in ("exact", "spikformer"):
        (line,) = re.findall(rf"{convention}  .* = ([\d.]+) pJ", text)
        assert report.energy(report.devices[0], convention).total.typ == pytest.approx(float(line))
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        ast.parse(code)


def test_the_device_of_the_documentation(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.S)
    (tmp_path / "my.toml").write_text(text)
    graph, frames = by_hand()
    report = estimate(graph, frames, steps=2, device=tmp_path / "my.toml")
    assert report.energies[0].total is not None  # it prices all that a network needs
    assert [e.device.name for e in report.energies] == ["my chip"]


def test_report(report):
    assert report.accuracy == 0.9
    assert (report.source.name, report.images, report.steps, report.data) == (
        "danet20-t2.fmnist",
        10,
        2,
        "Fashion-MNIST",
    )
    assert sum(report.mean_step_rates) / 2 == pytest.approx(report.mean_rate)
    assert report.priced.device.name == "45nm-fp32"
    assert {e.device.name: e.unpriced for e in report.energies}["loihi1"] == ("mac",)
    with pytest.raises(FrozenInstanceError):
        report.images = 1


def test_the_energy_is_that_of_the_layers_and_of_the_images(report):
    for e in report.energies:
        if e.total:
            assert e.total.typ == pytest.approx(sum(band.typ for band in e.layers))
            assert e.interval.lo <= e.total.typ <= e.interval.hi
    exact = report.operations["exact"]
    for operation, counts in exact.by_image.items():
        assert counts.dtype == np.int64 and len(counts) == report.images
        assert counts.sum() == sum(layer.get(operation, 0) for layer in exact.by_layer)


def test_batches_are_streamed(tiny, images, report):
    """A generator of batches, which nobody holds, gives the same integers."""
    answers = report.layers
    streamed = estimate(tiny, ((images[i : i + 1], None) for i in range(10)))
    assert streamed.layers == answers and streamed.accuracy is None
    assert [e.total for e in streamed.energies] == [e.total for e in report.energies]
    assert [e.interval for e in streamed.energies] == [e.interval for e in report.energies]


def test_folding_batchnorm_changes_no_accumulate(images):
    """The exported graph is folded; the same network without anything to fold has the same synaptic
    operations.
    """
    from export.prepare.fold import fold

    model = lively("danet20-t2.fmnist", 20, widths=(4, 6, 8))
    plain = fold(model)
    plain.origin = model.origin
    one, two = (estimate(m, images) for m in (model, plain))
    assert {layer.name: layer.counts["acs"] for layer in one.layers} == {
        layer.name: layer.counts["acs"] for layer in two.layers
    }


def test_progress_and_labels_as_a_list(tiny, images):
    seen = []
    report = estimate(tiny, images[:3], [0, 0, 0], batch=2, progress=seen.append)
    assert seen == [2, 3]
    assert report.accuracy in (0.0, 1 / 3, 2 / 3, 1.0)


def test_the_model_keeps_its_mode(tiny, images):
    tiny.train()
    estimate(tiny, images[:1])
    assert tiny.training
    tiny.eval()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(1, 20, 20),),
            r"input of shape \[1, 20, 20\]: danet20-t2.fmnist takes \[B, 1, 20, 20\]",
        ),
        ((torch.zeros(0, 1, 20, 20),), "there are no images to count"),
        (([],), "there are no images to count"),
        ((torch.zeros(2, 1, 20, 20), torch.zeros(3)), r"labels \[3\]"),
        ((torch.zeros(2, 3, 20, 20),), r"takes \[B, 1, 20, 20\]"),
        ((torch.full((1, 1, 20, 20), torch.nan),), "NaN or infinite"),
        (
            ([(torch.zeros(1, 1, 20, 20), None)], [0]),
            "batches have labels, and a size, of their own",
        ),
    ],
)
def test_images_that_do_not_fit(tiny, arguments, message):
    with pytest.raises(InputError, match=message):
        estimate(tiny, *arguments)


def test_words_that_do_not_exist(tiny, images):
    with pytest.raises(
        ConfigError,
        match="convention 'honest': no such one; valid are exact, spikformer, sew, syops, lemaire",
    ):
        estimate(tiny, images, convention="honest")
    for word in ("device", "profile"):  # two words for the same
        with pytest.raises(ConfigError, match="device 'abacus': no such one; valid are 45nm-fp32"):
            estimate(tiny, images, **{word: "abacus"})
    with pytest.raises(ConfigError, match="device and profile are two words for the same"):
        estimate(tiny, images, device="45nm-fp32", profile="45nm-fp32")


def test_a_profile_is_a_device(tiny, images):
    one, two = (estimate(tiny, images[:1], **{word: "odin"}) for word in ("device", "profile"))
    assert one.devices == two.devices and one.energies == two.energies


def test_counts_are_integers(report):
    for layer in report.layers:
        assert layer.counts.keys() == set(COUNTS)
        assert all(
            type(n) is int and n >= 0
            for n in (*layer.counts.values(), *layer.events, *layer.step_spikes)
        )


def test_public_names():
    for name in export.energy.__all__:
        assert getattr(export.energy, name).__doc__ or name in ("CONVENTIONS", "COUNTS")
    assert export.EnergyReport is export.energy.EnergyReport
    with pytest.raises(AttributeError, match="no attribute 'guess'"):
        export.guess  # noqa: B018  # the access is the test
