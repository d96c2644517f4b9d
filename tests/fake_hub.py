"""A hub on loopback: repositories of small files, by the routes that huggingface_hub asks for.

Files of Git LFS are answered with a redirect to another host, as the real hub does. What is sent is
counted, so that a test can say which bytes were needed.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Content = bytes | Path
_LFS_ENDINGS = (".safetensors", ".bin", ".ckpt", ".pt", ".pkl")
_LFS_BYTES = 2**20


def files_of(folder: Path) -> dict[str, Content]:
    return {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }


class FakeHub:
    """Attributes:
    repositories: the files of each, by its name.
    gated: names of those whose licence must be accepted.
    down: names of those that answer with an error of the server.
    cuts: after how many bytes the connection is lost, by a file's name, once.
    lost_before: the name of a file at which the server breaks down.
    held: the same as cuts, but nothing more comes until the client is gone.
    sent: how many bytes of each file went out, by repository and name.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Mapping[str, Content]] = {}
        self.gated: set[str] = set()
        self.down: set[str] = set()
        self.cuts: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.lost_before: str | None = None
        self.sent: Counter[tuple[str, str]] = Counter()
        self.stalled = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def content(self, repository: str, name: str) -> bytes:
        found = self.repositories[repository][name]
        return found if isinstance(found, bytes) else found.read_bytes()

    def commit(self, repository: str) -> str:
        names = "\n".join(sorted(self.repositories[repository]))
        return hashlib.sha1(f"{repository}\n{names}".encode()).hexdigest()

    def bytes_sent(self) -> int:
        return sum(self.sent.values())

    def bytes_of(self, repository: str, names: set[str]) -> int:
        return sum(len(self.content(repository, name)) for name in names)

    def names_sent(self) -> set[str]:
        return {name for _, name in self.sent}


def _is_lfs(name: str, data: bytes) -> bool:
    return name.endswith(_LFS_ENDINGS) or len(data) >= _LFS_BYTES


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
                self.describe("/".join(parts[2:4]), parts[5])
            elif parts[2:3] == ["resolve"]:
                self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            elif parts[0] == "storage":
                self.send_data("/".join(parts[1:3]), "/".join(parts[3:]))
            else:
                self.refuse(404, "")

        def missing(self, repository: str, revision: str) -> bool:
            if repository in hub.down:
                self.refuse(503, "")
            elif repository not in hub.repositories:
                self.refuse(401, "RepoNotFound")
            elif revision not in ("main", "v1", hub.commit(repository)):
                self.refuse(404, "RevisionNotFound")
            else:
                return False
            return True

        def describe(self, repository: str, revision: str) -> None:
            if self.missing(repository, revision):
                return
            siblings = []
            for name in hub.repositories[repository]:
                data = hub.content(repository, name)
                lfs = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
                listed = {"rfilename": name, "size": len(data), "blobId": _git_digest(data)}
                siblings.append(listed | ({"lfs": lfs} if _is_lfs(name, data) else {}))
            found = {"id": repository, "sha": hub.commit(repository), "siblings": siblings}
            self.reply(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

        def resolve(self, repository: str, revision: str, name: str) -> None:
            if self.missing(repository, revision):
                return
            if name == hub.lost_before:
                self.refuse(503, "")
            elif repository in hub.gated:
                self.refuse(401, "GatedRepo")
            elif name not in hub.repositories[repository]:
                self.refuse(404, "EntryNotFound")
            elif _is_lfs(name, data := hub.content(repository, name)):
                headers = {
                    "Location": f"http://localhost:{hub.port}/storage/{repository}/{name}",
                    "X-Linked-Size": str(len(data)),
                    "X-Linked-ETag": f'"{_sha256(data)}"',
                    "X-Repo-Commit": hub.commit(repository),
                }
                self.reply(302, b"", headers)
            else:
                self.send_data(repository, name)

        def send_data(self, repository: str, name: str) -> None:
            data = hub.content(repository, name)
            begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {
                "ETag": f'"{_git_digest(data)}"',
                "X-Repo-Commit": hub.commit(repository),
                "Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}",
            }
            cut = hub.cuts.pop(name, None) or hub.held.get(name)
            sent = data[begin:] if cut is None else data[begin:cut]
            whole = len(data) - begin
            self.reply(206 if begin else 200, sent, headers, announced=whole)
            if self.command == "GET":
                hub.sent[repository, name] += len(sent)
            if len(sent) < whole:
                if hub.held.pop(name, None):
                    hub.stalled.set()
                    self.rfile.read(1)  # returns when the client is gone
                self.close_connection = True

        def refuse(self, status: int, code: str) -> None:
            self.reply(status, b"", {"X-Error-Code": code})

        def reply(
            self, status: int, data: bytes, headers: dict[str, str], announced: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if announced is None else announced))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    return Handler


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
