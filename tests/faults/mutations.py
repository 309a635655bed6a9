"""Damage to TIFF files where it hurts: tags, offsets, counts, compressed bytes, ends."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import tifffile

if TYPE_CHECKING:
    import random

Range = tuple[int, int]
"""First byte and number of bytes."""

_NASTY = (0, 1, 2, 3, 5, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
          2**63, 2**64 - 1)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seed:
    """A whole file, and where its parts are."""

    name: str
    data: bytes
    order: str  # < or >
    tags: tuple[Range, ...]  # entries of the directories
    numbers: tuple[Range, ...]  # offsets and byte counts of the strips or tiles
    parts: tuple[Range, ...]  # the strips or tiles themselves


def take_apart(name: str, data: bytes) -> Seed:
    """Find the parts of a good file."""
    tags: list[Range] = []
    numbers: list[Range] = []
    parts: list[Range] = []
    with tifffile.TiffFile(BytesIO(data)) as file:
        entry = 20 if file.is_bigtiff else 12
        for page in file.pages:
            assert isinstance(page, tifffile.TiffPage)
            tags += [(tag.offset, entry) for tag in page.tags]
            for tag in page.tags:
                if tag.code in {273, 279, 324, 325}:
                    size = struct.calcsize(file.byteorder + tag.dataformat[-1])
                    numbers += [(tag.valueoffset + number * size, size) for number in range(tag.count)]
            parts += list(zip(page.dataoffsets, page.databytecounts, strict=True))
        return Seed(name, data, file.byteorder, tuple(tags), tuple(numbers), tuple(part for part in parts if part[1]))


def mutate(seed: Seed, rng: random.Random) -> bytes:
    """Return the seed with one to four damages; most of them inside the compressed bytes, where decoders live."""
    data = bytearray(seed.data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.random()
        if kind < 0.62:
            _damage_part(data, rng.choice(seed.parts), rng)
        elif kind < 0.80:
            _damage_tag(data, rng.choice(seed.tags), seed.order, rng)
        elif kind < 0.92:
            _put_number(data, rng.choice(seed.numbers), seed.order, rng)
        else:
            _damage_file(data, rng)
    return bytes(data)


def _damage_part(data: bytearray, part: Range, rng: random.Random) -> None:
    start, size = part
    end = min(start + size, len(data))
    if end <= start:
        return
    place = min(start + int(size * rng.random() ** 2), end - 1)  # codecs keep their tables in front
    length = min(rng.choice((1, 1, 2, 4, 16, size)), end - place)
    match rng.randrange(5):
        case 0:
            data[place] ^= 1 << rng.randrange(8)
        case 1:
            data[place : place + length] = rng.randbytes(length)
        case 2:
            data[place : place + length] = bytes([rng.choice((0, 0xFF, 0x80, 0x7F))]) * length
        case 3:  # the file keeps its length: everything after it would move otherwise
            moved = data[place:end]
            data[place:end] = moved[length:] + moved[:length]
        case 4:
            data[place:end] = data[start : start + end - place]


def _damage_tag(data: bytearray, entry: Range, order: str, rng: random.Random) -> None:
    offset, size = entry
    if offset + size > len(data):
        return
    number = size // 2 - 2  # 4 bytes in a classic file, 8 in a BigTIFF
    field = rng.choice(((0, 2), (2, 2), (4, number), (4 + number, number), (4 + number, 2)))
    _put_number(data, (offset + field[0], field[1]), order, rng)


def _put_number(data: bytearray, place: Range, order: str, rng: random.Random) -> None:
    offset, size = place
    if offset + size > len(data):
        return
    kind = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    (old,) = struct.unpack_from(order + kind, data, offset)
    new = rng.choice((rng.choice(_NASTY), old + 1, old - 1, old * 2, old // 2, rng.getrandbits(8 * size), len(data)))
    struct.pack_into(order + kind, data, offset, new % (1 << (8 * size)))


def _damage_file(data: bytearray, rng: random.Random) -> None:
    if len(data) < 16:
        return
    place = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            del data[place:]
        case 1:
            data[place:] = bytes(len(data) - place)
        case 2:
            data[place % 16] = rng.randrange(256)
        case 3:
            data += rng.randbytes(rng.randrange(1, 2000))
