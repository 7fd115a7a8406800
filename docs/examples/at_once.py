"""Many commands at once, one out of band, one given up: at_once.py SOCKET"""

import sys

from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import react

from txqmp import connect


async def main(reactor, where):
    qmp = await connect(reactor, where)
    names = ["query-name", "query-version", "query-status", "query-uuid"]
    answers = await gatherResults([qmp.execute(name) for name in names], consumeErrors=True)
    for name, answer in zip(names, answers, strict=True):
        print(name, answer)

    if qmp.oob_enabled:
        await qmp.execute("query-yank", oob=True)

    waiting = qmp.execute("query-status")
    waiting.cancel()
    try:
        await waiting
    except CancelledError:
        print("gave up")
    await qmp.disconnect()


react(main, sys.argv[1:])
