"""A program that others control by QMP: amplifier.py SOCKET"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from txqmp import server_endpoint
from txqmp.server import CommandError, QMPServerFactory


async def main(reactor, where):
    server = QMPServerFactory(reactor, version=(1, 0, 0), package="amplifier")
    volume = 5

    @server.command("query-volume")
    def query_volume(call):
        return {"volume": volume}

    @server.command("set-volume")
    def set_volume(call, level: int, mute_first: bool = False):
        nonlocal volume
        if not 0 <= level <= 11:
            raise CommandError("Parameter 'level' expects a value between 0 and 11")
        volume = level
        server.send_event("VOLUME_CHANGED", {"volume": level})

    @server.command("warm-up")
    async def warm_up(call, seconds: float = 0.1):
        await deferLater(reactor, seconds)
        return {"warm": True}

    await server_endpoint(reactor, where).listen(server)
    await Deferred()  # until SIGINT or SIGTERM


react(main, sys.argv[1:])
