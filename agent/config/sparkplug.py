"""The configuration of Sparkplug B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.config.types import Section, SparkplugId

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def broken_sparkplug_rules(
    names: SparkplugSection, payload: str, site: str | None, *, holds: bool
) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for each rule about Sparkplug that the configuration breaks.

    `payload` is `mqtt.payload`, `site` is `agent.site`, `holds` is `outbox.hold_until_subscribed`.
    """
    if payload == "json":
        if names != SparkplugSection():
            yield "mqtt.sparkplug", "it has no effect with `payload: json`; write `payload: sparkplug` or `both`"
        return
    if holds and payload == "sparkplug":
        sentence = "nobody tells that of Sparkplug; mqtt.sparkplug.primary_host waits for a host"
        yield "outbox.hold_until_subscribed", sentence
    group = names.group or site
    if not group:
        yield "mqtt.sparkplug.group", "Sparkplug needs a group here, or agent.site"
    if group == "STATE":
        yield "mqtt.sparkplug.group", "STATE is where hosts say that they are there; it cannot be a group"
