"""The same with inlineCallbacks: inline_callbacks.py /run/vm1/qmp.sock"""

import sys

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import react

from txqmp import connect


@inlineCallbacks
def main(reactor, where):
    qmp = yield connect(reactor, where)
    status = yield qmp.execute("query-status")
    print(status["status"])
    yield qmp.disconnect()


react(main, sys.argv[1:])
