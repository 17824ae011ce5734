"""What goes wrong between the zoo and the Hub: one line that says what to do, nothing half taken
for whole, nothing lost.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_names import NAME, REPO
from support.hub_faults import changed, cut, stalled, status, times
from support.hub_server import HubServer
from support.networks import same

import zoo
from zoo import hub as hubs
from zoo.errors import ConfigError, HubError, WeightsError, ZooError
from zoo.manifest import Manifest, read_manifest
from zoo.weights import read_model

GET_WEIGHTS = f"GET /.*{b'model.safetensors'.hex()}"  # from the second server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits longer and longer between two tries."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def refused(kind: type[ZooError], *said: str, name: str = NAME, **options: Any) -> str:
    """Loading fails in one line that says all of `said`."""
    with pytest.raises(kind) as error:
        zoo.load(name, **options)
    message = str(error.value)
    assert "\n" not in message
    for part in said:
        assert re.search(part, message), message
    return message


def cached(tmp_path: Path) -> list[Path]:
    """Blobs in the cache, partial ones included."""
    return [path for path in (tmp_path / "huggingface").rglob("blobs/*") if path.is_file()]


@pytest.fixture
def recovers(hub: HubServer, pinned: Path, tmp_path: Path) -> Iterator[None]:
    """After the fault, the same call succeeds, and every file in the cache is whole."""
    yield
    hub.faults.clear()
    assert same(zoo.load(NAME), read_model(pinned.parent / "elsewhere"))
    assert not [path for path in cached(tmp_path) if path.name.endswith(".incomplete")]
    hubs.verify(NAME)


@pytest.mark.parametrize("after", [None, 0, 1, 4096, -1])
def test_a_connection_cut_within_a_file(
    hub: HubServer, pinned: Path, recovers: None, after: int | None, tmp_path: Path
) -> None:
    hub.faults[GET_WEIGHTS] = cut(after)
    refused(HubError, r"model\.safetensors of spikes/danet20", "the connection failed", "try again")
    assert not [path for path in cached(tmp_path) if path.name.endswith(".incomplete")]


@pytest.mark.parametrize(
    "request_", ["HEAD .*config.json", "HEAD .*model.safetensors", f"GET /.*{b'config.json'.hex()}"]
)
def test_a_connection_cut_before_a_file(
    hub: HubServer, pinned: Path, recovers: None, request_: str
) -> None:
    hub.faults[request_] = cut(None)
    refused(HubError, "spikes/danet20", "the connection failed", "try again")


def test_a_connection_cut_once_is_taken_up_again(
    hub: HubServer, pinned: Path, recovers: None
) -> None:
    hub.faults[GET_WEIGHTS] = times(1, cut(100))
    zoo.load(NAME)
    assert len(hub.asked(GET_WEIGHTS)) == 2


def test_corruption_of_the_same_length(
    hub: HubServer, pinned: Path, recovers: None, tmp_path: Path
) -> None:
    hub.faults[GET_WEIGHTS] = changed(lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    expected = read_manifest().weights[NAME].files["model.safetensors"].sha256
    message = refused(
        WeightsError,
        rf"model\.safetensors has sha256 \w+, expected {expected}; moved to .*bad-",
        "load it again",
    )
    aside = Path(message.partition("moved to ")[2].partition(": load")[0])
    assert aside in cached(tmp_path)


def test_a_foreign_file_that_is_not_what_the_hub_says(hub: HubServer, folder: Path) -> None:
    hub.publish(REPO, folder)
    hub.faults[GET_WEIGHTS] = changed(lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    refused(WeightsError, r"model\.safetensors has sha256", "load it again", name=f"hf:{REPO}")
    hub.faults.clear()
    assert same(zoo.load(f"hf:{REPO}"), read_model(folder))


def test_a_small_foreign_file_that_is_not_what_the_hub_says(hub: HubServer, folder: Path) -> None:
    hub.publish(REPO, folder)
    hub.repos[REPO].large = 5000  # than the config
    hub.faults["GET .*config.json"] = changed(lambda data: data.replace(b"0.5", b"0.6"))
    refused(
        WeightsError,
        r"config\.json has git's sha1 \w+, expected \w+; moved to",
        "load it again",
        name=f"hf:{REPO}",
    )
    hub.faults.clear()
    assert same(zoo.load(f"hf:{REPO}"), read_model(folder))


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-7], lambda data: data + b"more", lambda data: b""],
    ids=["short", "long", "empty"],
)
def test_another_length_than_announced(
    hub: HubServer, pinned: Path, recovers: None, change: Any
) -> None:
    hub.faults[GET_WEIGHTS] = changed(change)
    refused(WeightsError, r"model\.safetensors")


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (401, "", "the Hub answers 401: log in or set a valid HF_TOKEN"),
        (403, "", "the Hub answers 403: the token in use lacks the permission"),
        (403, "GatedRepo", "access is gated; ask for it"),
        (404, "RepoNotFound", "no such repository, or a private one"),
        (404, "RevisionNotFound", "there is no such revision"),
        (404, "EntryNotFound", "the repository has no such file"),
        (429, "", "the Hub answers 429: too many requests"),
        (500, "", "the Hub answers 500: try again later"),
        (503, "", "the Hub answers 503: try again later"),
    ],
)
@pytest.mark.parametrize("request_", ["HEAD", "GET"])
def test_answers_that_are_none(
    hub: HubServer, pinned: Path, recovers: None, request_: str, code: int, error: str, said: str
) -> None:
    hub.faults[f"^{request_} "] = status(code, error)
    refused(HubError, r"config\.json of spikes/danet20", said)


def test_what_is_cached_needs_no_hub(hub: HubServer, pinned: Path) -> None:
    zoo.load(NAME)
    hub.faults["."] = status(500)
    zoo.load(NAME)


def test_a_branch_that_is_cached_survives_the_hub(hub: HubServer, folder: Path) -> None:
    hub.publish(REPO, folder)
    zoo.load(f"hf:{REPO}")
    hub.faults["."] = status(503)
    assert same(zoo.load(f"hf:{REPO}"), read_model(folder))


def test_a_slow_server(
    hub: HubServer, pinned: Path, recovers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    hub.faults[GET_WEIGHTS] = stalled(go)
    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 1)
        refused(HubError, r"model\.safetensors of spikes", "the connection failed", "[Tt]ime")
    go.set()


def test_offline_and_not_cached(hub: HubServer, pinned: Path, folder: Path) -> None:
    hub.publish(REPO, folder)
    refused(
        HubError,
        "is not in the cache .*, and offline nothing is fetched: load it once online",
        offline=True,
    )
    refused(HubError, "is not in the cache", name=f"hf:{REPO}", offline=True)
    assert not hub.requests


def test_a_tampered_cache(hub: HubServer, pinned: Path, recovers: None) -> None:
    zoo.load(NAME)
    path = hubs.resolve(NAME) / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    refused(WeightsError, r"model\.safetensors has sha256 .* moved to", "load it again")


def test_a_tampered_cache_of_a_foreign_model(hub: HubServer, folder: Path) -> None:
    sha = hub.publish(REPO, folder)
    zoo.load(f"hf:{REPO}")
    path = hubs.resolve(f"hf:{REPO}") / "config.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    refused(WeightsError, r"config\.json has sha256 .* moved to", name=f"hf:{REPO}@{sha}")
    assert same(zoo.load(f"hf:{REPO}@{sha}"), read_model(folder))


def test_a_link_that_leaves_the_cache(hub: HubServer, pinned: Path, tmp_path: Path) -> None:
    path = hubs.resolve(NAME) / "model.safetensors"
    stranger = tmp_path / "stranger"
    path.resolve().rename(stranger)
    path.unlink()
    path.symlink_to(stranger)
    refused(WeightsError, rf"is a link to {stranger}, outside of the cache: delete it")
    path.unlink()
    zoo.load(NAME)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_a_foreign_index_that_leaves_the_folder(
    hub: HubServer, folder: Path, shard: str, tmp_path: Path
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"head.fc.bias": shard}})
    )
    hub.publish(REPO, folder)
    refused(WeightsError, "safetensors file names in the same folder", name=f"hf:{REPO}")
    assert not hub.asked("passwd|b.safetensors")


def test_a_foreign_config_of_a_monster(hub: HubServer, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["widths"] = [10**9, 10**9]
    (folder / "config.json").write_text(json.dumps(config))
    hub.publish(REPO, folder)
    refused(
        WeightsError,
        "entry 1 of widths = 1000000000 must be from 1 to 16384",
        name=f"hf:{REPO}",
    )


def test_a_pickle_is_not_even_asked_for(hub: HubServer, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.publish(REPO, folder)
    refused(HubError, "the repository has no such file", name=f"hf:{REPO}")
    assert not hub.asked("pytorch_model")


@pytest.mark.parametrize(
    "file", ["../config.json", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "a\0b"]
)
def test_a_manifest_whose_files_leave_the_folder(bundled: Path, file: str) -> None:
    path = bundled / "manifest.json"
    values = json.loads(path.read_text())
    values["weights"][NAME]["files"][file] = values["weights"][NAME]["files"]["config.json"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="is not the name of a file in the model's folder"):
        Manifest.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"repo": "spikes/x"},
        {"repo": "spikes/x", "revision": "main"},
        {"repo": "../x", "revision": "0" * 40},
    ],
)
def test_a_manifest_that_pins_no_commit(bundled: Path, change: dict[str, str]) -> None:
    path = bundled / "manifest.json"
    values = json.loads(path.read_text())
    values["weights"][NAME] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(
        ConfigError, match="expected 'org/name' and a commit of 40 hexadecimal digits"
    ):
        Manifest.read(path)


# In processes of their own


LOAD = """
import sys, torch, zoo
print(sum(float(t.double().sum()) for t in zoo.load(sys.argv[1]).state_dict().values()))
"""


@pytest.fixture
def child(hub: HubServer, tmp_path: Path) -> Any:
    """`child(code, *arguments, **environment)`: a Python process with an empty home, and this
    test's Hub.
    """
    children: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        settings = {
            "HF_HOME": str(tmp_path / "huggingface"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | settings | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(process)
        return process

    yield start
    for process in children:
        process.kill()
        process.communicate()


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=1000)  # for one that hangs, not for a slow machine
    return process.returncode, out, err


@pytest.mark.slow
def test_two_processes_end_with_one_good_copy(
    hub: HubServer, folder: Path, child: Any, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    results = [finished(process) for process in [child(LOAD, f"hf:{REPO}") for _ in range(2)]]
    assert [result[0] for result in results] == [0, 0] and results[0][1] == results[1][1], results
    assert len(cached(tmp_path)) == 2 and len(hub.asked(GET_WEIGHTS)) <= 2


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again(
    hub: HubServer, folder: Path, child: Any, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    reached, go = threading.Event(), threading.Event()

    def half(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b"x" * 50000)
        handler.wfile.flush()
        reached.set()
        go.wait()

    hub.faults[GET_WEIGHTS] = half
    process = child(LOAD, f"hf:{REPO}")
    while not reached.wait(0.1):
        assert process.poll() is None, finished(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    go.set()
    hub.faults.clear()
    assert finished(child(LOAD, f"hf:{REPO}"))[0] == 0
    snapshot = next((tmp_path / "huggingface").rglob("snapshots/*/model.safetensors"))
    assert snapshot.read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_full_disk(hub: HubServer, folder: Path, child: Any, tmp_path: Path) -> None:
    hub.publish(REPO, folder)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))"
    limited = f"import resource, torch, zoo.hub\n{limit}\n{LOAD}"
    code, _, err = finished(child(limited, f"hf:{REPO}"))
    assert code == 1 and re.search(
        r"HubError: .*; free some space, or choose another cache", err
    ), err
    assert not [path for path in cached(tmp_path) if path.stat().st_size >= 8192]
    assert finished(child(LOAD, f"hf:{REPO}"))[0] == 0


@pytest.mark.slow
def test_a_cache_that_cannot_be_written(
    hub: HubServer, folder: Path, child: Any, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    # As somebody who may not write there, once all that is imported on the way has been.
    once = f"zoo.load('hf:{REPO}', cache_dir='{tmp_path / 'another'}')"
    nobody = f"import os, zoo\n{once}\nos.getuid() or os.setuid(65534)\n{LOAD}"
    for place in (tmp_path, *tmp_path.parents):
        # pytest's own, that it keeps to itself
        if tempfile.gettempdir() in map(str, place.parents):
            place.chmod(0o755)
    (tmp_path / "huggingface").mkdir(mode=0o555)
    code, _, err = finished(child(nobody, f"hf:{REPO}"))
    assert code == 1 and re.search(
        r"HubError: .*Permission denied; choose another cache \(cache_dir, or HF_HOME\)", err
    ), err
    (tmp_path / "huggingface").chmod(0o755)
    assert finished(child(LOAD, f"hf:{REPO}"))[0] == 0
    for path in (tmp_path / "huggingface").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code, _, err = finished(child(nobody, f"hf:{REPO}"))
    assert code == 0, err  # reading is enough


@pytest.mark.slow
def test_offline_by_the_environment(hub: HubServer, folder: Path, child: Any) -> None:
    hub.publish(REPO, folder)
    code, _, err = finished(child(LOAD, f"hf:{REPO}", HF_HUB_OFFLINE="1"))
    assert code == 1 and "and offline nothing is fetched: load it once online" in err, err
    assert not hub.requests
    assert finished(child(LOAD, f"hf:{REPO}"))[0] == 0
    hub.requests.clear()
    assert finished(child(LOAD, f"hf:{REPO}", HF_HUB_OFFLINE="1"))[0] == 0
    assert not hub.requests
