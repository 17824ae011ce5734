"""From a model folder to a repository of the Hub, in one commit, and back through `zoo.load`."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_names import REPO
from huggingface_hub import ModelCard
from support.hub_faults import cut, stalled, status
from support.hub_server import HubServer
from support.networks import lively, same
from support.signals import interruptible

import zoo
from zoo.cli import main
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, HubError
from zoo.manifest import Manifest, read_manifest
from zoo.provenance import TRAINED_FILES
from zoo.weights import write_model


@pytest.fixture(autouse=True)
def writer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that may write; no waiting between two tries."""
    hub.tokens.add("writer")
    monkeypatch.setenv("HF_TOKEN", "writer")
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def trained(tmp_path: Path, tiny: Callable[..., DANet], digits: DatasetSpec) -> Path:
    """What `zoo train danet18-t2.fmnist` leaves, small; and things that are nobody's business."""
    folder = tmp_path / "run" / "model"
    write_model(folder, tiny(), name="danet18-t2.fmnist", data=digits)
    metrics = {"top1": 0.125, "split": "test", "images": 1000, "weights": "last step"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "recipe.json").write_text("{}\n")
    (folder / "secrets.txt").write_text("not to be published")
    return folder


def push(folder: Path | str, *options: str) -> int:
    return main(["push", str(folder), "--repo", REPO, *options])


def test_one_commit_that_loads_again(
    hub: HubServer, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(trained) == 0
    repo = hub.repos[REPO]
    assert repo.messages == ["initial commit", "danet18-t2.fmnist"] and not repo.private
    out = capsys.readouterr().out
    sha = repo.refs["main"]
    assert f"in commit {sha} of {REPO}" in out
    assert same(zoo.load(f"hf:{REPO}@{sha}"), zoo.load(str(trained)))
    published = {
        "config.json",
        "metrics.json",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.json",
        "README.md",
    }
    assert repo.commits[sha].keys() == published | {".gitattributes"}
    entry = json.loads(out.partition("its manifest entry:\n")[2])["danet18-t2.fmnist"]
    assert (entry["repo"], entry["revision"]) == (REPO, sha) and entry[
        "files"
    ].keys() == published - {"README.md"}


def test_the_printed_entry_pins_it(
    hub: HubServer, trained: Path, bundled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(trained, "--json")
    path = bundled / "manifest.json"
    values = json.loads(path.read_text())
    values["weights"] |= json.loads(capsys.readouterr().out)
    path.write_text(json.dumps(values))
    read_manifest.cache_clear()
    assert same(zoo.load("danet18-t2.fmnist"), zoo.load(str(trained)))


def test_pin(
    hub: HubServer,
    bundled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "danet20-t2.fmnist"
    for file, content in {"metrics.json": "{}", "metrics.jsonl": "", "recipe.json": "{}"}.items():
        (bundled / name / file).write_text(content)
    assert push(name, "--pin") == 0
    entry = Manifest.read(bundled / "manifest.json").weights[name]
    assert (entry.repo, entry.revision) == (REPO, hub.repos[REPO].refs["main"])
    assert "recipe.json" in entry.files and "pinned in" in capsys.readouterr().out


def test_pin_of_what_the_manifest_does_not_have(
    hub: HubServer, bundled: Path, trained: Path
) -> None:
    assert push(trained, "--pin") == 2
    assert not hub.repos


def test_private(hub: HubServer, trained: Path) -> None:
    push(trained, "--private")
    assert hub.repos[REPO].private


def test_the_card_has_metadata_of_the_hub(hub: HubServer, trained: Path) -> None:
    push(trained)
    card = ModelCard(hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]["README.md"].decode())
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0", "danet-zoo", "image-classification",
    )  # fmt: skip
    (result,) = card.data.eval_results or []
    assert (result.metric_value, result.dataset_name, result.dataset_split) == (
        0.125,
        "five digits",
        "test",
    )
    assert f'zoo.load("hf:{REPO}")' in card.text and "12.50%" in card.text


@pytest.mark.slow
def test_exports_go_with_it(
    hub: HubServer, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(trained, "--to", "onnx", "nir", "--json") == 0
    files = hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]
    exports = {"danet18-t2.fmnist.onnx", "danet18-t2.fmnist.nir", "danet18-t2.fmnist.trains.nir"}
    assert exports <= files.keys()
    assert exports <= json.loads(capsys.readouterr().out)["danet18-t2.fmnist"]["files"].keys()
    assert len(hub.repos[REPO].messages) == 2


@pytest.mark.slow
def test_a_page_goes_into_a_static_space(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    lively("danet20-t2.fmnist", 28, widths=(4, 6, 8)).save(folder)
    assert push(folder, "--page", "--licence", "mit") == 0
    assert f"its page: the static Space {REPO}" in capsys.readouterr().out
    space, model = hub.repos[f"spaces/{REPO}"], hub.repos[REPO]
    files = space.commits[space.refs["main"]]
    assert {"index.html", "page.json", "models/danet20-t2.fmnist.onnx"} < files.keys()
    assert "runtime/ort-wasm-simd-threaded.wasm" in files
    assert b"sdk: static" in files["README.md"] and space.messages[-1] == "danet20-t2.fmnist"
    assert "index.html" not in model.commits[model.refs["main"]]


def test_dry_run_sends_nothing(
    hub: HubServer, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(trained, "--dry-run") == 0
    out = capsys.readouterr().out
    assert (
        "model.safetensors" in out
        and "# danet18-t2.fmnist" in out
        and "nothing was sent" in out
        and "secrets" not in out
    )
    assert push(trained, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["repo"] == REPO
    assert not hub.requests


def refused(capsys: pytest.CaptureFixture[str], code: int, *said: str) -> None:
    message = capsys.readouterr().err.splitlines()[-1]  # after the client's progress bars
    assert code == 2 and message.startswith("zoo: ")
    for part in said:
        assert part in message


def test_a_link_out_of_the_folder(
    hub: HubServer, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passwords").write_text("{}")
    (trained / "recipe.json").unlink()
    (trained / "recipe.json").symlink_to(tmp_path / "passwords")
    refused(capsys, push(trained), "recipe.json is a link to", "outside of the folder")
    assert not hub.requests


def test_what_cannot_be_published(
    hub: HubServer, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(
        capsys,
        main(["push", str(trained), "--repo", "alone"]),
        "'alone' is not a repository of the Hub: expected org/name",
    )
    refused(capsys, push("danet50-t4"), "was never trained")
    refused(
        capsys,
        push(tmp_path),
        "lacks metrics.json: it is neither what a finished `zoo train` leaves nor `zoo convert`",
    )
    (trained / "recipe.json").unlink()
    refused(
        capsys,
        push(trained),
        "lacks recipe.json: it is neither what a finished `zoo train` leaves nor `zoo convert`",
    )
    assert not hub.requests


@pytest.mark.parametrize(
    ("request_", "fault", "said"),
    [
        ("POST .*/create", status(401), "the Hub answers 401: log in or set a valid HF_TOKEN"),
        (
            "POST .*/create",
            status(403),
            "the Hub answers 403: the token in use lacks the permission",
        ),
        ("POST .*/preupload", status(500), "the Hub answers 500: try again later"),
        ("POST .*/batch", status(429), "the Hub answers 429: too many requests"),
        ("PUT ", cut(None), "publishing to spikes/danet20"),
        ("PUT ", status(403), "publishing to spikes/danet20"),
        ("POST .*/commit", status(500), "the Hub answers 500"),
        ("POST .*/commit", cut(None), "the connection failed"),
    ],
)
def test_a_failure_leaves_no_half_model(
    hub: HubServer,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    request_: str,
    fault: Callable[..., None],
    said: str,
) -> None:
    hub.faults[request_] = fault
    refused(capsys, push(trained), said)
    for repo in hub.repos.values():
        assert repo.messages == ["initial commit"]
    hub.faults.clear()
    assert push(trained) == 0
    assert same(zoo.load(f"hf:{REPO}"), zoo.load(str(trained)))


@pytest.mark.slow
@pytest.mark.parametrize("request_", ["POST .*/create", "PUT ", "POST .*/commit"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_in_the_middle(
    hub: HubServer,
    trained: Path,
    tmp_path: Path,
    request_: str,
    how: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The signal comes while the Hub is silent. Afterwards there is one commit of the whole model,
    or none.
    """
    reached, go = threading.Event(), threading.Event()

    def silent(handler: object) -> bool:
        reached.set()
        return stalled(go)(handler)  # type: ignore[arg-type]

    hub.faults[request_] = silent
    command = [sys.executable, "-m", "zoo", "push", str(trained), "--repo", REPO]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
        preexec_fn=interruptible,
    ) as process:
        while not reached.wait(0.1):
            assert process.poll() is None, process.communicate()
        process.send_signal(how)
        out, err = process.communicate()
    go.set()
    hub.faults.clear()
    assert not out
    if how == signal.SIGINT:
        assert process.returncode == 130 and err.splitlines()[-1] == "zoo: interrupted", err
    for repo in hub.repos.values():
        assert repo.messages in (["initial commit"], ["initial commit", "danet18-t2.fmnist"])
    assert push(trained) == 0
    assert same(zoo.load(f"hf:{REPO}"), zoo.load(str(trained)))


def test_nobody_is_logged_in(
    hub: HubServer,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    refused(capsys, push(trained), "publishing to spikes/danet20", "log in")


def test_an_unknown_licence_is_the_hubs_to_refuse(
    hub: HubServer, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("metrics.json", "metrics.jsonl", "recipe.json"):
        (trained / file).unlink()
    said = {"provenance": "converted", "source": "somebody", "licence": "my own"}
    (trained / "provenance.json").write_text(json.dumps(said))
    refused(capsys, push(trained), "license 'my own' is none of the Hub's")
    (trained / "provenance.json").write_text(json.dumps(said | {"licence": "mit"}))
    assert push(trained) == 0
    card = hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]["README.md"].decode()
    assert (
        "**Converted**, not trained by this project: somebody" in card
        and "not measured by this project" in card
    )


def test_a_folder_without_a_record_is_published_as_that(
    hub: HubServer, trained: Path, bundled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in TRAINED_FILES:
        (trained / file).unlink()
    assert push(trained) == 0
    assert "nothing says how its weights were trained" in capsys.readouterr().out
    files = hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]
    assert files.keys() == {"config.json", "model.safetensors", "README.md", ".gitattributes"}
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "unknown" and not card.data.eval_results and not card.data.datasets
    assert "**Unknown training**" in card.text and "not measured by this project" in card.text
    name = "danet20-t2.fmnist"
    refused(
        capsys,
        push(name, "--pin"),
        "nothing says how its weights were trained, so the manifest cannot have them",
    )


def published(hub: HubServer) -> dict[str, bytes]:
    return hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]


def test_a_model_in_memory_is_published_with_its_record(hub: HubServer, trained: Path) -> None:
    """Unchanged, it is what `zoo push` of its folder publishes."""
    model = zoo.load(trained)
    name = model.push_to_hub(REPO, private=True)
    assert name == f"hf:{REPO}@{hub.repos[REPO].refs['main']}" and hub.repos[REPO].private
    assert hub.repos[REPO].messages == ["initial commit", "danet18-t2.fmnist"]
    assert same(zoo.load(name), model)
    once = published(hub)
    assert push(trained) == 0
    assert published(hub) == once and "12.50%" in once["README.md"].decode()


def test_offline_nothing_is_published(
    hub: HubServer, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"publishing to .* needs the Hub: unset HF_HUB_OFFLINE$"):
        zoo.load(trained).push_to_hub(REPO)
    assert not hub.repos


def test_a_changed_model_is_published_without_the_record(hub: HubServer, trained: Path) -> None:
    model = zoo.load(trained, num_classes=3)
    before, classes = model.origin, model.head.fc.out_features
    read = zoo.load(model.push_to_hub(REPO))
    assert (
        same(read, model) and read.head.fc.out_features == classes == 3 and model.origin == before
    )
    assert read.origin is not None and read.origin.data.classes == ()
    card = published(hub)["README.md"].decode()
    assert (
        "**Unknown training**" in card and "12.50%" not in card and f'zoo.load("hf:{REPO}")' in card
    )
    assert "metrics.json" not in published(hub)


def test_a_model_of_images_of_one_s_own_is_published_with_a_licence(
    hub: HubServer, trained: Path, tmp_path: Path, digits: DatasetSpec
) -> None:
    model = zoo.load(trained)
    data = replace(digits, tag="pets", title="my pets", classes=tuple("abcde"))
    model.save(tmp_path / "pets", name="danet18-t2.pets", data=data)
    name = model.push_to_hub(REPO, licence="mit")
    card = ModelCard(published(hub)["README.md"].decode())
    assert card.data.license == "mit" and "Classes: a, b, c, d, e." in card.text
    assert zoo.load(name).origin == replace(model.origin, weights=zoo.load(name).origin.weights)  # type: ignore[type-var, union-attr]
    model.reset_classifier(3)
    model.push_to_hub(REPO)
    assert "Classes" not in published(hub)["README.md"].decode()
    with pytest.raises(HubError, match="license 'my own' is none of the Hub's"):
        model.push_to_hub(REPO, licence="my own")


def test_a_changed_model_of_a_known_name_is_not_said_to_be_the_known_one(
    hub: HubServer, bundled: Path
) -> None:
    model = zoo.load("danet20-t2.fmnist")
    torch.nn.init.zeros_(model.head.fc.weight)
    model.push_to_hub(REPO)
    assert f'zoo.load("hf:{REPO}")' in published(hub)["README.md"].decode()


def test_a_model_that_cannot_be_published(
    hub: HubServer, trained: Path, tiny: Callable[..., DANet]
) -> None:
    with pytest.raises(HubError, match="'alone' is not a repository of the Hub: expected org/name"):
        zoo.load(trained).push_to_hub("alone")
    with pytest.raises(ConfigError, match="neither a name nor data"):
        tiny().push_to_hub(REPO)
    assert not hub.requests
    hub.faults["POST .*/commit"] = status(500)
    with pytest.raises(HubError, match="the Hub answers 500") as error:
        zoo.load(trained).push_to_hub(REPO)
    assert "\n" not in str(error.value) and hub.repos[REPO].messages == ["initial commit"]
