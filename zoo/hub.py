"""Where the weights of a name are, and how they get there and onto the Hub.

    name -> local folder, weights of this installation, cache of the Hub, Hub: the first that has them

A name of the zoo is held to the manifest, which pins repository, commit and sha256; what is pinned
and cached makes no request. `hf:org/repo@revision` is anybody's model in our layout: when a commit
is first loaded, the sha256 of its files is recorded and shown, and from then on they are held to
it.
"""

import hashlib
import json
import logging
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from zoo.errors import HubError, WeightsError
from zoo.files import write_text
from zoo.integrity import check_files, mismatch, remembered_sha256, state_folder
from zoo.manifest import COMMIT, FileSpec, WeightsSpec, read_manifest, weights_folder
from zoo.names import GRAMMAR, ModelSpec
from zoo.remote import HubRepo, NotThere
from zoo.weights import CONFIG, INDEX, SINGLE, shard_names

__all__ = ["find", "find_record", "is_place", "verify"]

log = logging.getLogger(__name__)

REFETCH = "load it again to fetch a good copy"


def is_place(name: str) -> bool:
    """Whether `name` says where a model lies, a folder or `hf:org/repo`, and not which model of the
    zoo it is.
    """
    with suppress(OSError):  # a name too long for a path
        if (Path(name) / CONFIG).is_file() or (Path(name).is_dir() and not GRAMMAR.fullmatch(name)):
            return True
    return name.startswith("hf:")


def find(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    offline: bool = False,
) -> Path:
    """The folder that holds the weights of `name`, verified: a model folder,
    `hf:org/repo[@revision]`, or a name of the zoo.

    Downloads what is neither part of the installation nor cached, unless `offline`. A `revision`
    (branch, tag or commit) overrules the manifest's, and is then unpinned as any foreign one.
    Raises `UnknownName` for what is none of these, `HubError` for what the Hub does not give,
    `WeightsError` for weights that do not exist or are damaged.
    """
    if is_place(name):
        if name.startswith("hf:"):
            return _foreign(HubRepo.parse(name, revision, cache_dir, offline))
        if revision is not None:
            raise WeightsError(f"{name} is a folder: it has no revision {revision!r}")
        return Path(name)
    entry = _entry(name)
    if revision is not None:
        if entry.repo is None:
            raise WeightsError(
                f"{entry.name} is not on the Hub, so it has no revision {revision!r}"
            )
        return _foreign(HubRepo(entry.repo, revision, cache_dir, offline))
    return _pinned(entry, cache_dir, offline)


def find_record(name: str, file: str) -> Path | None:
    """Find a file that lies beside the weights of `name` and tells of their training, as
    `recipe.json`; None if there is none.

    `find` fetches no such file; here it is fetched where the weights are on the Hub. Raises as
    `find` does.
    """
    folder, foreign = find(name), name.startswith("hf:")
    if (folder / file).is_file() or (is_place(name) and not foreign):
        return folder / file if (folder / file).is_file() else None
    repo = HubRepo.parse(name, None, None, False).repo if foreign else _entry(name).repo
    if repo is None or not re.fullmatch(COMMIT, folder.name):
        return None
    with suppress(NotThere):
        path = HubRepo(repo, folder.name).fetch(file)
        _check_tag(path, remembered_sha256(path))
        return path
    return None


def verify(name: str, *, cache_dir: Path | str | None = None) -> tuple[Path, dict[str, FileSpec]]:
    """Read every file of `name` that is on this machine, and compare it; its folder, and what the
    files had to be and are.

    For a local folder, which nobody described, that is what they are. Makes no request. Raises as
    `find` does.
    """
    folder = find(name, cache_dir=cache_dir, offline=True)
    if name.startswith("hf:"):
        files, remedy = _recorded(folder), REFETCH
    elif is_place(name):
        return folder, _describe(folder)
    else:
        entry = _entry(name)
        bundled = folder == weights_folder() / entry.name
        # no more than needed was downloaded
        files, remedy = entry.files if bundled else _needed(entry), _remedy(entry)
    check_files(folder, files, remedy=remedy, again=True)
    return folder, files


def _entry(name: str) -> WeightsSpec:
    known = read_manifest()
    spec = ModelSpec.parse(name).resolved()
    if spec.name not in known.weights:
        raise WeightsError(_no_weights(spec))
    return known.weights[spec.name]


def _pinned(entry: WeightsSpec, cache_dir: Path | str | None, offline: bool) -> Path:
    """The folder of a model of the manifest: bundled, or of the commit that the manifest names."""
    needed, folder = _needed(entry), weights_folder() / entry.name
    if entry.repo and entry.revision and not all((folder / file).is_file() for file in needed):
        place = HubRepo(entry.repo, entry.revision, cache_dir, offline)
        for file in needed:
            folder = place.fetch(file).parent
    elif not folder.is_dir():
        raise HubError(
            f"the weights of {entry.name} are neither part of this installation ({folder}) nor on the Hub"
        )
    check_files(folder, needed, remedy=_remedy(entry))
    return folder


def _needed(entry: WeightsSpec) -> dict[str, FileSpec]:
    """The files of an entry from which the model is built; the others are its record."""
    return {
        file: spec
        for file, spec in entry.files.items()
        if file in (CONFIG, INDEX) or file.endswith(".safetensors")
    }


def _remedy(entry: WeightsSpec) -> str:
    return REFETCH if entry.repo else "reinstall the package to get it again"


def _foreign(place: HubRepo) -> Path:
    """The folder of a model that the manifest does not pin."""
    config = place.fetch(CONFIG)
    folder = config.parent
    if not re.fullmatch(COMMIT, folder.name):
        raise HubError(
            f"{place.repo} at {place.revision}: the server says it is commit {folder.name!r}, which cannot be"
        )
    # a branch may move between two files
    place = HubRepo(place.repo, folder.name, place.cache_dir, place.offline)
    try:
        names = [place.fetch(SINGLE).name]
    except NotThere as single:
        try:
            index = place.fetch(INDEX)
        except NotThere:
            raise single from None
        names = [INDEX, *(place.fetch(shard).name for shard in shard_names(index))]
    names.append(CONFIG)
    files = _recorded(folder)
    if files.keys() == set(names):
        check_files(folder, files, remedy=REFETCH)
        return folder
    files = {name: _spec(folder / name) for name in sorted(names)}
    for name, spec in files.items():
        _check_tag(folder / name, spec.sha256)
    with suppress(OSError):  # no place to remember it
        write_text(
            _record(folder),
            json.dumps({name: asdict(spec) for name, spec in files.items()}, indent=2) + "\n",
        )
    for name, spec in files.items():
        log.warning(
            "hf:%s@%s is not pinned by the zoo: %s has sha256 %s",
            place.repo,
            folder.name,
            name,
            spec.sha256,
        )
    return folder


def _record(snapshot: Path) -> Path:
    """Where the sha256 of a foreign commit's files are remembered: `models--org--repo@commit.json`."""
    return state_folder() / "hub" / f"{snapshot.parent.parent.name}@{snapshot.name}.json"


def _recorded(snapshot: Path) -> dict[str, FileSpec]:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return {
            name: FileSpec(**spec)
            for name, spec in json.loads(_record(snapshot).read_text(encoding="utf-8")).items()
        }
    return {}


def _spec(path: Path) -> FileSpec:
    return FileSpec(remembered_sha256(path), path.stat().st_size)


def _describe(folder: Path) -> dict[str, FileSpec]:
    try:
        return {path.name: _spec(path) for path in sorted(folder.iterdir()) if path.is_file()}
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read: {error.strerror}") from None


def _check_tag(path: Path, sha256: str) -> None:
    """The client compares sizes alone. It names a cached file after the server's tag: its sha256,
    or git's sha1 of a small one.
    """
    tag = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", tag) and sha256 != tag:
        raise mismatch(path, "sha256", sha256, tag, REFETCH)
    if re.fullmatch("[0-9a-f]{40}", tag):
        content = path.read_bytes()
        found = hashlib.sha1(
            b"blob %d\0" % len(content) + content, usedforsecurity=False
        ).hexdigest()
        if found != tag:
            raise mismatch(path, "git's sha1", found, tag, REFETCH)


def _no_weights(spec: ModelSpec) -> str:
    known = read_manifest()
    tags = known.tags(spec.architecture)
    exist = (
        f"for {', '.join(tags)}" if tags else f"only of {', '.join(known.weights) or 'no model'}"
    )
    how = f"train it with `zoo train {spec.name}`"
    return f"{spec.name} was never trained: there are weights {exist}; {how}, or pass pretrained=False for random weights"
