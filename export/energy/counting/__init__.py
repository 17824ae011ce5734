"""Exact operation counts of one batch, from a network's structure and its spikes."""
