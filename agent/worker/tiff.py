"""Bytes of a TIFF file in, pixels of a strip out; nothing is decoded before the tags have proved harmless.

The file is hostile until checked. `tiff_structure.py` walks the raw directories, so that tifffile only ever sees
small tags that lie inside the file; `tiff_tags.py` sees that they speak of grey levels as they are stored, and
`_channel_pages` compares what they declare with the strip that is expected. Only what is exactly that is decoded.

Only codecs that cannot lose anything are read. A lossy one (JPEG, JPEG 2000, JPEG XL, WebP, LERC, ...) changes the
pixels that the model judges, and a small defect is what it changes first.
"""

from __future__ import annotations

import logging
import math
import re
import struct
import zlib
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from agent.errors import AgentError, Blame, Reason, Reject, Retry
from agent.worker import lzw
from agent.worker.tiff_structure import MAX_PAGES, Tag, check_directories, damaged, incomplete
from agent.worker.tiff_tags import (
    DEFLATE,
    DTYPES,
    LZW,
    PNG,
    REVERSED_BITS,
    check_codec_and_meaning,
    check_left_out,
    check_order,
    fill_in_sizes,
    uncompressed_sizes,
)

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]

CHANNELS = (3, 4)
HEADER_BYTES = 8
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # samples of a pixel -> colour type
MAX_PADDING = 16  # a page's tiles may declare this many times the page's pixels: 1024 x 1024 tiles of a strip need 6
# No sibling files, and none of the formats for which tifffile invents pages when it opens a file.
_PLAIN: dict[str, Any] = {"_multifile": False, "is_lsm": False, "is_scanimage": False, "is_ndpi": False}
_INFLATED_TOO_FAR = ("INSUFFICIENT_SPACE", "OUTPUT_TOO_SMALL", "buffer is too small")  # Deflate, PackBits, Zstandard

# The strip's own error says it all; tifffile would log a line for each odd tag.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


def read_strip(data: bytes, *, height: int, width: int) -> Pixels:
    """Return the strip in `data` as (3 or 4, height, width), float32, uint8 or uint16, values as stored.

    The layout is found by the exact expected size: one page with planes or with interleaved samples, 3 or 4 pages, or
    an ImageJ stack; stripped or tiled, either byte order, classic or BigTIFF, the compressions in
    `tiff_tags.LOSSLESS`. Memory stays within a few times that of a strip of 4 channels whatever the file says.

    Raises Reject(NOT_A_TIFF, UNSUPPORTED_CODEC, UNSUPPORTED_DTYPE, WRONG_SHAPE, TOO_LARGE, DECOMPRESSION_BOMB) for what
    no waiting will change, and Retry(EMPTY_FILE, INCOMPLETE, DAMAGED_TIFF, DECOMPRESSION_BOMB, NO_MEMORY) for what a
    file may show while it is still being written.
    """
    check_directories(data)
    try:
        # The stream is closed as well: tifffile's pages and file refer to each other, and would hold its bytes until
        # the garbage collector next looks at everything.
        with BytesIO(data) as stream, tifffile.TiffFile(stream, **_PLAIN) as file:
            pages = _pages(file, height, width)
            stack = _imagej_stack(pages, data, file.byteorder, height, width)
            if stack is not None:
                return stack
            pages = _channel_pages(pages, height, width)
            for page in pages:
                fill_in_sizes(page)
                _check_segments(page, data)
                _check_codecs_data(page, data)
            _check_apart(pages)
            arrays = [_decode(page, data) for page in pages]
    except AgentError:
        raise
    except MemoryError as error:
        raise Retry(Reason.NO_MEMORY, "no memory to decode the strip", Blame.BOX) from error
    except Exception as error:
        # tifffile and its codecs raise a dozen kinds; all of them mean that this file cannot be decoded as it is.
        raise damaged(f"cannot be decoded: {error}") from error
    return _channels_first(arrays, height, width)


# What the tags declare


def _pages(file: Any, height: int, width: int) -> list[Any]:
    """Return the full pages; thumbnails and the like are left out."""
    pages = []
    for index in range(MAX_PAGES):
        try:
            page = file.pages[index]
        except IndexError:
            break
        if page.is_reduced:
            check_left_out(page, height, width)
        else:
            pages.append(page)
    if not pages:
        raise incomplete("has no page")
    return pages


def _channel_pages(pages: list[Any], height: int, width: int) -> list[Any]:
    """Return the pages that make up the strip; refuse everything that is not exactly one."""
    for page in pages:
        check_codec_and_meaning(page)
    first = pages[0]
    whole = {shape for count in CHANNELS for shape in ((count, height, width), (height, width, count))}
    if len(pages) == 1 and tuple(first.shape) in whole:
        return pages
    if all(tuple(page.shape) == (height, width) and page.dtype == first.dtype for page in pages):
        if len(pages) in CHANNELS:
            check_order(pages)
            return pages
        if len(pages) < min(CHANNELS):
            raise incomplete(f"has {len(pages)} of at least {min(CHANNELS)} pages of one channel")
    raise _wrong_shape(pages, height, width)


def _wrong_shape(pages: list[Any], height: int, width: int) -> Reject:
    first = pages[0]
    found = " x ".join(str(side) for side in first.shape) or "nothing"
    limit = max(CHANNELS) * height * width * 4
    if first.nbytes > MAX_PADDING * limit:
        return Reject(
            Reason.DECOMPRESSION_BOMB, f"declares {found} pixels, {first.nbytes} bytes; a strip needs {limit}"
        )
    wanted = f"3 or 4 channels of {height} x {width}, first or last, or 3 or 4 pages of {height} x {width}"
    return Reject(Reason.WRONG_SHAPE, f"{len(pages)} page(s), the first of {found}; needed are {wanted}")


def _check_segments(page: Any, data: bytes) -> None:
    """See that the page's strips or tiles are all there, inside the file, and no larger than the page needs."""
    segments = math.prod(page.chunked)
    if len(page.dataoffsets) != segments or len(page.databytecounts) != segments:
        raise damaged(f"{len(page.dataoffsets)} offsets and {len(page.databytecounts)} sizes of {segments} strips")
    if page.is_tiled:
        declared = segments * math.prod(page.tile) * page.dtype.itemsize
        declared *= page.samplesperpixel if page.planarconfig == 1 else 1
        if declared > MAX_PADDING * page.nbytes:
            raise Reject(Reason.DECOMPRESSION_BOMB, f"tiles declare {declared} bytes; the page needs {page.nbytes}")
        if Tag.STRIP_OFFSETS in page.tags:
            raise damaged("has strips and tiles at once")
    # A writer that fills in offsets at the end leaves zeros; tifffile would read such parts as black.
    if not all(page.dataoffsets) or not all(page.databytecounts):
        raise incomplete("parts of the image have no data yet")
    needed = max(start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True))
    if page.is_contiguous:
        needed = max(needed, page.dataoffsets[0] + page.nbytes)
    if needed > len(data):
        raise incomplete(f"has {len(data)} bytes, its image ends at {needed}")
    if page.compression == 1 and not page.is_tiled and sum(page.databytecounts) >= 2 * page.nbytes:
        raise damaged(f"has {sum(page.databytecounts)} bytes for pixels of {page.nbytes}: bits or channels are wrong")


def _check_apart(pages: list[Any]) -> None:
    """See that no bytes are two parts of the image, or the header: one place would be shown where another should be."""
    parts: list[tuple[int, int]] = []  # offset and size
    for page in pages:
        sizes = page.databytecounts
        if page.compression == 1:  # some writers state more than they need
            sizes = [min(pair) for pair in zip(sizes, uncompressed_sizes(page), strict=True)]
        parts += zip(page.dataoffsets, sizes, strict=True)
    end = HEADER_BYTES
    for start, size in sorted(parts):
        if start < end:
            raise damaged("parts of the image overlap in the file")
        end = start + size


def _check_codecs_data(page: Any, data: bytes) -> None:
    """Look into the data where a codec would believe everything."""
    if page.compression == PNG:
        for start in page.dataoffsets:
            _check_png(page, data, start)
    if page.compression == LZW and not lzw.IMAGECODECS_CHECKS:
        _check_lzw(page, data)


def _check_lzw(page: Any, data: bytes) -> None:
    if sum(page.databytecounts) > 2 * page.nbytes + 65536:  # at its worst LZW adds two fifths
        raise damaged("its LZW data is larger than the image")
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        segment = data[start : start + size]
        if page.fillorder == REVERSED_BITS:
            segment = bytes(imagecodecs.bitorder_decode(segment))
        if not lzw.is_valid_lzw(segment):
            raise damaged("its LZW data is damaged")


def _check_png(page: Any, data: bytes, start: int) -> None:
    """Check once more what a PNG declares: that is what the decoder believes."""
    if data[start : start + 8] != b"\x89PNG\r\n\x1a\n" or start + 26 > len(data):
        raise damaged("a part that is declared as PNG is none")
    columns, rows, bits, colours = struct.unpack_from(">IIBB", data, start + 16)
    length, width = page.tile[-2:] if page.is_tiled else (page.imagelength, page.imagewidth)
    if columns > width or rows > length:
        raise Reject(Reason.DECOMPRESSION_BOMB, f"a PNG of {rows} x {columns} where {length} x {width} is declared")
    wanted = page.dtype.itemsize * 8, PNG_COLOURS.get(page.samplesperpixel if page.planarconfig == 1 else 1)
    if (bits, colours) != wanted:
        raise damaged(f"a PNG of {bits} bits and colour type {colours} where the tags say {wanted[0]} and {wanted[1]}")


# Pixels


def _decode(page: Any, data: bytes) -> Pixels:
    """Decode a page whose tags are proven; codecs are given no more room than the tags declare."""
    try:
        pixels: Pixels = page.asarray(maxworkers=1)
    except Exception as error:
        too_far = any(sign in str(error) for sign in _INFLATED_TOO_FAR)
        if too_far and not (page.compression in DEFLATE and _is_damaged_deflate(page, data)):
            # Half-written data could still look like this, so it is waited for; the codec stopped in time.
            detail = f"holds more data than its tags declare ({error})"
            raise Retry(Reason.DECOMPRESSION_BOMB, detail, Blame.FILE) from error
        raise
    return pixels


def _is_damaged_deflate(page: Any, data: bytes) -> bool:
    """Tell damage from deceit: the fast decoder says "no room" when it stumbles over damaged data, zlib does not."""
    try:
        for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            zlib.decompressobj().decompress(data[start : start + size], 2 * page.nbytes)
    except zlib.error:
        return True
    return False


def _imagej_stack(pages: list[Any], data: bytes, order: str, height: int, width: int) -> Pixels | None:
    """ImageJ writes large stacks as one directory and says how many planes follow each other.

    Source: https://imagej.net/ij/source/ij/io/TiffDecoder.java, `images=` in the image description.
    """
    first = pages[0]
    if len(pages) != 1 or tuple(first.shape) != (height, width) or not first.is_contiguous:
        return None
    said = re.match(r"ImageJ=.*?^images=([0-9]{1,9})\s*$", first.description, re.DOTALL | re.MULTILINE)
    if said is None or int(said[1]) not in CHANNELS:
        return None
    check_codec_and_meaning(first)
    if first.fillorder == REVERSED_BITS:
        raise Reject(Reason.UNSUPPORTED_CODEC, "an ImageJ stack with the bits of each byte reversed (FillOrder 2)")
    planes, start = int(said[1]), first.dataoffsets[0]
    count = planes * height * width
    if start + count * first.dtype.itemsize > len(data):
        raise incomplete(f"has {len(data)} bytes, its image ends at {start + count * first.dtype.itemsize}")
    stored = np.frombuffer(data, first.dtype.newbyteorder(order), count, start)
    return stored.astype(first.dtype).reshape(planes, height, width)


def _channels_first(arrays: list[Pixels], height: int, width: int) -> Pixels:
    """Put the decoded pages into one array, channels first; the last word on shape and dtype."""
    pixels: Pixels = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    if pixels.shape[1:] != (height, width):
        pixels = np.moveaxis(pixels, -1, 0)
    if pixels.dtype.name not in DTYPES or pixels.shape not in {(count, height, width) for count in CHANNELS}:
        raise damaged(f"decoded to {pixels.shape} {pixels.dtype}")
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
