"""Where it happens: the directory, the daemon and its configuration, and the broker's queue."""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from chaos.plan import SINGLES, TIMEOUT, name_of
from support.broker import PASSWORD, USER, RabbitMQ
from support.daemon import RUNNERS
from txqmp.monitor.spool import Reader, SinkState, SpoolState, SpoolStorageError


#: How long the daemon has to begin and to end, in seconds: a busy machine is no failure.
LIMIT = 60.0

QUEUE = "chaos"

FILE, BATCHES, SINGLE, BUS = "file", "batches", "single", "bus"
"""The sinks."""

_CONFIG = """
[monitor]
node = "chaos.example"
state_dir = "{here}/state"

[spool]
max_bytes = "8GiB"
keep_bytes = "8GiB"

[[source]]
listen = "unix:{here}/dial-in.sock:mode=600"

[[source]]
glob = ["{here}/vms/*.sock"]

[[sink]]
name = "{file}"
type = "jsonl"
path = "{here}/events.jsonl"

[[sink]]
name = "{batches}"
type = "webhook"
url = "http://127.0.0.1:{port}/{batches}"
mode = "batched"
batch = 500
signing_keys = [{{ file = "{here}/signing.key" }}]
timeout = "{timeout:g}s"

[[sink]]
name = "{single}"
type = "webhook"
url = "http://127.0.0.1:{port}/{single}"
vms = [{vms}]
signing_keys = [{{ file = "{here}/signing.key" }}]
timeout = "{timeout:g}s"
"""

_BUS = """
[[sink]]
name = "{bus}"
type = "amqp"
host = "127.0.0.1"
port = {port}
exchange = "qmp"
user = "{user}"
password = {{ file = "{here}/broker.password" }}
"""


class Place:
    """
    The files of a run, in a directory of its own.

    :param here: an empty directory.

    :ivar key: what posts are signed with.
    """

    def __init__(self, here: Path) -> None:
        self.here = here
        self.key = "whsec_" + base64.b64encode(random.randbytes(32)).decode()
        (here / "vms").mkdir()
        self.state_directory.mkdir(mode=0o700)
        for name, secret in (("signing.key", self.key), ("broker.password", PASSWORD)):
            path = here / name
            path.touch(mode=0o600)
            path.write_text(secret)

    @property
    def config(self) -> Path:
        return self.here / "config.toml"

    @property
    def state_directory(self) -> Path:
        return self.here / "state"

    @property
    def dial_in(self) -> str:
        return str(self.here / "dial-in.sock")

    @property
    def record(self) -> Path:
        """What the VMs write down."""
        return self.here / "raised.json"

    @property
    def lines(self) -> Path:
        """The file that the daemon appends to."""
        return self.here / "events.jsonl"

    def posts(self, sink: str) -> Path:
        """What the receiver of a webhook writes down."""
        return self.here / f"{sink}.posts"

    def configure(self, port: int, broker: RabbitMQ | None) -> None:
        """
        Write the configuration.

        :param port: the receiver's.
        """
        text = _CONFIG.format(
            here=self.here,
            port=port,
            file=FILE,
            batches=BATCHES,
            single=SINGLE,
            timeout=TIMEOUT,
            vms=", ".join(f'"{name_of(number)}"' for number in range(SINGLES)),
        )
        if broker is not None:
            text += _BUS.format(here=self.here, bus=BUS, port=broker.port, user=USER)
        self.config.write_text(text)

    # The spool, which others may write to

    @property
    def spool(self) -> str:
        (found,) = self.state_directory.glob("**/spool.db")
        return str(found.parent)

    def state(self) -> SpoolState | None:
        """How the spool stands; ``None`` where that cannot be told yet."""
        try:
            with Reader(self.spool) as reader:
                return reader.state()
        except (SpoolStorageError, ValueError):
            return None

    def sinks(self) -> dict[str, SinkState]:
        """How the sinks stand, by name."""
        state = self.state()
        return {} if state is None else {sink.name: sink for sink in state.sinks}


class Daemon:
    """
    The daemon, one life of it after another.

    :ivar lives: how often it was started.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._log = (place.here / "daemon.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self.lives = 0

    def start(self) -> None:
        self.lives += 1
        words = ["qmp-monitor", "--config", str(self._place.config)]
        self._process = subprocess.Popen(
            [sys.executable, *RUNNERS["twistd"], *words],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "TMPDIR": str(self._place.here)},
            # Ctrl-C is for whoever started it, who ends it in its turn.
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end; return what it ended with."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(LIMIT)

    def close(self) -> None:
        if self.is_running:
            self.kill()
        self._log.close()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def declare(broker: RabbitMQ) -> None:
    """Have a quorum queue that all events go to."""
    with broker.channel() as channel:
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(QUEUE, "qmp", "#")


def messages(broker: RabbitMQ) -> Iterator[tuple[str, bytes]]:
    """The ids and the bodies of what is in the queue, which is removed."""
    with broker.channel() as channel:
        count = channel.queue_declare(QUEUE, passive=True).method.message_count
        if not count:
            return
        channel.basic_qos(prefetch_count=2000)
        for method, properties, body in channel.consume(QUEUE, inactivity_timeout=LIMIT):
            if method is None:
                raise RuntimeError(f"{count} messages in the queue do not come")
            yield properties.message_id, body
            count -= 1
            if not count or count % 1000 == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if not count:
                break
        channel.cancel()
