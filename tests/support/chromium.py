"""Headless Chromium, driven over its debugging pipe: keys, taps, screens, screenshots.

Messages of the DevTools protocol, JSON with a zero byte behind each, on the file
descriptors 3 and 4; so that no port is opened and no package needed.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe "
    # this machine alone: no name resolves, and all else meets a closed port
    "--proxy-server=http://127.0.0.1:9 --proxy-bypass-list=<-loopback>;127.0.0.1"
).split()
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "u": 85}


def find() -> str | None:
    """The path of a browser, None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. `events` holds what it said: console, exceptions, requests."""

    def __init__(self, send: int, receive: int):
        self._send, self._receive, self._held = send, receive, b""
        self._numbers, self.events = itertools.count(1), []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for name in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{name}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the page, and what it answers."""
        return self._call(method, self._session, **params)

    def _call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._receive], [], [], 60)
            assert ready, "the browser does not answer"
            part = os.read(self._receive, 1 << 16)
            assert part, "the browser has ended"
            self._held += part
        line, self._held = self._held.split(b"\0", 1)
        return json.loads(line)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, a phone's below 600 pixels, and its colours."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "mobile": phone},
            deviceScaleFactor=2 if phone else 1,
        )
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features["prefers-reduced-motion"] = "reduce"  # a screenshot is of the end
        listed = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """Of JavaScript, in the page."""
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        result = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 20) -> None:
        """Until JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"not so: {expression}"
            time.sleep(0.02)

    def key(self, name: str) -> None:
        """Presses and lets go of a key."""
        for kind in ("rawKeyDown", "keyUp"):
            given = {"key": name, "windowsVirtualKeyCode": KEYS[name]}
            self.call("Input.dispatchKeyEvent", type=kind, **given)

    def click(self, selector: str) -> None:
        """A click into the middle of an element."""
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'});"
            "const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2];"
            "})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            place = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def screenshot(self, path: pathlib.Path) -> np.ndarray:
        """(h, w, 3) uint8, also written as PNG."""
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        path.write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def said(self) -> list[str]:
        """What went wrong: exceptions, errors on the console, requests that failed."""
        self.value("1")
        wrong = (
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
        )
        return [json.dumps(e) for e in self.events if e.get("method") in wrong]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        sent = [
            e for e in self.events if e.get("method") == "Network.requestWillBeSent"
        ]
        return [e["params"]["request"]["url"] for e in sent]


@contextlib.contextmanager
def browser(profile: pathlib.Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    (read_3, send), (receive, write_4) = os.pipe(), os.pipe()
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    # Chromium reads from 3 and writes to 4, whatever the numbers are here.
    shell = f'exec "$0" "$@" 3<&{read_3} 4>&{write_4}'
    process = subprocess.Popen(
        ["bash", "-c", shell, find(), *flags],
        pass_fds=(read_3, write_4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_3)
    os.close(write_4)
    try:
        yield Browser(send, receive)
    finally:
        os.close(send)
        process.terminate()
        process.wait(timeout=20)
        os.close(receive)
