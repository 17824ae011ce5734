"""The model made ready for every export: its trace, BatchNorms folded into convolutions, weights
rounded.
"""
