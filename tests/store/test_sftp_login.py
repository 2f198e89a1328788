"""Who is let in, and whom we trust: keys, agents, passwords, host keys; against OpenSSH, and paramiko's own server."""

from __future__ import annotations

import base64
import gc
import hashlib
import hmac
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks import sftp
from tasks.errors import ConfigurationError, OutsideUnreachable, TerminalError
from tasks.sftp_hosts import Trust, fingerprint_of, load_trust
from tasks.sftp_login import Server, load_key
from tests.fakes.other_sshd import SECRET, OtherServer
from tests.fakes.sshd import Sshd, make_key


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running


@pytest.fixture(autouse=True)
def no_connections_left() -> Iterator[None]:
    yield
    sftp.close_pools()


def refused(server: Sshd, **changes: object) -> str:
    """What the door says; one sentence with a remedy, and no secret in it."""
    with server.open(**changes) as door, pytest.raises(ConfigurationError) as error:
        door.list_folder(str(server.site))
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


# keys


@pytest.mark.parametrize(
    ("kind", "passphrase", "form"),
    [("ed25519", "", ""), ("ed25519", SECRET, ""), ("rsa", SECRET, "PEM"), ("rsa", "", ""), ("ecdsa", SECRET, "")],
)
def test_a_key_file(server: Sshd, tmp_path: Path, kind: str, passphrase: str, form: str) -> None:
    server.authorize(make_key(tmp_path / "key", kind, passphrase, form))
    with server.open(key_path=tmp_path / "key", passphrase=passphrase or None) as door:
        assert door.list_folder(str(server.site)) == []


def test_the_password_opens_a_key_where_there_is_no_passphrase(server: Sshd, tmp_path: Path) -> None:
    server.authorize(make_key(tmp_path / "key", "ed25519", SECRET))
    with server.open(key_path=tmp_path / "key", password=SECRET) as door:
        assert door.list_folder(str(server.site)) == []


def test_a_key_file_that_is_of_no_use(server: Sshd, tmp_path: Path) -> None:
    locked = make_key(tmp_path / "locked", "ed25519", SECRET)
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "noise").write_bytes(os.urandom(500))
    (tmp_path / "empty").touch()
    before = server.log
    assert "is encrypted" in refused(server, key_path=locked)
    assert "passphrase is not the right one" in refused(server, key_path=locked, passphrase="wrong")
    assert "cannot be read" in refused(server, key_path=tmp_path / "missing")
    for name in ("text", "noise", "empty", "locked.pub"):
        assert "is no private key" in refused(server, key_path=tmp_path / name)
    assert "Failed" not in server.log.removeprefix(before)


def test_a_strange_key_is_offered_once(server: Sshd, tmp_path: Path) -> None:
    before = server.log
    with server.open(key_path=make_key(tmp_path / "key")) as door:
        for _ in range(3):
            with pytest.raises(ConfigurationError, match=r"does not let user .* in with the key"):
                door.list_folder(str(server.site))
    assert server.log.removeprefix(before).count("Failed publickey") == 1


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """An empty agent; call it to add a key."""
    address = tmp_path / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    while not address.exists():
        time.sleep(0.01)
    yield lambda path: subprocess.run(["ssh-add", "-q", str(path)], check=True, stdin=subprocess.DEVNULL)  # type: ignore[func-returns-value]
    process.terminate()
    process.wait(10)


def test_the_keys_of_an_agent(server: Sshd, agent: Callable[[Path], None], tmp_path: Path) -> None:
    agent(make_key(tmp_path / "other"))
    assert "any of the agent's keys (1)" in refused(server, key_path=None)
    agent(server.key_path)
    with server.open(key_path=None) as door:
        assert door.list_folder(str(server.site)) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_agent_that_is_none(server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        assert "The SSH agent does not work" in refused(server, key_path=None)
    gc.collect()  # paramiko leaves the socket to it


def test_a_refused_login_is_tried_again_by_the_next_run(server: Sshd, tmp_path: Path) -> None:
    key_path = make_key(tmp_path / "key")
    for _ in range(2):
        refused(server, key_path=key_path)
    server.authorize(key_path)
    with server.open(key_path=key_path) as door:
        assert door.list_folder(str(server.site)) == []


def test_nobody_to_log_in_as(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert "give username" in refused(server, username=None)


def test_nothing_to_log_in_with(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "give key_path or password" in refused(server, key_path=None)


# passwords


def test_a_wrong_password_is_sent_once(server: Sshd) -> None:
    """Two connections, several callers, several runs: the account must not be locked by them."""
    before = server.log

    def caller() -> None:
        with pytest.raises(ConfigurationError, match=r"with the password.*correct the login"):
            door.list_folder(str(server.site))

    with server.open(key_path=None, password=SECRET) as door:
        threads = [threading.Thread(target=caller) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        caller()
    assert server.log.removeprefix(before).count("Failed password") == 1


def gets_in(other: OtherServer, **login: object) -> None:
    with (
        sftp.open_sftp("127.0.0.1", other.port, username="someone", host_key=other.line, **login) as door,  # type: ignore[arg-type]
        pytest.raises(TerminalError, match="unsupported"),
    ):
        door.list_folder("/")


def test_a_password() -> None:
    with OtherServer("password") as other:
        gets_in(other, password=SECRET)
        assert other.asked == ["password"]


def test_a_password_that_is_asked_for_by_a_prompt() -> None:
    with OtherServer("keyboard-interactive") as other:
        gets_in(other, password=SECRET)
        assert other.asked == ["password", "prompt"]


def test_a_wrong_password_at_a_prompt_is_not_repeated() -> None:
    with (
        OtherServer("keyboard-interactive") as other,
        sftp.open_sftp("127.0.0.1", other.port, username="someone", host_key=other.line, password="wrong") as door,
    ):
        with pytest.raises(ConfigurationError, match="with the password"):
            door.list_folder("/")
        assert other.asked == ["password", "prompt"]


def test_key_and_password(tmp_path: Path) -> None:
    with OtherServer("publickey", both=True) as other:
        gets_in(other, key_path=make_key(tmp_path / "key"), password=SECRET)
        assert other.asked == ["key", "password"]


def test_a_password_that_is_wanted_besides_the_key(server: Sshd, tmp_path: Path) -> None:
    with Sshd(AuthenticationMethods="publickey,password") as strict:
        assert "accepts: password" in refused(strict)
        assert "does not let" in refused(strict, password=SECRET)
        assert strict.log.count("Failed password") == 1


def test_a_server_without_sftp() -> None:
    with (
        OtherServer("password", subsystem=None) as other,
        sftp.open_sftp("127.0.0.1", other.port, username="someone", host_key=other.line, password=SECRET) as door,
        pytest.raises(ConfigurationError, match="lets someone in, but it has no SFTP subsystem; enable it"),
    ):
        door.list_folder("/")


def test_nothing_secret_is_shown_or_logged(server: Sshd, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("landrecords.ssh").setLevel(logging.DEBUG)
    try:
        refused(server, key_path=make_key(tmp_path / "key", "ed25519", SECRET), password=SECRET, passphrase=SECRET)
        with OtherServer("keyboard-interactive") as other:
            gets_in(other, password=SECRET)
    finally:
        logging.getLogger("landrecords.ssh").setLevel(logging.CRITICAL)
    assert "Auth" in caplog.text, "something was logged"
    assert SECRET not in caplog.text
    assert SECRET not in repr(Server("host", password=SECRET, passphrase=SECRET))


def test_an_ordinary_failure_prints_no_traceback(server: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    refused(server, host_key="SHA256:" + "A" * 43)
    with (
        sftp.open_sftp("127.0.0.1", says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as door,
        pytest.raises(ConfigurationError),
    ):
        door.list_folder("/")
    assert capfd.readouterr().err == ""


# host keys


def blob(server: Sshd, name: str) -> bytes:
    return base64.b64decode((server.folder / f"{name}.pub").read_text().split()[1])


def test_an_unknown_host_key_is_refused_with_the_way_to_pin_it(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known").touch()
    message = refused(server, known_hosts=tmp_path / "known")
    pin = fingerprint_of(blob(server, "host_ed25519"))
    assert f"host_key='{pin}'" in message
    command = f"ssh-keyscan -p {server.port} 127.0.0.1 >> {tmp_path}/known"
    assert command in message
    subprocess.run(command, shell=True, check=True, stderr=subprocess.DEVNULL)
    for way in ({"known_hosts": tmp_path / "known"}, {"host_key": pin}):
        with server.open(**way) as door:
            assert door.list_folder(str(server.site)) == []


def test_a_changed_host_key_is_alarming(server: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {other}")
    before = server.log
    for change in ({"known_hosts": tmp_path / "known"}, {"host_key": other}, {"host_key": "SHA256:" + "A" * 43}):
        message = refused(server, **change)
        assert message.startswith("DANGER")
        assert "No login was sent" in message
    assert " publickey " not in server.log.removeprefix(before)


@pytest.mark.parametrize("name", ["host_ed25519", "host_rsa"])
@pytest.mark.parametrize("form", ["line", "fingerprint", "keyscan"])
def test_any_of_a_servers_keys_can_be_pinned(server: Sshd, name: str, form: str) -> None:
    line = (server.folder / f"{name}.pub").read_text()
    pins = {"line": line, "fingerprint": fingerprint_of(blob(server, name)), "keyscan": f"[127.0.0.1]:1 {line}"}
    with server.open(host_key=pins[form], known_hosts=None) as door:
        assert door.list_folder(str(server.site)) == []


def test_only_the_type_of_key_that_is_known_is_asked_for(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'host_rsa.pub').read_text()}")
    with server.open(known_hosts=tmp_path / "known") as door:
        assert door.list_folder(str(server.site)) == []


def test_a_pin_that_is_none(server: Sshd) -> None:
    for pin in ("", "MD5:00:11", "ssh-ed25519", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA=="):
        assert "neither a public key line" in refused(server, host_key=pin)


def test_known_hosts_that_cannot_be_read(server: Sshd, tmp_path: Path) -> None:
    assert "cannot be read" in refused(server, known_hosts=tmp_path / "missing")


KEY = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)
OTHER = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"\1" * 32
TEXT, OTHER_TEXT = (f"ssh-ed25519 {base64.b64encode(key).decode()}" for key in (KEY, OTHER))


def hashed(name: str) -> str:
    digest = hmac.digest(b"salt" * 5, name.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(b'salt' * 5).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("line", "port", "accepted"),
    [
        (f"host.example {TEXT}", 22, True),
        (f"HOST.example,10.0.0.1 {TEXT} comment", 22, True),
        (f"[host.example]:2222 {TEXT}", 2222, True),
        (f"[host.example]:2222 {TEXT}", 22, False),
        (f"host.example {TEXT}", 2222, True),
        (f"*.example {TEXT}", 22, True),
        (f"ho?t.example {TEXT}", 2222, True),
        (f"[*.example]:2222 {TEXT}", 2222, True),
        (f"*.example,!host.example {TEXT}", 22, False),
        (f"hostXexample {TEXT}", 22, False),
        (f"{hashed('host.example')} {TEXT}", 22, True),
        (f"{hashed('[host.example]:2222')} {TEXT}", 2222, True),
        (f"{hashed('other.example')} {TEXT}", 22, False),
        (f"|1|broken {TEXT}", 22, False),
        (f"# host.example {TEXT}", 22, False),
        (f"@cert-authority host.example {TEXT}", 22, False),
        (f"@revoked * {TEXT}\nhost.example {TEXT}", 22, False),
        (f"\t host.example\t{TEXT}", 22, True),
        ("host.example ssh-ed25519 !!!!\nhost.example\n\0\n@revoked\n", 22, False),
        (f"host.example ssh-rsa {TEXT.split()[1]}", 22, False),
        (f"host.example {OTHER_TEXT}\nhost.example {TEXT}", 22, True),
        (f"host.example {TEXT}\n[host.example]:2222 {OTHER_TEXT}", 2222, False),
    ],
)
def test_known_hosts_is_read_as_openssh_reads_it(tmp_path: Path, line: str, port: int, accepted: bool) -> None:
    (tmp_path / "known").write_text(line + "\n")
    assert load_trust("Host.Example", port, tmp_path / "known", None).accepts(KEY) is accepted


def test_a_key_known_for_another_port_is_not_alarming(tmp_path: Path) -> None:
    """127.0.0.1:2222 is mostly another machine than 127.0.0.1:22: a container, a tunnel."""
    (tmp_path / "known").write_text(f"127.0.0.1 {OTHER_TEXT}\n")
    assert "not known yet" in str(load_trust("127.0.0.1", 2222, tmp_path / "known", None).refusal(KEY))
    assert "DANGER" in str(load_trust("127.0.0.1", 22, tmp_path / "known", None).refusal(KEY))


def test_a_revoked_key_is_refused_even_if_pinned(tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"@revoked * {TEXT}\n")
    trust = load_trust("host", 22, tmp_path / "known", TEXT)
    assert not trust.accepts(KEY)
    assert "@revoked" in str(trust.refusal(KEY))


def test_the_known_hosts_of_the_user_need_not_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_trust("host", 22, None, None) == Trust("host", 22, frozenset(), source="~/.ssh/known_hosts")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"host {TEXT}\n")
    assert load_trust("host", 22, None, None).accepts(KEY)


# servers that are none, or too old


def says(*parts: bytes) -> int:
    """Port of a server that says this to the first one who connects, and ends the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)

    threading.Thread(target=answer, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"SSH-1.5-OpenSSH_1.2.3\r\n", "speaks only SSH-1 .*have the server updated"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no SSH server .*HTTP/1.1 400.*correct host or port"),
        (b"220 mail.example ESMTP\r\n", "is no SSH server"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "is no SSH server"),
    ],
)
def test_what_is_no_ssh_2_server(words: bytes, message: str) -> None:
    with sftp.open_sftp("127.0.0.1", says(words)) as door, pytest.raises(ConfigurationError, match=message):
        door.list_folder("/")


def test_an_address_that_is_turned_away_is_not_tried_again() -> None:
    with (
        sftp.open_sftp("127.0.0.1", says(b"Not allowed at this time\r\n")) as door,
        pytest.raises(OutsideUnreachable, match="PerSourcePenalties"),
    ):
        door.list_folder("/")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"KexAlgorithms": "diffie-hellman-group1-sha1,diffie-hellman-group14-sha1"},
            "no method of key exchange in common.*KexAlgorithms",
        ),
        ({"Ciphers": "chacha20-poly1305@openssh.com"}, "no cipher in common.*to Ciphers"),
        ({"HostKeyAlgorithms": "ssh-rsa"}, "no type of host key in common.*HostKeyAlgorithms"),
        ({"Ciphers": "aes128-ctr", "MACs": "umac-64@openssh.com"}, "no MAC in common.*to MACs"),
    ],
)
def test_a_server_that_shares_no_algorithm(options: dict[str, str], message: str) -> None:
    with Sshd(**options) as legacy, legacy.open() as door, pytest.raises(ConfigurationError, match=message) as error:
        door.list_folder("/")
    assert "OpenSSH" in str(error.value)


def test_a_login_that_writes_text_first() -> None:
    with (
        Sshd(Subsystem="sftp /bin/sh -c 'echo Welcome to the survey; cat'") as chatty,
        chatty.open() as door,
        pytest.raises(ConfigurationError, match="writes text before SFTP begins"),
    ):
        door.list_folder("/")


def test_a_login_that_ends_at_once() -> None:
    with (
        Sshd(Subsystem="sftp internal-sftp -Z") as closed,
        closed.open() as door,
        pytest.raises(ConfigurationError, match="its SFTP ended at once"),
    ):
        door.list_folder("/")


def test_where_nobody_answers() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with sftp.open_sftp("127.0.0.1", probe.getsockname()[1]) as door:
            began = time.monotonic()
            with pytest.raises(OutsideUnreachable, match="Connection refused"):
                door.list_folder("/")
            assert time.monotonic() - began < 2, "a server that never answered is not waited for"
    with sftp.open_sftp("no-such-host.invalid") as door, pytest.raises(OutsideUnreachable, match="no host named"):
        door.list_folder("/")


def test_a_server_that_stays_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        timeouts = sftp.Timeouts(connect_s=0.5)
        with (
            sftp.open_sftp("127.0.0.1", silent.getsockname()[1], timeouts=timeouts) as door,
            pytest.raises(OutsideUnreachable, match="no SSH handshake came about in time"),
        ):
            door.list_folder("/")


def test_keys_are_loaded_from_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_key(tmp_path / "key")
    assert load_key(Path("~/key"), None).get_name() == "ssh-ed25519"
