"""Is this data valid LZW, as TIFF has it? Asked before imagecodecs decodes it.

Up to 2026.6, imagecodecs follows codes that were never defined and ends in a segmentation fault; no later release runs
on Python 3.11. The check costs about a tenth of a millisecond for each 5 kB, so newer releases, which check for
themselves, go without it.

Source: TIFF 6.0 specification, section 13. Between two clear codes the n-th code's width follows from n alone, which
is why a whole run of codes can be taken out of the bits at once.
"""

from __future__ import annotations

import imagecodecs
import numpy as np

Codes = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]

CLEAR, END, FIRST_FREE = 256, 257, 258
FIRST_WIDTH, WIDER_AT = 9, (511, 1023, 2047)  # bits, and the table's sizes at which they become one more
MAX_CODES = 4096 - FIRST_FREE + 1  # of a run: then 12 bits are full, and a clear code is due
CODES_IN_A_RUN = 512  # at least, on average; encoders clear a full table, only an attacker clears an empty one

IMAGECODECS_CHECKS = tuple(int(part) for part in imagecodecs.__version__.split(".")[:2]) >= (2026, 8)

# Of each code of a run: the table's size when it is read, its width in bits, and its first bit.
_TABLE = FIRST_FREE + np.maximum(np.arange(MAX_CODES) - 1, 0)
_WIDTH = FIRST_WIDTH + np.searchsorted(WIDER_AT, _TABLE, side="right")
_START = np.concatenate([[0], np.cumsum(_WIDTH)[:-1]])
_LAST_VALID = np.concatenate([[END], _TABLE[1:]])  # the first code stands for itself; later ones may be the next free


def is_valid_lzw(data: bytes) -> bool:
    """Tell whether each code is defined when it is used; data that ends without an end code is valid."""
    bits = len(data) * 8
    padded = np.frombuffer(data + bytes(3), np.uint8).astype(np.uint32)
    position, runs_left = 0, 16 + bits // (FIRST_WIDTH * CODES_IN_A_RUN)
    if bits < FIRST_WIDTH or padded[0] << 1 | padded[1] >> 7 != CLEAR:
        return False
    while runs_left:
        position, runs_left = position + FIRST_WIDTH, runs_left - 1
        codes = _codes(padded, position, bits)
        control = np.flatnonzero((codes == CLEAR) | (codes == END))
        count = int(control[0]) if control.size else len(codes)
        if (codes[:count] > _LAST_VALID[:count]).any():
            return False
        if count == len(codes):
            return count < MAX_CODES
        if codes[count] == END:
            return True
        position += int(_START[count] + _WIDTH[count]) - FIRST_WIDTH
    return False


def _codes(padded: Codes, position: int, bits: int) -> Codes:
    """Return the codes of the run that begins at bit `position`, as far as there are whole codes."""
    count = int(np.searchsorted(_START + _WIDTH, bits - position, side="right"))
    first = _START[:count] + position
    byte = first >> 3
    window = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
    width = _WIDTH[:count]
    codes: Codes = window >> (24 - (first & 7) - width).astype(np.uint32) & ((1 << width) - 1).astype(np.uint32)
    return codes
