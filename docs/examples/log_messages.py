"""Log a session's messages, without passwords: log_messages.py SOCKET"""

import sys
from contextlib import suppress

from twisted.internet.task import react
from twisted.logger import LogLevel, globalLogBeginner, textFileLogObserver

from txqmp import ExecuteError, connect
from txqmp.taps import log_messages


async def main(reactor, where):
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    qmp = await connect(reactor, where, name="vm1")
    qmp.taps.add_outbound(log_messages(qmp.log, "->", LogLevel.info))
    qmp.taps.add_inbound(log_messages(qmp.log, "<-", LogLevel.info))
    with suppress(ExecuteError):
        await qmp.execute("set_password", {"protocol": "vnc", "password": "swordfish"})
    await qmp.disconnect()


react(main, sys.argv[1:])
