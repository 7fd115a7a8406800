"""A real Chromium, spoken to over a pair of pipes (Chrome DevTools Protocol), with nothing but the
standard library.

Not with ``--dump-dom``, which returns before a stream has said anything, nor with
``--virtual-time-budget``, which waits for the end of the stream.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.programs import require


#: How long to wait for what should come soon, in seconds: a busy machine is no failure.
LIMIT = 40.0

#: How often to look again, in seconds.
EVERY = 0.05

_OPTIONS = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    # Whatever it wants from elsewhere, it does not get it.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
]

Message = dict[str, Any]


class Browser:
    """A running Chromium. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        program = require("chromium", package="chromium")
        self._directory = tempfile.mkdtemp(prefix="txqmp-chromium-")
        self._numbers = itertools.count(1)
        self._answers: dict[int, Message] = {}
        self._pages: dict[str, Page] = {}
        self._data = b""
        # From 10 on, so that none of them is 3 or 4, which Chromium wants them to be.
        theirs_in, self._out = map(_high, os.pipe())
        self._in, theirs_out = map(_high, os.pipe())

        def place() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        options = [*_OPTIONS, f"--user-data-dir={self._directory}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # it refuses to run as root with one
        self._process = subprocess.Popen(
            [program, *options, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._directory},
            close_fds=False,  # ours are not inherited anyway, but 3 and 4 are to be
            preexec_fn=place,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, url: str, *, width: int = 1280, height: int = 900) -> Page:
        """Open a page."""
        page = self._attach(self.call("Target.createTarget", url="about:blank")["targetId"])
        for domain in ("Page", "Runtime", "Log", "Performance"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.violations = []; document.addEventListener('securitypolicyviolation',"
            " (event) => window.violations.push(event.violatedDirective))",
        )
        page.call("Page.navigate", url=url)
        deadline = time.monotonic() + LIMIT
        while not page.loaded:
            assert self._read(deadline), f"{url} is not loaded"
        return page

    def close_pages(self) -> None:
        """Close all pages."""
        targets = self.call("Target.getTargets")["targetInfos"]
        pages = {each["targetId"] for each in targets if each["type"] == "page"}
        for target in pages:
            self.call("Target.closeTarget", targetId=target)
        self._pages.clear()

    def frames(self) -> list[Page]:
        """Return the frames of pages that are from other sites than the pages are."""
        targets = self.call("Target.getTargets")["targetInfos"]
        return [self._attach(each["targetId"]) for each in targets if each["type"] == "iframe"]

    def _attach(self, target: str) -> Page:
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Have something done; return the result."""
        number = next(self._numbers)
        message: Message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + LIMIT
        while number not in self._answers:
            assert self._read(deadline), f"no answer to {method}"
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _read(self, deadline: float) -> bool:
        """Read some messages, when there are any; return whether there were."""
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._in], [], [], left)[0]:
            return False
        data = os.read(self._in, 1 << 20)
        assert data, "Chromium has ended"
        *texts, self._data = (self._data + data).split(b"\0")
        for text in texts:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif message.get("sessionId") in self._pages:
                self._pages[message["sessionId"]].happened(message["method"], message["params"])
        return True

    def close(self) -> None:
        """End it, and remove what it left."""
        if not self._ended():
            os.write(self._out, b'{"id":0,"method":"Browser.close"}\0')
        os.close(self._out)
        # It is not reaped yet: until then nobody else can get its number, nor its group's.
        deadline = time.monotonic() + 10
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(EVERY)
        os.killpg(self._process.pid, signal.SIGKILL)  # its own processes may outlive it
        self._process.wait()
        os.close(self._in)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ended(self) -> bool:
        return (
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        )


class Page:
    """A page in a browser.

    :ivar loaded: whether it has come, with its script.
    :ivar problems: what its console said that is not well: errors, warnings, exceptions.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.loaded = False
        self.problems: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """Have something done to this page; return the result."""
        return self._browser.call(method, self._session, **parameters)

    def happened(self, method: str, details: Message) -> None:
        """The browser tells of something."""
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(details["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.problems.append(json.dumps(details["args"]))
        elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            entry = details["entry"]
            self.problems.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    @property
    def violations(self) -> list[str]:
        """What the page tried that its security policy does not allow."""
        found: list[str] = self.evaluate("window.violations")
        return found

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        found: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        return found

    def wait_for(self, expression: str, accept: Callable[[Any], bool] = bool) -> Any:
        """Return the value of an expression when it is what is accepted."""
        deadline = time.monotonic() + LIMIT
        while not accept(value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"{expression} is still {value!r}"
            time.sleep(EVERY)
        return value

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Change the size of the window; a phone has no mouse, and a sharper screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def prefer(self, scheme: str) -> None:
        """Prefer ``"light"`` or ``"dark"``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def memory(self) -> tuple[int, int]:
        """Return the size of the script's memory in bytes, and the number of nodes, after tidying
        up."""
        self.call("HeapProfiler.collectGarbage")
        metrics = self.call("Performance.getMetrics")["metrics"]
        values = {each["name"]: int(each["value"]) for each in metrics}
        return values["JSHeapUsedSize"], values["Nodes"]

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
        path.write_bytes(base64.b64decode(data))


def _high(descriptor: int) -> int:
    """Give a descriptor a number that nobody else wants."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
