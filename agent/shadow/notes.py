"""What a shadow has said and what it has missed since that was written down last, and how far it has come."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from agent.ledger.shadow import BEHIND_AT_MOST, NOT_JUDGED, Opinion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent.ledger import ShadowResults
    from agent.ledger.shadow import Events, Published
    from agent.models.slot_state import Shadow

WRITE_SECONDS = 5.0  # so long at the most an opinion waits to be written down
WRITE_AT_ONCE = 50
LOOKED_AT_ONCE = 50


class Notes:
    """Of one shadow. What raises Retry, where the ledger does not answer, changes nothing."""

    def __init__(
        self,
        ledger: ShadowResults,
        slot: str,
        shadow: Shadow,
        *,
        events: Events | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on where this shadow had come to; `events` tell each opinion as well. Raises Retry."""
        self.sha256 = shadow.sha256
        self._ledger = ledger
        self._slot = slot
        self._events = events
        self._clock = clock
        self._after_seq = ledger.progress(slot, shadow.sha256, shadow.since_ms)
        self._opinions: list[Opinion] = []
        self._missed: Counter[str] = Counter()  # by the model that was active
        self._since = 0.0  # when the first of them was noted, monotonic

    def next_strip(self, cameras: Collection[str], is_away: Callable[[str], bool]) -> Published | None:
        """Return the oldest published strip that the shadow has not seen; those that are gone are missed.

        `is_away` says it of a camera's folder. Raises Retry.
        """
        newest = self._ledger.newest_seq()
        if newest - self._after_seq > BEHIND_AT_MOST:
            passed_over = self._ledger.count_published(cameras, self._after_seq, newest - BEHIND_AT_MOST)
            self._after_seq = newest - BEHIND_AT_MOST
            for active, number in passed_over.items():
                self._miss(active, number)
        if newest == self._after_seq:
            return None
        found = self._ledger.published(cameras, self._after_seq, newest, LOOKED_AT_ONCE)
        for strip in found:
            self._after_seq = strip.seq
            if strip.model_sha256 == self.sha256:  # it was active itself
                continue
            if strip.is_there and not is_away(strip.strip.camera):
                return strip
            self._miss(strip.model_sha256)
        if len(found) < LOOKED_AT_ONCE:
            self._after_seq = newest
        return None

    def give_back(self, strip: Published) -> None:
        """Have a strip, the last one, judged later: its worker had to leave."""
        self._after_seq = strip.seq - 1

    def judged(self, strip: Published, *, anomalous: bool, score: float, threshold: float, inference_ms: float) -> None:
        """Note what the shadow says of a strip."""
        self._add(Opinion(strip, "anomalous" if anomalous else "ok", score, threshold, inference_ms))

    def not_judged(self, strip: Published, threshold: float, reason: str) -> None:
        """Note that the shadow could not judge a strip."""
        self._add(Opinion(strip, "invalid", NOT_JUDGED, threshold, 0.0, reason))

    def missed(self, strip: Published) -> None:
        """Note that a strip cannot be compared."""
        self._miss(strip.model_sha256)

    @property
    def are_due(self) -> bool:
        """Whether there is something to write down, for long or in plenty."""
        if not self._opinions and not self._missed:
            return False
        return len(self._opinions) >= WRITE_AT_ONCE or self._clock() >= self._since + WRITE_SECONDS

    def write(self) -> None:
        """Write down what there is, and how far the shadow has come. Raises Retry: it is kept for the next time."""
        if self._opinions or self._missed:
            said = self._opinions, self._missed
            self._ledger.record(self._slot, self.sha256, self._after_seq, *said, self._events)
            self._opinions, self._missed = [], Counter()

    def _add(self, opinion: Opinion) -> None:
        self._begin()
        self._opinions.append(opinion)

    def _miss(self, active_sha256: str, number: int = 1) -> None:
        self._begin()
        self._missed[active_sha256] += number

    def _begin(self) -> None:
        if not self._opinions and not self._missed:
            self._since = self._clock()
