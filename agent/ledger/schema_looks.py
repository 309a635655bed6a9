"""The step of the ledger's tables that keeps how strips look, see ledger/drift.py."""

from __future__ import annotations

LOOKS = """
    -- How strips look (drift). They decide nothing: they are not brought over from a damaged ledger.
    CREATE TABLE looks (             -- the last strips of each camera
        camera       TEXT NOT NULL,
        seq          INTEGER NOT NULL,
        strip_id     TEXT NOT NULL,
        model_sha256 TEXT NOT NULL,
        measures     TEXT NOT NULL,  -- JSON
        PRIMARY KEY (camera, seq)
    ) WITHOUT ROWID;
    CREATE TABLE sketches (          -- a measure over a day, on the scale on which it is compared
        camera       TEXT NOT NULL,
        model_sha256 TEXT NOT NULL,
        day          TEXT NOT NULL,  -- UTC date
        measure      TEXT NOT NULL,
        n            INTEGER NOT NULL,
        mean         REAL NOT NULL,
        m2           REAL NOT NULL,  -- sum of the squared distances from the mean
        steps        TEXT NOT NULL,  -- JSON: step of the histogram -> how often
        PRIMARY KEY (camera, model_sha256, day, measure)
    ) WITHOUT ROWID;
    CREATE TABLE own_references (    -- how a camera's first strips under a model looked
        camera       TEXT NOT NULL,
        model_sha256 TEXT NOT NULL,
        reference    TEXT NOT NULL,  -- JSON
        PRIMARY KEY (camera, model_sha256)
    ) WITHOUT ROWID;
    """
