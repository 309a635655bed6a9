"""The authority, the broker's configuration and the access list of docs/scada/, used as they stand there.

Each refusal is made for real, and its reason is looked for where a person would look: log, health, doctor.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.cli.doctor.broker import try_broker
from agent.config.file import load_config
from tests.helpers.box import Box
from tests.helpers.broker import MOSQUITTO, Broker, describe, wait_for
from tests.helpers.certificates import Authority, make_authority, make_pair
from tests.helpers.programs import needs
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.skipif(MOSQUITTO is None, reason=describe()), needs("openssl", "bash")]

DOCS = ROOT / "docs" / "scada"
NOT_AUTHORIZED = 135
READABLE = ("event/strip/top", "event/alarm", "state/agent", "state/health", "replay/strip/top")


def run_commands_of_the_page(folder: Path) -> None:
    """Make the authority and certificates as docs/scada/security.md says, for some more users than it names."""
    found = re.search(r"```sh\n(.*?)```", (DOCS / "security.md").read_text(), re.DOTALL)
    assert found is not None
    commands = found[1]
    box = commands[commands.index("# each box") :]
    more = [box.replace("insp1", name) for name in ("insp2", "scada", "operator")]
    script = "\n".join(["set -eu", commands, *more])
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def authority_in(folder: Path) -> Authority:
    """Load the page's authority, to have it sign what the page does not."""
    key: Any = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    return Authority(key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()))


def broker_settings(folder: Path) -> str:
    """Return the page's configuration with a test's paths and port; nothing else is changed."""
    text = (DOCS / "mosquitto" / "strips.conf").read_text()
    shutil.copy(DOCS / "mosquitto" / "strips.acl", folder)
    (folder / "strips.acl").chmod(0o600)
    text = text.replace("/etc/mosquitto/certs", str(folder)).replace("/etc/mosquitto", str(folder))
    return text.replace("listener 8883\n", "")  # `Broker` gives the listener, on a free port


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all certificates: of the page, of a stranger, and one that has expired."""
    folder = tmp_path_factory.mktemp("plant")
    run_commands_of_the_page(folder)
    make_pair(folder, "expired", authority_in(folder), days=-1, from_days=-30)
    make_pair(folder, "soon", authority_in(folder), days=20)
    make_pair(folder, "foreign", make_authority(folder, "stranger"))
    for key in folder.glob("*.key"):
        key.chmod(0o640)
    return folder


@pytest.fixture(scope="module")
def broker(plant: Path) -> Iterator[Broker]:
    """Run the page's broker."""
    with Broker(plant, broker_settings(plant)) as running:
        yield running


class Somebody:
    """A client of MQTT 5 with one of the plant's certificates."""

    def __init__(self, plant: Path, port: int, user: str) -> None:
        self.received: list[str] = []
        self._codes: dict[int, int] = {}
        self._connected = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{user}-tries", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.tls_set(f"{plant}/ca.crt", f"{plant}/{user}.crt", f"{plant}/{user}.key")
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_message = lambda _client, _data, message: self.received.append(message.topic)
        self._client.on_publish = lambda _client, _data, mid, reason, _: self._codes.update({mid: reason.value})
        self._client.on_subscribe = lambda _client, _data, mid, reasons, _: self._codes.update({mid: reasons[0].value})
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._connected.wait(60)

    def publish(self, topic: str) -> int:
        """Publish and return the broker's answer."""
        mid = self._client.publish(topic, b"{}", 1).mid
        wait_for(lambda: mid in self._codes, f"an answer about {topic}")
        return self._codes[mid]

    def subscribe(self, topic: str) -> None:
        """Subscribe; mosquitto grants any filter and then passes on only what the list allows."""
        mid = self._client.subscribe(topic, 1)[1]
        assert mid is not None
        wait_for(lambda: mid in self._codes, f"an answer about {topic}")

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def test_the_access_list_gives_each_its_own_and_nothing_else(plant: Path, broker: Broker) -> None:
    """A box writes its own subtree, SCADA reads and commands nobody, the operator commands; the rest is refused."""
    users = {name: Somebody(plant, broker.port, name) for name in ("insp1", "insp2", "scada", "operator")}
    for user in users.values():
        user.subscribe("strip-agent/#")
    allowed = {
        "insp1": [*READABLE, "rsp/retry", "doctor"],
        "scada": [],
        "operator": ["cmd/retry"],
    }  # fmt: skip
    refused = {
        "insp1": ["cmd/retry", "other", "events/strip/top"],
        "insp2": ["event/strip/top", "state/agent", "cmd/retry", "rsp/retry"],
        "scada": ["cmd/retry", "event/strip/top", "rsp/retry"],
        "operator": ["event/strip/top", "state/agent", "rsp/retry"],
    }
    for name, topics in refused.items():
        for topic in topics:
            assert users[name].publish(f"strip-agent/insp1/{topic}") == NOT_AUTHORIZED, (name, topic)
    for name, topics in allowed.items():
        for topic in topics:
            assert users[name].publish(f"strip-agent/insp1/{topic}") < NOT_AUTHORIZED, (name, topic)
    results = [f"strip-agent/insp1/{topic}" for topic in READABLE]
    command, answer = "strip-agent/insp1/cmd/retry", "strip-agent/insp1/rsp/retry"
    expected = {
        "insp1": ["strip-agent/insp1/state/agent", command],
        "insp2": [],
        "scada": results,
        "operator": [*results, answer],
    }
    for name, topics in expected.items():
        wait_for(lambda n=name, t=topics: len(users[n].received) >= len(t), f"what {name} may read")  # type: ignore[misc]
    for name, user in users.items():
        user.close()
        assert sorted(user.received) == sorted(expected[name]), name


REFUSALS = (
    ("stranger", "insp1", "another authority than that of mqtt.tls.ca_file signed the broker's certificate"),
    ("ca", "expired", "the certificate of mqtt.tls.cert_file has expired"),
    ("ca", "foreign", "the broker does not know who signed the certificate of mqtt.tls.cert_file"),
    ("ca", "insp1 for everybody", "is open to every user of this box"),
)  # fmt: skip


class SecureBox(Box):
    """A box whose TLS files are put where it looks for them, while it runs."""

    def __init__(self, folder: Path, port: int, plant: Path) -> None:
        self._plant = plant
        self._tls = folder / "tls"
        self._tls.mkdir(parents=True)
        super().__init__(folder, port, agent={"name": "insp1"})
        self.show("ca", "insp1")
        settings = {"constants": {"agent.certificates.LOOK_SECONDS": 0.2}, "arm_file": str(folder / "never")}
        (folder / "settings.json").write_text(json.dumps(settings))
        self.program = [sys.executable, "-m", "tests.models.launch", str(folder / "settings.json")]

    def show(self, authority: str, client: str) -> None:
        """Trust this authority and show this certificate; "": the broker gets to see none."""
        tls = {"enabled": True, "ca_file": f"{self._tls}/ca.crt"}
        files = {"ca.crt": f"{authority}.crt"}
        if client:
            tls |= {"cert_file": f"{self._tls}/box.crt", "key_file": f"{self._tls}/box.key"}
            name = client.split(maxsplit=1)[0]
            files |= {"box.crt": f"{name}.crt", "box.key": f"{name}.key"}
        for target, source in files.items():
            shutil.copy(self._plant / source, self._tls / f".{target}")
            (self._tls / f".{target}").rename(self._tls / target)
        if client.endswith("for everybody"):
            (self._tls / "box.key").chmod(0o644)
        self.config["mqtt"]["tls"] = tls
        self.write_config()

    def health(self) -> dict[str, Any]:
        """Return what `strip-agent status` says of the broker, and the alarms."""
        health: dict[str, Any] = self.ask("status")["health"]
        return health

    def doctor(self) -> str:
        """Return what `strip-agent doctor` says of the broker."""
        finding = try_broker(load_config(self.config_file, {}))
        assert finding.level == "bad", finding
        return finding.detail


def test_each_refusal_has_its_reason_in_log_health_and_doctor(tmp_path: Path, plant: Path, broker: Broker) -> None:
    """And what is put right on the disk is taken without a restart of the service."""
    with SecureBox(tmp_path / "box", broker.port, plant) as box:
        box.start()
        wait_for(lambda: box.health()["delivery"] == "verified", "its own subtree is accepted")
        for authority, client, said in REFUSALS:
            box.show(authority, client)
            before = len(box.log)
            broker.restart()
            wait_for(lambda it=said: it in box.health()["broker_error"], f"{authority}, {client}")  # type: ignore[misc]
            assert not box.health()["broker_connected"]
            assert said in box.log[before:]
            assert said in box.doctor()
            box.show("ca", "insp1")
            wait_for(lambda: box.health()["delivery"] == "verified", "connected again, by itself")
        box.show("ca", "insp2")
        broker.restart()
        wait_for(lambda: "not_authorized" in box.health()["alarms"], "the certificate of another box")
        wait_for(lambda: box.health()["delivery"] == "refused", "and nothing is delivered")
        assert re.search(r"does not take what is published on strip-agent/insp1/state/\w+: Not authorized", box.log)
        assert "Not authorized; see its access list; this box shows itself as 'insp2'" in box.doctor()
        box.show("ca", "soon")
        wait_for(lambda: "certificate_expires" in box.health()["alarms"], "20 days are few")
        assert re.search(r"mqtt.tls.cert_file: \S+box.crt expires on 20\d\d-", box.log)
        box.show("ca", "insp1")
        wait_for(lambda: "certificate_expires" not in box.health()["alarms"], "it was renewed")
        broker.restart()
        wait_for(lambda: box.health()["delivery"] == "verified", "its own subtree is accepted again")
        assert "Traceback" not in box.log


def test_a_box_without_a_certificate_is_refused_and_told_why(tmp_path: Path, plant: Path, broker: Broker) -> None:
    """Its authority is right, and so is all else."""
    with SecureBox(tmp_path / "box", broker.port, plant) as box:
        box.show("ca", "")
        box.start()
        said = "the broker demands a client certificate"
        wait_for(lambda: said in box.health()["broker_error"], "refused")
        assert said in box.log
        assert said in box.doctor()


def test_a_foreign_topic_is_refused_with_its_name(tmp_path: Path, plant: Path, broker: Broker) -> None:
    """A base topic that is not below the box's own name: the alarm, and doctor and log with the topic."""
    with SecureBox(tmp_path / "box", broker.port, plant) as box:
        box.config["mqtt"]["base_topic"] = "strip-agent/insp2"
        box.write_config()
        box.start()
        wait_for(lambda: "not_authorized" in box.health()["alarms"], "refused")
        assert re.search(r"does not take what is published on strip-agent/insp2/state/\w+: Not authorized", box.log)
        assert "not a message to strip-agent/insp2/doctor: Not authorized" in box.doctor()
