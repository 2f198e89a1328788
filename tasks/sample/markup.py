"""The HTML the sample portal speaks: look-up answers in the portal's own markup, and pages for people."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from tasks.sample.corpus import Corpus, Document, Oddity

NO_RESULTS = '<p id="no-results">No records found.</p>'

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}"
    "h1{font-size:1.4rem;border-bottom:3px solid #2b5d8a;padding-bottom:.4rem}"
    "h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #ddd}th{background:#f2f5f8}"
    "form{display:flex;gap:.6rem;flex-wrap:wrap;align-items:end}label{display:grid;font-size:.85rem}"
    "input,button{font:inherit;padding:.3rem .5rem}a{color:#2b5d8a}dt{font-weight:600}dd{margin:0 0 .5rem}"
)
_FORM = (
    '<form action="/search.php" method="post"><input type="hidden" name="do_search" value="1">'
    '<label>Instrument number<input name="instrument"></label><label>Book<input name="book" size="6"></label>'
    '<label>Page<input name="bpage" size="6"></label><button>Search</button></form>'
)
_OLD_FORM = (
    '<form action="/historical.php"><label>Book (1-237)<input name="book" size="6"></label>'
    '<label>Page<input name="page" size="6"></label><button>Look up</button></form>'
)


def page(title: str, body: str) -> str:
    """A whole page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n"
        '<p><a href="/">Sample County land records</a> (generated data)</p></body></html>\n'
    )


def home(corpus: Corpus) -> str:
    """The page for people: search forms and the first documents."""
    documents = [corpus.document(number) for number in range(min(20, len(corpus)))]
    rows = "".join(
        f"<tr><td>{_link(d)}</td><td>{d.book}</td><td>{d.page}</td><td>{escape(d.type_raw)}</td>"
        f"<td>{escape(d.grantor)}</td><td>{d.filed}</td><td>{d.source}</td></tr>\n"
        for d in documents
    )
    return page(
        "Sample County land records",
        f"<p>{len(corpus):,} recorded documents.</p><h2>Search</h2>{_FORM}"
        f"<h2>Books before 238</h2>{_OLD_FORM}"
        "<h2>Documents</h2><table><thead><tr><th>Record</th><th>Book</th><th>Page</th><th>Type</th><th>Grantor</th>"
        f"<th>Filed</th><th>Source</th></tr></thead><tbody>\n{rows}</tbody></table>",
    )


def search_form() -> str:
    """What an empty search answers: neither results nor "no records"."""
    return page("Search", _FORM)


def search_results(rows: Iterable[str]) -> str:
    """The `duprocess` answer: a table of rows made by `result_row`, or the sentence that there are none."""
    body = "\n".join(rows)
    head = "".join(f"<th>{n}</th>" for n in ("Instrument", "Book", "Page", "Type", "Grantor", "Grantee", "Image"))
    table = f'<table id="results"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
    return page("Search results", table if body else NO_RESULTS)


def result_row(document: Document, place: tuple[int, int], image: str, *, swapped: bool = False) -> str:
    """One line of results. Cells are padded and escaped as unevenly as in the field."""
    parties = (document.grantee, document.grantor) if swapped else (document.grantor, document.grantee)
    texts = (document.instrument, *map(str, place), document.type_raw, *parties)
    cells = [_cell(text, (document.number + column) % 4) for column, text in enumerate(texts)]
    link = "SEALED"
    if document.oddity is not Oddity.SEALED:
        more = "&amp;view=full" if document.number % 3 == 0 else ""
        link = f'<a href="pdf-records.php?image={image}{more}">View</a>'
    return f"<tr>{''.join(cells)}<td>{link}</td></tr>"


def historical_record(document: Document | None, place: tuple[int, int] = (0, 0)) -> str:
    """The `historical` answer: a definition list, or the sentence that there is none."""
    if document is None:
        return page("Historical books", NO_RESULTS)
    link = f'<a href="historical-image.php?book={document.book}&amp;page={document.page}">View image</a>'
    items = {
        "Book": str(place[0]),
        "Page": str(place[1]),
        "Type": escape(document.type_raw),
        "Grantor": escape(document.grantor),
        "Grantee": escape(document.grantee),
        "Image": "SEALED" if document.oddity is Oddity.SEALED else link,
    }
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in items.items())
    return page("Historical books", f'<dl id="record">{body}</dl>')


def error_page(title: str, sentence: str) -> str:
    """What a broken portal shows, with whatever status."""
    return page(title, f"<p>{escape(sentence)}</p>")


def _cell(text: str, style: int) -> str:
    padded = (text, f" {text} ", f"\n      {text}\n    ", text)[style]
    return f"<td>{escape(padded)}{'&nbsp;' if style == 3 else ''}</td>"


def _link(document: Document) -> str:
    if document.source == "direct":
        return f'<a href="/files/{document.file_name}">{escape(document.file_name)}</a>'
    if document.source == "historical":
        return f'<a href="/historical.php?book={document.book}&amp;page={document.page}">book record</a>'
    return f'<a href="/search.php?do_search=1&amp;instrument={document.instrument}">{document.instrument}</a>'
