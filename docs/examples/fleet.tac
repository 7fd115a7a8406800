"""Many VMs in a Twisted application of your own: twistd -n -y fleet.tac"""

import os

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.logger import Logger

from txqmp.fleet import Fleet, GlobSource, Kind


log = Logger("fleet")


def tell(record):
    if record.kind is Kind.EVENT:
        log.info("{vm}: {event}", vm=record.vm, event=record.event.name)
    else:
        log.info("{vm}: {kind}", vm=record.vm, kind=record.kind.value)


application = Application("fleet")
fleet = Fleet(reactor, tell)
fleet.setServiceParent(application)
GlobSource(fleet, os.environ["QMP_GLOB"]).setServiceParent(fleet)
