"""One object going up to a bucket: in one request, or in chunks that survive a dropped connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import requests
from google.api_core import exceptions as api
from google.cloud import storage

from tasks.errors import LandrecordsError, TransientError
from tasks.records import Reason
from tasks.store_objects import FileFacts, spool_errors
from tasks.store_wire import Patience, Timeout, our_errors

CHUNK_BYTES = 8 << 20
"""A multiple of 256 KiB, as the protocol wants it."""

ONE_REQUEST_BYTES = 1 << 20
"""Larger files go in chunks: the library holds the body of a single request four times in memory."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way to `name` in the bucket. May be sent several times; the caller settles a 412."""

    bucket: storage.Bucket
    name: str
    path: Path
    facts: FileFacts
    metadata: dict[str, str]
    content_type: str
    patience: Patience
    timeout_s: Timeout

    def send(self, generation: int | None) -> storage.Blob:
        """Upload and verify; the blob as the bucket has it.

        generation  0: only where nothing is; n: only over that generation; None: over anything
        Raises google.api_core's PreconditionFailed and the wire's errors, TransientError(spool_lost), and
        TransientError(store_error) when the bucket stored something else than was sent.
        """
        # Not `checksum="crc32c"`: that sums what is read now; this declares the file that was verified, and
        # the server refuses any other. The library also answers a mismatch by an unconditional delete.
        blob = self.bucket.blob(self.name)
        blob.metadata, blob.crc32c = self.metadata, self.facts.crc32c
        if self.facts.size_bytes <= ONE_REQUEST_BYTES:
            self._in_one_request(blob, generation)
        else:
            blob = self._in_chunks(blob, generation)
        self._verify(blob)
        return blob

    def _in_one_request(self, blob: storage.Blob, generation: int | None) -> None:
        with spool_errors(self.path):
            body = self.path.read_bytes()
        _require_bytes(self.path, len(body), self.facts.size_bytes)
        send = partial(blob.upload_from_string, body, self.content_type, if_generation_match=generation)
        self.patience.call(partial(send, checksum=None, timeout=self.timeout_s, retry=None))

    def _in_chunks(self, blob: storage.Blob, generation: int | None) -> storage.Blob:
        begin = partial(blob.create_resumable_upload_session, self.content_type, self.facts.size_bytes)
        url = self.patience.call(
            partial(begin, if_generation_match=generation, checksum=None, timeout=self.timeout_s, retry=None)
        )
        http = self.bucket.client._http  # the session with the credentials and the pool
        with _opened(self.path) as file:
            upload = ChunkedUpload(http, url, self.path, self.facts.size_bytes, self.timeout_s)
            stored = self.bucket.blob(self.name, generation=upload.send(file, self.patience))
        self._reload(stored)
        return stored

    def _verify(self, blob: storage.Blob) -> None:
        """Size, crc32c and metadata are those sent; else the object goes, lest a retry trusts it."""
        if self._stored(blob):
            return
        self._reload(blob)  # the answer may be damaged instead of the object
        if self._stored(blob):
            return
        with suppress(LandrecordsError), our_errors(self.bucket.name, "removing a damaged object"):
            blob.delete(if_generation_match=blob.generation, timeout=self.timeout_s, retry=None)
        raise TransientError(
            Reason.STORE_ERROR,
            f"The bucket stored {self.name} otherwise than it was sent; it is sent again later.",
        )

    def _stored(self, blob: storage.Blob) -> bool:
        sent = (self.facts.size_bytes, self.facts.crc32c, self.metadata)
        return (blob.size, blob.crc32c, blob.metadata) == sent

    def _reload(self, blob: storage.Blob) -> None:
        """What the bucket has of exactly the generation that was written, never somebody else's."""
        try:
            self.patience.call(partial(blob.reload, timeout=self.timeout_s, retry=None))
        except api.NotFound as exc:
            raise TransientError(
                Reason.STORE_ERROR,
                f"{self.name} was replaced as soon as it was stored; it is compared again later.",
            ) from exc


class ChunkedUpload:
    """A resumable session, going on where the server's bytes end.

    The library's own loop sends a chunk again without asking what arrived, and ends in a ValueError when the
    server kept only a part of it. Protocol: https://cloud.google.com/storage/docs/performing-resumable-uploads
    """

    def __init__(self, http: requests.Session, url: str, path: Path, size_bytes: int, timeout_s: Timeout) -> None:
        self._http, self._url, self._path, self._size = http, url, path, size_bytes
        self._timeout_s = timeout_s
        self._offset = 0
        self._unsure = False

    def send(self, file: BinaryIO, patience: Patience) -> int:
        """Send the whole file; the generation of the object it became. Raises what the wire raises."""
        while True:
            generation = patience.call(partial(self._step, file))
            if generation is not None:
                return generation

    def _step(self, file: BinaryIO) -> int | None:
        """Send the next chunk, after a failure from where the server's bytes end."""
        if self._unsure:
            generation = self._heard(self._put(b"", f"bytes */{self._size}"))
            if generation is not None:
                return generation
        before, self._unsure = self._offset, True
        generation = self._heard(self._send_chunk(file))
        if generation is None and self._offset <= before:
            raise api.ServiceUnavailable("the server keeps no bytes")
        return generation

    def _heard(self, response: requests.Response) -> int | None:
        """The generation once the object is complete; until then note how far it is (no Range: not begun)."""
        if response.status_code == 308:
            self._offset = int(response.headers.get("Range", "bytes=0--1").partition("0-")[2]) + 1
            self._unsure = False
            return None
        if response.status_code in (404, 410):
            raise TransientError(Reason.STORE_ERROR, "The bucket gave this upload up; it is sent again later.")
        if not response.ok:
            raise api.from_http_response(response)
        return _generation(response)

    def _send_chunk(self, file: BinaryIO) -> requests.Response:
        file.seek(self._offset)
        chunk = file.read(CHUNK_BYTES)
        _require_bytes(self._path, len(chunk), min(CHUNK_BYTES, self._size - self._offset))
        return self._put(chunk, f"bytes {self._offset}-{self._offset + len(chunk) - 1}/{self._size}")

    def _put(self, body: bytes, content_range: str) -> requests.Response:
        headers: dict[str, Any] = {"Content-Range": content_range}
        # Status 308 means "go on" here and is no redirect.
        return self._http.put(self._url, data=body, headers=headers, timeout=self._timeout_s, allow_redirects=False)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Only the opening counts as a spool error: the errors of `requests` are OSErrors too."""
    with spool_errors(path):
        file = path.open("rb", buffering=0)
    with file:
        yield file


def _require_bytes(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise TransientError(Reason.SPOOL_LOST, f"{path} changed while it was stored; it is fetched again.")


def _generation(response: requests.Response) -> int:
    try:
        return int(response.json()["generation"])
    except (KeyError, TypeError, ValueError) as exc:
        raise requests.exceptions.InvalidJSONError("the answer describes no object") from exc
