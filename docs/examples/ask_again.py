"""A query that outlives sessions: ask_again.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import DisconnectedError, QMPClientFactory


async def query(factory, cmd):
    """Ask until there is an answer. Only for commands that may run twice."""
    while True:
        session = await factory.when_ready()
        try:
            return await session.execute(cmd)
        except DisconnectedError as error:
            print("asking again:", error)


async def main(reactor, where):
    factory = QMPClientFactory(reactor)
    factory.dial(where)
    print(await query(factory, "query-status"))
    await factory.stop()


react(main, sys.argv[1:])
