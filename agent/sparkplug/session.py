"""One connection's life as an edge node: births first, one sequence number for all, only what was in a birth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.sparkplug.metrics import BD_SEQ, REBIRTH, with_facts
from agent.sparkplug.payload import Datatype, Metric, Payload, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from agent.mqtt import Connection
    from agent.publisher.echo import Echo
    from agent.sparkplug.payload import Scalar
    from agent.sparkplug.topics import Topics

_SEQ_VALUES = 256


class Session:
    """Used by one thread. Raises mqtt.CannotSend for what the broker does not take."""

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        bd_seq: int,
        echo: Echo,
        *,
        aliases: bool,
        may_write: Collection[str],
        wall_ms: Callable[[], int],
    ) -> None:
        """`bd_seq` is that of the connection's will; `echo` notices whether anything arrives.

        `may_write` names the metrics that hosts may write.
        """
        self._connection = connection
        self._topics = topics
        self._bd_seq = bd_seq
        self._echo = echo
        self._with_aliases = aliases
        self._may_write = may_write
        self._wall_ms = wall_ms
        self._seq = 0
        self._aliases: dict[tuple[str, str], int] = {}  # (device, name) -> alias
        self._told: dict[str, dict[str, tuple[Scalar | None, object]]] = {}  # what each birth listed, and its news

    @property
    def born(self) -> bool:
        """The node's birth has been sent."""
        return "" in self._told

    def is_alive(self, device: str) -> bool:
        """Say whether the device has been born on this connection and has not died since."""
        return device in self._told

    @property
    def devices(self) -> list[str]:
        """Those that are alive."""
        return [device for device in self._told if device]

    def give_birth(self, metrics: Iterable[Metric]) -> None:
        """Send NBIRTH, the first time or again: `seq` begins with 0, and all devices have to be born again."""
        now_ms = self._wall_ms()
        own = (
            Metric(BD_SEQ, Datatype.INT64, self._bd_seq, now_ms),
            Metric(REBIRTH, Datatype.BOOLEAN, value=False, timestamp_ms=now_ms),
        )
        self._seq = 0
        self._told = {}
        self._birth("NBIRTH", "", [*own, *metrics])

    def give_birth_to(self, device: str, metrics: Iterable[Metric]) -> None:
        """Send DBIRTH."""
        self._birth("DBIRTH", device, list(metrics))

    def _birth(self, kind: str, device: str, metrics: list[Metric]) -> None:
        self._told[device] = {}
        self._note(device, metrics)
        self._send(
            kind, device, tuple(self._with_alias(device, metric) for metric in with_facts(metrics, self._may_write))
        )

    def bury(self, device: str) -> None:
        """Send DDEATH."""
        del self._told[device]
        self._send("DDEATH", device, ())

    def tell(self, device: str, metrics: Iterable[Metric]) -> None:
        """Send NDATA, or DDATA of a device."""
        found = tuple(metrics)
        self._note(device, [metric for metric in found if not metric.historical])
        named = tuple(self._by_alias(device, metric) for metric in found)
        self._send("DDATA" if device else "NDATA", device, named)

    def tell_changes(self, device: str, metrics: Iterable[Metric]) -> None:
        """Send those whose value is another one than the host knows; nothing, if there are none."""
        known = self._told[device]
        changed = [metric for metric in metrics if known[metric.name or ""] != (metric.value, metric.properties)]
        if changed:
            self.tell(device, changed)

    def with_name(self, device: str, metric: Metric) -> Metric:
        """Give a metric that a host wrote by its alias its name."""
        names = (name for (owner, name), alias in self._aliases.items() if (owner, alias) == (device, metric.alias))
        return replace(metric, name=next(names, None)) if metric.name is None else metric

    def _note(self, device: str, metrics: Iterable[Metric]) -> None:
        self._told[device].update({metric.name or "": (metric.value, metric.properties) for metric in metrics})

    def _send(self, kind: str, device: str, metrics: tuple[Metric, ...]) -> None:
        payload = encode(Payload(self._wall_ms(), metrics, self._seq))
        topic = self._topics.of(kind, device)
        self._echo.before_publish(topic, payload)
        self._connection.publish(topic, payload, None, retain=False, qos=0)
        self._seq = (self._seq + 1) % _SEQ_VALUES

    # Aliases, if wanted: births carry both, data the alias alone. A datatype always: without it some hosts read null.

    def _with_alias(self, device: str, metric: Metric) -> Metric:
        if not self._with_aliases or metric.name in (None, REBIRTH, BD_SEQ):
            return metric
        alias = self._aliases.setdefault((device, metric.name or ""), len(self._aliases) + 1)
        return replace(metric, alias=alias)

    def _by_alias(self, device: str, metric: Metric) -> Metric:
        named = self._with_alias(device, metric)
        return named if named.alias is None else replace(named, name=None)


def death(bd_seq: int, now_ms: int) -> bytes:
    """Make the payload of NDEATH: without `seq`, and it says which birth it ends."""
    return encode(Payload(now_ms, (Metric(BD_SEQ, Datatype.INT64, bd_seq, now_ms),)))
