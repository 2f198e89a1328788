"""Headless Chromium, told what to do over a pipe (Chrome DevTools Protocol): no driver, no port."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One page of one browser."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM
        command_read, self._write = _pipe()
        self._read, answer_write = _pipe()
        options = f"--headless=new --no-sandbox --disable-gpu --disable-breakpad --user-data-dir={profile}"
        line = f'exec "{CHROMIUM}" {options} --remote-debugging-pipe --window-size=900,700 about:blank'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",  # dash takes only one-digit descriptors
                f"{line} 3<&{command_read} 4>&{answer_write}",
            ],
            pass_fds=(command_read, answer_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_read)
        os.close(answer_write)
        self._numbers = itertools.count(1)
        self._unread = b""
        self.complaints: list[str] = []
        self._session: str | None = None
        self._session = self._attach()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)
        os.close(self._read)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: the browser and its children
        self._process.wait()

    def open(self, address: str) -> None:
        """Go there and wait until the page is loaded."""
        self.ask("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, code: str, seconds: float = 30) -> None:
        """Until the expression holds."""
        deadline = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < deadline, f"never: {code}; {self.complaints}"
            time.sleep(0.05)

    def choose_file(self, selector: str, path: Path) -> None:
        """Hand a file to an <input type=file>, as its dialog would."""
        document = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self) -> bytes:
        """PNG of what is seen."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def ask(self, method: str, **parameters: Any) -> Any:
        """One command and its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _attach(self) -> str:
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.ask(f"{domain}.enable")
        return self._session

    def _next(self) -> Any:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "the browser does not answer"
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser has ended"
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.complaints.append(event["params"]["entry"]["text"])


def _pipe() -> tuple[int, int]:
    """A pipe clear of the descriptors 3 and 4, which the browser will have for it."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]
