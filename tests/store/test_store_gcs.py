"""The bucket store against a strict server that fails in every way a bucket can."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tasks import store_upload
from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested, TerminalError, TransientError
from tasks.records import Reason
from tasks.store import open_store
from tasks.store_gcs import GcsStore
from tasks.store_wire import Patience
from tests.fakes.gcs import FakeGcs
from tests.fakes.gcs_bucket import QUANTUM

BUCKET = "landrecords-test"
KEY = "documents/mid-recent/deed/1234-0056.pdf"
NAME = f"plant/{KEY}"
SOURCE, OLDER = "a" * 64, "b" * 64
CHUNK_BYTES = 2 * QUANTUM
SMALL, LARGE = 50_000, CHUNK_BYTES * 2 + 12_345


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Three chunks of little data instead of three of 8 MiB."""
    monkeypatch.setattr(store_upload, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(store_upload, "ONE_REQUEST_BYTES", 2 * SMALL)


def put(store, file, source=SOURCE, **more):
    path, sha256 = file
    return store.put(KEY, path, metadata={"source-sha256": source}, sha256=sha256, **more)


def reason_of(caught):
    return caught.value.reason


# who may replace what


def test_the_same_source_is_stored_once_whatever_ghostscript_made_of_it(bucket, fake, make_file):
    first = put(bucket, make_file(SMALL))
    again = put(bucket, make_file(SMALL + 1))
    assert (again.created, again.sha256, again.size_bytes) == (False, first.sha256, SMALL)
    assert hashlib.sha256(fake.objects[NAME].data).hexdigest() == first.sha256


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_another_source_is_a_conflict_and_changes_nothing(bucket, fake, make_file, size):
    first = put(bucket, make_file(SMALL), OLDER)
    with pytest.raises(TerminalError, match=KEY) as caught:
        put(bucket, make_file(size))
    assert reason_of(caught) == Reason.STORE_CONFLICT
    assert bucket.stat(KEY).sha256 == first.sha256


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_older_version_of_the_same_item_is_replaced(bucket, fake, make_file, size):
    put(bucket, make_file(SMALL), OLDER)
    before = fake.objects[NAME].generation
    file = make_file(size)
    stored = put(bucket, file, replaces=OLDER)
    assert (stored.created, stored.sha256) == (True, file[1])
    assert fake.objects[NAME].data == file[0].read_bytes()
    conditions = [entry.query.get("ifGenerationMatch") for entry in fake.log if entry.operation != "stat"]
    assert str(before) in conditions, "overwritten without looking at the generation"


def test_an_object_of_another_program_is_left_alone(bucket, fake, make_file):
    fake.bucket.insert({"name": NAME, "metadata": {"source-sha256": SOURCE}}, b"theirs", {})
    with pytest.raises(TerminalError) as caught:
        put(bucket, make_file(SMALL))
    assert reason_of(caught) == Reason.STORE_CONFLICT
    assert fake.objects[NAME].data == b"theirs"


def test_an_object_that_lost_bytes_is_stored_again(bucket, fake, make_file):
    put(bucket, make_file(SMALL))
    stored = fake.objects[NAME]
    fake.bucket.insert({"name": NAME, "metadata": stored.metadata}, stored.data[:-1], {})
    file = make_file(SMALL)
    assert put(bucket, file).created
    assert fake.objects[NAME].data == file[0].read_bytes()


def test_an_object_under_retention_is_a_conflict_not_the_end_of_the_run(bucket, fake, make_file):
    put(bucket, make_file(SMALL), OLDER)
    fake.faults.add("status", status=403, on="multipart", after=1)
    with pytest.raises(TerminalError, match="may not be replaced") as caught:
        put(bucket, make_file(SMALL), replaces=OLDER)
    assert reason_of(caught) == Reason.STORE_CONFLICT


def test_writers_at_once_make_one_object(bucket, fake, make_file):
    files = [make_file(SMALL + i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda file: put(bucket, file), files))
    assert sum(stored.created for stored in results) == 1
    assert {stored.sha256 for stored in results} == {fake.objects[NAME].metadata["sha256"]}


def test_the_last_chunk_meets_an_object_that_appeared_meanwhile(bucket, fake, make_file):
    """The precondition of a session counts again at its end; a store that forgets this loses an object."""
    path, sha256 = make_file(LARGE)
    slow = fake.faults.add("slow", on="chunk", stall_s=0.3, times=1)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(put, bucket, (path, sha256))
        while slow.times:
            time.sleep(0.01)
        fake.bucket.insert({"name": NAME, "metadata": {"source-sha256": OLDER, "sha256": OLDER}}, b"first", {})
        with pytest.raises(TerminalError) as caught:
            going.result()
    assert reason_of(caught) == Reason.STORE_CONFLICT
    assert fake.objects[NAME].data == b"first"


# a bucket in trouble


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(("size", "on"), [(SMALL, "multipart"), (LARGE, "session"), (LARGE, "chunk")])
def test_a_short_outage_passes(bucket, fake, make_file, status, size, on):
    fake.faults.add("status", status=status, on=on, times=2)
    file = make_file(size)
    assert put(bucket, file).created
    assert fake.objects[NAME].data == file[0].read_bytes()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("size", "on"), [(SMALL, "multipart"), (LARGE, "session"), (LARGE, "chunk")])
def test_a_long_outage_is_the_items_trouble_after_three_retries(bucket, fake, make_file, status, size, on):
    fake.faults.add("status", status=status, on=on)
    with pytest.raises(TransientError, match=f"answered {status}.*tried again") as caught:
        put(bucket, make_file(size))
    assert reason_of(caught) == Reason.STORE_ERROR
    assert fake.count(on) == 4
    assert not fake.objects


@pytest.mark.parametrize("kind", ["commit_then_drop", "truncated"])
@pytest.mark.parametrize(("size", "on", "after"), [(SMALL, "multipart", 0), (LARGE, "session", 0), (LARGE, "chunk", 2)])
def test_a_lost_answer_is_not_a_lost_object(bucket, fake, make_file, kind, size, on, after):
    fake.faults.add(kind, on=on, after=after, times=1)
    file = make_file(size)
    stored = put(bucket, file)
    assert (stored.sha256, stored.size_bytes) == (file[1], size)
    assert fake.objects[NAME].data == file[0].read_bytes()


def test_a_lost_answer_to_a_replacement_is_not_a_conflict(bucket, fake, make_file):
    put(bucket, make_file(SMALL), OLDER)
    fake.faults.add("commit_then_drop", on="multipart", after=1, times=1)
    file = make_file(SMALL)
    assert put(bucket, file, replaces=OLDER).sha256 == file[1]
    assert fake.objects[NAME].data == file[0].read_bytes()


@pytest.mark.parametrize("kind", ["drop", "commit_then_drop", "stall"])
def test_a_connection_that_breaks_every_time_is_the_items_trouble(bucket, fake, make_file, kind):
    fake.faults.add(kind)
    with pytest.raises(TransientError) as caught:
        put(bucket, make_file(SMALL))
    assert reason_of(caught) == Reason.STORE_ERROR
    assert fake.count("multipart") <= 4


@pytest.mark.parametrize("kind", ["drop", "stall", "partial", "commit_then_drop"])
def test_chunks_go_on_where_the_servers_bytes_end(bucket, fake, make_file, kind):
    fake.faults.add(kind, on="chunk", after=1, times=1)
    file = make_file(LARGE)
    assert put(bucket, file).created
    assert fake.objects[NAME].data == file[0].read_bytes()
    sent = sum(entry.body_bytes for entry in fake.log if entry.operation == "chunk")
    lost = 0 if kind == "commit_then_drop" else CHUNK_BYTES
    assert sent <= LARGE + lost, "what had arrived was sent again"


def test_a_server_that_keeps_nothing_is_given_up(bucket, fake, make_file):
    fake.faults.add("partial", on="chunk", keep_bytes=0)
    with pytest.raises(TransientError, match="answered 503"):
        put(bucket, make_file(LARGE))
    assert fake.count("chunk") <= 8, "asked or sent without end"


def test_a_session_the_bucket_forgot_is_begun_anew_at_the_next_attempt(bucket, fake, make_file):
    fake.faults.add("status", status=410, on="chunk", after=1, times=1)
    file = make_file(LARGE)
    with pytest.raises(TransientError, match="gave this upload up"):
        put(bucket, file)
    assert put(bucket, file).created


def test_a_wrong_checksum_in_the_answer_is_looked_up(bucket, fake, make_file):
    fake.faults.add("wrong_crc32c", on="multipart", times=1)
    assert put(bucket, make_file(SMALL)).created
    assert fake.count("stat") == 1


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_object_that_never_verifies_is_removed_and_tried_again(bucket, fake, make_file, size):
    fake.faults.add("wrong_crc32c")
    with pytest.raises(TransientError, match="otherwise than it was sent") as caught:
        put(bucket, make_file(size))
    assert reason_of(caught) == Reason.STORE_ERROR
    assert not fake.objects


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_object_of_another_writer_is_never_removed_for_ours(bucket, fake, make_file, size):
    """Ours does not verify, and before it is looked up another writer has put its own in its place."""
    fake.faults.add("wrong_crc32c", on="multipart")
    slow = fake.faults.add("slow", on="stat", stall_s=0.2, times=1)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(put, bucket, make_file(size))
        while slow.times:
            time.sleep(0.01)
        fake.bucket.insert({"name": NAME, "metadata": {"source-sha256": OLDER}}, b"theirs", {})
        with pytest.raises(TransientError, match="replaced as soon as it was stored"):
            going.result()
    assert fake.objects[NAME].data == b"theirs"


def test_a_file_that_changes_while_it_is_stored_is_refused(bucket, fake, make_file):
    path, sha256 = make_file(LARGE)
    slow = fake.faults.add("slow", on="session", stall_s=0.3, times=1)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(put, bucket, (path, sha256))
        while slow.times:
            time.sleep(0.01)
        path.write_bytes(os.urandom(LARGE))
        with pytest.raises(TransientError):
            going.result()
    assert not fake.objects


def test_a_file_that_is_cut_while_it_is_stored_is_refused(bucket, fake, make_file):
    path, sha256 = make_file(LARGE)
    slow = fake.faults.add("slow", on="session", stall_s=0.3, times=1)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(put, bucket, (path, sha256))
        while slow.times:
            time.sleep(0.01)
        path.write_bytes(b"")
        with pytest.raises(TransientError) as caught:
            going.result()
    assert reason_of(caught) == Reason.SPOOL_LOST


def test_reading_goes_on_through_trouble_and_never_returns_less(bucket, fake, make_file):
    file = make_file(LARGE)
    put(bucket, file)
    fake.faults.add("truncated", on="download", times=1)
    fake.faults.add("status", status=503, on="download", times=1)
    with bucket.open(KEY) as stream:
        assert stream.read() == file[0].read_bytes()
    fake.faults.add("truncated", on="download")
    with pytest.raises(TransientError):
        bucket.open(KEY)


def test_listing_goes_through_pages_and_trouble(bucket, fake):
    for number in range(2005):
        fake.bucket.insert({"name": f"plant/{number:04d}"}, b"", {})
    fake.bucket.insert({"name": "planted/elsewhere"}, b"", {})
    fake.faults.add("status", status=503, on="list", after=1, times=1)
    assert [o.key for o in bucket.list()] == [f"{n:04d}" for n in range(2005)]
    assert fake.count("list") == 4


# stopping


def test_a_stop_ends_the_waiting(fake, make_file):
    fake.faults.add("status", status=503)
    stop = threading.Event()
    with GcsStore(BUCKET, patience=Patience(delays_s=(60.0, 60.0, 60.0))) as store:
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(put, store, make_file(SMALL), stop=stop)
            while not fake.log:
                time.sleep(0.01)
            stop.set()
            with pytest.raises(StopRequested):
                going.result(timeout=10)
        assert fake.count("multipart") == 1


def test_a_stop_before_the_start_sends_nothing(bucket, fake, make_file):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StopRequested):
        put(bucket, make_file(SMALL), stop=stop)
    assert not fake.log


# configuration


def test_nothing_answers(monkeypatch, make_file):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        with GcsStore(BUCKET, patience=Patience(delays_s=(0.01,))) as store:
            for work in (store.check, lambda: store.stat(KEY), lambda: put(store, make_file(SMALL))):
                with pytest.raises(OutsideUnreachable, match="does not answer"):
                    work()


@pytest.mark.parametrize("host", ["http://", "ftp://here", "http://h:port", "http://[::1"])
def test_an_emulator_address_that_is_none(monkeypatch, host):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    with pytest.raises(ConfigurationError, match="STORAGE_EMULATOR_HOST"):
        open_store(f"gs://{BUCKET}")


def test_a_missing_bucket(fake, make_file):
    with GcsStore("no-such-bucket") as store:
        for work in (store.check, lambda: put(store, make_file(SMALL)), lambda: put(store, make_file(LARGE))):
            with pytest.raises(ConfigurationError, match="no-such-bucket does not exist"):
                work()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_bucket_that_may_not_be_used(bucket, fake, make_file, size):
    fake.faults.add("status", status=403)
    with pytest.raises(ConfigurationError, match=r"may not use bucket landrecords-test.*objectUser"):
        put(bucket, make_file(size))
    assert len(fake.log) == 1, "a refusal was retried"


def test_check_names_the_permissions_that_lack(bucket, fake):
    fake.permissions -= {"storage.objects.delete", "storage.objects.get"}
    with pytest.raises(ConfigurationError, match=r"lacks storage\.objects\.delete, storage\.objects\.get in bucket"):
        bucket.check()
    fake.permissions.clear()
    with pytest.raises(ConfigurationError, match=r"storage\.objects\.create"):
        bucket.check()


def test_check_asks_a_server_without_permissions_for_a_listing(bucket, fake):
    fake.faults.add("status", status=501, on="permissions")
    bucket.check()
    assert fake.count("list") == 1


@pytest.fixture
def key_file(fake, tmp_path: Path, monkeypatch) -> Path:
    """A service account whose token address is the fake; the storage client believes it speaks to Google."""
    fake.token = "ya29.right"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    about = {
        "type": "service_account",
        "project_id": "plant",
        "private_key": private.decode(),
        "client_email": "uploader@plant.example",
        "token_uri": f"{fake.url}/token",
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(about))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", fake.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_real_credentials_are_used(key_file, fake, make_file, size):
    with open_store(f"gs://{BUCKET}/plant") as store:
        store.check()
        assert put(store, make_file(size)).created
    assert fake.count("token") == 1


def test_a_refused_key_is_a_configuration_error_that_keeps_the_secret(key_file, fake, make_file):
    fake.refuse_keys = True
    with open_store(f"gs://{BUCKET}") as store, pytest.raises(ConfigurationError, match="auth") as caught:
        put(store, make_file(SMALL))
    assert "PRIVATE" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_revoked_token_is_a_configuration_error(key_file, fake, make_file):
    fake.faults.add("status", status=401, on="upload")
    with open_store(f"gs://{BUCKET}") as store, pytest.raises(ConfigurationError, match="GOOGLE_APPLICATION"):
        put(store, make_file(SMALL))


def test_a_token_address_that_does_not_answer_is_unreachable(key_file, fake, make_file):
    about = json.loads(key_file.read_text())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        about["token_uri"] = f"http://127.0.0.1:{unused.getsockname()[1]}/token"
        key_file.write_text(json.dumps(about))
        with GcsStore(BUCKET, patience=Patience(delays_s=())) as store, pytest.raises(OutsideUnreachable):
            store.check()


@pytest.mark.parametrize(
    "content", [None, "", "{}", "not json", '{"type": "service_account", "private_key": "s3cret"}']
)
def test_a_key_file_that_is_none(key_file, content):
    if content is None:
        key_file.unlink()
    else:
        key_file.write_text(content)
    with pytest.raises(ConfigurationError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        open_store(f"gs://{BUCKET}")
    assert "s3cret" not in str(caught.value)


# economy


def test_connections_are_kept_and_no_more_than_the_uploaders(fake, make_file):
    files = [make_file(SMALL) for _ in range(48)]
    with open_store(f"gs://{BUCKET}", uploaders=12) as store, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda f: store.put(f[0].name, f[0], metadata={}, sha256=f[1]), files))
    assert len({entry.connection for entry in fake.log}) <= 12
    assert len(fake.log) == 48, "more than one request for a small object"


def test_a_large_file_does_not_fill_the_memory(monkeypatch, tmp_path):
    """The fake runs as a process of its own here: its memory is not measured."""
    path = tmp_path / "large.pdf"
    with path.open("wb") as file:
        for _ in range(40):
            file.write(os.urandom(1 << 20))
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    command = [
        sys.executable,
        "-m",
        "tests.fakes.gcs",
        "--faults",
        '[{"kind": "drop", "on": "chunk", "times": 1}]',
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.stdout.readline().strip())
        with GcsStore(BUCKET) as store:
            tracemalloc.start()
            store.put("large.pdf", path, metadata={}, sha256=sha256)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            with store.open("large.pdf") as stream:
                assert hashlib.file_digest(stream, "sha256").hexdigest() == sha256
        server.terminate()
    assert peak < 4 << 20


def test_the_fake_is_strict_about_generations():
    """The whole-flow tests lean on the fake: it must refuse what Cloud Storage refuses."""
    with FakeGcs() as fake:
        first = fake.bucket.insert({"name": "x"}, b"1", {"ifGenerationMatch": "0"})
        upload = fake.bucket.begin({"name": "y"}, {"ifGenerationMatch": "0"})
        fake.bucket.insert({"name": "y"}, b"2", {})
        for refused, status in [
            (lambda: fake.bucket.insert({"name": "x"}, b"2", {"ifGenerationMatch": "0"}), 412),
            (lambda: fake.bucket.delete("x", {"ifGenerationMatch": str(first.generation + 1)}), 412),
            (lambda: fake.bucket.insert({"name": "z", "crc32c": "AAAAAA=="}, b"2", {}), 400),
            (lambda: fake.bucket.extend(upload, "bytes 0-0/1", b"3"), 412),
            (lambda: fake.bucket.begin({"name": "x"}, {"ifGenerationMatch": "0"}), 412),
        ]:
            with pytest.raises(Exception, match=str(status)):
                refused()
