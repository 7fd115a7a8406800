"""Many QEMUs dial one place: accept_many.py SOCKET"""

import sys

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from txqmp import QMPClientFactory, server_endpoint


class VM:
    """One QEMU that has dialled."""

    name = "?"

    def __init__(self, session):
        self.session = session
        session.subscribe(lambda event: print(self.name, event.name))
        ensureDeferred(self.greet()).addErrback(lambda failure: print(failure.value))

    async def greet(self):
        self.name = (await self.session.execute("query-name")).get("name", "?")
        print(self.name, "came")


async def main(reactor, where):
    factory = QMPClientFactory(reactor, max_sessions=None)
    factory.observe(ready=VM, lost=lambda session, error: print("lost:", error))
    await server_endpoint(reactor, where).listen(factory)
    await Deferred()  # until SIGINT or SIGTERM


react(main, sys.argv[1:])
