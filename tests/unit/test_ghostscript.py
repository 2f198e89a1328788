"""The Ghostscript door: the plan, what gs really does, and a gs that lies, hangs, fails or is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pikepdf
import psutil
import pytest

from tasks import ghostscript
from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested, TransientError
from tasks.ghostscript import (
    Optimised,
    Plan,
    changed,
    find_ghostscript,
    optimise,
    plan,
    sweep_work,
    tool_versions,
)
from tasks.ghostscript_process import CORES, options
from tasks.pdf import PageFacts, PdfFacts, PdfWorkers, sha256_of
from tasks.records import Reason
from tests.fakes import pdfs

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data" / "pdfs"
REAL_GS = shutil.which("gs")
pytestmark = pytest.mark.skipif(REAL_GS is None, reason="Ghostscript is not installed")

GOOD, BAD = (10, 5, 1), (10, 0, 0)
SCAN = PdfFacts("pdf", 1000, "0" * 64, 1, (PageFacts(612, 792, 1),), {"jpeg": 1})
TEXT = replace(SCAN, layout=(PageFacts(612, 792, 1, text=True),))
G4 = replace(SCAN, layout=(PageFacts(612, 792, 1, 8_415_000),), image_filters={"ccitt": 1})


@pytest.fixture(scope="module")
def workers() -> Iterator[PdfWorkers]:
    with PdfWorkers(2) as pool:
        yield pool


@pytest.fixture
def gs_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A function that puts a gs of our own first on PATH: a shell script around the real one."""

    def put(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "gs"
        version = '[ "$1" = --version ] && exec REAL --version\n'
        program.write_text("#!/bin/sh\n" + (version + script).replace("REAL", str(REAL_GS)))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        find_ghostscript.cache_clear()

    yield put
    monkeypatch.undo()
    find_ghostscript.cache_clear()


@pytest.fixture
def made(tmp_path: Path, workers: PdfWorkers):
    """A function that optimises a document of these bytes; gs must leave nothing beside its result."""
    spool = tmp_path / "spool 100%d"
    spool.mkdir()

    def run(content: bytes, **given) -> Optimised:
        source = spool / "source *.pdf"
        source.write_bytes(content)
        facts = workers.inspect(source, declared_bytes=None, expected_pages=None)
        result = optimise(source, spool / "made.pdf", facts, workers=workers, **given)
        assert source.read_bytes() == content
        kept = {source.name, result.path.name}
        assert {path.name for path in spool.iterdir()} == kept
        assert (result.size_bytes, result.sha256) == (result.path.stat().st_size, sha256_of(result.path))
        return result

    return run


# --- the plan ---

PLANS = {
    "a grey scan": (SCAN, BAD, Plan("gs")),
    "all Group 4": (G4, GOOD, Plan("lossless", Reason.LOSSLESS_ONLY)),
    "Group 4 and JBIG2": (
        replace(G4, image_filters={"ccitt": 1, "jbig2": 3}),
        GOOD,
        Plan("lossless", Reason.LOSSLESS_ONLY),
    ),
    "Group 4 and JPEG": (replace(G4, image_filters={"ccitt": 9, "jpeg": 1}), GOOD, Plan("gs")),
    "no images": (replace(SCAN, image_filters={}), GOOD, Plan("gs")),
    "text, first bad gs": (TEXT, (10, 0, 0), Plan("lossless", Reason.TEXT_LAYER)),
    "text, last bad gs": (TEXT, (10, 2, 0), Plan("lossless", Reason.TEXT_LAYER)),
    "text, repaired gs": (TEXT, (10, 2, 1), Plan("gs")),
    "text, older gs": (TEXT, (9, 56, 1), Plan("gs")),
    "signed": (replace(SCAN, signed=True), GOOD, Plan("keep", Reason.SIGNED)),
    "encrypted": (replace(SCAN, encrypted=True), GOOD, Plan("keep", Reason.ENCRYPTED)),
    "damaged": (replace(SCAN, damaged=True), GOOD, Plan("keep", Reason.DAMAGED)),
    "signed, all Group 4": (replace(G4, signed=True), GOOD, Plan("keep", Reason.SIGNED)),
    "a form": (replace(SCAN, structure=("form",)), GOOD, Plan("lossless", Reason.LOSSLESS_ONLY)),
    "a tiff": (replace(SCAN, kind="tiff"), GOOD, Plan("keep", Reason.WRONG_TYPE)),
}


@pytest.mark.parametrize(("facts", "release", "expected"), PLANS.values(), ids=PLANS)
def test_plan(facts, release, expected):
    assert plan(facts, release) == expected


PAGE = PageFacts(612, 792, 2, 100, text=True)
CHANGES = {
    "nothing": ((PAGE,), (PAGE,), False),
    "half a point": ((PAGE,), (replace(PAGE, width_pt=612.5),), False),
    "another size": ((PAGE,), (replace(PAGE, height_pt=790),), True),
    "turned": ((PAGE,), (replace(PAGE, width_pt=792, height_pt=612),), True),
    "a page less": ((PAGE, PAGE), (PAGE,), True),
    "an image less": ((PAGE, PAGE), (PAGE, replace(PAGE, images=1)), True),
    "fewer black and white pixels": ((PAGE,), (replace(PAGE, bilevel_pixels=99),), True),
    "text is gone": ((PAGE,), (replace(PAGE, text=False),), True),
}


@pytest.mark.parametrize(("before", "after", "lost"), CHANGES.values(), ids=CHANGES)
def test_what_counts_as_changed(before, after, lost):
    old = replace(SCAN, pages=len(before), layout=before)
    new = replace(SCAN, pages=len(after), layout=after)
    assert bool(changed(old, new)) == lost


def test_a_result_that_does_not_read_well_is_changed():
    assert changed(SCAN, replace(SCAN, damaged=True))


# --- the real program ---


def test_a_grey_scan_shrinks_and_stays_the_document(made):
    source = pdfs.grey_scan(2)
    result = made(source)
    assert (result.method, result.reason, result.gs_version) == (
        "ghostscript",
        None,
        find_ghostscript().version,
    )
    assert result.size_bytes < 0.6 * len(source)
    with pikepdf.open(result.path) as pdf:
        assert [[float(x) for x in page.mediabox] for page in pdf.pages] == [[0, 0, 612, 792]] * 2
        (image,) = pdf.pages[0].get_images().values()
        assert (int(image.Width), int(image.Height), image.ColorSpace) == (1700, 2200, "/DeviceGray")


def test_black_and_white_pages_keep_every_pixel_beside_grey_ones(made):
    source = pdfs.mixed_scan()
    result = made(source, image_dpi=72)
    assert result.method == "ghostscript"
    with pikepdf.open(BytesIO(source)) as before, pikepdf.open(result.path) as after:
        (old,), (new,) = (pdf.pages[0].get_images().values() for pdf in (before, after))
        assert new.Filter == "/CCITTFaxDecode"
        pixels = [pikepdf.PdfImage(image).as_pil_image().tobytes() for image in (old, new)]
        assert pixels[0] == pixels[1]


def test_group_4_never_meets_gs(made, gs_on_path):
    gs_on_path("exit 99\n")
    result = made(pdfs.edited(pdfs.g4_scan(2), lambda _: None))
    assert (result.method, result.reason) == ("lossless", Reason.LOSSLESS_ONLY)


KEPT = {
    "signed": (pdfs.signed, Reason.SIGNED),
    "restricted": (pdfs.encrypted, Reason.ENCRYPTED),
    "damaged": (pdfs.with_bad_xref, Reason.DAMAGED),
}


@pytest.mark.parametrize(("edit", "reason"), KEPT.values(), ids=KEPT)
def test_what_must_not_be_touched_is_kept(made, edit, reason):
    result = made(edit(pdfs.edited(pdfs.grey_scan(dpi=100), lambda _: None)))
    assert (result.method, result.reason, result.path.name) == ("none", reason, "source *.pdf")


def test_what_gs_cannot_shrink_is_rewritten_or_kept(made):
    result = made(pdfs.grey_scan(dpi=100, quality=30))
    assert (result.method, result.reason) == ("lossless", Reason.NOT_SMALLER)
    again = made(result.path.read_bytes())
    assert (again.method, again.reason) == ("none", Reason.NOT_SMALLER)


def test_colour_keeps_its_colour_space_and_turned_pages_their_look(made):
    def turn(pdf: pikepdf.Pdf) -> None:
        pdf.pages[0].obj.Rotate = 90

    result = made(pdfs.edited(pdfs.colour_plat(dpi=300), turn))
    assert result.method == "ghostscript"
    with pikepdf.open(result.path) as pdf:
        (image,) = pdf.pages[0].get_images().values()
        assert image.ColorSpace == "/DeviceRGB"


def test_environment_options_do_not_reach_gs(made, monkeypatch):
    monkeypatch.setenv("GS_OPTIONS", "-dLastPage=1")
    assert made(pdfs.grey_scan(2)).method == "ghostscript"


def test_options_are_those_that_matter():
    given = options(200)
    for option in (
        "-dSAFER",
        "-dPDFSTOPONERROR",
        "-dAutoRotatePages=/None",
        "-dDetectDuplicateImages=false",
        "-dDownsampleMonoImages=false",
        "-dGrayImageResolution=200",
    ):
        assert option in given


# --- a gs that is not to be trusted ---

LIES = {
    "drops the images and exits 0": ('exec REAL -dFILTERIMAGE "$@"\n', Reason.GS_CHANGED),
    "drops a page and exits 0": ('exec REAL -dLastPage=1 "$@"\n', Reason.GS_CHANGED),
    "another page size": ('exec REAL -dFIXEDMEDIA -sPAPERSIZE=a3 "$@"\n', Reason.GS_CHANGED),
    "nothing made, exits 0": ("exit 0\n", Reason.GS_FAILED),
    "half a file, exits 0": ('REAL "$@"; truncate -s 20000 out.pdf\n', Reason.GS_CHANGED),
    "complains, exits 0": ('echo "   **** Error: reading a stream"; exec REAL "$@"\n', Reason.GS_FAILED),
    "the newer way to complain": (
        'REAL "$@"; echo "The following errors were encountered at least once"\n',
        Reason.GS_FAILED,
    ),
    "takes another font": ('echo "Substituting font Courier for Deed."; exec REAL "$@"\n', Reason.GS_FAILED),
    "fails": ("exit 1\n", Reason.GS_FAILED),
    "crashes": ("kill -SEGV $$\n", Reason.GS_FAILED),
    "prints without end": ("while :; do echo still here, still here, still here; done\n", Reason.GS_TIMEOUT),
}


@pytest.mark.parametrize(("script", "reason"), LIES.values(), ids=LIES)
def test_no_exit_code_is_trusted_and_the_document_survives(made, gs_on_path, script, reason):
    gs_on_path(script)
    source = pdfs.edited(pdfs.grey_scan(2), lambda _: None)
    timeout_s = 1 if reason == Reason.GS_TIMEOUT else 60
    result = made(source, timeout_s=timeout_s)
    assert (result.method, result.reason) == ("lossless", reason)
    with pikepdf.open(result.path) as pdf:
        assert len(pdf.pages) == 2


def test_a_gs_that_hangs_is_killed_with_its_children(made, gs_on_path, tmp_path):
    gs_on_path(f"sleep 300 & echo $! > {tmp_path}/child; wait\n")
    result = made(pdfs.grey_scan(dpi=150), timeout_s=0.5)
    assert result.reason == Reason.GS_TIMEOUT
    _gone(int((tmp_path / "child").read_text()))


def test_a_missing_gs_is_told_with_its_remedy(gs_on_path, monkeypatch, tmp_path, workers):
    monkeypatch.setenv("PATH", str(tmp_path))
    find_ghostscript.cache_clear()
    with pytest.raises(ConfigurationError, match=r"install.* ghostscript"):
        optimise(tmp_path / "a.pdf", tmp_path / "b.pdf", SCAN, workers=workers)


@pytest.mark.parametrize(("answer", "told"), [("9.27", "older than 9.50"), ("", "does not run")])
def test_an_unusable_gs_is_told(gs_on_path, answer, told):
    gs_on_path("")
    program = Path(shutil.which("gs") or "")
    program.write_text(f"#!/bin/sh\necho {answer}\n")
    with pytest.raises(ConfigurationError, match=told):
        find_ghostscript()


def test_versions_are_known_for_provenance(workers):
    versions = tool_versions(workers)
    assert set(versions) == {"ghostscript", "pikepdf", "qpdf", "img2pdf"}
    assert all(versions.values())


# --- stopping, dying, sharing ---


def test_stop_ends_gs_at_once(gs_on_path, tmp_path, workers):
    gs_on_path(f"echo $$ > {tmp_path}/pid; exec sleep 300\n")
    source, stop = tmp_path / "a.pdf", threading.Event()
    source.write_bytes(pdfs.grey_scan(dpi=150))
    facts = workers.inspect(source, declared_bytes=None, expected_pages=None)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(optimise, source, tmp_path / "b.pdf", facts, workers=workers, stop=stop)
        pid = _written(tmp_path / "pid")
        stop.set()
        with pytest.raises(StopRequested):
            call.result(timeout=2)
    _gone(pid)
    assert not list(tmp_path.glob(".*"))


def test_gs_dies_with_a_killed_parent_and_its_folder_is_swept(gs_on_path, tmp_path):
    gs_on_path(f"echo $$ > {tmp_path}/pid; exec sleep 300\n")
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "a.pdf").write_bytes(pdfs.grey_scan(dpi=150))
    script = (
        "from pathlib import Path\n"
        "from tasks.pdf import PdfWorkers\n"
        "from tasks.ghostscript import optimise\n"
        "source, workers = Path('a.pdf'), PdfWorkers(1)\n"
        "facts = workers.inspect(source, declared_bytes=None, expected_pages=None)\n"
        "optimise(source, Path('b.pdf'), facts, workers=workers)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=spool, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    try:
        pid = _written(tmp_path / "pid")
        assert sweep_work(spool) == 0  # its owner lives
    finally:
        parent.kill()
        parent.wait()
    _gone(pid)
    assert sweep_work(spool) == 1
    assert [path.name for path in spool.iterdir()] == ["a.pdf"]


def test_no_more_gs_at_once_than_cores(gs_on_path, tmp_path, workers):
    log = tmp_path / "log"
    gs_on_path(f"echo start >> {log}; sleep 0.2; echo end >> {log}; exit 1\n")
    source = tmp_path / "a.pdf"
    source.write_bytes(pdfs.grey_scan(dpi=100))
    facts = workers.inspect(source, declared_bytes=None, expected_pages=None)
    with ThreadPoolExecutor(3 * CORES) as threads:
        for number in range(3 * CORES):
            threads.submit(optimise, source, tmp_path / f"{number}.pdf", facts, workers=workers)
    running, most = 0, 0
    for word in log.read_text().split():
        running += 1 if word == "start" else -1
        most = max(most, running)
    assert log.read_text().count("start") == 3 * CORES
    assert 1 <= most <= CORES


def test_a_full_disk_is_the_outsides_fault(tmp_path, workers):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "x", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        for content in (pdfs.grey_scan(4), pdfs.with_stamp(pdfs.grey_scan(1))):
            source = tmp_path / "a.pdf"
            source.write_bytes(content)
            facts = workers.inspect(source, declared_bytes=None, expected_pages=None)
            with pytest.raises(OutsideUnreachable, match="full"):
                optimise(source, small / "b.pdf", facts, workers=workers)
            assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_source_that_changed_is_fetched_again(tmp_path, workers):
    for content in (None, b"shorter"):
        source = tmp_path / "a.pdf"
        if content:
            source.write_bytes(content)
        with pytest.raises(TransientError) as refused:
            optimise(source, tmp_path / "b.pdf", SCAN, workers=workers)
        assert refused.value.reason == Reason.SPOOL_LOST


def test_what_an_earlier_attempt_left_is_not_taken_for_a_result(tmp_path, workers):
    source, destination = tmp_path / "a.pdf", tmp_path / "b.pdf"
    source.write_bytes(pdfs.signed(pdfs.grey_scan(dpi=100)))
    destination.write_bytes(b"stale")
    facts = workers.inspect(source, declared_bytes=None, expected_pages=None)
    assert optimise(source, destination, facts, workers=workers).path == source
    assert not destination.exists()


# --- real documents ---

NOT_BY_GS = {"text_layer", "lossless_only", "not_smaller", "damaged"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data is not here")
def test_real_documents_come_out_whole(tmp_path, workers):
    bilevel = {"scan_cardinal", "scan_ccitt", "scan_epson", "scan_jbig2", "scan_linn", "scan_skew"}
    for source in sorted(REAL.glob("*.pdf")):
        if source.stem == "scan_invalid":
            continue
        before = workers.inspect(source, declared_bytes=None, expected_pages=None)
        result = optimise(source, tmp_path / source.name, before, workers=workers)
        after = workers.inspect(result.path, declared_bytes=result.size_bytes, expected_pages=before.pages)
        assert result.size_bytes <= before.size_bytes
        assert (result.reason is None) == (result.method == "ghostscript")
        assert result.reason is None or result.reason in NOT_BY_GS
        if result.method != "none":
            assert ghostscript.changed(before, after) is None
        if source.stem in bilevel:
            assert (result.method, result.reason) == ("lossless", Reason.LOSSLESS_ONLY)
            assert after.image_filters == before.image_filters


def _written(path: Path) -> int:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, "gs was not started"
        time.sleep(0.02)
    return int(path.read_text())


def _gone(pid: int) -> None:
    """Dead, or a zombie that only awaits its reaper; init takes its time in a container."""
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)
