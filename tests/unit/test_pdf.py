"""The PDF door: the ladder rung by rung, and worker processes that hang, crash, starve and outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pikepdf
import psutil
import pytest
from PIL import Image, ImageChops

from tasks.errors import ItemError, StopRequested, TerminalError, TransientError
from tasks.pdf import PdfFacts, PdfWorkers, sha256_of
from tasks.pdf_ladder import inspect, lossless_rewrite
from tasks.records import Reason
from tasks.tiff import tiff_to_pdf
from tests.fakes import pdfs

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data" / "pdfs"
GREY = pdfs.grey_scan(2, dpi=100)
PLAIN = pdfs.edited(GREY, lambda _: None)  # with a classic cross-reference table


@pytest.fixture
def put(tmp_path: Path):
    """A function that makes a file of these bytes."""

    def write(content: bytes, name: str = "document.pdf") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def workers() -> Iterator[PdfWorkers]:
    with PdfWorkers(2) as pool:
        yield pool


def look(path: Path, *, declared: int | None = None, pages: int | None = None, keep: bool = False) -> PdfFacts:
    return inspect(path, declared_bytes=declared, expected_pages=pages, keep_page_mismatch=keep)


# --- the ladder ---

REFUSED = {
    "nothing": (b"", TransientError, Reason.EMPTY),
    "html page": (b"\n<!DOCTYPE html><html>Session expired</html>", TransientError, Reason.HTML_ERROR_PAGE),
    "html behind bom and comment": (
        b"\xef\xbb\xbf<!-- x -->\n<HTML>",
        TransientError,
        Reason.HTML_ERROR_PAGE,
    ),
    "xhtml": (b'<?xml version="1.0"?><html>', TransientError, Reason.HTML_ERROR_PAGE),
    "json": (b'{"error": "busy"}', TransientError, Reason.WRONG_TYPE),
    "text with accents": ("Dokument nicht verfügbar".encode(), TransientError, Reason.WRONG_TYPE),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", TerminalError, Reason.WRONG_TYPE),
    "cut in the middle, all pages recoverable": (pdfs.cut(PLAIN, 0.6), TransientError, Reason.TRUNCATED),
    "cut just before its end": (PLAIN[:-20], TransientError, Reason.TRUNCATED),
    "cut, object streams": (pdfs.cut(GREY, 0.6), TransientError, Reason.TRUNCATED),
    "cut after the early EOF of linearization": (
        pdfs.cut(pdfs.linearized(GREY), 0.6),
        TransientError,
        Reason.TRUNCATED,
    ),
    "update cut off: the revision before it opens": (
        pdfs.updated(PLAIN)[:-60],
        TransientError,
        Reason.TRUNCATED,
    ),
    "only a head": (b"%PDF-1.4\n", TransientError, Reason.TRUNCATED),
    "head and EOF, nothing between": (b"%PDF-1.3\nThis is not\n%%EOF\n", TerminalError, Reason.DAMAGED),
    "a page object is gone": (pdfs.without_object(PLAIN, b"/MediaBox"), TerminalError, Reason.DAMAGED),
    "no pages": (
        pdfs.edited(PLAIN, lambda pdf: pdf.pages.__delitem__(slice(0, 2))),
        TerminalError,
        Reason.DAMAGED,
    ),
    "tiff cut": (pdfs.cut(pdfs.g4_tiff(2), 0.7), TransientError, Reason.TRUNCATED),
    "tiff cut, directory first": (pdfs.cut(pdfs.plain_tiff(), 0.7), TransientError, Reason.TRUNCATED),
    "tiff without directories": (pdfs.g4_tiff()[:6], TransientError, Reason.TRUNCATED),
    "tiff of garbage": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", TerminalError, Reason.DAMAGED),
}


@pytest.mark.parametrize(("content", "kind", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_a_whole_document_is_refused(put, content, kind, reason):
    with pytest.raises(ItemError) as refused:
        look(put(content))
    assert (type(refused.value), refused.value.reason) == (kind, reason)
    assert "document.pdf" in str(refused.value)


def test_recovery_alone_would_take_the_cut_file():
    """Guards the reason for the rule: qpdf finds all pages of a file that lost its images."""
    with pikepdf.open(BytesIO(pdfs.cut(PLAIN, 0.6))) as repaired:
        assert len(repaired.pages) == 2


@pytest.mark.parametrize("difference", [-1, 1, 5000])
def test_bytes_must_be_those_announced(put, difference):
    with pytest.raises(TransientError) as refused:
        look(put(GREY), declared=len(GREY) + difference)
    assert refused.value.reason == Reason.TRUNCATED


def test_a_sound_scan(put):
    path = put(GREY)
    facts = look(path, declared=len(GREY), pages=2)
    assert (facts.kind, facts.pages, facts.note, facts.warnings) == ("pdf", 2, None, ())
    assert (facts.size_bytes, facts.sha256) == (len(GREY), sha256_of(path))
    assert facts.image_filters == {"jpeg": 2}
    assert [(page.width_pt, page.height_pt, page.images) for page in facts.layout] == [(612, 792, 1)] * 2
    assert not facts.all_bilevel
    assert not facts.has_text


def test_a_missing_file_is_fetched_again(tmp_path):
    with pytest.raises(TransientError) as refused:
        look(tmp_path / "gone.pdf")
    assert refused.value.reason == Reason.SPOOL_LOST


ACCEPTED = {
    "junk before it": (b"<br>Notice: deprecated\n" + PLAIN, None),
    "a footer behind it": (PLAIN + b"<!-- served by x -->" * 100, Reason.DAMAGED),
    "padding behind it": (PLAIN + bytes(4096), Reason.DAMAGED),
    "without its last line": (PLAIN[:-6], None),
    "linearized": (pdfs.linearized(GREY), None),
    "updated": (pdfs.updated(PLAIN), None),
    "startxref points nowhere": (pdfs.with_bad_xref(PLAIN), Reason.DAMAGED),
    "an image object is gone": (pdfs.without_object(PLAIN, b"/DCTDecode"), Reason.DAMAGED),
    "a hole in an image": (pdfs.with_hole(PLAIN, b"\xff\xda"), Reason.DAMAGED),
    "owner restrictions": (pdfs.encrypted(GREY), Reason.ENCRYPTED),
}


@pytest.mark.parametrize(("content", "note"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_whole_is_taken_with_its_note(put, content, note):
    facts = look(put(content), declared=len(content), pages=2)
    assert (facts.note, facts.pages) == (note, 2)
    assert bool(facts.warnings) == (note == Reason.DAMAGED)


def test_a_password_hides_the_pages(put):
    facts = look(put(pdfs.encrypted(GREY, user="secret")), pages=99)
    assert (facts.note, facts.pages, facts.layout) == (Reason.ENCRYPTED, None, ())


def test_another_page_count_than_the_index(put):
    path = put(GREY)
    with pytest.raises(TerminalError) as refused:
        look(path, pages=3)
    assert refused.value.reason == Reason.PAGE_MISMATCH
    kept = look(path, pages=3, keep=True)
    assert (kept.note, kept.page_mismatch, kept.pages) == (Reason.PAGE_MISMATCH, True, 2)


def test_what_a_document_carries(put):
    def found(content: bytes) -> tuple[bool, bool, tuple[str, ...]]:
        facts = look(put(content))
        return facts.signed, facts.has_text, facts.structure

    assert found(pdfs.signed(GREY)) == (True, False, ("form",))
    assert found(pdfs.with_text_layer(GREY)) == (False, True, ())
    assert found(pdfs.with_form(GREY)) == (False, False, ("form",))
    assert found(pdfs.with_layers(GREY)) == (False, False, ("layers",))
    assert found(pdfs.with_stamp(GREY)) == (False, False, ("annotations",))


def test_bilevel_means_every_image(put):
    assert look(put(pdfs.g4_scan(2))).all_bilevel
    mixed = look(put(pdfs.mixed_scan()))
    assert mixed.image_filters == {"ccitt": 1, "jpeg": 1}
    assert not mixed.all_bilevel
    assert not look(put(pdfs.drawing(b"0 0 m 9 9 l S"))).all_bilevel


SIZES = {
    "turned": ({"Rotate": 90}, (792, 612)),
    "cropped": ({"CropBox": pikepdf.Array([50, 60, 300, 700])}, (250, 640)),
    "cropped beyond the sheet": ({"CropBox": pikepdf.Array([-50, -60, 300, 700])}, (300, 700)),
    "user unit": ({"UserUnit": 2}, (1224, 1584)),
    "corners swapped": ({"MediaBox": pikepdf.Array([612, 792, 0, 0])}, (612, 792)),
}


@pytest.mark.parametrize(("entries", "size"), SIZES.values(), ids=SIZES)
def test_page_sizes_are_those_displayed(put, entries, size):
    (page,) = look(put(pdfs.drawing(b"0 0 m 9 9 l S", **entries))).layout
    assert (page.width_pt, page.height_pt) == size


def test_only_images_drawn_count_and_forms_are_entered(put):
    def draw_in_form(pdf: pikepdf.Pdf) -> None:
        grey = pikepdf.Name.DeviceGray
        image = pdf.make_stream(bytes(8), Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Image)
        image.Width, image.Height, image.BitsPerComponent, image.ColorSpace = 8, 8, 1, grey
        form = pdf.make_stream(b"/Im Do /Fm Do", Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Form)
        form.BBox = pikepdf.Array([0, 0, 9, 9])
        form.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im=image, Fm=form))  # draws itself
        xobjects = pikepdf.Dictionary(Fm=form, Im=image, Unused=image)
        pdf.pages[0].obj.Resources = pikepdf.Dictionary(XObject=xobjects)

    inline = b"q BI /W 4 /H 2 /BPC 1 /CS /G ID ab EI Q "
    (page,) = look(put(pdfs.drawing(inline + b"/Fm Do /Im Do", draw_in_form))).layout
    assert (page.images, page.bilevel_pixels, page.text) == (3, 8 + 64 + 64, False)


def test_warnings_are_bounded(put):
    noise = b"".join(b"/Im%d Do " % number for number in range(50))
    pages = pdfs.edited(pdfs.drawing(noise), lambda pdf: [pdf.pages.append(pdf.pages[0]) for _ in range(50)])
    facts = look(put(pages))
    assert len(facts.warnings) == 20
    assert all(len(text) <= 200 for text in facts.warnings)


# --- TIFF and rewriting ---


def test_a_group_4_tiff_becomes_a_pdf_with_the_same_data(put, tmp_path):
    source = put(pdfs.g4_tiff(3), "document.tif")
    made = tmp_path / "made.pdf"
    assert (look(source, pages=3).kind, look(source).pages) == ("tiff", 3)
    tiff_to_pdf(source, made)
    facts = look(made, pages=3)
    assert (facts.image_filters, facts.note) == ({"ccitt": 3}, None)
    assert (facts.layout[0].width_pt, facts.layout[0].height_pt) == (612, 792)
    with Image.open(source) as tiff, pikepdf.open(made) as pdf:
        for number, page in enumerate(pdf.pages):
            tiff.seek(number)
            (image,) = page.get_images().values()
            shown = pikepdf.PdfImage(image).as_pil_image().convert("1")
            assert ImageChops.logical_xor(shown, tiff.convert("1")).getbbox() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["document.tif", "made.pdf"]


def test_a_tiff_without_resolution_gets_sensible_pages(put, tmp_path):
    tiff_to_pdf(put(pdfs.plain_tiff(), "document.tif"), tmp_path / "made.pdf")
    (page,) = look(tmp_path / "made.pdf").layout
    assert (page.width_pt, page.height_pt) == pytest.approx((850 / 300 * 72, 1100 / 300 * 72), abs=0.1)


def test_rewriting_keeps_every_image_bit_for_bit(put, tmp_path):
    source, made = put(PLAIN), tmp_path / "made.pdf"
    lossless_rewrite(source, made)
    assert made.stat().st_size < source.stat().st_size
    with pikepdf.open(source) as before, pikepdf.open(made) as after:
        for old, new in zip(before.pages, after.pages, strict=True):
            (old_image,), (new_image,) = old.get_images().values(), new.get_images().values()
            assert old_image.read_raw_bytes() == new_image.read_raw_bytes()
            assert old.Contents.read_bytes() == new.Contents.read_bytes()


def test_rewriting_what_cannot_be_read_leaves_nothing(put, tmp_path):
    with pytest.raises(TerminalError) as refused:
        lossless_rewrite(put(pdfs.cut(PLAIN, 0.5)), tmp_path / "made.pdf")
    assert refused.value.reason == Reason.DAMAGED
    assert [path.name for path in tmp_path.iterdir()] == ["document.pdf"]


# --- worker processes ---


def test_facts_and_refusals_cross_the_border_unchanged(put, workers):
    path = put(pdfs.updated(pdfs.with_text_layer(GREY)))
    assert workers.inspect(path, declared_bytes=None, expected_pages=2) == look(path, pages=2)
    with pytest.raises(TerminalError) as refused:
        workers.inspect(path, declared_bytes=None, expected_pages=7)
    assert refused.value.reason is Reason.PAGE_MISMATCH


def test_a_large_colour_plat_is_not_damaged_by_our_limits(put, workers):
    path = put(pdfs.colour_plat(dpi=300))
    facts = workers.inspect(path, declared_bytes=None, expected_pages=1)
    assert (facts.note, facts.warnings) == (None, ())


def test_a_document_that_takes_too_long_takes_nothing_else_with_it(put, workers):
    slow, sound = put(pdfs.slow(), "slow.pdf"), put(GREY)
    with pytest.raises(TerminalError) as refused:
        workers.inspect(slow, declared_bytes=None, expected_pages=None, timeout_s=0.5)
    assert refused.value.reason == Reason.TIMEOUT
    assert workers.inspect(sound, declared_bytes=None, expected_pages=2).pages == 2
    assert len(_children()) == 1  # the slow one is gone


@pytest.mark.parametrize(
    ("sent", "kind", "reason"),
    [
        (signal.SIGSEGV, TerminalError, Reason.DAMAGED),
        (signal.SIGABRT, TerminalError, Reason.DAMAGED),
        (signal.SIGKILL, TransientError, Reason.INTERNAL),
    ],
)
def test_a_crash_costs_one_document(put, workers, sent, kind, reason):
    slow, sound = put(pdfs.slow(), "slow.pdf"), put(GREY)
    with ThreadPoolExecutor() as threads:
        doomed = threads.submit(workers.inspect, slow, declared_bytes=None, expected_pages=None)
        _busy_child().send_signal(sent)
        with pytest.raises(kind) as refused:
            doomed.result()
    assert refused.value.reason == reason
    assert workers.inspect(sound, declared_bytes=None, expected_pages=2).pages == 2


def test_a_worker_that_died_idle_is_nobodys_fault(put, workers):
    path = put(GREY)
    workers.inspect(path, declared_bytes=None, expected_pages=None)
    (idle,) = _children()
    idle.kill()
    _gone(idle)
    assert workers.inspect(path, declared_bytes=None, expected_pages=2).pages == 2


def test_memory_is_bounded(put, tmp_path):
    huge = BytesIO()
    Image.new("L", (16_000, 16_000)).save(huge, "TIFF", compression="tiff_deflate", dpi=(300, 300))
    with PdfWorkers(1, memory_bytes=300 << 20) as workers:
        with pytest.raises(TerminalError) as refused:
            workers.tiff_to_pdf(put(huge.getvalue(), "huge.tif"), tmp_path / "made.pdf")
        assert refused.value.reason == Reason.TOO_LARGE
        assert workers.inspect(put(GREY), declared_bytes=None, expected_pages=2).pages == 2


def test_a_worker_outlives_the_thread_that_started_it(put, workers):
    path = put(GREY)
    for _ in range(2):
        started = time.time()
        with ThreadPoolExecutor(1) as threads:  # its thread ends here
            threads.submit(workers.inspect, path, declared_bytes=None, expected_pages=None).result()
    (worker,) = _children()
    assert worker.create_time() < started


def test_no_more_processes_than_asked_for(put, workers):
    path = put(GREY)
    with ThreadPoolExecutor(8) as threads:
        looks = [threads.submit(workers.inspect, path, declared_bytes=None, expected_pages=2) for _ in range(40)]
        assert {look.result().pages for look in looks} == {2}
    assert 1 <= len(_children()) <= 2


def test_stop_ends_a_call_and_its_worker(put, workers):
    stop, slow = threading.Event(), put(pdfs.slow())
    with ThreadPoolExecutor() as threads:
        call = threads.submit(workers.inspect, slow, declared_bytes=None, expected_pages=None, stop=stop)
        _busy_child()
        stop.set()
        with pytest.raises(StopRequested):
            call.result(timeout=2)
    assert _children() == []


def test_close_ends_calls_under_way_and_later_ones(put):
    pool, slow = PdfWorkers(1), put(pdfs.slow())
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(pool.inspect, slow, declared_bytes=None, expected_pages=None) for _ in range(3)]
        _busy_child()
        pool.close()
        for call in calls:
            with pytest.raises(StopRequested):
                call.result(timeout=2)
    with pytest.raises(StopRequested):
        pool.versions()
    assert _children() == []


def test_workers_see_no_secrets(workers, monkeypatch):
    monkeypatch.setenv("LANDRECORDS_DATABASE_URL", "postgresql://u:hidden@h/d")
    assert set(workers.versions()) == {"pikepdf", "qpdf", "img2pdf"}
    (worker,) = _children()
    assert "LANDRECORDS_DATABASE_URL" not in worker.environ()


SCRIPT = """
import sys
from pathlib import Path
from tasks.pdf import PdfWorkers
workers = PdfWorkers(1)
print("pages", workers.inspect(Path(sys.argv[1]), declared_bytes=None, expected_pages=None).pages, flush=True)
"""


@pytest.mark.parametrize("how", ["script", "-c"])
def test_a_script_without_main_guard_is_not_run_again(put, tmp_path, how):
    script = tmp_path / "flow.py"
    script.write_text(SCRIPT)
    start = [str(script)] if how == "script" else ["-c", SCRIPT]
    ended = subprocess.run(
        [sys.executable, *start, str(put(GREY))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "pages 2\n"), ended.stderr


def test_workers_die_with_a_killed_parent_even_in_the_middle_of_work(put):
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(put(pdfs.slow()))],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        worker = _busy_child(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    _gone(worker)


def _children(parent: int | None = None) -> list[psutil.Process]:
    """The worker processes of this one, or of another; other children may be dead and not reaped yet."""
    return [child for child in psutil.Process(parent).children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "tasks.pdf_worker" in process.cmdline()
    except psutil.Error:
        return False


def _busy_child(parent: int | None = None) -> psutil.Process:
    """The worker once it is deep in a document: half a second of processor time past its start."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in _children(parent):
            if child.cpu_times().user > 0.6:
                return child
        time.sleep(0.02)
    pytest.fail("no worker got busy")


def _gone(process: psutil.Process) -> None:
    """Dead, or a zombie that only awaits its reaper; init takes its time in a container."""
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the process outlived its parent"
        time.sleep(0.02)


# --- real documents ---


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data is not here")
def test_real_documents(workers):
    found = {}
    for path in sorted(REAL.glob("*.pdf")):
        try:
            size = path.stat().st_size
            found[path.name] = workers.inspect(path, declared_bytes=size, expected_pages=None).note
        except ItemError as exc:
            found[path.name] = f"refused: {exc.reason}"
    odd = {name: note for name, note in found.items() if note}
    assert len(found) == 22
    assert odd == {"scan_invalid.pdf": "refused: damaged", "web_issue3885.pdf": Reason.DAMAGED}
