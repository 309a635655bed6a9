"""What was said of strips, by models and by people, with all that is needed to find their files again. Read only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.ledger.database import Database

SCANNED_AT_ONCE = 50_000  # rows: for longer nobody is held up, however few of them are wanted
_OF_THE_MESSAGE: dict[str, Any] = {
    "file": "", "threshold": 0.5, "model_id": "", "model_version": 0, "inference_ms": 0.0,
    "heatmap_path": "", "heatmap_sha256": "", "preview_path": "", "preview_sha256": "",
}  # fmt: skip
"""What the message tells besides, and what stands for a key that it lacks: earlier releases knew fewer."""


@dataclass(frozen=True, slots=True)
class Said:
    """The newest result of a strip, what its file was, and what people and a shadow model said of it.

    `path` is relative to the camera's folder and keeps odd bytes as surrogate escapes, `file` is for people. Digests
    are sha256, "" where there is none: of `digest` where the file was never read. Scores are -1.0 for `invalid`.
    `finding` is the last review's, "" without one, and `found_at_revision` the result that it was about. A shadow's
    verdict stands here only where it is another one.
    """

    row: int
    strip_id: str
    camera: str
    path: str
    size_bytes: int
    digest: str
    disposal: str
    seen_ms: int
    seq: int
    revision: int
    verdict: Literal["ok", "anomalous", "invalid"]
    reason: str
    score: float
    model_sha256: str
    finding: str = ""
    found_at_revision: int = 0
    shadow_verdict: str = ""
    shadow_score: float = -1.0
    folder: str = ""  # in which it was taken in, "" where that is not known
    file: str = ""
    threshold: float = 0.5
    model_id: str = ""
    model_version: int = 0
    inference_ms: float = 0.0
    heatmap_path: str = ""
    heatmap_sha256: str = ""
    preview_path: str = ""
    preview_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which strips, by any of these; by none of them: all. `near`: how far a score may be from its threshold.

    `disagreeing`: a shadow model gave another verdict.
    """

    verdicts: Sequence[str] = ()
    reviewed: bool = False
    near: float | None = None
    disagreeing: bool = False


_COLUMNS = (
    "s.id, s.strip_id, s.camera, s.path, s.size_bytes, s.digest, s.disposal, s.seen_ms, r.seq, r.revision, r.verdict, "
    "r.reason, r.score, r.model_sha256, coalesce(v.finding, ''), coalesce(v.revision, 0), coalesce(x.verdict, ''), "
    "coalesce(x.score, -1.0), coalesce((SELECT f.path FROM folders AS f WHERE f.id = s.folder), ''), o.payload"
)
_TABLES = (
    "strips AS s JOIN results AS r ON r.strip = s.id AND r.revision = s.revision JOIN outbox AS o ON o.seq = r.seq "
    "LEFT JOIN reviews AS v ON v.id = (SELECT max(id) FROM reviews WHERE strip = s.id) "
    "LEFT JOIN shadow_results AS x ON x.id = (SELECT max(id) FROM shadow_results WHERE seq = r.seq AND disagrees = 1)"
)
_CHOSEN = (
    "(:all OR (:reviewed AND v.id IS NOT NULL) OR (:disagreeing AND x.id IS NOT NULL) "
    "OR r.verdict IN (SELECT value FROM json_each(:verdicts)) "
    "OR (:near IS NOT NULL AND r.verdict <> 'invalid' "
    "AND abs(r.score - json_extract(CAST(o.payload AS TEXT), '$.threshold')) <= :near))"
)


class History:
    """The part of the ledger that looks back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def said(
        self, choice: Choice, *, cameras: Sequence[str], since_ms: int, before_row: int | None, limit: int
    ) -> tuple[list[Said], int | None]:
        """Return the next strips of those cameras that were seen since, the newest first, up to `limit`.

        With the row to go on before, None at the end: there may be more although there are fewer than `limit`. A strip
        that waits to be judged again is not among them.
        """
        values = {
            "all": choice == Choice(), "verdicts": json.dumps([*choice.verdicts]), "reviewed": choice.reviewed,
            "near": choice.near, "disagreeing": choice.disagreeing, "since": since_ms,
            "cameras": json.dumps([*cameras]), "limit": limit,
        }  # fmt: skip
        query = (
            f"SELECT {_COLUMNS} FROM {_TABLES} WHERE s.id >= :first AND s.id < :before AND s.seen_ms >= :since "  # noqa: S608 - constants
            f"AND s.camera IN (SELECT value FROM json_each(:cameras)) AND {_CHOSEN} ORDER BY s.id DESC LIMIT :limit"
        )
        with self._database.snapshot() as db:
            oldest, newest = db.execute("SELECT min(id), max(id) FROM strips").fetchone()
            if newest is None:
                return [], None
            before = newest + 1 if before_row is None else min(before_row, newest + 1)
            first = before - SCANNED_AT_ONCE
            found = [_said(row) for row in db.execute(query, values | {"first": first, "before": before})]
        if len(found) == limit:
            return found, found[-1].row
        return found, first if first > oldest else None


def _said(row: tuple[Any, ...]) -> Said:
    number, strip_id, camera, path, *columns, payload = row
    message = json.loads(payload)
    told = {name: message.get(name, without) for name, without in _OF_THE_MESSAGE.items()}
    return Said(number, strip_id, camera, os.fsdecode(path), *columns, **told)
