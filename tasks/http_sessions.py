"""`requests` sessions for the HTTP door: one per thread, sockets known to the watch, no retries within."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import check_header_validity, get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.poolmanager import ProxyManager

from tasks.errors import ConfigurationError
from tasks.http_wire import hold

USER_AGENT = "landrecords/0.1 (bulk acquisition of public land records)"
"""Who asks: the same from every door, so that an operator who wonders finds us."""


class _Dialled:
    """Mixin for urllib3's connections: tells the wire of this thread which socket it uses."""

    def _new_conn(self: Any) -> socket.socket:
        """urllib3's own, except that the socket is known before `connect` blocks on it."""
        try:
            sock = _dial(self._dns_host, self.port, self.timeout, self.socket_options)
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except UnicodeError as exc:  # a label of more than 63 letters
            raise LocationParseError(self.host) from exc
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"no connection to {self.host} in {self.timeout} s") from exc
        except OSError as exc:
            raise NewConnectionError(self, str(exc)) from exc
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        hold(self.sock)  # a connection kept alive from an earlier request
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Connection(_Dialled, HTTPConnection):
    pass


class _TlsConnection(_Dialled, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _dial(host: str, port: int, timeout_s: Any, options: Any) -> socket.socket:
    """Connect to the first address of `host` that answers."""
    failure = OSError(f"{host} has no address")
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        try:
            return _connect(socket.socket(family, kind, protocol), address, timeout_s, options)
        except OSError as exc:
            failure = exc
    raise failure


def _connect(sock: socket.socket, address: Any, timeout_s: Any, options: Any) -> socket.socket:
    try:
        for option in options or ():
            sock.setsockopt(*option)
        sock.settimeout(timeout_s)
        hold(sock, again=True)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


class _Adapter(HTTPAdapter):
    """Never retries by itself: every request that leaves has taken a turn."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, ProxyManager):  # a SOCKS manager brings its own connections
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: Any) -> str | None:  # noqa: ARG002
        """None: hops are the door's. Even with allow_redirects=False requests reads a redirect's body."""
        return None


class Sessions:
    """One session per thread (they are not thread-safe), each with its cookies and kept-alive connections."""

    def __init__(self, headers: Mapping[str, str], verify: bool | str) -> None:
        self._headers = dict(headers)
        # requests reads these, and ~/.netrc, for every request; a door reads the environment once
        from_environment = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self.verify = from_environment if verify is True and from_environment else verify
        self._by_thread: dict[threading.Thread, requests.Session] = {}
        self._proxies: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def mine(self) -> requests.Session:
        """The session of the calling thread."""
        thread = threading.current_thread()
        return self._by_thread.get(thread) or self._open(thread)

    def proxies(self, origin: str) -> dict[str, str]:
        """The environment's proxies for `origin` (scheme://host:port), NO_PROXY obeyed."""
        if origin not in self._proxies:
            self._proxies[origin] = dict(get_environ_proxies(origin))
        return self._proxies[origin]

    def close(self) -> None:
        """Close every connection that is not in use."""
        with self._lock:
            for session in self._by_thread.values():
                session.close()
            self._by_thread.clear()

    def _open(self, thread: threading.Thread) -> requests.Session:
        session = _Session()
        session.trust_env = False
        session.headers.update(self._headers)
        for prefix in ("http://", "https://"):
            session.mount(prefix, _Adapter(pool_connections=4, pool_maxsize=2))
        with self._lock:
            for gone in [t for t in self._by_thread if not t.is_alive()]:
                self._by_thread.pop(gone).close()
            self._by_thread[thread] = session
        return session


def sendable(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers, if they can be sent. The value stays out of the message: it may be a secret."""
    for name, value in (headers or {}).items():
        try:
            check_header_validity((name, value))
            value.encode("latin-1")
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError, AttributeError):
            raise ConfigurationError(
                f"The value of header {name!r} cannot be sent; look for line breaks and odd characters."
            ) from None
    return dict(headers or {})


def trusted(verify: bool | str) -> bool | str:
    """`verify` as requests takes it. Raises ConfigurationError when the file is missing."""
    if isinstance(verify, str) and not Path(verify).exists():
        raise ConfigurationError(f"The certificate authority's file {verify} is not there; correct its path.")
    if verify is False:  # the user chose; urllib3 would say so again for every request
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return verify
