"""Listen, then act: listen_first.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import connect


async def resume(qmp, reactor):
    """Let the VM run, and return the event that says since when it does."""
    with qmp.listen("RESUME") as resumed:
        await qmp.execute("cont")
        return await resumed.get().addTimeout(10, reactor)


async def main(reactor, where):
    qmp = await connect(reactor, where)
    await qmp.execute("stop")
    print("runs since", (await resume(qmp, reactor)).timestamp.datetime())
    await qmp.disconnect()


react(main, sys.argv[1:])
