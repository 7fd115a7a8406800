"""Run a block job to its end: block_job.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import connect


async def mirror(qmp, source, target, job):
    """Copy one block node to another, and return when the copy is complete."""
    mine = {"id": job}
    with qmp.listen("JOB_STATUS_CHANGE", where=mine) as changes:
        await qmp.execute(
            "blockdev-mirror",
            {"job-id": job, "device": source, "target": target, "sync": "full"},
        )
        async for change in changes:
            print(job, change.data["status"])
            if change.data["status"] == "ready":
                await qmp.execute("job-complete", mine)
            if change.data["status"] == "null":
                return


async def main(reactor, where):
    qmp = await connect(reactor, where)
    for name in ("one", "two"):
        await qmp.execute("blockdev-add", {"driver": "null-co", "node-name": name, "size": 1 << 20})
    await mirror(qmp, "one", "two", "copy")
    await qmp.disconnect()


react(main, sys.argv[1:])
