"""What `RawServer` lacks for a bulk door: HTTP/2, and a count of what is in flight."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.fakes.http_server import Behaviour, Connection, Seen


@dataclass
class Crowd:
    """How many requests are being answered at once: wrap behaviours with `counted`."""

    now: int = 0
    most: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def counted(self, behaviour: Behaviour, takes_s: float = 0.02) -> Behaviour:
        """The same, after `takes_s`; the request counts as in flight meanwhile."""

        def behave(connection: Connection, request: Seen) -> bool:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            connection.ended.wait(takes_s)
            with self._lock:
                self.now -= 1
            return behaviour(connection, request)

        return behave


@dataclass
class Http2Server:
    """Context manager. Answers every path with that path as body; GOAWAY after `requests_per_connection`."""

    tls: ssl.SSLContext
    requests_per_connection: int = 1_000_000
    connections: int = 0
    requests: int = 0

    def __post_init__(self) -> None:
        self.tls.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Http2Server:
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in [self._listener, *tuple(self._open)]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._serve, sock)

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, h2.exceptions.ProtocolError),
            self.tls.wrap_socket(plain, server_side=True) as sock,
        ):
            self._open.add(sock)
            with self._lock:
                self.connections += 1
            self._converse(sock)
        plain.close()

    def _converse(self, sock: ssl.SSLSocket) -> None:
        conversation = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conversation.initiate_connection()
        sock.sendall(conversation.data_to_send())
        answered = 0
        while data := sock.recv(65536):
            for event in conversation.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    answered += 1
                    self._answer(conversation, event)
            if answered >= self.requests_per_connection:
                conversation.close_connection()
                sock.sendall(conversation.data_to_send())
                time.sleep(0.05)
                return
            sock.sendall(conversation.data_to_send())

    def _answer(self, conversation: h2.connection.H2Connection, event: h2.events.RequestReceived) -> None:
        with self._lock:
            self.requests += 1
        path = dict(event.headers)[b":path"]
        headers = [(":status", "200"), ("content-length", str(len(path))), ("content-type", "text/plain")]
        conversation.send_headers(event.stream_id, headers)
        conversation.send_data(event.stream_id, path, end_stream=True)
