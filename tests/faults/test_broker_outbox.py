"""What waits for the broker: its limit, and how the audit names it."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.broker_line import WAITS, Line, first_seen
from tests.faults.judging import health, strip_of
from tests.faults.reliability import Row, tell
from tests.helpers.box import unique_results
from tests.helpers.broker import MOSQUITTO, Broker, Subscriber, describe, wait_for
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.mosquitto,
    pytest.mark.skipif(MOSQUITTO is None, reason=f"only mosquitto loses nothing of its own; {describe()}"),
]

SKIPPED = "skipped by the backlog rule"
DROPPED = "dropped: the outbox was full (outbox.max_messages)"


def test_outbox_limit_reached(tmp_path: Path) -> None:
    """Above outbox.max_messages the oldest go: counted, announced, each named, and missing as a gap in seq."""
    limit, number = 10, 40
    with Broker(tmp_path, start=False) as broker, TcpProxy(broker.port) as proxy:
        proxy.refuse = True  # the box finds the broker when the subscriber has found it: it keeps nothing for others
        line = Line(tmp_path, proxy.port, outbox={"max_messages": limit})
        with line.box:
            line.box.start()
            line.write(number // 2)
            line.wait_until_judged()
            full = line.wait_for_health(alarm="outbox_dropped", broker_connected=False)
            facts = line.audit()
            dropped = {strip_of(item) for item in facts["unpublished"] if item["state"] == "dropped"}
            assert (facts["strips"]["dropped"], facts["strips"]["pending"]) == (number - limit, limit)
            assert {item["why"] for item in facts["unpublished"]} == {WAITS, DROPPED}
            # What is no result (of models, of alarms) waits too, and costs no result.
            assert full["outbox_dropped"] == len(dropped) == number - limit
            assert full["outbox_depth"] > limit
            broker.start()
            with Subscriber(broker.port) as subscriber:
                proxy.refuse = False
                line.box.wait_until_published(number)
                wait_for(lambda: len(unique_results(subscriber)) == limit, "the newest arrive")
                unpublished = line.agree(subscriber)
                assert set(unpublished) == dropped
                assert first_seen(subscriber) == list(range(number - limit + 1, number + 1))
                wait_for(lambda: health(subscriber).get("outbox_dropped") == full["outbox_dropped"], "announced")
                assert "outbox_dropped" in health(subscriber)["alarms"]
                again = [item for item in facts["unpublished"] if item["state"] == "dropped"][:5]
                assert line.box.cli("strips", "retry", *(item["strip_id"] for item in again)).returncode == 0
                line.box.wait_until_published(number)
                wait_for(lambda: len(unique_results(subscriber)) == limit + 5, "what is retried arrives")
                assert set(line.agree(subscriber, line.audit())) == dropped - {strip_of(item) for item in again}
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "outbox limit reached (outbox.max_messages; there is no limit by bytes or age)",
            "the oldest are dropped; counted and announced in health (alarm outbox_dropped), each named by the audit, "
            "and seen by a subscriber as a gap in seq; the newest arrive, and what is retried",
            f"limit {limit}, {number} strips scored without a broker",
            f"{number - limit} dropped and named, {limit} arrived in order, then 5 retried ones; audit balanced",
        )
    )


def test_audit_since_names_what_is_not_published_and_why(tmp_path: Path) -> None:
    """`--since` leaves out what came before; each later strip not published is named with its reason; exit 0 or 1."""
    limit = 10
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        line = Line(tmp_path, broker.port, outbox={"max_messages": limit})
        line.box.config["cameras"][1]["backlog"] = "none"
        line.box.write_config()
        skipped = line.write(2, "side")
        with line.box:
            line.box.start()
            line.write(3)
            wait_for(lambda: len(unique_results(subscriber)) == 6, "all but the skipped arrive")
            line.box.wait_until_published(8)
            assert line.agree(subscriber) == dict.fromkeys(skipped, SKIPPED)
            broker.stop()
            time.sleep(0.01)  # what follows is seen in a later millisecond
            since = datetime.now(UTC).isoformat()
            expected = dict.fromkeys(line.write(4), DROPPED)
            line.wait_until_judged()
            expected |= dict.fromkeys(line.write(limit // 2), WAITS)
            line.wait_until_judged()
            half = next(line.box.camera("top").glob("*.tif")).read_bytes()[:-1000]
            (line.box.camera("top") / "half.tif").write_bytes(half)
            expected["top", "half.tif"] = "waits for its half written file"

            def why(facts: dict[str, Any]) -> dict[tuple[str, str], str]:
                return {strip_of(item): item["why"] for item in facts["unpublished"]}

            wait_for(lambda: why(line.box.ask("audit")) == expected | dict.fromkeys(skipped, SKIPPED), "all wait")
            running = line.audit("--since", since)
            assert line.box.stop() == 0
            for facts in (running, line.audit("--since", since)):
                assert why(facts) == expected
                for camera in ("top", "side"):
                    reasons = Counter(reason for (name, _), reason in expected.items() if name == camera)
                    found = facts["cameras"][camera]
                    assert found["seen"] == reasons.total() == found["pending"] + found["dropped"], found
                    assert (found["judged"], found["dropped"]) == (reasons[WAITS], reasons[DROPPED])
            everything = line.audit("--since", "1h")
            assert everything["strips"]["seen"] == len(line.written) + 1
            assert everything["strips"]["acknowledged"] == len(unique_results(subscriber))
            assert line.audit("--since", (datetime.now(UTC) + timedelta(hours=1)).isoformat())["unpublished"] == []
            assert line.box.cli("audit", "--since", "yesterday").returncode == 2
            with closing(sqlite3.connect(line.box.state / "ledger.db")) as ledger:
                ledger.execute("DELETE FROM outbox WHERE id = (SELECT max(id) FROM outbox WHERE seq > 0)")
                ledger.commit()
            for arguments in (("--since", since), ()):
                broken = line.audit(*arguments, exit_code=1)
                assert "1 strips are judged but have no message waiting for the broker" in broken["problems"]
    tell(
        Row(
            "Broker",
            "audit --since while the broker is away",
            "only strips seen since; each that is not published is named with its reason, with and without the "
            "service; exit 0 while the sums hold, 1 when they do not",
            "strips published, skipped, dropped, waiting and half written; then a message deleted by SQL",
            f"{len(expected)} of {len(line.written) + 1} strips named with {len(set(expected.values()))} reasons, "
            "exit 0; exit 1 for the deleted message",
        )
    )
