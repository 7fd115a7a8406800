"""Take the picture of the status page that the documentation has: of a real daemon that watches
real QEMUs, one of whose receivers is down.

``python tests/support/screenshot.py docs/images/monitor-page.png`` needs QEMU and a Chromium, and
takes three minutes.
"""

from __future__ import annotations

import random
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path


if __name__ == "__main__":  # then its own directory is on the path, and this is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from support.browser import Browser
from support.daemon import Daemon
from support.qemu import RealQEMU


NAMES = ("web-1", "web-2", "db", "mail", "ci-runner")

SECONDS = 170
"""How long something happens before the picture is taken: the rate is to have a shape."""

CONFIG = """
[monitor]
node = "node7.example"
state_dir = "state"
[http]
listen = "tcp:0"
[[source]]
listen = "{here}/in.sock"
[[source]]
dial = "{held}"
name = "backup"
[[source]]
dial = "{here}/build.sock"
name = "build"
[[sink]]
name = "archive"
type = "jsonl"
path = "events.jsonl"
[[sink]]
name = "ops"
type = "webhook"
url = "http://127.0.0.1:9/qmp"
allow_plaintext = true
"""


def happen(machines: list[RealQEMU], seconds: float) -> None:
    """Let things happen, now more and now less."""
    rng = random.Random(4)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        busy = 1.0 + 3.0 * (0.3 < left / seconds < 0.5)
        vm = rng.choice(machines)
        running = vm.execute("query-status")["running"]
        vm.execute(rng.choice(("stop", "stop", "system_reset")) if running else "cont")
        time.sleep(rng.expovariate(2.0 * busy))


def main(path: Path) -> None:
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="txqmp-")))
        held = stack.enter_context(RealQEMU())
        holder = stack.enter_context(socket.socket(socket.AF_UNIX))
        holder.connect(held.path())
        config = here / "qmp-monitor.toml"
        config.write_text(CONFIG.format(here=here, held=held.path()))
        daemon = stack.enter_context(Daemon("--config", str(config), runner=None))
        daemon.wait_for_log("the status page is at ")
        chardev = f"socket,id=m,path={here}/in.sock,reconnect=1"
        dial = ("-chardev", chardev, "-mon", "m,mode=control")
        machines = [stack.enter_context(RealQEMU("-name", name, *dial)) for name in NAMES]
        happen(machines, SECONDS)
        machines.pop().execute("quit")
        happen(machines, 3)
        url = daemon.log.partition("the status page is at ")[2].split()[0]
        browser = stack.enter_context(Browser())
        page = browser.open(url, width=1280, height=1240)
        page.wait_for("document.getElementById('event-rows').rows.length >= 100")
        page.wait_for("document.getElementById('connection').dataset.state === 'connected'")
        page.wait_for("document.querySelectorAll('#chart polyline').length === 1")
        page.screenshot(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
