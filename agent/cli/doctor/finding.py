"""What an examination finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `level` is good | note | bad, `figures` what was measured, by name and unit."""

    level: str
    what: str
    detail: str
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Turn it into plain JSON values."""
        return asdict(self)
