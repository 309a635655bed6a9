"""How many examples hypothesis makes where each of them writes files."""

from __future__ import annotations

from hypothesis import settings

# A quarter of what the profile says: each waits for the disk a dozen times.
ON_DISK = settings(max_examples=settings().max_examples // 4)
