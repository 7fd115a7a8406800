"""A monitor over TLS: the ``tls:`` endpoint and ``wrapClientTLS``, under a private authority."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from support.certificates import Authority
from support.qemu import RealQEMU
from support.sessions import Dial, MakeFactory
from support.waiting import within
from txqmp import (
    Backoff,
    ConnectError,
    ConnectFailure,
    DescriptorError,
    QMPProtocol,
    RunState,
    SessionSettings,
    Timeouts,
)


pytest_plugins = ["support.sessions"]

# Twisted's endpoint strings for certificates.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

StartTLS = Callable[..., tuple[RealQEMU, int]]


@pytest.fixture
def authority(place: Path) -> Authority:
    return Authority(place / "pki")


@pytest.fixture
def start_tls(qemu_factory: Callable[..., RealQEMU], authority: Authority) -> StartTLS:
    """Start a QEMU with a monitor over TLS; return it and the port."""

    def start(*, verify: bool = False, port: int = 0) -> tuple[RealQEMU, int]:
        credentials = f"tls-creds-x509,id=creds,endpoint=server,dir={authority.directory}"
        address = f"host=127.0.0.1,port={port},server=on,wait=off,tls-creds=creds"
        qemu = qemu_factory(
            *("-object", f"{credentials},verify-peer={'on' if verify else 'off'}"),
            *("-chardev", f"socket,id=tls,{address}", "-mon", "chardev=tls,mode=control"),
        )
        chardevs = qemu.execute("query-chardev")
        (name,) = (each["filename"] for each in chardevs if each["label"] == "tls")
        return qemu, int(name.partition(",")[0].rpartition(":")[2])

    return start


def where(port: int, authority: Authority, *, host: str = "127.0.0.1", client: bool = False) -> str:
    """The endpoint string."""
    trusted = authority.directory.parent / "trusted"
    if not trusted.exists():
        trusted.mkdir()
        (trusted / "ca.pem").write_bytes(authority.trust.read_bytes())
    text = f"tls:{host}:{port}:trustRoots={trusted}"
    if client:
        certificate, key = authority.client
        text += f":certificate={certificate}:privateKey={key}"
    return text


async def works(session: QMPProtocol) -> None:
    with session.listen("RESUME", "STOP") as events:
        await session.execute("cont")
        await session.execute("stop")
        assert len(events) == 2
    assert len(await session.execute("query-qmp-schema")) > 1000


@pytest_twisted.ensureDeferred
async def test_endpoint_string(start_tls: StartTLS, authority: Authority, dial: Dial) -> None:
    _, port = start_tls()
    session = await dial(where(port, authority))
    await works(session)
    with open("/dev/null", "rb") as null, pytest.raises(DescriptorError, match="UNIX sockets only"):
        await session.execute("add-fd", fds=[null])
    await session.disconnect()
    await works(await dial(where(port, authority, host="localhost")))


@pytest_twisted.ensureDeferred
async def test_wrapped_endpoint(start_tls: StartTLS, authority: Authority, dial: Dial) -> None:
    _, port = start_tls()
    trust = trustRootFromCertificates([Certificate.loadPEM(authority.trust.read_bytes())])
    options = optionsForClientTLS("localhost", trustRoot=trust)
    endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, "127.0.0.1", port))
    session = await dial(endpoint)
    await works(session)
    assert await session.execute("quit") == {}
    await within(session.when_state(RunState.IDLE))
    await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_every_byte_is_read(start_tls: StartTLS, authority: Authority, dial: Dial) -> None:
    """QEMU takes a byte of a TLS record, and for the rest of it needs a nudge: each command must
    be answered although nothing follows it, be it a part of a record or more than one."""
    _, port = start_tls()
    session = await dial(where(port, authority))
    for size in (100, 20_000, 70_000):
        line = {"command-line": "x" * size}
        answer = await session.execute("human-monitor-command", line, timeout=20)
        assert "unknown command" in answer
    assert await session.execute("query-yank", oob=True, timeout=20)
    many = [session.execute("query-status", timeout=20) for _ in range(100)]
    assert len(await gatherResults(many)) == 100
    session.write_raw(b'{"execute": "query-name", "id": "raw"}')
    assert (await session.execute("query-status", timeout=20))["running"] is False
    assert session.pending.unknown_replies == 1


@pytest_twisted.ensureDeferred
async def test_client_certificate(start_tls: StartTLS, authority: Authority, dial: Dial) -> None:
    _, port = start_tls(verify=True)
    await works(await dial(where(port, authority, client=True)))


@pytest_twisted.ensureDeferred
async def test_client_without_a_certificate(
    start_tls: StartTLS, authority: Authority, dial: Dial
) -> None:
    _, port = start_tls(verify=True)
    with pytest.raises(ConnectError) as caught:
        await dial(where(port, authority))
    assert caught.value.phase == "greeting"
    await works(await dial(where(port, authority, client=True)))


@pytest_twisted.ensureDeferred
async def test_unknown_authority(start_tls: StartTLS, place: Path, dial: Dial) -> None:
    _, port = start_tls()
    stranger = Authority(place / "stranger")
    with pytest.raises(ConnectError, match="certificate verify failed") as caught:
        await dial(where(port, stranger))
    assert caught.value.phase == "greeting"


@pytest_twisted.ensureDeferred
async def test_another_name(start_tls: StartTLS, authority: Authority, dial: Dial) -> None:
    _, port = start_tls()
    trust = trustRootFromCertificates([Certificate.loadPEM(authority.trust.read_bytes())])
    options = optionsForClientTLS("elsewhere.example", trustRoot=trust)
    with pytest.raises(ConnectError) as caught:
        await dial(wrapClientTLS(options, HostnameEndpoint(reactor, "127.0.0.1", port)))
    assert caught.value.phase == "greeting"


@pytest_twisted.ensureDeferred
async def test_without_tls(start_tls: StartTLS, dial: Dial) -> None:
    """QEMU waits for the handshake, and we for the greeting."""
    _, port = start_tls()
    settings = SessionSettings(timeouts=Timeouts(greeting=0.2))
    with pytest.raises(ConnectError) as caught:
        await dial(("127.0.0.1", port), settings=settings)
    assert caught.value.kind is ConnectFailure.SILENT


@pytest_twisted.ensureDeferred
async def test_restarted(
    start_tls: StartTLS, authority: Authority, make_factory: MakeFactory
) -> None:
    qemu, port = start_tls()
    factory = make_factory(backoff=Backoff(initial=0.01, maximum=0.1))
    factory.dial(where(port, authority))
    session = await within(factory.when_ready())
    qemu.kill()
    await within(session.when_state(RunState.IDLE))
    start_tls(port=port)
    await works(await within(factory.when_ready()))
    assert factory.sessions_begun == 2
