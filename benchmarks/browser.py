"""onnxruntime-web in a headless Chromium, for `benchmarks/importers.py`: a page on loopback runs a
file and sends its outputs back.

`npm install onnxruntime-web` in the working folder first. WebGPU is computed by SwiftShader, in
software.
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
SECONDS = 300
CHROMIUM = (
    "chromium --headless=new --no-sandbox --enable-unsafe-webgpu --enable-features=Vulkan,WebGPU --use-webgpu-adapter=swiftshader "
    "--use-angle=swiftshader --disable-background-networking --disable-component-update --disable-sync --no-first-run "
    "--disable-quic --remote-debugging-port=0"
)
PAGE = """<!doctype html><script type=module>
const found = {};
try {
  const ort = await import("/dist/BUNDLE");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/dist/";
  const session = await ort.InferenceSession.create("/graph.onnx", {executionProviders: ["PROVIDER"]});
  const inputs = await (await fetch("/inputs.json")).json();
  const feeds = {};
  for (const [name, [shape, values]] of Object.entries(inputs)) feeds[name] = new ort.Tensor("float32", values, shape);
  const outputs = await session.run(feeds);
  for (const name of session.outputNames) found[name] = [outputs[name].dims, Array.from(await outputs[name].getData())];
} catch (error) { found.error = String(error); }
await fetch("/", {method: "POST", body: JSON.stringify(found)});
</script>"""


class _Handler(SimpleHTTPRequestHandler):
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
        """Nothing of each request."""


def run(
    path: Path, values: Mapping[str, np.ndarray], *, bundle: str, provider: str
) -> list[np.ndarray]:
    """The outputs of the file at `path`, in its order, by a bundle of onnxruntime-web and one of
    its execution providers.
    """
    answers: Queue[bytes] = Queue()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        site = Path(folder)
        (site / "dist").symlink_to((PACKAGE / "dist").absolute())
        (site / "graph.onnx").symlink_to(path.absolute())
        (site / "inputs.json").write_text(
            json.dumps({k: [v.shape, v.ravel().tolist()] for k, v in values.items()})
        )
        (site / "index.html").write_text(
            PAGE.replace("BUNDLE", bundle).replace("PROVIDER", provider)
        )
        server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(_Handler, answers=answers, directory=folder)
        )
        Thread(target=server.serve_forever, daemon=True).start()
        command = [
            *CHROMIUM.split(),
            f"--user-data-dir={profile}",
            f"http://127.0.0.1:{server.server_port}/",
        ]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = json.loads(answers.get(timeout=SECONDS))
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
            server.server_close()
    if "error" in found:
        raise RuntimeError(found["error"])
    return [np.array(numbers, np.float32).reshape(shape) for shape, numbers in found.values()]
