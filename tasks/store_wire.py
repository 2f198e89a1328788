"""The wire to Cloud Storage: the client, what its errors mean, and how patient we are with them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter

from tasks.errors import (
    ConfigurationError,
    LandrecordsError,
    OutsideUnreachable,
    StopRequested,
    TransientError,
    refuse_when_stopped,
)
from tasks.records import Reason

# google-cloud-storage 3.17 asks for the bucket's metadata from a background thread at every request, tracing
# or not, as long as it gets no answer: twice the requests, with 120 s of retries that no stop reaches.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

Answer = TypeVar("Answer")
Timeout = tuple[float, float]

_PASSING_CODES = {408, 429, 500, 502, 503, 504}
_WIRE_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
_FOREIGN = (api.GoogleAPICallError, auth.GoogleAuthError, InvalidResponse, DataCorruption, *_WIRE_ERRORS)


def connect(connections: int) -> storage.Client:
    """A client with room for that many open connections; anonymous when `STORAGE_EMULATOR_HOST` is set.

    Raises ConfigurationError when there are no usable credentials. Speaks to no bucket.
    """
    try:
        client = _emulator_client() or storage.Client(project="none")
    except (auth.GoogleAuthError, ValueError, OSError) as exc:
        raise _credentials_error(exc) from None
    # The library's own pool holds 10. It never waits for a free one (pool_block), so none can deadlock.
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=max(connections, 1), max_retries=0)
    client._http.mount("https://", adapter)
    client._http.mount("http://", adapter)
    return client


def _emulator_client() -> storage.Client | None:
    host = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if not host:
        return None
    endpoint = host if "://" in host else f"http://{host}"  # the Go tools write it without http://
    _require_address(endpoint)
    options = {"api_endpoint": endpoint.rstrip("/")}
    return storage.Client(project="none", credentials=AnonymousCredentials(), client_options=options)


def _require_address(endpoint: str) -> None:
    with suppress(ValueError):
        parts = urlsplit(endpoint)
        if parts.hostname and parts.port != 0 and parts.scheme in ("http", "https"):
            return
    raise ConfigurationError("STORAGE_EMULATOR_HOST is no address; set it like http://127.0.0.1:9023 or unset it.")


@contextmanager
def our_errors(bucket: str, doing: str) -> Iterator[None]:
    """Turn what the client raises while `doing` something into our errors."""
    try:
        yield
    except _FOREIGN as exc:
        raise translate(exc, bucket, doing) from _harmless(exc)


def translate(exc: Exception, bucket: str, doing: str) -> LandrecordsError:
    """The one of our errors that says what happens after `exc`."""
    if isinstance(exc, api.GoogleAPICallError):
        return _answer_error(exc, bucket, doing)
    if getattr(exc, "retryable", False) or isinstance(exc, auth.TransportError) or nothing_answers(exc):
        return OutsideUnreachable(
            f"Cloud Storage does not answer while {doing}; "
            "check the network (and STORAGE_EMULATOR_HOST where it is set), then rerun."
        )
    if isinstance(exc, auth.GoogleAuthError):
        return _credentials_error(exc)
    return TransientError(
        Reason.STORE_ERROR,
        f"The connection to the bucket broke while {doing} ({type(exc).__name__}); it is tried again later.",
    )


def _answer_error(exc: api.GoogleAPICallError, bucket: str, doing: str) -> LandrecordsError:
    if exc.code == 401:
        return _credentials_error(exc)
    if exc.code == 403:
        return ConfigurationError(
            f"This account may not use bucket {bucket} ({doing}); grant it roles/storage.objectUser there."
        )
    if exc.code == 404:
        return ConfigurationError(
            f"Bucket {bucket} does not exist or is not visible; create it or correct LANDRECORDS_STORE_URL."
        )
    return TransientError(Reason.STORE_ERROR, f"The bucket answered {exc.code} while {doing}; it is tried again later.")


def _credentials_error(exc: Exception) -> ConfigurationError:
    """Says which credentials to mend, and nothing of what is in them."""
    return ConfigurationError(
        f"The Google credentials are missing or refused ({type(exc).__name__}); run `gcloud auth "
        "application-default login` or set GOOGLE_APPLICATION_CREDENTIALS to a valid key file."
    )


def _harmless(exc: Exception) -> Exception | None:
    """The cause to show in a log; none for credentials, whose errors may quote them."""
    return None if isinstance(exc, auth.GoogleAuthError) else exc


def nothing_answers(exc: BaseException) -> bool:
    """Whether no connection came about at all (refused, no route, no such name, no TLS)."""
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    silent = (requests.ConnectTimeout, requests.exceptions.ProxyError, requests.exceptions.SSLError)
    return isinstance(exc, silent) or isinstance(
        reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
    )


def is_passing(exc: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(exc, api.GoogleAPICallError):
        return exc.code in _PASSING_CODES
    return isinstance(exc, (*_WIRE_ERRORS, auth.TransportError, DataCorruption))


@dataclass(frozen=True, slots=True)
class Patience:
    """How often one request is sent again: after each of `delays_s` (with jitter), within `deadline_s`.

    Only for requests that may arrive twice. Looks at `stop` before each and while it waits, which the retries
    of the library do not.
    """

    stop: Event | None = None
    delays_s: tuple[float, ...] = (0.5, 1.0, 2.0)
    deadline_s: float = 60.0

    def call(self, request: Callable[[], Answer]) -> Answer:
        """What `request` returns, once it does. Raises StopRequested or its last error."""
        started = time.monotonic()
        for delay_s in self.delays_s:
            refuse_when_stopped(self.stop)
            try:
                return request()
            except _FOREIGN as exc:
                if not is_passing(exc) or time.monotonic() - started > self.deadline_s:
                    raise
            self._wait(delay_s * random.uniform(0.7, 1.3))  # noqa: S311 - no secret
        refuse_when_stopped(self.stop)
        return request()

    def _wait(self, delay_s: float) -> None:
        if self.stop is None:
            time.sleep(delay_s)
        elif self.stop.wait(delay_s):
            raise StopRequested("The run is stopping; this object was not stored.")
