"""Alarms as events: each is told once when it is raised and once when it is cleared, over kills and restarts.

Which are told of is in the ledger, in one transaction with the event. An alarm that goes and comes back at once is one
alarm; one that does so again and again is cleared later each time, so that a fault that flaps for months costs a few
messages an hour.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import messages
from agent.clock import now_ms
from agent.ledger import AlarmChange, AlarmRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from agent.config import Config
    from agent.ledger import Ledger

log = logging.getLogger(__name__)

OFF_DELAY_SECONDS = 5.0
LONGEST_OFF_DELAY_SECONDS = 600.0
CALM_SECONDS = 600.0  # an alarm that stays away for so long is patient no more
START_SECONDS = 120.0  # after a start it takes up to so long until every fault that lasts has been found again


@dataclass(slots=True)
class _Standing:
    """An alarm that subscribers know of, or will as soon as the ledger can be written."""

    row: AlarmRow
    off_delay: float = OFF_DELAY_SECONDS  # for so many seconds it has to be away before it is cleared
    gone: tuple[float, int] | None = None  # since when it is not there: monotonic seconds, Unix milliseconds
    inherited: bool = False  # from the run before, and not seen in this one yet


class AlarmTeller:
    """Follows the alarms of `state/health`. Used by one thread."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        """`clock` is monotonic seconds, `wall_ms` Unix milliseconds."""
        self.config = config  # a reload may set another one, at any time
        self._ledger = ledger
        self._clock = clock
        self._wall_ms = wall_ms
        self._standing: dict[str, _Standing] | None = None  # by name; None until the ledger was asked
        self._began = 0.0  # monotonic
        self._cleared: dict[str, tuple[float, float]] = {}  # name -> when it was cleared last, after which off-delay
        self._untold: list[AlarmChange] = []  # the ledger could not be written; at most two for each alarm

    def follow(
        self, present: Collection[str], unknown: Collection[str] = (), found: Mapping[str, str] | None = None
    ) -> bool:
        """Take in the alarms of this moment, by their names in `state/health`; return whether something was told.

        Nothing is cleared of the sources in `unknown` (`camera/top`), of which is not known yet how they are. `found`
        has what an alarm's text says beside what its code means, by name. Raises Retry where the ledger cannot:
        nothing is forgotten, the next call tells it.
        """
        now, wall_ms = self._clock(), self._wall_ms()
        if self._standing is None:
            self._standing = {row.name: _Standing(row, inherited=True) for row in self._ledger.alarms.raised()}
            self._began = now
        for name in present:
            if name in self._standing:
                self._standing[name].gone, self._standing[name].inherited = None, False
            else:
                more = (found or {}).get(name, "")
                self._standing[name] = _Standing(self._raise(name, wall_ms, more), self._off_delay(name, now))
        for name, standing in list(self._standing.items()):
            if name in present or standing.row.source in unknown:
                continue
            standing.gone = standing.gone or (now, wall_ms)
            since, since_ms = standing.gone
            if now >= max(since + standing.off_delay, self._began + START_SECONDS * standing.inherited):
                del self._standing[name]
                self._cleared[name] = now, standing.off_delay
                self._clear(standing.row, since_ms)
        return self._tell()

    def _raise(self, name: str, wall_ms: int, more: str) -> AlarmRow:
        for change in self._untold:
            if change.alarm.name == name and not change.raised:  # nobody has heard that it was over
                self._untold.remove(change)
                return change.alarm
        cameras = [camera.name for camera in self.config.cameras]
        alarm = messages.explain(name, cameras, self.config.slots)
        if alarm.code not in messages.ALARMS:
            log.error("The alarm %s is in no table", name)
        text = f"{alarm.text} {more}" if more else alarm.text
        log.warning("alarm %s raised (%s): %s", name, alarm.priority, text)
        row = AlarmRow(name, alarm.code, alarm.source, alarm.priority, text, wall_ms)
        self._untold.append(AlarmChange(row, raised=True, ts_ms=wall_ms))
        return row

    def _clear(self, row: AlarmRow, gone_ms: int) -> None:
        log.info("alarm %s cleared", row.name)
        self._untold.append(AlarmChange(row, raised=False, ts_ms=max(gone_ms, row.since_ms)))

    def _off_delay(self, name: str, now: float) -> float:
        cleared_at, off_delay = self._cleared.get(name, (float("-inf"), 0.0))
        return min(2 * off_delay, LONGEST_OFF_DELAY_SECONDS) if now - cleared_at < CALM_SECONDS else OFF_DELAY_SECONDS

    def _tell(self) -> bool:
        if not self._untold:
            return False
        max_messages = self.config.outbox.max_messages
        self._ledger.alarms.tell(self._untold, messages.ALARM_EVENT, self._payload, max_messages)
        self._untold = []
        return True

    def _payload(self, change: AlarmChange, msg_id: str) -> bytes:
        alarm = change.alarm
        return messages.encode(
            messages.AlarmEvent(
                msg_id=msg_id,
                agent=self.config.agent.name,
                code=alarm.code,
                source=alarm.source,
                state="raised" if change.raised else "cleared",
                priority=alarm.priority,  # type: ignore[arg-type] # the table lets no other in
                text=alarm.text,
                since_ts=messages.utc_text(alarm.since_ms),
                since_ms=alarm.since_ms,
                ts=messages.utc_text(change.ts_ms),
                ts_ms=change.ts_ms,
            )
        )
