"""The sample portal: a county recorder's web site with generated (or given) documents and switchable faults.

In a test, `with SamplePortal() as portal:` runs it in a thread. For a demo or a benchmark,
`python -m tasks.sample.portal --port 0` runs it as a process that prints one line of JSON when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tasks.errors import ConfigurationError
from tasks.sample.answers import Office
from tasks.sample.corpus import ODDITIES, SCANS_KEPT, Corpus, GeneratedCorpus, Oddity
from tasks.sample.faults import NAMED, NONE, Faults, Outage, load_faults
from tasks.sample.folder import FolderCorpus
from tasks.sample.index_rows import index_records, write_index
from tasks.sample.server import PortalServer
from tasks.sample.witness import RequestRecord, Witness

T = TypeVar("T")
PARENT_CHECK_S = 0.5

AnyFaults = Faults | Mapping[str, Any] | str
"""A set of faults, its JSON object, its JSON text, or the name of a set."""


class SamplePortal:
    """The portal in a thread of this process, for tests.

    corpus     what it has: a number of generated documents (with `seed` and `oddities`), or a corpus
    faults     may also be assigned while the portal runs
    latency_ms added to every answer, whatever the faults
    prepare    draw all scans before the first request, so that none waits for it
    log        also write the request log to this file, as JSON lines
    """

    def __init__(
        self,
        corpus: int | Corpus = 200,
        *,
        seed: int = 7,
        oddities: Mapping[Oddity, int] = ODDITIES,
        faults: AnyFaults = NONE,
        latency_ms: float = 0.0,
        prepare: bool = False,
        log: Path | None = None,
        port: int = 0,
    ) -> None:
        self.corpus = GeneratedCorpus(corpus, seed, oddities) if isinstance(corpus, int) else corpus
        self.url = ""
        self._port = port
        self._witness = Witness(log)
        office = Office(self.corpus)
        self._server = PortalServer(office, self._witness, load_faults(faults), seed=seed, latency_ms=latency_ms)
        if prepare:
            draw_scans(self.corpus)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sample-portal", daemon=True)
        self._thread.start()
        try:
            self.url = f"http://127.0.0.1:{self._run(self._server.start(port=self._port))}"
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._server.stop())
        self._end_loop()

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request so far, oldest first; those under way have status 0."""
        return list(self._witness.records)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._witness.connections_open

    @property
    def faults(self) -> Faults:
        """The set at work; assigning one switches at once, and its counts start anew."""
        return self._server.faults

    @faults.setter
    def faults(self, faults: AnyFaults) -> None:
        chosen = load_faults(faults)
        self._run(_call(self._server.apply, chosen))

    def go_down(self, lasts_s: float, how: str = "refuse") -> None:
        """Everything is away from now on for a while: connections are refused, or accepted and reset."""
        outage = Outage.model_validate({"lasts_s": lasts_s, "how": how})
        self._run(_call(self._server.go_down, outage))

    def index_rows(self) -> Iterator[dict[str, str]]:
        """The index of what the portal has, one record per document by column name."""
        return index_records(self.corpus)

    def write_index(self, path: Path) -> int:
        """The same as a .csv or .xlsx file; returns the number of rows."""
        return write_index(path, self.corpus)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._witness.close()


def draw_scans(corpus: Corpus) -> None:
    """Make the files of a corpus ahead of the requests for them, as many as are kept."""
    for number in range(min(len(corpus), SCANS_KEPT)):
        corpus.scan(corpus.document(number))


async def _call(function: Any, *args: Any) -> None:
    function(*args)


# --- as a process ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the portal until SIGTERM, SIGINT or the end of the parent. Returns the exit code."""
    parent = os.getppid()  # before anything that takes time: it may end while we start
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(options, parent))
    except BrokenPipeError:
        return 1  # whoever started us left before we were ready
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - this is a command
        return 2
    return 0


async def _serve(options: argparse.Namespace, parent: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    corpus = _corpus(options)
    witness = Witness(options.log)
    faults = load_faults(options.faults)
    server = PortalServer(Office(corpus), witness, faults, seed=options.seed, latency_ms=options.latency_ms)
    port = await server.start(options.host, options.port)
    try:
        _announce(options, corpus, port)
        if options.die_with_parent:
            await _until_orphaned(stop, parent)
        await stop.wait()
    finally:
        await server.stop()
        witness.close()


def _corpus(options: argparse.Namespace) -> Corpus:
    if options.folder:
        return FolderCorpus(options.folder, options.folder_source)
    oddities = {} if options.no_oddities else ODDITIES
    corpus = GeneratedCorpus(options.documents, options.seed, oddities, options.distinct)
    if options.prepare:
        draw_scans(corpus)
    return corpus


def _announce(options: argparse.Namespace, corpus: Corpus, port: int) -> None:
    if options.index_out:
        write_index(options.index_out, corpus)
    index = str(options.index_out) if options.index_out else None
    ready = {
        "url": f"http://{options.host}:{port}",
        "pid": os.getpid(),
        "documents": len(corpus),
        "index": index,
    }
    print(json.dumps(ready), flush=True)  # noqa: T201 - whoever started us waits for this line


async def _until_orphaned(stop: asyncio.Event, parent: int) -> None:
    """Wait for `stop` or another parent. Asked twice a second, because PR_SET_PDEATHSIG fires too early: as
    soon as the *thread* that started us ends."""
    while not stop.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PARENT_CHECK_S)
    stop.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.sample.portal", description="A sample records portal.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--documents", type=int, default=200, help="how many documents to have")
    add("--seed", type=int, default=7, help="the same seed gives the same documents and faults")
    add(
        "--distinct",
        type=int,
        default=None,
        help="how many different scans to draw (default: one per document)",
    )
    add("--no-oddities", action="store_true", help="every document is sound, on record and in its place")
    add("--folder", type=Path, default=None, help="serve the PDFs and TIFFs below this folder instead")
    add("--folder-source", choices=("direct", "duprocess"), default="direct", help="how they are found")
    add("--faults", default="none", help=f"{', '.join(NAMED)}, or a set in JSON")
    add("--latency-ms", type=float, default=0.0, help="added to every answer")
    add("--prepare", action="store_true", help="draw the scans before answering")
    add("--log", type=Path, default=None, help="write every request to this file, as JSON lines")
    add("--index-out", type=Path, default=None, help="write the index of the documents here (.csv or .xlsx)")
    add("--die-with-parent", action="store_true", help="stop when the process that started this one is gone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
