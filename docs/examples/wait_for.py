"""Wait for the end of a VM: wait_for.py SOCKET [SECONDS]"""

import sys

from twisted.internet.task import react

from txqmp import EventTimeoutError, connect


async def main(reactor, where, seconds="60"):
    qmp = await connect(reactor, where)
    try:
        event = await qmp.wait_for("SHUTDOWN", timeout=float(seconds))
    except EventTimeoutError:
        print("it still runs")
    else:
        print("it ends:", event.data["reason"])
    await qmp.disconnect()


react(main, sys.argv[1:])
