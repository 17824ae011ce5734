"""Commands for who publishes weights: convert, push."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from zoo import terminal
from zoo.cli.common import only_for, our_export, print_json
from zoo.cli.exports import write_exports
from zoo.errors import InputError

__all__ = ["convert", "push"]


def convert(args: argparse.Namespace) -> int:
    """`zoo convert`: a published checkpoint as a model folder."""
    from zoo.convert import convert as converted

    with terminal.status(f"reading {args.checkpoint}"):
        model = converted(
            args.checkpoint, args.arch, args.out, source=args.source, licence=args.licence
        )
    parameters = sum(p.numel() for p in model.parameters())
    if args.json:
        return print_json(
            {"name": model.known_origin.name, "parameters": parameters, "folder": str(args.out)}
        )
    print(
        f"{args.out}: {model.known_origin.name}, {parameters:,} parameters, converted; `zoo evaluate {args.out}` measures it"
    )
    return 0


def push(args: argparse.Namespace) -> int:
    """`zoo push`: a model folder, its card and its exports in one commit to the Hub; then the entry
    that pins it.
    """
    from zoo import hub, remote
    from zoo.integrity import remembered_sha256
    from zoo.manifest import FileSpec, Manifest, read_manifest, weights_folder
    from zoo.provenance import UNKNOWN
    from zoo.publishing.entry import describe
    from zoo.publishing.push import CARD_FILE, files_with_card
    from zoo.weights import read_model

    if args.dry_run:
        only_for(args, "what is sent: leave out --dry-run", "pin")
    remote.check_repo(args.repo)
    folder = hub.resolve(args.model)
    entry, model = describe(folder), read_model(folder)
    entry = replace(entry, licence=args.licence or entry.licence)
    if args.pin and entry.name not in read_manifest().weights:
        raise InputError(
            f"--pin {entry.name}: it is not in the manifest; `python -m zoo.publishing.bundle {folder}` takes it in"
        )
    if args.pin and entry.provenance == UNKNOWN:
        raise InputError(
            f"--pin {folder}: nothing says how its weights were trained, so the manifest cannot have them"
        )
    with tempfile.TemporaryDirectory() as scratch:
        if args.to:
            our_export()
        exports = {
            path.name: path for path in write_exports(model, entry.name, args.to, Path(scratch))
        }
        files = (
            files_with_card(
                folder, entry, steps=model.config.steps, repo=args.repo, scratch=Path(scratch)
            )
            | exports
        )
        sizes = {name: path.stat().st_size for name, path in files.items()}
        if args.dry_run:
            return _show(args, sizes, files[CARD_FILE].read_text(encoding="utf-8"))
        with (
            terminal.status(f"publishing {entry.name} to {args.repo}"),
            _ended_by_interrupt(Path(scratch)),
        ):
            sha = remote.push(files, args.repo, message=entry.name, private=args.private)
        made = {
            name: FileSpec(remembered_sha256(path), sizes[name]) for name, path in exports.items()
        }
    entry = replace(entry, repo=args.repo, revision=sha, files=entry.files | made)
    if args.pin:
        pinned = weights_folder() / "manifest.json"
        before = Manifest.read(pinned)
        Manifest(before.weights | {entry.name: entry}, before.defaults).write(pinned)
    values = {entry.name: {key: value for key, value in asdict(entry).items() if key != "name"}}
    if args.json:
        return print_json(values)
    print(
        f"{entry.name}: {len(files)} files, {sum(sizes.values()):,} bytes, in commit {sha} of {args.repo}"
    )
    if entry.provenance == UNKNOWN:
        print(
            f'nothing says how its weights were trained; zoo.load("hf:{args.repo}@{sha}") loads it'
        )
    else:
        print(
            f"pinned in {pinned}"
            if args.pin
            else f"to pin it, for review, its manifest entry:\n{json.dumps(values, indent=2)}"
        )
    return 0


@contextmanager
def _ended_by_interrupt(scratch: Path) -> Iterator[None]:
    """End the process at SIGINT at once, although threads of the Hub's client wait for an answer,
    which Python would wait for too.

    A commit is one request, so that nothing is published by half. `scratch` is removed.
    """
    before = signal.getsignal(signal.SIGINT)
    if (
        before is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def end(*_: object) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        print("zoo: interrupted", file=sys.stderr, flush=True)
        os._exit(130)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(args: argparse.Namespace, sizes: Mapping[str, int], card: str) -> int:
    if args.json:
        return print_json(
            {"repo": args.repo, "private": args.private, "files": sizes, "card": card}
        )
    table = terminal.table("file", "bytes")
    for file, size in sizes.items():
        terminal.add_row(table, file, f"{size:,}")
    terminal.show(table, terminal.console())
    print(
        f"{card}\nnothing was sent; this would be one commit to {args.repo} ({'private' if args.private else 'public'})"
    )
    return 0
