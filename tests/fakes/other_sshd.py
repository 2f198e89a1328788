"""SSH servers that are not OpenSSH: paramiko's, which lets in whom it likes, and asyncssh's, which reads files."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from tasks.sftp_wire import Kind, Packets, Request
from tests.fakes.sshd import make_key

if TYPE_CHECKING:
    import asyncssh

SECRET = "correct horse battery staple"


class _Doorkeeper(paramiko.ServerInterface):
    """methods: what is accepted; after a key, a password is wanted, too, where `both`."""

    def __init__(self, methods: str, both: bool, asked: list[str]) -> None:
        self.methods, self.both, self.asked = methods, both, asked

    def get_allowed_auths(self, username: str) -> str:
        return self.methods

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.asked.append("key")
        self.methods = "password"
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.both else paramiko.AUTH_SUCCESSFUL

    def check_auth_password(self, username: str, password: str) -> int:
        self.asked.append("password")
        right = "password" in self.methods and password == SECRET
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> paramiko.InteractiveQuery:
        self.asked.append("prompt")
        return paramiko.InteractiveQuery("", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return paramiko.AUTH_SUCCESSFUL if responses == [SECRET] else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


class OtherServer:
    """An SSH server that lets in whom it likes; its SFTP can do nothing and says so, unless `subsystem` is another."""

    def __init__(
        self,
        methods: str,
        both: bool = False,
        subsystem: type[paramiko.SubsystemHandler] | None = paramiko.SFTPServer,
    ) -> None:
        self.asked: list[str] = []
        self.host_key = paramiko.ECDSAKey.generate()
        self.line = f"{self.host_key.get_name()} {self.host_key.get_base64()}"
        self._make = lambda: _Doorkeeper(methods, both, self.asked)
        self._subsystem = subsystem
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            transport = paramiko.Transport(connection)
            transport.set_log_channel("landrecords.ssh")
            transport.add_server_key(self.host_key)
            if self._subsystem:
                transport.set_subsystem_handler("sftp", self._subsystem)
            transport.start_server(event=threading.Event(), server=self._make())
            self._transports.append(transport)

    def __enter__(self) -> OtherServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self._transports:
            transport.close()


class Liar(paramiko.SubsystemHandler):
    """Says its version, and nonsense to the first request."""

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        channel.recv(9)
        channel.sendall(bytes.fromhex("00000005 02 00000003"))
        channel.recv(4096)
        channel.sendall(b"no SFTP at all, but text")
        channel.recv(4096)


class Forgetful(paramiko.SubsystemHandler):
    """Every file is there and empty; but requests about a path with `forget` in it are never answered."""

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        channel.recv(9)
        channel.sendall(bytes.fromhex("00000005 02 00000003"))
        packets = Packets()
        answers = {Kind.OPEN: (Kind.HANDLE, "00000001 68"), Kind.STAT: (Kind.ATTRS, "00000004 000081a4")}
        while data := channel.recv(65536):
            for kind, number, body in packets.feed(data):
                answer, text = answers.get(Kind(kind), (Kind.STATUS, "00000001 00000000 00000000"))
                if b"forget" not in body:
                    channel.sendall(Request(answer, bytes.fromhex(text)).numbered(number))


class AsyncServer:
    """asyncssh with its SFTP: it answers requests as they are done, not in turn."""

    def __init__(self, folder: Path) -> None:
        self._asyncssh = pytest.importorskip("asyncssh")
        self.key_path = make_key(folder / "user")
        self._host_key = make_key(folder / "host")
        self.host_key = (folder / "host.pub").read_text()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._listens = threading.Event()
        self._connections: list[asyncssh.SSHServerConnection] = []
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> AsyncServer:
        self._thread.start()
        assert self._listens.wait(20)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        listener: asyncssh.SSHAcceptor = await self._asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(self._host_key)],
            authorized_client_keys=str(self.key_path) + ".pub",
            sftp_factory=True,
            acceptor=self._connections.append,
        )
        self.port = listener.get_port()
        self._listens.set()
        await self._ended.wait()
        listener.close()
        for connection in self._connections:
            connection.abort()
            await connection.wait_closed()
