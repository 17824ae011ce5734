"""Export one network to NIR once, verify it, and print as JSON what it took.

    python benchmarks/nir_once.py danet152-t4.in1k

It prints the seconds of every part, the peak memory of the process in GB after the export and at
the end, and the size of the file over that of the weights in float32.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zoo
from export.nir.exporter import to_nir
from export.nir.reader import read_nir
from export.nir.verify import verify_graph
from export.nir.writer import write_graph, write_trains


def main(name: str) -> None:
    """Export the network, read it back, verify it, and print the figures."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[what] = round(time.perf_counter() - start, 2)

    model = zoo.create(name).eval()
    weights = sum(4 * p.numel() for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        with timed("translate"):
            graph = to_nir(model)
        with timed("write"):
            write_graph(graph, path)
        export_peak = _gigabytes()
        nodes, edges = len(graph.nodes), len(graph.edges)
        del graph  # so that the peak of the rest is not raised by it
        with timed("read"):
            read = read_nir(path)
        with timed("verify"):
            result = verify_graph(model, read)
        with timed("trains"):
            write_trains(result.inputs, result.trains, path.with_suffix(".trains"))
        size = path.stat().st_size
    figures = {
        "name": name,
        "nodes": nodes,
        "edges": edges,
        "seconds": seconds,
        "export_seconds": round(seconds["translate"] + seconds["write"], 2),
        "all_seconds": round(sum(seconds.values()), 2),
        "export_peak_gb": export_peak,
        "peak_gb": _gigabytes(),
        "file_over_weights": round(size / weights, 3),
        "verified": result.ok,
    }
    print(json.dumps(figures))


def _gigabytes() -> float:
    """Return the peak memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


if __name__ == "__main__":
    main(sys.argv[1])
