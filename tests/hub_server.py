"""A server that speaks the Hub's protocol on 127.0.0.1, of the standard library: repositories,
commits, LFS, tokens, and faults.

Only what `huggingface_hub`'s client asks for. Large files are answered by a redirect to a second
server, another origin, as the Hub does. `server.faults` maps "METHOD regular-expression" to what
happens instead of an answer; `server.requests` is what was asked.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 512  # bytes, from which a file goes through LFS
LICENCES = ("apache-2.0", "mit", "unknown")


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    large: int = LARGE
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sha -> files
    refs: dict[str, str] = field(default_factory=dict)  # branch or tag -> sha
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "", branch: str = "main") -> str:
        """All of `files` beside what the branch has; the new sha."""
        everything = self.commits.get(self.refs.get(branch, ""), {}) | files
        content = repr(
            (
                sorted((name, hashlib.sha1(data).hexdigest()) for name, data in everything.items()),
                len(self.commits),
            )
        )
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha], self.refs[branch] = everything, sha
        self.messages.append(message)
        return sha


def tag_of(data: bytes, large: int) -> str:
    """The entity tag of a file: sha256 in LFS, git's sha1 otherwise."""
    if len(data) >= large:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were cut off, or gave up, close the connection: that is what those tests are
        about.
        """
        if not isinstance(sys.exc_info()[1], ConnectionError | ValueError):
            super().handle_error(request, client_address)


class HubServer:
    """Answers at `url` once started; `reset` makes it forget everything but its port."""

    def __init__(self) -> None:
        self.http, self.cdn = (
            Server(("127.0.0.1", 0), Handler, bind_and_activate=False) for _ in range(2)
        )
        for http in (self.http, self.cdn):
            http.hub = self  # type: ignore[attr-defined]
            http.server_bind()  # not yet listening: until a test starts it, connections are refused
        self.url, self.cdn_url = (
            f"http://127.0.0.1:{http.server_address[1]}" for http in (self.http, self.cdn)
        )
        self.reset()

    def reset(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: set[str] = set()  # that may read private repositories and write
        self.faults: dict[str, Callable[[Any], bool | None]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.uploads: dict[str, bytes] = {}

    def start(self) -> None:
        for http in (self.http, self.cdn):
            if not getattr(http, "running", False):
                http.server_activate()
                http.running = True  # type: ignore[attr-defined]
                threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()

    def publish(self, repo: str, folder: Path) -> str:
        """Everything in `folder` as one commit; its sha."""
        return self.repos.setdefault(repo, Repo()).commit(
            {path.name: path.read_bytes() for path in folder.iterdir()}
        )

    def asked(self, pattern: str) -> list[str]:
        """Paths of the requests that match, as "METHOD /path"."""
        return [
            f"{method} {path}"
            for method, path, _ in self.requests
            if re.search(pattern, f"{method} {path}")
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    @property
    def is_cdn(self) -> bool:
        return self.server is self.hub.cdn

    def do(self) -> None:
        self.url = urlsplit(self.path)
        path = unquote(self.url.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.hub.requests.append((self.command, path, dict(self.headers)))
        for pattern, fault in list(self.hub.faults.items()):
            if re.search(pattern, f"{self.command} {path}") and fault(self) is not False:
                return
        if self.is_cdn:
            return self.content(bytes.fromhex(path.rpartition("/")[2]).decode())
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return answer(self, *match.groups())
        self.fail(404, "", f"no such route: {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = do

    # What is answered

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers = {"Content_Length": str(len(body)), "Content_Type": "application/json"} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode())

    def fail(self, status: int, code: str = "", message: str = "") -> None:
        self.reply(
            status,
            json.dumps({"error": message}).encode(),
            **({"X_Error_Code": code} if code else {}),
        )

    def repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        known = self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.tokens
        if repo is None or (repo.private and not known):
            self.fail(404 if known else 401, "RepoNotFound")
            return None
        if repo.gated and not known:
            self.fail(403, "GatedRepo")
            return None
        return repo

    def commit_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repo = self.repo(name)
        if repo is None:
            return None
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            self.fail(404, "RevisionNotFound")
            return None
        return sha, repo.commits[sha]

    def resolve(self, name: str, revision: str, file: str) -> None:
        found = self.commit_of(name, revision)
        if found is None:
            return
        sha, files = found
        if file not in files:
            return self.fail(404, "EntryNotFound")
        data, large = files[file], self.hub.repos[name].large
        headers = {"X_Repo_Commit": sha, "ETag": f'"{tag_of(data, large)}"'}
        if len(data) < large:
            return self.reply(200, self.change(data), **headers)
        place = f"{name}:{sha}:{file}".encode().hex()
        linked = {
            "X_Linked_ETag": headers["ETag"],
            "X_Linked_Size": str(len(data)),
            "Location": f"{self.hub.cdn_url}/{place}",
        }
        self.reply(302, **headers | linked)

    def content(self, place: str) -> None:
        name, sha, file = place.split(":")
        self.reply(
            200,
            self.change(self.hub.repos[name].commits[sha][file]),
            Content_Type="application/octet-stream",
        )

    def revision(self, name: str, revision: str = "main") -> None:
        found = self.commit_of(name, revision)
        if found:
            sha, files = found
            self.json({"id": name, "sha": sha, "siblings": [{"rfilename": file} for file in files]})

    def tree(self, name: str, revision: str) -> None:
        found = self.commit_of(name, revision)
        if found:
            sizes = {file: (len(data), tag_of(data, LARGE)) for file, data in found[1].items()}
            self.json(
                [
                    {"type": "file", "path": file, "oid": oid, "size": size}
                    for file, (size, oid) in sizes.items()
                ]
            )

    # What is taken

    def writer(self) -> bool:
        allowed = self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.tokens
        if not allowed:
            self.fail(401, "", "Invalid username or password.")
        return allowed

    def create(self) -> None:
        if self.writer():
            asked = json.loads(self.body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if name in self.hub.repos:
                return self.reply(
                    409,
                    json.dumps({"error": "it exists", "url": f"{self.hub.url}/{name}"}).encode(),
                )
            repo = self.hub.repos[name] = Repo(
                private=asked.get("private") is True or asked.get("visibility") == "private"
            )
            repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
            self.json({"url": f"{self.hub.url}/{name}"})

    def validate(self) -> None:
        import yaml

        text = json.loads(self.body)["content"]
        values = yaml.safe_load(text.split("---")[1])
        wrong = (
            []
            if values.get("license") in LICENCES
            else [{"message": f"license {values.get('license')!r} is none of the Hub's"}]
        )
        self.reply(400 if wrong else 200, json.dumps({"errors": wrong, "warnings": []}).encode())

    def preupload(self, name: str, _: str) -> None:
        if self.writer() and self.repo(name) is not None:
            files = json.loads(self.body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular"}
                for f in files
            ]
            self.json({"files": [mode | {"shouldIgnore": False, "oid": None} for mode in modes]})

    def batch(self, _: str) -> None:
        if self.writer():
            objects = json.loads(self.body)["objects"]
            made = [
                o | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}}
                for o in objects
            ]
            self.reply(
                200,
                json.dumps({"transfer": "basic", "objects": made}).encode(),
                Content_Type="application/vnd.git-lfs+json",
            )

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.fail(400, "", "the content is not what its name says")
        self.hub.uploads[oid] = self.body
        self.reply(200)

    def commit(self, name: str, branch: str) -> None:
        if not self.writer() or (repo := self.repo(name)) is None:
            return
        files, message = {}, ""
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.uploads:
                    return self.fail(400, "", "an LFS file was never uploaded")
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        sha = repo.commit(files, message, branch)
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def tag(self, name: str, revision: str) -> None:
        if self.writer() and (found := self.commit_of(name, revision)):
            self.hub.repos[name].refs[json.loads(self.body)["tag"]] = found[0]
            self.reply(201)


ID = "([^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (f"(?:GET|HEAD) /{ID}/resolve/([^/]+)/(.+)", Handler.resolve),
    (f"GET /api/models/{ID}", Handler.revision),
    (f"GET /api/models/{ID}/revision/([^/]+)", Handler.revision),
    (f"GET /api/models/{ID}/tree/([^/]+)", Handler.tree),
    ("POST /api/repos/create", Handler.create),
    ("POST /api/validate-yaml", Handler.validate),
    (f"POST /api/models/{ID}/preupload/([^/]+)", Handler.preupload),
    (f"POST /{ID}\\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT /lfs/([0-9a-f]{64})", Handler.upload),
    (f"POST /api/models/{ID}/commit/([^/]+)", Handler.commit),
    (f"POST /api/models/{ID}/tag/([^/]+)", Handler.tag),
]


# Faults


def status(code: int, error: str = "") -> Callable[[Handler], None]:
    """Answer with this status."""
    return lambda handler: handler.fail(code, error, "as the test wants it")


def cut(after: int | None) -> Callable[[Handler], None]:
    """Close the connection: before an answer (None), or after so many bytes of a body that is
    announced whole.
    """

    def fault(handler: Handler) -> None:
        handler.close_connection = True
        if after is not None:
            handler.send_response(200)
            data = answer_of(handler)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:after])
            handler.wfile.flush()
        handler.connection.close()

    return fault


def changed(change: Callable[[bytes], bytes]) -> Callable[[Handler], bool]:
    """Answer as ever, but with other content, announced as of its own length."""

    def fault(handler: Handler) -> bool:
        handler.change = change
        return False

    return fault


def stalled(until: threading.Event) -> Callable[[Handler], bool]:
    """Say nothing until told to, then answer."""

    def fault(_: Handler) -> bool:
        until.wait()
        return False

    return fault


def times(n: int, fault: Callable[[Handler], bool | None]) -> Callable[[Handler], bool | None]:
    """Only the first n times."""
    left = iter(range(n))
    return lambda handler: fault(handler) if next(left, None) is not None else False


def answer_of(handler: Handler) -> bytes:
    """What the second server would send."""
    name, sha, file = (
        bytes.fromhex(unquote(handler.url.path).rpartition("/")[2]).decode().split(":")
    )
    return handler.hub.repos[name].commits[sha][file]
