"""Checks whether a NIR graph fits a neuromorphic chip, layer by layer, against published limits.

export.check(graph, "speck2e")
"""
