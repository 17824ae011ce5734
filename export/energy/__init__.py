"""Energy of a spiking network: exact operation counts from its NIR graph and its spikes, and their
price on several devices.

report = estimate(zoo.load("danet20-t4"), images, labels, convention="exact", profile="45nm-fp32")
report.print(Console()); report.to_json(); report.to_html()

graph ----- structure --> layers --+
                                   +-- count --> rows -- convention --> operations -- profile --> picojoules
model, .onnx, .nir -- run --> spikes -+
"""

from export.energy.comparison import Alternative, compare
from export.energy.conventions import CONVENTIONS, Convention
from export.energy.counting.count import COUNTS, LayerCounts, count, dense_macs
from export.energy.counting.events import trains_needed
from export.energy.counting.spikes import Spikes
from export.energy.estimation import EnergyReport, estimate
from export.energy.executors import Executor, NirExecutor, Source, TorchExecutor, executor
from export.energy.profiles import Band, Operation, Profile, Term, find_profiles, read_profiles
from export.energy.report import EnergyCounts
from export.energy.structure import Layer, structure
from export.energy.totals import Energy, Interval, LayerTotals, Tally, Totals, energy

__all__ = [
    "CONVENTIONS",
    "COUNTS",
    "Alternative",
    "Band",
    "Convention",
    "Energy",
    "EnergyCounts",
    "EnergyReport",
    "Executor",
    "Interval",
    "Layer",
    "LayerCounts",
    "LayerTotals",
    "NirExecutor",
    "Operation",
    "Profile",
    "Source",
    "Spikes",
    "Tally",
    "Term",
    "TorchExecutor",
    "Totals",
    "compare",
    "count",
    "dense_macs",
    "energy",
    "estimate",
    "executor",
    "find_profiles",
    "read_profiles",
    "structure",
    "trains_needed",
]
