"""A tab of headless Chromium that a test clicks in: its DevTools protocol over two pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from browser import FLAGS, NAMES

OWN = ("--remote-debugging-pipe", "--autoplay-policy=no-user-gesture-required")
WAIT = 60  # seconds
# Chromium reads from descriptor 3 and writes to 4.
LAUNCH = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])"""


def binary() -> str | None:
    """Where Chromium is; None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page; `do` runs a statement of JavaScript in it and `see` an expression."""

    def __init__(self, write: int, read: int):
        self._out, self._in = os.fdopen(write, "wb"), os.fdopen(read, "rb")
        self._number, self._session = 0, None
        self.problems: list[str] = []  # what the page logged as errors
        self._target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._send(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def see(self, expression: str):
        """The value of an expression, awaited; raises AssertionError if it throws."""
        answer = self._send("Runtime.evaluate", expression=expression, awaitPromise=True,
                            returnByValue=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str):
        """The value of an expression, once it is true."""
        end = time.monotonic() + WAIT
        while not (value := self.see(expression)):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.02)
        return value

    def picture(self, path: Path, **options) -> None:
        data = self._send("Page.captureScreenshot", **options)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def send(self, method: str, **options) -> dict:
        """Any other method of the protocol."""
        return self._send(method, **options)

    def close(self) -> None:
        """As a person closes it."""
        target, self._session = self._target, None
        self._send("Target.closeTarget", targetId=target)

    def quit(self) -> None:
        self._session = None
        with contextlib.suppress(AssertionError, OSError):
            self._send("Browser.close")
        self._out.close()
        self._in.close()

    def _send(self, method: str, **options) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": options}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict:
        text = bytearray()
        while (letter := self._in.read(1)) != b"\0":
            assert letter, "Chromium ended"
            text += letter
        return json.loads(text)

    def _note(self, event: dict) -> None:
        if event["method"] == "Runtime.exceptionThrown":
            self.problems.append(event["params"]["exceptionDetails"]["text"])
        entry = event.get("params", {}).get("entry", {})
        if event["method"] == "Log.entryAdded" and entry["level"] == "error":
            self.problems.append(f"{entry['text']} {entry.get('url', '')}")


@contextlib.contextmanager
def chromium():
    """A Tab of a new Chromium, which ends with the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ends = [str(theirs_in), str(theirs_out)]
        command = [sys.executable, "-c", LAUNCH, *ends, binary(), *FLAGS, *OWN]
        command.append(f"--user-data-dir={folder}/profile")
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdout=quiet, stderr=quiet
        )
        os.close(theirs_in)
        os.close(theirs_out)
        # A browser that hangs would hang the reading of its answers.
        timer = threading.Timer(5 * WAIT, process.kill)
        timer.start()
        tab = None
        try:
            tab = Tab(ours_out, ours_in)
            yield tab
        finally:
            if tab:
                tab.quit()
            process.kill()
            process.wait()
            timer.cancel()
