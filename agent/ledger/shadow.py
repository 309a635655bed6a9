"""What a shadow model says of strips, beside what was published of them, and how the two compare.

One transaction records many strips together with how far the shadow has come: what a kill takes is judged again, and
nothing is counted twice.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent.clock import now_ms
from agent.ledger.database import last_seq
from agent.ledger.outbox import next_number, queue_event
from agent.records import FileIdentity, Strip, show_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping, Sequence

    from agent.ledger.database import Database

ROWS_KEPT = 20_000  # of all slots together; the totals go on
TOTALS_KEPT = 200
BEHIND_AT_MOST = 10_000  # results; what is further behind is passed over
NOT_JUDGED = -1.0  # score
GONE = ("going", "done", "gone", "replaced")  # what `disposal` says of a strip whose file is not there any more
_STRIP = "s.id, s.strip_id, s.camera, s.path, s.size_bytes, s.mtime_ns, s.ctime_ns, s.attempts, s.revision, s.seen_ms"
_SUMMED = ("compared", "agreed", "to_anomalous", "to_ok", "invalid", "missed", "shift_sum", "shift_abs_sum",
           "inference_ms_sum")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Published:
    """A strip with the result that was published of it; `is_there` False: the agent has moved or removed its file."""

    strip: Strip
    seq: int
    model_sha256: str
    verdict: str  # ok | anomalous
    score: float
    is_there: bool


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the shadow says of a published strip; an invalid one has the score -1.0 and its reason."""

    published: Published
    verdict: Literal["ok", "anomalous", "invalid"]
    score: float
    threshold: float
    inference_ms: float
    reason: str = ""

    @property
    def disagrees(self) -> bool:
        """Whether the verdict is another one than that which was published."""
        return self.verdict != self.published.verdict


@dataclass(frozen=True, slots=True)
class Events:
    """How opinions are told: `payload(opinion, msg_id, ts_ms)` makes the bytes."""

    topic: str
    payload: Callable[[Opinion, str, int], bytes]
    max_messages: int  # of the outbox


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a shadow compares with a model that was active; sums are over all that both have judged.

    `shift` is the shadow's score minus the published one; times are milliseconds.
    """

    compared: int = 0
    agreed: int = 0
    to_anomalous: int = 0
    to_ok: int = 0
    invalid: int = 0
    missed: int = 0
    shift_sum: float = 0.0
    shift_abs_sum: float = 0.0
    inference_ms_sum: float = 0.0
    first_ms: int = 0
    last_ms: int = 0

    @property
    def agreement(self) -> float:
        """Share of the compared strips with the same verdict, 0..1; 0.0 while there are none."""
        return self.agreed / self.compared if self.compared else 0.0

    @property
    def mean_shift(self) -> float:
        """Mean of the shifts."""
        return self.shift_sum / self._judged if self._judged else 0.0

    @property
    def mean_abs_shift(self) -> float:
        """Mean of the shifts without their signs."""
        return self.shift_abs_sum / self._judged if self._judged else 0.0

    @property
    def mean_inference_ms(self) -> float:
        """Mean time of the shadow for one strip, at its own low priority."""
        return self.inference_ms_sum / self._judged if self._judged else 0.0

    @property
    def _judged(self) -> int:
        return self.compared - self.invalid


class ShadowResults:
    """The shadows' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- which strip is next -------------------------------------------------------------------------------------------

    def progress(self, slot: str, sha256: str, since_ms: int) -> int:
        """Return the `seq` behind which the shadow goes on.

        One that is new in the slot (Unix milliseconds) begins with the first result since then, of the newest ones.
        """
        with self._database.transaction() as db:
            row = db.execute(
                "SELECT sha256, since_ms, after_seq FROM shadow_progress WHERE slot = ?", (slot,)
            ).fetchone()
            if row is not None and row[:2] == (sha256, since_ms):
                return int(row[2])
            newest = last_seq(db)
            first = db.execute(
                "SELECT seq FROM results WHERE seq > ? AND committed_ms >= ? ORDER BY seq LIMIT 1",
                (newest - BEHIND_AT_MOST, since_ms),
            ).fetchone()
            after = newest if first is None else int(first[0]) - 1
            db.execute("INSERT OR REPLACE INTO shadow_progress VALUES (?, ?, ?, ?)", (slot, sha256, since_ms, after))
            return after

    def newest_seq(self) -> int:
        """Return the number of the newest result."""
        with self._database.reading() as db:
            return last_seq(db)

    def any_waits(self, cameras: Collection[str]) -> bool:
        """Say whether a strip of one of these cameras waits to be judged."""
        named = json.dumps(list(cameras))
        with self._database.reading() as db:
            for index, attempts in (("strips_waiting", "= 0"), ("strips_again", "> 0")):
                query = (
                    f"SELECT 1 FROM strips INDEXED BY {index} WHERE state = 'waiting' AND attempts {attempts} "  # noqa: S608 - constants
                    "AND camera IN (SELECT value FROM json_each(?)) LIMIT 1"
                )
                if db.execute(query, (named,)).fetchone() is not None:
                    return True
        return False

    def published(self, cameras: Collection[str], after_seq: int, up_to_seq: int, limit: int) -> list[Published]:
        """Return the next strips of these cameras with a verdict that still is their newest, by `seq`."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT {_STRIP}, r.seq, r.model_sha256, r.verdict, r.score, s.disposal "  # noqa: S608 - constants
                "FROM results AS r JOIN strips AS s ON s.id = r.strip AND s.revision = r.revision "
                "WHERE r.seq > ? AND r.seq <= ? AND r.verdict IN ('ok', 'anomalous') AND s.state <> 'waiting' "
                "AND r.camera IN (SELECT value FROM json_each(?)) ORDER BY r.seq LIMIT ?",
                (after_seq, up_to_seq, json.dumps(list(cameras)), limit),
            )
            return [_published(row) for row in rows]

    def count_published(self, cameras: Collection[str], after_seq: int, up_to_seq: int) -> dict[str, int]:
        """Return model -> how many verdicts of these cameras have such a `seq`."""
        with self._database.snapshot() as db:
            rows = db.execute(
                "SELECT model_sha256, count(*) FROM results WHERE seq > ? AND seq <= ? "
                "AND verdict IN ('ok', 'anomalous') AND camera IN (SELECT value FROM json_each(?)) GROUP BY 1",
                (after_seq, up_to_seq, json.dumps(list(cameras))),
            )
            return dict(rows.fetchall())

    def behind(self, slot: str, sha256: str, cameras: Collection[str]) -> int:
        """Return how many published strips of these cameras the shadow has not come to, as far as is written down."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT after_seq FROM shadow_progress WHERE slot = ? AND sha256 = ?", (slot, sha256)
            ).fetchone()
            newest = last_seq(db)
        return 0 if row is None else sum(self.count_published(cameras, int(row[0]), newest).values())

    # -- what it says --------------------------------------------------------------------------------------------------

    def record(
        self,
        slot: str,
        sha256: str,
        after_seq: int,
        opinions: Sequence[Opinion],
        missed: Mapping[str, int],
        events: Events | None = None,
    ) -> None:
        """Record what the shadow said of strips, how many it missed (active model -> number), and how far it has come.

        A strip that has been forgotten meanwhile counts and leaves no row. With `events` each opinion is told as well.
        """
        ts_ms = now_ms()
        with self._database.transaction() as db:
            for opinion in opinions:
                db.execute(
                    "INSERT INTO shadow_results (slot, seq, shadow_sha256, judged_ms, score, threshold, verdict, "
                    "reason, inference_ms, disagrees) SELECT ?, seq, ?, ?, ?, ?, ?, ?, ?, ? FROM results WHERE seq = ?",
                    (slot, sha256, ts_ms, opinion.score, opinion.threshold, opinion.verdict, opinion.reason,
                     opinion.inference_ms, opinion.disagrees, opinion.published.seq),
                )  # fmt: skip
                if events is not None:
                    msg_id = f"{self._database.stream}-s{next_number(db, 'shadow_event')}"
                    queue_event(db, events.topic, events.payload(opinion, msg_id, ts_ms), events.max_messages, ts_ms)
            for active, added in _sums(opinions, missed).items():
                _add(db, (slot, sha256, active), added, ts_ms)
            db.execute(
                "UPDATE shadow_progress SET after_seq = ? WHERE slot = ? AND sha256 = ?", (after_seq, slot, sha256)
            )
            newest = db.execute("SELECT max(id) FROM shadow_results").fetchone()[0] or 0
            db.execute("DELETE FROM shadow_results WHERE id <= ?", (newest - ROWS_KEPT,))
            db.execute(
                "DELETE FROM shadow_totals WHERE (slot, shadow_sha256, active_sha256) IN (SELECT slot, shadow_sha256, "
                "active_sha256 FROM shadow_totals ORDER BY last_ms DESC LIMIT -1 OFFSET ?)",
                (TOTALS_KEPT,),
            )

    # -- how they compare ----------------------------------------------------------------------------------------------

    def comparison(self, slot: str, sha256: str, active_sha256: str) -> Comparison:
        """Return how a shadow compares with a model of the slot."""
        columns = (*_SUMMED, "first_ms", "last_ms")
        with self._database.reading() as db:
            row = db.execute(
                f"SELECT {', '.join(columns)} FROM shadow_totals "  # noqa: S608 - constants
                "WHERE slot = ? AND shadow_sha256 = ? AND active_sha256 = ?",
                (slot, sha256, active_sha256),
            ).fetchone()
            return Comparison() if row is None else Comparison(*row)

    def worst(self, slot: str, sha256: str, active_sha256: str, limit: int) -> list[dict[str, Any]]:
        """Return the kept pairs that differ most: other verdicts first, then by how far the scores are apart."""
        return self._pairs(
            "x.slot = ? AND x.shadow_sha256 = ? AND r.model_sha256 = ? "
            "ORDER BY x.disagrees DESC, abs(x.score - r.score) DESC, x.id DESC LIMIT ?",
            (slot, sha256, active_sha256, limit),
        )

    def disagreements(self, *, since_ms: int = 0, limit: int) -> list[dict[str, Any]]:
        """Return the strips of which a shadow said something else than what was published, the newest first.

        Of all slots and shadows, judged since `since_ms` (Unix milliseconds), with the strip's row number as `row`. A
        strip that several shadows see otherwise comes several times.
        """
        return self._pairs("x.disagrees = 1 AND x.judged_ms >= ? ORDER BY x.id DESC LIMIT ?", (since_ms, limit))

    def _pairs(self, which: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        names = ("row", "strip_id", "camera", "file", "seq", "revision", "slot", "active_sha256", "verdict", "score",
                 "shadow_sha256", "shadow_verdict", "shadow_score", "shadow_threshold", "shadow_reason",
                 "shadow_inference_ms", "judged_ms")  # fmt: skip
        with self._database.snapshot() as db:
            rows = db.execute(
                "SELECT s.id, s.strip_id, s.camera, s.path, r.seq, r.revision, x.slot, r.model_sha256, r.verdict, "  # noqa: S608 - constants
                "r.score, x.shadow_sha256, x.verdict, x.score, x.threshold, x.reason, x.inference_ms, x.judged_ms "
                "FROM shadow_results AS x JOIN results AS r ON r.seq = x.seq JOIN strips AS s ON s.id = r.strip "
                f"WHERE {which}",
                values,
            )
            pairs = [dict(zip(names, row, strict=True)) for row in rows]
            thresholds = db.execute(
                "SELECT seq, json_extract(CAST(payload AS TEXT), '$.threshold') FROM outbox "
                "WHERE seq IN (SELECT value FROM json_each(?))",
                (json.dumps([pair["seq"] for pair in pairs]),),
            )
            held_to = dict(thresholds.fetchall())  # of each published result
        return [
            pair | {"file": show_name(os.fsdecode(pair["file"])), "threshold": held_to.get(pair["seq"], 0.5)}
            for pair in pairs
        ]


def _published(row: Sequence[Any]) -> Published:
    number, strip_id, camera, path, size, mtime_ns, ctime_ns, attempts, revision, seen_ms = row[:10]
    identity = FileIdentity(size, mtime_ns, ctime_ns)
    strip = Strip(number, strip_id, camera, os.fsdecode(path), identity, attempts, revision, seen_ms)
    seq, model_sha256, verdict, score, disposal = row[10:]
    return Published(strip, seq, model_sha256, verdict, score, is_there=disposal not in GONE)


def _sums(opinions: Sequence[Opinion], missed: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Sum up by the model that was active."""
    found: dict[str, dict[str, float]] = {}
    for active, number in missed.items():
        found.setdefault(active, dict.fromkeys(_SUMMED, 0))["missed"] += number
    for opinion in opinions:
        sums = found.setdefault(opinion.published.model_sha256, dict.fromkeys(_SUMMED, 0))
        sums["compared"] += 1
        sums["agreed"] += not opinion.disagrees
        if opinion.verdict == "invalid":
            sums["invalid"] += 1
            continue
        if opinion.disagrees:
            sums[f"to_{opinion.verdict}"] += 1
        shift = opinion.score - opinion.published.score
        sums["shift_sum"] += shift
        sums["shift_abs_sum"] += abs(shift)
        sums["inference_ms_sum"] += opinion.inference_ms
    return found


def _add(db: sqlite3.Connection, key: tuple[str, str, str], added: Mapping[str, float], ts_ms: int) -> None:
    marks = ", ".join("?" * len(_SUMMED))
    more = ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMMED)
    db.execute(
        f"INSERT INTO shadow_totals (slot, shadow_sha256, active_sha256, {', '.join(_SUMMED)}, first_ms, last_ms) "  # noqa: S608 - constants
        f"VALUES (?, ?, ?, {marks}, ?, ?) ON CONFLICT DO UPDATE SET {more}, last_ms = excluded.last_ms",
        (*key, *(added[name] for name in _SUMMED), ts_ms, ts_ms),
    )
