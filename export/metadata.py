"""The metadata of exported files, ONNX and NIR: their keys, their literals, and how to read them.

    name             of the network
    config           its `DANetConfig`, as JSON (ONNX)
    form             `sequence` or `step` (ONNX)
    steps            its number of time steps, T
    data             its `DatasetSpec`, as JSON
    weights_sha256   the digest of the weights before any rounding; empty for random weights
    precision        the `WeightFormat` of its weights
    zoo_version      of the zoo that wrote the file
    dt               seconds a time step (NIR, and ONNX made of it)
    dialect          how the graph is written: `portable`, `native` or `subtract` (NIR); older files
                     call it `profile`
    sums             how sums are written (NIR)
    input, readout   what the graph reads, and how its logits are read from it (NIR)
    modules          the modules that a node stands for, where these are not its own kind (NIR)

All values are text in ONNX; in NIR `dt` and `steps` are numbers. A file of somebody else may have
any of these keys with another meaning, so an entry is parsed when it is asked for, and not before.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

import zoo
from zoo.datasets import DatasetSpec
from zoo.errors import ExportError, InputError, first_line
from zoo.integrity import digest
from zoo.provenance import WEIGHT_FORMATS, provenance_of_digest

if TYPE_CHECKING:
    import nir

    from zoo.danet import DANet

__all__ = [
    "BINARY_EVENTS",
    "CURRENTS",
    "EVENTS",
    "MEAN_OVER_STEPS",
    "STILL_IMAGE",
    "Form",
    "Metadata",
]

# The kinds of input: one image at every step; counts of events, which may be bounded by 1; and
# real-valued currents.
STILL_IMAGE, EVENTS, CURRENTS = "still image, every step", "events", "currents"
BINARY_EVENTS = "binary events"
MEAN_OVER_STEPS = "mean over steps"  # the readout of every network of the zoo
DIALECTS = ("portable", "native", "subtract")
Form = Literal["sequence", "step"]  # all time steps in one ONNX graph, or one

# what a parser raises for text or JSON of another kind than it expects
UNPARSED = (ValueError, TypeError, AttributeError, RecursionError)
T = TypeVar("T")


@dataclass(frozen=True)
class Metadata:
    """The metadata of one exported file or graph.

    A property raises `InputError`, in one line that begins with `source`, for an entry that is
    missing, or is not what the zoo writes there.
    """

    entries: Mapping[str, Any]
    source: str = "the file"  # its path, for messages

    @classmethod
    def of_onnx(cls, model: "DANet", form: Form) -> "Metadata":
        """Return the metadata of the ONNX file of `model` in this form."""
        origin = model.known_origin
        return cls(
            {
                "name": origin.name,
                "config": json.dumps(model.config.to_dict()),
                "form": form,
                "steps": model.config.steps,
                "data": json.dumps(origin.data.to_dict()),
                "weights_sha256": digest(origin.weights),
                "precision": origin.weight_format,
                "zoo_version": zoo.__version__,
            }
        )

    @classmethod
    def of_onnx_graph(cls, name: str, form: Form, dt: float) -> "Metadata":
        """Return the metadata of an ONNX file that is made of any NIR graph."""
        return cls({"name": name, "form": form, "dt": dt, "zoo_version": zoo.__version__})

    @classmethod
    def of_nir(
        cls, model: "DANet", *, dt: float, dialect: str, sums: str, modules: Mapping[str, str]
    ) -> "Metadata":
        """Return the metadata of the NIR graph of `model`."""
        origin = model.known_origin
        return cls(
            {
                "name": origin.name,
                "data": json.dumps(origin.data.to_dict()),
                "weights_sha256": digest(origin.weights),
                "precision": origin.weight_format,
                "zoo_version": zoo.__version__,
                "dt": dt,
                "steps": model.config.steps,
                "dialect": dialect,
                "sums": sums,
                "input": _input_kind(origin.data),
                "readout": MEAN_OVER_STEPS,
                "modules": json.dumps(dict(modules)),
            }
        )

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], source: str) -> "Metadata":
        """Return the metadata that an ONNX file at `source` holds as text."""
        return cls(dict(strings), source)

    @classmethod
    def from_graph(cls, graph: "nir.NIRGraph") -> "Metadata":
        """Return the metadata of a NIR graph, of the zoo or of somebody else."""
        return cls(graph.metadata, "the graph")

    def to_strings(self) -> dict[str, str]:
        """Return all entries as text, for an ONNX file."""
        return {key: str(value) for key, value in self.entries.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all entries, for a NIR graph."""
        return dict(self.entries)

    def with_entries(self, **entries: Any) -> "Metadata":
        """Return a copy in which these entries are added or replaced."""
        return Metadata({**self.entries, **entries}, self.source)

    @property
    def name(self) -> str:
        """Return the name of the network."""
        return str(self._entry("name"))

    @property
    def steps(self) -> int:
        """Return the number of time steps, T."""
        return self.parse("steps", int)

    @cached_property
    def data(self) -> DatasetSpec:
        """Return the data that the network takes."""
        return self.parse("data", _dataset)

    @property
    def weights_sha256(self) -> str:
        """Return the digest of the weights before any rounding; empty for random weights."""
        return str(self._entry("weights_sha256"))

    @property
    def weight_format(self) -> str:
        """Return the `WeightFormat` of the weights, unchecked."""
        return str(self._entry("precision"))

    @property
    def form(self) -> str:
        """Return the form of an ONNX file: `sequence`, unless it says otherwise."""
        return str(self.entries.get("form", "sequence"))

    @property
    def dt(self) -> str | None:
        """Return the time step in seconds as text; None where the file does not say it."""
        return str(self.entries["dt"]) if "dt" in self.entries else None

    @property
    def written_by_zoo(self) -> bool:
        """Return whether the file names the version of the zoo that wrote it."""
        return "zoo_version" in self.entries

    @property
    def is_of_model(self) -> bool:
        """Return whether an ONNX file is the export of a model, and not of a NIR graph."""
        return "config" in self.entries

    @property
    def provenance(self) -> str:
        """Return how the weights came to be, by their digest: a word of `zoo.provenance`."""
        sha256 = self.entries.get("weights_sha256")
        return provenance_of_digest(None if sha256 is None else str(sha256))

    @property
    def declared_steps(self) -> Any:
        """Return the steps of a graph, unchecked; None where it does not say them."""
        return self.entries.get("steps")

    @property
    def input_kind(self) -> str | None:
        """Return what a graph reads, as `STILL_IMAGE`; None where it does not say it."""
        return str(self.entries["input"]) if "input" in self.entries else None

    @property
    def still_image_steps(self) -> int:
        """Return at how many steps a graph takes the same image, to average its outputs.

        0 for a graph that does not say so.
        """
        steps = self.declared_steps
        still = (self.input_kind or "").startswith("still image")
        if not still or str(self.entries.get("readout")) != MEAN_OVER_STEPS:
            return 0
        return int(steps) if isinstance(steps, int | np.integer) and steps > 0 else 0

    @property
    def modules(self) -> dict[str, tuple[str, ...]]:
        """Return the modules that a node stands for, where these are not its own kind."""
        try:
            named = json.loads(self.entries.get("modules", "{}"))
            return {str(name): tuple(str(words).split()) for name, words in named.items()}
        except (AttributeError, TypeError, ValueError):
            raise InputError(
                f"{self.source}'s metadata `modules` must be JSON of an object, "
                "node -> names of modules"
            ) from None

    def get_name(self, default: str) -> str:
        """Return the name of the network, or `default` where the file does not say it."""
        return str(self.entries.get("name", default))

    def get_weights_sha256(self) -> str:
        """Return the digest of the weights; empty where the file does not say it, too."""
        return str(self.entries.get("weights_sha256", ""))

    def get_weight_format(self, default: str) -> str:
        """Return the `WeightFormat` of the weights, or `default` where the file does not say it."""
        return str(self.entries.get("precision", default))

    def get_data(self) -> DatasetSpec | None:
        """Return the data of a graph, None where it names none."""
        if "data" not in self.entries:
            return None
        try:
            return _dataset(self.entries["data"])
        except UNPARSED as error:
            reason = first_line(error)
        raise InputError(f"{self.source}'s metadata name no data set that can be used: {reason}")

    def parse(self, key: str, parse: Callable[[Any], T]) -> T:
        """Return what `parse` makes of an entry; raise `InputError` where it cannot."""
        entry = self._entry(key)
        try:
            return parse(entry)
        except UNPARSED as error:
            reason = first_line(error)
        raise InputError(f"{self.source} has metadata of no network: {reason}")

    def check_network(self, form: Form) -> None:
        """Raise `InputError` unless this is a network of the zoo, written in this form."""
        _ = self.name, self.steps, self.data, self.weights_sha256
        self.check_form(form)

    def check_form(self, form: Form) -> None:
        """Raise `InputError` for an ONNX file of another form."""
        if self.form != form:
            raise InputError(
                f"{self.source} is of the form {self.form}: "
                f"write another with `zoo export NAME --form {form}`"
            )

    def exported_dialect(self) -> str:
        """Return the dialect of a graph; raise `ExportError` where it is no export of the zoo."""
        older = "profile" in self.entries and "dialect" not in self.entries
        return self._choice("profile" if older else "dialect", DIALECTS)

    def exported_weight_format(self) -> str:
        """Return the weight format of a graph; raise `ExportError` for one that is none."""
        return self._choice("precision", WEIGHT_FORMATS)

    def time_differences(self, other: "Metadata") -> list[str]:
        """Return which of `dt` and `steps` are not those of `other`."""
        ours, others = (
            {key: np.asarray(metadata.entries.get(key)) for key in ("dt", "steps")}
            for metadata in (self, other)
        )
        return [key for key in ours if not np.array_equal(ours[key], others[key])]

    def _choice(self, key: str, valid: Iterable[str]) -> str:
        word = self.entries.get(key)
        if not isinstance(word, str) or word not in valid:
            raise ExportError(
                f"{self.source}'s metadata say {key} = {word!r}; "
                f"an export of the zoo says one of {', '.join(valid)}"
            )
        return word

    def _entry(self, key: str) -> Any:
        if key not in self.entries:
            raise InputError(
                f"{self.source} has no metadata {key!r}: it is none of the zoo's, or an old one; "
                "write it with `zoo export NAME --to onnx`"
            )
        return self.entries[key]


def _input_kind(data: DatasetSpec) -> str:
    if not data.events:
        return STILL_IMAGE
    return BINARY_EVENTS if data.max_count == 1 else EVENTS


def _dataset(text: Any) -> DatasetSpec:
    return DatasetSpec.from_dict(json.loads(str(text)))
