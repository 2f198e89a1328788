"""The folder store: what it leaves on the disk, at every moment and on every kind of disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested, TerminalError, TransientError
from tasks.records import Reason
from tasks.store_folder import sweep, temporary
from tasks.store_local import LocalStore

KEY = "documents/mid-recent/deed/1234-0056.pdf"
SOURCE, OLDER = "a" * 64, "b" * 64


def put(store, file, source=SOURCE, key=KEY, **more):
    path, sha256 = file
    return store.put(key, path, metadata={"source-sha256": source, "book": "1234"}, sha256=sha256, **more)


def on_disk(root: Path) -> list[str]:
    """Files of the store, without the locks (which stay)."""
    names = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    return sorted(n for n in names if not n.startswith(".locks/"))


def test_an_object_and_its_metadata_lie_where_people_find_them(local, make_file):
    file = make_file(5000)
    stored = put(local, file)
    assert on_disk(local.root) == [f".metadata/{KEY}.json", KEY]
    assert (local.root / KEY).read_bytes() == file[0].read_bytes()
    about = json.loads((local.root / f".metadata/{KEY}.json").read_text())
    assert about == {"content_type": "application/pdf", "metadata": stored.metadata}
    assert (local.root / KEY).stat().st_mode & 0o777 == file[0].stat().st_mode & 0o777


def test_the_same_source_is_stored_once(local, make_file):
    first = put(local, make_file(5000))
    again = put(local, make_file(5001))
    assert (again.created, again.sha256, again.size_bytes) == (False, first.sha256, 5000)


def test_another_source_is_a_conflict_and_changes_nothing(local, make_file):
    first = put(local, make_file(5000), OLDER)
    for more in ({}, {"replaces": "c" * 64}):
        with pytest.raises(TerminalError, match=KEY) as caught:
            put(local, make_file(5000), **more)
        assert caught.value.reason == Reason.STORE_CONFLICT
    assert local.stat(KEY).metadata == first.metadata
    assert on_disk(local.root) == [f".metadata/{KEY}.json", KEY]


def test_an_older_version_of_the_same_item_is_replaced(local, make_file):
    put(local, make_file(5000), OLDER)
    file = make_file(6000)
    assert put(local, file, replaces=OLDER).created
    assert (local.root / KEY).read_bytes() == file[0].read_bytes()
    assert "previous" not in json.loads((local.root / f".metadata/{KEY}.json").read_text())


def test_a_file_put_there_by_hand_is_left_alone(local, make_file):
    (local.root / KEY).parent.mkdir(parents=True)
    (local.root / KEY).write_bytes(b"by hand")
    with pytest.raises(TerminalError) as caught:
        put(local, make_file(5000))
    assert caught.value.reason == Reason.STORE_CONFLICT
    assert (local.root / KEY).read_bytes() == b"by hand"


def test_nothing_that_is_there_is_overwritten_unseen(local, make_file):
    """A name that `stat` does not show (here a link to an unmounted disk) is refused by the move itself."""
    (local.root / KEY).parent.mkdir(parents=True)
    (local.root / KEY).symlink_to("/no/such/disk")
    with pytest.raises(TransientError, match="appeared while it was being stored") as caught:
        put(local, make_file(5000))
    assert caught.value.reason == Reason.STORE_ERROR
    assert (local.root / KEY).is_symlink()


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_an_object_that_lost_its_bytes_is_stored_again(local, make_file, damage):
    put(local, make_file(5000))
    (local.root / KEY).write_bytes(damage)
    file = make_file(5000)
    assert put(local, file).created
    assert (local.root / KEY).read_bytes() == file[0].read_bytes()


def test_a_crash_between_the_two_moves_of_a_replacement_is_told_apart(local, make_file):
    """Metadata of both versions stand; the bytes say which one is the object."""
    old = put(local, make_file(5000), OLDER)
    path = local.root / f".metadata/{KEY}.json"
    never = {"source-sha256": SOURCE, "sha256": "c" * 64, "stored_size": "5000"}
    path.write_text(json.dumps({"metadata": never, "previous": old.metadata}))
    assert local.stat(KEY).metadata == old.metadata
    file = make_file(5000)
    assert put(local, file, replaces=OLDER).created
    assert local.stat(KEY).sha256 == file[1]


def test_threads_at_once_make_one_object_with_its_own_metadata(local, make_file):
    files = [(make_file(3000 + i), f"{i:064d}") for i in range(16)]

    def attempt(work):
        try:
            return put(local, *work)
        except TerminalError as exc:
            return exc.reason

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(attempt, files))
    created = [r for r in results if not isinstance(r, str)]
    assert len(created) == 1
    assert results.count(Reason.STORE_CONFLICT) == 15
    assert hashlib.sha256((local.root / KEY).read_bytes()).hexdigest() == local.stat(KEY).sha256 == created[0].sha256


def test_a_key_that_is_a_folder_or_lies_below_a_file_is_the_rows_fault(local, make_file):
    put(local, make_file(1), key="a/b.pdf")
    for key in ("a", "a/b.pdf/c.pdf"):
        with pytest.raises((TerminalError, TransientError)) as caught:
            put(local, make_file(1), key=key)
        assert caught.value.reason in (Reason.BAD_ROW, Reason.STORE_ERROR)
    assert [o.key for o in local.list()] == ["a/b.pdf"]


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(local):
    (local.root / ".tmp" / "123-dead.part").write_bytes(b"half")
    with temporary(local.root / ".tmp") as living:
        LocalStore(local.root)
        assert [p.name for p in (local.root / ".tmp").iterdir()] == [Path(living.name).name]
        assert sweep(local.root / ".tmp") == 0
    assert not list((local.root / ".tmp").iterdir())


def test_a_stop_between_blocks_leaves_nothing(local, make_file):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StopRequested):
        put(local, make_file(5000), stop=stop)
    assert on_disk(local.root) == []


# kill -9

WRITER = """
import hashlib, os, random, sys, threading
from pathlib import Path
from tasks.store_local import LocalStore

sys.stdin.readline()
store, spool = LocalStore(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)

def work(n):
    while True:
        key = f"documents/{n}/{random.randrange(5)}.pdf"
        data = os.urandom(random.choice([100, 70_000, 1_500_000]))
        path, source = spool / f"{n}.pdf", os.urandom(32).hex()
        path.write_bytes(data)
        old = store.stat(key)
        about = {"source-sha256": source}
        store.put(key, path, metadata=about, sha256=hashlib.sha256(data).hexdigest(),
                  replaces=old and old.metadata["source-sha256"])

for n in range(3):
    threading.Thread(target=work, args=(n,)).start()
"""


def start_writer(root: Path, spool: Path) -> subprocess.Popen[bytes]:
    """A writer that has loaded its modules (the slow part) and waits for a word."""
    command = [sys.executable, "-c", WRITER, str(root), str(spool)]
    repo = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def test_kill_9_at_any_moment_leaves_whole_objects_or_none(tmp_path):
    root, spool = tmp_path / "store", tmp_path / "spool"
    spool.mkdir()
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    swept = objects = 0
    following = start_writer(root, spool)
    for turn in range(20):
        writer, following = following, start_writer(root, spool) if turn < 19 else None
        writer.stdin.write(b"go\n")
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(dice.uniform(0.01, 0.15))
        writer.kill()
        writer.communicate()
        swept += len(list((root / ".tmp").iterdir()))
        store = LocalStore(root)
        assert list((root / ".tmp").iterdir()) == [], seed
        for stored in store.list():
            data = (root / stored.key).read_bytes()
            assert hashlib.sha256(data).hexdigest() == stored.sha256, (seed, stored.key)
            assert stored.metadata["stored_size"] == str(len(data)), (seed, stored.key)
            assert stored.metadata["source-sha256"], (seed, stored.key)
            objects += 1
    assert objects, "nothing was ever stored: the test shows nothing"
    assert swept, "no writer was ever caught in the act: the test shows nothing"


# disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """`tmp_path/disk` is a tmpfs of 1 MiB; `small_disk(options)` mounts it anew. Needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(mount(folder, "size=1m"), capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")

    def remount(options: str) -> None:
        subprocess.run(mount(folder, options), check=True)

    yield remount
    subprocess.run(["umount", folder], check=True)


def mount(folder: Path, options: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]


def test_a_full_disk_is_outside_trouble_and_leaves_nothing_half_written(small_disk, make_file, tmp_path):
    store = LocalStore(tmp_path / "disk" / "store")
    assert put(store, make_file(300_000), key="fits.pdf").created
    for size in (800_000, 5_000_000):
        with pytest.raises(OutsideUnreachable, match=r"disk/store is full; free space"):
            put(store, make_file(size))
    with pytest.raises(OutsideUnreachable, match="is full"):
        store.put_replacing("fits.pdf", make_file(800_000)[0])
    assert on_disk(store.root) == [".metadata/fits.pdf.json", "fits.pdf"]
    assert store.stat("fits.pdf").size_bytes == 300_000
    assert put(store, make_file(300_000), key="fits too.pdf").created


def test_a_disk_that_turns_read_only_is_a_configuration_error(small_disk, make_file, tmp_path):
    store = LocalStore(tmp_path / "disk")
    small_disk("remount,ro")
    for work in (store.check, lambda: put(store, make_file(10)), lambda: LocalStore(tmp_path / "disk" / "x")):
        with pytest.raises(ConfigurationError, match=r"may not be written \(Read-only file system\)"):
            work()


def test_a_folder_on_another_disk_below_the_store_is_refused(small_disk, make_file, tmp_path):
    store = LocalStore(tmp_path / "store")
    (store.root / "documents").symlink_to(tmp_path / "disk", target_is_directory=True)
    with pytest.raises(ConfigurationError, match="must be one file system"):
        put(store, make_file(10))


def test_a_folder_that_vanishes_is_outside_trouble(local, make_file):
    local.root.rename(local.root.with_name("gone"))
    for work in (local.check, lambda: put(local, make_file(10))):
        with pytest.raises(OutsideUnreachable, match="does not answer"):
            work()


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="set LANDRECORDS_STORE_URL to a folder"):
            LocalStore(root)
