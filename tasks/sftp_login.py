"""Who logs in to an SFTP server, and with what. Nothing secret gets into a message."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import paramiko
from paramiko.ssh_exception import PartialAuthentication

from tasks.errors import ConfigurationError, OutsideUnreachable

AGENT_KEYS = 5
"""More are not offered: OpenSSH ends the connection at the sixth failure (MaxAuthTries)."""

Way: TypeAlias = Callable[[], None]
"""One thing to try. Raises _Refused."""


class Dropped(OutsideUnreachable):
    """The server ended the conversation early: too many at once (MaxStartups), or it restarts. It may heal soon."""


class _Refused(Exception):
    """The server does not accept what was tried. Holds the methods it would accept, where it says so."""

    def __init__(self, accepted: Sequence[str] = ()) -> None:
        super().__init__(", ".join(accepted))
        self.accepted = accepted


@dataclass(frozen=True)
class Server:
    """A server and the way in.

    key_path     private key file (OpenSSH or PEM); `passphrase`, else `password`, opens it
    password     asked for after the key where the server wants both; on its own where there is no `key_path`.
                 With neither, the keys of the agent (SSH_AUTH_SOCK) are offered
    known_hosts  None: ~/.ssh/known_hosts
    host_key     pins the host key: a public key line, or `SHA256:...`
    compress     zlib on the wire
    """

    host: str
    port: int = 22
    username: str | None = None
    key_path: Path | None = None
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    known_hosts: Path | None = None
    host_key: str | None = None
    compress: bool = False

    def __str__(self) -> str:
        return self.host if self.port == 22 else f"{self.host}:{self.port}"

    @property
    def user(self) -> str:
        """As whom to log in: by default as oneself. Raises ConfigurationError where nobody knows who that is."""
        try:
            return self.username or getpass.getuser()
        except (KeyError, OSError):  # a container whose user has no name; OSError from Python 3.13 on
            raise ConfigurationError(f"There is nobody to log in to {self} as; give username.") from None


def log_in(transport: paramiko.Transport, server: Server) -> None:
    """One login, never repeated: servers lock accounts and punish addresses (PerSourcePenalties).

    Raises ConfigurationError when the server refuses, Dropped when the connection ends meanwhile.
    """
    with _agent_keys(server) as keys:
        refused = _Refused()
        tried, ways = _ways(transport, server, keys)
        for way in ways:
            try:
                return way()
            except _Refused as exc:
                refused = exc
            if not transport.is_active():  # it had enough of us
                break
        raise _refusal(server, tried, refused.accepted)


@contextmanager
def _agent_keys(server: Server) -> Iterator[Sequence[paramiko.PKey]]:
    """The keys of the agent, if it is needed; it must be there for as long as they are used."""
    if server.key_path or server.password is not None:
        yield ()
        return
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError) as exc:
        raise ConfigurationError(f"The SSH agent does not work ({exc}); give key_path or password.") from exc
    with closing(agent):
        yield agent.get_keys()[:AGENT_KEYS]


def _ways(transport: paramiko.Transport, server: Server, agent_keys: Sequence[paramiko.PKey]) -> tuple[str, list[Way]]:
    """What is tried, in words, and how. Raises ConfigurationError when there is nothing to try."""
    if server.key_path:
        key = load_key(server.key_path, server.passphrase or server.password)
        return f"the key {server.key_path}", [partial(_try_key, transport, server, key)]
    if server.password is not None:
        return "the password", [partial(_try_password, transport, server)]
    if not agent_keys:
        raise ConfigurationError(
            f"There is nothing to log in to {server} with: give key_path or password, or start an SSH agent (ssh-add)."
        )
    tried = f"any of the agent's keys ({len(agent_keys)})"
    return tried, [partial(_try_key, transport, server, key) for key in agent_keys]


def _try_key(transport: paramiko.Transport, server: Server, key: paramiko.PKey) -> None:
    wanted = _answer(transport, partial(transport.auth_publickey, server.user, key))
    if wanted:  # the server asks for more than one proof
        if server.password is None:
            raise _Refused(wanted)
        _try_password(transport, server)


def _try_password(transport: paramiko.Transport, server: Server) -> None:
    """By whichever of its two methods the server has."""
    try:
        wanted = _answer(transport, partial(transport.auth_password, server.user, server.password or ""))
    except _Refused as exc:
        if "keyboard-interactive" not in exc.accepted or "password" in exc.accepted:
            raise
        wanted = _try_prompts(transport, server)
    if wanted:
        raise _Refused(wanted)


def _try_prompts(transport: paramiko.Transport, server: Server) -> list[str]:
    """The server asks, as PAM likes to; the password answers."""
    try:
        still_wanted: list[str] = transport.auth_interactive(
            server.user, lambda _title, _instructions, prompts: [server.password or ""] * len(prompts)
        )
    except paramiko.SSHException as exc:  # also where the connection ended: better not repeated
        raise _Refused(getattr(exc, "allowed_types", ())) from None
    return still_wanted


def _answer(transport: paramiko.Transport, begin: Callable[..., object]) -> list[str]:
    """Wait for the server's word on a proof; returns the methods it wants besides, mostly none.

    Not left to paramiko, which does not tell a refusal that ends the connection from a connection that broke.
    """
    answered = threading.Event()
    try:
        begin(event=answered)
    except (paramiko.SSHException, EOFError, OSError):
        raise Dropped("The connection ended before the login; try again later.") from None
    while transport.is_active() and not answered.wait(0.1):
        pass
    if transport.is_authenticated():
        return []
    ended = not transport.is_active()
    if ended:
        transport.join(1)  # only then does it say why it ended
    exc = transport.get_exception()
    if isinstance(exc, PartialAuthentication):
        return list(exc.allowed_types)
    if ended and (transport.is_alive() or isinstance(exc, EOFError | OSError)):
        raise Dropped("The connection ended during the login; try again later.")
    raise _Refused(getattr(exc, "allowed_types", ()))


def load_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """A private key from its file. Raises ConfigurationError."""
    name = path.expanduser()
    encrypted = False
    for key_class in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return key_class.from_private_key_file(str(name), passphrase)
        except paramiko.PasswordRequiredException:
            encrypted = True
        except OSError as exc:
            message = f"The key file {path} cannot be read ({exc.strerror}); correct key_path or its permissions."
            raise ConfigurationError(message) from exc
        except (paramiko.SSHException, ValueError):  # of another type, or none
            continue
    if encrypted:
        raise ConfigurationError(f"The key file {path} is encrypted; give its passphrase, or use an SSH agent.")
    hint = ", or the passphrase is not the right one" if passphrase else ""
    raise ConfigurationError(
        f"{path} is no private key in a form that is understood{hint}; `ssh-keygen -p -f {path}` rewrites old forms."
    )


def _refusal(server: Server, tried: str, accepted: Sequence[str]) -> ConfigurationError:
    would = f" (it accepts: {', '.join(accepted)})" if accepted else ""
    return ConfigurationError(
        f"{server} does not let user {server.user} in with {tried}{would}; correct the login. "
        "It is not tried again, so that no account gets locked."
    )
