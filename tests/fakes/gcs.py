"""A small strict Google Cloud Storage: the JSON API over real HTTP, with faults that can be switched on.

    with FakeGcs() as fake:                       # fake.url is the STORAGE_EMULATOR_HOST
        fake.faults.add("status", status=503, times=3)
        fake.faults.add("commit_then_drop", on="multipart", times=1)
        ...
        fake.objects["documents/x.pdf"].data

or `python -m tests.fakes.gcs --port 9023 --faults '[{"kind": "status", "status": 503, "seconds": 5}]'`.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.gcs_bucket import QUANTUM, FakeBucket, FakeObject, Refused

UPLOADS = ("multipart", "session", "chunk")


@dataclass
class Fault:
    """Something that goes wrong with the next requests.

    kind     status            answer `status`, do nothing
             drop              close the connection, do nothing
             commit_then_drop  do it, then close the connection without an answer
             stall             keep silent for `stall_s`, then drop
             slow              wait `stall_s`, then go on as if nothing was
             wrong_crc32c      do it, but claim another crc32c in the answer
             truncated         do it, but send half of the answer
             partial           keep only `keep_bytes` of a chunk
    on       multipart, session, chunk, upload (these three), stat, download, list, delete, bucket,
             permissions, token, any
    after    so many such requests go well first
    times    so many requests; seconds: for so long; neither: until cleared
    """

    kind: str
    on: str = "any"
    after: int = 0
    times: int | None = None
    seconds: float | None = None
    status: int = 503
    stall_s: float = 3600.0
    keep_bytes: int = QUANTUM
    until: float | None = None

    def hits(self, operation: str) -> bool:
        return self.on in ("any", operation) or (self.on == "upload" and operation in UPLOADS)

    def due(self) -> bool:
        """Count one request it hits; whether it strikes."""
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The faults in force; the first that hits a request is taken."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._faults: list[Fault] = []

    def add(self, kind: str, **more: Any) -> Fault:
        fault = Fault(kind, **more)
        if fault.seconds is not None:
            fault.until = time.monotonic() + fault.seconds
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, operation: str) -> Fault | None:
        with self._lock:
            now = time.monotonic()
            self._faults = [f for f in self._faults if f.times != 0 and (f.until is None or now < f.until)]
            return next((f for f in self._faults if f.hits(operation) and f.due()), None)


@dataclass
class Logged:
    """One request. `connection` is the client's port; status -1: not answered yet, 0: dropped."""

    at: float
    operation: str
    method: str
    path: str
    query: dict[str, str]
    body_bytes: int
    connection: int
    status: int = -1


class FakeGcs:
    """A server with one bucket. `objects` maps names to what is stored, `log` holds every request.

    permissions  what testPermissions grants
    token        when set, requests must carry `Bearer <token>`; `POST /token` gives it unless `refuse_keys`
    """

    def __init__(self, bucket: str = "landrecords-test", port: int = 0) -> None:
        self.bucket = FakeBucket(bucket)
        self.faults = Faults()
        self.log: list[Logged] = []
        self.permissions = {f"storage.objects.{v}" for v in ("create", "get", "list", "delete")}
        self.token: str | None = None
        self.refuse_keys = False
        self.stopping = Event()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), name="fake-gcs", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def objects(self) -> dict[str, FakeObject]:
        return self.bucket.objects

    def count(self, *operations: str) -> int:
        """Requests of these kinds so far."""
        return sum(entry.operation in operations for entry in self.log)

    def start(self) -> FakeGcs:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FakeGcs:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the handlers
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: FakeGcs) -> None:
        self.fake = fake
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""

    def hang_up(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class looks for these

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """The log is a list."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.names = [unquote(p) for p in parts.path.strip("/").split("/")]
        operation = self._operation(parts.path)
        client = self.client_address[1]
        self.entry = Logged(time.time(), operation, self.command, self.path, self.query, len(self.body), client)
        self.server.fake.log.append(self.entry)
        self._answer(operation, self.server.fake.faults.take(operation))

    def _operation(self, path: str) -> str:
        kinds = {"multipart": "multipart", "resumable": "session"}
        if "upload_id" in self.query:
            return "chunk"
        if path.startswith("/upload/"):
            return kinds.get(self.query.get("uploadType", ""), "unknown")
        if path.startswith("/download/") or self.query.get("alt") == "media":
            return "download"
        if path.endswith("/iam/testPermissions"):
            return "permissions"
        if path == "/token":
            return "token"
        if "/o/" in path:
            return "delete" if self.command == "DELETE" else "stat"
        if path.endswith("/o"):
            return "list"
        return "bucket" if "/b/" in path else "unknown"

    def _answer(self, operation: str, fault: Fault | None) -> None:
        """Do what is asked, as far as the fault lets it."""
        kind = fault.kind if fault else ""
        if fault and kind in ("stall", "slow"):
            self.server.fake.stopping.wait(fault.stall_s)
        if kind in ("drop", "stall"):
            return self._drop()
        status, headers, body = self._done(operation, fault)
        if kind == "commit_then_drop":
            return self._drop()
        if kind == "wrong_crc32c":
            body = _with_wrong_crc32c(body)
        return self._send(status, headers, body, cut=kind == "truncated")

    def _done(self, operation: str, fault: Fault | None) -> tuple[int, dict[str, str], bytes]:
        try:
            if fault and fault.kind == "status":
                raise Refused(fault.status, "a fault was switched on")
            self._require_token(operation)
            answer: tuple[int, dict[str, str], bytes] = getattr(self, f"_do_{operation}")(fault)
        except Refused as refused:
            error = {"error": {"code": refused.status, "message": refused.reason, "errors": []}}
            return refused.status, {}, json.dumps(error).encode()
        return answer

    def _drop(self) -> None:
        self.entry.status = 0
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.entry.status = status
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._drop()

    def _require_token(self, operation: str) -> None:
        token = self.server.fake.token
        if token and operation != "token" and self.headers.get("Authorization") != f"Bearer {token}":
            raise Refused(401, "Invalid Credentials")

    def _bucket(self) -> FakeBucket:
        bucket = self.server.fake.bucket
        if self.names[self.names.index("b") + 1] != bucket.name:
            raise Refused(404, "The specified bucket does not exist.")
        return bucket

    def _name(self) -> str:
        return "/".join(self.names[self.names.index("o") + 1 :])

    def _do_multipart(self, fault: Fault | None) -> Any:
        bucket = self._bucket()
        about, head, data = _parts(self.body, self.headers["Content-Type"])
        resource = json.loads(about)
        resource.setdefault("contentType", head.decode().partition(":")[2].strip())
        return _found(bucket, bucket.insert(resource, data, self.query))

    def _do_session(self, fault: Fault | None) -> Any:
        resource = json.loads(self.body)
        resource.setdefault("contentType", self.headers.get("X-Upload-Content-Type", ""))
        upload_id = self._bucket().begin(resource, self.query)
        address = f"{self.server.fake.url}{self.path}&upload_id={upload_id}"
        return 200, {"Location": address}, b""

    def _do_chunk(self, fault: Fault | None) -> Any:
        bucket = self._bucket()
        keep = fault.keep_bytes if fault and fault.kind == "partial" else None
        session = bucket.extend(self.query["upload_id"], self.headers["Content-Range"], self.body, keep)
        if session.result:
            return _found(bucket, session.result)
        return 308, ({"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}), b""

    def _do_stat(self, fault: Fault | None) -> Any:
        bucket = self._bucket()
        return _found(bucket, bucket.get(self._name(), self.query))

    def _do_download(self, fault: Fault | None) -> Any:
        found = self._bucket().get(self._name(), self.query)
        headers = {
            "Content-Type": found.content_type,
            "X-Goog-Hash": f"crc32c={found.crc32c}",
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Stored-Content-Length": str(len(found.data)),
        }
        return 200, headers, found.data

    def _do_delete(self, fault: Fault | None) -> Any:
        self._bucket().delete(self._name(), self.query)
        return 204, {}, b""

    def _do_list(self, fault: Fault | None) -> Any:
        bucket = self._bucket()
        limit = min(int(self.query.get("maxResults", 1000)), 1000)
        found, token = bucket.page(self.query.get("prefix", ""), self.query.get("pageToken", ""), limit)
        answer = {"kind": "storage#objects", "items": [o.resource(bucket.name) for o in found]}
        return 200, {}, json.dumps({**answer, **({"nextPageToken": token} if token else {})}).encode()

    def _do_bucket(self, fault: Fault | None) -> Any:
        name = self._bucket().name
        return 200, {}, json.dumps({"kind": "storage#bucket", "id": name, "name": name}).encode()

    def _do_permissions(self, fault: Fault | None) -> Any:
        self._bucket()
        asked = parse_qs(urlsplit(self.path).query).get("permissions", [])
        granted = [p for p in asked if p in self.server.fake.permissions]
        return 200, {}, json.dumps({"permissions": granted} if granted else {}).encode()

    def _do_token(self, fault: Fault | None) -> Any:
        if self.server.fake.refuse_keys:
            return 400, {}, b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}'
        answer = {"access_token": self.server.fake.token, "expires_in": 3600, "token_type": "Bearer"}
        return 200, {}, json.dumps(answer).encode()

    def _do_unknown(self, fault: Fault | None) -> Any:
        raise Refused(501, f"The fake does not know {self.command} {self.path}")


def _found(bucket: FakeBucket, stored: FakeObject) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(stored.resource(bucket.name)).encode()


def _parts(body: bytes, content_type: str) -> tuple[bytes, bytes, bytes]:
    """The JSON, the headers of the media and the media of a multipart/related body."""
    line = b"--" + content_type.partition("boundary=")[2].strip("\"'").encode()
    _, about, media = body.split(line, 2)
    head, _, data = media.partition(b"\r\n\r\n")
    return about.partition(b"\r\n\r\n")[2], head, data.removesuffix(b"\r\n" + line + b"--")


def _with_wrong_crc32c(body: bytes) -> bytes:
    with suppress(ValueError):
        answer = json.loads(body)
        if "crc32c" in answer:
            return json.dumps({**answer, "crc32c": "AAAAAA=="}).encode()
    return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", default="landrecords-test")
    parser.add_argument("--faults", default="[]", help="JSON list of objects with the fields of Fault")
    options = parser.parse_args()
    with FakeGcs(options.bucket, options.port) as fake:
        for fault in json.loads(options.faults):
            fake.faults.add(fault.pop("kind"), **fault)
        print(fake.url, flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()


if __name__ == "__main__":
    main()
