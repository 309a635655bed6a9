"""mqtt-spb-wrapper's own SCADA host: prints what it discovers and receives, and asks for the births once.

spb_wrapper_host.py PORT GROUP NODE
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mqtt_spb_wrapper import MqttSpbEntityScada


def tell(**facts: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(facts, default=str) + "\n")
    sys.stdout.flush()


def note(kind: str) -> Any:
    """Print each message of a kind."""

    def callback(topic: Any, payload: dict[str, Any]) -> None:
        values = {metric.get("name"): metric.get("value") for metric in payload.get("metrics", [])}
        tell(kind=kind, topic=str(topic.topic), values=values)

    return callback


host = MqttSpbEntityScada(
    sys.argv[2],
    "host3",
    callback_birth=note("BIRTH"),
    callback_data=note("DATA"),
    callback_death=note("DEATH"),
    callback_new_eon=lambda node: tell(kind="NODE", topic=node),
    callback_new_eond=lambda _, device: tell(kind="DEVICE", topic=device),
)
assert host.connect("127.0.0.1", int(sys.argv[1]), timeout=10)
tell(kind="subscribed")
for line in sys.stdin:
    if line.strip() == "rebirth":
        host.send_command("Node Control/Rebirth", True, sys.argv[3])  # noqa: FBT003 - its way
host.disconnect()
