"""The bucket behind tests/fakes/gcs.py: objects, preconditions, checksums and resumable sessions, no HTTP."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import google_crc32c

QUANTUM = 256 * 1024
"""Every chunk of a session but the last is a multiple of this."""


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason = status, reason


@dataclass
class FakeObject:
    """One stored object. `metadata` is the custom metadata, `crc32c` base64 as the API writes it."""

    name: str
    data: bytes
    metadata: dict[str, str]
    generation: int
    crc32c: str
    content_type: str

    def resource(self, bucket: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "size": str(len(self.data)),
            "crc32c": self.crc32c,
            "etag": f"{self.generation}/1",
            **({"metadata": self.metadata} if self.metadata else {}),
        }


@dataclass
class Session:
    """A resumable upload: what it will become, and the bytes kept so far."""

    resource: dict[str, Any]
    conditions: dict[str, str]
    data: bytearray = field(default_factory=bytearray)
    result: FakeObject | None = None


class FakeBucket:
    """Strict where emulators are not: generations are compared when a session begins *and* when it ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, FakeObject] = {}
        self.sessions: dict[str, Session] = {}
        self.lock = RLock()
        self._generation = time.time_ns() // 1000

    def insert(self, resource: dict[str, Any], data: bytes, conditions: dict[str, str]) -> FakeObject:
        """Store `data` as `resource` says, if the preconditions and the declared crc32c hold."""
        with self.lock:
            self.require(resource["name"], conditions)
            crc = crc32c(data)
            if resource.get("crc32c", crc) != crc:
                raise Refused(400, f"Provided CRC32C {resource['crc32c']!r} doesn't match calculated {crc!r}.")
            self._generation += 1
            stored = FakeObject(
                name=resource["name"],
                data=data,
                metadata=dict(resource.get("metadata") or {}),
                generation=self._generation,
                crc32c=crc,
                content_type=resource.get("contentType", "application/octet-stream"),
            )
            self.objects[stored.name] = stored
            return stored

    def require(self, name: str, conditions: dict[str, str]) -> None:
        """Raise 412 unless the live generation is what `ifGenerationMatch` says (0: none)."""
        live = self.objects[name].generation if name in self.objects else 0
        wanted = conditions.get("ifGenerationMatch")
        unwanted = conditions.get("ifGenerationNotMatch")
        if (wanted is not None and int(wanted) != live) or (unwanted is not None and int(unwanted) == live):
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")

    def get(self, name: str, conditions: dict[str, str]) -> FakeObject:
        with self.lock:
            found = self.objects.get(name)
            if found is None or conditions.get("generation", str(found.generation)) != str(found.generation):
                raise Refused(404, f"No such object: {self.name}/{name}")
            self.require(name, conditions)
            return found

    def delete(self, name: str, conditions: dict[str, str]) -> None:
        with self.lock:
            self.get(name, conditions)
            del self.objects[name]

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[FakeObject], str | None]:
        """Objects behind the name `after`, and the name to go on from."""
        with self.lock:
            names = sorted(n for n in self.objects if n.startswith(prefix) and n > after)
            found = [self.objects[n] for n in names[:limit]]
        return found, (names[limit - 1] if len(names) > limit else None)

    def begin(self, resource: dict[str, Any], conditions: dict[str, str]) -> str:
        with self.lock:
            self.require(resource["name"], conditions)
            upload_id = f"fake-{len(self.sessions) + 1}"
            self.sessions[upload_id] = Session(resource, conditions)
            return upload_id

    def extend(self, upload_id: str, content_range: str, body: bytes, keep: int | None = None) -> Session:
        """Take a chunk (`bytes a-b/total`) or a question (`bytes */total`); `keep` drops bytes behind it."""
        with self.lock:
            session = self.sessions.get(upload_id)
            if session is None:
                raise Refused(404, "No such upload session.")
            span, _, total = content_range.removeprefix("bytes ").partition("/")
            if session.result is None and span != "*":
                self._append(session, span, total, body[:keep])
            if session.result is None and total.isdigit() and len(session.data) == int(total):
                session.result = self.insert(session.resource, bytes(session.data), session.conditions)
                session.data = bytearray()
            return session

    def _append(self, session: Session, span: str, total: str, body: bytes) -> None:
        start, end = (int(n) for n in span.split("-"))
        have = len(session.data)
        if start > have or end < start:
            raise Refused(400, f"Invalid range {span}: {have} bytes are here.")
        if str(end + 1) != total and (end + 1 - start) % QUANTUM:
            raise Refused(400, f"Chunks are multiples of {QUANTUM} bytes.")
        session.data += body[have - start :]  # bytes that are here already are ignored


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode("ascii")
