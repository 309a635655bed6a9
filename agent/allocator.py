"""The C library's allocator, told to give back what is free: the supervisor runs for months."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGE_BYTES = 128 << 10


def keep_little() -> None:
    """Bound what the allocator keeps of memory that is free; to be called before there are threads.

    By itself glibc makes up to eight arenas for each core, as threads ask for memory, and each of them keeps what is
    free between what is in use. And once a block of some megabytes has been given back, it takes others up to that
    size from its arenas as well, and keeps twice as much there.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # another libc has no such habits
        libc.mallopt(M_ARENA_MAX, 2)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE_BYTES)
