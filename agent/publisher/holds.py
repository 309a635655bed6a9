"""Topics that the broker refuses: each is left alone for a while and then tried with a single message.

One camera that the broker's access list forgot must not keep the results of the others in the box. A hold outlives the
connection: some brokers hang up on a message that they refuse, and would do so at once on every connection. Only one
topic is tried at a time: when the broker hangs up, an allowed one must not take the blame for one that is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0


class _Stage(Enum):
    RESTING = "nothing is sent"
    READY = "the next message may be sent, to see"
    TRYING = "it is under way"


@dataclass(slots=True)
class _Hold:
    alarm: str
    until: float  # monotonic
    seconds: float
    stage: _Stage = _Stage.RESTING
    lowest_row: int | None = None  # of the outbox rows that this hold keeps back
    trial_row: int | None = None  # of the message that was sent last, to see; None for a state
    closes: int = 0  # connections in a row that the broker ended on that message


class Holds:
    """The refused topics."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}
        self._may_try = False  # nothing is being tried; `wake` finds out
        self._trials_from = float("-inf")  # monotonic

    @property
    def alarms(self) -> set[str]:
        """Why topics are held, apart from those that are ready and have nothing to try: that may last for months."""
        holds = self._holds.values()
        return {hold.alarm for hold in holds if hold.stage is not _Stage.READY or hold.lowest_row is not None}

    def held(self, topic: str) -> bool:
        """Whether nothing may be sent to this topic now."""
        hold = self._holds.get(topic)
        return hold is not None and not (hold.stage is _Stage.READY and self._may_try)

    def keep_back(self, topic: str, row: int) -> None:
        """Remember that an outbox row waits for this topic."""
        hold = self._holds[topic]
        hold.lowest_row = row if hold.lowest_row is None else min(row, hold.lowest_row)

    def sent(self, topic: str, row: int | None = None) -> None:
        """Note that a message is under way; `row` is the outbox's."""
        hold = self._holds.get(topic)
        if hold is not None:
            hold.stage = _Stage.TRYING
            self._may_try = False
            if row != hold.trial_row:
                hold.trial_row, hold.closes = row, 0

    def refuse(self, topic: str, alarm: str, now: float) -> None:
        """Let the topic rest; when it was tried before, for twice as long."""
        hold = self._holds.get(topic)
        if hold is None:
            self._holds[topic] = _Hold(alarm, now + FIRST_SECONDS, FIRST_SECONDS)
        elif hold.stage is not _Stage.RESTING:
            hold.alarm, hold.stage, hold.closes = alarm, _Stage.RESTING, 0
            hold.seconds = min(LONGEST_SECONDS, 2 * hold.seconds)
            hold.until = now + hold.seconds

    def blame(self, topic: str, alarm: str, row: int | None, closes: int, now: float) -> None:
        """Let a topic rest because the broker hung up on this message, so many times in a row by now."""
        self.refuse(topic, alarm, now)
        self._holds[topic].trial_row, self._holds[topic].closes = row, closes

    def hung_up(self, now: float) -> tuple[int | None, int] | None:
        """Take the broker's hanging up for an answer to what was being tried, if anything was.

        Returns its row and how often in a row the broker has hung up on it.
        """
        for topic, hold in self._holds.items():
            if hold.stage is _Stage.TRYING:
                self.blame(topic, hold.alarm, hold.trial_row, hold.closes + 1, now)
                return hold.trial_row, hold.closes
        return None

    def accept(self, topic: str) -> int | None:
        """End the hold, if there is one: the broker took a message. Returns the lowest row that was kept back."""
        hold = self._holds.pop(topic, None)
        return None if hold is None else hold.lowest_row

    def try_another(self, topic: str) -> int | None:
        """Let the next message try: the last one was parked, which tells nothing. Returns the lowest row kept back."""
        hold = self._holds.get(topic)
        if hold is None or hold.stage is not _Stage.TRYING:
            return None
        hold.stage = _Stage.READY
        return hold.lowest_row

    def wake(self, now: float) -> int | None:
        """Make topics ready that have rested long enough; returns the lowest row that is to be fetched again.

        While one is being tried the others wait.
        """
        trying = any(hold.stage is _Stage.TRYING for hold in self._holds.values())
        self._may_try = now >= self._trials_from and not trying
        rows = []
        if self._may_try:
            for hold in self._holds.values():
                if hold.stage is _Stage.RESTING and now >= hold.until:
                    hold.stage = _Stage.READY
                if hold.stage is _Stage.READY and hold.lowest_row is not None:
                    rows.append(hold.lowest_row)
                    hold.lowest_row = None  # it is met again from there on
        return min(rows, default=None)

    def next_due(self, now: float) -> float | None:
        """When the next topic has rested long enough (monotonic); None when none rests."""
        due = (max(hold.until, self._trials_from) for hold in self._holds.values())
        return min((at for at in due if at > now), default=None)

    def begin(self, now: float) -> None:
        """Begin with a new connection: what was being tried when the last one ended counts as refused.

        Should the broker hang up on it again, the topics that are not held have had a while before.
        """
        self._trials_from = now + FIRST_SECONDS
        self._may_try = False
        for topic, hold in self._holds.items():
            if hold.stage is _Stage.TRYING:
                self.refuse(topic, hold.alarm, now)
