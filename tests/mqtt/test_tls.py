"""TLS to a real broker: whom the agent trusts, and what it says when it does not."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.helpers.broker import MOSQUITTO, Broker, describe
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import drain, fill, make_publisher, step_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason=describe())


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of the test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: Authority | None, address: str | None = None
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.certificate.subject if issuer else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if address is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _authority(folder: Path, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = Authority(key, _certificate(name, key, None))
    _write(folder / f"{name}.crt", authority.certificate)
    return authority


def _write(file: Path, certificate: x509.Certificate) -> None:
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _pair(folder: Path, name: str, issuer: Authority, address: str | None = None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    _write(folder / f"{name}.crt", _certificate(name, key, issuer, address))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _broker(folder: Path, *more: str) -> Broker:
    lines = [f"cafile {folder}/ca.crt", f"certfile {folder}/server.crt", f"keyfile {folder}/server.key", *more]
    return Broker(folder, "\n".join(["allow_anonymous true", *lines]))


def _tls(folder: Path, authority: str = "ca", client: str | None = None) -> dict[str, object]:
    files: dict[str, object] = {"enabled": True, "ca_file": str(folder / f"{authority}.crt")}
    if client is not None:
        files |= {"cert_file": str(folder / f"{client}.crt"), "key_file": str(folder / f"{client}.key")}
    return files


def test_results_go_over_tls_with_a_client_certificate(tmp_path: Path) -> None:
    """The broker shows its certificate, the box shows its own."""
    authority = _authority(tmp_path, "ca")
    _pair(tmp_path, "server", authority, "127.0.0.1")
    _pair(tmp_path, "insp1", authority)
    with _broker(tmp_path, "require_certificate true", "use_identity_as_username true") as broker:
        outbox = ListOutbox()
        fill(outbox, 50, size_bytes=2000)
        publisher = make_publisher(broker.port, outbox, tls=_tls(tmp_path, client="insp1"))
        drain(publisher, outbox)
        assert "as insp1 (p5, c1, k15, u'insp1')" in broker.log
        publisher.close("test")


@pytest.mark.parametrize(
    ("trusted", "address", "said"),
    [
        pytest.param("stranger", "127.0.0.1", "CERTIFICATE_VERIFY_FAILED", id="signed by a stranger"),
        pytest.param("ca", "127.0.0.2", "IP address mismatch", id="made for another host"),
        pytest.param("absent", "127.0.0.1", "FileNotFoundError", id="ca_file is missing"),
    ],
)
def test_a_broker_that_cannot_prove_who_it_is_gets_nothing(
    tmp_path: Path, trusted: str, address: str, said: str
) -> None:
    """Not connected, and the error says why."""
    _authority(tmp_path, "stranger")
    _pair(tmp_path, "server", _authority(tmp_path, "ca"), address)
    with _broker(tmp_path) as broker:
        publisher = make_publisher(broker.port, tls=_tls(tmp_path, authority=trusted))
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert said in publisher.status().last_error
        assert not publisher.status().connected
        publisher.close("test")


def test_a_broker_that_wants_a_client_certificate_refuses_the_box_without_one(tmp_path: Path) -> None:
    """It stays a failed attempt, over and over, and never an unencrypted one."""
    _pair(tmp_path, "server", _authority(tmp_path, "ca"), "127.0.0.1")
    with _broker(tmp_path, "require_certificate true") as broker:
        publisher = make_publisher(broker.port, tls=_tls(tmp_path))
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert not publisher.status().connected
        publisher.close("test")


def test_plain_text_to_a_tls_port_is_a_failed_attempt(tmp_path: Path) -> None:
    """The port is right and `tls.enabled` was forgotten."""
    _pair(tmp_path, "server", _authority(tmp_path, "ca"), "127.0.0.1")
    with _broker(tmp_path) as broker:
        publisher = make_publisher(broker.port)
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert "no answer to CONNECT" in publisher.status().last_error
        publisher.close("test")


@pytest.mark.parametrize("version", ["tlsv1.3", "tlsv1.2"])
def test_a_missing_client_certificate_is_reported_as_such(tmp_path: Path, version: str) -> None:
    """With TLS 1.3 the refusal comes after the handshake; it is no sign of a broker that does not know MQTT 5."""
    authority = _authority(tmp_path, "ca")
    _pair(tmp_path, "server", authority, "127.0.0.1")
    with _broker(tmp_path, "require_certificate true", f"tls_version {version}") as broker:
        publisher = make_publisher(broker.port, protocol="auto", tls={"enabled": True, "ca_file": f"{tmp_path}/ca.crt"})
        for _ in range(5):  # more than the silences that mean an old broker
            publisher._link.last_error = ""
            step_until(publisher, lambda: publisher.status().last_error, "an attempt", 20)
            assert "client certificate" in publisher.status().last_error
            assert publisher._link._silences == 0
        publisher.close("test")


def test_a_client_certificate_of_a_stranger_is_reported_as_such(tmp_path: Path) -> None:
    """The broker does not know who signed it: the file is named."""
    authority, stranger = _authority(tmp_path, "ca"), _authority(tmp_path, "stranger")
    _pair(tmp_path, "server", authority, "127.0.0.1")
    _pair(tmp_path, "client", stranger)
    files = {"cert_file": f"{tmp_path}/client.crt", "key_file": f"{tmp_path}/client.key"}
    with _broker(tmp_path, "require_certificate true") as broker:
        tls = {"enabled": True, "ca_file": f"{tmp_path}/ca.crt", **files}
        publisher = make_publisher(broker.port, protocol="auto", tls=tls)
        step_until(publisher, lambda: publisher.status().last_error, "an attempt", 20)
        assert "mqtt.tls.cert_file" in publisher.status().last_error
        publisher.close("test")
