"""``--http`` of a real daemon that watches real QEMUs: for programs, and in a real Chromium."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.browser import Browser
from support.daemon import LIMIT, Daemon
from support.qemu import RealQEMU
from support.told import Told, ids


pytest_plugins = ["support.sessions"]
pytestmark = pytest.mark.timeout(240)

#: A VM's name, as somebody may choose it who means no good.
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"

ROWS = "document.getElementById('event-rows').rows"
CONNECTED = "document.getElementById('connection').dataset.state === 'connected'"


class Served:
    """A daemon with a status page.

    :param port: where; any by default.
    """

    def __init__(self, *words: str, port: int = 0) -> None:
        self.daemon = Daemon(*words, "--http", f"tcp:{port}", runner=None)
        self.daemon.wait_for_log("the status page is at ")
        found = re.search(r"the status page is at (http://127\.0\.0\.1:(\d+)/)", self.daemon.log)
        assert found is not None, self.daemon.log
        self.url, self.port = found[1], int(found[2])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.close()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)

    def get(self, path: str) -> tuple[int, bytes]:
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def status(self) -> Any:
        code, body = self.get("/api/v1/status")
        assert code == 200
        return json.loads(body)


class Stream:
    """A client of ``/events``."""

    def __init__(self, served: Served, *, after: int | None = None, last: str = "") -> None:
        self._connection = served.connect()
        query = "" if after is None else f"?after={after}"
        headers = {"Last-Event-ID": last} if last else {}
        self._connection.request("GET", f"/events{query}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self.hello = json.loads(self.next("hello")["data"])

    def next(self, event: str = "message") -> dict[str, str]:
        """The next message, which must be one of this kind."""
        found = {"event": "message"}
        while True:
            line = self._answer.readline().decode().rstrip("\n")
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                found[name] = value
            elif "data" in found:
                assert found["event"] == event, found
                return found

    def told(self) -> Told:
        message = self.next()
        told = Told.read(message["data"])
        assert told.number == int(message["id"])
        return told

    def until(self, name: str) -> list[Told]:
        """What comes, up to an event."""
        found = [self.told()]
        while found[-1].name != name:
            found.append(self.told())
        return found

    def close(self) -> None:
        self._connection.close()


def test_what_there_is(qemu: RealQEMU, tmp_path: Path) -> None:
    with Served(f"a={qemu.path()}", "--node", "node7", "--state-dir", str(tmp_path)) as served:
        served.daemon.expect("a", "snapshot")
        qemu.execute("cont")
        served.daemon.expect("a", "RESUME")
        status = served.status()
        assert status["node"] == "node7"
        (vm,) = status["vms"]
        assert (vm["name"], vm["state"], vm["sequence"], vm["events"]) == ("a", "up", 3, 1)
        (sink,) = status["sinks"]
        assert (sink["name"], sink["kind"], sink["state"]) == ("stdout", "stdout", "up")
        assert status["spool"]["events"] == status["feed"]["last"] == 3
        assert served.get("/healthz")[0] == served.get("/readyz")[0] == 200
        code, body = served.get("/metrics")
        assert code == 200
        metrics = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line[0] != "#")
        assert float(metrics['txqmp_events_received_total{event="RESUME"}']) == 1
        assert float(metrics['txqmp_sink_sent_events_total{sink="stdout"}']) == 3
        assert float(metrics["txqmp_spool_commit_duration_seconds_count"]) >= 1
        assert served.daemon.stop() == 0
        assert "Traceback" not in served.daemon.log
        with pytest.raises(ConnectionRefusedError):
            served.get("/readyz")


def test_ready_when_the_spool_is(qemu: RealQEMU, tmp_path: Path) -> None:
    with Served(f"a={qemu.path()}", "--state-dir", str(tmp_path)) as served:
        served.daemon.expect("a", "snapshot")
        served.daemon.stop()
    # Somebody holds the database, and the daemon waits for it.
    db = sqlite3.connect(tmp_path / "spool" / "spool.db", isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    with closing(db), Served(f"a={qemu.path()}", "--state-dir", str(tmp_path)) as served:
        code, body = served.get("/readyz")
        assert (code, served.get("/healthz")[0]) == (503, 200)
        assert b"spool" in body
        assert served.status()["feed"]["last"] == 0
        db.execute("ROLLBACK")
        db.close()
        served.daemon.expect("a", "snapshot")
        assert served.get("/readyz")[0] == 200
        assert served.daemon.stop() == 0


def test_a_stream_goes_on_after_a_restart(qemu: RealQEMU, tmp_path: Path) -> None:
    words = (f"a={qemu.path()}", "--state-dir", str(tmp_path))
    with Served(*words) as served:
        served.daemon.expect("a", "snapshot")
        stream = Stream(served, after=0)
        identity = stream.hello["feed"]
        qemu.execute("cont")
        came = stream.until("RESUME")
        last = came[-1]
        qemu.execute("stop")
        served.daemon.expect("a", "STOP")
        stream.close()
        assert served.daemon.stop() == 0
        told = served.daemon.records
    assert ids(came) == ids(told[:3])
    with Served(*words) as served:
        served.daemon.expect("a", "snapshot")
        stream = Stream(served, last=str(last.number))
        assert stream.hello["feed"] == identity
        more = stream.until("snapshot")
        # What it had missed before, and then what is new.
        assert ids(more) == [*ids(told[3:]), *ids(served.daemon.records)]
        qemu.execute("cont")
        assert stream.told().name == "RESUME"
        # A client that stays does not hold up the end.
        assert served.daemon.stop() == 0
        stream.close()


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.mark.browser
def test_the_page(chromium: Browser, qemu_factory: Callable[..., RealQEMU], place: Path) -> None:
    words = ("--listen", f"unix:{place}/in.sock", "--state-dir", str(place / "state"))
    with Served(*words, "--node", "node7") as served:
        chardev = f"socket,id=m,path={place}/in.sock,reconnect=1"
        qemu = qemu_factory(
            "-name", f"guest={MARKUP}", "-chardev", chardev, "-mon", "m,mode=control"
        )
        served.daemon.expect(MARKUP, "snapshot")
        page = chromium.open(served.url)
        page.wait_for(CONNECTED)
        page.wait_for(f"{ROWS}.length === 2")
        for number in range(3):
            qemu.execute(("cont", "stop")[number % 2])
            page.wait_for(f"{ROWS}.length === {3 + number}")
        names = page.evaluate(f"[...{ROWS}].map((row) => row.cells[2].textContent)")
        assert names == ["RESUME", "STOP", "RESUME", "snapshot", "connected"]
        vms = page.evaluate(f"[...{ROWS}].map((row) => row.cells[1].textContent)")
        assert vms == [MARKUP] * 5
        assert page.text("#vm-rows td:first-child") == MARKUP
        assert page.evaluate("document.querySelectorAll('img, b, iframe, object').length") == 0
        assert page.text("h1") == "qmp-monitor on node7"
        page.wait_for("document.querySelectorAll('#chart polyline').length === 1")
        assert page.problems == []
        assert page.violations == []
        # It comes back when the daemon does, and has missed nothing.
        assert served.daemon.stop() == 0
        page.wait_for(f"!({CONNECTED})")
        port = served.port
    with Served(*words, port=port):
        page.wait_for(CONNECTED)
        page.wait_for(f"{ROWS}.length === 9")
        names = page.evaluate(f"[...{ROWS}].map((row) => row.cells[2].textContent)")
        assert names[:4] == ["snapshot", "gap", "connected", "disconnected"]
    assert all(each.startswith("network: ") for each in page.problems)
    chromium.close_pages()
