"""The `gs` program: found on PATH, executed (never linked: AGPL), path in, path out.

Its exit code is not to be trusted (0 for truncated input and for lost images), so what it prints is read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from tasks.bounded_process import TICK_S, check_stop, execute
from tasks.errors import ConfigurationError, OutsideUnreachable, TerminalError
from tasks.partials import disk
from tasks.records import Reason

Version = tuple[int, ...]

OLDEST: Version = (9, 50)  # the first whose -dSAFER keeps documents from the file system
IMAGE_DPI = 200  # small print on a deed stays legible and OCR still reads it; fax "fine" is 196
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

_SLOTS = threading.BoundedSemaphore(CORES)
_LOG_BYTES = 8 << 20
_TROUBLE = re.compile(
    rb"\*\*\*\* Error|Error: /|Unrecoverable error|errors were encountered"
    rb"|Substituting font|Can't find \(or can't open\)"
)
_INSTALL = {
    "apt-get": "sudo apt-get install -y ghostscript",
    "brew": "brew install ghostscript",
    "dnf": "sudo dnf install -y ghostscript",
    "apk": "sudo apk add ghostscript",
}


@dataclass(frozen=True, slots=True)
class Ghostscript:
    """An installed gs; `version` as it writes it, such as 10.00.0."""

    executable: str
    version: str

    @property
    def release(self) -> Version:
        """The version as numbers, for comparing."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version))


@cache
def find_ghostscript() -> Ghostscript:
    """The gs on PATH. Raises ConfigurationError with the command that installs it."""
    executable = shutil.which("gs")
    if executable is None:
        raise ConfigurationError(f"Ghostscript is not installed; run `{_install_command()}`.")
    asked = subprocess.run([executable, "--version"], capture_output=True, text=True, check=False, timeout=30)
    found = Ghostscript(executable, asked.stdout.strip())
    if asked.returncode or not found.release:
        raise ConfigurationError(f"{executable} does not run; repair it with `{_install_command()}`.")
    if found.release < OLDEST:
        raise ConfigurationError(f"Ghostscript {found.version} is older than 9.50; run `{_install_command()}`.")
    return found


def run(
    ghostscript: Ghostscript,
    source: Path,
    folder: Path,
    *,
    image_dpi: int = IMAGE_DPI,
    timeout_s: float = 120.0,
    stop: threading.Event | None = None,
) -> Path:
    """Rewrite `source` by pdfwrite inside `folder`, which is its own; returns the file made there.

    Waits for one of as many places as there are cores. Raises TerminalError (gs_failed, gs_timeout),
    StopRequested, or OutsideUnreachable when the disk is full.
    """
    with disk(folder):
        (folder / "in.pdf").symlink_to(source.absolute())  # names with % or * mean something to gs
        log = (folder / "gs.log").open("w+b")
    command = [ghostscript.executable, *options(image_dpi)]
    with log, _slot(stop):
        try:
            code = execute(command, folder, log.fileno(), timeout_s=timeout_s, stop=stop)
        except TimeoutError:
            message = f"Ghostscript took longer than {timeout_s:g} s; the document is kept."
            raise TerminalError(Reason.GS_TIMEOUT, message) from None
        except OSError as exc:
            raise TerminalError(Reason.GS_FAILED, f"Ghostscript does not start ({exc.strerror}).") from exc
        trouble = _trouble(log)
    made = folder / "out.pdf"
    if code == 0 and trouble is None and made.exists():
        return made
    if shutil.disk_usage(folder).free < max(source.stat().st_size, 1 << 20):
        raise OutsideUnreachable(f"The disk of {folder.parent} is full; free space or set LANDRECORDS_SPOOL_DIR.")
    raise TerminalError(Reason.GS_FAILED, f"Ghostscript failed (exit {code}, {trouble}); the document is kept.")


def options(image_dpi: int) -> list[str]:
    """What pdfwrite shall do to a scan (Ghostscript: VectorDevices, "Distiller parameters")."""
    return [
        "-dSAFER",
        "-dBATCH",
        "-dNOPAUSE",
        "-dPDFSTOPONERROR",
        "-sDEVICE=pdfwrite",
        "-dCompatibilityLevel=1.7",
        "-dPDFSETTINGS=/printer",  # for its JPEG quality (QFactor 0.4, full chroma); the rest is said below
        "-sColorConversionStrategy=LeaveColorUnchanged",
        "-dAutoRotatePages=/None",
        "-dDetectDuplicateImages=false",  # compares by checksum; has merged images that differ
        "-dCreateJobTicket=false",
        "-dDownsampleMonoImages=false",  # a plat's hairlines
        "-dMonoImageFilter=/CCITTFaxEncode",
        *[
            option
            for kind in ("Color", "Gray")
            for option in (
                f"-dDownsample{kind}Images=true",
                f"-d{kind}ImageDownsampleType=/Bicubic",
                f"-d{kind}ImageResolution={image_dpi}",
                f"-d{kind}ImageDownsampleThreshold=1.3",  # 300 dpi goes to 200; 240 dpi stays as it is
            )
        ],
        "-dPassThroughJPEGImages=true",
        "-sOutputFile=out.pdf",
        "-f",
        "in.pdf",
    ]


def _trouble(log: BinaryIO) -> str | None:
    """The first complaint that means the output is not the whole document; font substitutes are one."""
    if log.seek(0, os.SEEK_END) > _LOG_BYTES:
        return "more messages than can be read"
    log.seek(0)
    found = _TROUBLE.search(log.read())
    return found[0].decode() if found else None


@contextlib.contextmanager
def _slot(stop: threading.Event | None) -> Iterator[None]:
    while not _SLOTS.acquire(timeout=TICK_S):
        check_stop(stop)
    try:
        check_stop(stop)
        yield
    finally:
        _SLOTS.release()


def _install_command() -> str:
    found = [command for program, command in _INSTALL.items() if shutil.which(program)]
    return found[0] if found else _INSTALL["apt-get"]
