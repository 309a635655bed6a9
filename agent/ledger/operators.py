"""What operators have set and what outlives a restart: cameras that are paused, and thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.ledger.database import Database


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when (Unix milliseconds) a camera's strips are not judged, and who asked for it."""

    since_ms: int
    sender: str


@dataclass(frozen=True, slots=True)
class ThresholdSet:
    """An operator's threshold, in the unit of the scores of `method`; since when (Unix milliseconds), and whose."""

    value: float
    method: str
    since_ms: int
    sender: str


class Operators:
    """The operators' part of the ledger. What it holds is in memory too: it is asked for with each strip."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reading() as db:
            self._paused = {name: Pause(*rest) for name, *rest in db.execute("SELECT * FROM paused")}
            self._thresholds = {name: ThresholdSet(*rest) for name, *rest in db.execute("SELECT * FROM thresholds")}

    @property
    def paused(self) -> Mapping[str, Pause]:
        """The paused cameras."""
        return self._paused

    @property
    def thresholds(self) -> Mapping[str, ThresholdSet]:
        """The operators' thresholds, by camera."""
        return self._thresholds

    def pause(self, camera: str, sender: str) -> bool:
        """Pause a camera; False when it is paused already."""
        if camera in self._paused:
            return False
        pause = Pause(now_ms(), sender)
        with self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO paused VALUES (?, ?, ?)", (camera, pause.since_ms, pause.sender))
        self._paused = {**self._paused, camera: pause}  # replaced, because other threads go through the old one
        return True

    def resume(self, camera: str) -> bool:
        """End a camera's pause; False when it was not paused."""
        if camera not in self._paused:
            return False
        with self._database.transaction() as db:
            db.execute("DELETE FROM paused WHERE camera = ?", (camera,))
        self._paused = {name: pause for name, pause in self._paused.items() if name != camera}
        return True

    def set_threshold(self, camera: str, value: float, method: str, sender: str) -> None:
        """Set a camera's threshold, in the unit of that method's scores."""
        new = ThresholdSet(value, method, now_ms(), sender)
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO thresholds VALUES (?, ?, ?, ?, ?)",
                (camera, new.value, new.method, new.since_ms, new.sender),
            )
        self._thresholds = {**self._thresholds, camera: new}

    def clear_threshold(self, camera: str) -> bool:
        """Take a camera's threshold back; False when there was none."""
        if camera not in self._thresholds:
            return False
        with self._database.transaction() as db:
            db.execute("DELETE FROM thresholds WHERE camera = ?", (camera,))
        self._thresholds = {name: found for name, found in self._thresholds.items() if name != camera}
        return True
