"""The folder store: objects are files, their metadata lies beside them in `.metadata`.

    <root>/documents/mid-recent/deed/1234-0056.pdf
    <root>/.metadata/documents/mid-recent/deed/1234-0056.pdf.json
    <root>/.tmp/       files being written; swept when their writer is dead
    <root>/.locks/     one writer of a key at a time

Order of a write: bytes to a temporary file and fsync; metadata replaced and fsync; the object appears by a
hard link (create-only, atomic) or a rename; fsync of its folder. A crash leaves no object, or a whole one
with its metadata. Small objects (map tiles) have neither metadata nor a lock of their own, and wait for the
disk together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from threading import Event
from typing import IO, Any, BinaryIO

from tasks.errors import ConfigurationError, TransientError, refuse_when_stopped
from tasks.records import Reason
from tasks.store_folder import (
    flush,
    flush_file_system,
    flush_folder,
    folder_errors,
    locked,
    make_folder,
    replace_whole,
    scratch_of,
    sweep,
    temporary,
    write_durably,
)
from tasks.store_objects import (
    SOURCE_SHA256,
    FileFacts,
    Small,
    Store,
    StoredObject,
    Verdict,
    check_key,
    conflict,
    describe,
    judge,
    missing,
    read_blocks,
    require_same,
)


class LocalStore(Store):
    """Objects in a folder of this machine (or a network folder with hard links and locks)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()
        self._temp, self._locks, self._about = root / ".tmp", root / ".locks", root / ".metadata"
        with folder_errors(root):
            try:
                for folder in (self._temp, self._locks, self._about):
                    make_folder(folder)
            except (FileExistsError, NotADirectoryError) as exc:
                raise ConfigurationError(f"{exc.filename} is a file; set LANDRECORDS_STORE_URL to a folder.") from exc
            sweep(self._temp)

    def put(
        self,
        key: str,
        path: Path,
        *,
        metadata: dict[str, str],
        sha256: str,
        content_type: str = "application/pdf",
        replaces: str | None = None,
        stop: Event | None = None,
    ) -> StoredObject:
        """See `Store.put`."""
        check_key(key)
        with folder_errors(self.root), temporary(self._temp) as file:
            facts = _copy(path, file, stop)
            require_same(path, facts, sha256)
            about = _about(describe(metadata, facts), content_type)
            with locked(self._locks, key):
                existing = self._look(key)
                verdict = self._verdict(existing, about["metadata"][SOURCE_SHA256], replaces)
                if existing and verdict is Verdict.SAME:
                    return existing
                if existing and verdict is Verdict.CONFLICT:
                    raise conflict(existing)
                return self._appear(key, file.name, about, existing)

    def put_replacing(
        self,
        key: str,
        path: Path,
        *,
        metadata: dict[str, str] | None = None,
        content_type: str = "application/json",
        stop: Event | None = None,
    ) -> StoredObject:
        """See `Store.put_replacing`."""
        check_key(key)
        with folder_errors(self.root), temporary(self._temp) as file:
            facts = _copy(path, file, stop)
            about = _about(describe(metadata or {}, facts), content_type)
            with locked(self._locks, key):
                return self._appear(key, file.name, about, self._look(key))

    def put_small(self, objects: Sequence[Small], *, stop: Event | None = None) -> None:
        """See `Store.put_small`. A rename each; the disk is waited for in `flush`, once for thousands."""
        with folder_errors(self.root), temporary(self._temp) as slot:
            scratch = scratch_of(slot.name)
            for key, content, _ in objects:
                refuse_when_stopped(stop)
                replace_whole(f"{self.root}/{check_key(key)}", content, scratch)

    def flush(self) -> None:
        """See `Store.flush`."""
        with folder_errors(self.root):
            flush_file_system(self.root)

    def read_small(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """See `Store.read_small`."""
        with folder_errors(self.root):
            for key in keys:
                try:
                    with open(f"{self.root}/{check_key(key)}", "rb", buffering=0) as file:  # noqa: PTH123 - half the time
                        yield file.read()
                except (FileNotFoundError, NotADirectoryError):
                    yield None

    def remove(self, key: str) -> None:
        """See `Store.remove`."""
        with folder_errors(self.root):
            (self.root / check_key(key)).unlink(missing_ok=True)
            self._about_path(key).unlink(missing_ok=True)

    def holds(self, key: str) -> bool:
        """See `Store.holds`."""
        return (self.root / key).is_file()

    def stat(self, key: str) -> StoredObject | None:
        """See `Store.stat`."""
        check_key(key)
        with folder_errors(self.root):
            return self._look(key)

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        path = self.root / check_key(key)
        with folder_errors(self.root):
            try:
                return path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
                raise missing(path.as_uri()) from exc

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `Store.list`."""
        with folder_errors(self.root):
            for key in self._keys("", prefix):
                found = self._look(key)
                if found:
                    yield found

    def check(self) -> None:
        """Write, link, lock and remove a byte, and sweep what dead writers left."""
        with folder_errors(self.root):
            sweep(self._temp)
            with temporary(self._temp) as file, locked(self._locks, "check"):
                file.write(b"x")
                flush(file)
                probe = Path(file.name).with_suffix(".probe")
                os.link(file.name, probe)
                probe.unlink()

    def close(self) -> None:
        """Nothing is kept open."""

    def _verdict(self, existing: StoredObject | None, source_sha256: str, replaces: str | None) -> Verdict:
        """As `judge`; but an object that is not what was stored (a disk lost bytes) makes room."""
        verdict = judge(existing, source_sha256, replaces)
        if existing and verdict is Verdict.SAME and _sha256(self.root / existing.key) != existing.sha256:
            return Verdict.REPLACE
        return verdict

    def _appear(self, key: str, temp_name: str, about: dict[str, Any], existing: StoredObject | None) -> StoredObject:
        """Metadata first, then the object in one move. The caller holds the key's lock."""
        target = self.root / key
        make_folder(target.parent)
        if existing:
            self._exchange(key, temp_name, about, existing)
        else:
            self._write_about(key, about)
            _link(temp_name, target)
        flush_folder(target.parent)
        return self._object(key, int(about["metadata"]["stored_size"]), about["metadata"], created=True)

    def _exchange(self, key: str, temp_name: str, about: dict[str, Any], existing: StoredObject) -> None:
        """Two files cannot change at once, so both descriptions stand while the object is exchanged."""
        target = self.root / key
        self._write_about(key, {**about, "previous": existing.metadata})
        os.replace(temp_name, target)  # noqa: PTH105 - name is a str
        flush_folder(target.parent)
        self._write_about(key, about)

    def _write_about(self, key: str, about: dict[str, Any]) -> None:
        text = json.dumps(about, indent=1, sort_keys=True)
        write_durably(self._about_path(key), text.encode("ascii"), self._temp)

    def _read_about(self, key: str) -> dict[str, Any]:
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            about = json.loads(self._about_path(key).read_bytes())
            if isinstance(about, dict):
                return about
        return {}

    def _about_path(self, key: str) -> Path:
        return self._about / f"{key}.json"

    def _look(self, key: str) -> StoredObject | None:
        path = self.root / key
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not S_ISREG(found.st_mode):
            return None
        about = self._read_about(key)
        metadata = about.get("metadata", {})
        if "previous" in about and _sha256(path) == about["previous"].get("sha256"):
            metadata = about["previous"]  # a writer died before the exchange
        return self._object(key, found.st_size, metadata)

    def _object(self, key: str, size: int, metadata: dict[str, str], *, created: bool = False) -> StoredObject:
        url = (self.root / key).as_uri()
        return StoredObject(key, url, size, metadata.get("sha256", ""), created, metadata)

    def _keys(self, folder: str, prefix: str) -> Iterator[str]:
        """Keys below `folder` ("" or "a/b/") that start with `prefix`, in the order a bucket lists them."""
        with os.scandir(self.root / folder) as entries:
            names = sorted(e.name + "/" * e.is_dir() for e in entries if not e.name.startswith("."))
        for name in names:
            key = folder + name
            if not key.startswith(prefix[: len(key)]):
                continue
            if key.endswith("/"):
                yield from self._keys(key, prefix)
            elif key.startswith(prefix):
                yield key


def _about(metadata: dict[str, str], content_type: str) -> dict[str, Any]:
    return {"content_type": content_type, "metadata": metadata}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(path: Path, file: IO[bytes], stop: Event | None) -> FileFacts:
    """Copy durably; the facts are read back from the copy, so they are of what was written."""
    for block in read_blocks(path, stop):
        file.write(block)
    flush(file)
    return FileFacts(file.tell(), _sha256(Path(file.name)), crc32c="")


def _link(temp_name: str, target: Path) -> None:
    """Create-only in one move, also against programs that know nothing of our locks."""
    try:
        os.link(temp_name, target)
    except FileExistsError as exc:
        raise TransientError(
            Reason.STORE_ERROR,
            f"{target} appeared while it was being stored; it is compared at the next attempt.",
        ) from exc
