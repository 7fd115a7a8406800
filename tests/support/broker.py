"""A private RabbitMQ: a node with an ``epmd`` of its own, on loopback only."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.certificates import Authority
from support.programs import find, require
from support.waiting import wait_stopped


PACKAGE = "rabbitmq-server"

#: The user that may do anything, and what it must say.
USER, PASSWORD = "qmp", "swordfish"

#: The user that may write to the exchange ``qmp`` and nothing else, with the same password.
WRITER = "writer"

#: Where nobody but the administrator may go.
CLOSED_VHOST = "closed"

#: How long the broker has to start and to end, in seconds: a busy machine is no failure.
LIMIT = 60.0

# Debian's program on the path is a wrapper, which changes the user and then runs this one.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")

_STARTED = "Starting broker... completed"


class RabbitMQ:
    """A RabbitMQ node with an ``epmd`` of its own, in a directory of its own.

    :ivar port: for AMQP.
    :ivar tls_port: for AMQP over TLS, where a client certificate is asked for and looked at.
    :ivar authority: who issues the certificates; the user of its client is ``client``.
    """

    def __init__(self) -> None:
        self._server = _program("rabbitmq-server")
        self._control = _program("rabbitmqctl")
        self._epmd_program = require("epmd", package="erlang-base")
        self._directory = tempfile.TemporaryDirectory(prefix="txqmp-rabbitmq-")
        self.authority = Authority(self.directory / "pki")
        self.port, self.tls_port, distribution, self._epmd_port = _free_ports(4)
        self._environment = self._configure(distribution)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> Path:
        return Path(self._directory.name)

    @property
    def output(self) -> str:
        """What the node wrote since its last start."""
        path = self.directory / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Its life

    def start(self) -> RabbitMQ:
        """Start the node, anew if it has ended, and return when it takes connections."""
        if self._epmd is None:
            # The node would start one that outlives it.
            self._epmd = subprocess.Popen(
                [self._epmd_program, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment,
            )
        with open(self.directory / "output.log", "wb") as output:
            self._node = subprocess.Popen(
                [self._server],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self.directory,
            )
        deadline = time.monotonic() + LIMIT
        while _STARTED not in self.output:
            if self._node.poll() is not None or time.monotonic() > deadline:
                problem = f"RabbitMQ does not start. It wrote:\n{self.output}"
                self.stop()
                raise RuntimeError(problem)
            time.sleep(0.05)
        return self

    def would_remember(self, queue: str) -> bool:
        """Whether a quorum queue would be there after a crash.

        RabbitMQ writes down that there is one half a second after it was declared; killed before
        that, it comes back with an empty one that never works (rabbitmq-server issue 10070).
        """
        (names,) = self.directory.glob("mnesia/*/quorum/*/names.dets")
        return queue.encode() in names.read_bytes()

    def kill(self) -> None:
        """End the node with SIGKILL, as a crash would; what is on its disk stays."""
        assert self._node is not None
        self._node.kill()
        self._node.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process for a while: it keeps its connections and answers nothing."""
        assert self._node is not None
        self._node.send_signal(signal.SIGSTOP)
        wait_stopped(self._node.pid)
        try:
            yield
        finally:
            self._node.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the node and its ``epmd``, by force if need be, and remove the directory."""
        node, self._node = self._node, None
        epmd, self._epmd = self._epmd, None
        if node is not None and node.poll() is None:
            node.terminate()
            if not _ended(node, LIMIT / 4):
                node.kill()
            node.wait()
        if epmd is not None:
            epmd.kill()
            epmd.wait()
        self._directory.cleanup()

    # What a test does behind the back of what it tests

    def control(self, *words: str) -> None:
        """Run ``rabbitmqctl``, which takes half a second."""
        subprocess.run(
            [self._control, "-q", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment,
            timeout=LIMIT,
            check=True,
        )

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel of pika's blocking connection, for one with all permissions."""
        from pika import BlockingConnection, ConnectionParameters, PlainCredentials

        credentials = PlainCredentials(USER, PASSWORD)
        parameters = ConnectionParameters("127.0.0.1", self.port, "/", credentials)
        with BlockingConnection(parameters) as connection:
            yield connection.channel()

    def _configure(self, distribution: int) -> dict[str, str]:
        """Write the configuration; return the environment."""
        here = self.directory
        (here / "definitions.json").write_text(json.dumps(_definitions()))
        (here / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        certificate, key = self.authority.server
        lines = [
            f"listeners.tcp.default = 127.0.0.1:{self.port}",
            f"listeners.ssl.default = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {self.authority.trust}",
            f"ssl_options.certfile = {certificate}",
            f"ssl_options.keyfile = {key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
            "ssl_cert_login_from = common_name",
            "auth_mechanisms.1 = PLAIN",
            "auth_mechanisms.2 = EXTERNAL",
            "max_message_size = 1048576",
            "disk_free_limit.absolute = 50MB",
            f"load_definitions = {here}/definitions.json",
        ]
        (here / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(here),  # where the cookie goes
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": "txqmp@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(here / "mnesia"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_PID_FILE": str(here / "pid"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # No busy waiting: other tests run beside.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} +sbwt none +sbwtdio none",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            # Has the script become the node, so that its pid is the one to end.
            "RUNNING_UNDER_SYSTEMD": "1",
        }


class Queue:
    """A durable queue that is bound to an exchange."""

    def __init__(self, broker: RabbitMQ, name: str) -> None:
        self._broker = broker
        self.name = name

    def take(self, count: int) -> list[Any]:
        """Return so many messages, and remove them; fewer if there are no more.

        They are what pika calls them: triples of method, properties and body.
        """
        taken: list[Any] = []
        with self._broker.channel() as channel:
            channel.basic_qos(prefetch_count=1000)
            for message in channel.consume(self.name, inactivity_timeout=2):
                if message[0] is not None:
                    taken.append(message)
                    channel.basic_ack(message[0].delivery_tag)
                if message[0] is None or len(taken) == count:
                    break
            channel.cancel()
        return taken

    def ids(self, count: int) -> list[str]:
        """Return the ids of so many messages, and remove them."""
        return [properties.message_id for _, properties, _ in self.take(count)]

    def __len__(self) -> int:
        """How many messages are in it."""
        with self._broker.channel() as channel:
            count: int = channel.queue_declare(self.name, passive=True).method.message_count
        return count


def is_installed() -> bool:
    """Whether there is a RabbitMQ to start."""
    return (_PROGRAMS / "rabbitmq-server").exists() or find("rabbitmq-server") is not None


def _program(name: str) -> str:
    inside = _PROGRAMS / name
    return str(inside) if inside.exists() else require(name, package=PACKAGE)


def _definitions() -> dict[str, Any]:
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    write = {"configure": "^$", "write": "^qmp$", "read": "^$"}
    allowed = [("client", everything), (USER, everything), (WRITER, write)]
    return {
        "users": [
            {
                "name": name,
                "password_hash": _hashed(PASSWORD),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for name, _ in allowed
        ],
        "vhosts": [{"name": "/"}, {"name": CLOSED_VHOST}],
        "permissions": [{"user": name, "vhost": "/", **what} for name, what in allowed],
        "exchanges": [
            {
                "name": "qmp",
                "vhost": "/",
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
        ],
    }


def _hashed(password: str) -> str:
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _free_ports(count: int) -> list[int]:
    """Ports that are free on loopback now; nothing else can be asked of RabbitMQ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until a child of ours has ended; return whether it has."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
