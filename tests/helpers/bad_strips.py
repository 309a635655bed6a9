"""Files that must never be judged, each with the reason that it must be refused with. The builders take a path."""

from __future__ import annotations

import functools
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from agent.errors import Reason
from tests.helpers.strips import HEIGHT, WIDTH, Layout, Pixels, encode, make_pixels

Builder = Callable[[Path], None]

STRIP_BYTES = 4 * HEIGHT * WIDTH * 4
SHORT, LONG = 3, 4  # TIFF's types of numbers
TAGS_OF_A_STRIP: dict[int, tuple[int, tuple[int, ...]]] = {
    256: (LONG, (WIDTH,)),
    257: (LONG, (HEIGHT,)),
    258: (SHORT, (32,) * 4),  # bits per sample
    259: (SHORT, (1,)),  # compression
    262: (SHORT, (1,)),  # photometric
    273: (LONG, ()),  # strip offsets, filled in by craft_tiff
    277: (SHORT, (4,)),  # samples per pixel
    278: (LONG, (HEIGHT,)),  # rows per strip
    279: (LONG, ()),  # strip byte counts, the same
    284: (SHORT, (2,)),  # planar
    339: (SHORT, (3,) * 4),  # floats
}


def craft_tiff(
    strips: list[bytes], changed: dict[int, tuple[int, tuple[int, ...]]] | None = None, *, next_directory: int = 0
) -> bytes:
    """Return a little-endian TIFF with one directory at byte 8, whatever its tags say."""
    tags = {**TAGS_OF_A_STRIP, **(changed or {})}
    place = 8 + 2 + 12 * len(tags) + 4
    values_size = sum(_size(kind, max(len(values), len(strips) if not values else 0)) for kind, values in tags.values())
    data_start = place + values_size
    starts = [data_start + sum(map(len, strips[:number])) for number in range(len(strips))]
    filled = {273: (LONG, tuple(starts)), 279: (LONG, tuple(map(len, strips)))}
    entries, values_area = b"", b""
    for code, (kind, values) in sorted(
        {**tags, **{code: filled[code] for code in filled if not tags[code][1]}}.items()
    ):
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        inline = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", place + len(values_area))
        values_area += packed if len(packed) > 4 else b""
        entries += struct.pack("<HHI", code, kind, len(values)) + inline
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_directory)
    return b"II*\0" + struct.pack("<I", 8) + directory + values_area.ljust(values_size, b"\0") + b"".join(strips)


def _size(kind: int, count: int) -> int:
    size = count * (2 if kind == SHORT else 4)
    return size if size > 4 else 0


@functools.cache
def _good() -> bytes:
    return encode(make_pixels())


@functools.cache
def _good_deflate() -> bytes:
    return encode(make_pixels(), compression="zlib", rowsperstrip=100)


def _bytes(make: Callable[[], bytes]) -> Builder:
    def build(path: Path) -> None:
        path.write_bytes(make())

    return build


def _image(change: Callable[[Pixels], Any], *, layout: Layout = "planar", **options: Any) -> Builder:
    return _bytes(lambda: encode(change(make_pixels()), layout=layout, **options))


def _with(place: Any, value: float) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        pixels[place] = value
        return pixels

    return change


def _copy_channel(source: int, to: int) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        pixels[to] = pixels[source]
        return pixels

    return change


def _half_filled() -> bytes:
    good = _good()
    return good[: len(good) // 2].ljust(len(good), b"\0")


def _directory_at_the_end_missing() -> bytes:
    return b"II*\0" + struct.pack("<I", 8 + STRIP_BYTES) + make_pixels().tobytes() + bytes(1000)


def _zero_offsets() -> bytes:
    return craft_tiff([make_pixels().tobytes()], {273: (LONG, (300, 0, 0, 0)), 279: (LONG, (1000,) * 4)})


def _compressed(number: int, small: bytes, **changed: tuple[int, tuple[int, ...]]) -> bytes:
    """Four planes of float32, each one strip that claims to be a plane."""
    return craft_tiff([small] * 4, {259: (SHORT, (number,)), **{int(code[1:]): tag for code, tag in changed.items()}})


def _huge_tiles() -> bytes:
    tiles = {322: (LONG, (60_000,)), 323: (LONG, (60_000,)), 324: (LONG, (400,) * 4), 325: (LONG, (99,) * 4)}
    return craft_tiff([zlib.compress(bytes(2000))], {259: (SHORT, (8,)), **tiles})


def _huge_png() -> bytes:
    png = bytearray(bytes(imagecodecs.png_encode(np.zeros((HEIGHT, WIDTH), np.uint8))))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return _compressed(34933, bytes(png), t258=(SHORT, (8,) * 4), t339=(SHORT, (1,) * 4))


def _lying_deflate() -> bytes:
    return _compressed(8, zlib.compress(bytes(200 << 20), 9))


def _corrupt_deflate() -> bytes:
    damaged = bytearray(_good_deflate())
    middle = len(damaged) // 2
    damaged[middle : middle + 5000] = bytes(5000)
    return bytes(damaged)


def _corrupt_lzw() -> bytes:
    damaged = bytearray(encode(make_pixels().astype(np.uint8), compression="lzw"))
    damaged[-3000:-2000] = bytes(range(250)) * 4
    return bytes(damaged)


def _circle() -> bytes:
    return craft_tiff([bytes(100)], next_directory=8)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_PATH)  # a socket's address must be short
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _link_inside(path: Path) -> None:
    target = path.with_name("linked_strip.bin")
    target.write_bytes(_good())
    path.symlink_to(target.name)


def _too_large(path: Path) -> None:
    path.write_bytes(_good())
    os.truncate(path, 65 << 20)


def _unreadable(path: Path) -> None:
    path.write_bytes(_good())
    path.chmod(0)


def _grey(pixels: Pixels) -> Pixels:
    grey: Pixels = pixels[:3].astype(np.uint8)
    return grey


def _pages(count: int, shape: tuple[int, ...], dtype: str = "uint8") -> Callable[[Pixels], Any]:
    return lambda _: np.random.default_rng(0).integers(1, 250, (count, *shape)).astype(dtype)


BAD_STRIPS: dict[str, tuple[Builder, Reason]] = {
    # Not there, or not to its end
    "empty": (_bytes(lambda: b""), Reason.EMPTY_FILE),
    "one byte": (_bytes(lambda: b"I"), Reason.INCOMPLETE),
    "cut in the header": (_bytes(lambda: _good()[:6]), Reason.INCOMPLETE),
    "header only": (_bytes(lambda: b"II*\0" + bytes(4)), Reason.INCOMPLETE),
    "cut in the directory": (_bytes(lambda: _good()[:60]), Reason.INCOMPLETE),
    "cut after the directory": (_bytes(lambda: _good()[:1000]), Reason.INCOMPLETE),
    "cut in the middle": (_bytes(lambda: _good()[: STRIP_BYTES // 2]), Reason.INCOMPLETE),
    "last byte missing": (_bytes(lambda: _good()[:-1]), Reason.INCOMPLETE),
    "cut in compressed data": (_bytes(lambda: _good_deflate()[:-1000]), Reason.INCOMPLETE),
    "reserved, nothing written": (_bytes(lambda: bytes(STRIP_BYTES)), Reason.INCOMPLETE),
    "reserved, half written": (_bytes(_half_filled), Reason.INCOMPLETE),
    "directory not written": (_bytes(_directory_at_the_end_missing), Reason.INCOMPLETE),
    "offsets not filled in": (_bytes(_zero_offsets), Reason.INCOMPLETE),
    "last rows of the target zero": (_image(_with(np.s_[0, -3:], 0)), Reason.INCOMPLETE),
    "all black": (_image(_with(np.s_[:], 0)), Reason.INCOMPLETE),
    "first of three pages": (_image(_pages(1, (HEIGHT, WIDTH)), layout="pages"), Reason.INCOMPLETE),
    # Not a TIFF, or a damaged one
    "text": (_bytes(lambda: b"camera offline since 06:00\n" * 50), Reason.NOT_A_TIFF),
    "PNG by another name": (_bytes(lambda: b"\x89PNG\r\n\x1a\n" + bytes(500)), Reason.NOT_A_TIFF),
    "zip by another name": (_bytes(lambda: b"PK\3\4" + bytes(500)), Reason.NOT_A_TIFF),
    "directories in a circle": (_bytes(_circle), Reason.DAMAGED_TIFF),
    "65535 tags": (_bytes(lambda: b"II*\0\x08\0\0\0" + b"\xff" * (1 << 20)), Reason.DAMAGED_TIFF),
    "corrupt compressed data": (_bytes(_corrupt_deflate), Reason.DAMAGED_TIFF),
    "corrupt LZW data": (_bytes(_corrupt_lzw), Reason.DAMAGED_TIFF),
    "parts that overlap": (
        _bytes(lambda: craft_tiff([bytes(4000)], {273: (LONG, (400,) * 4), 279: (LONG, (3000,) * 4)})),
        Reason.DAMAGED_TIFF,
    ),
    "strips that are too short": (_bytes(lambda: _compressed(8, zlib.compress(bytes(5000)))), Reason.DAMAGED_TIFF),
    "no rows per strip": (_bytes(lambda: _compressed(8, b"x", t278=(LONG, (0,)))), Reason.DAMAGED_TIFF),
    # Another shape
    "one pixel": (_bytes(lambda: encode(np.full((3, 1, 1), 9, np.uint8))), Reason.WRONG_SHAPE),
    "a row too few": (_image(lambda pixels: pixels[:, 1:]), Reason.WRONG_SHAPE),
    "turned": (_image(lambda pixels: np.ascontiguousarray(pixels.swapaxes(1, 2))), Reason.WRONG_SHAPE),
    "two channels": (_image(lambda pixels: pixels[:2]), Reason.WRONG_SHAPE),
    "five channels": (_image(lambda pixels: np.concatenate([pixels, pixels[:1]])), Reason.WRONG_SHAPE),
    "four pages of colour": (
        _image(_pages(4, (HEIGHT, WIDTH, 3)), layout="pages", photometric="rgb"),
        Reason.WRONG_SHAPE,
    ),
    "nine pages": (_image(_pages(9, (HEIGHT, WIDTH)), layout="pages"), Reason.WRONG_SHAPE),
    # Other kinds of pixels
    "float64": (_image(lambda pixels: pixels.astype(np.float64)), Reason.UNSUPPORTED_DTYPE),
    "float16": (_image(lambda pixels: pixels.astype(np.float16)), Reason.UNSUPPORTED_DTYPE),
    "complex": (_image(lambda pixels: pixels.astype(np.complex64)), Reason.UNSUPPORTED_DTYPE),
    "signed": (_image(lambda pixels: pixels.astype(np.int16)), Reason.UNSUPPORTED_DTYPE),
    "bilevel": (_image(lambda pixels: pixels[:3] > 99, layout="pages"), Reason.UNSUPPORTED_DTYPE),
    "JPEG": (_image(_grey, layout="interleaved", compression="jpeg", photometric="rgb"), Reason.UNSUPPORTED_CODEC),
    "JPEG 2000": (_image(lambda pixels: pixels.astype(np.uint8), compression="jpeg2000"), Reason.UNSUPPORTED_CODEC),
    "LERC": (_image(lambda pixels: pixels, compression="lerc"), Reason.UNSUPPORTED_CODEC),
    "unknown compression": (_bytes(lambda: _compressed(4242, b"x" * 99)), Reason.UNSUPPORTED_CODEC),
    # Made to hurt
    "bomb by dimensions": (
        _bytes(lambda: craft_tiff([b"x" * 99], {256: (LONG, (200_000,)), 257: (LONG, (200_000,))})),
        Reason.DECOMPRESSION_BOMB,
    ),
    "bomb by Deflate": (_bytes(_lying_deflate), Reason.DECOMPRESSION_BOMB),
    "bomb by Zstandard": (
        _bytes(lambda: _compressed(50000, bytes(imagecodecs.zstd_encode(bytes(200 << 20))))),
        Reason.DECOMPRESSION_BOMB,
    ),
    "bomb by PackBits": (_bytes(lambda: _compressed(32773, b"\x81\0" * 100_000)), Reason.DECOMPRESSION_BOMB),
    "bomb by tiles": (_bytes(_huge_tiles), Reason.DECOMPRESSION_BOMB),
    "bomb by PNG": (_bytes(_huge_png), Reason.DECOMPRESSION_BOMB),
    "tags of six megabytes": (
        _bytes(lambda: craft_tiff([bytes(99)], {700: (LONG, (7,) * 1_500_000)})),
        Reason.TOO_LARGE,
    ),
    "larger than allowed": (_too_large, Reason.TOO_LARGE),
    # Pixels that cannot be judged
    "one NaN": (_image(_with((1, 300, 50), np.nan)), Reason.NON_FINITE),
    "infinite": (_image(_with((0, 300, 50), np.inf)), Reason.NON_FINITE),
    "minus infinite": (_image(_with((2, 0, 0), -np.inf)), Reason.NON_FINITE),
    "0..1": (_image(lambda pixels: pixels / 255), Reason.UNIT_RANGE_SUSPECTED),
    "constant": (_image(_with(np.s_[:], 128)), Reason.LOW_CONTRAST),
    "a picture of nothing": (_image(lambda pixels: 90 + pixels % 1), Reason.LOW_CONTRAST),
    "black but for one hot pixel": (_image(_with((0, 5, 5), 1e30)), Reason.LOW_CONTRAST),
    "target equal to reference 1": (_image(_copy_channel(0, 1)), Reason.TARGET_EQUALS_REFERENCE),
    "target equal to reference 2": (_image(_copy_channel(2, 0)), Reason.TARGET_EQUALS_REFERENCE),
    # Not a file to read
    "link to a good strip": (_link_inside, Reason.SYMLINK),
    "link to the outside": (lambda path: path.symlink_to("/etc/hostname"), Reason.SYMLINK),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), Reason.SYMLINK),
    "link to itself": (lambda path: path.symlink_to(path.name), Reason.SYMLINK),
    "pipe": (os.mkfifo, Reason.NOT_A_REGULAR_FILE),
    "socket": (_socket, Reason.NOT_A_REGULAR_FILE),
    "folder": (lambda path: path.mkdir(), Reason.NOT_A_REGULAR_FILE),
    "not readable": (_unreadable, Reason.UNREADABLE),
}

READABLE_BY_ROOT = {"not readable"}  # permissions do not stop root, so nothing is wrong then
