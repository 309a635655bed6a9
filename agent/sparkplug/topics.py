"""The topics of Sparkplug B 3.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import Config

NAMESPACE = "spBv1.0"
NODE_KINDS = ("NBIRTH", "NDATA", "NDEATH", "NCMD")
DEVICE_KINDS = ("DBIRTH", "DDATA", "DDEATH", "DCMD")


@dataclass(frozen=True, slots=True)
class Topics:
    """Those of one edge node."""

    group: str
    node: str

    def of(self, kind: str, device: str = "") -> str:
        """Return the topic of one kind of message (`NBIRTH`); with a `device` one of `DEVICE_KINDS`."""
        return f"{NAMESPACE}/{self.group}/{kind}/{self.node}" + (f"/{device}" if device else "")

    def command(self, topic: str) -> str | None:
        """Return for which device a command is, "" for the node itself; None when it is no command to this node."""
        if topic == self.of("NCMD"):
            return ""
        before = self.of("DCMD") + "/"
        return topic.removeprefix(before) if topic.startswith(before) else None


def topics_of(config: Config) -> Topics:
    """Return the topics of this box."""
    names = config.mqtt.sparkplug
    return Topics(names.group or config.agent.site or "", names.node or config.agent.name)


def client_id_of(config: Config) -> str:
    """Return the client id of the edge node's connection: another one than that of the JSON messages, if both go."""
    client_id = config.mqtt.client_id or config.agent.name
    return f"{client_id}-sparkplug" if config.mqtt.payload == "both" else client_id


def state_topic(host: str) -> str:
    """Return where a host application says whether it is there."""
    return f"{NAMESPACE}/STATE/{host}"
