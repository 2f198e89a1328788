"""The sample site server: an SFTP server of generated site photos, to look at and to read.

`python -m tasks.sample.sites --folder DIR` prints one line of JSON when it is ready: port, host_key, username,
password, root. Reading is all it allows.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko

from tasks.sample.site_photos import lay_out

USERNAME, PASSWORD = "sample", "sample"
ROOT = "/homes"


class _Doorkeeper(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    """Lets the sample's user in."""

    def check_auth_password(self, username: str, password: str) -> int:
        known = (username, password) == (USERNAME, PASSWORD)
        return int(paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return int(paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """The folder's files below ROOT, for reading."""

    def __init__(self, server: paramiko.ServerInterface, folder: Path) -> None:
        super().__init__(server)
        self._folder = folder

    def _real(self, path: str) -> str:
        """Where a path of the client's lies here; `canonicalize` has taken every `..` out of it."""
        inner = self.canonicalize(path).removeprefix(ROOT).strip("/")
        return os.path.join(self._folder, inner)  # noqa: PTH118 - names may hold any bytes

    def list_folder(self, path: str) -> Any:
        return _answered(lambda: [_attributes(entry.stat(), entry.name) for entry in os.scandir(self._real(path))])

    def stat(self, path: str) -> Any:
        return _answered(lambda: _attributes(os.stat(self._real(path)), None))  # noqa: PTH116

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:  # noqa: ARG002
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return paramiko.sftp.SFTP_PERMISSION_DENIED
        return _answered(lambda: self._handle(path, flags))

    def _handle(self, path: str, flags: int) -> paramiko.SFTPHandle:
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = open(self._real(path), "rb")  # noqa: SIM115, PTH123 - the handle closes it
        return handle


def _attributes(found: os.stat_result, name: str | None) -> Any:
    return paramiko.SFTPAttributes.from_stat(found, name)


def _answered(call: Callable[[], Any]) -> Any:
    """What the call gives, or SFTP's number for what went wrong with a file."""
    try:
        return call()
    except OSError as exc:
        return paramiko.SFTPServer.convert_errno(exc.errno or errno.EIO)


class SampleSites:
    """Context manager: the server in threads of this process. `port` and `host_key` say how to reach and trust it."""

    def __init__(self, folder: Path, *, port: int = 0, key_file: Path | None = None) -> None:
        self._folder = folder
        self._key = _host_key(key_file)
        self.host_key = f"{self._key.get_name()} {self._key.get_base64()}"
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []

    def __enter__(self) -> SampleSites:
        threading.Thread(target=self._accept, name="sample-sites", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self._transports:
            transport.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self._key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self._folder)
            self._transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(event=threading.Event(), server=_Doorkeeper())


def _host_key(file: Path | None) -> paramiko.PKey:
    """The same key at every start, where there is a file to keep it in."""
    if file is not None and file.exists():
        return paramiko.ECDSAKey.from_private_key_file(str(file))
    key = paramiko.ECDSAKey.generate()
    if file is not None:
        key.write_private_key_file(str(file))
    return key


def main() -> int:
    """Serve until SIGTERM, SIGINT or the end of the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the photos are, made when missing")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--photos", type=int, default=12, help="in each of the 24 folders")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when whoever started this is gone")
    options, parent = parser.parse_args(), os.getppid()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    (options.folder / "homes").mkdir(parents=True, exist_ok=True)
    photos = lay_out(options.folder / "homes", options.photos)
    with SampleSites(options.folder / "homes", port=options.port, key_file=options.folder / "host_key") as server:
        told = {"port": server.port, "host_key": server.host_key, "username": USERNAME, "password": PASSWORD}
        print(json.dumps({**told, "root": ROOT, "photos": photos, "pid": os.getpid()}), flush=True)  # noqa: T201
        while not ended.wait(0.5) and not (options.die_with_parent and os.getppid() != parent):
            time.sleep(0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
