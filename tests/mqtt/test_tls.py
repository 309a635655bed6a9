"""TLS to a real broker: whom the agent trusts, and what it says when it does not."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.broker import MOSQUITTO, Broker, describe
from tests.helpers.certificates import make_authority, make_pair
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import drain, fill, make_publisher, step_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason=describe())


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
    authority = make_authority(tmp_path, "ca")
    make_pair(tmp_path, "server", authority, "127.0.0.1")
    make_pair(tmp_path, "insp1", authority)
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
        pytest.param("stranger", "127.0.0.1", "another authority than that of mqtt.tls.ca_file", id="by a stranger"),
        pytest.param("ca", "127.0.0.2", "names in its subjectAltName", id="made for another host"),
        pytest.param("ca", None, "names in its subjectAltName", id="with a common name alone"),
        pytest.param("ca", "expired", "or the one of its authority, has expired", id="expired"),
        pytest.param("absent", "127.0.0.1", "FileNotFoundError", id="ca_file is missing"),
    ],
)
def test_a_broker_that_cannot_prove_who_it_is_gets_nothing(
    tmp_path: Path, trusted: str, address: str | None, said: str
) -> None:
    """Not connected, and the error says why in the words of docs/scada/security.md."""
    make_authority(tmp_path, "stranger")
    authority = make_authority(tmp_path, "ca")
    if address == "expired":
        make_pair(tmp_path, "server", authority, "127.0.0.1", days=-1, from_days=-30)
    else:
        make_pair(tmp_path, "server", authority, address)
    with _broker(tmp_path) as broker:
        publisher = make_publisher(broker.port, tls=_tls(tmp_path, authority=trusted))
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert said in publisher.status().last_error
        assert not publisher.status().connected
        publisher.close("test")


def test_a_broker_that_wants_a_client_certificate_refuses_the_box_without_one(tmp_path: Path) -> None:
    """It stays a failed attempt, over and over, and never an unencrypted one."""
    make_pair(tmp_path, "server", make_authority(tmp_path, "ca"), "127.0.0.1")
    with _broker(tmp_path, "require_certificate true") as broker:
        publisher = make_publisher(broker.port, tls=_tls(tmp_path))
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert not publisher.status().connected
        publisher.close("test")


def test_plain_text_to_a_tls_port_is_a_failed_attempt(tmp_path: Path) -> None:
    """The port is right and `tls.enabled` was forgotten."""
    make_pair(tmp_path, "server", make_authority(tmp_path, "ca"), "127.0.0.1")
    with _broker(tmp_path) as broker:
        publisher = make_publisher(broker.port)
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert "no answer to CONNECT" in publisher.status().last_error
        publisher.close("test")


@pytest.mark.parametrize("version", ["tlsv1.3", "tlsv1.2"])
def test_a_missing_client_certificate_is_reported_as_such(tmp_path: Path, version: str) -> None:
    """With TLS 1.3 the refusal comes after the handshake; it is no sign of a broker that does not know MQTT 5."""
    authority = make_authority(tmp_path, "ca")
    make_pair(tmp_path, "server", authority, "127.0.0.1")
    with _broker(tmp_path, "require_certificate true", f"tls_version {version}") as broker:
        publisher = make_publisher(broker.port, protocol="auto", tls={"enabled": True, "ca_file": f"{tmp_path}/ca.crt"})
        for _ in range(5):  # more than the silences that mean an old broker
            publisher._link.last_error = ""
            step_until(publisher, lambda: publisher.status().last_error, "an attempt")
            assert "client certificate" in publisher.status().last_error
            assert publisher._link._silences == 0
        publisher.close("test")


def test_a_client_certificate_of_a_stranger_is_reported_as_such(tmp_path: Path) -> None:
    """The broker does not know who signed it: the file is named."""
    authority, stranger = make_authority(tmp_path, "ca"), make_authority(tmp_path, "stranger")
    make_pair(tmp_path, "server", authority, "127.0.0.1")
    make_pair(tmp_path, "client", stranger)
    files = {"cert_file": f"{tmp_path}/client.crt", "key_file": f"{tmp_path}/client.key"}
    with _broker(tmp_path, "require_certificate true") as broker:
        tls = {"enabled": True, "ca_file": f"{tmp_path}/ca.crt", **files}
        publisher = make_publisher(broker.port, protocol="auto", tls=tls)
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert "mqtt.tls.cert_file" in publisher.status().last_error
        publisher.close("test")


def test_an_authority_without_key_usage_is_taken_as_before_python_3_13(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual recipe of openssl makes such ones; Python 3.13 checks strictly by default, as it is made to here."""
    make_pair(tmp_path, "server", make_authority(tmp_path, "ca"), "127.0.0.1")
    lenient = ssl.create_default_context

    def as_in_3_13(**options: Any) -> ssl.SSLContext:
        context = lenient(**options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_in_3_13)
    with _broker(tmp_path) as broker:
        publisher = make_publisher(broker.port, tls=_tls(tmp_path))
        step_until(publisher, lambda: publisher.status().connected or publisher.status().last_error, "an attempt")
        assert publisher.status().last_error == ""
        publisher.close("test")


def test_a_key_that_everybody_can_read_is_not_used(tmp_path: Path) -> None:
    """Whoever is on the box could be this box; the error names the file and the command that mends it."""
    authority = make_authority(tmp_path, "ca")
    make_pair(tmp_path, "server", authority, "127.0.0.1")
    make_pair(tmp_path, "insp1", authority)
    (tmp_path / "insp1.key").chmod(0o644)
    with _broker(tmp_path, "require_certificate true") as broker:
        publisher = make_publisher(broker.port, tls=_tls(tmp_path, client="insp1"))
        step_until(publisher, lambda: publisher.status().last_error, "an attempt")
        assert f"`chmod o= {tmp_path}/insp1.key`" in publisher.status().last_error
        (tmp_path / "insp1.key").chmod(0o640)
        step_until(publisher, lambda: publisher.status().connected, "connected, without a restart")
        publisher.close("test")
