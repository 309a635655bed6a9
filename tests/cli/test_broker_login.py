"""`doctor` and `check-config` log in to the broker as the service does, and say the true reason where that fails."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli.doctor import broker as broker_check
from agent.cli.doctor.broker import try_broker
from agent.cli.doctor.examine import problems_of
from agent.config import Config
from tests.helpers.broker import ANYBODY, MOSQUITTO, Broker, Subscriber, describe, free_port
from tests.helpers.certificates import make_authority, make_pair
from tests.helpers.old_broker import OldBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.cli.doctor import Finding

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason=describe())


def config_for(port: int, folder: Path, **mqtt: Any) -> Config:
    """Make a configuration for a broker of the loopback interface."""
    return Config.model_validate(
        {
            "agent": {"name": "insp1", "state_folder": str(folder / "state")},
            "cameras": [{"name": "top", "folder": str(folder / "top")}],
            "mqtt": {"host": "127.0.0.1", "port": port, **mqtt},
        }
    )


def found(port: int, folder: Path, **mqtt: Any) -> Finding:
    """Try a broker."""
    return try_broker(config_for(port, folder, **mqtt))


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_broker_that_takes_login_and_message_is_good(tmp_path: Path, protocol: str) -> None:
    """Subscribers of results and states see nothing of it, nothing is kept, and the service is not thrown out."""
    with Broker(tmp_path, ANYBODY) as broker, Subscriber(broker.port) as subscriber:
        finding = found(broker.port, tmp_path, protocol=protocol)
        if broker.kind == "amqtt" and protocol != "3.1.1":
            return  # knows no MQTT 5: told by another test
        assert (finding.level, finding.what) == ("good", "broker"), finding
        assert "strip-agent/insp1/doctor" in finding.detail
        assert {message.topic for message in subscriber.messages()} <= {"strip-agent/insp1/doctor"}
        with Subscriber(broker.port) as later:
            assert later.messages() == []


@needs_mosquitto
def test_the_service_is_not_thrown_out(tmp_path: Path) -> None:
    """It logs in under a name of its own: one name can be connected once."""
    with Broker(tmp_path, ANYBODY) as broker:
        found(broker.port, tmp_path)
        assert "as insp1-doctor " in broker.log
        assert "as insp1 " not in broker.log


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Broker]:
    """Run a broker that knows one user, who may publish results and nothing else."""
    (tmp_path / "users").write_text("line:right\n")
    (tmp_path / "acl").write_text("user line\ntopic readwrite strip-agent/insp1/event/#\n")
    make_users(tmp_path / "users")
    with Broker(tmp_path, f"password_file {tmp_path}/users\nacl_file {tmp_path}/acl") as broker:
        yield broker


def make_users(file: Path) -> None:
    """Hash the passwords of mosquitto's users."""
    program = shutil.which("mosquitto_passwd") or pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([program, "-U", str(file)], check=True, capture_output=True)


def password(folder: Path, text: str) -> dict[str, str]:
    """Write a password file."""
    (folder / "password").write_text(f"{text}\n")
    (folder / "password").chmod(0o600)
    return {"username": "line", "password_file": str(folder / "password")}


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_a_wrong_password_is_said(strict: Broker, tmp_path: Path, protocol: str) -> None:
    """By `doctor` as bad, by `check-config` as a warning: the broker's users may be mended later."""
    finding = found(strict.port, tmp_path, protocol=protocol, **password(tmp_path, "wrong"))
    assert finding.level == "bad"
    assert "refuses the login" in finding.detail
    assert "mqtt.password_file" in finding.detail
    problems = problems_of(
        config_for(strict.port, tmp_path, protocol=protocol, **password(tmp_path, "wrong")), tmp_path / "agent.yaml"
    )
    assert [(problem.where, problem.warning) for problem in problems if problem.where == "mqtt"] == [("mqtt", True)]


@needs_mosquitto
def test_not_being_allowed_to_publish_is_said(strict: Broker, tmp_path: Path) -> None:
    """The login is right, the access list is not."""
    finding = found(strict.port, tmp_path, **password(tmp_path, "right"))
    assert finding.level == "bad"
    assert "takes the login, but not a message to strip-agent/insp1/doctor" in finding.detail
    assert "access list" in finding.detail


@needs_mosquitto
def test_over_3_1_1_an_access_list_can_only_be_suspected(
    strict: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a broker acknowledges what it throws away; what does not come back is said, not judged."""
    monkeypatch.setattr(broker_check, "ECHO_SECONDS", 1.0)
    finding = found(strict.port, tmp_path, protocol="3.1.1", **password(tmp_path, "right"))
    assert finding.level == "note"
    assert "acknowledges what it throws away" in finding.detail


@needs_mosquitto
def test_each_trouble_with_tls_is_said(tmp_path: Path) -> None:
    """A wrong authority, no client certificate, one of a stranger, plain text to the TLS port; and all well."""
    authority, stranger = make_authority(tmp_path, "ca"), make_authority(tmp_path, "stranger")
    make_pair(tmp_path, "server", authority, "127.0.0.1")
    make_pair(tmp_path, "client", authority)
    make_pair(tmp_path, "foreign", stranger)
    lines = [f"cafile {tmp_path}/ca.crt", f"certfile {tmp_path}/server.crt", f"keyfile {tmp_path}/server.key"]
    with Broker(tmp_path, "\n".join([ANYBODY, *lines, "require_certificate true"])) as broker:

        def with_tls(ca: str, client: str | None) -> Finding:
            tls = {"enabled": True, "ca_file": f"{tmp_path}/{ca}.crt"}
            if client:
                tls |= {"cert_file": f"{tmp_path}/{client}.crt", "key_file": f"{tmp_path}/{client}.key"}
            return found(broker.port, tmp_path, tls=tls)

        assert with_tls("ca", "client").level == "good"
        for ca, client, said in (
            ("stranger", "client", "another authority than that of mqtt.tls.ca_file"),
            ("ca", None, "the broker demands a client certificate"),
            ("ca", "foreign", "the broker does not know who signed"),
        ):
            finding = with_tls(ca, client)
            assert finding.level == "bad", finding
            assert said in finding.detail
        plain = found(broker.port, tmp_path)
        assert plain.level == "bad"
        assert "mqtt.tls.enabled" in plain.detail


def test_nobody_there_is_a_note_and_no_problem_of_the_configuration(tmp_path: Path) -> None:
    """The service starts without a broker and waits for it."""
    port = free_port()
    finding = found(port, tmp_path)
    assert finding.level == "note"
    assert "nobody is there" in finding.detail
    assert not any(
        problem.where == "mqtt" for problem in problems_of(config_for(port, tmp_path), tmp_path / "agent.yaml")
    )


def test_something_else_on_the_port_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs up on what it does not understand, and one that says nothing."""
    monkeypatch.setattr(broker_check, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "takes connections, but does not answer" in found(port, tmp_path).detail

        def hang_up() -> None:
            for _ in range(4):  # the two of before, and two more
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        finding = found(port, tmp_path)
        thread.join(120)
    assert finding.level == "bad"
    assert "no MQTT broker" in finding.detail


@needs_mosquitto
@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b""])
def test_an_old_broker_is_tried_again_over_3_1_1(tmp_path: Path, answer: bytes) -> None:
    """As the service does: it refuses the protocol, or hangs up on it."""
    with Broker(tmp_path, ANYBODY) as broker:
        old = OldBroker(broker.port, answer)
        try:
            finding = found(old.port, tmp_path)
        finally:
            old.close()
        assert finding.level == "good", finding
        assert "MQTT 3.1.1" in finding.detail
        assert old.versions == [5, 4]
