"""A session that lasts: reconnect.py SOCKET"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from txqmp import Backoff, QMPClientFactory


async def main(reactor, where):
    factory = QMPClientFactory(
        reactor, name="vm1", backoff=Backoff(maximum=30), snapshot=("query-status", "query-jobs")
    )
    factory.subscribe(lambda event: print("event", event.name))
    factory.observe(
        ready=lambda session: print("ready", session.greeting.version),
        lost=lambda session, error: print("lost", error),
        failed=lambda error: print("failed", error),
        gap=lambda gap: print(f"gap {gap.until - gap.since:.1f} s"),
        snapshot=lambda snapshot: print("snapshot", snapshot.results["query-status"]["status"]),
    )
    factory.dial(where)

    session = await factory.when_ready(failures=5)
    print(await session.execute("query-status"))
    await Deferred()  # until SIGINT or SIGTERM


react(main, sys.argv[1:])
