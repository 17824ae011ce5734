"""What a model becomes: a NIR graph, an ONNX file, a verification, an energy figure.

`export` imports `zoo`, never the other way.
"""

PROJECT = "danet-zoo"  # by which the command tells this package from another of the same name
