"""The generated scans are what they claim to be, to real readers: qpdf, Pillow, img2pdf and Ghostscript."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import warnings
from pathlib import Path

import img2pdf
import pikepdf
import pytest
from PIL import Image, ImageChops

from tasks.sample.binding import Condition
from tasks.sample.drawing import Stamp
from tasks.sample.scans import PDF_TYPE, TIFF_TYPE, Kind, make_scan

PDF_KINDS = [kind for kind in Kind if kind is not Kind.TIFF]


def opened(content: bytes, **options: object) -> pikepdf.Pdf:
    return pikepdf.open(io.BytesIO(content), **options)


def gs(*arguments: str, content: bytes) -> bytes:
    command = ["gs", "-q", "-dSAFER", "-dNOPAUSE", "-dBATCH", "-dPDFSTOPONERROR", *arguments, "-"]
    done = subprocess.run(command, input=content, capture_output=True, check=True, timeout=60)
    assert b"****" not in done.stderr
    return done.stdout


def rendered(content: bytes) -> Image.Image:
    """First page, 40 dpi, grey."""
    png = gs("-sDEVICE=pnggray", "-r40", "-sPageList=1", "-sOutputFile=-", content=content)
    return Image.open(io.BytesIO(png))


def image_filters(pdf: pikepdf.Pdf) -> list[set[str]]:
    """Per page: the filters of its images."""
    return [{_filter(image) for image in page.Resources.XObject.values()} for page in pdf.pages]


def _filter(image: pikepdf.Object) -> str:
    return str(image.Filter[0] if isinstance(image.Filter, pikepdf.Array) else image.Filter)


def fingerprints() -> list[str]:
    scans = [make_scan(n, kind=kind, pages=1) for n, kind in enumerate(Kind)]
    scans += [make_scan(0, kind=Kind.BILEVEL, pages=1, condition=condition) for condition in Condition]
    return [hashlib.sha256(scan.content).hexdigest() for scan in scans]


def test_same_number_gives_same_bytes_in_another_process() -> None:
    code = "from tests.unit.test_sample_scans import fingerprints; print(*fingerprints())"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True, text=True)
    assert done.stdout.split() == fingerprints()


def test_other_numbers_and_seeds_give_other_documents() -> None:
    contents = {make_scan(n, kind=Kind.BILEVEL, pages=1).content for n in range(20)}
    contents.add(make_scan(0, kind=Kind.BILEVEL, pages=1, seed=8).content)
    assert len(contents) == 21


@pytest.mark.parametrize("kind", PDF_KINDS)
def test_every_kind_is_a_sound_pdf(kind: Kind) -> None:
    scan = make_scan(5, kind=kind, pages=3)
    with opened(scan.content, attempt_recovery=False) as pdf:
        assert pdf.check_pdf_syntax() == []
        assert scan.media_type == PDF_TYPE
        assert len(pdf.pages) == scan.pages == (1 if kind is Kind.PLAT else 3)
        assert not pdf.is_encrypted


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        (Kind.BILEVEL, [{"/CCITTFaxDecode"}] * 3),
        (Kind.OCRED, [{"/CCITTFaxDecode"}] * 3),
        (Kind.GREY, [{"/DCTDecode", "/CCITTFaxDecode"}, {"/DCTDecode"}, {"/DCTDecode"}]),
        (Kind.PLAT, [{"/DCTDecode", "/CCITTFaxDecode"}]),
        (Kind.MIXED, [{"/CCITTFaxDecode"}, {"/DCTDecode"}, {"/DCTDecode"}]),
    ],
)
def test_pages_are_compressed_as_the_kind_says(kind: Kind, filters: list[set[str]]) -> None:
    with opened(make_scan(5, kind=kind, pages=3).content) as pdf:
        assert image_filters(pdf) == filters


def test_plat_is_colour_and_landscape() -> None:
    with opened(make_scan(3, kind=Kind.PLAT).content) as pdf:
        page = pdf.pages[0]
        assert page.Resources.XObject["/Im0"].ColorSpace == pikepdf.Name.DeviceRGB
        assert page.mediabox[2] > page.mediabox[3]


def test_only_the_ocred_kind_has_a_text_layer() -> None:
    for kind in (Kind.OCRED, Kind.BILEVEL):
        text = gs("-sDEVICE=txtwrite", "-o", "-", content=make_scan(4, kind=kind, pages=2).content).decode()
        assert ("COUNTY OF SAMPLE" in text) is (kind is Kind.OCRED)


@pytest.mark.parametrize("kind", PDF_KINDS)
def test_pages_are_dark_ink_on_light_paper(kind: Kind) -> None:
    histogram = rendered(make_scan(6, kind=kind, pages=2).content).histogram()
    dark = sum(histogram[:128]) / sum(histogram)
    assert 0.005 < dark < 0.25


@pytest.mark.parametrize("kind", [Kind.BILEVEL, Kind.GREY])
def test_the_stamp_is_all_that_tells_two_documents_apart(kind: Kind) -> None:
    pages = [
        rendered(make_scan(6, kind=kind, pages=1, stamp=Stamp(number, 471, 753, "1997-03-14")).content)
        for number in ("945431", "288886")
    ]
    box = ImageChops.difference(*pages).point(lambda value: 255 if value > 64 else 0).getbbox()
    assert box is not None
    width, height = pages[0].size
    assert box[0] > width * 0.5
    assert box[3] < height * 0.2


def test_ghostscript_gains_on_grey_and_not_on_bilevel() -> None:
    sizes = {}
    for kind in (Kind.GREY, Kind.PLAT, Kind.BILEVEL):
        content = make_scan(2, kind=kind, pages=1).content
        smaller = gs("-sDEVICE=pdfwrite", "-dPDFSETTINGS=/ebook", "-sOutputFile=-", content=content)
        sizes[kind] = len(smaller) / len(content)
    assert sizes[Kind.GREY] < 0.5
    assert sizes[Kind.PLAT] < 0.5
    assert sizes[Kind.BILEVEL] > 0.95


def test_tiff_is_multi_page_g4_that_img2pdf_takes_losslessly() -> None:
    scan = make_scan(8, kind=Kind.TIFF, pages=3)
    assert scan.media_type == TIFF_TYPE
    with Image.open(io.BytesIO(scan.content)) as image:
        assert (image.n_frames, image.info["compression"], image.mode) == (3, "group4", "1")
        darkness = []
        for number in range(3):
            image.seek(number)
            darkness.append(image.convert("L").resize((85, 110)).histogram()[0])
    assert all(count < 2000 for count in darkness)
    with opened(img2pdf.convert(scan.content)) as pdf:
        assert len(pdf.pages) == 3
        assert image_filters(pdf) == [{"/CCITTFaxDecode"}] * 3


def test_damage_is_refused_by_a_strict_reader_and_recovered_by_a_lenient_one() -> None:
    manners = set()
    for number in range(8):
        content = make_scan(number, kind=Kind.BILEVEL, pages=4, condition=Condition.DAMAGED).content
        manners.add(b"fax gateway" in content)
        with pytest.raises(pikepdf.PdfError):
            opened(content, attempt_recovery=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with opened(content) as pdf:
                assert len(pdf.pages) == 4
    assert manners == {True, False}


def test_encrypted_opens_and_locked_does_not() -> None:
    encrypted = make_scan(1, kind=Kind.GREY, pages=1, condition=Condition.ENCRYPTED)
    with opened(encrypted.content, attempt_recovery=False) as pdf:
        assert pdf.is_encrypted
        assert not pdf.allow.modify_other
    locked = make_scan(1, kind=Kind.GREY, pages=1, condition=Condition.LOCKED)
    with pytest.raises(pikepdf.PasswordError):
        opened(locked.content)
    with opened(locked.content, password="sample") as pdf:
        assert len(pdf.pages) == 1


@pytest.mark.parametrize(
    ("kind", "pages", "condition"),
    [
        (Kind.BILEVEL, 13, Condition.SOUND),
        (Kind.BILEVEL, -1, Condition.SOUND),
        (Kind.TIFF, 1, Condition.DAMAGED),
        (Kind.TIFF, 1, Condition.LOCKED),
    ],
)
def test_what_cannot_be_made_is_refused(kind: Kind, pages: int, condition: Condition) -> None:
    with pytest.raises(ValueError, match="There is no"):
        make_scan(1, kind=kind, pages=pages, condition=condition)


def test_sizes_are_those_of_real_scans() -> None:
    for kind in Kind:
        for number in range(3):
            scan = make_scan(number, kind=kind)
            assert 20_000 < len(scan.content) / scan.pages < 500_000
