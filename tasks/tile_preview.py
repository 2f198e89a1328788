"""A page that shows a PMTiles archive in any browser: one file, no other address, nothing installed."""

from __future__ import annotations

import html
import json
import re
from importlib import resources

MEDIA_TYPE = "text/html; charset=utf-8"


def preview_page(title: str, archive: str, attribution: str = "") -> bytes:
    """The page, UTF-8.

    archive  file name of the PMTiles archive that will lie beside the page

    Served over HTTP it reads the archive by ranges. Opened from a folder it asks for the file, which browsers let
    a page read only when the user hands it over.
    """
    settings = {"title": title, "archive": archive, "attribution": attribution}
    packed = json.dumps(settings, ensure_ascii=False).replace("<", "\\u003c")  # no way out of its element
    filled = {"@TITLE@": html.escape(title), "@SETTINGS@": packed}
    page = resources.files("tasks").joinpath("tile_preview.html").read_text(encoding="utf-8")
    return re.sub("@TITLE@|@SETTINGS@", lambda found: filled[found[0]], page).encode()
