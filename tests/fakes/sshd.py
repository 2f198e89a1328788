"""A real OpenSSH server on 127.0.0.1 with keys of its own, configured to misbehave where a test needs it.

It runs without privileges: as `nobody` when the tests run as root, otherwise as the tests' own user. So folders can
be unreadable, and neither /run/sshd nor a new account is needed. UsePAM lets `nobody` in, whose account is locked.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.sftp import Sftp, Timeouts, open_sftp

PROGRAM = shutil.which("sshd", path=f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}")
AS_NOBODY = os.geteuid() == 0

QUICK = Timeouts(connect_s=5, stall_s=0.7, patience_s=8, check_s=1)

BASIC = {
    "ListenAddress": "127.0.0.1",
    "UsePAM": "yes",
    "PidFile": "none",
    "StrictModes": "no",
    "LogLevel": "VERBOSE",
    "Subsystem": "sftp internal-sftp",
    "PrintMotd": "no",
}


class Sshd:
    """Context manager. `options` are lines of sshd_config, such as MaxStartups="3:50:5"; they replace the basic ones.

    port, username   where and as whom to log in
    key_path         private key that is let in (Ed25519, no passphrase)
    known_hosts      file that holds the host keys
    host_key_line    the Ed25519 host key as OpenSSH writes public keys
    folder           the server's own; `site` in it may be read by the server
    """

    def __init__(self, **options: str) -> None:
        if PROGRAM is None:
            pytest.skip("sshd is not installed (apt-get install openssh-server)")
        self.folder = Path(tempfile.mkdtemp(prefix="landrecords-sshd-"))
        self.site = self.folder / "site"
        self.site.mkdir()
        self.folder.chmod(0o755)
        self.username = "nobody" if AS_NOBODY else getpass.getuser()
        self.port = _free_port()
        self._listener: subprocess.Popen[bytes] | None = None
        self._orphans: list[psutil.Process] = []
        for name, kind in (("host_ed25519", "ed25519"), ("host_rsa", "rsa"), ("user", "ed25519")):
            for ending, text in zip(("", ".pub"), _key_of(name, kind), strict=True):
                path = self.folder / (name + ending)
                path.touch(mode=0o600)
                path.write_bytes(text)
        self.key_path = self.folder / "user"
        self.known_hosts = self.folder / "known_hosts"
        self.authorize(self.key_path)
        self.trust("host_ed25519", "host_rsa")
        keys = f"{self.folder}/host_ed25519\nHostKey {self.folder}/host_rsa"
        lines = BASIC | {"Port": str(self.port), "HostKey": keys, "AuthorizedKeysFile": f"{self.folder}/authorized"}
        self._configure(lines | options)
        self.start()

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def host_key_line(self) -> str:
        return (self.folder / "host_ed25519.pub").read_text()

    @property
    def log(self) -> str:
        """Everything the server wrote so far."""
        return (self.folder / "log").read_text(errors="replace")

    def open(self, **changes: Any) -> Sftp:
        """The door to this server, with the right key and patience for a test; `changes` replace its arguments."""
        arguments = {
            "port": self.port,
            "username": self.username,
            "key_path": self.key_path,
            "known_hosts": self.known_hosts,
            "timeouts": QUICK,
        }
        return open_sftp("127.0.0.1", **(arguments | changes))

    @property
    def logins(self) -> int:
        """How often somebody was let in."""
        return len(re.findall(r"^Accepted \S+ for ", self.log.replace("Accepted key", ""), re.MULTILINE))

    def authorize(self, key_path: Path) -> None:
        """Let the owner of a key in."""
        with (self.folder / "authorized").open("a") as file:
            file.write(key_path.with_name(key_path.name + ".pub").read_text())

    def trust(self, *host_keys: str, host: str = "127.0.0.1") -> None:
        """Write `known_hosts` with these keys only."""
        lines = [f"[{host}]:{self.port} " + (self.folder / f"{name}.pub").read_text() for name in host_keys]
        self.known_hosts.write_text("".join(lines))

    def start(self) -> None:
        (self.folder / "log").touch()
        before = self.log.count("Server listening")
        with (self.folder / "log").open("ab") as log:
            self._listener = subprocess.Popen(
                [PROGRAM or "sshd", "-D", "-e", "-f", str(self.folder / "config")],
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                user="nobody" if AS_NOBODY else None,
                group="nogroup" if AS_NOBODY else None,
                extra_groups=[] if AS_NOBODY else None,
            )
        deadline = time.monotonic() + 10
        while self.log.count("Server listening") == before:
            if self._listener.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start: {self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the listener and every session."""
        if self._listener is not None:
            self.stop_listening()
        for process in self._orphans:
            _kill(process)
        self._orphans = []

    def stop_listening(self) -> None:
        """End the listener only: sessions go on."""
        assert self._listener is not None
        self._orphans = self.sessions()
        self._listener.kill()
        self._listener.wait(10)
        self._listener = None

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve connections."""
        return psutil.Process(self._listener.pid).children(recursive=True) if self._listener else []

    def kill_sessions(self) -> int:
        """SIGKILL every session and leave the listener; returns how many processes that were."""
        killed = self.sessions()
        for process in killed:
            _kill(process)
        return len(killed)

    def _configure(self, lines: dict[str, str]) -> None:
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        (self.folder / "config").write_text(text)
        if AS_NOBODY:
            nobody = pwd.getpwnam("nobody")
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "", form: str = "") -> Path:
    """A new key pair at `path` and `path`.pub. form: "PEM" for the old one."""
    more = ["-b", "2048"] if kind == "rsa" else []
    more += ["-m", form] if form else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *more, "-N", passphrase, "-f", str(path)], check=True)
    return path


@functools.cache
def _key_of(name: str, kind: str) -> tuple[bytes, bytes]:
    """Private and public: made once for all servers of a session, for RSA takes its time."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_key(Path(folder) / name, kind)
        return path.read_bytes(), path.with_suffix(".pub").read_bytes()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill(process: psutil.Process) -> None:
    """And wait until it is gone, or dead and left for init to bury."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
