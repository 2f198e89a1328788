"""A local service lives exactly as long as somebody uses it, whoever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tasks import service_supervisor, services
from tasks.errors import OutsideUnreachable
from tasks.service_state import process_started
from tasks.services import Service

PROGRAM = """
import os, signal, sys, time
open("begun", "a").write(f"{os.getpid()}\\n")
signal.signal(signal.SIGTERM, lambda *_: (open("ended", "a").write(f"{os.getpid()}\\n"), sys.exit(0)))
time.sleep(float(os.environ.get("SLOW_START", "0")))
open("answer", "w").write(str(os.getpid()))
while True: time.sleep(0.02)
"""
"""Notes its beginning and its end in good order; `answer` is what the probe looks for."""

USER = """
import sys, time
from pathlib import Path
from tests.unit.test_services import service
from tasks import services
facts, started = services.hold(Path(sys.argv[1]), lambda: service(Path(sys.argv[1])))
print(facts["address"], started, flush=True)
sys.stdin.read()
"""


def service(folder: Path, program: str = PROGRAM, **options: object) -> Service:
    return Service(
        name="test service",
        folder=folder,
        command=[sys.executable, "-c", program],
        probe=lambda: answered(folder),
        facts={"address": "here"},
        **options,  # type: ignore[arg-type]
    )


def answered(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "answer").read_text()) == state(folder)["program"]
    return False


def state(folder: Path) -> dict[str, int]:
    return dict(json.loads((folder / "state.json").read_text()))


def pids(folder: Path, file: str) -> list[int]:
    path = folder / file
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def gone(pid: int) -> bool:
    return process_started(pid) is None


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "service"
    services.let_go(tmp_path / "service")
    assert services.wait_until_gone(tmp_path / "service")


@contextlib.contextmanager
def users(folder: Path, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that use the service until their input is closed."""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", USER, str(folder)]
        yield [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(number)
        ]


def said(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def test_processes_that_start_together_share_one(folder: Path) -> None:
    with users(folder, 6) as together:
        answers = [said(user) for user in together]
        assert sorted(answers) == ["here False"] * 5 + ["here True"]
        (program,) = pids(folder, "begun")
        for user in together[:-1]:
            user.send_signal(signal.SIGKILL)
            user.wait()
        time.sleep(service_supervisor.LINGER_S + 0.7)
        assert not gone(program), "the last user still has it"
        together[-1].send_signal(signal.SIGKILL)
        assert eventually(lambda: gone(program))
    assert pids(folder, "ended") == [program], "ended in good order, not killed"
    assert services.wait_until_gone(folder)
    assert not (folder / "state.json").exists()


def test_it_stops_when_its_user_ends_or_lets_go(folder: Path) -> None:
    with users(folder, 1) as (user,):
        assert said(user) == "here True"
        (program,) = pids(folder, "begun")
    assert eventually(lambda: gone(program))
    facts, started = services.hold(folder, lambda: service(folder))
    assert (facts, started) == ({"address": "here"}, True)
    second = pids(folder, "begun")[-1]
    services.let_go(folder)
    assert eventually(lambda: gone(second))


@pytest.mark.alone
def test_runs_in_a_row_share_it(folder: Path) -> None:
    for _ in range(3):
        with users(folder, 1) as (user,):
            said(user)
    assert len(pids(folder, "begun")) == 1


def test_it_is_started_again_after_it_crashed(folder: Path) -> None:
    services.hold(folder, lambda: service(folder))
    for _ in range(3):
        os.kill(state(folder)["program"], signal.SIGKILL)
        # at once, while the supervisor may not have noticed yet
        assert eventually(lambda: services.running(folder) is None)
        _, started = services.hold(folder, lambda: service(folder))
        assert started
        time.sleep(0.5)
        assert services.running(folder) == {"address": "here"}
    assert len(pids(folder, "begun")) == 4
    assert services.hold(folder, lambda: service(folder)) == ({"address": "here"}, False)


def test_it_is_started_again_after_its_supervisor_was_killed(folder: Path) -> None:
    services.hold(folder, lambda: service(folder))
    left = state(folder)
    os.kill(left["supervisor"], signal.SIGKILL)
    assert eventually(lambda: services.running(folder) is None)
    assert not gone(left["program"])
    _, started = services.hold(folder, lambda: service(folder))
    assert started
    assert pids(folder, "ended") == [left["program"]], "the program without supervisor was ended first"
    assert len([pid for pid in pids(folder, "begun") if not gone(pid)]) == 1


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.6])
def test_a_starter_that_is_killed_leaves_nothing_half_started(folder: Path, after_s: float) -> None:
    slow = USER.replace("service(Path(sys.argv[1]))", "service(Path(sys.argv[1]), environment={'SLOW_START': '1'})")
    with subprocess.Popen([sys.executable, "-c", slow, str(folder)], stdin=subprocess.PIPE) as starter:
        assert eventually(lambda: (folder / "starting").exists())
        time.sleep(after_s)
        starter.kill()
    facts, _ = services.hold(folder, lambda: service(folder))
    assert facts == {"address": "here"}
    assert answered(folder), "given back only once it answers"
    assert len([pid for pid in pids(folder, "begun") if not gone(pid)]) == 1


def test_a_program_that_ends_at_once_is_told_with_its_last_words(folder: Path) -> None:
    began = time.monotonic()
    with pytest.raises(OutsideUnreachable) as caught:
        services.hold(folder, lambda: service(folder, "import sys; sys.exit('port 5432 is taken')"))
    assert "test service did not start" in str(caught.value)
    assert str(folder / "log") in str(caught.value)
    assert "port 5432 is taken" in str(caught.value)
    assert time.monotonic() - began < 15, "does not wait for what has ended"
    assert services.hold(folder, lambda: service(folder))[1], "the next one may try again"


def test_a_command_that_is_not_there_is_told(folder: Path) -> None:
    missing = Service("test service", folder, ["/nowhere/program"], lambda: True)
    with pytest.raises(OutsideUnreachable, match="/nowhere/program"):
        services.hold(folder, lambda: missing)


def test_one_that_never_answers_is_ended(folder: Path) -> None:
    never = service(folder, PROGRAM.replace('open("answer", "w")', "sys.stdout"), start_timeout_s=1.5)
    with pytest.raises(OutsideUnreachable, match="did not start"):
        services.hold(folder, lambda: never)
    assert all(gone(pid) for pid in pids(folder, "begun"))


def test_a_program_that_ignores_its_signal_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PROGRAM.replace(
        "signal.SIGTERM", "10"
    )
    request = {
        "command": [sys.executable, "-c", stubborn],
        "environment": {},
        "facts": {},
        "stop_signal": int(signal.SIGTERM),
        "user": None,
    }
    folder.mkdir()
    monkeypatch.setattr(services, "STOP_TIMEOUT_S", 0.5)
    program = service_supervisor._run_program(folder, request)
    assert eventually(lambda: (folder / "answer").exists())
    service_supervisor._end(program, signal.SIGTERM)
    assert program.returncode == -signal.SIGKILL


def test_signals_to_the_users_group_do_not_reach_it(folder: Path) -> None:
    services.hold(folder, lambda: service(folder))
    supervisor, program = state(folder)["supervisor"], state(folder)["program"]
    assert os.getsid(supervisor) == supervisor != os.getsid(0)
    assert os.getsid(program) == supervisor


def test_threads_share_one(folder: Path) -> None:
    started = []
    threads = [
        threading.Thread(target=lambda: started.append(services.hold(folder, lambda: service(folder))[1]))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [False] * 4 + [True]


def test_the_state_of_another_boot_is_not_believed(folder: Path) -> None:
    """After a restart of the machine the same numbers may be other processes: they are left alone."""
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        alive = {"program": stranger.pid, "program_started": process_started(stranger.pid)}
        other = {f"supervisor{part[7:]}": value for part, value in alive.items()}
        told = {**alive, **other, "stop_signal": 15, "boot": "before", "facts": {"address": "gone"}, "ready": True}
        (folder / "state.json").write_text(json.dumps(told))
        assert services.running(folder) is None
        assert services.hold(folder, lambda: service(folder)) == ({"address": "here"}, True)
        assert psutil.Process(stranger.pid).is_running()
        stranger.kill()


def test_a_process_is_named_by_number_and_start() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = process_started(process.pid)
        assert started is not None
        assert started == process_started(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_started(process.pid) is None, "a zombie has ended"
    assert process_started(2**22 + 1) is None
