"""A real browser for tests: headless Chromium, told what to do by the Chrome DevTools protocol over
a pipe, so that no port is opened and no other package is needed.

Every wait has a condition and an end; what the page's console says of errors is kept."""

import json
import os
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)  # nothing but this machine is reached, whatever the machine is
WINDOWS = ((390, 844), (1280, 900))  # a phone and a desk, CSS pixels
CALL_S, WAIT_S = 120, 240  # for one answer of the browser, and for what takes a second or ten
# Chromium reads from descriptor 3 and writes to 4, which are opened in a process of their own.
_ON_3_AND_4 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4)"
_ON_3_AND_4 += "; os.execv(sys.argv[3], sys.argv[3:])"
_FIRST_FREE = 10  # of this process's ends, so that none of them is 3 or 4


class Page:
    """One tab."""

    def __init__(self, outward: int, inward: int) -> None:
        self._outward, self._messages, self._number = outward, Queue(), 0
        self._session, self.errors = None, []
        Thread(target=self._receive, args=(inward,), daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _receive(self, inward: int) -> None:
        kept = b""
        while block := os.read(inward, 1 << 20):
            *whole, kept = (kept + block).split(b"\0")
            for text in whole:
                self._messages.put(json.loads(text))
        self._messages.put(None)

    def call(self, method: str, **parameters: object) -> dict:
        """The browser's answer to one command of the protocol."""
        number = self._send(method, parameters)
        until = time.monotonic() + CALL_S
        while (answer := self._next(until, method)).get("id") != number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _send(self, method: str, parameters: dict) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._outward, json.dumps(message).encode() + b"\0")
        return self._number

    def _next(self, until: float, method: str) -> dict:
        try:
            answer = self._messages.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            raise TimeoutError(f"no answer to {method} in {CALL_S} s") from None
        assert answer is not None, f"the browser ended before it answered {method}"
        return answer

    def _note(self, event: dict) -> None:
        """Keep what the console would show in red; leave a page that asks whether to."""
        about = event.get("params", {})
        if event.get("method") == "Page.javascriptDialogOpening":
            self._send("Page.handleJavaScriptDialog", {"accept": about["type"] == "beforeunload"})
        elif event.get("method") == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            values = (one.get("value", one.get("description")) for one in about["args"])
            self.errors.append(" ".join(map(str, values)))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def value(self, expression: str) -> object:
        """Of a JavaScript expression, a promise's included."""
        ways = {"returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", expression=expression, **ways)
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def holds(self, expression: str, seconds: float) -> object:
        """The expression's value, as soon as it is true, or what it is after that time."""
        until = time.monotonic() + seconds
        while not (found := self.value(expression)) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def wait(self, what: str, expression: str, seconds: float = WAIT_S) -> object:
        """As :meth:`holds`; TimeoutError, which says `what` was waited for, where it is not."""
        if found := self.holds(expression, seconds):
            return found
        seen = self.value("document.body.innerText.slice(-2000)")
        raise TimeoutError(f"no {what} in {seconds:.0f} s; errors {self.errors}\n{seen}")

    def open(self, url: str, width: int, height: int) -> None:
        """Load a page in a window, or on a phone, of this many CSS pixels, and wait for it."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        self.wait("loaded page", "document.readyState == 'complete'")

    def click(self, element: str) -> None:
        """Click, as a mouse does, on the element that an expression gives, once it is there."""
        middle = (
            f"(() => {{ const one = {element}; if (!one) return null;"
            " one.scrollIntoViewIfNeeded(); const box = one.getBoundingClientRect();"
            " if (!box.width || !box.height) return null;"
            " return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        x, y = self.wait(element, middle)
        place = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, key: str, code: int) -> None:
        """Press and release a key by its name and Windows key code."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **about)

    def picture(self, path: Path, whole: bool = False) -> Path:
        """A PNG of what is seen, or of the whole page."""
        taken = self.call(
            "Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole)
        )
        path.write_bytes(b64decode(taken["data"]))
        return path

    def _clip(self, whole: bool) -> dict:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "height": min(size["height"], 16000), "scale": 1}}


def assert_fits(page: Page, width: int) -> None:
    """Nothing of the page sticks out of a window of this width, and no picture is broken."""
    root = "document.documentElement"
    assert page.value(f"[innerWidth, {root}.scrollWidth]") == [width, width]
    assert page.value("[...document.images].filter(one => !one.naturalWidth).length") == 0


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A tab of a browser whose profile lies in `folder`; it ends with the block."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    assert program, "no Chromium here: apt-get install chromium"
    theirs, outward, inward, ours = *os.pipe(), *os.pipe()
    theirs, ours = (_moved_up(one) for one in (theirs, ours))
    start = [sys.executable, "-c", _ON_3_AND_4, str(theirs), str(ours), program, *FLAGS]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [*start, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(theirs, ours),
            stdout=log,
            stderr=log,
        )
    os.close(theirs)
    os.close(ours)
    try:
        page = Page(outward, inward)
        yield page
    finally:
        os.close(outward)  # the browser ends with its pipe
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _moved_up(descriptor: int) -> int:
    import fcntl

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    os.close(descriptor)
    return moved
