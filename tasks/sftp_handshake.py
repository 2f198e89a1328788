"""From a host and a port to an encrypted connection whose host key is the right one. paramiko's errors become ours."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable
from tasks.sftp_hosts import Trust
from tasks.sftp_login import Dropped, Server

LOGGER = logging.getLogger("landrecords.ssh")
"""paramiko writes tracebacks of ordinary failures at ERROR; give it a level to see them."""
LOGGER.setLevel(logging.CRITICAL)

KEEPALIVE_S = 15
_HEARD_BYTES = 255
_FOR_KEY = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
_SETTINGS = {
    "kex": ("method of key exchange", "KexAlgorithms", "curve25519-sha256@libssh.org or diffie-hellman-group14-sha256"),
    "host key": ("type of host key", "HostKeyAlgorithms", "ssh-ed25519 or rsa-sha2-256"),
    "ciphers": ("cipher", "Ciphers", "aes256-ctr or aes256-gcm@openssh.com"),
    "macs": ("MAC", "MACs", "hmac-sha2-256 or hmac-sha2-512"),
}
"""What paramiko says is not acceptable -> how people say it, the line of sshd_config, what to put there."""


def verified(server: Server, trust: Trust, timeout_s: float) -> paramiko.Transport:
    """A connection whose host key is the right one.

    A fingerprint does not say of which type its key is: other types are asked for until one fits.
    """
    kinds: Sequence[str] = ()
    refusal: ConfigurationError | None = None
    while True:
        transport = _shake_hands(server, trust, kinds, timeout_s, refusal)
        key = transport.get_remote_server_key()
        if trust.accepts(key.asbytes()):
            return transport
        kinds = [kind for kind in transport.get_security_options().key_types if kind not in _algorithms(key.get_name())]
        transport.close()
        refusal = refusal or trust.refusal(key.asbytes())
        if not trust.fingerprint or not kinds:
            raise refusal


def _shake_hands(
    server: Server, trust: Trust, kinds: Sequence[str], timeout_s: float, refusal: ConfigurationError | None
) -> paramiko.Transport:
    """Agree on keys. refusal: to be raised when the server has no host key of these `kinds`."""
    line = _dial(server, timeout_s)
    transport = paramiko.Transport(line)
    transport.set_log_channel(LOGGER.name)
    transport.banner_timeout = transport.handshake_timeout = 2 * timeout_s  # never the first to end it
    transport.use_compression(server.compress)
    options = transport.get_security_options()
    known = [each for kind in trust.kinds for each in _algorithms(kind) if each in options.key_types]
    options.key_types = tuple(kinds) or (*known, *(kind for kind in options.key_types if kind not in known))
    try:
        with ended_after(timeout_s, transport) as expired:
            transport.start_client()
    except Exception as exc:  # noqa: BLE001 - whatever paramiko's thread met, it hands over
        transport.close()
        line.close()
        if refusal and "host key" in str(exc):
            raise refusal from None
        raise _handshake_error(server, transport, line.heard, exc, expired.is_set()) from None
    return transport


def _algorithms(kind: str) -> tuple[str, ...]:
    """The names under which a type of host key is negotiated."""
    return _FOR_KEY.get(kind, (kind,))


class _Line(socket.socket):
    """A socket that remembers what the other side said first."""

    heard = b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if len(self.heard) < _HEARD_BYTES:
            self.heard += data
        return data


def _dial(server: Server, timeout_s: float) -> _Line:
    try:
        plain = socket.create_connection((server.host, server.port), timeout_s)
    except (socket.gaierror, UnicodeError) as exc:
        raise OutsideUnreachable(f"There is no host named {server.host}; correct it, or check the network.") from exc
    except OSError as exc:
        why = "no answer" if isinstance(exc, TimeoutError) else exc.strerror
        raise OutsideUnreachable(f"{server} cannot be reached ({why}); check host, port and network.") from exc
    line = _Line(fileno=plain.detach())
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: what is sent into the void ends the connection
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4 * KEEPALIVE_S * 1000)
    return line


@contextmanager
def ended_after(timeout_s: float, transport: paramiko.Transport) -> Iterator[threading.Event]:
    """End the connection when the time is up: paramiko's invoke_subsystem, for one, waits for ever (5.1)."""
    expired = threading.Event()

    def end() -> None:
        expired.set()
        transport.close()

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _handshake_error(
    server: Server, transport: paramiko.Transport, heard: bytes, exc: Exception, expired: bool
) -> LandrecordsError:
    """Why no keys were agreed on, from what the server said and what paramiko made of it."""
    said = _printable(heard.partition(b"\n")[0])
    if re.match(rb"SSH-1\.(?!99)", heard):
        return ConfigurationError(
            f"{server} speaks only SSH-1 ({said}), which anybody can read along; have the server updated."
        )
    if isinstance(exc, IncompatiblePeer):
        return _nothing_in_common(server, transport, str(exc))
    if expired:
        return OutsideUnreachable(
            f"{server} took the connection, but no SSH handshake came about in time; check host, port and network."
        )
    if b"Not allowed at this time" in heard:
        return OutsideUnreachable(
            f"{server} turns this address away for a while (PerSourcePenalties, after failed logins); wait and rerun."
        )
    if heard and not re.search(rb"^SSH-|MaxStartups", heard, re.MULTILINE):
        return ConfigurationError(f"{server} is no SSH server (it says {heard[:40]!r}); correct host or port.")
    return Dropped(
        f"{server} ended the connection before the login ({_printable(str(exc).encode()) or type(exc).__name__}): "
        "too many at once (MaxStartups), or it restarts; try again later."
    )


def _nothing_in_common(server: Server, transport: paramiko.Transport, text: str) -> ConfigurationError:
    both = f"{server} ({_printable(transport.remote_version.encode())}) and this program"
    for word, (name, setting, choice) in _SETTINGS.items():
        if word in text:
            return ConfigurationError(
                f"{both} have no {name} in common; update the server (OpenSSH 7.3 or later will do), "
                f"or add {choice} to {setting} in its sshd_config."
            )
    return ConfigurationError(f"{both} cannot agree on how to speak ({text}); have the server updated.")


def _printable(raw: bytes) -> str:
    return "".join(c for c in raw.decode("latin-1")[:80] if c.isascii() and c.isprintable())
