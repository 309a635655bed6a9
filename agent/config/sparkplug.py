"""The configuration of Sparkplug B, and the names that this box has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.config.types import Section, SparkplugId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.sections import Config


class SparkplugSection(Section):
    """Names for Sparkplug B; see sparkplug.md."""

    group: SparkplugId | None = None
    """Group of the edge node; null: agent.site."""
    node: SparkplugId | None = None
    """Name of the edge node, unique in its group; null: agent.name."""
    primary_host: SparkplugId | None = None
    """Host application that has to be online: until then everything waits in the outbox. null: do not wait."""
    aliases: bool = False
    """true: data carry numbers instead of names; shorter, and not every host can read it."""


def broken_sparkplug_rules(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for each rule about Sparkplug that the configuration breaks."""
    if config.mqtt.payload == "json":
        if config.mqtt.sparkplug != SparkplugSection():
            yield "mqtt.sparkplug", "it has no effect with `payload: json`; write `payload: sparkplug` or `both`"
        return
    if config.outbox.hold_until_subscribed and config.mqtt.payload == "sparkplug":
        sentence = "nobody tells that of Sparkplug; mqtt.sparkplug.primary_host waits for a host"
        yield "outbox.hold_until_subscribed", sentence
    if not sparkplug_group(config):
        yield "mqtt.sparkplug.group", "Sparkplug needs a group here, or agent.site"
    if sparkplug_group(config) == "STATE":
        yield "mqtt.sparkplug.group", "STATE is where hosts say that they are there; it cannot be a group"


def sparkplug_group(config: Config) -> str:
    """Return the group of this box."""
    return config.mqtt.sparkplug.group or config.agent.site or ""


def sparkplug_node(config: Config) -> str:
    """Return the name of this box as an edge node."""
    return config.mqtt.sparkplug.node or config.agent.name


def sparkplug_client_id(config: Config) -> str:
    """Return the client id of the edge node's connection: another one than that of the JSON messages, if both go."""
    client_id = config.mqtt.client_id or config.agent.name
    return f"{client_id}-sparkplug" if config.mqtt.payload == "both" else client_id
