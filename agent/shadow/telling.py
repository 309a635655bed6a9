"""Keeps `state/shadow` of a slot up to date: at once when something else is to be said, else when figures change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent import messages
from agent.shadow.message import make_shadow_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.ledger import Comparison, Ledger
    from agent.models.slot_state import Shadow, SlotState
    from agent.shadow.message import Doing
    from agent.wire import Loaded

PUBLISH_SECONDS = 10.0  # so long at the most figures wait


class Telling:
    """Of one slot; `publish` takes a topic and its new value."""

    def __init__(
        self,
        slot: str,
        ledger: Ledger,
        publish: Callable[[str, bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slot = slot
        self._ledger = ledger
        self._publish = publish
        self._clock = clock
        self._told: tuple[Shadow | None, str, Doing, Comparison | None] | None = None  # shadow, active, ...
        self._publish_at = 0.0  # monotonic

    def tell(
        self, agent: str, state: SlotState, shadow: Shadow | None, doing: Doing, loaded: Loaded | None = None
    ) -> None:
        """Publish what there is to say; `agent` is the box's name, `state` the slot's, `loaded` the worker's facts.

        Raises Retry.
        """
        now = self._clock()
        same = self._told is not None and self._told[:3] == (shadow, state.active, doing)
        if same and now < self._publish_at:
            return
        self._publish_at = now + PUBLISH_SECONDS
        topic = messages.shadow_state_topic(self._slot)
        found = None if shadow is None else self._ledger.shadow.comparison(self._slot, shadow.sha256, state.active)
        told = (shadow, state.active, doing, found)
        if told == self._told:
            return
        self._told = told
        if shadow is None or found is None:
            self._publish(topic, b"")
            return
        said = make_shadow_state(agent, self._slot, state, shadow, found, doing, loaded)
        self._publish(topic, messages.encode(said))
