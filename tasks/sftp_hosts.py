"""Whether a host key is the one it should be: `known_hosts` and pinned keys, as OpenSSH reads them. No network.

Format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". paramiko's own HostKeys knows no wildcards, no negation and no
`@revoked`, and raises on some lines (5.1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from itertools import pairwise
from pathlib import Path
from re import compile as pattern
from typing import NamedTuple

from tasks.errors import ConfigurationError

DEFAULT_KNOWN_HOSTS = Path("~/.ssh/known_hosts")
"""Read when nothing else is named; it need not exist."""


class _Line(NamedTuple):
    marker: str
    hosts: str
    blob: bytes

    def names(self, *names: str) -> bool:
        """Whether the line is about one of these names."""
        if self.hosts.startswith("|"):
            return any(_is_hash_of(name, self.hosts) for name in names)
        return any(_matches(self.hosts.lower().split(","), name) for name in names)


@dataclass(frozen=True)
class Trust:
    """The host keys that a server may prove itself with.

    host, port   of the server
    blobs        keys that are known for it, as they travel: another one is alarming
    fingerprint  known instead of a key: `SHA256:` and base64
    others       keys known for the host, whatever the port: good enough where there are no `blobs` (as OpenSSH)
    revoked      keys never to be accepted
    source       where they come from, for messages
    """

    host: str
    port: int
    blobs: frozenset[bytes]
    fingerprint: str | None = None
    others: frozenset[bytes] = frozenset()
    revoked: frozenset[bytes] = frozenset()
    source: str = "host_key"

    @property
    def kinds(self) -> list[str]:
        """Types of the keys that are known, to be preferred when the server has several."""
        return sorted({_kind(blob) for blob in self.blobs or self.others})

    def accepts(self, blob: bytes) -> bool:
        """Whether the server may show this key."""
        known = fingerprint_of(blob) == self.fingerprint if self.fingerprint else blob in (self.blobs or self.others)
        return known and blob not in self.revoked

    def refusal(self, blob: bytes) -> ConfigurationError:
        """Why a key is not accepted, and what to do."""
        shown = f"{_kind(blob)} {fingerprint_of(blob)}"
        server = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        if blob in self.revoked:
            return ConfigurationError(f"DANGER: the host key of {server} ({shown}) is marked @revoked; do not connect.")
        if self.blobs or self.fingerprint:
            return ConfigurationError(
                f"DANGER: {server} shows another host key ({shown}) than the one in {self.source} "
                f"({self._expected()}): somebody may be in between, or the server was set up anew. No login was sent; "
                "ask its administrator, and only when he confirms the new fingerprint replace the old key."
            )
        port = "" if self.port == 22 else f"-p {self.port} "
        return ConfigurationError(
            f"The host key of {server} is not known yet: {shown}. Compare it with what the server's administrator "
            f"says, then give host_key='{fingerprint_of(blob)}' or run: "
            f"ssh-keyscan {port}{self.host} >> {self.source}"
        )

    def _expected(self) -> str:
        return self.fingerprint or ", ".join(sorted(f"{_kind(b)} {fingerprint_of(b)}" for b in self.blobs))


def load_trust(host: str, port: int, known_hosts: Path | None, host_key: str | None) -> Trust:
    """What to trust of a server: `host_key` when it is given, else the lines of `known_hosts` that name it.

    known_hosts  None: ~/.ssh/known_hosts, where there is one
    host_key     a public key line (as in *.pub, known_hosts or of ssh-keyscan), or `SHA256:...`
    Raises ConfigurationError.
    """
    lines = list(_read(known_hosts))
    name, bare = (host.lower() if port == 22 else f"[{host.lower()}]:{port}"), host.lower()
    revoked = frozenset(line.blob for line in lines if line.marker == "@revoked" and line.names(name, bare))
    if host_key is not None:
        blobs, fingerprint = _pinned(host_key)
        return Trust(host, port, blobs, fingerprint, revoked=revoked)
    plain = [line for line in lines if not line.marker]
    exact = frozenset(line.blob for line in plain if line.names(name))
    others = frozenset(line.blob for line in plain if line.names(bare))
    return Trust(host, port, exact, None, others, revoked, str(known_hosts or DEFAULT_KNOWN_HOSTS))


def fingerprint_of(blob: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _pinned(host_key: str) -> tuple[frozenset[bytes], str | None]:
    words = host_key.split()
    if words and words[0].upper().startswith("SHA256:"):
        return frozenset(), "SHA256:" + words[0][7:].rstrip("=")
    for kind, text in pairwise(words):
        blob = _blob(kind, text)
        if blob is not None:
            return frozenset({blob}), None
    raise ConfigurationError(
        "host_key is neither a public key line (ssh-ed25519 AAAA...) nor a fingerprint (SHA256:...); "
        "`ssh-keyscan HOST` and `ssh-keygen -lf FILE` show them."
    )


def _read(path: Path | None) -> Iterator[_Line]:
    """The usable lines of a file; OpenSSH, too, passes over the others."""
    try:
        text = (path or DEFAULT_KNOWN_HOSTS).expanduser().read_text("utf-8", "replace")
    except OSError as exc:
        if path is None and isinstance(exc, FileNotFoundError):
            return
        raise ConfigurationError(f"known_hosts {path} cannot be read ({exc.strerror}); correct the path.") from exc
    except RuntimeError:  # pathlib: there is no home
        return
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        blob = _blob(words[1], words[2]) if len(words) >= 3 and not words[0].startswith("#") else None
        if blob is not None:
            yield _Line(marker, words[0], blob)


def _blob(kind: str, text: str) -> bytes | None:
    """The key in base64; None where it is no key of that type."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if _kind(blob) == kind else None


def _kind(blob: bytes) -> str:
    """A key begins with the name of its type."""
    return blob[4 : 4 + int.from_bytes(blob[:4])].decode("ascii", "replace")


def _matches(patterns: Iterable[str], name: str) -> bool:
    """`*` and `?` are wild; a match of a pattern with `!` rules the line out."""
    found = False
    for each in patterns:
        if _wild(each.removeprefix("!"), name):
            if each.startswith("!"):
                return False
            found = True
    return found


def _wild(glob: str, name: str) -> bool:
    return pattern(translate(glob.replace("[", "[[]"))).match(name) is not None


def _is_hash_of(name: str, hashed: str) -> bool:
    """`|1|salt|HMAC-SHA1 of the name`, both in base64."""
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.removeprefix("|1|").split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
