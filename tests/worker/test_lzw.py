"""LZW data is known to be valid before it is decoded."""

from __future__ import annotations

import time

import cv2
import imagecodecs
import numpy as np
import pytest

from agent.worker import lzw
from agent.worker.lzw import is_valid_lzw
from agent.worker.tiff import read_strip
from tests.helpers.bad_strips import craft_tiff
from tests.helpers.strips import HEIGHT, WIDTH, Pixels, make_pixels

RNG = np.random.default_rng(0)
SOURCES = {
    "one byte": b"a",
    "a table that just fills": np.arange(255, dtype=np.uint8).tobytes(),
    "zeros": bytes(300_000),
    "few values": RNG.integers(0, 20, 60_000).astype(np.uint8).tobytes(),
    "noise": RNG.integers(0, 256, 60_000).astype(np.uint8).tobytes(),
    "floats": RNG.normal(128, 3, 20_000).astype(np.float32).tobytes(),
}


def _encoded(source: bytes) -> bytes:
    return bytes(imagecodecs.lzw_encode(source))


@pytest.mark.parametrize("name", SOURCES)
def test_valid_data_is_valid_also_when_it_is_cut(name: str) -> None:
    """Every code width and several full tables; where data ends, what is there is valid."""
    data = _encoded(SOURCES[name])
    assert is_valid_lzw(data)
    for end in range(2, len(data), max(1, len(data) // 20)):
        assert is_valid_lzw(data[:end]), end


def test_what_another_encoder_writes_is_valid() -> None:
    """The LZW of libtiff, out of OpenCV, is read like that of tifffile."""
    pixels: Pixels = make_pixels(channels=3).round().astype(np.uint8)
    picture = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    done, data = cv2.imencode(".tiff", picture[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert done
    np.testing.assert_array_equal(read_strip(data.tobytes(), height=HEIGHT, width=WIDTH), pixels)


def test_reversed_bits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old writers turn the bits of each byte around; the check turns them back."""
    monkeypatch.setattr(lzw, "IMAGECODECS_CHECKS", False)
    pixels: Pixels = make_pixels().round().astype(np.uint8)
    strips = [bytes(imagecodecs.bitorder_decode(_encoded(plane.tobytes()))) for plane in pixels]
    changed = {258: (3, (8,) * 4), 259: (3, (5,)), 266: (3, (2,)), 339: (3, (1,) * 4)}
    np.testing.assert_array_equal(read_strip(craft_tiff(strips, changed), height=HEIGHT, width=WIDTH), pixels)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\0\x01", b"text", bytes(100), b"\xff" * 100, b"\x80\x40\x10\x0f\xff\xff"],
    ids=["empty", "half a code", "old style", "text", "zeros", "ones", "undefined code"],
)
def test_invalid_data_is_told(data: bytes) -> None:
    """No clear code first, or a code that nothing defined."""
    assert not is_valid_lzw(data)


def test_random_damage_is_told_or_decodes_without_a_crash() -> None:
    """What passes the check is decoded without an error, whatever the room; a crash would end this process."""
    rng, passed = np.random.default_rng(1), 0
    sources = [(source, _encoded(source)) for source in SOURCES.values() if len(source) < 100_000]
    for number in range(3000):
        source, good = sources[number % len(sources)]
        damaged = bytearray(good)
        for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        if is_valid_lzw(bytes(damaged)):
            passed += 1
            for room in (len(source), len(source) // 2 + 1):
                imagecodecs.lzw_decode(bytes(damaged), out=room)
    assert 100 < passed < 2900


def test_nothing_but_clear_codes_takes_no_time() -> None:
    """A megabyte that starts a new table with every code is refused, not followed."""
    bits = "100000000" + "001100001"
    data = int(bits * 8, 2).to_bytes(18) * 60_000
    start = time.process_time()
    assert not is_valid_lzw(data)
    assert time.process_time() - start < 10  # seconds; it takes less than one
