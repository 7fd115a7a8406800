"""Run a block job to its end: block_job.py SOCKET"""

import sys

from twisted.internet.task import react

from txqmp import connect


async def mirror(qmp, source, target, job):
    """Copy one block node to another, and return when the copy is complete."""
    mine = {"id": job}
    where = {"device": source, "target": target}
    with qmp.listen("JOB_STATUS_CHANGE", where=mine) as changes:
        await qmp.execute(
            "blockdev-mirror", {**where, "job-id": job, "sync": "full", "auto-dismiss": False}
        )
        status = ""
        while status != "concluded":
            status = (await changes.get()).data["status"]
            print(job, status)
            if status == "ready":
                await qmp.execute("job-complete", mine)
    jobs = {each["id"]: each for each in await qmp.execute("query-jobs")}
    await qmp.execute("job-dismiss", mine)
    if "error" in jobs[job]:
        raise RuntimeError(jobs[job]["error"])


async def main(reactor, where):
    qmp = await connect(reactor, where)
    for name in ("one", "two"):
        await qmp.execute("blockdev-add", {"driver": "null-co", "node-name": name, "size": 1 << 20})
    await mirror(qmp, "one", "two", "copy")
    print("done")
    await qmp.disconnect()


react(main, sys.argv[1:])
