"""Weights over the Hub, with the Hub's own client on one side and a server of its protocol on the
other.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_names import NAME, REPO
from support.hub_server import HubServer
from support.networks import same

import zoo
from zoo import hub as hubs
from zoo.cli import main
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import HubError, UnknownName, WeightsError
from zoo.integrity import sha256
from zoo.manifest import FileSpec, read_manifest
from zoo.weights import write_model


def test_a_pinned_model_is_downloaded_once(hub: HubServer, pinned: Path) -> None:
    model = zoo.load("danet20-t2")
    assert same(model, zoo.load(str(pinned.parent / "elsewhere")))
    assert len(hub.asked("^GET")) == len(read_manifest().weights[NAME].files)
    hub.requests.clear()
    assert same(zoo.load(NAME), model)
    assert same(zoo.load(NAME, offline=True), model)
    assert not hub.requests


def test_what_is_bundled_makes_no_request(hub: HubServer, bundled: Path) -> None:
    zoo.load(NAME)
    assert not hub.requests


def test_a_local_folder_comes_before_a_name(
    bundled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    shutil.copytree(folder, tmp_path / "here" / NAME)
    (tmp_path / "here" / "danet20-t2").mkdir()  # no model in it
    monkeypatch.chdir(tmp_path / "here")
    origins = [zoo.load(name).origin for name in (NAME, "danet20-t2")]
    assert [origin.name for origin in origins if origin] == ["some-model", NAME]


def test_somebody_elses_model(
    hub: HubServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sha = hub.publish(REPO, folder)
    model = zoo.load(f"hf:{REPO}")
    assert same(model, zoo.load(str(folder)))
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    known = hubs.verify(f"hf:{REPO}")[1]
    assert said == [
        f"hf:{REPO}@{sha} is not pinned by the zoo: {file} has sha256 {spec.sha256}"
        for file, spec in known.items()
    ]
    caplog.clear()
    assert same(zoo.load(f"hf:{REPO}@{sha}"), model) and not caplog.records


def test_branches_tags_and_commits(
    hub: HubServer, folder: Path, tiny: Callable[..., DANet], digits: DatasetSpec
) -> None:
    from huggingface_hub import HfApi

    first = hub.publish(REPO, folder)
    hub.tokens.add("writer")
    HfApi(token="writer").create_tag(REPO, tag="v1")
    old = zoo.load(f"hf:{REPO}@v1")
    write_model(folder, tiny(), name="some-model", data=digits)
    hub.publish(REPO, folder)
    new = zoo.load(f"hf:{REPO}@main")
    assert not same(old, new)
    assert same(zoo.load(f"hf:{REPO}@{first}"), old) and same(
        zoo.load(f"hf:{REPO}", revision="v1"), old
    )
    assert same(zoo.load(f"hf:{REPO}"), new)


def test_a_snapshot_of_the_client_is_found(hub: HubServer, pinned: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    entry = read_manifest().weights[NAME]
    assert entry.repo
    snapshot_download(entry.repo, revision=entry.revision, cache_dir=tmp_path / "mine")
    hub.requests.clear()
    assert hubs.resolve(NAME, cache_dir=tmp_path / "mine").is_relative_to(tmp_path / "mine")
    assert not hub.requests


def test_a_private_repository_wants_a_token(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(REPO, folder)
    hub.repos[REPO].private = True
    hub.tokens.add("reader")
    with pytest.raises(
        HubError,
        match="no such repository, or a private one; check its name, log in or set HF_TOKEN",
    ):
        zoo.load(f"hf:{REPO}")
    monkeypatch.setenv("HF_TOKEN", "reader")
    zoo.load(f"hf:{REPO}")
    elsewhere = [
        headers
        for method, path, headers in hub.requests
        if method == "GET" and "resolve" not in path
    ]
    assert elsewhere and not any("Authorization" in headers for headers in elsewhere)


def test_shards(hub: HubServer, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    whole = zoo.load(str(folder))
    (folder / "model.safetensors").unlink()
    where = {key: f"model-{i % 2}.safetensors" for i, key in enumerate(tensors)}
    for shard in set(where.values()):
        save_file({key: tensors[key] for key in tensors if where[key] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )
    hub.publish(REPO, folder)
    assert same(zoo.load(f"hf:{REPO}"), whole)
    assert same(zoo.load(f"hf:{REPO}", offline=True), whole)
    assert set(hubs.verify(f"hf:{REPO}")[1]) == {
        "config.json",
        "model.safetensors.index.json",
        *where.values(),
    }


def test_names_that_are_no_place_on_the_hub() -> None:
    for name in ("hf:", "hf:one", "hf:a/b/c", "hf:../b", "hf:a/b@", "hf:a/b@x y"):
        with pytest.raises(UnknownName, match="is not hf:org/repo"):
            zoo.load(name)
    with pytest.raises(UnknownName, match="names a revision already"):
        zoo.load("hf:a/b@main", revision="v1")


def test_revisions_of_what_has_none(bundled: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder: it has no revision 'v1'"):
        zoo.load(str(bundled / NAME), revision="v1")
    with pytest.raises(WeightsError, match="is not on the Hub, so it has no revision 'v1'"):
        zoo.load(NAME, revision="v1")


def test_another_revision_of_a_pinned_model(hub: HubServer, pinned: Path, folder: Path) -> None:
    sha = hub.publish(REPO, folder)
    assert same(zoo.load(NAME, revision=sha), zoo.load(str(folder)))
    assert not same(zoo.load(NAME), zoo.load(str(folder)))


def test_verify_reads_again(hub: HubServer, pinned: Path) -> None:
    zoo.load(NAME)
    folder, files = hubs.verify(NAME)
    assert files.keys() == {"config.json", "model.safetensors"} and isinstance(
        files["config.json"], FileSpec
    )
    assert {path.name for path in folder.iterdir()} == files.keys()


def test_the_command_verifies_all_that_is_here(
    hub: HubServer, pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"]) == 0
    assert f"{NAME}: not on this machine" in capsys.readouterr().out
    assert main(["verify", NAME]) == 2 and not hub.requests
    folder = hubs.resolve(NAME)
    capsys.readouterr()
    assert main(["verify"]) == 0
    assert f"{NAME}: 2 files" in capsys.readouterr().out
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert main(["verify", "--json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert not result["ok"] and "moved to" in result["result"]


def test_the_command_shows_what_nobody_pinned(
    hub: HubServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = hub.publish(REPO, folder)
    zoo.load(f"hf:{REPO}")
    assert main(["verify", f"hf:{REPO}@{sha}", str(folder)]) == 0
    digest = sha256(folder / "model.safetensors")
    foreign, local = capsys.readouterr().out.splitlines()
    assert foreign.endswith(f"as when this commit was first loaded: model.safetensors {digest}")
    assert local.endswith(f"nobody pinned their sha256: model.safetensors {digest}")


def test_the_record_of_a_training_is_fetched_when_it_is_asked_for(
    hub: HubServer, folder: Path
) -> None:
    (folder / "metrics.json").write_text('{"training_hours": 2}')
    sha = hub.publish(REPO, folder)
    zoo.load(f"hf:{REPO}")
    assert not hub.asked("metrics")
    for name in (f"hf:{REPO}", f"hf:{REPO}@{sha}"):
        path = hubs.find_record(name, "metrics.json")
        assert path is not None and path.read_text() == '{"training_hours": 2}'
        assert hubs.find_record(name, "recipe.json") is None
    assert hubs.find_record(str(folder), "metrics.json") == folder / "metrics.json"
    assert hubs.find_record(str(folder), "recipe.json") is None


def test_the_record_of_a_pinned_model_is_that_of_its_commit(hub: HubServer, pinned: Path) -> None:
    (pinned.parent / "elsewhere" / "recipe.json").write_text("{}")
    assert hubs.find_record(NAME, "recipe.json") is None
    hub.publish(REPO, pinned.parent / "elsewhere")  # a later commit than the manifest's
    assert hubs.find_record(NAME, "recipe.json") is None
    assert hubs.find_record(NAME, "config.json") is not None
