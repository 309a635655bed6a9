"""What happened to models: a row for each model of a slot, the event that tells of it, and when which model scored."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.ledger.database import last_seq
from agent.ledger.outbox import next_number, queue_event

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from agent.ledger.database import Database

_COLUMNS = ("slot", "key", "sha256", "state", "file", "model_id", "version", "changed_ms", "reason", "detail",
            "facts")  # fmt: skip
LISTED_AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What is known of a model; `facts` are the numbers that were measured."""

    key: str  # the sha256, or the name of a file that was refused
    sha256: str  # "" when its file could not be read
    state: str  # active | previous | accepted | rejected | withdrawn | superseded | forgotten | shadow | was_shadow
    file: str
    model_id: str = ""
    version: int = 0
    reason: str = ""
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a slot: changed rows, and all models that are kept.

    `places`: sha256 -> active | previous | accepted | shadow. The active one may score from now on. Rows of models that
    are kept no longer become superseded; one that was a shadow and nothing else was never accepted: was_shadow.
    """

    slot: str
    places: dict[str, str]
    records: tuple[ModelRecord, ...] = ()


class Models:
    """The models' part of the ledger. What decides is the slot's file in the store; this is its history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self, changes: Changes, number: int, topic: str, payload: Callable[[str], bytes], max_messages: int
    ) -> None:
        """Write what changed, and queue the event that `payload(msg_id)` makes of it, in one transaction.

        `number` rises within a slot: what has been recorded is not recorded again.
        """
        ts_ms = now_ms()
        with self._database.transaction() as db:
            if number <= _told_up_to(db, changes.slot):
                return
            _write(db, changes, ts_ms)
            msg_id = f"{self._database.stream}-m{next_number(db, 'model_event')}"
            queue_event(db, topic, payload(msg_id), max_messages, ts_ms)
            db.execute(
                "INSERT INTO counters VALUES ('model_told', ?, '', ?) ON CONFLICT DO UPDATE SET n = excluded.n",
                (changes.slot, number),
            )

    def told_up_to(self, slot: str) -> int:
        """Return the highest number that was given to `record` for this slot; 0 when there was none."""
        with self._database.reading() as db:
            return _told_up_to(db, slot)

    def write(self, changes: Changes) -> None:
        """Write what changed and tell nobody: the ledger is brought up to the slot's file."""
        with self._database.transaction() as db:
            _write(db, changes, now_ms())

    def forget(self, slot: str, sha256: str) -> None:
        """Note that what was said against a model has been taken back."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE models SET state = 'forgotten', changed_ms = ? "
                "WHERE slot = ? AND sha256 = ? AND state IN ('rejected', 'withdrawn', 'superseded')",
                (now_ms(), slot, sha256),
            )

    def may_score(self, slot: str, sha256: str) -> None:
        """Record that results may be this model's from here on; nothing changes where that is recorded already."""
        with self._database.transaction() as db:
            _may_score(db, slot, sha256, now_ms())

    def scores_alone(self, slot: str, sha256: str) -> None:
        """Record that no other model of the slot scores any more."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE activations SET until_ms = ?, until_seq = ? "
                "WHERE slot = ? AND sha256 <> ? AND until_ms IS NULL",
                (now_ms(), last_seq(db), slot, sha256),
            )

    def count_judged(self, sha256: str) -> int:
        """Count the strips whose newest result is this model's."""
        with self._database.reading() as db:
            row = db.execute("SELECT n FROM counters WHERE kind = 'judged_by' AND name = ?", (sha256,)).fetchone()
            return int(row[0]) if row else 0

    def rows(self, slot: str) -> dict[str, dict[str, Any]]:
        """Return the slot's rows by their key, the earliest change first."""
        with self._database.reading() as db:
            query = f"SELECT {', '.join(_COLUMNS)} FROM models WHERE slot = ? ORDER BY changed_ms"  # noqa: S608 - constants
            found = db.execute(query, (slot,))
            return {row[1]: _shown(row) for row in found}

    def list_models(self) -> list[dict[str, Any]]:
        """Return the rows of all slots, the latest change first."""
        with self._database.reading() as db:
            found = db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM models ORDER BY changed_ms DESC LIMIT {LISTED_AT_MOST}"  # noqa: S608 - constants
            )
            return [_shown(row) for row in found]

    def activations(self) -> list[dict[str, Any]]:
        """Return which model scored when, the latest first: results with after_seq < seq <= until_seq may be its."""
        names = ("slot", "sha256", "since_ms", "after_seq", "until_ms", "until_seq")
        with self._database.reading() as db:
            found = db.execute(f"SELECT {', '.join(names)} FROM activations ORDER BY id DESC LIMIT {LISTED_AT_MOST}")  # noqa: S608 - constants
            return [dict(zip(names, row, strict=True)) for row in found]


def _told_up_to(db: sqlite3.Connection, slot: str) -> int:
    row = db.execute("SELECT n FROM counters WHERE kind = 'model_told' AND name = ?", (slot,)).fetchone()
    return int(row[0]) if row else 0


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    shown = dict(zip(_COLUMNS, row, strict=True))
    shown["facts"] = json.loads(shown["facts"])
    return shown


def _write(db: sqlite3.Connection, changes: Changes, ts_ms: int) -> None:
    for record in changes.records:
        db.execute(
            "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "sha256 = excluded.sha256, state = excluded.state, file = excluded.file, model_id = excluded.model_id, "
            "version = excluded.version, changed_ms = excluded.changed_ms, reason = excluded.reason, "
            "detail = excluded.detail, facts = excluded.facts",
            (changes.slot, record.key, record.sha256, record.state, record.file, record.model_id, record.version,
             ts_ms, record.reason, record.detail, json.dumps(record.facts)),
        )  # fmt: skip
    query = "SELECT key, state FROM models WHERE slot = ? AND state IN ('active', 'previous', 'accepted', 'shadow')"
    for key, before in db.execute(query, (changes.slot,)).fetchall():
        place = changes.places.get(key, "was_shadow" if before == "shadow" else "superseded")
        db.execute("UPDATE models SET state = ? WHERE slot = ? AND key = ?", (place, changes.slot, key))
        if place == "active":
            _may_score(db, changes.slot, key, ts_ms)


def _may_score(db: sqlite3.Connection, slot: str, sha256: str, ts_ms: int) -> None:
    db.execute(
        "INSERT INTO activations (slot, sha256, since_ms, after_seq) SELECT ?, ?, ?, ? WHERE NOT EXISTS "
        "(SELECT 1 FROM activations WHERE slot = ? AND sha256 = ? AND until_ms IS NULL)",
        (slot, sha256, ts_ms, last_seq(db), slot, sha256),
    )
