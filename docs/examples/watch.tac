"""A VM's events in a Twisted application's log: twistd -n -y watch.tac"""

import os

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.logger import Logger

from txqmp import QMPClientFactory, QMPService


log = Logger("watch")
factory = QMPClientFactory(reactor, name="vm1")
factory.subscribe(lambda event: log.info("{event}", event=event))

application = Application("watch")
QMPService(reactor, os.environ["QMP"], factory).setServiceParent(application)
