"""Run an ONNX file by onnxruntime-web in a headless Chromium, for `benchmarks/importers.py`.

A page on loopback runs the file and sends its outputs back. `npm install onnxruntime-web` in the
working folder first. WebGPU is computed by SwiftShader, in software.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np

__all__ = ["PACKAGE", "run"]

PACKAGE = Path("node_modules/onnxruntime-web")
TIMEOUT_SECONDS = 300
CHROMIUM = (
    "chromium --headless=new --no-sandbox --enable-unsafe-webgpu "
    "--enable-features=Vulkan,WebGPU --use-webgpu-adapter=swiftshader --use-angle=swiftshader "
    "--disable-background-networking --disable-component-update --disable-sync --no-first-run "
    "--disable-quic --remote-debugging-port=0"
)
PAGE = """<!doctype html><script type=module>
const answer = {};
try {
  const ort = await import("/dist/BUNDLE");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/dist/";
  const options = {executionProviders: ["PROVIDER"]};
  const session = await ort.InferenceSession.create("/graph.onnx", options);
  const inputs = await (await fetch("/inputs.json")).json();
  const feeds = {};
  for (const [name, [shape, values]] of Object.entries(inputs))
    feeds[name] = new ort.Tensor("float32", values, shape);
  const outputs = await session.run(feeds);
  for (const name of session.outputNames)
    answer[name] = [outputs[name].dims, Array.from(await outputs[name].getData())];
} catch (error) { answer.error = String(error); }
await fetch("/", {method: "POST", body: JSON.stringify(answer)});
</script>"""


class _Handler(SimpleHTTPRequestHandler):
    """Serves the page and its files, and puts what the page sends back into a queue."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: Any, answers: "Queue[bytes]", **options: Any) -> None:
        self.answers = answers
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        self.answers.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Print nothing of a request."""


def run(
    path: Path, values: Mapping[str, np.ndarray], *, bundle: str, provider: str
) -> list[np.ndarray]:
    """Return the outputs of the file at `path`, in the file's order.

    Args:
        path: The ONNX file.
        values: Its inputs, by name, in float32.
        bundle: The file of onnxruntime-web that the page imports.
        provider: The execution provider: "wasm" or "webgpu".

    Raises:
        RuntimeError: The page has reported an error.
        queue.Empty: The page has not answered in `TIMEOUT_SECONDS`.
    """
    answers: Queue[bytes] = Queue()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        _write_site(Path(folder), path, values, bundle=bundle, provider=provider)
        handler = partial(_Handler, answers=answers, directory=folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        command = [*CHROMIUM.split(), f"--user-data-dir={profile}", url]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answer = json.loads(answers.get(timeout=TIMEOUT_SECONDS))
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
            server.server_close()
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return [np.array(numbers, np.float32).reshape(shape) for shape, numbers in answer.values()]


def _write_site(
    site: Path, path: Path, values: Mapping[str, np.ndarray], *, bundle: str, provider: str
) -> None:
    """Write the page, its inputs, and links to the file and to onnxruntime-web."""
    (site / "dist").symlink_to((PACKAGE / "dist").absolute())
    (site / "graph.onnx").symlink_to(path.absolute())
    inputs = {name: [value.shape, value.ravel().tolist()] for name, value in values.items()}
    (site / "inputs.json").write_text(json.dumps(inputs))
    page = PAGE.replace("BUNDLE", bundle).replace("PROVIDER", provider)
    (site / "index.html").write_text(page)
