"""A provider that cannot be used costs nothing but speed, and is seen from everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.broker import Broker

ALARM = "slot_default_provider_not_used"


def test_without_the_wanted_provider_the_cpu_computes_and_an_alarm_says_so(tmp_path: Path, broker: Broker) -> None:
    """The model becomes active, the strip is judged; health, the status and its text name what is missing."""
    strip = tmp_path / "strip.tif"
    write_strip(strip)
    with Subscriber(broker.port) as subscriber, Box(tmp_path / "box", broker.port) as box:
        box.config["inference"] = {"provider": "tensorrt"}
        box.write_config()
        difference_model(box.inbox / "model.onnx")
        box.start()
        drop_file(strip, box.camera() / "1.tif")
        wait_for(lambda: unique_results(subscriber), "the strip is judged")
        assert [result["verdict"] for result in unique_results(subscriber).values()] == ["ok"]
        wait_for(lambda: ALARM in box.ask("status")["health"]["alarms"].split(","), "health has the alarm")
        worker = box.ask("status")["workers"]["default"]
        assert worker["provider"] == "cpu"
        assert worker["provider_refused"].startswith("tensorrt: onnxruntime ")
        assert "ON THE CPU, as it cannot be computed by tensorrt" in box.cli("status").stdout
        wait_for(
            lambda: any(b"slot_provider_not_used" in payload for payload in subscriber.payloads("/event/alarm")),
            "the alarm is told",
        )
