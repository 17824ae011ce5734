"""A server on 127.0.0.1 that speaks as much of the Hub's protocol as `huggingface_hub` asks for.

It knows repositories, commits, large files (LFS) and tokens. Large files are answered by a redirect
to a second server of another origin, as the Hub does. `hub_faults.py` makes it fail.
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

__all__ = ["Handler", "HubServer", "Repo"]

LFS_BYTES = 512  # from this size on a file goes through LFS
LICENCES = ("apache-2.0", "mit", "unknown")


@dataclass
class Repo:
    """A repository: commits, and the branches and tags that point to them."""

    private: bool = False
    gated: bool = False
    large: int = LFS_BYTES
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sha -> files
    refs: dict[str, str] = field(default_factory=dict)  # branch or tag -> sha
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "", branch: str = "main") -> str:
        """Add `files` to those of the branch, and return the sha of the new commit."""
        tree = self.commits.get(self.refs.get(branch, ""), {}) | files
        digests = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in tree.items())
        sha = hashlib.sha1(repr((digests, len(self.commits))).encode()).hexdigest()
        self.commits[sha], self.refs[branch] = tree, sha
        self.messages.append(message)
        return sha


def entity_tag(data: bytes, large: int) -> str:
    """Return the entity tag of a file: its sha256 in LFS, git's sha1 otherwise."""
    if len(data) >= large:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Server(ThreadingHTTPServer):
    """One of the two servers of a `HubServer`."""

    daemon_threads = True
    running = False

    def __init__(self, hub: "HubServer") -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.hub = hub
        self.server_bind()  # not yet listening: until a test starts it, connections are refused
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Listen in a thread, unless it already does."""
        if not self.running:
            self.server_activate()
            self.running = True
            threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that a client closed, which is what some tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError | ValueError):
            super().handle_error(request, client_address)


class HubServer:
    """A Hub that answers at `url` once it is started; `reset` empties it and keeps its port.

    `faults` maps "METHOD regular-expression" to what happens instead of an answer (see
    `hub_faults.py`); `requests` holds method, path and headers of every request.
    """

    def __init__(self) -> None:
        self.http, self.cdn = Server(self), Server(self)
        self.url = self.http.url
        self.reset()

    def reset(self) -> None:
        """Forget all repositories, tokens, faults, requests and uploads."""
        self.repos: dict[str, Repo] = {}
        self.tokens: set[str] = set()  # that may read private repositories and write
        self.faults: dict[str, Callable[[Any], bool | None]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.uploads: dict[str, bytes] = {}

    def start(self) -> None:
        """Answer requests from now on."""
        self.http.start()
        self.cdn.start()

    def publish(self, repo: str, folder: Path) -> str:
        """Commit all files of `folder` to a repository, and return the sha of the commit."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.repos.setdefault(repo, Repo()).commit(files)

    def asked(self, pattern: str) -> list[str]:
        """Return the requests, as "METHOD /path", in which the pattern is found."""
        lines = (f"{method} {path}" for method, path, _ in self.requests)
        return [line for line in lines if re.search(pattern, line)]


class Handler(BaseHTTPRequestHandler):
    """One connection: `do` finds the method that answers a request in `ROUTES`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing of a request."""

    @property
    def hub(self) -> HubServer:
        """The Hub that this connection belongs to."""
        assert isinstance(self.server, Server)
        return self.server.hub

    @property
    def is_cdn(self) -> bool:
        """Whether the second server is asked, which sends large files."""
        return self.server is self.hub.cdn

    @property
    def is_authorized(self) -> bool:
        """Whether the request carries one of the Hub's tokens."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.tokens

    def do(self) -> None:
        """Answer a request, unless a fault does so."""
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.hub.requests.append((self.command, path, dict(self.headers)))
        for pattern, fault in list(self.hub.faults.items()):
            if re.search(pattern, line) and fault(self) is not False:
                return
        if self.is_cdn:
            headers = {"Content-Type": "application/octet-stream"}
            return self.reply(200, self.change(self.large_file()), headers)
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, line)
            if match:
                return answer(self, *match.groups())
        self.fail(404, "", f"no such route: {line}")

    do_GET = do_HEAD = do_POST = do_PUT = do

    # Answers

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send status, headers (of JSON, unless others are given) and body."""
        self.send_response(status)
        defaults = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        for name, value in (defaults | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send a value as JSON."""
        self.reply(status, json.dumps(value).encode(), headers)

    def fail(self, status: int, code: str = "", message: str = "") -> None:
        """Send an error as the Hub does: its code in a header, its message in the body."""
        self.json({"error": message}, status, {"X-Error-Code": code} if code else {})

    # Reading

    def repo(self, name: str) -> Repo | None:
        """Return a repository that the client may see; without one, answer why not."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.is_authorized):
            self.fail(404 if self.is_authorized else 401, "RepoNotFound")
            return None
        if repo.gated and not self.is_authorized:
            self.fail(403, "GatedRepo")
            return None
        return repo

    def commit_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return sha and files of a revision; without it, answer why not."""
        repo = self.repo(name)
        if repo is None:
            return None
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            self.fail(404, "RevisionNotFound")
            return None
        return sha, repo.commits[sha]

    def resolve(self, name: str, revision: str, file: str) -> None:
        """Send a file, or redirect to the second server if it is large."""
        commit = self.commit_of(name, revision)
        if commit is None:
            return
        sha, files = commit
        if file not in files:
            return self.fail(404, "EntryNotFound")
        data, large = files[file], self.hub.repos[name].large
        tag = f'"{entity_tag(data, large)}"'
        headers = {"X-Repo-Commit": sha, "ETag": tag}
        if len(data) < large:
            return self.reply(200, self.change(data), headers)
        address = f"{name}:{sha}:{file}".encode().hex()
        headers |= {"X-Linked-ETag": tag, "X-Linked-Size": str(len(data))}
        self.reply(302, headers=headers | {"Location": f"{self.hub.cdn.url}/{address}"})

    def large_file(self) -> bytes:
        """Return the file that a request to the second server names."""
        address = unquote(urlsplit(self.path).path).rpartition("/")[2]
        name, sha, file = bytes.fromhex(address).decode().split(":")
        return self.hub.repos[name].commits[sha][file]

    def revision(self, name: str, revision: str = "main") -> None:
        """Send the sha and the names of the files of a revision."""
        commit = self.commit_of(name, revision)
        if commit:
            sha, files = commit
            self.json({"id": name, "sha": sha, "siblings": [{"rfilename": file} for file in files]})

    def tree(self, name: str, revision: str) -> None:
        """Send the names, sizes and tags of the files of a revision."""
        commit = self.commit_of(name, revision)
        if commit:
            _, files = commit
            rows = [
                {
                    "type": "file",
                    "path": file,
                    "oid": entity_tag(data, LFS_BYTES),
                    "size": len(data),
                }
                for file, data in files.items()
            ]
            self.json(rows)

    # Writing

    def may_write(self) -> bool:
        """Return whether the client may write; if not, answer so."""
        if not self.is_authorized:
            self.fail(401, "", "Invalid username or password.")
        return self.is_authorized

    def create(self) -> None:
        """Make a repository with a first commit."""
        if not self.may_write():
            return
        values = json.loads(self.body)
        name = "/".join(filter(None, (values.get("organization"), values["name"])))
        if values.get("type") == "space":
            assert values["sdk"] == "static"
            name = f"spaces/{name}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            return self.json({"error": "it exists", "url": url}, 409)
        private = values.get("private") is True or values.get("visibility") == "private"
        repo = self.hub.repos[name] = Repo(private=private)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.json({"url": url})

    def validate(self) -> None:
        """Check the licence in the front matter of a model card."""
        import yaml

        text = json.loads(self.body)["content"]
        card = yaml.safe_load(text.split("---")[1])
        licence = card.get("license")
        if licence in LICENCES or card.get("sdk") == "static":
            return self.json({"errors": [], "warnings": []})
        error = {"message": f"license {licence!r} is none of the Hub's"}
        self.json({"errors": [error], "warnings": []}, 400)

    def preupload(self, name: str, _: str) -> None:
        """Say of every file whether it goes through LFS."""
        if self.may_write() and self.repo(name) is not None:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LFS_BYTES else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.json({"files": files})

    def batch(self, _: str) -> None:
        """Say where the client is to upload its large files."""
        if self.may_write():
            objects = [
                file | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{file['oid']}"}}}
                for file in json.loads(self.body)["objects"]
            ]
            headers = {"Content-Type": "application/vnd.git-lfs+json"}
            self.json({"transfer": "basic", "objects": objects}, headers=headers)

    def upload(self, oid: str) -> None:
        """Take a large file, whose name is the sha256 of its content."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.fail(400, "", "the content is not what its name says")
        self.hub.uploads[oid] = self.body
        self.reply(200)

    def commit(self, name: str, branch: str) -> None:
        """Take a commit: a line of JSON for its message and for each of its files."""
        if not self.may_write() or (repo := self.repo(name)) is None:
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
        """Give a revision another name."""
        if self.may_write() and (commit := self.commit_of(name, revision)):
            self.hub.repos[name].refs[json.loads(self.body)["tag"]] = commit[0]
            self.reply(201)


ID = "([^/]+/[^/]+)"
SPACE = "(spaces/[^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (f"(?:GET|HEAD) /{ID}/resolve/([^/]+)/(.+)", Handler.resolve),
    (f"GET /api/models/{ID}", Handler.revision),
    (f"GET /api/models/{ID}/revision/([^/]+)", Handler.revision),
    (f"GET /api/models/{ID}/tree/([^/]+)", Handler.tree),
    ("POST /api/repos/create", Handler.create),
    ("POST /api/validate-yaml", Handler.validate),
    (f"POST /api/models/{ID}/preupload/([^/]+)", Handler.preupload),
    (f"POST /api/{SPACE}/preupload/([^/]+)", Handler.preupload),
    (f"POST /{SPACE}\\.git/info/lfs/objects/batch", Handler.batch),
    (f"POST /api/{SPACE}/commit/([^/]+)", Handler.commit),
    (f"POST /{ID}\\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT /lfs/([0-9a-f]{64})", Handler.upload),
    (f"POST /api/models/{ID}/commit/([^/]+)", Handler.commit),
    (f"POST /api/models/{ID}/tag/([^/]+)", Handler.tag),
]
