"""The topics of Sparkplug B 3.0."""

from __future__ import annotations

from dataclasses import dataclass

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


def state_topic(host: str) -> str:
    """Return where a host application says whether it is there."""
    return f"{NAMESPACE}/STATE/{host}"
