"""The link to the broker dead, deaf or slow, without anybody closing it: noticed, told, and nothing is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.checks import check_messages
from tests.faults.broker_line import WAITS, Line, first_seen
from tests.faults.judging import strip_of
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

WINDOW = 16
"""Messages that the agent has under way at a time, and so the most that one cut can make it repeat."""
PARKED = "parked: broker_disconnects"
STATES = 5
"""Retained states of these boxes, which share the window: agent, health, model, and the last strip of two cameras."""


def test_half_open_link(tmp_path: Path) -> None:
    """A link that swallows everything is noticed after one and a half keepalives; all arrives over the next one."""
    with Broker(tmp_path) as broker, TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        line = Line(tmp_path, proxy.port, mqtt={"keepalive_seconds": 5})
        with line.box:
            line.box.start()
            line.write(5)
            line.wait_until_arrived(subscriber)
            proxy.frozen = True
            began = time.monotonic()
            swallowed = line.write(20)
            line.wait_until_judged()
            assert line.agree(subscriber) == dict.fromkeys(swallowed, WAITS)
            line.wait_for_health(broker_connected=False, delivery="down")
            noticed_seconds = time.monotonic() - began
            # Which of the two limits is reached first is up to the scheduler; the next attempt may be over already.
            reasons = ("no acknowledgement for 7.5 s", "the broker did not answer a ping")
            assert any(reason in line.box.log for reason in reasons), line.box.log
            proxy.frozen = False
            verdict = line.judge(subscriber)
            assert first_seen(subscriber) == list(range(1, len(line.written) + 1))
            assert verdict.repeated <= WINDOW
            line.wait_for_health(broker_connected=True, alarms="")
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "half-open link",
            "noticed after one and a half keepalives, told, and replaced; strips are scored meanwhile",
            "a proxy that swallows both ways and closes nothing, keepalive 5 s",
            f"noticed after {noticed_seconds:.1f} s; {verdict}",
        )
    )


def test_lost_acknowledgements(tmp_path: Path) -> None:
    """What the broker has and the box does not know of is sent again: same id, same bytes, never more than a window."""
    cuts = 2
    with Broker(tmp_path) as broker, TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        line = Line(tmp_path, proxy.port)
        with line.box:
            line.box.start()
            line.write(3)
            line.wait_until_arrived(subscriber)
            for _ in range(cuts):
                proxy.answers_dropped = True
                arrived = len(unique_results(subscriber))
                line.write(15)
                line.wait_until_judged()
                # States are in the window too: what they take is not there for results.
                wait_for(lambda: len(unique_results(subscriber)) >= arrived + WINDOW - STATES, "a window arrives")  # noqa: B023 - used at once
                assert line.box.ask("audit")["strips"]["pending"] == 30
                proxy.refuse = True
                proxy.cut()  # first: an answer that is still under way must not arrive
                proxy.answers_dropped = proxy.refuse = False
                line.wait_until_arrived(subscriber)
            verdict = line.judge(subscriber)
            assert first_seen(subscriber) == list(range(1, len(line.written) + 1))
            assert cuts * (WINDOW - STATES) <= verdict.repeated <= cuts * WINDOW
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "lost acknowledgements",
            "repeats have the same id and the same bytes; at most one window of 16 for each lost connection",
            f"a proxy that drops what the broker says while 30 strips are written, then cuts, {cuts} times",
            str(verdict),
        )
    )


def test_a_link_of_one_byte_at_a_time(tmp_path: Path) -> None:
    """However the bytes come, each message arrives whole and once."""
    with Broker(tmp_path) as broker, TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        line = Line(tmp_path, proxy.port)
        proxy.chunk_bytes = 1
        with line.box:
            line.box.start()
            line.write(25)
            verdict = line.judge(subscriber)
            check_messages(subscriber)
            assert proxy.accepted == 1
            assert line.box.stop() == 0
        carried = proxy.requests_bytes
    assert verdict.repeated == 0
    tell(
        Row(
            "Broker",
            "a link that carries one byte at a time",
            "each message arrives whole and once, over one connection",
            "a proxy that reads and writes single bytes, both ways",
            f"{carried} bytes, one by one; {verdict}",
        )
    )


def test_a_broker_that_hangs_up_on_one_camera(tmp_path: Path) -> None:
    """Many brokers hang up on what they deny. The other camera goes on; what was set aside is named and comes later."""
    with Broker(tmp_path) as broker, TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        line = Line(tmp_path, proxy.port)
        with line.box:
            proxy.forbidden = b"/event/strip/side"
            line.box.start()
            line.write(20)
            line.wait_until_judged()
            denied = {strip for strip in line.written if strip[0] == "side"}
            wait_for(lambda: arrived(subscriber) == line.written - denied, "the other camera's results arrive")
            wait_for(lambda: line.box.ask("status")["cameras"]["top"]["judged"] == 0, "and are acknowledged")
            wait_for(lambda: "publish_refused" in line.box.ask("status")["health"]["alarms"], "it is told")
            named = line.agree(subscriber)
            assert set(named) == denied
            assert set(named.values()) <= {WAITS, PARKED}
            proxy.forbidden = b""
            wait_for(lambda: line.box.ask("status")["outbox"]["outbox_pending"] == 0, "the rest leaves")
            parked = [item for item in line.box.ask("audit")["unpublished"] if item["why"] == PARKED]
            assert len(parked) <= 2
            if parked:
                assert line.box.cli("strips", "retry", *(item["strip_id"] for item in parked)).returncode == 0
            line.wait_until_arrived(subscriber)
            facts = line.audit()
            assert facts["strips"]["acknowledged"] == len(line.written)
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "a broker that hangs up on one camera's topic without an answer",
            "the topic is found and rests, alarm publish_refused; the other camera goes on; a message that ends five "
            "connections in a row is set aside, named by the audit, and comes with `strips retry`",
            "a proxy that ends the connection as soon as the topic passes",
            f"{len(line.written)} strips, 0 lost; {len(parked)} set aside and retried; {proxy.accepted} connections",
        )
    )


def arrived(subscriber: Subscriber) -> set[tuple[str, str]]:
    """Return whose results have arrived."""
    return {strip_of(result) for result in unique_results(subscriber).values()}
