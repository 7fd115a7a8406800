"""A private certificate authority, as long as a test lasts."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


#: Valid yesterday and tomorrow, if nothing else is asked for: a clock may be a little off.
_DAY = dt.timedelta(days=1)


class Authority:
    """Issues certificates into its directory, under the names that QEMU looks for.

    There are ``ca-cert.pem``, ``server-cert.pem``, ``server-key.pem``, ``client-cert.pem`` and
    ``client-key.pem``. The server is ``localhost``, ``127.0.0.1`` and ``::1``.

    :param name: of the authority: two with the same name are taken for one another.
    """

    def __init__(self, directory: Path, name: str = "txqmp's tests") -> None:
        self.directory = directory
        directory.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(constraints, critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.trust = self._write("ca-cert", certificate)
        addresses = [ipaddress.ip_address(each) for each in ("127.0.0.1", "::1")]
        names = [x509.DNSName("localhost"), *map(x509.IPAddress, addresses)]
        self.server = self._issue("server", ExtendedKeyUsageOID.SERVER_AUTH, names)
        self.client = self._issue("client", ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def server_for(
        self, who: str, *names: str, days: tuple[float, float] = (-1, 1)
    ) -> tuple[Path, Path]:
        """Write a certificate and its key for a server with these host names; return their paths.

        :param days: from when until when it is valid, counted from now.
        """
        hosts: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
        return self._issue(who, ExtendedKeyUsageOID.SERVER_AUTH, hosts, days)

    def client_for(self, who: str, *, days: tuple[float, float] = (-1, 1)) -> tuple[Path, Path]:
        """Write a certificate and its key for a client; see :meth:`server_for`."""
        return self._issue(who, ExtendedKeyUsageOID.CLIENT_AUTH, [], days)

    def _issue(
        self,
        who: str,
        purpose: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
        days: tuple[float, float] = (-1, 1),
    ) -> tuple[Path, Path]:
        """Write a certificate and its key; return their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(who), self._name, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = self._write(f"{who}-cert", builder.sign(self._key, hashes.SHA256()))
        path = self.directory / f"{who}-key.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, path

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self.directory / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: tuple[float, float] = (-1, 1),
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
