"""A model made ready for every export: traced, BatchNorms folded in, weights rounded."""
