"""An embedded Postgres of a test's own, to crash and restart."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tasks import services
from tasks.postgres_embedded import embedded_url


class OwnPostgres:
    """The server of `home`; `url` is the address of its landrecords database (not migrated)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "postgres"
        self.url = embedded_url(home)

    def pid(self, role: str = "program") -> int:
        """Of the postmaster, or with "supervisor" of the process that looks after it."""
        return int(json.loads((self.folder / "state.json").read_text())[role])

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the postmaster (SIGINT: in good order, SIGKILL: a crash) and wait until it is gone."""
        os.kill(self.pid(), number)
        assert services.wait_until_gone(self.folder)

    def start(self) -> None:
        """Start it again: the next user does this."""
        assert embedded_url(self.home) == self.url

    def close(self) -> None:
        services.let_go(self.folder)
        assert services.wait_until_gone(self.folder, 30)
