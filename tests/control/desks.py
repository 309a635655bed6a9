"""What the tests of commands share: names, and what a ledger holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from agent.control.context import Who
from agent.control.desk import Order
from agent.messages import CommandName

if TYPE_CHECKING:
    from agent.control.context import Context

ALL: tuple[str, ...] = get_args(CommandName)


def order(name: str, request: str = "1", by: str = "hmi", *, ts_ms: int = 0, **arguments: Any) -> Order:
    """Make a command as it comes over MQTT."""
    return Order(name, arguments, Who(by, "mqtt", request), ts_ms)


def events(context: Context) -> list[dict[str, Any]]:
    """Return the events that tell who had what changed, in order."""
    waiting = context.ledger.outbox.next_outbox_messages(0, 100_000)
    return [json.loads(message.payload) for message in waiting if message.topic == "event/command"]


def everything(context: Context) -> dict[str, list[Any]]:
    """Return all rows of all tables of the ledger."""
    with context.ledger.database.reading() as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {
            table: db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - its own names
            for table in tables
        }


def revisions(context: Context) -> list[int]:
    """Return how often each strip has been given to be judged, the oldest strip first."""
    return [strip["revision"] for strip in context.ledger.report.list_strips(state=None, camera=None, limit=100)][::-1]
