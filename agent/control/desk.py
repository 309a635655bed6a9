"""The desk where commands from outside are taken: over MQTT, and over Sparkplug.

One at a time through bounded queues, only those that `mqtt.commands` lists, and none twice: what was asked in the last
ten minutes with the same `id` by the same sender is answered again and not done again, over a restart too. For that the
ledger has every command that changes something before it is done. What only reads is remembered in memory, the last few
answers; after a restart it is read again.

Whoever brings commands in (`over_mqtt.py` does, and Sparkplug) calls `submit` from any thread with something short to
do, which the desk's own thread does when its turn comes; in it, `ask` carries the command out and returns the answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agent import messages
from agent.clock import now_ms
from agent.control.commands import COMMANDS, RESULT_BYTES, RESULTS_KEPT_MS, carry_out, fingerprint, record_end
from agent.control.context import Outcome, Who
from agent.control.fitting import json_within
from agent.errors import Retry
from agent.messages import CommandResult, Fault
from agent.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.control.context import Context
    from agent.ledger import CommandRow

log = logging.getLogger(__name__)

QUEUE = 16  # commands of one kind that wait
EXPIRED_MS = 60_000
REMEMBERED_SECONDS = RESULTS_KEPT_MS / 1000
CHANGES_REMEMBERED = 300  # of one command in that time; beyond it none is carried out that could not be remembered
READS_REMEMBERED = 32
LOG_AGAIN_SECONDS = 60.0

Ignored = Literal["retained", "too_large", "expired", "queue_full", "flood", "not_allowed", "failed"]
"""Why a command was neither carried out nor answered."""


@dataclass(frozen=True, slots=True)
class Order:
    """A command as it came in. `ts_ms` is when it was sent, Unix milliseconds; 0: nobody says."""

    name: str
    arguments: dict[str, Any]
    who: Who
    ts_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Change:
    """A command that was carried out: when (monotonic seconds), what it was, and its row in the ledger."""

    at: float
    name: str
    fingerprint: str
    row: int


@dataclass(frozen=True, slots=True)
class DeskStatus:
    """What became of everything that came in, since the start."""

    answered: int
    ignored: dict[str, int]  # by reason


@dataclass(slots=True)
class _Memory:
    """What was asked in the last minutes, by (sender, id)."""

    changes: dict[tuple[str, str], _Change] = field(default_factory=dict)  # the oldest first
    reads: OrderedDict[tuple[str, str], tuple[float, str, CommandResult]] = field(default_factory=OrderedDict)

    def forget(self, before: float) -> None:
        for key, change in list(self.changes.items()):
            if change.at >= before:
                break
            del self.changes[key]
        while self.reads and (len(self.reads) > READS_REMEMBERED or next(iter(self.reads.values()))[0] < before):
            self.reads.popitem(last=False)


class CommandDesk:
    """`submit` and `ignore` may be called from any thread, `ask` only in what was submitted."""

    def __init__(
        self,
        context: Context,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        """Recall what was done before a restart; `clock` is monotonic seconds, `wall_ms` Unix milliseconds."""
        self._context = context
        self._allowed = frozenset(context.config.mqtt.commands)
        self._clock = clock
        self._wall_ms = wall_ms
        self._lines: dict[str, deque[Callable[[], None]]] = {}
        self._bell = threading.Event()
        self._memory = _Memory()
        self._answered = 0
        self._ignored: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._log_at = float("-inf")
        try:
            self._recall()
        except Retry as error:
            log.error("commands of before the start are not remembered: %s", error)  # noqa: TRY400 - no stack

    def submit(self, job: Callable[[], None], line: str = "") -> bool:
        """Have something done when its turn comes; False, and counted, when too much waits already in that line.

        Lines take turns: who may give one command must not be able to keep the others waiting.
        """
        with self._lock:
            waiting = self._lines.setdefault(line, deque())
            full = len(waiting) >= QUEUE
            if not full:
                waiting.append(job)
        if full:
            self.ignore("queue_full")
        self._bell.set()
        return not full

    def ignore(self, why: Ignored, number: int = 1) -> None:
        """Count what is neither carried out nor answered, and log it from time to time."""
        with self._lock:
            self._ignored[why] += number
            now = self._clock()
            due = now - self._log_at >= LOG_AGAIN_SECONDS
            self._log_at = now if due else self._log_at
        if due:
            log.warning("commands were ignored (%s); since the start: %s", why, dict(self._ignored))

    def status(self) -> DeskStatus:
        """Say what became of what came in."""
        with self._lock:
            return DeskStatus(self._answered, dict(self._ignored))

    def step(self, timeout_seconds: float) -> None:
        """Wait for something to do, at most that long, and do one thing; what it raises is logged and counted."""
        job = self._next()
        if job is None:
            self._bell.wait(timeout_seconds)
            self._bell.clear()
            job = self._next()
        if job is None:
            return
        try:
            job()
        except Exception:  # nothing that anybody sends may end the service
            log.exception("a command failed")
            self.ignore("failed")

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            for line in list(self._lines):
                waiting = self._lines.pop(line)
                if waiting:
                    job = waiting.popleft()
                    self._lines[line] = waiting  # behind the others
                    return job
        return None

    def ask(self, order: Order) -> CommandResult | None:
        """Carry a command out, unless it was before, and return the answer; None, and counted, when it is too old."""
        if order.ts_ms and self._wall_ms() - order.ts_ms > EXPIRED_MS:
            self.ignore("expired")
            return None
        result = self._answer(order)
        with self._lock:
            self._answered += 1
        return result

    def refuse(self, name: str, request: str, fault: Fault, detail: str) -> CommandResult:
        """Make the answer to what is no command."""
        with self._lock:
            self._answered += 1
        return self._result(name, request, Outcome(fault, detail))

    def _answer(self, order: Order) -> CommandResult:
        who, key = order.who, (order.who.by, order.who.id)
        if order.name not in self._allowed:
            return self._result(order.name, who.id, Outcome(Fault.NOT_ALLOWED, "it is not listed in mqtt.commands"))
        now, what = self._clock(), fingerprint(order.name, order.arguments)
        self._memory.forget(now - REMEMBERED_SECONDS)
        remembered = self._remembered(order, key, what, now)
        if remembered is not None:
            return remembered
        if sum(change.name == order.name for change in self._memory.changes.values()) >= CHANGES_REMEMBERED:
            detail = f"more than {CHANGES_REMEMBERED} of this command in {REMEMBERED_SECONDS / 60:.0f} minutes"
            return self._result(order.name, who.id, Outcome(Fault.TOO_MANY, detail))
        outcome = carry_out(self._context, order.name, order.arguments, who)
        if outcome.row:
            self._memory.changes[key] = _Change(now, order.name, what, outcome.row)
            return self._answer_again(order, self._memory.changes[key], outcome)
        result = self._result(order.name, who.id, outcome)
        if outcome.fault is None:
            self._memory.reads[key] = (now, what, result)
        return result

    def _remembered(self, order: Order, key: tuple[str, str], what: str, now: float) -> CommandResult | None:
        """Return the answer to what has been asked already; None where this id is a new one of its sender."""
        change, read = self._memory.changes.get(key), self._memory.reads.get(key)
        if change is not None and change.fingerprint == what:
            return self._answer_again(order, change)
        if read is not None and read[1] == what:
            return read[2]
        at = change.at if change is not None else None if read is None else read[0]
        if at is None:
            return None
        detail = f"this id was used for something else {now - at:.0f} s ago"
        return self._result(order.name, order.who.id, Outcome(Fault.ID_USED, detail))

    def _answer_again(self, order: Order, change: _Change, outcome: Outcome | None = None) -> CommandResult:
        """Make the answer out of the ledger, the same bytes each time; out of `outcome` where it does not have it."""
        try:
            row = self._context.ledger.commands.show(change.row)
        except Retry as error:
            row = None
            outcome = outcome or Outcome(Fault.UNAVAILABLE, f"it was carried out; how it ended cannot be read: {error}")
        if row is None or not row.ended_ms:
            outcome = outcome or Outcome(Fault.INTERRUPTED, "how it ended could not be written down")
            return self._result(order.name, order.who.id, outcome)
        return self._from_row(order, row)

    def _from_row(self, order: Order, row: CommandRow) -> CommandResult:
        ending = row.ending
        return CommandResult(
            id=order.who.id,
            command=order.name,
            ok=not ending.error,
            error=ending.error,
            detail=ending.detail,
            count=ending.count,
            result=ending.result,
            agent=self._context.config.agent.name,
            ts=messages.utc_text(row.ended_ms),
            ts_ms=row.ended_ms,
        )

    def _result(self, name: str, request: str, outcome: Outcome) -> CommandResult:
        now = self._wall_ms()
        return CommandResult(
            id=request,
            command=printable(name[:80]) or "unknown",
            ok=outcome.fault is None,
            error=outcome.fault or "",
            detail=outcome.detail,
            count=outcome.count,
            result="" if outcome.fault else json_within(outcome.result, RESULT_BYTES),
            agent=self._context.config.agent.name,
            ts=messages.utc_text(now),
            ts_ms=now,
        )

    def _recall(self) -> None:
        """Remember what was done before this start, and tell of what a kill has interrupted."""
        commands = self._context.ledger.commands
        for row in commands.unfinished():
            log.warning("command %s by %s was interrupted", row.asked.command, row.asked.sender)
            detail = "the agent was ended while it was at it: it may or may not have been done"
            record_end(self._context, row.row, Outcome(Fault.INTERRUPTED, detail))
        wall, now = self._wall_ms(), self._clock()
        for row in commands.asked_since(wall - RESULTS_KEPT_MS, CHANGES_REMEMBERED * len(COMMANDS)):
            age_seconds = max(0, wall - row.begun_ms) / 1000  # of the future: the clock was set back
            change = _Change(now - age_seconds, row.asked.command, row.asked.fingerprint, row.row)
            self._memory.changes[row.asked.sender, row.asked.request] = change
