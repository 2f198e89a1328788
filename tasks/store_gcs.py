"""The bucket store: Google Cloud Storage, or an emulator of it.

An upload is create-only (`ifGenerationMatch=0`), carries its crc32c so that the server refuses damaged bytes,
and counts when the server's answer has the size, the crc32c and the metadata that were sent. A 412 (the
object is there, or this very upload arrived and only its answer was lost) is settled by comparing sources.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, cast

from google.api_core import exceptions as api
from google.cloud import storage

from tasks.errors import ConfigurationError, TerminalError, TransientError, refuse_when_stopped
from tasks.records import Reason
from tasks.store_objects import (
    SOURCE_SHA256,
    FileFacts,
    Small,
    Store,
    StoredObject,
    Verdict,
    check_key,
    conflict,
    crc32c_of,
    describe,
    judge,
    missing,
    read_facts,
    require_same,
)
from tasks.store_upload import Upload
from tasks.store_wire import Patience, Timeout, connect, our_errors

_ROUNDS = 3  # looks at an object that other writers keep changing
_MEMORY_BYTES = 8 << 20
_PERMISSIONS = frozenset(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list"))

Blobs = list[storage.Blob]


class GcsStore(Store):
    """Objects below a prefix of a bucket. `patience` and `timeout_s` (connect, read) bound every request."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        uploaders: int = 8,
        patience: Patience | None = None,
        timeout_s: Timeout = (10.0, 30.0),
    ) -> None:
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._patience, self._timeout_s = patience or Patience(), timeout_s
        self._client = connect(uploaders)
        self._bucket = self._client.bucket(bucket)
        self._pool = ThreadPoolExecutor(uploaders, thread_name_prefix="bucket")  # its threads start when needed

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
        upload = self._upload(key, path, metadata=metadata, content_type=content_type, stop=stop)
        require_same(path, upload.facts, sha256)
        with our_errors(self._bucket.name, f"storing {key}"):
            return self._settle(upload, replaces)

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
        upload = self._upload(key, path, metadata=metadata or {}, content_type=content_type, stop=stop)
        with our_errors(self._bucket.name, f"storing {key}"):
            return self._object(upload.send(None), created=True)

    def put_small(self, objects: Sequence[Small], *, stop: Event | None = None) -> None:
        """See `Store.put_small`. As many at once as there are uploaders."""
        list(self._pool.map(partial(self._put_one, replace(self._patience, stop=stop)), objects))

    def flush(self) -> None:
        """A bucket's answer means that the object lasts."""

    def read_small(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """See `Store.read_small`."""
        return self._pool.map(self._read_one, keys)

    def remove(self, key: str) -> None:
        """See `Store.remove`."""
        blob = self._bucket.blob(self._prefix + check_key(key))
        with our_errors(self._bucket.name, f"removing {key}"), suppress(api.NotFound):
            self._patience.call(partial(blob.delete, timeout=self._timeout_s, retry=None))

    def holds(self, key: str) -> bool:  # noqa: ARG002
        """See `Store.holds`."""
        return True

    def stat(self, key: str) -> StoredObject | None:
        """See `Store.stat`. A missing bucket is no object; `check` tells it."""
        check_key(key)
        with our_errors(self._bucket.name, f"looking for {key}"):
            blob = self._get(self._prefix + key, self._patience)
        return self._object(blob) if blob else None

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`. Up to 8 MiB in memory, more in a temporary file; its crc32c is checked."""
        blob = self._bucket.blob(self._prefix + check_key(key))
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_MEMORY_BYTES))  # noqa: SIM115 - the caller's
        try:
            with our_errors(self._bucket.name, f"reading {key}"):
                self._patience.call(partial(self._download, blob, file))
        except BaseException:
            file.close()
            raise
        return file

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `Store.list`."""
        token: str | None = None
        while True:
            with our_errors(self._bucket.name, f"listing {prefix}"):
                blobs, token = self._patience.call(partial(self._page, prefix, token))
            yield from map(self._object, blobs)
            if not token:
                return

    def check(self) -> None:
        """Ask the bucket what this account may do in it."""
        with our_errors(self._bucket.name, "checking it"):
            allowed = self._patience.call(self._allowed)
        lacking = sorted(_PERMISSIONS - allowed)
        if lacking:
            raise ConfigurationError(
                f"This account lacks {', '.join(lacking)} in bucket {self._bucket.name}; "
                "grant it roles/storage.objectUser there."
            )

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _read_one(self, key: str) -> bytes | None:
        try:
            with self.open(key) as file:
                return file.read()
        except TerminalError:
            return None

    def _put_one(self, patience: Patience, small: Small) -> None:
        refuse_when_stopped(patience.stop)
        blob = self._bucket.blob(self._prefix + check_key(small.key))
        sent = len(small.content), crc32c_of(small.content)
        blob.crc32c = sent[1]
        send = partial(blob.upload_from_string, small.content, small.content_type, checksum=None)
        with our_errors(self._bucket.name, f"storing {small.key}"):
            patience.call(partial(send, timeout=self._timeout_s, retry=None))
        if (blob.size, blob.crc32c) != sent:
            raise TransientError(Reason.STORE_ERROR, f"The bucket stored {small.key} otherwise than it was sent.")

    def _upload(
        self, key: str, path: Path, *, metadata: dict[str, str], content_type: str, stop: Event | None
    ) -> Upload:
        facts = read_facts(path, stop)
        return Upload(
            bucket=self._bucket,
            name=self._prefix + check_key(key),
            path=path,
            facts=facts,
            metadata=describe(metadata, facts),
            content_type=content_type,
            patience=replace(self._patience, stop=stop),
            timeout_s=self._timeout_s,
        )

    def _settle(self, upload: Upload, replaces: str | None) -> StoredObject:
        """Create the object, or find out why it is there already."""
        generation = 0
        for _ in range(_ROUNDS):
            try:
                return self._object(upload.send(generation), created=True)
            except api.PreconditionFailed:
                blob = self._get(upload.name, upload.patience)
            except api.Forbidden as exc:
                if generation:
                    raise _locked(self._object(blob)) from exc
                raise
            existing = self._object(blob) if blob else None
            verdict = judge(existing, upload.metadata[SOURCE_SHA256], replaces)
            if existing and verdict is Verdict.CONFLICT:
                raise conflict(existing)
            if existing and verdict is Verdict.SAME and _intact(blob, existing, upload.facts):
                return existing
            generation = blob.generation if blob else 0
        raise TransientError(
            Reason.STORE_ERROR, f"Others keep changing {upload.name} in the bucket; it is tried again later."
        )

    def _get(self, name: str, patience: Patience) -> storage.Blob | None:
        return patience.call(partial(self._bucket.get_blob, name, timeout=self._timeout_s, retry=None))

    def _download(self, blob: storage.Blob, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        try:
            blob.download_to_file(file, checksum="crc32c", timeout=self._timeout_s, retry=None)
        except api.NotFound as exc:
            raise missing(f"gs://{self._bucket.name}/{blob.name}") from exc
        file.seek(0)

    def _page(self, prefix: str, token: str | None) -> tuple[Blobs, str | None]:
        found = self._client.list_blobs(
            self._bucket, prefix=self._prefix + prefix, page_token=token, timeout=self._timeout_s, retry=None
        )
        blobs = list(next(found.pages, []))
        return blobs, found.next_page_token

    def _allowed(self) -> Set[str]:
        """Permissions of this account; an emulator without that question is asked for a listing instead."""
        try:
            granted = self._bucket.test_iam_permissions(sorted(_PERMISSIONS), timeout=self._timeout_s, retry=None)
        except (api.NotFound, api.MethodNotAllowed, api.MethodNotImplemented):
            self._page("", None)
            return _PERMISSIONS
        return frozenset(granted)

    def _object(self, blob: storage.Blob, created: bool = False) -> StoredObject:
        metadata = dict(blob.metadata or {})
        key, url = blob.name.removeprefix(self._prefix), f"gs://{self._bucket.name}/{blob.name}"
        return StoredObject(key, url, int(blob.size), metadata.get("sha256", ""), created, metadata)


def _intact(blob: storage.Blob, existing: StoredObject, facts: FileFacts) -> bool:
    """Whether the bucket still has what its writer described; bytes equal to ours must have our crc32c."""
    same_size = existing.metadata.get("stored_size", "") == str(existing.size_bytes)
    return same_size and (existing.sha256 != facts.sha256 or blob.crc32c == facts.crc32c)


def _locked(existing: StoredObject) -> TerminalError:
    return TerminalError(
        Reason.STORE_CONFLICT,
        f"{existing.url} may not be replaced; lift its hold or retention, or grant roles/storage.objectUser.",
    )
