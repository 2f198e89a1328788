"""What every store does alike, and the addresses and names the door accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import ConfigurationError, TerminalError, TransientError
from tasks.records import Reason
from tasks.store import document_key, open_store
from tasks.store_objects import StoredObject, Verdict, check_key, judge
from tasks.store_upload import ONE_REQUEST_BYTES

ABOUT = {"book": "1234", "source_url": "http://portal/é?image=1", "source-sha256": "a" * 64}


@pytest.mark.parametrize("size", [0, 1, 100_000, ONE_REQUEST_BYTES, ONE_REQUEST_BYTES + 1, 20_000_000])
def test_an_object_comes_back_as_it_went(any_store, make_file, size):
    path, sha256 = make_file(size)
    stored = any_store.put("documents/x y/é.pdf", path, metadata=ABOUT, sha256=sha256)
    assert (stored.created, stored.size_bytes, stored.sha256) == (True, size, sha256)
    assert stored.metadata == {**ABOUT, "sha256": sha256, "stored_size": str(size)}
    found = any_store.stat("documents/x y/é.pdf")
    assert found is not None
    assert (found.url, found.metadata, found.size_bytes) == (stored.url, stored.metadata, size)
    with any_store.open("documents/x y/é.pdf") as file:
        assert file.read() == path.read_bytes()


def test_what_is_not_there(any_store):
    assert any_store.stat("documents/none.pdf") is None
    with pytest.raises(TerminalError) as caught:
        any_store.open("documents/none.pdf")
    assert caught.value.reason == Reason.NOT_FOUND


def test_listing_goes_by_prefix_in_the_order_of_keys(any_store, make_file):
    path, sha256 = make_file(10)
    keys = ["a/b.pdf", "a-b/c.pdf", "a/b/c.pdf", "ab.pdf", "b.pdf"]
    for key in keys:
        any_store.put(key, path, metadata={}, sha256=sha256)
    assert [o.key for o in any_store.list()] == sorted(keys)
    assert [o.key for o in any_store.list("a/b")] == ["a/b.pdf", "a/b/c.pdf"]
    assert [o.sha256 for o in any_store.list("b")] == [sha256]
    assert list(any_store.list("none/")) == []


def test_a_report_is_replaced_each_time(any_store, make_file):
    for text in (b"{}", b'{"documents": 200}'):
        path, _ = make_file(text)
        assert any_store.put_replacing("manifests/run.json", path).created
        with any_store.open("manifests/run.json") as file:
            assert file.read() == text


def test_a_file_that_is_not_what_its_row_says_is_not_stored(any_store, make_file):
    path, _ = make_file(10)
    with pytest.raises(TransientError) as caught:
        any_store.put("a.pdf", path, metadata={}, sha256="0" * 64)
    assert caught.value.reason == Reason.SPOOL_LOST
    assert any_store.stat("a.pdf") is None


def test_a_lost_spool_file_is_named(any_store, tmp_path):
    with pytest.raises(TransientError, match=r"gone\.pdf cannot be read") as caught:
        any_store.put("a.pdf", tmp_path / "gone.pdf", metadata={}, sha256="0" * 64)
    assert caught.value.reason == Reason.SPOOL_LOST


def test_check_passes_where_things_can_be_stored(any_store):
    any_store.check()


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "./a",
        ".metadata/a",
        "a/.tmp",
        "a\nb",
        "a\x00",
        "a\\b",
        "a\u2028b",
        "é" * 126,
        "a/" * 520 + "a",
        "\ud800",
    ],
)
def test_unsafe_keys_are_refused(any_store, make_file, key):
    path, sha256 = make_file(1)
    with pytest.raises(TerminalError) as caught:
        any_store.put(key, path, metadata={}, sha256=sha256)
    assert caught.value.reason == Reason.BAD_ROW


@pytest.mark.parametrize("key", ["a", "a b/é.pdf", "a..b/c.pdf", "x" * 250, '"quoted"/#%?&.pdf'])
def test_odd_but_safe_keys_are_kept(any_store, make_file, key):
    path, sha256 = make_file(1)
    any_store.put(key, path, metadata={}, sha256=sha256)
    assert [o.key for o in any_store.list()] == [check_key(key)]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store",
        "/store",
        "s3://b/x",
        "file://host/store",
        "file:store",
        "gs://",
        "gs:///x",
        "gs://Bad_Name/x",
        "gs://bucket/a//b",
        "gs://bucket/../b",
        "gs://bucket/x?y=1",
        "file:///x#y",
        "gs://[::1/x",
        "gs://b:443/x",
    ],
)
def test_addresses_that_are_no_store(url):
    with pytest.raises(ConfigurationError, match=r"use file:///absolute/folder or gs://bucket/prefix"):
        open_store(url)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(ConfigurationError) as caught:
        open_store("gs://user:s3cret@bucket/x")
    assert "s3cret" not in str(caught.value)


def test_a_folder_address_is_decoded_and_made(tmp_path: Path, make_file):
    folder = tmp_path / "the store" / "é#1"
    path, sha256 = make_file(1)
    with open_store(folder.as_uri()) as store:
        url = store.put("a.pdf", path, metadata={}, sha256=sha256).url
    assert (folder / "a.pdf").exists()
    assert url == (folder / "a.pdf").as_uri()


@pytest.mark.parametrize(
    ("stored", "source", "replaces", "verdict"),
    [
        (None, "new", None, Verdict.CREATE),
        (None, "new", "old", Verdict.CREATE),
        ("new", "new", None, Verdict.SAME),
        ("new", "new", "old", Verdict.SAME),
        ("old", "new", None, Verdict.CONFLICT),
        ("old", "new", "other", Verdict.CONFLICT),
        ("old", "new", "old", Verdict.REPLACE),
        ("", "new", "", Verdict.CONFLICT),
        ("", "new", None, Verdict.CONFLICT),
    ],
)
def test_the_verdict_goes_by_source(stored, source, replaces, verdict):
    metadata = {"source-sha256": stored} if stored else {}
    existing = None if stored is None else StoredObject("k", "gs://b/k", 1, stored and "f" * 64, False, metadata)
    assert judge(existing, source, replaces) is verdict


@pytest.mark.parametrize(
    ("book", "page", "document_type", "key"),
    [
        (12, 7, "DEED", "documents/historical/deed/0012-0007.pdf"),
        (237, 1, "DEED", "documents/historical/deed/0237-0001.pdf"),
        (238, 1, "RIGHT OF WAY", "documents/mid-early/right-of-way/0238-0001.pdf"),
        (999, 12345, "ASSIGN OIL GAS  MIN", "documents/mid-early/assign-oil-gas-min/0999-12345.pdf"),
        (1000, 1, 'AFFIDAVIT "T"', "documents/mid-recent/affidavit-t/1000-0001.pdf"),
        (3971, 753, "- [DEED 90W]", "documents/mid-recent/deed-90w/3971-0753.pdf"),
        (4000, 1, None, "documents/mid-recent/unknown/4000-0001.pdf"),
        (4000, 1, " ../. ", "documents/mid-recent/unknown/4000-0001.pdf"),
        (4000, 1, "Título/Acte", "documents/mid-recent/titulo-acte/4000-0001.pdf"),
        (4000, 1, "x" * 300, f"documents/mid-recent/{'x' * 80}/4000-0001.pdf"),
    ],
)
def test_the_key_of_a_document(book, page, document_type, key):
    assert document_key(book, page, document_type) == key
    assert check_key(key) == key
