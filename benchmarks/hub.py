"""Time and memory of `zoo.load`, beside safetensors and the Hub client alone.

    python benchmarks/hub.py [NAME] [--rounds N]

NAME is danet152-t4.in1k if none is given; its weights are random, its Hub a server on 127.0.0.1.
`zoo.load` cannot be faster than reading the file with safetensors, and than the Hub client's own
download. Measured are wall time of one call in milliseconds and peak memory over the size of the
weights, in a fresh process with one thread and files in the page cache: medians of interleaved
rounds after one that does not count. What is not cached comes through the loopback, where the time
to verify it shows most, or at a gigabit per second.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from timing import versions

from zoo.processor import processor

GIGABIT_BYTES = 125e6  # per second

# This serves the folders that it is given as repositories, and prints its address and the commits.
SERVE = """
import json, sys, time
from pathlib import Path
from support.hub_server import HubServer
hub, models, rate = HubServer(), Path(sys.argv[1]), float(sys.argv[2])
def throttled(handler):
    if not handler.is_cdn:
        return False
    data, began = memoryview(handler.large_file()), time.perf_counter()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    for sent in range(0, len(data), 2**20):
        handler.wfile.write(data[sent : sent + 2**20])
        time.sleep(max(0, began + sent / rate - time.perf_counter()))
if rate:
    hub.faults["GET"] = throttled
folders = {f"zoo/{folder.name}": folder for folder in models.iterdir()}
commits = {repo: hub.publish(repo, folder) for repo, folder in folders.items()}
hub.start()
print(json.dumps([hub.url, commits]), flush=True)
sys.stdin.read()
"""

# This runs in a process of its own. It times the expression that `%s` stands for, and prints
# seconds and peak memory over the size of the weights.
CALL = """
import logging, sys, time
from pathlib import Path
import torch, huggingface_hub.file_download, safetensors.torch, zoo
logging.disable(logging.WARNING)
torch.set_num_threads(1)
repo, commit, folder, cache = sys.argv[1:]
def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
def load(**options):
    return zoo.load(f"hf:{repo}@{commit}", **options).state_dict()
def read(how=lambda t: t.to(torch.float32, copy=True)):
    tensors = safetensors.torch.load_file(Path(folder) / "model.safetensors")
    return {key: how(t) for key, t in tensors.items()}
def download():
    for file in Path(folder).iterdir():
        path = huggingface_hub.hf_hub_download(repo, file.name, revision=commit, cache_dir=cache)
    return read()
zoo.load("danet20-t4")  # what is imported on the way
Path("/proc/self/clear_refs").write_text("5")
before, began = memory("VmRSS"), time.perf_counter()
tensors = %s
seconds = time.perf_counter() - began
for t in tensors.values():
    t.double().sum()  # reads every byte of a mapped file into memory
print(seconds, (memory("VmHWM") - before) / sum(t.nbytes for t in tensors.values()))
"""
CACHED = {
    "zoo.load, cached": "load()",
    "safetensors, read as float32": "read()",
    "safetensors, mapped, not read": "read(lambda t: t)",
}
FETCHED = {
    "zoo.load, not cached": "load(cache_dir=cache)",
    "hf_hub_download, safetensors": "download()",
}


def main() -> None:
    """Measure the network that the command line names, in both precisions and at both speeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="danet152-t4.in1k")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(f"{processor()}; {versions()}")
    with tempfile.TemporaryDirectory() as scratch:
        write(args.name, Path(scratch) / "models")
        for rate, network in ((0.0, "loopback"), (GIGABIT_BYTES, "1 Gbit/s")):
            calls = FETCHED if rate else CACHED | FETCHED
            with served(Path(scratch), rate) as commits:
                for repo, commit in sorted(commits.items()):
                    measure(repo, commit, Path(scratch), calls, network, args.rounds)


@contextmanager
def served(scratch: Path, rate: float) -> Iterator[dict[str, str]]:
    """Serve the models at `rate` bytes per second (0: no limit), and give commits by repository.

    The settings of the Hub's client name the server from then on.
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent / "tests")}
    command = [sys.executable, "-c", SERVE, str(scratch / "models"), str(rate)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        url, commits = json.loads(server.stdout.readline())
        os.environ |= {
            "HF_ENDPOINT": url,
            "HF_HOME": f"{scratch}/hf",
            "XDG_CACHE_HOME": f"{scratch}/cache",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        try:
            yield commits
        finally:
            server.terminate()


def write(name: str, folder: Path) -> None:
    """Write a network with random weights to `folder`/float16 and `folder`/float32."""
    import zoo
    from zoo.weights import write_model

    model = zoo.create(name)
    origin = model.known_origin
    for precision in ("float16", "float32"):
        half = precision == "float16"
        write_model(folder / precision, model, name=origin.name, data=origin.data, half=half)


def measure(
    repo: str, commit: str, scratch: Path, calls: Mapping[str, str], network: str, rounds: int
) -> None:
    """Time every call of `CALL` in turns, and print medians and ratios."""
    folder = scratch / "models" / repo.partition("/")[2]
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            cache = tempfile.mkdtemp(dir=scratch)
            command = [sys.executable, "-c", CALL % call, repo, commit, str(folder), cache]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            shutil.rmtree(cache)
            if turn:  # the first does not count
                seconds, peak = map(float, done.stdout.split())
                results[name].append((seconds, peak))
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"\n{folder.name}, {megabytes:.0f} MB, {network}: medians of {rounds}")
    for name, turns in results.items():
        seconds, peak = (median(values) for values in zip(*turns, strict=True))
        print(f"  {name:32} {1000 * seconds:7.0f} ms   peak memory {peak:.2f} of the weights")
    for ours, theirs in (list(CACHED)[:2], list(FETCHED)):
        if ours in calls:
            a, b = (median(seconds for seconds, _ in results[name]) for name in (ours, theirs))
            print(f"  {ours} / {theirs}: {a / b:.2f}x")


if __name__ == "__main__":
    main()
