"""The migration that knows in which folder a strip was taken in: a camera may get another one while strips wait."""

from __future__ import annotations

FOLDERS = """
    CREATE TABLE folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);  -- of cameras, now or before
    ALTER TABLE strips ADD COLUMN folder INTEGER NOT NULL DEFAULT 0;  -- 0: not known, so the camera's present one
"""
