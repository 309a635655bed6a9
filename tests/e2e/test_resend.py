"""A consumer that lost its session gets exactly its gap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.helpers.box import Box, drop_file, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path


def test_resend_brings_a_subscribers_gap_to_zero(tmp_path: Path, good_strip: Path, broker: Broker) -> None:
    """The same results with the same ids, on a topic of their own: counters of live results do not count twice."""
    with Box(tmp_path, broker.port) as box:
        difference_model(box.inbox / "model.onnx")
        box.start()
        for number in range(6):
            drop_file(good_strip, box.camera() / f"{number}.tif")
        box.wait_until_published(6)
        with Subscriber(broker.port, "strip-agent/#") as consumer:  # it was away, without a session
            drop_file(good_strip, box.camera() / "6.tif")
            (live,) = wait_for_results(consumer, 1)
            done = box.cli("resend", "1", str(live["seq"] - 1))
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"6 results of stream {live['stream']}" in done.stdout
            wait_for(lambda: len(consumer.payloads("/replay/strip/top")) >= 6, "the gap")
            again = [json.loads(payload) for payload in consumer.payloads("/replay/strip/top")]
            assert [result["msg_id"] for result in again] == [f"{live['stream']}-{seq}" for seq in range(1, 7)]
            assert all(result["replayed"] for result in again)
            assert len(unique_results(consumer)) == 1
            assert {result["file"] for result in again} == {f"{number}.tif" for number in range(6)}
        assert box.audit()["balanced"]
        assert box.stop() == 0
