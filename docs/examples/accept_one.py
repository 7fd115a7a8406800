"""QEMU dials us, once: accept_one.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import listen


async def main(reactor, where):
    qmp = await listen(reactor, where).addTimeout(60, reactor)
    print(await qmp.execute("query-status"))
    await qmp.execute("quit")


react(main, sys.argv[1:])
