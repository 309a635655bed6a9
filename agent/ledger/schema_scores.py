"""The migration that makes scores over time cheap to ask for: a covering index, and a tally by the hour.

`TALLY` is part of that migration and of each commit: it is never changed, a later migration makes another one.
"""

from __future__ import annotations

HOUR_MS = 3_600_000
BINS = 50  # of a score of 0 to 1, all of the same width
PIXEL_BINS = 100  # the first bin of scores in pixels; each one is twice as wide as the one before
_PIXEL_STEPS = 30
INVALID_BIN = -1

_PIXELS = " ".join(f"WHEN score < {1 << step} THEN {PIXEL_BINS + step}" for step in range(_PIXEL_STEPS))
BIN = (
    f"CASE WHEN verdict = 'invalid' THEN {INVALID_BIN} "
    f"WHEN in_pixels THEN CASE {_PIXELS} ELSE {PIXEL_BINS + _PIXEL_STEPS} END "
    f"ELSE max(0, min({BINS - 1}, CAST(score * {BINS} AS INTEGER))) END"
)
"""SQL: the bin of a result's score."""

TALLY = (
    "INSERT INTO score_hours (camera, hour, verdict, bin, n, lowest, highest, first_seq, last_seq) "  # noqa: S608 - constants
    f"SELECT camera, committed_ms / {HOUR_MS}, verdict, {BIN}, count(*), min(score), max(score), min(seq), "
    "max(seq) FROM results WHERE {which} GROUP BY 1, 2, 3, 4 ON CONFLICT DO UPDATE SET n = n + excluded.n, "
    "lowest = min(lowest, excluded.lowest), highest = max(highest, excluded.highest), "
    "first_seq = min(first_seq, excluded.first_seq), last_seq = max(last_seq, excluded.last_seq)"
)
"""SQL: count the results of `{which}` in."""

SCORES = f"""
    ALTER TABLE results ADD COLUMN in_pixels INTEGER NOT NULL DEFAULT 0;  -- 1: the score is an area (scoring.method)
    UPDATE results SET in_pixels = 1 WHERE score > 1.0;
    DROP INDEX results_camera;  -- the new one has all that a look at many scores needs
    CREATE INDEX results_camera ON results (camera, seq, committed_ms, verdict, score, in_pixels);
    CREATE TABLE score_hours (       -- results by the hour of their commit (Unix hours, UTC); they outlive their strips
        camera    TEXT NOT NULL,
        hour      INTEGER NOT NULL,
        verdict   TEXT NOT NULL,
        bin       INTEGER NOT NULL,  -- of the score; -1: invalid
        n         INTEGER NOT NULL,
        lowest    REAL NOT NULL,
        highest   REAL NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq  INTEGER NOT NULL,
        PRIMARY KEY (camera, hour, verdict, bin)
    ) WITHOUT ROWID;
    {TALLY.format(which="true")};
"""  # noqa: S608 - constants
