"""Does a NIR graph fit a neuromorphic chip, layer by layer, against published limits:
`export.check(graph, "speck2e")`.
"""
