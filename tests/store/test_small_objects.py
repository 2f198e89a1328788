"""Small objects (map tiles): thousands at once, over whatever is there, whole or not at all, on every store."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.errors import OutsideUnreachable, StopRequested, TerminalError, TransientError
from tasks.records import Reason
from tasks.store_gcs import GcsStore
from tasks.store_local import LocalStore
from tasks.store_objects import Small
from tests.fakes.gcs import FakeGcs

AnyStore = LocalStore | GcsStore


def tile(number: int, size: int = 9000) -> Small:
    """A tile whose bytes say which one it is."""
    head = f"tile {number} ".encode()
    return Small(
        f"parcels/14/{number % 7}/{number}.png", head + bytes([number % 256]) * (size - len(head)), "image/png"
    )


def files_of(root: Path) -> list[str]:
    """Every file of a folder store, also temporary ones and descriptions; not the locks, which stay."""
    names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in names if not name.startswith(".locks/"))


# --- what every store does ---


def test_all_come_back_in_the_order_asked_for(any_store: AnyStore) -> None:
    tiles = [tile(n) for n in range(40)]
    any_store.put_small(tiles)
    any_store.flush()
    asked = [small.key for small in random.Random(1).sample(tiles, 40)]
    asked[7:7] = ["parcels/14/0/none.png", "nothing/there.png"]
    found = list(any_store.read_small(asked))
    wanted = {small.key: small.content for small in tiles}
    assert found == [wanted.get(key) for key in asked]
    assert found.count(None) == 2
    assert [o.key for o in any_store.list("parcels/")] == sorted(wanted)


def test_a_later_one_replaces_an_earlier_one(any_store: AnyStore) -> None:
    any_store.put_small([tile(1), tile(2)])
    longer, empty = tile(1, 20_000), Small(tile(2).key, b"", "image/png")
    any_store.put_small([longer, empty])
    any_store.put_small([])
    assert list(any_store.read_small([longer.key, empty.key])) == [longer.content, b""]


def test_removed_is_removed_however_often(any_store: AnyStore) -> None:
    any_store.put_small([tile(1), tile(2)])
    for _ in range(2):
        any_store.remove(tile(1).key)
    any_store.remove("never/was.png")
    assert list(any_store.read_small([tile(1).key, tile(2).key])) == [None, tile(2).content]


def test_a_key_that_leads_elsewhere_is_refused(any_store: AnyStore) -> None:
    for key in ("../above.png", "/etc/tile.png", "a//b.png", ".tmp/x.png", "a\\b.png"):
        with pytest.raises(TerminalError) as caught:
            any_store.put_small([Small(key, b"x", "image/png")])
        assert caught.value.reason == Reason.BAD_ROW
        with pytest.raises(TerminalError):
            any_store.remove(key)


def test_a_stop_is_seen_between_two(any_store: AnyStore) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StopRequested):
        any_store.put_small([tile(1)], stop=stop)
    assert list(any_store.read_small([tile(1).key])) == [None]


# --- the folder ---


def test_nothing_but_the_tiles_is_left_in_the_folder(local: LocalStore) -> None:
    tiles = [tile(n) for n in range(30)]
    local.put_small(tiles)
    assert files_of(local.root) == sorted(small.key for small in tiles)
    local.remove(tiles[0].key)
    assert files_of(local.root) == sorted(small.key for small in tiles[1:])
    assert local.holds(tiles[1].key)
    assert not local.holds(tiles[0].key)
    assert not local.holds("parcels/14")


def test_a_tile_whose_name_is_taken_by_a_folder_leaves_nothing(local: LocalStore) -> None:
    local.put_small([tile(1)])
    for key in ("parcels/14", f"{tile(1).key}/below.png"):
        with pytest.raises(TerminalError) as caught:
            local.put_small([tile(2), Small(key, b"x", "image/png"), tile(3)])
        assert caught.value.reason == Reason.BAD_ROW
    assert files_of(local.root) == [tile(1).key, tile(2).key], "what was stored before stays"


def test_readers_see_one_tile_or_the_other(local: LocalStore) -> None:
    """Eight writers of the same names, and a reader: never a mixture, never nothing."""
    versions = [[Small(f"t/{n}.png", bytes([w]) * (4000 + 900 * w), "image/png") for n in range(4)] for w in range(8)]
    local.put_small(versions[0])
    ended = threading.Event()
    torn: list[bytes | None] = []

    def watch() -> None:
        while not ended.is_set():
            found = local.read_small([small.key for small in versions[0]])
            torn.extend(body for body in found if body is None or len(set(body)) != 1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda tiles: [local.put_small(tiles) for _ in range(20)], versions))
    ended.set()
    watcher.join()
    assert torn == []
    assert files_of(local.root) == [f"t/{n}.png" for n in range(4)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB. Needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_never_keeps_a_part_of_a_tile(small_disk: Path) -> None:
    """The kernel takes as many bytes as there is room for, and says so only by a smaller number."""
    store = LocalStore(small_disk / "store")
    tiles = [tile(n, 9000 + 37 * n) for n in range(80)]
    with pytest.raises(OutsideUnreachable, match="is full"):
        store.put_small(tiles)
    found = {small.key: body for small, body in zip(tiles, store.read_small([s.key for s in tiles]), strict=True)}
    whole = [small for small in tiles if found[small.key] == small.content]
    assert 20 < len(whole) < 80
    assert [key for key, body in found.items() if body is not None] == [small.key for small in whole]
    assert files_of(store.root) == sorted(small.key for small in whole), "nothing half-written lies about"
    store.remove(whole[0].key)
    store.remove(whole[1].key)
    store.put_small([whole[0]])


WRITER = """
import hashlib, os, sys
from pathlib import Path
from tasks.store_local import LocalStore
from tasks.store_objects import Small

sys.stdin.readline()
store = LocalStore(Path(sys.argv[1]))
print("ready", flush=True)
n = 0
while True:
    bodies = [os.urandom(30_000 + 1000 * i) for i in range(20)]
    store.put_small([Small(f"t/{(n + i) % 50}.png", hashlib.sha256(b).digest() + b, "x") for i, b in enumerate(bodies)])
    store.flush()
    n += 20
"""


def start_writer(root: Path) -> subprocess.Popen[bytes]:
    """A writer that has loaded its modules (the slow part) and waits for a word."""
    command = [sys.executable, "-c", WRITER, str(root)]
    repo = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def test_kill_9_leaves_whole_tiles_or_none_and_no_stray_file(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    swept = tiles = 0
    following: subprocess.Popen[bytes] | None = start_writer(tmp_path)
    for turn in range(8):
        writer, following = following, start_writer(tmp_path) if turn < 7 else None
        assert writer is not None
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(b"go\n")
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(dice.uniform(0.01, 0.12))
        writer.kill()
        writer.communicate()
        swept += len(list((tmp_path / ".tmp").iterdir()))
        store = LocalStore(tmp_path)
        assert list((tmp_path / ".tmp").iterdir()) == [], seed
        for path in (tmp_path / "t").glob("*"):
            content = path.read_bytes()
            assert hashlib.sha256(content[32:]).digest() == content[:32], (seed, path)
            tiles += 1
        assert store.holds("t/0.png") or not tiles
    assert tiles > 50, "hardly anything was stored: the test shows nothing"
    assert swept > 4, "no writer was caught in the act: the test shows nothing"


# --- the bucket ---


def test_a_bucket_gets_type_and_checksum_of_each(bucket: GcsStore, fake: FakeGcs) -> None:
    sent: list[dict[str, object]] = []
    insert = fake.bucket.insert
    fake.bucket.insert = lambda resource, *rest: (sent.append(dict(resource)), insert(resource, *rest))[1]  # type: ignore[method-assign]
    bucket.put_small([tile(n) for n in range(20)])
    assert {resource["contentType"] for resource in sent} == {"image/png"}
    assert [resource["name"] for resource in sent if "crc32c" not in resource] == [], "the server refuses damaged bytes"
    assert {o.data for o in fake.objects.values()} == {tile(n).content for n in range(20)}
    assert fake.count("multipart") == 20, "one request each"


@pytest.mark.parametrize("kind", ["status", "drop", "commit_then_drop", "wrong_crc32c"])
def test_a_bucket_that_fails_now_and_then_has_every_tile_at_the_end(bucket: GcsStore, fake: FakeGcs, kind: str) -> None:
    fake.faults.add(kind, on="multipart", after=3, times=2)
    tiles = [tile(n) for n in range(12)]
    if kind == "wrong_crc32c":
        with pytest.raises(TransientError, match="otherwise than it was sent") as caught:
            bucket.put_small(tiles)
        assert caught.value.reason == Reason.STORE_ERROR
        fake.faults.clear()
    bucket.put_small(tiles)
    assert list(bucket.read_small([small.key for small in tiles])) == [small.content for small in tiles]


def test_a_bucket_that_stays_away_is_told(bucket: GcsStore, fake: FakeGcs) -> None:
    fake.faults.add("status", on="multipart", status=503)
    with pytest.raises(TransientError) as caught:
        bucket.put_small([tile(1)])
    assert caught.value.reason == Reason.STORE_ERROR
    fake.stop()
    with pytest.raises(OutsideUnreachable, match="does not answer"):
        bucket.put_small([tile(1)])


def test_a_tile_that_travelled_badly_is_read_again(bucket: GcsStore, fake: FakeGcs) -> None:
    bucket.put_small([tile(1)])
    fake.faults.add("truncated", on="download", times=1)
    assert list(bucket.read_small([tile(1).key])) == [tile(1).content]
    assert bucket.holds(tile(1).key)
