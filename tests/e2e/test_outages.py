"""The broker absent, stopped, restarted, unreachable: strips go on being scored, and everything arrives in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.checks import check_every_strip_once, check_messages, in_first_seen_order
from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import MOSQUITTO, PERSISTENT, Broker, Subscriber, describe, wait_for
from tests.helpers.models import difference_model
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path


def drop(box: Box, source: Path, *names: str) -> list[str]:
    """Put strips into the camera's folder, one after the other."""
    for name in names:
        drop_file(source, box.camera() / name)
    return list(names)


def wait_until_judged(box: Box, strips: int) -> None:
    """Wait until so many strips have a result that waits for the broker."""

    def judged() -> bool:
        return bool(sum(camera["judged"] for camera in box.ask("status")["cameras"].values()) == strips)

    wait_for(judged, f"{strips} results wait in the outbox")


def test_broker_absent_at_the_start_then_there_then_gone_then_back(tmp_path: Path, good_strip: Path) -> None:
    """Scoring never waits for the broker; once it is there everything arrives, oldest first.

    The proxy lets the box find the broker only when the subscriber has found it: a broker keeps nothing for others.
    """
    broker = Broker(tmp_path, start=False)
    with TcpProxy(broker.port) as proxy, Box(tmp_path / "box", proxy.port) as box:
        proxy.refuse = True
        difference_model(box.inbox / "model.onnx")
        files = drop(box, good_strip, *(f"{number}.tif" for number in range(4)))
        box.start()
        wait_until_judged(box, 4)
        assert box.ask("status")["health"]["broker_connected"] is False
        with broker:
            broker.start()
            with Subscriber(broker.port) as subscriber:
                proxy.refuse = False
                check_every_strip_once(box, subscriber, files)
                subscriber.expect_reconnect()
                proxy.refuse = True
                broker.kill()
                files += drop(box, good_strip, *(f"{number}.tif" for number in range(4, 8)))
                wait_until_judged(box, 4)
                broker.start()
                subscriber.wait_for_subscription()
                proxy.refuse = False
                check_every_strip_once(box, subscriber, files)
                assert in_first_seen_order(subscriber) == list(range(1, 9))
                check_messages(subscriber)
        assert box.stop() == 0


@pytest.mark.mosquitto
@pytest.mark.skipif(MOSQUITTO is None, reason=f"a session must survive the broker's restart; {describe()}")
def test_broker_restarted_again_and_again_while_strips_arrive(tmp_path: Path, good_strip: Path) -> None:
    """Restarts in mid-stream cost repeats at most, never a message and never the order."""
    with Broker(tmp_path, PERSISTENT) as broker, Box(tmp_path / "box", broker.port) as box:
        difference_model(box.inbox / "model.onnx")
        box.start()
        with Subscriber(broker.port, keep_session=True) as subscriber:
            files: list[str] = []
            for restart in range(3):
                files += drop(box, good_strip, *(f"{restart}-{number}.tif" for number in range(6)))
                wait_for(lambda: len(unique_results(subscriber)) > 6 * restart, "the first of them arrive")  # noqa: B023 - used at once
                subscriber.expect_reconnect()
                broker.restart()
                subscriber.wait_for_subscription()
            check_every_strip_once(box, subscriber, files)
            first_seen = in_first_seen_order(subscriber)
            assert first_seen == sorted(first_seen)


def test_a_link_that_loses_acknowledgements(tmp_path: Path, good_strip: Path, broker: Broker) -> None:
    """What the broker has but the box does not know it has is sent again: the same msg_id, the same bytes."""
    with TcpProxy(broker.port) as proxy, Box(tmp_path / "box", proxy.port) as box:
        difference_model(box.inbox / "model.onnx")
        box.start()
        with Subscriber(broker.port) as subscriber:
            files = drop(box, good_strip, "a.tif")
            check_every_strip_once(box, subscriber, files)
            proxy.answers_dropped = True
            files += drop(box, good_strip, "b.tif", "c.tif")
            wait_for(lambda: len(unique_results(subscriber)) == 3, "the broker has them")
            assert box.ask("status")["strips"]["pending"] == 2
            proxy.refuse = True
            proxy.cut()  # first: an answer that is still under way must not arrive
            proxy.answers_dropped = proxy.refuse = False
            check_every_strip_once(box, subscriber, files)
            wait_for(lambda: len(subscriber.payloads("/event/strip/")) == 5, "two of them came twice")
            assert len(set(subscriber.payloads("/event/strip/"))) == 3


def test_an_outbox_that_is_full_drops_the_oldest_and_names_them(tmp_path: Path, good_strip: Path) -> None:
    """Above outbox.max_messages the oldest results are dropped, counted and named; the audit still balances."""
    broker = Broker(tmp_path, start=False)
    with TcpProxy(broker.port) as proxy, Box(tmp_path / "box", proxy.port, outbox={"max_messages": 10}) as box:
        proxy.refuse = True  # the box finds the broker when the subscriber has found it
        difference_model(box.inbox / "model.onnx")
        drop(box, good_strip, *(f"{number:02}.tif" for number in range(14)))
        box.start()
        wait_for(lambda: box.ask("audit")["last_seq"] == 14, "all are judged")
        audit = box.ask("audit")
        assert audit["balanced"], audit["problems"]
        assert audit["strips"]["dropped"] + audit["strips"]["pending"] == 14
        dropped = {item["file"] for item in audit["unpublished"] if item["state"] == "dropped"}
        assert dropped
        assert max(dropped) < min(item["file"] for item in audit["unpublished"] if item["state"] == "judged")
        assert "outbox_dropped" in box.ask("status")["health"]["alarms"]
        with broker:
            broker.start()
            with Subscriber(broker.port) as subscriber:
                proxy.refuse = False
                wait_for(lambda: box.ask("status")["strips"]["pending"] == 0, "the rest is published")
                assert box.ask("audit")["balanced"]
                wait_for(lambda: len(unique_results(subscriber)) == 14 - len(dropped), "the rest arrives")
                published = {result["file"] for result in unique_results(subscriber).values()}
        assert not published & dropped
