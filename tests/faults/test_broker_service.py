"""The broker absent, stopped, refusing: the box goes on scoring, says why, and all arrives once it is put right."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.checks import check_messages
from tests.faults.broker_line import BASE, WAITS, Line, first_seen
from tests.faults.judging import health, strip_of
from tests.faults.reliability import Row, tell
from tests.helpers.box import unique_results
from tests.helpers.broker import MOSQUITTO, PERSISTENT, Broker, Subscriber, describe, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.mosquitto,
    pytest.mark.skipif(MOSQUITTO is None, reason=f"sessions, access lists and MQTT 5 are needed; {describe()}"),
]


def test_absent_at_the_start_then_there_then_restarted(tmp_path: Path) -> None:
    """Scoring waits for no broker; what waits is named; each return of the broker brings it all, oldest first."""
    with Broker(tmp_path, PERSISTENT) as broker, Subscriber(broker.port, keep_session=True) as subscriber:
        subscriber.expect_reconnect()
        broker.stop()  # it keeps the subscription, and with it what comes before the subscriber is back
        line = Line(tmp_path, broker.port)
        with line.box:
            line.write(8)
            line.box.start()
            line.wait_until_judged()
            facts = line.audit()
            assert facts["strips"]["pending"] == 16
            assert {strip_of(item): item["why"] for item in facts["unpublished"]} == dict.fromkeys(line.written, WAITS)
            assert "Connection refused" in line.wait_for_health(broker_connected=False, delivery="down")["broker_error"]
            broker.start()
            subscriber.wait_for_subscription()
            line.wait_until_arrived(subscriber)
            subscriber.expect_reconnect()
            broker.stop()
            new = line.write(4)
            line.wait_until_judged()
            assert line.agree(subscriber) == dict.fromkeys(new, WAITS)
            broker.start()
            subscriber.wait_for_subscription()
            verdict = line.judge(subscriber)
            assert first_seen(subscriber) == list(range(1, len(line.written) + 1))
            check_messages(subscriber)
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "absent at the start, then there, then stopped and started",
            "strips are scored all the time; each time the broker is there again all arrives by itself, oldest first",
            "mosquitto started after the service; later stopped for a while, strips written meanwhile",
            f"{verdict}; the audit named all that waited, each time",
        )
    )


def test_login_refused_then_put_right(tmp_path: Path) -> None:
    """A wrong password stops nothing but the sending; health says why, and no restart is needed to put it right."""
    users, password = tmp_path / "users", tmp_path / "password"

    def set_password(user: str, word: str) -> None:
        users.touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", users, user, word], check=True, capture_output=True)

    scada = "of the subscriber"
    set_password("scada", scada)
    set_password("box1", "right")
    password.write_text("wrong\n")
    login = {"username": "box1", "password_file": str(password)}
    with Broker(tmp_path, f"allow_anonymous false\npassword_file {users}\nmax_queued_messages 0") as broker:
        line = Line(tmp_path, broker.port, mqtt=login)
        with line.box, Subscriber(broker.port, username="scada", password=scada) as subscriber:
            line.box.start()
            line.write(6)
            line.wait_until_judged()
            refused = line.wait_for_health(alarm="login_refused", broker_connected=False, status="degraded")
            assert "Not authorized" in refused["broker_error"]
            status = line.box.cli("status")
            assert (status.returncode, "login_refused" in status.stdout) == (0, True), status
            assert "Not authorized" in status.stdout
            assert line.agree(subscriber) == dict.fromkeys(line.written, WAITS)
            password.write_text("right\n")
            verdict = line.judge(subscriber)
            wait_for(lambda: health(subscriber).get("alarms") == "", "the alarm is over")
            assert "right" not in line.box.log.split()
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "login refused",
            "the service stays up and scores; health, status and log say why; right again without a restart",
            "mosquitto with a password file, the box with a wrong password that is corrected later",
            f"{verdict}; alarm login_refused while it lasted",
        )
    )


def _acl(folder: Path, *lines: str, more: str = "") -> str:
    file = folder / "acl"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return f"allow_anonymous true\nacl_file {file}\n{more}"


HANGS_UP = "max_queued_messages 0"
"""With it mosquitto 2.0 ends the connection after it has answered a message that it denies."""


_ALL_BUT_SIDE = (
    f"topic readwrite {BASE}/state/#",
    f"topic readwrite {BASE}/event/model/#",
    f"topic readwrite {BASE}/event/alarm",
    f"topic readwrite {BASE}/event/strip/top",
    f"topic read {BASE}/#",
)


@pytest.mark.parametrize("hangs_up", [False, True], ids=["answers", "answers and hangs up"])
def test_one_topic_denied_over_mqtt_5(tmp_path: Path, hangs_up: bool) -> None:
    """The denied camera's results stay in the outbox with an alarm, the other's go on; all arrives once allowed."""
    more = HANGS_UP if hangs_up else ""
    with Broker(tmp_path, _acl(tmp_path, *_ALL_BUT_SIDE, more=more)) as broker:
        line = Line(tmp_path, broker.port)
        with line.box, Subscriber(broker.port) as subscriber:
            line.box.start()
            line.write(20)
            line.wait_until_judged()
            denied = {strip for strip in line.written if strip[0] == "side"}
            wait_for(
                lambda: {strip_of(r) for r in unique_results(subscriber).values()} == line.written - denied,
                "the allowed camera's results arrive",
            )
            line.wait_for_health(alarm="not_authorized", delivery="refused", outbox_depth=20, broker_protocol="5")
            wait_for(lambda: "not_authorized" in health(subscriber).get("alarms", ""), "it is told over MQTT")
            assert line.agree(subscriber) == dict.fromkeys(denied, WAITS)
            broker.reload(_acl(tmp_path, f"topic readwrite {BASE}/#", more=more))
            verdict = line.judge(subscriber)
            arrived = [result["seq"] for result in map(json.loads, subscriber.payloads("/event/strip/side"))]
            assert arrived == sorted(set(arrived)), "in order, none twice"
            wait_for(lambda: health(subscriber)["delivery"] == "verified", "the alarm is over")
            assert "not_authorized" not in health(subscriber)["alarms"]
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            f"one camera's topic denied by the access list, MQTT 5{', the broker hangs up each time' * hangs_up}",
            "its results stay in the outbox, named; alarm not_authorized, delivery refused; the other camera goes on; "
            "all arrives in order once it is allowed",
            "mosquitto's access list without event/strip/side, corrected later (SIGHUP)",
            f"{verdict}; 20 of them waited with the alarm",
        )
    )


def test_one_topic_denied_over_mqtt_3_1_1(tmp_path: Path) -> None:
    """There a denied message is acknowledged: delivery says `unverified`, and a retry brings what was thrown away."""
    with Broker(tmp_path, _acl(tmp_path, *_ALL_BUT_SIDE)) as broker:
        line = Line(tmp_path, broker.port, mqtt={"protocol": "3.1.1"})
        with line.box, Subscriber(broker.port) as subscriber:
            line.box.start()
            line.write(5, "top")
            line.judge(subscriber)
            line.wait_for_health(delivery="verified", broker_protocol="3.1.1", alarms="")
            denied = line.write(5, "side")
            line.box.wait_until_published(10)
            line.wait_for_health(alarm="delivery_unverified", delivery="unverified", status="degraded")
            wait_for(lambda: "delivery_unverified" in health(subscriber)["alarms"], "it is told over MQTT")
            assert "delivery unverified" in line.box.cli("status").stdout
            facts = line.audit()
            assert facts["cameras"]["side"]["acknowledged"] == 5  # all that the protocol tells
            assert {strip_of(r) for r in unique_results(subscriber).values()} == line.written - denied
            broker.reload(_acl(tmp_path, f"topic readwrite {BASE}/#"))
            wait_for(lambda: "Reloading config" in broker.log, "mosquitto read the new access list")
            ids = [item["strip_id"] for item in line.box.ask("strips_list", camera="side")["strips"]]
            assert line.box.cli("strips", "retry", *ids).returncode == 0
            line.wait_for_health(delivery="verified", alarms="")
            line.wait_until_arrived(subscriber)
            assert line.agree(subscriber, line.audit()) == {}
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "one camera's topic denied by the access list, MQTT 3.1.1",
            "the broker acknowledges what it throws away, so these count as acknowledged; delivery says unverified, "
            "with an alarm, because nothing comes back; `strips retry` sends them again as new revisions",
            "the same access list, mqtt.protocol 3.1.1",
            "5 strips of 10 thrown away by the broker, alarm delivery_unverified; all there after the retry, verified",
        )
    )
