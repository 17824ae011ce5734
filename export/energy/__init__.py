"""Energy of a spiking network: exact operation counts from its NIR graph and its spikes, and their price on several devices.

report = energy_report(zoo.load("danet20-t4"), images, labels)
report.print(Console()); report.to_json(); report.to_html()

graph -- structure --> layers --+
                                +-- count --> rows -- energy(profile) --> picojoules
model -- run_torch --> spikes --+
"""

from export.energy.conventions import CONVENTIONS, Convention
from export.energy.counting import LayerCounts, count, dense_macs, merge
from export.energy.executors import run_torch
from export.energy.profiles import Band, Energy, Profile, Term, energy, read_profiles
from export.energy.report import EnergyReport, energy_report
from export.energy.spikes import SpikeMaps
from export.energy.structure import Layer, structure

__all__ = [
    "CONVENTIONS",
    "Band",
    "Convention",
    "Energy",
    "EnergyReport",
    "Layer",
    "LayerCounts",
    "Profile",
    "SpikeMaps",
    "Term",
    "count",
    "dense_macs",
    "energy",
    "energy_report",
    "merge",
    "read_profiles",
    "run_torch",
    "structure",
]
