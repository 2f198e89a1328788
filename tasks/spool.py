"""The spool: where a document lies between its download and the store. It survives a crash of the run.

Files are named for their row. A row says which spool holds its file, since another machine, or another
folder, has a spool of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tasks.downloads import sweep_partials
from tasks.ghostscript import sweep_work
from tasks.partials import disk

SWEEP_BATCH = 1000


class Spool:
    """A folder of spooled documents.

    identity   a name kept in the folder itself, the same for every process and mount that sees the folder
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "documents"
        with disk(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.identity = _identity(self.folder / "identity")

    def fetched(self, item: int) -> Path:
        """The document as the portal sent it (a TIFF before it becomes a PDF)."""
        return self.folder / f"{item}.fetched"

    def source(self, item: int) -> Path:
        """The document as a PDF, validated."""
        return self.folder / f"{item}.pdf"

    def optimised(self, item: int) -> Path:
        """The smaller document, when there is one."""
        return self.folder / f"{item}.optimised.pdf"

    def drop(self, item: int) -> None:
        """Remove all files of an item that needs them no more."""
        for path in (self.fetched(item), self.source(item), self.optimised(item)):
            path.unlink(missing_ok=True)

    def sweep(self, finished: Callable[[list[int]], set[int]]) -> int:
        """Remove what killed processes left: partial files, and files of items that `finished` names.

        Returns how many items were dropped. Files of items still on their way stay.
        """
        sweep_partials(self.folder)
        sweep_work(self.folder)
        dropped, items = 0, self._items()
        while batch := list(islice(items, SWEEP_BATCH)):
            for item in finished(batch):
                self.drop(item)
                dropped += 1
        return dropped

    def _items(self) -> Iterator[int]:
        names = (entry.name.partition(".")[0] for entry in os.scandir(self.folder))
        yield from sorted({int(name) for name in names if name.isdecimal()})


def _identity(path: Path) -> str:
    """Made once; processes that start together agree, since only one link can succeed."""
    if not path.exists():
        fresh = path.with_name(f"identity.{uuid.uuid4().hex}")
        fresh.write_text(uuid.uuid4().hex)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()
