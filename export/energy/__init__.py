"""Energy of a spiking network: exact counts of its operations, and their price on several devices.

    report = estimate(zoo.load("danet20-t4"), images, labels, device="45nm-fp32")
    report.print(Console()); report.to_json(); report.to_html()

The counts follow from the NIR graph of a network and from its spikes:

    graph -- read_structure --> layers --+
                                         +-- count --> rows -- convention --> operations
    model, .onnx, .nir -- run --> spikes -+                                       |
                                                          picojoules <-- device --+
"""

from export.energy.comparison import Alternative, compare
from export.energy.conventions import CONVENTIONS, Convention
from export.energy.counting.count import COUNTS, LayerCounts, count, dense_macs
from export.energy.counting.events import trains_needed
from export.energy.counting.spikes import Spikes
from export.energy.devices import Band, Device, Term, find_devices, read_devices
from export.energy.estimation import estimate
from export.energy.executors import Executor, NirExecutor, Source, TorchExecutor, executor
from export.energy.operations import Operation
from export.energy.report import EnergyReport
from export.energy.results import EnergyResults
from export.energy.structure import LayerStructure, read_structure
from export.energy.totals import Energy, Interval, LayerTotals, OperationCounts, Totals, price

__all__ = [
    "CONVENTIONS",
    "COUNTS",
    "Alternative",
    "Band",
    "Convention",
    "Device",
    "Energy",
    "EnergyReport",
    "EnergyResults",
    "Executor",
    "Interval",
    "LayerCounts",
    "LayerStructure",
    "LayerTotals",
    "NirExecutor",
    "Operation",
    "OperationCounts",
    "Source",
    "Spikes",
    "Term",
    "TorchExecutor",
    "Totals",
    "compare",
    "count",
    "dense_macs",
    "estimate",
    "executor",
    "find_devices",
    "price",
    "read_devices",
    "read_structure",
    "trains_needed",
]
