"""What the tags of a page say about its pixels: grey levels as they are stored, or something that is not read.

A library reads 4 bits as the numbers 0 to 15, an image that is stored upside down as it lies in the file, and inks as
if they were light; for a model all of that is a quiet picture, and a quiet picture is "ok". So each tag of TIFF 6.0 and
of its supplements that changes what a pixel means is looked at here, and what is not exactly understood is refused.
docs/tiff.md has the table of all of them.
"""

from __future__ import annotations

import math
from typing import Any

from agent.errors import Reason, Reject
from agent.worker.tiff_structure import Tag, damaged, incomplete

LZW, PNG = 5, 34933
REVERSED_BITS = 2  # of tag FillOrder
DEFLATE = (8, 32946, 50013)
LOSSLESS = {
    1: "none",
    LZW: "LZW",
    8: "Deflate",
    32946: "Deflate",
    50013: "Deflate",
    32773: "PackBits",
    34925: "LZMA",
    34926: "Zstandard",
    50000: "Zstandard",
    PNG: "PNG",
}
PREDICTABLE = (LZW, *DEFLATE, 34925, 34926, 50000)  # libtiff ignores a predictor beside any other compression
UNSIGNED, FLOAT, UNDEFINED = 1, 3, 4  # of tag SampleFormat; TIFF 6.0 has readers take undefined for unsigned
READ = {(8, UNSIGNED), (16, UNSIGNED), (32, FLOAT)}
DTYPES = ("float32", "uint8", "uint16")
GREY, RGB = 1, 2
PHOTOMETRIC = {
    0: "WhiteIsZero (a negative)",
    3: "a colour palette",
    4: "a transparency mask",
    5: "separated inks (CMYK)",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
    51177: "depth",
}
COLOURS = {GREY: 1, RGB: 3}  # samples of a pixel that are no extra ones
PREMULTIPLIED = 1  # of tag ExtraSamples
EXTRA = (0, 2)  # unspecified, and transparency that leaves the colours alone
MASK, KNOWN_SUBFILES = 4, 7
ONE_BY_DEFAULT: dict[int, str] = {
    Tag.ORIENTATION: "turned or mirrored (Orientation",
    Tag.IMAGE_DEPTH: "a volume (ImageDepth",
    Tag.TILE_DEPTH: "a volume (TileDepth",
}
ABSENT: dict[int, str] = {
    Tag.INDEXED: "an index (Indexed)",
    Tag.MATTEING: "multiplied with transparency (Matteing)",
}  # or 0
NEVER: dict[int, str] = {433: "mapped by Decode", 50712: "mapped by LinearizationTable"}
OLD_FORMATS = {2: UNSIGNED, 3: FLOAT}  # tag DataType, SampleFormat's predecessor


def numbers(page: Any, code: int, default: int) -> list[int]:
    """Return all values of a tag that holds whole numbers; `[default]` when the page does not have it."""
    value = page.tags.valueof(code, default=default)
    values = list(value) if isinstance(value, bytes | tuple | list) else [value]
    if not values or not all(isinstance(number, int) for number in values):
        raise damaged(f"tag {code} holds {value!r:.40} instead of whole numbers")
    return [int(number) for number in values]


def number(page: Any, code: int, default: int) -> int:
    """Return the value of a tag that has one for the whole page, as `check_directories` has seen to."""
    return numbers(page, code, default)[0]


def check_codec_and_meaning(page: Any) -> None:
    """Refuse a page that is compressed with loss, or whose numbers are not grey levels as they are stored.

    Raises Reject(UNSUPPORTED_CODEC, UNSUPPORTED_DTYPE), Retry(INCOMPLETE, DAMAGED_TIFF).
    """
    declared = [number(page, code, 0) for code in (Tag.WIDTH, Tag.LENGTH)]
    declared += [number(page, code, 1) for code in (Tag.SAMPLES_PER_PIXEL, Tag.COMPRESSION)]
    declared += [*numbers(page, Tag.BITS_PER_SAMPLE, 1), *numbers(page, Tag.SAMPLE_FORMAT, 1)]
    if 0 in declared:
        raise incomplete("its tags are not filled in yet")
    _check_compression(page)
    _check_numbers(page)
    _check_coding(page)
    _check_light(page)
    _check_picture(page)


def _check_compression(page: Any) -> None:
    if page.compression not in LOSSLESS:
        found = getattr(page.compression, "name", page.compression)
        accepted = ", ".join(dict.fromkeys(LOSSLESS.values()))
        raise Reject(Reason.UNSUPPORTED_CODEC, f"compression {found}; accepted are {accepted}")


def _check_coding(page: Any) -> None:
    predictor = number(page, Tag.PREDICTOR, 1)
    allowed = (1,) if page.compression not in PREDICTABLE else (1, 2, 3) if page.bitspersample == 32 else (1, 2)  # noqa: PLR2004
    if predictor not in allowed:
        what = f"predictor {predictor} with compression {LOSSLESS[page.compression]} and {page.bitspersample} bits"
        raise Reject(Reason.UNSUPPORTED_CODEC, f"{what}; accepted there: {', '.join(map(str, allowed))}")
    order = number(page, Tag.FILL_ORDER, 1)
    if order not in (1, REVERSED_BITS):
        raise Reject(Reason.UNSUPPORTED_CODEC, f"bits in the unknown order {order} (FillOrder)")


def _check_numbers(page: Any) -> None:
    """Go by the tags, not by the type that a library hands over: it makes 8 bits of 4, and 32-bit floats of 24."""
    bits, formats = set(numbers(page, Tag.BITS_PER_SAMPLE, 1)), set(numbers(page, Tag.SAMPLE_FORMAT, UNSIGNED))
    kinds = {(bit, UNSIGNED if kind == UNDEFINED else kind) for bit in bits for kind in formats}
    if len(kinds) != 1 or not kinds <= READ or page.dtype is None or page.dtype.name not in DTYPES:
        found = str(page.dtype)
        if page.dtype is None or bits != {page.dtype.itemsize * 8}:
            format_ = " and ".join(str(kind) for kind in sorted(formats))
            found = f"{' and '.join(map(str, sorted(bits)))} bits of sample format {format_}"
        raise Reject(Reason.UNSUPPORTED_DTYPE, f"pixels are {found}; accepted are {', '.join(DTYPES)}")
    for old in numbers(page, Tag.DATA_TYPE, 0) if Tag.DATA_TYPE in page.tags else ():
        if OLD_FORMATS.get(old) not in {kind for _, kind in kinds}:
            raise Reject(Reason.UNSUPPORTED_DTYPE, f"SampleFormat and its predecessor DataType ({old}) disagree")


def _check_light(page: Any) -> None:
    found = number(page, Tag.PHOTOMETRIC, GREY)  # libtiff too takes one that is missing for BlackIsZero
    if found not in COLOURS:
        kind = PHOTOMETRIC.get(found, f"photometric interpretation {found}")
        raise _refused(f"pixels are {kind}; accepted are BlackIsZero and RGB")
    samples = page.samplesperpixel
    if samples < COLOURS[found]:
        raise _refused(f"RGB with {samples} of 3 colours")
    extra = numbers(page, Tag.EXTRA_SAMPLES, 0) if Tag.EXTRA_SAMPLES in page.tags else []
    if len(extra) > samples - COLOURS[found]:
        raise _refused(
            f"{len(extra)} of {samples} samples are extra ones (ExtraSamples); {COLOURS[found]} must be none"
        )
    if PREMULTIPLIED in extra:
        raise _refused("pixels are multiplied with transparency (ExtraSamples 1)")
    if not set(extra) <= set(EXTRA):
        raise _refused(f"extra samples of the unknown kind {max(extra)}")
    planes = number(page, Tag.PLANAR_CONFIGURATION, 1)
    if planes not in (1, 2):
        raise _refused(f"samples are laid out in the unknown way {planes} (PlanarConfiguration)")


def _check_picture(page: Any) -> None:
    """Is it the picture itself, as it was taken: not turned, not a mask, no volume, no index into something."""
    for code, what in ONE_BY_DEFAULT.items():
        found = number(page, code, 1)
        if found != 1:
            raise _refused(f"the image is {what} {found})")
    for code, what in ABSENT.items():
        if any(numbers(page, code, 0)):
            raise _refused(f"each pixel is {what}")
    for code, what in NEVER.items():
        if code in page.tags:
            raise _refused(f"pixels are {what}")
    kind = number(page, Tag.NEW_SUBFILE_TYPE, 0)
    if kind & MASK or kind > KNOWN_SUBFILES:
        raise _refused(f"a page is a mask or another helper of an image (NewSubfileType {kind})")


def check_order(pages: list[Any]) -> None:
    """Refuse pages that say they are in another order than in the file: one would be taken for another."""
    found = [numbers(page, Tag.PAGE_NUMBER, 0)[0] for page in pages if Tag.PAGE_NUMBER in page.tags]
    if len(set(found)) > 1 and (len(found) < len(pages) or found != sorted(set(found))):
        raise _refused(f"pages are numbered {', '.join(map(str, found))} (PageNumber), which is not their order")


def check_left_out(page: Any, height: int, width: int) -> None:
    """Refuse a thumbnail that is as large as the strip: it may as well be one of its channels."""
    if (page.imagelength, page.imagewidth) == (height, width):
        raise _refused("a page of the strip's size is marked as a smaller copy (NewSubfileType 1)")


def fill_in_sizes(page: Any) -> None:
    """Compute the sizes of uncompressed strips or tiles where none is stated: they follow from the other tags."""
    counts, offsets = page.databytecounts, page.dataoffsets
    stated = Tag.STRIP_BYTE_COUNTS in page.tags or Tag.TILE_BYTE_COUNTS in page.tags
    if page.compression == 1 and all(offsets) and not (stated and any(counts)):
        page.databytecounts = tuple(uncompressed_sizes(page))


def uncompressed_sizes(page: Any) -> list[int]:
    """Return the bytes that each strip or tile has where nothing is compressed."""
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    row = (page.tilewidth if page.is_tiled else page.imagewidth) * samples * page.dtype.itemsize
    if page.is_tiled:
        return [page.tilelength * row] * math.prod(page.chunked)
    starts = range(0, page.imagelength, page.rowsperstrip or page.imagelength)
    plane = [min(page.rowsperstrip, page.imagelength - start) * row for start in starts]
    return plane * (1 if page.planarconfig == 1 else page.samplesperpixel)


def _refused(detail: str) -> Reject:
    return Reject(Reason.UNSUPPORTED_DTYPE, detail)
