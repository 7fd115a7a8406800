"""Messages as they are: taps, execute_msg, execute_raw: raw_messages.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import connect


def show(direction):
    def tap(message):
        print(direction, bytes(message).decode())
        return message  # or another message, or None to hold it back

    return tap


async def main(reactor, where):
    qmp = await connect(reactor, where)
    qmp.taps.add_outbound(show("->"))
    inbound = qmp.taps.add_inbound(show("<-"))

    message = qmp.make_execute_msg("query-name")
    await qmp.execute_msg({**message, "id": "my own"})

    inbound.cancel()
    reply = await qmp.execute_raw({"execute": "stop", "surprise": 1})
    print(reply["error"]["desc"])
    await qmp.disconnect()


react(main, sys.argv[1:])
