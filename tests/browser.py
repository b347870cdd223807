"""A headless Chromium that shows a page and answers what is on it, over DevTools' pipe."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 120


class Navigated(Exception):  # noqa: N818  not an error of the page
    """The page was left for another one while an expression was evaluated."""


class Browser:
    """One page.

    Args:
        call: sends a command of the DevTools protocol, and returns its result.
    """

    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self._call = call

    def show(self, url: str, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Open a page in a window of a size, with a colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(Navigated):
                if value := self.evaluate(script):
                    return value
            time.sleep(0.05)
        raise AssertionError(f"never: {script}")

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def picture(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A context with a browser.

    Args:
        profile: where it keeps its files.
    """
    assert CHROMIUM
    (commands, write), (read, answers) = os.pipe(), os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    command = [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"]
    place = (
        f"import os, sys; os.dup2({commands}, 3); os.dup2({answers}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        [sys.executable, "-c", place, *command], pass_fds=(commands, answers), start_new_session=True, **quiet
    )
    os.close(commands)
    os.close(answers)
    number = 0
    with process, os.fdopen(write, "wb", 0) as sent, os.fdopen(read, "rb") as received:

        def call(method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
            nonlocal number
            number += 1
            message = {"id": number, "method": method, "params": parameters}
            sent.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
            while True:
                answer = json.loads(_until_zero(received))
                if answer.get("id") == number:
                    if "navigated" in answer.get("error", {}).get("message", ""):
                        raise Navigated
                    assert "error" not in answer, answer
                    return dict(answer["result"])

        try:
            target = call("Target.createTarget", url="about:blank")["targetId"]
            session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            yield Browser(lambda method, **parameters: call(method, session, **parameters))
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _until_zero(file: Any) -> bytes:
    parts = bytearray()
    while (byte := file.read(1)) != b"\0":
        assert byte, "the browser has ended"
        parts += byte
    return bytes(parts)
