"""The folder that holds a model's weights, fetched from the Hugging Face Hub where need be.

It is the first that there is of: the local folder of that name, the weights of this installation,
the Hub's cache, the Hub.

A name of the zoo is held to the manifest, which pins repository, commit and sha256; what is pinned
and cached makes no request. `hf:org/repo@revision` is anybody's model in our layout: when a commit
is first loaded, the sha256 of its files is recorded and shown, and from then on they are held to
it. Imports no torch.
"""

import hashlib
import json
import logging
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from zoo.errors import ConfigError, HubError, WeightsError
from zoo.files import read_json_if_whole, write_text
from zoo.integrity import check_files, file_spec, mismatch, remembered_sha256, state_folder
from zoo.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, shard_names
from zoo.manifest import COMMIT, FileSpec, WeightsSpec, read_manifest, weights_folder
from zoo.names import GRAMMAR, ModelSpec
from zoo.records import read_record
from zoo.remote import HubRepo, MissingFile

__all__ = ["find_record", "is_location", "resolve", "verify"]

log = logging.getLogger(__name__)

FETCH_AGAIN = "load it again to fetch a good copy"


def is_location(name: str) -> bool:
    """Tell whether `name` is a folder or `hf:org/repo`, and not the name of a model of the zoo."""
    with suppress(OSError):  # a name too long for a path
        folder = Path(name)
        is_folder = bool(name) and folder.is_dir()
        if (folder / CONFIG_FILE).is_file() or (is_folder and not GRAMMAR.fullmatch(name)):
            return True
    return name.startswith("hf:")


def resolve(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    offline: bool = False,
) -> Path:
    """Return the folder that holds the weights of `name`, verified.

    `name` is a model folder, `hf:org/repo[@revision]`, or a name of the zoo. What is neither part
    of the installation nor cached is downloaded, unless `offline`. A `revision` (branch, tag or
    commit) overrules the manifest's, and is then unpinned. Raises `UnknownName` for what is none of
    these, `HubError` for what the Hub does not give, `WeightsError` for weights that do not exist
    or are damaged.
    """
    if name.startswith("hf:"):
        return _unpinned(HubRepo.parse(name, revision, cache_dir, offline))
    if is_location(name):
        if revision is not None:
            raise WeightsError(f"{name} is a folder: it has no revision {revision!r}")
        return Path(name)
    entry = _entry(name)
    if revision is None:
        return _pinned(entry, cache_dir, offline)
    if entry.repo is None:
        raise WeightsError(f"{entry.name} is not on the Hub, so it has no revision {revision!r}")
    return _unpinned(HubRepo(entry.repo, revision, cache_dir, offline))


def find_record(name: str, file: str) -> Path | None:
    """Return a file beside the weights of `name` that tells of their training, or None.

    `file` is one of `zoo.provenance.RECORD_FILES`, as `recipe.json`. `resolve` fetches no such
    file; here it is fetched where the weights are on the Hub. Raises what `resolve` raises.
    """
    folder, on_hub = resolve(name), name.startswith("hf:")
    if (folder / file).is_file():
        return folder / file
    if is_location(name) and not on_hub:
        return None
    repo = HubRepo.parse(name).name if on_hub else _entry(name).repo
    if repo is None or not re.fullmatch(COMMIT, folder.name):
        return None
    with suppress(MissingFile):
        path = HubRepo(repo, folder.name).fetch(file)
        _check_tag(path, remembered_sha256(path))
        return path
    return None


def verify(name: str, *, cache_dir: Path | str | None = None) -> tuple[Path, dict[str, FileSpec]]:
    """Read every file of `name` that is on this machine, and compare it with what it has to be.

    Returns the folder and what its files had to be and are. Of a local folder, which nobody
    described, that is what they are. Makes no request. Raises what `resolve` raises.
    """
    folder = resolve(name, cache_dir=cache_dir, offline=True)
    if name.startswith("hf:"):
        files, remedy = _read_memory(folder), FETCH_AGAIN
    elif is_location(name):
        return folder, _file_specs(folder)
    else:
        entry = _entry(name)
        bundled = folder == weights_folder() / entry.name
        # From the Hub no more than the model's own files was downloaded.
        files, remedy = entry.files if bundled else _model_files(entry), _remedy(entry)
    check_files(folder, files, remedy=remedy, again=True)
    return folder, files


def _entry(name: str) -> WeightsSpec:
    """Return the manifest's entry of a name. Raises `WeightsError` if it has none."""
    weights = read_manifest().weights
    spec = ModelSpec.parse(name).resolved()
    if spec.name not in weights:
        raise WeightsError(_no_weights(spec))
    return weights[spec.name]


def _no_weights(spec: ModelSpec) -> str:
    """Return the message for an architecture that was not trained on that data."""
    manifest = read_manifest()
    tags = manifest.tags(spec.architecture)
    names = ", ".join(manifest.weights) or "no model"
    available = f"for {', '.join(tags)}" if tags else f"only of {names}"
    return (
        f"{spec.name} was never trained: there are weights {available}; "
        f"`zoo train {spec.name}` trains it, and leaves a folder to give in its place"
    )


def _pinned(entry: WeightsSpec, cache_dir: Path | str | None, offline: bool) -> Path:
    """Return the folder of a model of the manifest: bundled, or of the commit that it names."""
    files, folder = _model_files(entry), weights_folder() / entry.name
    if entry.repo and entry.revision and not all((folder / file).is_file() for file in files):
        repo = HubRepo(entry.repo, entry.revision, cache_dir, offline)
        for file in files:
            folder = repo.fetch(file).parent
    elif not folder.is_dir():
        raise HubError(
            f"the weights of {entry.name} are neither part of this installation ({folder}) "
            "nor on the Hub: they are in a checkout of the repository"
        )
    check_files(folder, files, remedy=_remedy(entry))
    return folder


def _model_files(entry: WeightsSpec) -> dict[str, FileSpec]:
    """Return the files of an entry from which the model is built; the others are its record."""
    return {
        file: spec
        for file, spec in entry.files.items()
        if file in (CONFIG_FILE, INDEX_FILE) or file.endswith(".safetensors")
    }


def _remedy(entry: WeightsSpec) -> str:
    return FETCH_AGAIN if entry.repo else "reinstall the package to get it again"


def _unpinned(repo: HubRepo) -> Path:
    """Return the folder of a model that the manifest does not pin.

    Its files are held to the sha256 of the time when this commit was first loaded.
    """
    folder = repo.fetch(CONFIG_FILE).parent
    if not re.fullmatch(COMMIT, folder.name):
        raise HubError(
            f"{repo.name} at {repo.revision}: the server says it is commit {folder.name!r}, "
            "which cannot be"
        )
    # A branch may move between two files.
    repo = HubRepo(repo.name, folder.name, repo.cache_dir, repo.offline)
    names = {CONFIG_FILE, *_fetch_weights(repo)}
    files = _read_memory(folder)
    if files.keys() == names:
        check_files(folder, files, remedy=FETCH_AGAIN)
        return folder
    files = {name: file_spec(folder / name) for name in sorted(names)}
    for name, spec in files.items():
        _check_tag(folder / name, spec.sha256)
    _write_memory(folder, files)
    for name, spec in files.items():
        log.warning(
            "hf:%s@%s is not pinned by the zoo: %s has sha256 %s",
            *(repo.name, folder.name, name, spec.sha256),
        )
    return folder


def _fetch_weights(repo: HubRepo) -> list[str]:
    """Fetch the weights of a commit, one file or an index and its shards, and return their names.

    Raises `MissingFile` for the one file if the repository has neither.
    """
    try:
        return [repo.fetch(WEIGHTS_FILE).name]
    except MissingFile as missing:
        try:
            index = repo.fetch(INDEX_FILE)
        except MissingFile:
            raise missing from None
        return [INDEX_FILE, *(repo.fetch(shard).name for shard in shard_names(index))]


def _memory(snapshot: Path) -> Path:
    """Return where the sha256 of a commit's files are remembered: `models--org--repo@commit.json`.

    `snapshot` is the commit's folder in the Hub's cache.
    """
    return state_folder() / "hub" / f"{snapshot.parent.parent.name}@{snapshot.name}.json"


def _read_memory(snapshot: Path) -> dict[str, FileSpec]:
    """Return what is remembered of a commit's files: nothing, if that cannot be read."""
    values = read_json_if_whole(_memory(snapshot))
    with suppress(ConfigError):
        return {name: read_record(FileSpec, spec) for name, spec in values.items()}
    return {}


def _write_memory(snapshot: Path, files: dict[str, FileSpec]) -> None:
    """Remember a commit's files, where there is a place for it."""
    values = {name: asdict(spec) for name, spec in files.items()}
    with suppress(OSError):
        write_text(_memory(snapshot), json.dumps(values, indent=2) + "\n")


def _file_specs(folder: Path) -> dict[str, FileSpec]:
    """Return sha256 and size of every file in a folder."""
    try:
        return {path.name: file_spec(path) for path in sorted(folder.iterdir()) if path.is_file()}
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read: {error.strerror}") from None


def _check_tag(path: Path, sha256: str) -> None:
    """Compare a cached file with the server's tag for it. Raises `WeightsError`.

    The client compares sizes alone, and names the file after the tag: its sha256, or git's sha1 of
    a small one.
    """
    tag = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", tag) and sha256 != tag:
        raise mismatch(path, "sha256", sha256, tag, FETCH_AGAIN)
    if re.fullmatch("[0-9a-f]{40}", tag):
        content = path.read_bytes()
        blob = b"blob %d\0" % len(content) + content
        sha1 = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        if sha1 != tag:
            raise mismatch(path, "git's sha1", sha1, tag, FETCH_AGAIN)
