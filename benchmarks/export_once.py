"""Export one network to ONNX once, and print as JSON what it took.

    python benchmarks/export_once.py danet152-t4 [--no-verify]

It prints seconds of CPU and wall time of the export, and the peak of resident memory of the whole
process in bytes: a peak cannot be taken back, so every export has a process of its own.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import zoo
from export.onnx.exporter import write_onnx


def main() -> None:
    """Export the network that the command line names."""
    description = "Export one network and print seconds and peak memory."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name")
    parser.add_argument("--no-verify", action="store_true")
    options = parser.parse_args()

    model = zoo.create(options.name).eval()
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        write_onnx(model, Path(folder) / "model.onnx", verify=not options.no_verify)
        seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps(seconds | {"peak": peak_memory()}))


def peak_memory() -> int:
    """Return the peak of this process's resident memory in bytes, as Linux counts it.

    `ru_maxrss` survives `exec`, so that it would include what the parent once used.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
