"""A PDF worker process: `python -m tasks.pdf_worker LIFE_FD MEMORY_BYTES`, started by `tasks.pdf_workers`.

Requests and replies are JSON, one a line, on what were stdin and stdout. The process ends when its parent
does, at once and whatever it is doing: the parent holds the other end of the LIFE_FD pipe and never writes
to it, and the kernel sends SIGIO, whose default is to kill, when that end closes. (PR_SET_PDEATHSIG would
not do: it fires when the *thread* that started the worker ends. A watching thread neither: pikepdf holds
the GIL.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tasks.errors import ItemError, LandrecordsError, TerminalError, TransientError
from tasks.records import Reason

Operation = Callable[..., Any]

_DECODED_BYTES = 1 << 30  # a 36 x 48 inch colour plat at 400 dpi decodes to 830 MB
_MAX_QPDF_WARNINGS = 10_000
_RETIRE_ABOVE_BYTES = 256 << 20  # memory is not handed back after a large document; a new process is 0.2 s
_ALARM_GRACE_S = 5.0


def main(life_fd: int, memory_bytes: int) -> None:
    """Serve requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(life_fd)
    requests, replies = _take_stdio()
    try:
        operations = _load()
    except ImportError as exc:
        _send(replies, {"failed": f"{type(exc).__name__}: {exc}"})
        return
    _limit(memory_bytes)
    _send(replies, {"ready": True})
    for line in requests:
        reply = _answer(operations, json.loads(line))
        _send(replies, {**reply, "retire": _resident_bytes() > _RETIRE_ABOVE_BYTES})


def _die_with_parent(life_fd: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # elsewhere stdin ends, and the alarm ends what hangs
        fcntl.fcntl(life_fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)
    watch = select.poll()
    watch.register(life_fd, select.POLLIN)
    if watch.poll(0):  # it was gone before the kernel was asked to tell
        sys.exit(1)


def _take_stdio() -> tuple[TextIO, TextIO]:
    """Keep the pipes for ourselves; a library that prints must not garble a reply."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return requests, replies


def _load() -> dict[str, Operation]:
    import img2pdf
    import pikepdf

    from tasks import pdf_ladder, tiff

    versions = {
        "pikepdf": pikepdf.__version__,
        "qpdf": pikepdf.__libqpdf_version__,
        "img2pdf": img2pdf.__version__,
    }
    return {
        "versions": lambda: versions,
        "inspect": lambda **given: pdf_ladder.inspect(**given).to_json(),
        "lossless_rewrite": pdf_ladder.lossless_rewrite,
        "tiff_to_pdf": tiff.tiff_to_pdf,
    }


def _limit(memory_bytes: int) -> None:
    """Limits of this process, set once, before any document is seen."""
    import pikepdf.settings
    from PIL import Image

    pikepdf.settings.set_qpdf_limits(
        doc_max_warnings=_MAX_QPDF_WARNINGS,  # dct_max_memory stays off: qpdf refuses at 1/20 of it (12.4)
        flate_max_memory=_DECODED_BYTES,
        png_max_memory=_DECODED_BYTES,
        run_length_max_memory=_DECODED_BYTES,
        tiff_max_memory=_DECODED_BYTES,
    )
    pikepdf.settings.set_flate_compression_level(9)
    Image.MAX_IMAGE_PIXELS = None  # a plat of 276 megapixels is no bomb; memory is bounded below
    with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(operations: dict[str, Operation], request: dict[str, Any]) -> dict[str, Any]:
    """Do one request. The alarm ends the process by itself if its parent can no longer."""
    given = {name: Path(value) if name in request["paths"] else value for name, value in request["given"].items()}
    signal.setitimer(signal.ITIMER_REAL, request["timeout_s"] + _ALARM_GRACE_S)
    try:
        return {"value": operations[request["operation"]](**given)}
    except LandrecordsError as exc:
        return _told(exc)
    except RecursionError:
        return _told(TerminalError(Reason.DAMAGED, "The document is nested beyond reason; look at it by hand."))
    except Exception as exc:  # noqa: BLE001 - told to the parent, which raises it
        if isinstance(exc, MemoryError) or getattr(exc, "errno", None) == errno.ENOMEM:
            message = "The document needs more memory to read than is allowed; look at it by hand."
            return _told(TerminalError(Reason.TOO_LARGE, message))
        return _told(TransientError(Reason.INTERNAL, f"{type(exc).__name__}: {exc}"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _told(exc: LandrecordsError) -> dict[str, Any]:
    reason = exc.reason if isinstance(exc, ItemError) else None
    return {"error": type(exc).__name__, "reason": reason, "message": str(exc)}


def _send(replies: TextIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _resident_bytes() -> int:
    """Memory in use now. Not ru_maxrss, which exec inherits from the parent; 0 where there is no /proc."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
