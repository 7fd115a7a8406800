"""Where the broker is: what is taken, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from support.amqp import settings
from txqmp.monitor.sinks.amqp import AMQPTLS, AMQPSettings


TLS = AMQPTLS(ca="/ca.pem", certificate="/cert.pem", key="/key.pem")


def test_the_port_follows_tls() -> None:
    assert settings().port == 5672
    assert settings(tls=AMQPTLS()).port == 5671
    assert settings(port=1, tls=AMQPTLS()).port == 1


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, "amqp://localhost:5672"),
        ({"host": "mq.example", "tls": TLS}, "amqps://mq.example:5671"),
        ({"host": "::1"}, "amqp://[::1]:5672"),
    ],
)
def test_the_place_has_no_secrets(changes: dict[str, Any], place: str) -> None:
    assert settings(**changes).place == place


def test_the_password_is_not_shown() -> None:
    assert "swordfish" not in repr(settings())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_may_do_without_tls(host: str) -> None:
    assert settings(host=host).host == host


@pytest.mark.parametrize("host", ["mq.example", "10.0.0.1", "localhost.example"])
def test_others_need_tls_or_leave_to_do_without(host: str) -> None:
    with pytest.raises(ValueError, match=f"{host} is another host: that needs TLS"):
        settings(host=host)
    assert settings(host=host, tls=AMQPTLS())
    assert settings(host=host, allow_plaintext=True)


def test_somebody_must_say_who_we_are() -> None:
    assert AMQPSettings(host="mq.example", tls=TLS).user is None
    for tls in (None, AMQPTLS()):
        with pytest.raises(ValueError, match="there must be a client certificate"):
            AMQPSettings(host="localhost", tls=tls)


@pytest.mark.parametrize("half", [{"certificate": "/cert.pem"}, {"key": "/key.pem"}])
def test_a_certificate_and_its_key_go_together(half: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a client certificate needs its key"):
        AMQPTLS(**half)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"host": ""}, "the host must have 1 to 255 bytes"),
        ({"vhost": "ü" * 128}, "the vhost must have 1 to 255 bytes"),
        ({"exchange": ""}, "the exchange must have 1 to 127 bytes"),
        ({"exchange": "x" * 128}, "the exchange must have 1 to 127 bytes"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"window": 0}, "window"),
        ({"connect_timeout": 0.0}, "connect_timeout"),
        ({"heartbeat": -1}, "heartbeat"),
        ({"blocked_timeout": 0.0}, "blocked_timeout"),
        ({"confirm_timeout": 0.0}, "confirm_timeout"),
    ],
    ids=str,
)
def test_what_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**changes)
