"""A stand-in for Google Cloud Storage on loopback: the part of its JSON API that is asked for.

gcsfs, google-cloud-storage (Orbax asks it whether a bucket has folders) and TensorStore all find it
by `FakeBuckets.environment`. An object appears when its last byte has come, as in the real one.
"""

import base64
import hashlib
import itertools
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

_BUCKET = "/storage/v1/b/([^/]+)"
_OBJECT = f"{_BUCKET}/o/([^/]+)"
_PAGE = 1000


@dataclass
class Stored:
    content: bytes
    generation: int
    kind: str = "application/octet-stream"
    updated: str = field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    )


class FakeBuckets:
    """Buckets in memory.

    Attributes:
        buckets: objects by their names, by bucket.
        closed: buckets that only answer those with credentials, which nobody has here.
        full: buckets that refuse to store anything.
        requests: method and path of all requests, to count.
    """

    def __init__(self, *names):
        self.buckets = {name: {} for name in names}
        self.closed = set()
        self.full = set()
        self.requests = []
        self.uploads = {}  # resumable ones: bucket, name, kind, what has come
        self.lock = threading.RLock()
        self.generations = itertools.count(1)
        handler = type("Handler", (_Handler,), {"server_side": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            # The stand-in has no gRPC, by which gcsfs would ask for the kind of a bucket.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "FSSPEC_GCS_TOKEN": "anon",
            "NO_GCE_CHECK": "true",
            "GCE_METADATA_ROOT": "127.0.0.1:1",  # TensorStore: there are no credentials
        }

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def put(self, bucket, name, content, kind="application/octet-stream"):
        with self.lock:
            stored = Stored(bytes(content), next(self.generations), kind)
            self.buckets[bucket][name] = stored
        return stored

    def upload(self, folder, bucket, under):
        """All files of a local folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(bucket, f"{under}/{path.relative_to(folder)}", path.read_bytes())

    def names(self, bucket, prefix=""):
        with self.lock:
            return sorted(name for name in self.buckets[bucket] if name.startswith(prefix))

    def listing(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit, after = int(query.get("maxResults", _PAGE)), query.get("pageToken", "")
        found, folders, last = [], [], None
        for name in self.names(bucket, prefix):
            if name <= after or (folders and name.startswith(folders[-1])):
                continue
            if name < query.get("startOffset", "") or name >= query.get("endOffset", "\U0010ffff"):
                continue
            if len(found) + len(folders) == limit:
                return found, folders, last
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.append(prefix + rest[: rest.index(delimiter) + 1])
                last = folders[-1] + "\U0010ffff"
            else:
                found.append(name)
                last = name
        return found, folders, None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """gcsfs asks two questions at once, and hangs up when the first is answered."""


class _Refused(Exception):  # noqa: N818
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_side: FakeBuckets

    def _answer(self):
        side, url = self.server_side, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        side.requests.append((self.command, url.path))
        try:
            with side.lock:
                self._route(side, url.path, query, body)
        except _Refused as refused:
            error = {"code": refused.status, "message": str(refused)}
            self._reply(refused.status, {"error": error})

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def _route(self, side, path, query, body):
        routes = (
            ("GET", f"(?:/download)?{_OBJECT}", self._get),
            ("GET", f"{_BUCKET}/o", self._list),
            ("GET", _BUCKET, self._bucket),
            ("POST", f"{_OBJECT}/moveTo/o/([^/]+)", self._move),
            ("POST", f"{_OBJECT}/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)", self._copy),
            ("POST", f"{_OBJECT}/compose", self._compose),
            ("POST|PUT", f"/upload{_BUCKET}/o", self._upload),
            ("DELETE", _OBJECT, self._delete),
        )
        for method, pattern, answer in routes:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                bucket, *names = map(unquote, match.groups())
                if bucket in side.closed:
                    raise _Refused(
                        401, "Anonymous caller does not have storage.objects.list access"
                    )
                if bucket not in side.buckets:
                    raise _Refused(404, "The specified bucket does not exist.")
                if answer == self._upload and bucket in side.full:
                    raise _Refused(403, "The project exceeded its quota.")
                answer(bucket, *names, query=query, body=body)
                return
        raise _Refused(501, f"the stand-in does not know {self.command} {path}")

    def _bucket(self, bucket, *, query, body):
        self._reply(200, {"kind": "storage#bucket", "name": bucket, "id": bucket})

    def _list(self, bucket, *, query, body):
        names, folders, token = self.server_side.listing(bucket, query)
        page = {
            "kind": "storage#objects",
            "items": [self._described(bucket, name) for name in names],
            "prefixes": folders,
        }
        self._reply(200, page | ({"nextPageToken": token} if token else {}))

    def _get(self, bucket, name, *, query, body):
        stored = self._found(bucket, name)
        self._require(query, stored, unchanged=304)
        if query.get("alt") != "media":
            self._reply(200, self._described(bucket, name))
            return
        content, status, headers = stored.content, 200, {"x-goog-generation": stored.generation}
        if wanted := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            size = len(content)
            first = int(wanted[1]) if wanted[1] else size - int(wanted[2])
            last = min(int(wanted[2]) if wanted[1] and wanted[2] else size - 1, size - 1)
            if first > last:
                raise _Refused(416, "Request range not satisfiable")
            content, status = content[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._reply(status, content, headers | {"Content-Type": stored.kind})

    def _delete(self, bucket, name, *, query, body):
        self._require(query, self._found(bucket, name))
        del self.server_side.buckets[bucket][name]
        self._reply(204, b"")

    def _move(self, bucket, name, goal, *, query, body):
        stored = self._found(bucket, name)
        self.server_side.put(bucket, goal, stored.content, stored.kind)
        del self.server_side.buckets[bucket][name]
        self._reply(200, self._described(bucket, goal))

    def _copy(self, bucket, name, other, goal, *, query, body):
        stored = self._found(bucket, name)
        self.server_side.put(other, goal, stored.content, stored.kind)
        self._reply(200, {"done": True, "resource": self._described(other, goal)})

    def _compose(self, bucket, goal, *, query, body):
        parts = [self._found(bucket, part["name"]) for part in json.loads(body)["sourceObjects"]]
        self.server_side.put(bucket, goal, b"".join(part.content for part in parts))
        self._reply(200, self._described(bucket, goal))

    def _upload(self, bucket, *, query, body):
        if identity := query.get("upload_id"):
            self._go_on(identity, body)
            return
        kind = self.headers.get("Content-Type", "")
        if query["uploadType"] == "multipart":
            described, content = _parts(kind, body)
            name = described["name"]
        elif query["uploadType"] == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            content = None
        else:
            name, content = query["name"], body
        self._require(query, self.server_side.buckets[bucket].get(name))
        if content is None:
            identity = str(next(self.server_side.generations))
            self.server_side.uploads[identity] = (bucket, name, bytearray())
            place = f"{self.server_side.address}/upload/storage/v1/b/{quote(bucket)}/o"
            self._reply(
                200, b"", {"Location": f"{place}?uploadType=resumable&upload_id={identity}"}
            )
            return
        self.server_side.put(bucket, name, content)
        self._reply(200, self._described(bucket, name))

    def _go_on(self, identity, body):
        bucket, name, come = self.server_side.uploads[identity]
        come += body
        total = self.headers["Content-Range"].rpartition("/")[2]
        if total == "*" or int(total) > len(come):
            self._reply(308, b"", {"Range": f"bytes=0-{len(come) - 1}"})
            return
        self.server_side.put(bucket, name, come)
        del self.server_side.uploads[identity]
        self._reply(200, self._described(bucket, name))

    def _found(self, bucket, name):
        if name not in self.server_side.buckets[bucket]:
            raise _Refused(404, f"No such object: {bucket}/{name}")
        return self.server_side.buckets[bucket][name]

    def _require(self, query, stored, unchanged=412):
        there = stored.generation if stored else 0
        if int(query.get("ifGenerationMatch", there)) != there:
            raise _Refused(412, "conditionNotMet")
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == there:
            raise _Refused(unchanged, "not modified")

    def _described(self, bucket, name):
        stored = self.server_side.buckets[bucket][name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(stored.content)),
            "generation": str(stored.generation),
            "metageneration": "1",
            "contentType": stored.kind,
            "updated": stored.updated,
            "timeCreated": stored.updated,
            "md5Hash": base64.b64encode(hashlib.md5(stored.content).digest()).decode(),
        }

    def _reply(self, status, content, headers=None):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def _parts(kind, body):
    """The description and the content of a multipart upload."""
    boundary = b"--" + re.search('boundary="?([^";]+)', kind)[1].encode()
    _, first, second = body.rpartition(boundary)[0].split(boundary, 2)
    texts = [re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in (first, second)]
    return json.loads(texts[0]), re.sub(rb"\r?\n\Z", b"", texts[1])
