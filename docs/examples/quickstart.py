"""Print a VM's state, let it run, and print what happens: quickstart.py /run/vm1/qmp.sock"""

import sys

from twisted.internet.task import deferLater, react

from txqmp import connect


async def main(reactor, where):
    qmp = await connect(reactor, where)
    qmp.subscribe(print)
    print(await qmp.execute("query-status"))
    await qmp.execute("cont")
    await deferLater(reactor, 1)
    await qmp.disconnect()


react(main, sys.argv[1:])
