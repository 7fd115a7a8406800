"""Hand an open file to QEMU: descriptors.py /run/vm1/qmp.sock"""

import os
import sys

from twisted.internet.task import react

from txqmp import connect


async def main(reactor, where):
    qmp = await connect(reactor, where)
    null = os.open(os.devnull, os.O_RDWR)
    added = qmp.execute("add-fd", {"fdset-id": 1, "opaque": "nothing"}, fds=[null])
    os.close(null)  # at once, if you like: a duplicate travels
    await added
    for fdset in await qmp.execute("query-fdsets"):
        print(fdset["fdset-id"], [fd["opaque"] for fd in fdset["fds"]])
    await qmp.disconnect()


react(main, sys.argv[1:])
