"""Signatures, with the library of the standard's own people as the other end."""

from __future__ import annotations

import base64
import time
import traceback
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from txqmp.monitor.signature import HEADERS, TOLERANCE, SignatureError, SigningKey, headers, verify


NOW = 1614265330.9
TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = SigningKey.parse(TEXT)
OTHER = SigningKey(b"o" * 24)
ID = "8f3c1d2a9b7e4c60-00000000000000004711"
BODY = b'{"test": 2432232314}'
SIGNED = headers([KEY], ID, NOW, BODY)

SECRETS = st.binary(min_size=24, max_size=64)
IDS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="."), min_size=1
)
BODIES = st.text().map(str.encode)


def text_of(secret: bytes) -> str:
    return f"whsec_{base64.b64encode(secret).decode()}"


# Keys


def test_the_example_of_the_standard() -> None:
    signature = KEY.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(SECRETS)
def test_a_key_from_its_text(secret: bytes) -> None:
    key = SigningKey.parse(f" {text_of(secret)}\n")
    assert key.sign(ID, 1, BODY) == SigningKey(secret).sign(ID, 1, BODY)


@pytest.mark.parametrize("size", [24, 64])
def test_sizes_of_keys(size: int) -> None:
    SigningKey.parse(text_of(b"x" * size))


@pytest.mark.parametrize("size", [0, 1, 23, 65, 1000])
def test_other_sizes(size: int) -> None:
    with pytest.raises(ValueError, match=f"24 to 64 bytes, and not {size}$"):
        SigningKey.parse(text_of(b"x" * size))
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        SigningKey(b"x" * size)


SECRET = base64.b64encode(bytes(range(200, 232))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f"WHSEC_{SECRET}",
        f"whsk_{SECRET}",
        f"whsec_ {SECRET}",
        f"whsec_{SECRET[:-1]}",
        f"whsec_{SECRET[:-2]}",
        f"whsec_{SECRET}=",
        f"whsec_{SECRET[:-2]}/=",
        f"whsec_{SECRET[:20]}\n{SECRET[20:]}",
        f"whsec_{SECRET.replace('+', '-').replace('/', '_')}",
        f"whsec_é{SECRET}",
        f"whsec_\ud800{SECRET}",
    ],
)
def test_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="signing key") as raised:
        SigningKey.parse(text)
    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET[:8] not in shown


def test_keys_can_be_compared() -> None:
    key = SigningKey(bytes(range(32)))
    assert key == SigningKey(bytes(range(32)))
    assert hash(key) == hash(SigningKey(bytes(range(32))))
    assert key != SigningKey(bytes(range(1, 33)))
    assert key != bytes(range(32))


def test_a_key_is_not_shown() -> None:
    secret = bytes(range(65, 97))
    key = SigningKey(secret)
    for shown in (repr(key), str(key), f"{key}", f"{[key]}", "%s" % key):  # noqa: UP031
        assert "<secret>" in shown
        assert "ABC" not in shown


# Signing


def test_headers() -> None:
    assert tuple(SIGNED) == HEADERS
    assert SIGNED["webhook-id"] == ID
    assert SIGNED["webhook-timestamp"] == "1614265330"
    assert SIGNED["webhook-signature"] == KEY.sign(ID, 1614265330, BODY)


def test_a_signature_for_each_key() -> None:
    signed = headers([KEY, OTHER], ID, NOW, BODY)["webhook-signature"]
    assert signed.split(" ") == [KEY.sign(ID, int(NOW), BODY), OTHER.sign(ID, int(NOW), BODY)]


def test_no_key_to_sign_with() -> None:
    with pytest.raises(ValueError, match="no key"):
        headers([], ID, NOW, BODY)


@pytest.mark.parametrize("id", ["", "a.b", "a b", "a\r\nb", "é", "a\n", "\ud800"])
def test_no_id(id: str) -> None:
    with pytest.raises(ValueError, match="cannot be the id"):
        headers([KEY], id, NOW, BODY)
    signed = {**SIGNED, "webhook-id": id, "webhook-signature": "v1,"}
    with pytest.raises(SignatureError, match="webhook-id"):
        verify([KEY], signed, BODY, now=NOW)


# Verifying


@pytest.mark.parametrize("key", [0, 1])
def test_rotation(key: int) -> None:
    """Whichever of the keys the receiver has, and whichever the sender has."""
    keys = [KEY, OTHER]
    assert verify([keys[key]], headers(keys, ID, NOW, BODY), BODY, now=NOW) == ID
    assert verify(keys, headers([keys[key]], ID, NOW, BODY), BODY, now=NOW) == ID
    with pytest.raises(SignatureError, match="no signature fits"):
        verify([keys[1 - key]], headers([keys[key]], ID, NOW, BODY), BODY, now=NOW)


def test_no_key_to_verify_with() -> None:
    with pytest.raises(SignatureError, match="no signature fits"):
        verify([], SIGNED, BODY, now=NOW)


def test_names_of_headers_in_any_letters() -> None:
    assert verify([KEY], {name.title(): it for name, it in SIGNED.items()}, BODY, now=NOW) == ID


@pytest.mark.parametrize(
    "signatures",
    [
        f"v1a,AAAA {SIGNED['webhook-signature']}",
        f"v2 {SIGNED['webhook-signature']}  é,é",
        f"\ud800 {SIGNED['webhook-signature']}",
    ],
)
def test_signatures_of_other_kinds_are_passed_over(signatures: str) -> None:
    assert verify([KEY], {**SIGNED, "webhook-signature": signatures}, BODY, now=NOW) == ID


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "another"),
        ("webhook-timestamp", "1614265331"),
        ("webhook-timestamp", "01614265330.0"),
        ("webhook-timestamp", "+1614265330"),
        ("webhook-timestamp", "\u0661614265330"),
        ("webhook-timestamp", "-1"),
        ("webhook-timestamp", "nan"),
        ("webhook-timestamp", "9" * 5000),
        ("webhook-signature", ""),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", SIGNED["webhook-signature"].replace("v1", "v2")),
        ("webhook-signature", SIGNED["webhook-signature"][:-1]),
        ("webhook-signature", SIGNED["webhook-signature"].replace(",", ",é")),
        ("webhook-signature", KEY.sign(ID, int(NOW), BODY + b" ")),
    ],
)
def test_what_does_not_fit(name: str, value: str) -> None:
    with pytest.raises(SignatureError):
        verify([KEY], {**SIGNED, name: value}, BODY, now=NOW)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_missing(name: str) -> None:
    some = {each: value for each, value in SIGNED.items() if each != name}
    with pytest.raises(SignatureError, match="one is missing"):
        verify([KEY], some, BODY, now=NOW)


def test_another_body() -> None:
    with pytest.raises(SignatureError, match="no signature fits"):
        verify([KEY], SIGNED, BODY + b"\n", now=NOW)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_post_of_another_time(sign: int) -> None:
    then = int(NOW)
    assert verify([KEY], SIGNED, BODY, now=then + sign * TOLERANCE) == ID
    assert verify([KEY], SIGNED, BODY, now=then + sign * 5, tolerance=5) == ID
    for changes in (
        {"now": then + sign * (TOLERANCE + 1)},
        {"now": then + sign * 6, "tolerance": 5},
    ):
        options: dict[str, Any] = changes
        with pytest.raises(SignatureError, match="too far from now"):
            verify([KEY], SIGNED, BODY, **options)


# The standard's own library. It knows no time but the clock's.


@given(SECRETS, SECRETS, IDS, BODIES)
def test_ours_are_theirs(secret: bytes, other: bytes, id: str, body: bytes) -> None:
    keys = [SigningKey(other), SigningKey(secret)]
    Webhook(text_of(secret)).verify(body, headers(keys, id, time.time(), body), json_parse=False)


@given(SECRETS, IDS, BODIES)
def test_theirs_are_ours(secret: bytes, id: str, body: bytes) -> None:
    then = datetime.fromtimestamp(NOW, timezone.utc)
    signature = Webhook(text_of(secret)).sign(id, then, body.decode())
    signed = dict(zip(HEADERS, (id, str(int(NOW)), signature), strict=True))
    assert verify([SigningKey.parse(text_of(secret))], signed, body, now=NOW) == id


@given(SECRETS, st.sampled_from(["id", "time", "body", "key"]))
def test_what_they_refuse_we_refuse(secret: bytes, change: str) -> None:
    now = time.time()
    signed = headers([SigningKey(secret)], ID, now, BODY)
    body = BODY + b" " if change == "body" else BODY
    if change == "key":
        secret = secret[::-1] + b"k" if len(secret) < 64 else secret[:-1]
    if change == "id":
        signed["webhook-id"] = "another"
    if change == "time":
        signed["webhook-timestamp"] = str(int(now) - 1)
    with pytest.raises(WebhookVerificationError):
        Webhook(text_of(secret)).verify(body, signed)
    with pytest.raises(SignatureError):
        verify([SigningKey(secret)], signed, body, now=now)
