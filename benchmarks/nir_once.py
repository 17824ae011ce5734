"""One export of a model to NIR in a process of its own, so that its peak memory is its own:
seconds, GB, file against weights.

python benchmarks/nir_once.py danet152-t4.in1k
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
        exported = _gigabytes()
        nodes, edges = len(graph.nodes), len(graph.edges)
        del graph
        with timed("read"):
            read = read_nir(path)
        with timed("verify"):
            result = verify_graph(model, read)
        with timed("trains"):
            write_trains(result.inputs, result.trains, path.with_suffix(".trains"))
        size = path.stat().st_size
    print(
        json.dumps(
            {
                "name": name,
                "nodes": nodes,
                "edges": edges,
                "seconds": seconds,
                "export_seconds": round(seconds["translate"] + seconds["write"], 2),
                "all_seconds": round(sum(seconds.values()), 2),
                "export_peak_gb": exported,
                "peak_gb": _gigabytes(),
                "file_over_weights": round(size / weights, 3),
                "verified": result.ok,
            }
        )
    )


def _gigabytes() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


if __name__ == "__main__":
    main(sys.argv[1])
