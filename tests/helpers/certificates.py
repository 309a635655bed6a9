"""Certificates of a test's own: an authority, and pairs of certificate and key that it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_authority(folder: Path, name: str, *, days: float = 400, from_days: float = -1) -> Authority:
    """Make an authority and write its certificate; it holds from `from_days` to `days` after now."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = Authority(key, _certificate(name, key, None, None, (from_days, days)))
    _write(folder / f"{name}.crt", authority.certificate)
    return authority


def make_pair(
    folder: Path, name: str, issuer: Authority, address: str | None = None, *, days: float = 400, from_days: float = -1
) -> None:
    """Write a certificate, for an IP address where it is a server's, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    _write(folder / f"{name}.crt", _certificate(name, key, issuer, address, (from_days, days)))
    file = folder / f"{name}.key"
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Authority | None,
    address: str | None,
    holds_days: tuple[float, float],
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.certificate.subject if issuer else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=holds_days[0]))
        .not_valid_after(now + dt.timedelta(days=holds_days[1]))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if address is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _write(file: Path, certificate: x509.Certificate) -> None:
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
