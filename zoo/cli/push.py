"""`zoo push`: a model folder on the Hugging Face Hub."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo import terminal
from zoo.cli.export import write_nir_file, write_onnx_file
from zoo.cli.interrupts import handle_interrupts
from zoo.cli.networks import check_export_package
from zoo.cli.options import (
    Commands,
    Options,
    add_command,
    add_formats,
    add_json,
    add_licence,
    add_network,
)
from zoo.cli.output import print_json
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.danet import DANet
    from zoo.manifest import WeightsSpec

__all__ = ["PushOptions", "add_parser", "run"]


# What the Hub reads of a Space.
SPACE_CARD = """---
title: {name}
sdk: static
app_file: index.html
---
A spiking network, {name}, in your browser, with every spike that it makes.
"""


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """The options of `zoo push`."""

    model: str
    repo: str
    private: bool
    formats: list[Literal["onnx", "nir"]]
    page: bool
    licence: str | None  # identifier of SPDX; None: what the folder says
    dry_run: bool
    pin: bool
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo push`."""
    summary = "publish a model folder with its card on the Hugging Face Hub, in one commit"
    parser = add_command(commands, "push", summary, PushOptions, run)
    add_json(parser)
    written = "a folder is one that `zoo train`, `zoo convert` or `model.save` wrote"
    add_network(parser, "model", written)
    text = "the repository, which is made if it does not exist"
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help=text)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    add_formats(parser, "publish verified exports in these formats too")
    text = "then publish a page that runs it in a browser, as a static Space of the same name"
    parser.add_argument("--page", action="store_true", help=text)
    add_licence(parser, "what the folder says; unknown for data of your own")
    text = "show the files and the card, and send nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    text = "write repository, commit and sha256 into this checkout's manifest"
    parser.add_argument("--pin", action="store_true", help=text)


def run(options: PushOptions) -> int:
    """Publish a model folder, its card and its exports in one commit, and pin it if asked to."""
    from zoo import hub, remote
    from zoo.integrity import remembered_sha256
    from zoo.manifest import FileSpec
    from zoo.publishing.entry import describe
    from zoo.publishing.push import CARD_FILE, files_with_card
    from zoo.weights import read_model

    if options.dry_run:
        options.only_for("what is sent: leave out --dry-run", "pin")
    remote.check_repo(options.repo)
    folder = hub.resolve(options.model)
    entry, model = describe(folder), read_model(folder)
    entry = replace(entry, licence=options.licence or entry.licence)
    if options.pin:
        _check_pinnable(entry, folder)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        exports = _write_exports(model, entry.name, options.formats, scratch)
        files = files_with_card(
            folder, entry, steps=model.config.steps, repo=options.repo, scratch=scratch
        )
        files |= exports
        page = _write_page(model, entry.name, scratch) if options.page else {}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        if options.dry_run:
            sizes |= {f"of its Space: {name}": path.stat().st_size for name, path in page.items()}
            return _show(options, sizes, files[CARD_FILE].read_text(encoding="utf-8"))
        status = terminal.status(f"publishing {entry.name} to {options.repo}")
        with status, _exit_on_interrupt(scratch):
            commit = remote.push(files, options.repo, message=entry.name, private=options.private)
            if page:
                remote.push(
                    page, options.repo, message=entry.name, private=options.private, space=True
                )
        exported = {
            name: FileSpec(remembered_sha256(path), sizes[name]) for name, path in exports.items()
        }
    published = replace(entry, repo=options.repo, revision=commit, files=entry.files | exported)
    manifest = _pin(published) if options.pin else None
    if options.json:
        return print_json(_manifest_entry(published))
    total = f"{len(files)} files, {sum(sizes.values()):,} bytes"
    print(f"{entry.name}: {total}, in commit {commit} of {options.repo}")
    print(_how_to_load(published, manifest))
    if page:
        print(f"its page: the static Space {options.repo}")
    return 0


def _write_exports(
    model: "DANet", name: str, formats: list[Literal["onnx", "nir"]], folder: Path
) -> dict[str, Path]:
    """Write the exports of each format, and return them by their file names."""
    if formats:
        check_export_package()
    written = []
    if "onnx" in formats:
        written.append(write_onnx_file(model, name, folder))
    if "nir" in formats:
        written += write_nir_file(model, name, folder)
    return {file.path.name: file.path for file in written}


def _write_page(model: "DANet", name: str, folder: Path) -> dict[str, Path]:
    """Write the page of a model, and return its files by their names in a static Space."""
    check_export_package()
    from export.page import write_page

    site = folder / "page"
    with terminal.status(f"writing the page of {name}"):
        write_page([model], site)
    about = site / "README.md"
    about.write_text(SPACE_CARD.format(name=name), encoding="utf-8")
    return {path.relative_to(site).as_posix(): path for path in site.rglob("*") if path.is_file()}


def _check_pinnable(entry: "WeightsSpec", folder: Path) -> None:
    """Raise `InputError` for a model that the manifest does not hold or cannot hold."""
    from zoo.manifest import read_manifest
    from zoo.provenance import UNKNOWN

    if entry.name not in read_manifest().weights:
        raise InputError(
            f"--pin {entry.name}: it is not in the manifest; "
            f"`python -m zoo.publishing.bundle {folder}` takes it in"
        )
    if entry.provenance == UNKNOWN:
        raise InputError(
            f"--pin {folder}: nothing says how its weights were trained, "
            "so the manifest cannot have them"
        )


def _pin(entry: "WeightsSpec") -> Path:
    """Write the published entry into this checkout's manifest, and return the manifest's path."""
    from zoo.manifest import Manifest, weights_folder

    path = weights_folder() / "manifest.json"
    manifest = Manifest.read(path)
    Manifest(manifest.weights | {entry.name: entry}, manifest.defaults).write(path)
    return path


def _manifest_entry(entry: "WeightsSpec") -> dict[str, object]:
    """Return the entry as the manifest writes it."""
    return {entry.name: {key: value for key, value in asdict(entry).items() if key != "name"}}


def _how_to_load(entry: "WeightsSpec", manifest: Path | None) -> str:
    """Return what to do to load the published model: nothing if a `manifest` pins it."""
    from zoo.provenance import UNKNOWN

    if entry.provenance == UNKNOWN:
        return (
            "nothing says how its weights were trained; "
            f'zoo.load("hf:{entry.repo}@{entry.revision}") loads it'
        )
    if manifest:
        return f"pinned in {manifest}"
    values = json.dumps(_manifest_entry(entry), indent=2)
    return f"to pin it, for review, its manifest entry:\n{values}"


@contextmanager
def _exit_on_interrupt(scratch: Path) -> Iterator[None]:
    """End the process at SIGINT at once, after removing the folder `scratch`.

    Python would wait for the threads of the Hub's client, which wait for an answer. A commit is
    one request, so nothing is published by half.
    """

    def end() -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        print("zoo: interrupted", file=sys.stderr, flush=True)
        os._exit(130)

    with handle_interrupts(end):
        yield


def _show(options: PushOptions, sizes: Mapping[str, int], card: str) -> int:
    """Print the files and the card of a dry run."""
    if options.json:
        values = {"repo": options.repo, "private": options.private, "files": sizes, "card": card}
        return print_json(values)
    table = terminal.table("file", "bytes")
    for file, size in sizes.items():
        terminal.add_row(table, file, f"{size:,}")
    terminal.show(table, terminal.console())
    visibility = "private" if options.private else "public"
    print(card)
    print(f"nothing was sent; this would be one commit to {options.repo} ({visibility})")
    return 0
