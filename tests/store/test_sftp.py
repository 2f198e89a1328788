"""The SFTP door against a real OpenSSH server: listing, reading by ranges, sharing connections."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks import sftp
from tasks.errors import ConfigurationError, TerminalError
from tasks.records import Reason
from tasks.sftp import Ask, EntryKind, Failure, Limits, Listing, Read, Reader, Sftp
from tests.fakes.other_sshd import AsyncServer
from tests.fakes.sshd import Sshd

ODD_NAMES = [
    b"plain.jpg",
    b" spaces  around .jpg ",
    b'it\'s "quoted" `and` $(worse).jpg',
    b"two\nlines\tand a tab.jpg",
    b"not utf-8 \xff\xfe\xe9.jpg",
    "Grundstück 土地 🏡.jpg".encode(),
    b"-rf.jpg",
    b"*.jpg",
    b"\\backslash\\",
    b"x" * 255,
]


class NeedMore(NamedTuple):
    offset: int
    length: int


def ranges(*wanted: tuple[int, int]) -> Callable[[], Reader[list[bytes]]]:
    """A reader that asks for these ranges one after the other and returns what came."""

    def read() -> Reader[list[bytes]]:
        came = []
        for offset, length in wanted:
            came.append((yield NeedMore(offset, length)))
        return came

    return read


HEAD = ranges((0, 4096))


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running


@pytest.fixture(autouse=True)
def no_connections_left() -> Iterator[None]:
    yield
    sftp.close_pools()


@pytest.fixture
def door(server: Sshd) -> Iterator[Sftp]:
    with server.open() as opened:
        yield opened


@pytest.fixture
def quiet() -> Iterator[Sshd]:
    """A server that nobody else logs in to: where logins are counted."""
    with Sshd() as running:
        yield running


@pytest.fixture
def site(server: Sshd) -> Iterator[Path]:
    """A folder of the test's own that the server can read."""
    folder = server.site / str(time.monotonic_ns())
    folder.mkdir()
    yield folder
    for unreadable in folder.rglob("closed*"):
        unreadable.chmod(0o755)


def the_only(door: Sftp, path: Path | str, reader: Callable[[], Reader[list[bytes]]] = HEAD, **limits: int) -> object:
    [result] = door.read_many([Ask(7, str(path), reader)], Limits(**limits))
    return result


def failure(result: object) -> Failure[int]:
    assert isinstance(result, Failure)
    assert result.id == 7
    assert "\n" not in str(result.error)
    return result


# listing


def test_a_listing_tells_size_time_and_kind(door: Sftp, site: Path) -> None:
    (site / "photo.jpg").write_bytes(b"x" * 12_345)
    os.utime(site / "photo.jpg", (1, 1_700_000_000))
    (site / "orbit").mkdir()
    os.mkfifo(site / "pipe")
    (site / "link.jpg").symlink_to("photo.jpg")
    (site / "door").symlink_to("orbit")
    (site / "nowhere").symlink_to("gone")
    (site / "circle").symlink_to("circle")
    found = {entry.name: entry for entry in door.list_folder(str(site))}
    assert found["photo.jpg"] == (f"{site}/photo.jpg", "photo.jpg", EntryKind.FILE, 12_345, 1_700_000_000, False)
    assert found["link.jpg"][2:] == (EntryKind.FILE, 12_345, 1_700_000_000, True)
    kinds = {name: (entry.kind, entry.is_link) for name, entry in found.items() if not name.endswith(".jpg")}
    assert kinds == {
        "orbit": (EntryKind.FOLDER, False),
        "door": (EntryKind.FOLDER, True),
        "pipe": (EntryKind.OTHER, False),
        "nowhere": (EntryKind.OTHER, True),
        "circle": (EntryKind.OTHER, True),
    }


def test_any_name_is_listed_and_read(door: Sftp, site: Path) -> None:
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(site) + b"/" + name)).write_bytes(b"<" + name)
    found = door.list_folder(str(site))
    assert sorted(os.fsencode(entry.name) for entry in found) == sorted(ODD_NAMES)
    results = list(door.read_many(Ask(entry.name, entry.path, HEAD) for entry in found))
    assert {os.fsencode(r.id): r.value for r in results if isinstance(r, Read)} == {n: [b"<" + n] for n in ODD_NAMES}


def test_a_folder_of_10000(door: Sftp, site: Path) -> None:
    for number in range(10_000):
        os.close(os.open(site / f"DJI_{number:05d}.JPG", os.O_CREAT | os.O_WRONLY))
    found = door.list_folder(str(site))
    assert len(found) == 10_000
    assert len({entry.name for entry in found}) == 10_000


def test_an_empty_folder(door: Sftp, site: Path) -> None:
    assert door.list_folder(str(site)) == []
    assert door.list_folder(f"{site}/") == []


def test_a_folder_that_cannot_be_listed(door: Sftp, site: Path) -> None:
    (site / "closed").mkdir(mode=0o000)
    (site / "file").touch()
    for name, reason in (
        ("closed", Reason.PERMISSION_DENIED),
        ("missing", Reason.NOT_FOUND),
        ("file", Reason.NOT_FOUND),
        ("bad\0name", Reason.NOT_FOUND),
    ):
        with pytest.raises(TerminalError) as refused:
            door.list_folder(f"{site}/{name}")
        assert refused.value.reason == reason


def test_a_walk_goes_on_past_what_it_cannot_enter(door: Sftp, site: Path) -> None:
    for number in range(30):
        (site / "pilot" / f"site {number}" / "orbit").mkdir(parents=True)
        (site / "pilot" / f"site {number}" / "orbit" / "a.jpg").touch()
    (site / "pilot" / "closed").mkdir(mode=0o000)
    (site / "pilot" / "around").symlink_to("..")
    results = list(door.walk(str(site)))
    paths = [result.path if isinstance(result, Listing) else result.id for result in results]
    assert sorted(paths) == sorted(
        [str(site), *(str(folder) for folder in site.rglob("*") if folder.is_dir() and not folder.is_symlink())]
    )
    for path in paths[1:]:
        assert paths.index(path) > paths.index(path.rpartition("/")[0]), "parents come before their children"
    [refused] = [result for result in results if isinstance(result, Failure)]
    assert (refused.id, refused.reason) == (f"{site}/pilot/closed", Reason.PERMISSION_DENIED)


def test_a_walk_goes_no_deeper_than_asked(door: Sftp, site: Path) -> None:
    (site / "a" / "b" / "c").mkdir(parents=True)
    assert [r.path for r in door.walk(str(site), max_depth=1) if isinstance(r, Listing)] == [str(site), f"{site}/a"]


# reading


def test_only_the_ranges_a_reader_needs_are_read(door: Sftp, site: Path) -> None:
    data = os.urandom(300_000)
    (site / "a.heic").write_bytes(data)
    result = the_only(door, site / "a.heic", ranges((0, 8192), (250_000, 100), (250_000, 0), (5, 1)))
    assert result == (7, [data[:8192], data[250_000:250_100], b"", data[5:6]], 8192 + 100 + 1, 3)


def test_a_file_ends_where_it_ends(door: Sftp, site: Path) -> None:
    (site / "short.jpg").write_bytes(b"0123456789")
    assert the_only(door, site / "short.jpg", ranges((0, 4096), (8, 10), (10, 5), (2**40, 5)))[1] == [
        b"0123456789",
        b"89",
        b"",
        b"",
    ]
    (site / "empty.jpg").touch()
    assert the_only(door, site / "empty.jpg") == (7, [b""], 0, 1)


def test_a_range_of_many_packets(door: Sftp, site: Path) -> None:
    data = os.urandom(500_001)
    (site / "a.tif").write_bytes(data)
    assert the_only(door, site / "a.tif", ranges((1, 600_000)))[1] == [data[1:]]


def test_a_reader_that_needs_nothing(door: Sftp, site: Path) -> None:
    (site / "a.jpg").touch()
    assert the_only(door, site / "a.jpg", ranges()) == (7, [], 0, 0)


def test_what_one_file_may_cost_is_bounded(door: Sftp, site: Path) -> None:
    (site / "a.jpg").write_bytes(bytes(100_000))
    greedy = failure(the_only(door, site / "a.jpg", ranges((0, 60_000), (60_000, 40_001)), max_bytes=100_000))
    assert (greedy.reason, greedy.bytes_read) == (Reason.TOO_LARGE, 60_000)
    fussy = failure(the_only(door, site / "a.jpg", ranges(*[(n, 1) for n in range(11)]), max_reads=10))
    assert (fussy.reason, fussy.bytes_read) == (Reason.TOO_LARGE, 10)
    assert isinstance(the_only(door, site / "a.jpg", ranges(*[(n, 1) for n in range(10)]), max_reads=10), Read)


@pytest.mark.parametrize("wanted", [(-1, 5), (0, -5), (2**63, 1)])
def test_a_range_that_cannot_be(door: Sftp, site: Path, wanted: tuple[int, int]) -> None:
    (site / "a.jpg").touch()
    assert failure(the_only(door, site / "a.jpg", ranges(wanted))).reason == Reason.INTERNAL


def test_a_reader_that_fails_costs_its_own_file_only(door: Sftp, site: Path) -> None:
    for name in "abc":
        (site / name).write_bytes(name.encode())

    def broken() -> Reader[list[bytes]]:
        yield NeedMore(0, 1)
        raise ZeroDivisionError("in the reader")

    def circles() -> Reader[list[bytes]]:
        while True:
            yield NeedMore(0, 0)

    def stillborn() -> Reader[list[bytes]]:
        raise KeyError("at once")

    asks = [Ask("a", f"{site}/a", broken), Ask("b", f"{site}/b", HEAD), Ask("c", f"{site}/c", circles)]
    results = {result.id: result for result in door.read_many([*asks, Ask("d", f"{site}/a", stillborn)])}
    assert results["b"] == Read("b", [b"b"], 1, 2)
    for name in "acd":
        result = results[name]
        assert isinstance(result, Failure)
        assert result.reason == Reason.INTERNAL
        assert isinstance(result.error, TerminalError)


def test_each_file_fails_for_its_own_reason(door: Sftp, site: Path) -> None:
    (site / "closed.jpg").touch(mode=0o000)
    (site / "closed").mkdir(mode=0o000)
    (site / "folder").mkdir()
    (site / "circle").symlink_to("circle")
    (site / "fine.jpg").write_bytes(b"fine")
    (site / "goes.jpg").touch()
    listed = [entry.path for entry in door.list_folder(str(site)) if entry.name == "goes.jpg"]
    (site / "goes.jpg").unlink()
    wanted = {
        str(site / "closed.jpg"): Reason.PERMISSION_DENIED,
        str(site / "closed" / "a.jpg"): Reason.PERMISSION_DENIED,
        str(site / "folder"): Reason.WRONG_TYPE,
        str(site / "circle"): Reason.NOT_FOUND,
        str(site / "fine.jpg" / "a.jpg"): Reason.NOT_FOUND,
        str(site / ("x" * 300)): Reason.SFTP_ERROR,
        str(site / ("x/" * 3000)): Reason.NOT_FOUND,
        f"{site}/\0": Reason.NOT_FOUND,
        f"{site}/\ud800": Reason.NOT_FOUND,
        "": Reason.NOT_FOUND,
        listed[0]: Reason.NOT_FOUND,
    }
    results = list(door.read_many(Ask(path, path, HEAD) for path in [*wanted, str(site / "fine.jpg")]))
    assert {result.id: result.reason for result in results if isinstance(result, Failure)} == wanted
    assert all(isinstance(result.error, TerminalError) for result in results if isinstance(result, Failure))
    assert [result.value for result in results if isinstance(result, Read)] == [[b"fine"]]


def test_results_come_as_they_are_ready_and_asks_are_taken_as_places_come_free(door: Sftp, site: Path) -> None:
    (site / "a.jpg").write_bytes(b"a")
    taken = itertools.count()
    asks = (Ask(next(taken), f"{site}/a.jpg", HEAD) for _ in range(5_000))
    results = door.read_many(asks)
    for _ in range(100):
        next(results)
    assert next(taken) <= 100 + 2 * 2 * 64 + 1, "no more than the window is taken ahead"
    assert sum(1 for _ in results) == 5_000 - 100


def test_leaving_early_gives_up_the_rest(quiet: Sshd) -> None:
    (quiet.site / "a.jpg").write_bytes(b"a")
    with quiet.open() as door:
        for result in door.read_many(Ask(n, f"{quiet.site}/a.jpg", HEAD) for n in range(10_000)):
            assert isinstance(result, Read)
            break
        assert isinstance(the_only(door, quiet.site / "a.jpg"), Read)
    assert quiet.logins <= 2, "the connections are as good as before"


def test_files_of_a_caller_that_left_are_not_read_to_their_end(door: Sftp, site: Path) -> None:
    (site / "a.jpg").write_bytes(bytes(100))
    answers = 0

    def thorough() -> Reader[list[bytes]]:
        nonlocal answers
        for _ in range(2_000):
            yield NeedMore(0, 1)
            answers += 1
        return []

    asks = [Ask(0, f"{site}/a.jpg", HEAD), *(Ask(n, f"{site}/a.jpg", thorough) for n in range(1, 60))]
    for _ in door.read_many(asks, Limits(max_reads=10_000)):
        break
    time.sleep(0.3)
    after = answers
    time.sleep(0.2)
    assert answers == after < 59 * 2_000


# sharing


def test_callers_in_many_threads_share_two_connections(quiet: Sshd) -> None:
    for number in range(400):
        (quiet.site / f"{number}.jpg").write_bytes(str(number).encode())
    door = quiet.open()

    def folder(first: int) -> list[list[bytes]]:
        asks = (Ask(number, f"{quiet.site}/{number}.jpg", HEAD) for number in range(first, first + 50))
        return [result.value for result in sorted(door.read_many(asks)) if isinstance(result, Read)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(folder, range(0, 400, 50)))
    assert list(itertools.chain(*found)) == [[str(number).encode()] for number in range(400)]
    assert 1 <= quiet.logins <= 2


def test_a_connection_serves_the_next_run(quiet: Sshd) -> None:
    for _ in range(3):
        with quiet.open() as door:
            assert door.list_folder(str(quiet.site)) == []
    assert quiet.logins == 1
    with quiet.open(depth=8) as door:
        assert door.list_folder(str(quiet.site)) == []
    assert quiet.logins == 2, "other arguments, other connections"


def test_an_unused_connection_ends_by_itself(server: Sshd, site: Path) -> None:
    timeouts = sftp.Timeouts(idle_s=0.3)
    with server.open(timeouts=timeouts) as door:
        door.list_folder(str(site))
        deadline = time.monotonic() + 5
        while "sftp 127" in str(threading.enumerate()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "sftp 127" not in str(threading.enumerate())
        assert door.list_folder(str(site)) == []


def test_nothing_is_sent_before_it_is_used(quiet: Sshd) -> None:
    before = quiet.log
    with quiet.open():
        pass
    assert quiet.log == before


@pytest.mark.parametrize("change", [{"connections": 0}, {"connections": 5}, {"depth": 0}, {"port": 0}, {"port": 70000}])
def test_arguments_that_cannot_be(server: Sshd, change: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        server.open(**change)


def test_another_make_of_server(tmp_path: Path) -> None:
    """asyncssh: its answers come in any order."""
    (tmp_path / "site").mkdir()
    for number in range(300):
        (tmp_path / "site" / f"{number}.jpg").write_bytes(b"%d" % number + bytes(100_000))
    (tmp_path / "site" / "folder").mkdir()
    with (
        AsyncServer(tmp_path) as other,
        sftp.open_sftp("127.0.0.1", other.port, key_path=other.key_path, host_key=other.host_key) as door,
    ):
        found = door.list_folder(str(tmp_path / "site"))
        results = list(door.read_many(Ask(e.name, e.path, ranges((0, 3), (50_000, 40_000))) for e in found))
    failures = {result.id: result.reason for result in results if isinstance(result, Failure)}
    assert failures == {"folder": Reason.WRONG_TYPE}
    read = {result.id: result.value for result in results if isinstance(result, Read)}
    assert read == {f"{n}.jpg": [(b"%d" % n + bytes(3))[:3], bytes(40_000)] for n in range(300)}
