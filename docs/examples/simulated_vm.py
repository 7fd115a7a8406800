"""A simulated VM on a socket, with something happening each second: simulated_vm.py SOCKET"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from txqmp import server_endpoint
from txqmp.testing import SimulatedVM


async def main(reactor, where):
    vm = SimulatedVM(reactor, name="vm1")
    vm.run_demo()
    await server_endpoint(reactor, where).listen(vm)
    await Deferred()  # until SIGINT or SIGTERM


react(main, sys.argv[1:])
