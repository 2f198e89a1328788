"""The request log of a sample server: the witness of rate and fault tests."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

REQUESTS_KEPT = 1_000_000


@dataclass(slots=True)
class RequestRecord:
    """One request. It is in the log from the moment its head has arrived; status and bytes follow.

    at, monotonic   when the request had arrived: seconds since 1970, and of the machine's monotonic clock
    status          of the answer; 0 when the connection was reset or stalled before one
    sent            bytes of body given to the system; document: its number in the corpus, or the tile's
    fault           what was done to it on purpose
    """

    at: float
    monotonic: float
    method: str
    path: str
    status: int = 0
    sent: int = 0
    fault: str | None = None
    document: int | None = None


_NAMES = tuple(field.name for field in fields(RequestRecord))


class Witness:
    """Keeps the last million requests in memory, and all of them in a file of JSON lines when given one."""

    def __init__(self, log: Path | None = None) -> None:
        self.records: deque[RequestRecord] = deque(maxlen=REQUESTS_KEPT)
        self.seen = 0
        self.connections_open = 0
        self.connections_total = 0
        self._file: TextIO | None = log.open("a", buffering=1 << 16, encoding="utf-8") if log else None

    def begin(self, method: str, path: str) -> RequestRecord:
        """A request has arrived."""
        record = RequestRecord(time.time(), time.monotonic(), method, path)
        self.records.append(record)
        self.seen += 1
        return record

    def finish(self, record: RequestRecord) -> None:
        """Its answer is complete, or given up."""
        if self._file:
            line = {name: getattr(record, name) for name in _NAMES}  # asdict takes three times as long
            self._file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Bring the file up to date; the server does so four times a second."""
        if self._file:
            self._file.flush()

    def close(self) -> None:
        """Write out and close the file."""
        if self._file:
            self._file.close()
            self._file = None
