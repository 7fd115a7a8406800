"""Callbacks for events: events.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import connect


async def main(reactor, where):
    qmp = await connect(reactor, where)

    everything = qmp.subscribe(lambda event: print("any:", event.name))
    qmp.subscribe(print, "BLOCK_*", "JOB_*")
    qmp.subscribe(print, "SHUTDOWN", where={"guest": True})
    qmp.subscribe(print, "JOB_STATUS_CHANGE", where=lambda event: event.data["id"] == "job0")

    @qmp.on_event("STOP", "RESUME")
    async def report(event):
        status = await qmp.execute("query-status")
        print(event.name, event.timestamp.datetime(), status["status"])

    await qmp.execute("cont")
    await qmp.execute("stop")
    await qmp.execute("query-status")

    everything.cancel()
    print(everything.failures, "failed,", everything.dropped, "dropped")
    await qmp.disconnect()


react(main, sys.argv[1:])
