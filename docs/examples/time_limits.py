"""Time limits of a session, of a command by name, and of one call: time_limits.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import SessionSettings, Timeouts, connect
from txqmp.timeouts import COMMAND_TIMEOUTS


LIMITS = Timeouts(
    connect=2,
    greeting=5,
    negotiation=5,
    command=20,
    commands={**COMMAND_TIMEOUTS, "query-migrate": 30, "screendump": None},
)


async def main(reactor, where):
    qmp = await connect(reactor, where, settings=SessionSettings(timeouts=LIMITS))
    await qmp.execute("query-status")  # 20 s
    await qmp.execute("query-migrate")  # 30 s
    await qmp.execute("query-block-jobs")  # 600 s, from COMMAND_TIMEOUTS
    await qmp.execute("query-status", timeout=None)  # no limit
    print("all in time")
    await qmp.disconnect()


react(main, sys.argv[1:])
