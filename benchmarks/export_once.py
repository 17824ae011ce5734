"""Export one network to ONNX in this process and print what it took, as JSON: seconds and the peak
of resident memory in bytes.

    python benchmarks/export_once.py danet152-t4 [--no-verify]

A process of its own, because a peak of memory cannot be taken back.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import zoo
from export.onnx.exporter import write_onnx


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Export one network and print seconds and peak memory."
    )
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
    """Bytes. From Linux's own count: `ru_maxrss` survives `exec`, so that it would include what the
    parent once used.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
