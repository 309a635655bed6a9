"""pysparkplug's decoder, strict about names, datatypes and aliases: prints each message, or why it refuses it.

pysparkplug_host.py PORT GROUP
"""

from __future__ import annotations

import json
import sys
from typing import Any

import paho.mqtt.client as paho
import pysparkplug

births: dict[Any, Any] = {}


def tell(**facts: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(facts, default=str) + "\n")
    sys.stdout.flush()


def on_message(_client: Any, _userdata: Any, message: Any) -> None:
    """Decode one message with the help of the birth before it."""
    if "STATE" in message.topic.split("/") or "CMD/" in message.topic:
        return  # other hosts put a seq into commands, which it refuses
    topic = pysparkplug.Topic.from_str(message.topic)
    owner = (topic.group_id, topic.edge_node_id, topic.device_id)
    kind = topic.message_type.name
    try:
        payload = pysparkplug.Message.from_mqtt_message(message, birth=births.get(owner)).payload
    except Exception as error:  # noqa: BLE001 - whatever it does not like is what is asked for
        tell(kind="refused", topic=message.topic, why=repr(error))
        return
    if kind.endswith("BIRTH"):
        births[owner] = payload
    values = {metric.name: metric.value for metric in getattr(payload, "metrics", ())}
    tell(kind=kind, topic=message.topic, values=values)


client = paho.Client(client_id="host4")
client.on_message = on_message
client.on_subscribe = lambda *_: tell(kind="subscribed")
client.connect("127.0.0.1", int(sys.argv[1]))
client.subscribe(f"spBv1.0/{sys.argv[2]}/#", 1)
client.loop_start()
sys.stdin.read()
client.disconnect()
