"""What all messages have in common, and how they become bytes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Duration = Annotated[float, Field(ge=0)]
UtcText = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
UtcTextOrNone = Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)?$")]
Sha256OrNone = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

_SCHEMA_FIRST = re.compile(rb'^\{"schema":"([a-z-]+/[0-9]+)"')


class Message(BaseModel):
    """Base of all messages; `schema` is the first key, so that the first bytes tell messages apart."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )


def encode(message: Message) -> bytes:
    """Compact JSON in UTF-8. Raises ValueError when a number is not finite (only `model_construct` can cause that)."""
    values = message.model_dump(by_alias=True)
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def schema_name(payload: bytes) -> str:
    """Name of the schema that an encoded message carries in front; "" for anything else."""
    found = _SCHEMA_FIRST.match(payload)
    return found[1].decode() if found else ""


def utc_text(unix_ms: int) -> str:
    """Write Unix milliseconds as `2026-11-22T23:48:21.444Z`. Raises OverflowError outside the years 1 to 9999."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
