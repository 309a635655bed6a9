"""The retained states: the latest value of each topic, sent again on every connection."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# An HMI sees no more than ten values a second; in between only the latest counts.
SPACING_SECONDS = 0.1


@dataclass(slots=True)
class _State:
    payload: bytes
    changed: bool = True  # the broker does not have this payload yet
    under_way: bool = False
    not_before: float = 0.0  # monotonic


class States:
    """Latest value only: a value that is replaced before it was sent is never sent. Safe to use from any thread."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        self._configured: frozenset[str] = frozenset()  # they have a value, or will
        self._lock = threading.Lock()

    def set(self, topic: str, payload: bytes) -> bool:
        """Take a new value, an empty one to have none any more; returns whether anything changed."""
        with self._lock:
            if not payload:
                return self._states.pop(topic, None) is not None
            state = self._states.get(topic)
            if state is None:
                self._states[topic] = _State(payload)
                return True
            changed = state.payload != payload
            state.payload, state.changed = payload, state.changed or changed
            return changed

    def configure(self, topics: Iterable[str]) -> None:
        """Say which topics there are; those that there were and are no more are forgotten."""
        with self._lock:
            gone, self._configured = self._configured.difference(topics), frozenset(topics)
            for topic in gone:
                self._states.pop(topic, None)

    def send_all_again(self) -> None:
        """Forget what the broker has: a new connection, perhaps to a broker that has forgotten everything."""
        with self._lock:
            for state in self._states.values():
                state.changed, state.under_way, state.not_before = True, False, 0.0

    def repeat(self, topic: str | None = None) -> None:
        """Send this value again, or all of them: the broker does not have it any more."""
        with self._lock:
            for name, state in self._states.items():
                state.changed = state.changed or topic in (None, name)

    def topics(self) -> frozenset[str]:
        """All topics that have a value, or are to have one."""
        with self._lock:
            return self._configured.union(self._states)

    def take(self, now: float, room: int, held: Callable[[str], bool]) -> list[tuple[str, bytes]]:
        """Return up to `room` values to send now; each topic is under way once at most."""
        taken: list[tuple[str, bytes]] = []
        with self._lock:
            for topic, state in self._states.items():
                if len(taken) >= room:
                    break
                if state.changed and not state.under_way and now >= state.not_before and not held(topic):
                    state.changed, state.under_way = False, True
                    state.not_before = now + SPACING_SECONDS
                    taken.append((topic, state.payload))
        return taken

    def answered(self, topic: str, *, taken: bool) -> None:
        """Note that the broker answered; a value it did not take is sent again when the topic is no longer held."""
        with self._lock:
            state = self._states.get(topic)
            if state is not None:  # else it has been forgotten meanwhile
                state.under_way = False
                state.changed = state.changed or not taken

    def all_sent(self, held: Callable[[str], bool]) -> bool:
        """Whether the broker has every latest value, apart from those it refuses."""
        with self._lock:
            return all(held(topic) or not (state.changed or state.under_way) for topic, state in self._states.items())

    def waits(self, topic: str) -> bool:
        """Whether the latest value of a topic has not even been sent."""
        with self._lock:
            state = self._states.get(topic)
            return state is not None and state.changed

    def next_due(self, now: float) -> float | None:
        """When the next value that is only being spaced out may be sent (monotonic), None when there is none."""
        with self._lock:
            waiting = [state.not_before for state in self._states.values() if state.changed and not state.under_way]
        return min((at for at in waiting if at > now), default=None)
