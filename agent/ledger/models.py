"""What happened to models: one row for each model of a slot, and the event that tells of it, in one transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.ledger.strips import drop_oldest, now_ms

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from agent.ledger.database import Database

_COLUMNS = ("slot", "sha256", "state", "file", "model_id", "version", "first_seen_ms", "changed_ms", "reason", "detail",
            "facts")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What is known of a model; `facts` are the numbers that were measured."""

    slot: str
    sha256: str  # "" when its file could not be read
    state: str  # active | previous | accepted | rejected | withdrawn | superseded
    file: str
    model_id: str = ""
    version: int = 0
    reason: str = ""
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Models:
    """The models' part of the ledger: history for people. What decides is the slot's file in the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self, record: ModelRecord | None, topic: str, payload: Callable[[str, int], bytes], max_messages: int
    ) -> None:
        """Write the model's row (None: it stays as it is), and queue the event that `payload(msg_id, ts_ms)` makes."""
        ts_ms = now_ms()
        with self._database.transaction() as db:
            db.execute("INSERT INTO counters VALUES ('model_event', '', '', 1) ON CONFLICT DO UPDATE SET n = n + 1")
            number = db.execute("SELECT n FROM counters WHERE kind = 'model_event'").fetchone()[0]
            if record is not None:
                _write(db, record, ts_ms)
            event = payload(f"{self._database.stream}-m{number}", ts_ms)
            db.execute("INSERT INTO outbox (topic, payload, queued_ms) VALUES (?, ?, ?)", (topic, event, ts_ms))
            drop_oldest(db, max_messages, ts_ms)

    def list_models(self) -> list[dict[str, Any]]:
        """Return all rows, the latest change first."""
        with self._database.reading() as db:
            rows = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM models ORDER BY changed_ms DESC LIMIT 1000")  # noqa: S608 - constants
            listed = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        for row in listed:
            row["facts"] = json.loads(row["facts"])
            row["sha256"] = "" if row["sha256"].startswith("unread:") else row["sha256"]
        return listed


def _write(db: sqlite3.Connection, record: ModelRecord, ts_ms: int) -> None:
    if record.state == "active":
        db.execute("UPDATE models SET state = 'accepted' WHERE slot = ? AND state = 'previous'", (record.slot,))
        db.execute(
            "UPDATE models SET state = 'previous' WHERE slot = ? AND state = 'active' AND sha256 <> ?",
            (record.slot, record.sha256),
        )
    db.execute(
        "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "state = excluded.state, file = excluded.file, model_id = excluded.model_id, "
        "version = excluded.version, changed_ms = excluded.changed_ms, reason = excluded.reason, "
        "detail = excluded.detail, facts = excluded.facts",
        (record.slot, record.sha256 or f"unread:{record.file}", record.state, record.file, record.model_id,
         record.version, ts_ms, ts_ms, record.reason, record.detail, json.dumps(record.facts)),
    )  # fmt: skip
