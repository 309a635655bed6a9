"""The migration that brings what people say about strips."""

from __future__ import annotations

REVIEWS = """
    CREATE TABLE reviews (           -- what people say of strips; they go with the strip, the counts by model stay
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        strip        INTEGER NOT NULL REFERENCES strips (id) ON DELETE CASCADE,
        revision     INTEGER NOT NULL,            -- of the result it is about; 0: there was none
        verdict      TEXT NOT NULL,               -- of that result; '' without one
        model_sha256 TEXT NOT NULL,
        finding      TEXT NOT NULL CHECK (finding IN ('defect', 'no_defect', 'unsure')),
        person       TEXT NOT NULL CHECK (person <> ''),
        remark       TEXT NOT NULL,
        sender       TEXT NOT NULL CHECK (sender <> ''),  -- who gave the command, as the system knows it
        reviewed_ms  INTEGER NOT NULL,
        replaced     INTEGER NOT NULL DEFAULT 0   -- 1: the same person has said something of this strip later
    );
    CREATE INDEX reviews_strip ON reviews (strip);
    """
