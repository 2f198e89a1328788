"""What is known of a picture before it is decoded, and how it is said that one is no good. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tasks.errors import TerminalError, TransientError
from tasks.records import Reason

Kind = Literal["png", "jpg", "webp", "avif", "gif"]

MAX_PIXELS = 4096 * 4096
"""No map tile has more; decoded, this is 67 MB."""


class Frame(NamedTuple):
    """A whole picture, not decoded. `may_be_blank`: it is small enough to be of a single colour."""

    width_px: int
    height_px: int
    may_be_blank: bool


def damaged(kind: Kind) -> TerminalError:
    """Our error for a picture that is all there and cannot be drawn."""
    return TerminalError(Reason.DAMAGED, f"The {kind} picture is damaged; look at it by hand.")


def truncated(kind: Kind, body: bytes) -> TransientError:
    """Our error for a picture whose end is missing."""
    said = f"The {kind} picture ends too early, after {len(body)} bytes; it is tried again later."
    return TransientError(Reason.TRUNCATED, said)


def no_tile(kind: Kind, frame: Frame) -> TerminalError:
    """Our error for a picture without a pixel or with far too many."""
    if not frame.width_px * frame.height_px:
        return damaged(kind)
    said = f"A {kind} picture of {frame.width_px} x {frame.height_px} px is no map tile; check the address."
    return TerminalError(Reason.TOO_LARGE, said)
