"""How a model gets its card and its place in the manifest, and how it is pushed to the Hub."""
