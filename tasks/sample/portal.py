"""The sample portal: a county recorder's web site with generated (or given) documents and switchable faults.

In a test, `with SamplePortal() as portal:` runs it in a thread. For a demo or a benchmark,
`python -m tasks.sample.portal --port 0` runs it as a process that prints one line of JSON when it is ready.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks.sample.answers import Office
from tasks.sample.corpus import ODDITIES, SCANS_KEPT, Corpus, GeneratedCorpus, Oddity
from tasks.sample.faults import NONE
from tasks.sample.folder import FolderCorpus
from tasks.sample.index_rows import index_records, write_index
from tasks.sample.running import AnyFaults, InThread, add_options, run_process


class SamplePortal(InThread):
    """The portal in a thread of this process, for tests.

    corpus     what it has: a number of generated documents (with `seed` and `oddities`), or a corpus
    prepare    draw all scans before the first request, so that none waits for it

    The rest as `InThread`.
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
        super().__init__(Office(self.corpus), seed=seed, faults=faults, latency_ms=latency_ms, log=log, port=port)
        if prepare:
            draw_scans(self.corpus)

    def index_rows(self) -> Iterator[dict[str, str]]:
        """The index of what the portal has, one record per document by column name."""
        return index_records(self.corpus)

    def write_index(self, path: Path) -> int:
        """The same as a .csv or .xlsx file; returns the number of rows."""
        return write_index(path, self.corpus)


def draw_scans(corpus: Corpus) -> None:
    """Make the files of a corpus ahead of the requests for them, as many as are kept."""
    for number in range(min(len(corpus), SCANS_KEPT)):
        corpus.scan(corpus.document(number))


# --- as a process ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the portal until SIGTERM, SIGINT or the end of the parent. Returns the exit code."""
    parent = os.getppid()
    options = _parser().parse_args(arguments)
    return run_process(options, lambda: _open(options), parent)


def _open(options: argparse.Namespace) -> tuple[Office, Callable[[], dict[str, object]]]:
    corpus = _corpus(options)
    return Office(corpus), lambda: _announcement(options, corpus)


def _corpus(options: argparse.Namespace) -> Corpus:
    if options.folder:
        return FolderCorpus(options.folder, options.folder_source)
    oddities = {} if options.no_oddities else ODDITIES
    corpus = GeneratedCorpus(options.documents, options.seed, oddities, options.distinct)
    if options.prepare:
        draw_scans(corpus)
    return corpus


def _announcement(options: argparse.Namespace, corpus: Corpus) -> dict[str, object]:
    if options.index_out:
        write_index(options.index_out, corpus)
    return {"documents": len(corpus), "index": str(options.index_out) if options.index_out else None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.sample.portal", description="A sample records portal.")
    add_options(parser)
    add = parser.add_argument
    add("--documents", type=int, default=200, help="how many documents to have")
    add(
        "--distinct",
        type=int,
        default=None,
        help="how many different scans to draw (default: one per document)",
    )
    add("--no-oddities", action="store_true", help="every document is sound, on record and in its place")
    add("--folder", type=Path, default=None, help="serve the PDFs and TIFFs below this folder instead")
    add("--folder-source", choices=("direct", "duprocess"), default="direct", help="how they are found")
    add("--prepare", action="store_true", help="draw the scans before answering")
    add("--index-out", type=Path, default=None, help="write the index of the documents here (.csv or .xlsx)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
