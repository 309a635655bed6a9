"""What was made once and may be asked for again: pictures, and what was found in them, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict

CACHE_BYTES = 48 << 20


class Cache:
    """Bytes by a key; those that were not asked for longest make room."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, ...], bytes] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> bytes | None:
        """Return what is kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: tuple[str, ...], value: bytes) -> None:
        """Keep it, unless it is larger than all there is room for."""
        if len(value) > self._max_bytes or key in self._kept:
            return
        self._kept[key] = value
        self._bytes += len(value)
        while self._bytes > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone)
