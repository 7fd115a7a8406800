"""Posts over TLS, to real servers on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from service_identity import CertificateError
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)

from support.certificates import Authority
from support.leaks import LoggedErrors
from support.outgoing import events
from support.waiting import within
from support.webhook import Raw, Receiver, delivery
from txqmp.monitor.sinks.delivery import UnavailableError
from txqmp.monitor.sinks.settings import ClientTLS
from txqmp.monitor.sinks.webhook.delivery import WebhookDelivery


pytest_plugins = ["support.sessions"]
# Twisted hands them on as they are.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

Serve = Callable[..., Receiver]
Make = Callable[..., WebhookDelivery]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that the receiver does not know."""
    return Authority(tmp_path / "stranger", "somebody else")


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    """Start a receiver with a certificate and its key; with ``clients`` it asks for theirs."""
    started: list[Receiver] = []

    def start(
        pair: tuple[Path, Path] | None = None,
        *,
        clients: Authority | None = None,
        version: int = SSL.TLS1_3_VERSION,
    ) -> Receiver:
        options: dict[str, Any] = {}
        certificate, key = pair or authority.server
        loaded = PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes())
        if clients is not None:
            trusted = [Certificate.loadPEM(clients.trust.read_bytes())]
            options["trustRoot"] = trustRootFromCertificates(trusted)
        tls = CertificateOptions(
            privateKey=loaded.privateKey.original, certificate=loaded.original, **options
        )
        tls.getContext().set_max_proto_version(version)
        started.append(Receiver(tls=tls))
        return started[-1]

    yield start
    for each in started:
        pytest_twisted.blockon(within(each.stop()))


@pytest.fixture
def make(authority: Authority) -> Iterator[Make]:
    """Make deliveries that trust the authority; TLS can be changed by the names of its settings."""
    made: list[WebhookDelivery] = []

    def start(url: str, **changes: Any) -> WebhookDelivery:
        made.append(delivery(url, tls=ClientTLS(**{"ca": str(authority.trust), **changes})))
        return made[-1]

    yield start
    for each in made:
        pytest_twisted.blockon(within(each.stop()))


async def reason(sink: WebhookDelivery) -> str:
    """Why nothing is delivered."""
    with pytest.raises(UnavailableError) as caught:
        await within(sink.deliver(events(1)))
    return caught.value.reason


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_https(host: str, serve: Serve, make: Make) -> None:
    receiver = serve()
    sink = make(receiver.url(host))
    await within(sink.deliver(events(3)))
    assert [each.body for each in receiver.arrived] == [each.text for each in events(3)]
    assert receiver.connections == 1


@pytest_twisted.ensureDeferred
async def test_another_authority(serve: Serve, make: Make, stranger: Authority) -> None:
    receiver = serve()
    why = await reason(make(receiver.url("localhost"), ca=str(stranger.trust)))
    assert why.startswith(
        "the receiver's certificate is not trusted: another authority issued it (unable to get"
    )
    assert receiver.arrived == []


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities(serve: Serve) -> None:
    receiver = serve()
    sink = delivery(receiver.url("localhost"))
    assert "another authority issued it" in await reason(sink)
    await within(sink.stop())


@pytest.mark.parametrize("names", [["elsewhere.example"], []], ids=["another", "none"])
@pytest_twisted.ensureDeferred
async def test_another_name(
    names: list[str],
    serve: Serve,
    make: Make,
    authority: Authority,
    logged_errors: LoggedErrors,
) -> None:
    receiver = serve(authority.server_for("elsewhere", *names))
    assert await reason(make(receiver.url("localhost"))) == (
        "the receiver's certificate is for another name"
    )
    assert receiver.arrived == []
    # Twisted logs that there is no name, and goes on.
    assert len(logged_errors.flush(CertificateError)) == (0 if names else 1)


@pytest_twisted.ensureDeferred
async def test_an_address_that_is_not_in_it(serve: Serve, make: Make, authority: Authority) -> None:
    receiver = serve(authority.server_for("named", "localhost"))
    assert await reason(make(receiver.url())) == "the receiver's certificate is for another name"


@pytest.mark.parametrize(
    ("days", "why"),
    [((-3, -2), "the receiver's certificate has expired"), ((1, 2), "is not valid yet")],
)
@pytest_twisted.ensureDeferred
async def test_another_time(
    days: tuple[float, float], why: str, serve: Serve, make: Make, authority: Authority
) -> None:
    receiver = serve(authority.server_for("old", "localhost", days=days))
    assert (await reason(make(receiver.url("localhost")))).endswith(why)
    assert receiver.arrived == []


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest_twisted.ensureDeferred
async def test_client_certificates(
    version: int, serve: Serve, make: Make, authority: Authority, stranger: Authority
) -> None:
    receiver = serve(clients=authority, version=version)
    url = receiver.url("localhost")
    certificate, key = map(str, authority.client)
    await within(make(url, certificate=certificate, key=key).deliver(events(1)))
    assert len(receiver.arrived) == 1
    words = "refused the TLS handshake: it may want a client certificate"
    if version == SSL.TLS1_3_VERSION:
        words = "wants a client certificate"
    assert (await reason(make(url))).startswith(f"the receiver {words} (")
    certificate, key = map(str, stranger.client)
    why = await reason(make(url, certificate=certificate, key=key))
    assert "does not trust the authority of the client certificate" in why
    certificate, key = map(str, authority.client_for("old", days=(-3, -2)))
    why = await reason(make(url, certificate=certificate, key=key))
    assert why.startswith("the client certificate has expired")
    assert len(receiver.arrived) == 1


@pytest_twisted.ensureDeferred
async def test_tls_where_there_is_none(make: Make) -> None:
    raw = Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    why = await reason(make(raw.url("localhost").replace("http:", "https:")))
    assert why.startswith("what answers there does not speak TLS")
    await raw.stop()


@pytest_twisted.ensureDeferred
async def test_no_tls_where_there_is_some(serve: Serve) -> None:
    sink = delivery(serve().url("localhost").replace("https:", "http:"))
    why = await reason(sink)
    assert why in (
        "what answers there does not speak HTTP",
        "the receiver closed the connection without an answer (Connection was closed cleanly)",
    )
    await within(sink.stop())


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
@pytest_twisted.ensureDeferred
async def test_files_that_are_not_there(
    which: str, serve: Serve, make: Make, authority: Authority, tmp_path: Path
) -> None:
    receiver = serve()
    file = tmp_path / "file.pem"
    certificate, key = map(str, authority.client)
    files = {"certificate": certificate, "key": key, which: str(file)}
    sink = make(receiver.url("localhost"), **files)
    assert await reason(sink) == f"cannot read {file}: No such file or directory"
    file.write_bytes(b"nothing of this kind")
    assert (await reason(sink)).startswith(f"{file} holds no ")
    assert receiver.connections == 0


@pytest_twisted.ensureDeferred
async def test_files_are_read_anew_for_a_new_connection(
    serve: Serve, make: Make, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(stranger.trust.read_bytes())
    sink = make(serve().url("localhost"), ca=str(file))
    assert "another authority issued it" in await reason(sink)
    file.write_bytes(authority.trust.read_bytes())
    await within(sink.deliver(events(1)))


@pytest_twisted.ensureDeferred
async def test_reopening_makes_a_new_connection(
    serve: Serve, make: Make, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.trust.read_bytes())
    receiver = serve()
    sink = make(receiver.url("localhost"), ca=str(file))
    await within(sink.deliver(events(1)))
    file.write_bytes(stranger.trust.read_bytes())
    await within(sink.deliver(events(1)))
    sink.reopen()
    assert "another authority issued it" in await reason(sink)
    assert receiver.connections == 2
    assert len(receiver.arrived) == 2


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_never_ends() -> None:
    raw = Raw()
    sink = delivery(raw.url("localhost").replace("http:", "https:"), timeout=0.2)
    assert await reason(sink) == "connected, but no answer within 0.2 s"
    await within(raw.lost)
    await within(sink.stop())
    await raw.stop()


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_never_closes(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, make: Make, serve: Serve
) -> None:
    """TLS is closed by both sides: one that hangs is not waited for without end."""
    monkeypatch.setattr("txqmp.monitor.sinks.webhook.connection.CLOSING", 0.1)
    monkeypatch.setattr(SSL.Connection, "shutdown", lambda self: False)
    sink = make(serve().url("localhost"))
    await within(sink.deliver(events(1)))
    await within(sink.stop())
