"""`zoo check`: whether a network fits a neuromorphic chip."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from zoo import terminal
from zoo.cli.images import bundled_pair
from zoo.cli.networks import check_export_package, read_nir, refuse_file
from zoo.cli.options import (
    NIR_DT,
    Commands,
    Options,
    add_command,
    add_dt,
    add_json,
    add_network,
    add_weights,
)
from zoo.cli.output import check_output_page, note, print_json
from zoo.errors import InputError, ZooError
from zoo.provenance import WeightFormat

if TYPE_CHECKING:
    from nir import NIRGraph

    from export.targets.result import Check
    from zoo.danet import DANet

__all__ = ["CheckOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """The options of `zoo check`."""

    name: str
    target: str | None  # a chip, or all; None: all in short
    weights: WeightFormat
    dt: float | None  # seconds
    html: Path | None
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo check`."""
    summary = "say whether a network fits a neuromorphic chip, and why not"
    parser = add_command(commands, "check", summary, CheckOptions, run)
    add_json(parser)
    add_network(parser, "name", "or a .nir file of any tool")
    text = (
        "print what fits and what does not on speck2e, loihi1, loihi2, spinnaker2, xylo, akida1, "
        "truenorth, or all of them (default: a line for each)"
    )
    parser.add_argument("--target", metavar="CHIP", help=text)
    add_weights(parser)
    add_dt(parser)
    text = "also write the report to this file, as one page for a browser"
    parser.add_argument("--html", type=Path, metavar="FILE", help=text)


@dataclass(frozen=True)
class _Network:
    """A network that is compared with chips."""

    graph: "NIRGraph"
    name: str
    provenance: str  # trained, converted, random or unknown
    weight_format: str
    # whether no neuron fires on a few images or noise; None where it cannot be run
    silent: bool | None

    @property
    def weights_in_words(self) -> str:
        """Return how the weights came to be and how they are rounded, in words."""
        from zoo.provenance import provenance_in_words

        return provenance_in_words(self.provenance, self.weight_format)


def run(options: CheckOptions) -> int:
    """Compare a network with the published limits of chips; the status is 1 if one is exceeded."""
    check_export_package()
    from export.targets.checker import check
    from export.targets.limits import targets
    from zoo.silence import NO_SPIKES

    check_output_page("--html", options.html)
    network = _load(options)
    chips = targets() if options.target in (None, "all") else [options.target]
    with terminal.status(f"checking {network.name}"):
        checks = [check(network.graph, chip, dt=options.dt) for chip in chips]
    if options.html:
        _write_page(network, checks, options.html)
    if network.silent:
        note(f"{network.name}: {NO_SPIKES}")
    if options.json:
        print_json(
            {
                "name": network.name,
                "about": network.weights_in_words,
                "weights": network.provenance,
                "precision": network.weight_format,
                "silent": network.silent,
                "checks": [check.to_json() for check in checks],
            }
        )
    else:
        _print(network, checks, options)
    return 0 if all(check.fits for check in checks) else 1


def _print(network: _Network, checks: "Sequence[Check]", options: CheckOptions) -> None:
    from export.targets.output import terminal as tables

    print(f"{network.name}: {network.weights_in_words}")
    console = terminal.console()
    if len(checks) > 1:
        tables.summary(checks, console)
    if options.target:
        for check in checks:
            tables.render(check, console)
    else:
        print("each layer, and what would make it fit: --target CHIP, or a page with --html FILE")
    if options.html:
        print(f"written to {options.html}")


def _write_page(network: _Network, checks: "Sequence[Check]", path: Path) -> None:
    from export.targets.output import html
    from zoo.files import write_text
    from zoo.silence import NO_SPIKES, assumed_dt

    head = [f"{network.weights_in_words[0].upper()}{network.weights_in_words[1:]}."]
    if network.silent:
        head.append(f"Note: {NO_SPIKES}.")
    if checks[0].assumed_dt:
        head.append(f"Note: {assumed_dt(checks[0].assumed_dt)}.")
    write_text(path, html.render(checks, network.name, head))


def _load(options: CheckOptions) -> _Network:
    """Load the network of a `.nir` file, a name or a folder."""
    if options.name.endswith(".nir"):
        return _load_nir(options)
    options.only_for(NIR_DT, "dt")
    return _load_model(options)


def _load_nir(options: CheckOptions) -> _Network:
    if options.weights != "float32":
        raise InputError(
            f"--weights {options.weights} rounds a model: "
            "give its name, or the .nir file as it is to be checked"
        )
    from export.metadata import Metadata

    graph = read_nir(options.name, options.dt)
    metadata = Metadata.from_graph(graph)
    return _Network(
        graph,
        name=Path(options.name).name,
        provenance=metadata.provenance,
        weight_format=metadata.get_weight_format("as stored"),
        silent=_is_graph_silent(graph, options.dt),
    )


def _load_model(options: CheckOptions) -> _Network:
    from export.nir.exporter import to_nir
    from export.prepare.quantize import quantize_weights
    from zoo.hub import is_location
    from zoo.provenance import provenance_of

    name = options.name
    refuse_file(name, "a .nir file")
    untrained = not is_location(name) and zoo.info(name).weights is None
    model = zoo.create(name).eval() if untrained else zoo.load(name)
    model = quantize_weights(model, options.weights)
    origin = model.known_origin
    return _Network(
        to_nir(model, dialect="native"),
        name=origin.name,
        provenance=provenance_of(origin),
        weight_format=origin.weight_format,
        silent=_is_model_silent(model),
    )


def _is_model_silent(model: "DANet") -> bool:
    """Return whether no neuron fires on two bundled images, or on noise if none are bundled."""
    import torch

    from export.prepare.fold import noise
    from zoo.silence import watch_spikes

    images, has_fired = bundled_pair(model), watch_spikes(model)
    if images is None:
        images = noise(model, 1)
    with torch.inference_mode():
        model(images)
    return not has_fired()


def _is_graph_silent(graph: "NIRGraph", dt: float | None) -> bool | None:
    """Return whether no neuron fires on the noise that `export.onnx.from_nir` verifies with.

    Return None for a graph that cannot be run.
    """
    from export.onnx.from_nir import noise_spikes
    from zoo.silence import is_silent

    try:
        return is_silent(noise_spikes(graph, dt=dt))
    except ZooError:
        return None
