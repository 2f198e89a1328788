"""An HTTP server on a raw socket that misbehaves exactly as told, and logs every request it read.

A behaviour is a function `(connection, request) -> bool`: it writes bytes, and says whether the connection
stays open. `server.on(path, a, b)` answers the first request for `path` with `a` and all later ones with `b`.
"""

from __future__ import annotations

import contextlib
import gzip as gzip_module
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """One request as read: `connection` counts from 1, `at_s` is monotonic."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at_s: float

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class Connection:
    sock: socket.socket
    number: int
    ended: threading.Event

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)


Behaviour = Callable[[Connection, Seen], bool]


@dataclass
class RawServer:
    """Context manager. `tls` wraps every connection; `greeting`, even empty, is said instead of serving."""

    tls: ssl.SSLContext | None = None
    greeting: bytes | None = None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._routes: dict[str, list[Behaviour]] = {}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> RawServer:
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        for sock in [self._listener, *tuple(self._open)]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def on(self, path: str, *behaviours: Behaviour) -> str:
        """Answer `path` so; returns its URL."""
        self._routes[path] = list(behaviours)
        return self.url(path)

    def wait_for(self, requests: int, timeout_s: float = 5) -> None:
        """Until that many requests were read."""
        limit_s = time.monotonic() + timeout_s
        while len(self.seen) < requests:
            assert time.monotonic() < limit_s, f"only {len(self.seen)} of {requests} requests came"
            time.sleep(0.005)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
            self._spawn(self._serve, self._known(sock), number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.greeting is not None:
                sock.sendall(self.greeting)
                _until_gone(Connection(sock, number, self._ended), 30)
                return
            if self.tls:
                sock = self._known(self.tls.wrap_socket(sock, server_side=True))
            with sock.makefile("rb") as reader:
                connection = Connection(sock, number, self._ended)
                while (request := _read_request(reader, number)) and self._answer(connection, request):
                    pass
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _known(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            self._open.add(sock)
        return sock

    def _answer(self, connection: Connection, request: Seen) -> bool:
        with self._lock:
            self.seen.append(request)
            waiting = self._routes.get(request.path) or [answer(404)]
            behaviour = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return behaviour(connection, request)


def _read_request(reader: BufferedReader, number: int) -> Seen | None:
    line = reader.readline()
    if not line.strip().endswith((b"HTTP/1.1", b"HTTP/1.0")):
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = dict(_read_headers(reader))
    body = reader.read(int(headers.get("content-length", 0)))
    return Seen(method, target, headers, body, number, time.monotonic())


def _read_headers(reader: BufferedReader) -> Iterator[tuple[str, str]]:
    while (line := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def head(status: int, headers: dict[str, object]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(status: int = 200, body: bytes = b"", **headers: object) -> Behaviour:
    """A well-formed answer; `retry_after=3` becomes `retry-after: 3`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def behave(connection: Connection, request: Seen) -> bool:
        content = b"" if request.method == "HEAD" else body
        connection.send(head(status, {"content-length": len(body), **named}) + content)
        return named.get("connection") != "close"

    return behave


def raw(data: bytes, *, keep: bool = False) -> Behaviour:
    """These bytes and nothing else."""

    def behave(connection: Connection, _: Seen) -> bool:
        connection.send(data)
        return keep

    return behave


def reset(data: bytes = b"") -> Behaviour:
    """These bytes, then RST."""

    def behave(connection: Connection, _: Seen) -> bool:
        connection.send(data)
        if data:
            time.sleep(0.05)  # an RST overtakes data that was not read yet
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return behave


def stall(data: bytes = b"") -> Behaviour:
    """These bytes, then silence until the client or the test gives up."""

    def behave(connection: Connection, _: Seen) -> bool:
        connection.send(data)
        _until_gone(connection, 30)
        return False

    return behave


def trickle(data: bytes, slow: bytes, every_s: float) -> Behaviour:
    """`data` at once, then `slow` a byte at a time."""

    def behave(connection: Connection, _: Seen) -> bool:
        connection.send(data)
        for byte in slow:
            if _until_gone(connection, every_s):
                return False
            connection.send(bytes([byte]))
        return True

    return behave


def gzipped(body: bytes, *, cut: int = 0, **headers: object) -> Behaviour:
    """Compressed on the way, `cut` bytes missing at its end although Content-Length counts them."""
    packed = gzip_module.compress(body)
    named = {"content-length": len(packed), "content-encoding": "gzip", **headers}
    return raw(head(200, named) + packed[: len(packed) - cut], keep=not cut)


def chunked(*pieces: bytes, end: bool = True, **headers: object) -> Behaviour:
    """Transfer-Encoding: chunked; without `end` the connection closes before the last chunk."""
    data = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    whole = head(200, {"transfer-encoding": "chunked", **headers}) + data + (b"0\r\n\r\n" if end else b"")
    return raw(whole, keep=end)


def redirect(location: str, status: int = 302) -> Behaviour:
    return answer(status, b"moved", location=location)


def _until_gone(connection: Connection, seconds: float) -> bool:
    """Wait; True when the client closed its side or the server ends."""
    limit_s = time.monotonic() + seconds
    connection.sock.settimeout(0.02)
    try:
        while time.monotonic() < limit_s and not connection.ended.is_set():
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                if not connection.sock.recv(4096):
                    return True
        return connection.ended.is_set()
    finally:
        connection.sock.settimeout(None)


def unused_port() -> int:
    """A port on 127.0.0.1 where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: connecting to it gets no answer at all."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        time.sleep(0.05)
        yield address[1]


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server context for 127.0.0.1 and the certificate that a client has to trust."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    trusted = folder / "trusted.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, trusted
