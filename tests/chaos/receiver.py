"""The receiver of the webhooks, in a process of its own: it fails in every way it can.

What it has received it writes to a file for each path, a post after another: a line of JSON with
its ``size``, its ``id``, and whether it was ``signed``, then the body and a line end. What is in
the file counts as received, whatever was answered.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError
from twisted.internet import endpoints
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web import resource, server

from chaos import helper
from chaos.plan import TIMEOUT


KINDS = ("500", "503", "hang", "late", "cut", "cut, stored", "torn answer", "slow")
"""What it does wrong."""

_STORED = {"late", "cut, stored", "torn answer", "slow"}
"""… after it has stored the post."""

LONGEST = 2.5
"""How long a trouble lasts at most, in seconds, and how long there may be none, …"""
BETWEEN = 6.0
SINGLE = 0.005
"""… and how likely an answer fails for itself."""


class Weather:
    """What is wrong at a moment."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._kind: str | None = None
        self._until = 0.0
        self.calm = False

    def trouble(self) -> str | None:
        """What is to go wrong with this post; ``None`` for nothing."""
        if self.calm:
            return None
        now = time.monotonic()
        if now >= self._until:
            well = self._kind is not None or not self._until
            self._kind = None if well else self._draw.choice(KINDS)
            self._until = now + self._draw.uniform(0.3, BETWEEN if well else LONGEST)
        if self._kind is None and self._draw.random() < SINGLE:
            return self._draw.choice(KINDS)
        return self._kind


class Inbox(resource.Resource):
    """One path, which one sink posts to."""

    isLeaf = True

    def __init__(self, reactor: Any, webhook: Webhook, weather: Weather, record: Path) -> None:
        super().__init__()
        self._reactor = reactor
        self._webhook = webhook
        self._record = record.open("wb")
        self.weather = weather
        self.counts: Counter[str] = Counter()

    def render_POST(self, request: server.Request) -> Any:
        body = request.content.read()
        id = request.getHeader("webhook-id") or ""
        signed = self._is_signed(request, body)
        self.counts["posts"] += 1
        self.counts["not signed"] += not signed
        trouble = self.weather.trouble()
        if trouble is not None:
            self.counts[trouble] += 1
        if trouble is None or trouble in _STORED:
            about = {"size": len(body), "id": id, "signed": signed}
            self._record.write(json.dumps(about).encode() + b"\n" + body + b"\n")
        return self._answer(request, trouble)

    def _is_signed(self, request: server.Request, body: bytes) -> bool:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        try:
            self._webhook.verify(body, {name: request.getHeader(name) or "" for name in names})
        except WebhookVerificationError:
            return False
        return True

    def _answer(self, request: server.Request, trouble: str | None) -> Any:
        if trouble is None:
            return b""
        if trouble in ("500", "503"):
            request.setResponseCode(int(trouble))
            if trouble == "503":
                request.setHeader("Retry-After", "1")
            return b"not now"
        if trouble == "torn answer":
            request.transport.write(b"HTTP/1.1 200 O")
        if trouble in ("cut", "cut, stored", "torn answer"):
            request.transport.abortConnection()
            return server.NOT_DONE_YET
        wait = random.uniform(0.05, 0.5) if trouble == "slow" else TIMEOUT * 1.5
        call = self._reactor.callLater(wait, request.finish)
        request.notifyFinish().addErrback(lambda _: call.cancel() if call.active() else None)
        return server.NOT_DONE_YET

    def end(self) -> None:
        self._record.close()


class Receiver:
    """All paths."""

    def __init__(self, reactor: Any, parameters: dict[str, Any]) -> None:
        self._reactor = reactor
        self._paths: dict[str, Inbox] = {}
        root = resource.Resource()
        webhook = Webhook(parameters["key"])
        for name in parameters["paths"]:
            weather = Weather(random.Random(f"{parameters['seed']} {name}"))
            record = Path(parameters["directory"]) / f"{name}.posts"
            self._paths[name] = path = Inbox(reactor, webhook, weather, record)
            root.putChild(name.encode(), path)
        self.site = server.Site(root)
        self.site.displayTracebacks = False
        # Nothing is written for each request.
        self.site.log = lambda request: None

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        for path in self._paths.values():
            path.weather.calm = True

    def count(self) -> dict[str, dict[str, int]]:
        return {name: dict(path.counts) for name, path in self._paths.items()}

    def end(self) -> None:
        for path in self._paths.values():
            path.end()
        self._reactor.stop()


def main(parameters: dict[str, Any]) -> None:
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    receiver = Receiver(reactor, parameters)
    listening = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        receiver.site
    )
    listening.addCallback(lambda port: helper.answer(port.getHost().port))
    helper.listen({"calm": receiver.calm, "count": receiver.count}, receiver.end)
    reactor.run()  # type: ignore[attr-defined]
