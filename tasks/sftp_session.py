"""An SFTP channel over SSH: logging in to it, talking through it, with deadlines where paramiko has none.

Only public names of paramiko are used, but some of its behaviour that no manual promises:
tests/store/test_sftp_paramiko.py holds it to that.
"""

from __future__ import annotations

import threading

import paramiko

from tasks.errors import ConfigurationError
from tasks.sftp_handshake import KEEPALIVE_S, ended_after, verified
from tasks.sftp_hosts import load_trust
from tasks.sftp_login import Dropped, Server, log_in
from tasks.sftp_wire import VERSION, Garbled, Kind, Packets, Reply, greeting

HANDSHAKES = threading.BoundedSemaphore(4)
"""Logins under way at once in this process: sshd drops at random from its tenth (MaxStartups 10:30:100)."""


class Lost(Exception):
    """The connection is gone."""


class Stalled(Lost):
    """The connection may be there, but no answer comes from it."""


class Bell(threading.Event):
    """Rings when there is something to do. paramiko silences what it rings when its buffer is empty: not this one."""

    def clear(self) -> None:
        """paramiko's; nothing happens."""

    def wait_and_silence(self, timeout_s: float) -> None:
        """Until it rings."""
        self.wait(timeout_s)
        super().clear()


class Session:
    """One SFTP channel on a connection of its own (a server with MaxSessions 1 is fine). For one thread."""

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._transport = transport
        self._channel = channel

    def ring(self, bell: Bell) -> None:
        """Have `bell` rung whenever something arrives or the connection ends."""
        self._channel.in_buffer.set_event(bell)

    def send(self, data: bytes) -> None:
        """Raises Lost."""
        try:
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            raise Lost(f"sending failed ({exc})") from None

    def receive(self) -> bytes:
        """What has arrived, empty when nothing has. Raises Lost at the end."""
        over = self._channel.closed or self._channel.eof_received
        if not over and not self._channel.recv_ready():
            return b""
        data: bytes = self._channel.recv(1024**2)
        if not data:
            raise Lost("the server ended the connection")
        return data

    def close(self) -> None:
        """Nothing is sent any more; safe for any thread."""
        self._transport.close()


def connect(server: Server, timeout_s: float) -> Session:
    """Connect, verify the host key, log in, open the SFTP channel; each of the two halves within `timeout_s`.

    Raises ConfigurationError where trying again is pointless, Dropped where it may help soon, OutsideUnreachable.
    """
    trust = load_trust(server.host, server.port, server.known_hosts, server.host_key)
    with HANDSHAKES:
        transport = verified(server, trust, timeout_s)
        try:
            with ended_after(timeout_s, transport):
                log_in(transport, server)
                channel = _open_sftp(transport, server, timeout_s)
        except BaseException:
            transport.close()
            raise
    transport.set_keepalive(KEEPALIVE_S)
    return Session(transport, channel)


def _open_sftp(transport: paramiko.Transport, server: Server, timeout_s: float) -> paramiko.Channel:
    """The channel, after both sides have said their version."""
    why = "it has no SFTP subsystem"
    try:
        channel = transport.open_session(timeout=timeout_s)
        channel.settimeout(timeout_s)
        channel.invoke_subsystem("sftp")
        why = "its SFTP ended at once"
        channel.sendall(greeting())
        reply = _first_reply(channel)
    except Garbled:
        raise ConfigurationError(
            f"The login of {server.user} on {server} writes text before SFTP begins; silence it in its .bashrc, "
            "or set `Subsystem sftp internal-sftp` in sshd_config."
        ) from None
    except (paramiko.SSHException, OSError, EOFError):
        if transport.is_active():
            raise ConfigurationError(
                f"{server} lets {server.user} in, but {why}; enable it (`Subsystem sftp internal-sftp`)."
            ) from None
        raise Dropped(f"{server} ended the connection after the login; try again later.") from None
    if reply.kind != Kind.VERSION or reply.number < VERSION:
        raise ConfigurationError(f"{server} speaks SFTP {reply.number}, not {VERSION}; have the server updated.")
    return channel


def _first_reply(channel: paramiko.Channel) -> Reply:
    packets = Packets()
    while True:
        data = channel.recv(4096)
        if not data:
            raise EOFError
        for reply in packets.feed(data):
            return reply
