"""Fetch onnxruntime-web by npm while the package is built, so that `zoo page` works offline.

Without npm the package is built all the same, and `zoo page` says what is missing.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path(__file__).parent / "export" / "page"
MARK = "version.txt"  # written last: without it, a fetch was interrupted


class RuntimeHook(BuildHookInterface[Any]):
    """Puts the files that export/page/runtime.json names into export/page/runtime."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the files, unless they are there."""
        wanted = json.loads((PAGE / "runtime.json").read_text(encoding="utf-8"))
        folder = PAGE / "runtime"
        mark = folder / MARK
        if not mark.is_file() or mark.read_text() != wanted["version"]:
            if npm := shutil.which("npm"):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                _fetch(npm, f"{wanted['package']}@{wanted['version']}", wanted["files"], folder)
                mark.write_text(wanted["version"])
            else:
                self.app.display_warning("npm is missing: `zoo page` will have no runtime")
                return
        build_data["artifacts"].append("export/page/runtime/*")


def _fetch(npm: str, package: str, files: list[str], folder: Path) -> None:
    """Extract these files of an npm package."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", package, "--silent"]
        subprocess.run(command, cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as tar:
            for name in files:
                member = tar.extractfile(f"package/dist/{name}")
                assert member is not None, name
                (folder / name).write_bytes(member.read())
