"""By what people look for strips (pages.py): rare verdicts, reasons, and parts, which only a strip's message names."""

from __future__ import annotations

PART_ID = """CASE WHEN json_valid(CAST(payload AS TEXT))
    THEN CAST(json_extract(CAST(payload AS TEXT), '$.part_id') AS TEXT) END"""
"""The part of a strip's message, as its index has it; queries have to say it in the same words."""

FOR_SEARCHING = f"""
    CREATE INDEX results_verdict ON results (verdict) WHERE verdict <> 'ok';
    CREATE INDEX results_reason ON results (reason) WHERE reason <> '';
    CREATE INDEX outbox_part ON outbox ({PART_ID}) WHERE {PART_ID} <> '';
"""
"""A step of the schema."""
