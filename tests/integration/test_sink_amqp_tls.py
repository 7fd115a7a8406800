"""Events to a real RabbitMQ over TLS, where the client certificate says who we are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from support.certificates import Authority
from support.outgoing import events
from support.rabbitmq import PASSWORD, USER, MakeQueue, MakeSink, RabbitMQ
from support.waiting import within
from txqmp.monitor.sinks.amqp import AMQPTLS
from txqmp.monitor.sinks.delivery import UnavailableError


pytest_plugins = ["support.rabbitmq"]
pytestmark = [
    pytest.mark.timeout(180),
    # Twisted hands them on as they are.
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
]


def tls(authority: Authority, **changes: Any) -> AMQPTLS:
    """TLS in which all is as it should be, but for the changes."""
    certificate, key = authority.client
    usual = {"ca": str(authority.trust), "certificate": str(certificate), "key": str(key)}
    return AMQPTLS(**{**usual, **changes})


@pytest.fixture
def authority(rabbitmq: RabbitMQ) -> Authority:
    return rabbitmq.authority


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that the broker does not know."""
    return Authority(tmp_path / "stranger", "somebody else")


def external(authority: Authority, rabbitmq: RabbitMQ, **changes: Any) -> dict[str, Any]:
    """Settings for TLS without a password."""
    where = {"host": "localhost", "port": rabbitmq.tls_port, "user": None, "password": ""}
    return {**where, "tls": tls(authority, **changes)}


@pytest_twisted.ensureDeferred
async def test_external(
    authority: Authority, rabbitmq: RabbitMQ, make_queue: MakeQueue, make_sink: MakeSink
) -> None:
    queue = make_queue()
    sink = make_sink(**external(authority, rabbitmq))
    assert sink.name.startswith("amqps://localhost:")
    await within(sink.deliver(events(200)))
    await within(sink.deliver(events(200, start=200)))
    assert queue.ids(400) == [each.id for each in events(400)]
    await within(sink.stop())


@pytest_twisted.ensureDeferred
async def test_by_address_and_with_a_password(
    authority: Authority, rabbitmq: RabbitMQ, make_queue: MakeQueue, make_sink: MakeSink
) -> None:
    queue = make_queue()
    login = {"host": "127.0.0.1", "user": USER, "password": PASSWORD}
    sink = make_sink(**{**external(authority, rabbitmq), **login})
    await within(sink.deliver(events(1)))
    assert len(queue) == 1


@pytest_twisted.ensureDeferred
async def test_certificates_may_come_in_a_chain(
    authority: Authority,
    stranger: Authority,
    rabbitmq: RabbitMQ,
    make_queue: MakeQueue,
    make_sink: MakeSink,
    tmp_path: Path,
) -> None:
    make_queue()
    authorities, chain = tmp_path / "authorities.pem", tmp_path / "chain.pem"
    authorities.write_bytes(stranger.trust.read_bytes() + authority.trust.read_bytes())
    chain.write_bytes(authority.client[0].read_bytes() + authority.trust.read_bytes())
    changes = {"ca": str(authorities), "certificate": str(chain)}
    sink = make_sink(**external(authority, rabbitmq, **changes))
    await within(sink.deliver(events(1)))


async def reason(make_sink: MakeSink, **changes: Any) -> str:
    """Why nothing is delivered."""
    with pytest.raises(UnavailableError) as caught:
        await within(make_sink(**changes).deliver(events(1)))
    return caught.value.reason


@pytest_twisted.ensureDeferred
async def test_another_authority(
    authority: Authority, stranger: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink
) -> None:
    changes = external(authority, rabbitmq, ca=str(stranger.trust))
    assert await reason(make_sink, **changes) == (
        "the broker's certificate is not trusted: another authority issued it"
        " (self-signed certificate in certificate chain)"
    )


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities(
    authority: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink
) -> None:
    changes = external(authority, rabbitmq, ca=None)
    assert (await reason(make_sink, **changes)).startswith("the broker's certificate is not tr")


@pytest_twisted.ensureDeferred
async def test_another_name(authority: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink) -> None:
    changes = external(authority, rabbitmq, server_name="elsewhere.example")
    assert await reason(make_sink, **changes) == "the broker's certificate is for another name"


@pytest_twisted.ensureDeferred
async def test_no_client_certificate(
    authority: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink
) -> None:
    changes = external(authority, rabbitmq, certificate=None, key=None)
    login = {"user": USER, "password": PASSWORD}
    assert (await reason(make_sink, **{**changes, **login})).startswith(
        "the broker wants a client certificate ("
    )


@pytest_twisted.ensureDeferred
async def test_a_client_certificate_of_another_authority(
    authority: Authority, stranger: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink
) -> None:
    certificate, key = map(str, stranger.client)
    changes = external(authority, rabbitmq, certificate=certificate, key=key)
    assert (await reason(make_sink, **changes)).startswith(
        "the broker does not trust the authority of the client certificate ("
    )


@pytest_twisted.ensureDeferred
async def test_tls_where_there_is_none(
    authority: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink
) -> None:
    changes = {**external(authority, rabbitmq), "port": rabbitmq.port}
    assert (await reason(make_sink, **changes)).startswith("what answers there does not speak TLS")


@pytest_twisted.ensureDeferred
async def test_no_tls_where_there_is_some(rabbitmq: RabbitMQ, make_sink: MakeSink) -> None:
    assert await reason(make_sink, port=rabbitmq.tls_port) == "what answers there speaks TLS"


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
@pytest_twisted.ensureDeferred
async def test_files_that_are_not_what_they_should_be(
    which: str, authority: Authority, rabbitmq: RabbitMQ, make_sink: MakeSink, tmp_path: Path
) -> None:
    file = tmp_path / f"{which}.pem"
    changes = external(authority, rabbitmq, **{which: str(file)})
    assert await reason(make_sink, **changes) == f"cannot read {file}: No such file or directory"
    file.write_bytes(b"nothing of this kind")
    what = "key" if which == "key" else "certificate"
    assert (await reason(make_sink, **changes)).startswith(f"{file} holds no {what} in PEM form")
    if which == "key":
        file.write_bytes(authority.server[1].read_bytes())
        assert "or another one" in await reason(make_sink, **changes)
        file.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
        assert await reason(make_sink, **changes) == f"{file} is encrypted: the key must not be"
    else:
        file.write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        assert "cannot be read" in await reason(make_sink, **changes)


@pytest_twisted.ensureDeferred
async def test_files_are_read_anew(
    authority: Authority,
    stranger: Authority,
    rabbitmq: RabbitMQ,
    make_queue: MakeQueue,
    make_sink: MakeSink,
    tmp_path: Path,
) -> None:
    """As they are when a certificate was replaced because it is about to expire."""
    make_queue()
    file = tmp_path / "ca.pem"
    file.write_bytes(stranger.trust.read_bytes())
    sink = make_sink(**external(authority, rabbitmq, ca=str(file)))
    with pytest.raises(UnavailableError, match="is not trusted"):
        await within(sink.deliver(events(1)))
    file.write_bytes(authority.trust.read_bytes())
    await within(sink.deliver(events(1)))
