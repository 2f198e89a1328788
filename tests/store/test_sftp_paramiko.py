"""What the SFTP door relies on in paramiko beyond its manual: an upgrade that changes it fails here, not in the field.

No private name of paramiko is used; that, too, is checked.
"""

from __future__ import annotations

import ast
import inspect
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from paramiko.buffered_pipe import BufferedPipe
from paramiko.ssh_exception import PartialAuthentication

from tasks import sftp_wire
from tasks.sftp_handshake import _SETTINGS
from tasks.sftp_session import Bell
from tests.fakes.slow_link import SlowLink
from tests.fakes.sshd import Sshd

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running


@pytest.fixture
def transport(server: Sshd) -> Iterator[paramiko.Transport]:
    """Connected, keys agreed on, not logged in."""
    started = paramiko.Transport(socket.create_connection(("127.0.0.1", server.port)))
    started.set_log_channel("landrecords.ssh")
    started.start_client(timeout=5)
    yield started
    started.close()


@pytest.fixture
def key(server: Sshd) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(server.key_path))


def test_no_private_name_is_used() -> None:
    for path in ROOT.glob("tasks/sftp*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                assert isinstance(node.value, ast.Name), f"{path.name}:{node.lineno} {node.attr}"
                assert node.value.id == "self", f"{path.name}:{node.lineno} {node.attr}"


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (paramiko.Transport, "start_client", ["self", "event", "timeout"]),
        (paramiko.Transport, "auth_publickey", ["self", "username", "key", "event"]),
        (paramiko.Transport, "auth_password", ["self", "username", "password", "event", "fallback"]),
        (paramiko.Transport, "auth_interactive", ["self", "username", "handler", "submethods"]),
        (paramiko.Transport, "open_session", ["self", "window_size", "max_packet_size", "timeout"]),
        (paramiko.Transport, "set_keepalive", ["self", "interval"]),
        (paramiko.Transport, "use_compression", ["self", "compress"]),
        (paramiko.Transport, "set_log_channel", ["self", "name"]),
        (paramiko.Channel, "invoke_subsystem", ["self", "subsystem"]),
        (paramiko.Channel, "recv", ["self", "nbytes"]),
        (BufferedPipe, "set_event", ["self", "event"]),
    ],
)
def test_signatures(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_numbers_of_packets() -> None:
    """paramiko has its own list of what the draft numbers."""
    from paramiko import sftp

    for kind in sftp_wire.Kind:
        assert getattr(sftp, f"CMD_{kind.name}") == kind
    for code in sftp_wire.Code:
        assert getattr(sftp, f"SFTP_{code.name}") == code


def test_what_servers_are_advised_to_allow_is_known_to_paramiko(transport: paramiko.Transport) -> None:
    options = transport.get_security_options()
    ours = {"kex": options.kex, "host key": options.key_types, "ciphers": options.ciphers, "macs": options.digests}
    for word, (_name, _setting, choice) in _SETTINGS.items():
        assert set(choice.split(" or ")) <= set(ours[word])


def test_closing_ends_every_wait(server: Sshd, key: paramiko.PKey) -> None:
    """Waiting for a subsystem has no timeout: `ended_after` relies on this."""
    with SlowLink(server.port) as link:
        stalled = paramiko.Transport(socket.create_connection(("127.0.0.1", link.port)))
        stalled.set_log_channel("landrecords.ssh")
        stalled.connect(username=server.username, pkey=key)
        channel = stalled.open_session(timeout=5)
        link.stall()
        threading.Timer(0.3, stalled.close).start()
        began = time.monotonic()
        with pytest.raises((paramiko.SSHException, EOFError)):
            channel.invoke_subsystem("sftp")
        assert time.monotonic() - began < 5
        assert not stalled.is_active()


def test_a_login_that_ends_says_why_once_its_thread_is_over(server: Sshd, transport: paramiko.Transport) -> None:
    """None: the server said goodbye. EOFError: the connection broke. `sftp_login._answer` tells them apart by that."""
    server.kill_sessions()
    transport.join(5)
    assert isinstance(transport.get_exception(), EOFError | OSError)


def test_a_goodbye_leaves_no_exception(server: Sshd, tmp_path: Path) -> None:
    with Sshd(MaxAuthTries="1") as strict:
        refused = paramiko.Transport(socket.create_connection(("127.0.0.1", strict.port)))
        refused.set_log_channel("landrecords.ssh")
        refused.start_client(timeout=5)
        answered = threading.Event()
        refused.auth_publickey(strict.username, paramiko.ECDSAKey.generate(), event=answered)
        assert answered.wait(5)
        refused.join(5)
        assert not refused.is_authenticated()
        assert not isinstance(refused.get_exception(), EOFError | OSError)
        refused.close()


def test_a_second_proof_is_asked_for_by_an_exception(key: paramiko.PKey) -> None:
    with Sshd(AuthenticationMethods="publickey,password") as strict:
        half = paramiko.Transport(socket.create_connection(("127.0.0.1", strict.port)))
        half.set_log_channel("landrecords.ssh")
        half.start_client(timeout=5)
        answered = threading.Event()
        half.auth_publickey(strict.username, key, event=answered)
        assert answered.wait(5)
        exc = half.get_exception()
        assert isinstance(exc, PartialAuthentication)
        assert exc.allowed_types == ["password"]
        half.close()


def test_a_channel_rings_the_bell_it_is_given(server: Sshd, transport: paramiko.Transport, key: paramiko.PKey) -> None:
    transport.auth_publickey(server.username, key)
    channel = transport.open_session()
    channel.invoke_subsystem("sftp")
    bell = Bell()
    channel.in_buffer.set_event(bell)
    assert not bell.is_set()
    channel.sendall(sftp_wire.greeting())
    assert bell.wait(5)
    while not channel.recv_ready():
        time.sleep(0.01)
    assert channel.recv(100_000)
    assert bell.is_set(), "an empty buffer does not silence it"
    bell.wait_and_silence(0)
    assert not bell.is_set()
    transport.close()
    assert bell.wait(5), "the end rings, too"
    assert channel.closed
    assert channel.recv(1) == b""


def test_nothing_is_said_beside_the_log_that_is_set(server: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    """Without it paramiko prints tracebacks to the terminal."""
    assert logging.getLogger("landrecords.ssh").level == logging.CRITICAL
    wrong = paramiko.Transport(socket.create_connection(("127.0.0.1", server.port)))
    wrong.set_log_channel("landrecords.ssh")
    wrong.get_security_options().kex = ("diffie-hellman-group14-sha256",)
    wrong.get_security_options().ciphers = ("3des-cbc",)
    with pytest.raises(paramiko.ssh_exception.IncompatiblePeer, match="no acceptable ciphers"):
        wrong.start_client(timeout=5)
    assert capfd.readouterr().err == ""


def test_a_socket_of_ours_is_taken(server: Sshd) -> None:
    """paramiko looks at the socket's `_closed` while it ends, so a mere wrapper would not do."""

    class Line(socket.socket):
        received = 0

        def recv(self, size: int, flags: int = 0) -> bytes:
            data = super().recv(size, flags)
            self.received += len(data)
            return data

    line = Line(fileno=socket.create_connection(("127.0.0.1", server.port)).detach())
    connected = paramiko.Transport(line)
    connected.set_log_channel("landrecords.ssh")
    connected.start_client(timeout=5)
    assert line.received > 200
    connected.close()
