"""
Signatures of posts, as Standard Webhooks 1.0.0 has them: who has the key can tell that a post is
from us, is whole, and is not an old one sent again.

Signed are the id, the time of the attempt and the body, with HMAC-SHA256 (``v1``); other headers
are not. A sender may sign with several keys at a time, and a receiver may take several: so a key is
exchanged without a break. A receiver::

    keys = [SigningKey.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]

    def render_POST(self, request):
        headers = {name: request.getHeader(name) or "" for name in HEADERS}
        try:
            id = verify(keys, headers, request.content.read(), now=time.time())
        except SignatureError:
            request.setResponseCode(401)
            return b""
        ...  # what has this id may have come before
"""

from __future__ import annotations

import base64
import hmac
import math
import re
from collections.abc import Mapping, Sequence

import attrs

from txqmp.errors import QMPError


HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
"""The names of the headers that a signature needs."""

TOLERANCE = 300.0
"""By how much a post's time may differ from the receiver's, in seconds."""

_PREFIX = "whsec_"
_MIN_SIZE, _MAX_SIZE = 24, 64
_VERSION = "v1,"
# No full stop: it would blur where the id ends and the time begins.
_ID = re.compile(r"[!-\-/-~]+")
_TIMESTAMP = re.compile(r"[0-9]{1,15}")


class SignatureError(QMPError):
    """What came is not signed with a key that is known, or not at this time."""


@attrs.frozen(slots=True, repr=False, eq=False)
class SigningKey:
    """
    A key, which nothing shows. It can be compared with others.

    :param secret: 24 to 64 random bytes.
    :raises ValueError: it is of another size.
    """

    _secret: bytes

    def __attrs_post_init__(self) -> None:
        if not _MIN_SIZE <= len(self._secret) <= _MAX_SIZE:
            raise ValueError(
                f"a signing key has {_MIN_SIZE} to {_MAX_SIZE} bytes, and not {len(self._secret)}"
            )

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SigningKey):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self._secret)

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """
        A key from its text: ``whsec_`` and base64, as ``openssl rand -base64 32`` makes it. White
        space around it, such as the end of a line in a file, is left aside.

        :raises ValueError: it is no such text; the message does not show it.
        """
        text = text.strip()
        if not text.startswith(_PREFIX):
            raise ValueError(f"this signing key does not begin with {_PREFIX!r}")
        encoded = text[len(_PREFIX) :]
        try:
            secret = base64.b64decode(encoded)
        except ValueError:
            secret = b""
        # It reads over what is no base64; and what has lost its end may still be some.
        if base64.b64encode(secret).decode() != encoded:
            raise ValueError(f"after {_PREFIX!r} this signing key is not base64, or not all of it")
        return cls(secret)

    def sign(self, id: str, timestamp: int, body: bytes) -> str:
        """
        The signature of a post.

        :param id: what it is called.
        :param timestamp: of this attempt, in whole seconds since the epoch.
        :param body: the bytes that are sent.
        """
        content = b"%b.%d.%b" % (id.encode(), timestamp, body)
        mac = hmac.digest(self._secret, content, "sha256")
        return _VERSION + base64.b64encode(mac).decode()


def headers(keys: Sequence[SigningKey], id: str, timestamp: float, body: bytes) -> dict[str, str]:
    """
    The headers of a post that is signed with each of the keys.

    :param keys: at least one.
    :param id: what it is called: the same at each attempt. It has no full stop in it, and nothing
        else that a header does not take.
    :param timestamp: of this attempt, in seconds since the epoch.
    :param body: the bytes that are sent.
    :raises ValueError: there is no key, or the id cannot be one.
    """
    if not keys:
        raise ValueError("there is no key to sign with")
    if _ID.fullmatch(id) is None:
        raise ValueError(f"{id!r} cannot be the id of a signed post")
    seconds = math.floor(timestamp)
    signatures = " ".join([key.sign(id, seconds, body) for key in keys])
    return dict(zip(HEADERS, (id, str(seconds), signatures), strict=True))


def verify(
    keys: Sequence[SigningKey],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance: float = TOLERANCE,
) -> str:
    """
    Whether a post is from who has one of the keys, and recent.

    :param keys: those that are taken.
    :param headers: of the post, by name, in large or small letters.
    :param body: the bytes that came, before anything has read them as JSON.
    :param now: in seconds since the epoch.
    :param tolerance: by how much the post's time may differ from it, in seconds.
    :returns: the post's id. A post that comes twice has the same one.
    :raises SignatureError: it is not; the message says why.
    """
    found = {name.lower(): value for name, value in headers.items()}
    id, timestamp, signatures = (found.get(name, "") for name in HEADERS)
    if _ID.fullmatch(id) is None or _TIMESTAMP.fullmatch(timestamp) is None or not signatures:
        raise SignatureError(f"{', '.join(HEADERS)}: one is missing or not as it should be")
    if abs(now - int(timestamp)) > tolerance:
        raise SignatureError("the time of the post is too far from now")
    fits = False
    for key in keys:
        wanted = key.sign(id, int(timestamp), body).encode()
        for signature in signatures.split(" "):
            # It takes the same time wherever they differ.
            fits |= hmac.compare_digest(wanted, signature.encode("utf-8", "replace"))
    if not fits:
        raise SignatureError("no signature fits any of the keys")
    return id
