"""TLS with a receiver: its files, and what went wrong in words that say what to look at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.monitor.sinks.delivery import UnavailableError
from txqmp.monitor.sinks.settings import ClientTLS


_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# What stops a TLS connection: a part of OpenSSL's message, and what it is to a person.
_WORDS = [
    ("certificate required", "{peer} wants a client certificate"),
    ("handshake failure", "{peer} refused the TLS handshake: it may want a client certificate"),
    ("unknown ca", "{peer} does not trust the authority of the client certificate"),
    ("certificate expired", "the client certificate has expired"),
    ("bad certificate", "{peer} refused the client certificate"),
    ("wrong version number", "what answers there does not speak TLS"),
    ("packet length too long", "what answers there does not speak TLS"),
]

# What is wrong with the other side's certificate, by OpenSSL's number (X509_verify_cert_error).
_EXPIRED, _NOT_YET_VALID = 10, 9
_OF_ANOTHER_AUTHORITY = frozenset({2, 18, 19, 20, 21})


def tls_endpoint(
    tls: ClientTLS, name: str, endpoint: IStreamClientEndpoint
) -> IStreamClientEndpoint:
    """
    Where to speak TLS with a receiver. The files are read now.

    :param name: what its certificate must be for: a host's name or address.
    :param endpoint: where it is.
    :raises UnavailableError: a file is missing, or is not what it should be.
    """
    return _NamedEndpoint(wrapClientTLS(_client_tls(tls, name), endpoint), name)


@implementer(IStreamClientEndpoint)
class _NamedEndpoint:
    """
    Looks at the name in the certificate once more. Twisted takes one without any names, and only
    logs that something is wrong with it.
    """

    def __init__(self, endpoint: Any, name: str) -> None:
        self._endpoint = endpoint
        self._name = name

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        factory = _NamedFactory(protocolFactory, self._name)
        connected: Deferred[Any] = self._endpoint.connect(factory)
        return connected.addCallback(lambda connection: connection.wrappedProtocol)


@implementer(IHandshakeListener)
class _NamedConnection(ProtocolWrapper):
    factory: Any

    def handshakeCompleted(self) -> None:
        # What was written by now waits for the end of the handshake, so it is not sent.
        transport: Any = self.transport
        try:
            _verify(transport.getHandle(), self.factory.name)
        except Exception:
            transport.failVerification(Failure())


class _NamedFactory(WrappingFactory):
    protocol = _NamedConnection
    noisy = False  # it would log that it starts and stops

    def __init__(self, wrapped: Any, name: str) -> None:
        super().__init__(wrapped)
        self.name = name


def _verify(connection: Any, name: str) -> None:
    """
    Whether a certificate is for a host.

    :raises Exception: it is not; of service_identity's kinds.
    """
    from service_identity.pyopenssl import verify_hostname, verify_ip_address

    if isIPAddress(name) or isIPv6Address(name):
        verify_ip_address(connection, name)
    else:
        verify_hostname(connection, name)


def _client_tls(tls: ClientTLS, name: str) -> Any:
    """What ``wrapClientTLS`` needs."""
    # Not above: without TLS nobody needs it.
    from twisted.internet.ssl import optionsForClientTLS, platformTrust, trustRootFromCertificates

    trust = platformTrust()
    if tls.ca is not None:
        trust = trustRootFromCertificates(_certificates(tls.ca))
    if tls.certificate is None or tls.key is None:
        return optionsForClientTLS(name, trustRoot=trust)
    own, *between = _certificates(tls.certificate)
    return optionsForClientTLS(
        name,
        trustRoot=trust,
        clientCertificate=_with_key(own, tls.key),
        extraCertificateOptions={"extraCertChain": [each.original for each in between]},
    )


def _certificates(path: str) -> list[Any]:
    from twisted.internet.ssl import Certificate

    blocks = _CERTIFICATE.findall(_read(path))
    if not blocks:
        raise UnavailableError(f"{path} holds no certificate in PEM form")
    try:
        return [Certificate.loadPEM(block) for block in blocks]
    except Exception as error:
        raise UnavailableError(f"{path} holds a certificate that cannot be read") from error


def _with_key(certificate: Any, path: str) -> Any:
    from twisted.internet.ssl import PrivateCertificate

    text = _read(path)
    if b"ENCRYPTED" in text:  # OpenSSL would ask for the password at the terminal
        raise UnavailableError(f"{path} is encrypted: the key must not be")
    try:
        return PrivateCertificate.loadPEM(certificate.dumpPEM() + text)
    except Exception as error:
        raise UnavailableError(f"{path} holds no key in PEM form, or another one") from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error


def why_tls(cause: BaseException | None, peer: str, transport: Any = None) -> str | None:
    """
    What is wrong with TLS; ``None`` where it is something else.

    :param cause: why the connection ended.
    :param peer: what to call the other side, such as ``"the broker"``.
    :param transport: of the protocol whose ``connectionLost`` this is called from. It tells what
        is wrong with a certificate.
    """
    from OpenSSL.SSL import Error
    from service_identity import CertificateError, VerificationError

    if isinstance(cause, VerificationError | CertificateError):
        return f"{peer}'s certificate is for another name"
    if not isinstance(cause, Error):
        return None
    reasons = cause.args[0] if cause.args and isinstance(cause.args[0], list) else []
    text = ", ".join(each[-1] for each in reasons) or repr(cause)
    if "certificate verify failed" in text:
        return _why_not_verified(text, peer, _verification(transport))
    for part, words in _WORDS:
        if part in text:
            return f"{words.format(peer=peer)} ({text})"
    return f"TLS: {text}"


def _why_not_verified(text: str, peer: str, found: tuple[int, str] | None) -> str:
    if found is None:
        return (
            f"{peer}'s certificate is not trusted: another authority issued it, or it expired"
            f" ({text})"
        )
    number, detail = found
    if number == _EXPIRED:
        return f"{peer}'s certificate has expired"
    if number == _NOT_YET_VALID:
        return f"{peer}'s certificate is not valid yet"
    if number in _OF_ANOTHER_AUTHORITY:
        return f"{peer}'s certificate is not trusted: another authority issued it ({detail})"
    return f"{peer}'s certificate is not trusted ({detail})"


def _verification(transport: Any) -> tuple[int, str] | None:
    """What OpenSSL found wrong with a certificate: its number and words. pyOpenSSL hides it."""
    from OpenSSL import SSL

    hidden: Any = SSL
    try:
        number = hidden._lib.SSL_get_verify_result(transport.getHandle()._ssl)
        words = hidden._ffi.string(hidden._lib.X509_verify_cert_error_string(number)).decode()
    except AttributeError:  # another pyOpenSSL, or no TLS
        return None
    return (number, words) if number else None
