"""Where to post: what is taken, and what is refused."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from txqmp.monitor.signature import SigningKey
from txqmp.monitor.sinks.settings import ClientTLS, WebhookSettings, shown


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://ops.example", (True, "ops.example", 443)),
        ("https://ops.example/", (True, "ops.example", 443)),
        ("https://ops.example:8443/a/b?c=d&e=%20", (True, "ops.example", 8443)),
        ("HTTPS://OPS.Example?x=a@b//c", (True, "ops.example", 443)),
        ("https://[2001:db8::1]:1/", (True, "2001:db8::1", 1)),
        ("https://192.0.2.1/", (True, "192.0.2.1", 443)),
        ("http://localhost/", (False, "localhost", 80)),
        ("http://127.1.2.3:8080/", (False, "127.1.2.3", 8080)),
        ("http://[::1]/", (False, "::1", 80)),
    ],
)
def test_places(url: str, place: tuple[bool, str, int]) -> None:
    settings = WebhookSettings(url=url)
    assert (settings.secure, settings.host, settings.port) == place


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ops.example", "//ops.example/", "ftp://ops.example/", "https:ops.example"),
        *("https://", "https:///x", "https://:443/", "https://ops.example:/", "https://a:b/"),
        *("https://ops.example:0/", "https://ops.example:65536/", "https://ops.example:123456/"),
        *("https://ops example/", "https://ops.example/a b", "https://ops.example/\n"),
        *("https://ops.example/\r\nX: y", "https://b\u00fccher.example/", "https://a/\u00fc"),
        *("https://ops.example/#part", "https://[::1/", "https://[::1]x/", "https://[:::1]/"),
        *("https://[1.2.3.4]/", "https://ops.example\\x/", "https://a%2e/", " https://a/"),
        *("https://[fe80::1%25eth0]/", "https://ops.example:\u0661/"),
    ],
)
def test_no_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"^this (is no URL|URL has no valid)"):
        WebhookSettings(url=url)


@pytest.mark.parametrize(
    "url",
    ["https://user:swordfish@host/", "https://user@host", "https://:@host/", "http://a@b:80?c"],
)
def test_no_passwords(url: str) -> None:
    with pytest.raises(ValueError, match="with a user or a password") as caught:
        WebhookSettings(url=url)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["ops.example", "10.0.0.1", "localhost.example", "127.1", "0x7f.1", "[::ffff:7f00:1]"]
)
def test_others_need_tls_or_leave_to_do_without(host: str) -> None:
    with pytest.raises(ValueError, match="is another host: that needs https, or allow_plaintext"):
        WebhookSettings(url=f"http://{host}/")
    assert not WebhookSettings(url=f"http://{host}/", allow_plaintext=True).secure


def test_tls_is_for_https() -> None:
    with pytest.raises(ValueError, match="does not use TLS"):
        WebhookSettings(url="http://localhost/", tls=ClientTLS())
    assert WebhookSettings(url="https://localhost/", tls=ClientTLS()).tls == ClientTLS()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"authorization": ""}, "authorization"),
        ({"authorization": "Bearer a\r\nb: c"}, "authorization"),
        ({"authorization": " Bearer"}, "authorization"),
        ({"authorization": "Bearer \u00e9"}, "authorization"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"batch": 0}, "batch"),
        ({"batch": 1001}, "batch"),
        ({"allow": ["10.0.0.0/8"]}, "'10.0.0.0/8' is no network"),
        ({"deny": [1]}, "1 is no network"),
    ],
    ids=str,
)
def test_what_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        WebhookSettings(url="https://ops.example/", **changes)
    assert "Bearer" not in str(caught.value)


def test_nothing_secret_is_shown() -> None:
    settings = WebhookSettings(
        url="https://ops.example/qmp?token=swordfish",
        authorization="Bearer swordfish",
        signing_keys=(SigningKey(b"swordfish" * 3),),
        deny=(ip_network("10.0.0.0/8"),),
    )
    assert "swordfish" not in repr(settings)
    assert "url='https://ops.example/qmp'" in repr(settings)


def test_shown() -> None:
    assert shown("https://user:password@host:8443/a/b?c=d#e") == "https://host:8443/a/b"
    assert shown("http://[::1]:80/") == "http://[::1]:80/"
