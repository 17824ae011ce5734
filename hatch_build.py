"""Fetch onnxruntime-web by npm while the package is built, so that `zoo page` works offline.

Without npm the package is built all the same, and `zoo page` says what is missing.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path(__file__).parent / "export" / "page"
LIST = "runtime.json"  # its copy is written last: without it, a fetch was interrupted


class RuntimeHook(BuildHookInterface[Any]):
    """Puts the files that export/page/runtime.json names into export/page/runtime."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the files, unless they are there."""
        wanted = (PAGE / LIST).read_text(encoding="utf-8")
        there = PAGE / "runtime" / LIST
        if not there.is_file() or there.read_text(encoding="utf-8") != wanted:
            npm = shutil.which("npm")
            if npm is None:
                self.app.display_warning("npm is missing: `zoo page` will have no runtime")
                return
            try:
                _fetch(npm, json.loads(wanted))
            except (OSError, subprocess.CalledProcessError) as error:
                self.app.display_warning(f"`zoo page` will have no runtime: {error}")
                return
        build_data["artifacts"].append("export/page/runtime/*")


def _fetch(npm: str, wanted: dict[str, Any]) -> None:
    """Put the files of the npm package in place, if they are those that `wanted` describes."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"{wanted['package']}@{wanted['version']}", "--silent"]
        subprocess.run(command, cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(temporary).glob("*.tgz")
        files: dict[str, bytes] = {}
        with tarfile.open(archive) as tar:
            for name, digest in wanted["sha256"].items():
                member = tar.extractfile(f"package/dist/{name}")
                files[name] = member.read() if member else b""
                if hashlib.sha256(files[name]).hexdigest() != digest:
                    raise OSError(f"{name} of {wanted['package']} has another sha256")
    folder = PAGE / "runtime"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    shutil.copyfile(PAGE / LIST, folder / LIST)
