"""The files of onnxruntime-web that run a network in a page.

They are part of an installation: the build fetches what `runtime.json` names by npm.
"""

import json
from pathlib import Path

from zoo.errors import ExportError

__all__ = ["runtime_files"]

HERE = Path(__file__).parent
FOLDER = HERE / "runtime"


def runtime_files() -> list[Path]:
    """Return the files and their licence. Raises `ExportError` where an installation lacks them."""
    text = (HERE / "runtime.json").read_text(encoding="utf-8")
    wanted, there = json.loads(text), FOLDER / "runtime.json"
    if not there.is_file() or there.read_text(encoding="utf-8") != text:
        raise ExportError(
            f"this installation was built without {wanted['package']} {wanted['version']}, which "
            "runs a page: install npm (Node.js), then install danet-zoo again"
        )
    return [FOLDER / name for name in wanted["sha256"]] + [HERE / "LICENSE.onnxruntime-web"]
