"""Tags that change what a pixel means: whatever they say, the pixels are the right ones or the strip is refused."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import Reason, Reject, Retry
from agent.worker.tiff import read_strip
from tests.helpers.bad_strips import LONG, SHORT, craft_tiff
from tests.helpers.strips import encode, make_pixels

if TYPE_CHECKING:
    from tests.helpers.strips import Pixels

HEIGHT, WIDTH = 48, 32
SMALL = {"height": HEIGHT, "width": WIDTH}
RATIONAL, UNDEFINED = 5, 7
PLACEHOLDER = 65000  # a private tag, to be given another number
Tags = dict[int, tuple[int, tuple[int, ...]]]


def _pixels(dtype: str = "uint8", channels: int = 4) -> Pixels:
    pixels: Pixels = make_pixels(channels=channels, height=HEIGHT, width=WIDTH).round().astype(dtype)
    return pixels


def _file(changed: Tags | None = None, *, pixels: Pixels | None = None, planar: bool = True) -> bytes:
    """One page with an uncompressed strip for each plane, with these tags instead of the right ones."""
    pixels = _pixels() if pixels is None else pixels
    samples, bits = len(pixels), pixels.dtype.itemsize * 8
    right: Tags = {
        256: (LONG, (WIDTH,)), 257: (LONG, (HEIGHT,)), 258: (SHORT, (bits,) * samples), 262: (SHORT, (1,)),
        277: (SHORT, (samples,)), 278: (LONG, (HEIGHT,)), 284: (SHORT, (2 if planar else 1,)),
        339: (SHORT, (3 if pixels.dtype.kind == "f" else 1,) * samples),
    }  # fmt: skip
    strips = [plane.tobytes() for plane in pixels] if planar else [np.moveaxis(pixels, 0, -1).tobytes()]
    return craft_tiff(strips, right | (changed or {}))


def _tags_of(data: bytearray) -> list[Any]:
    """Return tifffile's view of the tags of each page, with their places."""
    with tifffile.TiffFile(BytesIO(bytes(data))) as file:
        pages: Any = file.pages
        return [page.tags for page in pages]


def _found(data: bytes) -> Pixels | Reason:
    try:
        return read_strip(data, **SMALL)
    except (Reject, Retry) as refusal:
        return refusal.reason


def _packed(levels: Pixels, bits: int) -> bytes:
    """Rows of whole bytes, the first pixel in the highest bits, as TIFF 6.0 has it."""
    digits = (levels.astype(np.uint32)[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(digits.reshape(len(levels), -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("layout", ["planar", "interleaved", "pages"])
@pytest.mark.parametrize("bits", [bits for bits in range(1, 33) if bits not in (8, 16)] + [64])
def test_bits_per_sample_other_than_8_and_16_are_refused_by_name(bits: int, layout: str) -> None:
    """A library reads 4 bits as 0 to 15: nearly black, and black is "ok"."""
    levels = (_pixels().astype(np.uint64) * ((1 << bits) - 1) // 255).astype(np.uint64)
    stored = min(bits, 32)
    planes = [_packed(plane, stored) * (bits // stored) for plane in levels]
    if layout == "planar":
        data = craft_tiff(planes, _tags_of_bits(bits, 4))
    elif layout == "interleaved":
        rows = np.moveaxis(levels, 0, -1).reshape(HEIGHT, -1)
        data = craft_tiff([_packed(rows, stored) * (bits // stored)], _tags_of_bits(bits, 4) | {284: (SHORT, (1,))})
    else:
        file = BytesIO()
        with tifffile.TiffWriter(file) as writer:
            for plane in _pixels():
                writer.write(plane, photometric="minisblack", metadata=None, contiguous=False)
        data = file.getvalue().replace(
            struct.pack("<HHIHH", 258, 3, 1, 8, 0), struct.pack("<HHIHH", 258, 3, 1, bits, 0)
        )
    with pytest.raises(Reject, match=f"^unsupported_dtype: pixels are .*{bits}") as caught:
        read_strip(data, **SMALL)
    assert caught.value.reason is Reason.UNSUPPORTED_DTYPE


def _tags_of_bits(bits: int, samples: int) -> Tags:
    return {
        256: (LONG, (WIDTH,)), 257: (LONG, (HEIGHT,)), 258: (SHORT, (bits,) * samples), 262: (SHORT, (1,)),
        278: (LONG, (HEIGHT,)), 339: (SHORT, (1,) * samples),
    }  # fmt: skip


def test_16_levels_in_8_bits_are_what_they_say() -> None:
    """The control: the same coarse levels, stored in 8 bits, are read as they are."""
    coarse: Pixels = _pixels() // 17 * 17
    np.testing.assert_array_equal(_found(_file(pixels=coarse)), coarse)


READ: dict[str, Tags] = {
    "no photometric interpretation": {262: (SHORT, (1,))},
    "RGB and one more": {262: (SHORT, (2,)), 338: (SHORT, (0,))},
    "transparency that leaves the colours alone": {262: (SHORT, (2,)), 338: (SHORT, (2,))},
    "three extra samples": {338: (SHORT, (0, 0, 0))},
    "an undefined sample format": {339: (SHORT, (4,) * 4)},
    "one sample format for all": {339: (SHORT, (1,))},
    "one number of bits for all": {258: (SHORT, (8,))},
    "bits in LONG": {258: (LONG, (8,) * 4)},
    "the usual orientation": {274: (SHORT, (1,))},
    "a page of several": {254: (LONG, (2,))},
    "smallest and largest value": {280: (SHORT, (3,)), 281: (SHORT, (9,)), 340: (SHORT, (1,) * 4)},
    "a colour map beside grey levels": {320: (SHORT, (7,) * 768)},
    "a transfer function": {301: (SHORT, (9,) * 256)},
    "the density of greys on paper": {290: (SHORT, (2,)), 291: (SHORT, (5,) * 256)},
    "ink names": {332: (SHORT, (1,)), 336: (SHORT, (3, 9))},
    "reference black and white": {532: (LONG, (0, 1, 9, 1) * 3)},
    "more rows in a strip than there are": {278: (LONG, (0xFFFFFFFF,))},
    "other images inside": {330: (LONG, (8,))},
    "no predictor": {317: (SHORT, (1,))},
    "no volume": {32997: (LONG, (1,)), 32998: (LONG, (1,))},
    "no index": {346: (SHORT, (0,))},
    "a tag of an unknown type": {65000: (129, (1,))},
    "a tag of an unknown type with an offset to nowhere": {65000: (129, (1 << 30,) * 99)},
    "the older tag of the sample format": {32996: (SHORT, (2,))},
}

REFUSED: dict[str, tuple[Tags, Reason]] = {
    **{
        f"photometric interpretation {number}": ({262: (SHORT, (number,))}, Reason.UNSUPPORTED_DTYPE)
        for number in (0, 3, 4, 5, 6, 7, 8, 9, 10, 32803, 32844, 32845, 34892, 51177, 60000)
    },
    **{
        f"orientation {number}": ({274: (SHORT, (number,))}, Reason.UNSUPPORTED_DTYPE)
        for number in (0, 2, 3, 4, 5, 6, 7, 8, 9)
    },
    "signed": ({339: (SHORT, (2,) * 4)}, Reason.UNSUPPORTED_DTYPE),
    "floats of 8 bits": ({339: (SHORT, (3,) * 4)}, Reason.UNSUPPORTED_DTYPE),
    "complex numbers of 8 bits": ({339: (SHORT, (5,) * 4)}, Reason.UNSUPPORTED_DTYPE),
    "an unknown sample format": ({339: (SHORT, (9,) * 4)}, Reason.UNSUPPORTED_DTYPE),
    "channels of several formats": ({339: (SHORT, (1, 1, 2, 1))}, Reason.DAMAGED_TIFF),
    "channels of several depths": ({258: (SHORT, (8, 8, 16, 8))}, Reason.UNSUPPORTED_DTYPE),
    "two tags that disagree on the format": ({32996: (SHORT, (1,))}, Reason.UNSUPPORTED_DTYPE),
    "colours that are multiplied with transparency": (
        {262: (SHORT, (2,)), 338: (SHORT, (1,))}, Reason.UNSUPPORTED_DTYPE,
    ),
    "the same in an older tag": ({32995: (SHORT, (1,))}, Reason.UNSUPPORTED_DTYPE),
    "extra samples of an unknown kind": ({338: (SHORT, (0, 7, 0))}, Reason.UNSUPPORTED_DTYPE),
    "nothing but extra samples": ({338: (SHORT, (0, 0, 0, 0))}, Reason.UNSUPPORTED_DTYPE),
    "RGB with two extra samples of four": ({262: (SHORT, (2,)), 338: (SHORT, (0, 0))}, Reason.UNSUPPORTED_DTYPE),
    "an index": ({346: (SHORT, (1,))}, Reason.UNSUPPORTED_DTYPE),
    "a mask": ({254: (LONG, (4,))}, Reason.UNSUPPORTED_DTYPE),
    "an unknown kind of page": ({254: (LONG, (16,))}, Reason.UNSUPPORTED_DTYPE),
    "a smaller copy of the same size": ({254: (LONG, (1,))}, Reason.UNSUPPORTED_DTYPE),
    "the same in an older tag of its kind": ({255: (SHORT, (2,))}, Reason.UNSUPPORTED_DTYPE),
    "a volume": ({32997: (LONG, (2,))}, Reason.UNSUPPORTED_DTYPE),
    "a volume of tiles": ({32998: (LONG, (2,))}, Reason.UNSUPPORTED_DTYPE),
    "values that are to be mapped": ({433: (LONG, (0, 1, 1, 1))}, Reason.UNSUPPORTED_DTYPE),
    "values that are to be made linear": ({50712: (SHORT, (9,) * 256)}, Reason.UNSUPPORTED_DTYPE),
    "an unknown way to lay out samples": ({284: (SHORT, (3,))}, Reason.UNSUPPORTED_DTYPE),
    "an unknown order of bits": ({266: (SHORT, (3,))}, Reason.UNSUPPORTED_CODEC),
    "a predictor that libtiff ignores": ({317: (SHORT, (2,))}, Reason.UNSUPPORTED_CODEC),
    "a predictor for floats": ({317: (SHORT, (3,))}, Reason.UNSUPPORTED_CODEC),
    "bits that are no whole number": ({258: (RATIONAL, (8, 1))}, Reason.DAMAGED_TIFF),
    "an orientation that is no number": ({274: (UNDEFINED, (3,))}, Reason.DAMAGED_TIFF),
    "two orientations": ({274: (SHORT, (1, 3))}, Reason.DAMAGED_TIFF),
    "bits of an unknown type": ({258: (129, (8,))}, Reason.DAMAGED_TIFF),
    "a tag without a type": ({65000: (0, (8,))}, Reason.INCOMPLETE),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_tags_that_leave_grey_levels_alone_are_read_past(name: str) -> None:
    """What only describes the picture, or says what is so anyway, changes no pixel."""
    np.testing.assert_array_equal(_found(_file(READ[name])), _pixels())


@pytest.mark.parametrize("name", REFUSED)
def test_tags_that_give_pixels_another_meaning_are_refused(name: str) -> None:
    """Each with a reason, and with a sentence that names it."""
    tags, reason = REFUSED[name]
    with pytest.raises((Reject, Retry)) as caught:
        read_strip(_file(tags), **SMALL)
    assert isinstance(caught.value, (Reject, Retry))
    assert caught.value.reason is reason
    assert caught.value.detail


@pytest.mark.parametrize("page", range(4))
@pytest.mark.parametrize("tag", [(262, 0), (274, 3), (254, 4), (254, 1), (258, 4)])
def test_one_page_of_four_that_means_something_else_is_enough(page: int, tag: tuple[int, int]) -> None:
    """Each page is a channel, and each is looked at."""
    file, (code, value) = BytesIO(), tag
    with tifffile.TiffWriter(file) as writer:
        for number, plane in enumerate(_pixels()):
            extra = [(PLACEHOLDER, 4, 1, value, True)] if number == page else []
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, extratags=extra)
    data = bytearray(file.getvalue())
    tags = _tags_of(data)[page]
    there, placeholder = tags.get(code), tags[PLACEHOLDER]
    if there is None:
        struct.pack_into("<H", data, placeholder.offset, code)
    else:
        struct.pack_into("<H", data, there.valueoffset, value)
    assert _found(bytes(data)) is Reason.UNSUPPORTED_DTYPE


@pytest.mark.parametrize(
    ("numbers", "is_read"),
    [((0, 1, 2), True), ((5, 6, 9), True), ((0, 0, 0), True), ((1, 0, 2), False), ((0, 1, None), False),
     ((2, 1, 0), False), ((0, 1, 1), False)],
)  # fmt: skip
def test_pages_that_say_they_are_in_another_order_are_refused(numbers: Any, is_read: bool) -> None:
    """The target would be taken for a reference."""
    pixels, file = _pixels(channels=3), BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for plane, number in zip(pixels, numbers, strict=True):
            extra = [] if number is None else [(297, 3, 2, (number, 3), True)]
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, extratags=extra)
    found = _found(file.getvalue())
    if is_read:
        np.testing.assert_array_equal(found, pixels)
    else:
        assert found is Reason.UNSUPPORTED_DTYPE


@pytest.mark.parametrize("counts", ["zero", "missing"])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}], ids=["whole", "stripped", "tiled"])
@pytest.mark.parametrize("layout", ["planar", "interleaved", "pages"])
def test_sizes_of_uncompressed_parts_follow_from_the_other_tags(layout: Any, options: Any, counts: str) -> None:
    """Some writers leave StripByteCounts 0 or out; TIFF 6.0 asks for them, and nothing is lost without."""
    pixels = _pixels("uint16")
    data = bytearray(encode(pixels, layout=layout, **options))
    _spoil_counts(data, missing=counts == "missing")
    np.testing.assert_array_equal(_found(bytes(data)), pixels)
    assert _found(bytes(data[:-9])) is Reason.INCOMPLETE
    compressed = bytearray(encode(pixels, layout=layout, compression="zlib", **options))
    _spoil_counts(compressed, missing=counts == "missing")
    assert _found(bytes(compressed)) in {Reason.INCOMPLETE, Reason.DAMAGED_TIFF}


def _spoil_counts(data: bytearray, *, missing: bool) -> None:
    for tag in [tags.get(279) or tags[325] for tags in _tags_of(data)]:
        if missing:
            struct.pack_into("<H", data, tag.offset, 65001)
        else:
            size = tag.count * {3: 2, 4: 4}[int(tag.dtype)]
            data[tag.valueoffset : tag.valueoffset + size] = bytes(size)


def test_offsets_that_are_not_filled_in_are_waited_for() -> None:
    """Zeros there are a file that is being written, whatever the sizes say."""
    assert _found(_file({273: (LONG, (0, 0, 0, 0)), 279: (LONG, (0, 0, 0, 0))})) is Reason.INCOMPLETE


def test_an_imagej_stack_with_reversed_bits_is_refused() -> None:
    """The one way in which pixels are taken from the file without a codec."""
    extra = [(PLACEHOLDER, 3, 1, 2, True)]
    data = bytearray(encode(_pixels(channels=3), layout="one_directory", extratags=extra))
    assert not isinstance(_found(bytes(data)), Reason)
    struct.pack_into("<H", data, _tags_of(data)[0][PLACEHOLDER].offset, 266)
    assert _found(bytes(data)) is Reason.UNSUPPORTED_CODEC


CHANGES = st.dictionaries(
    st.sampled_from(
        [
            254,
            255,
            258,
            262,
            263,
            266,
            274,
            280,
            281,
            284,
            290,
            297,
            301,
            317,
            320,
            330,
            338,
            339,
            346,
            433,
            532,
            32995,
            32996,
            32997,
            32998,
            50712,
            50714,
            50717,
            65000,
        ]
    ),
    st.tuples(
        st.sampled_from([SHORT, SHORT, SHORT, LONG, 129]),
        st.lists(st.sampled_from([0, 1, 1, 1, 2, 3, 4, 5, 6, 8, 8, 12, 16, 32, 255]), min_size=1, max_size=4).map(
            tuple
        ),
    ),
    max_size=4,
)


@example(changed={284: (SHORT, (1, 1))}, dtype="uint8", planar=False, channels=3)
@given(CHANGES, st.sampled_from(["uint8", "uint16", "float32"]), st.booleans(), st.sampled_from([3, 4]))
def test_whatever_the_tags_say_the_pixels_are_right_or_refused(
    changed: Tags, dtype: str, planar: bool, channels: int
) -> None:
    """What may be read is computed here by another way: the bytes of the file, with their bits in the order stated."""
    pixels = _pixels(dtype, channels)
    found = _found(_file(changed, pixels=pixels, planar=planar))
    if isinstance(found, Reason):
        return
    stored = b"".join(plane.tobytes() for plane in pixels) if planar else np.moveaxis(pixels, 0, -1).tobytes()
    if _value(changed, 266, 1) == 2:
        stored = bytes(imagecodecs.bitorder_decode(stored))
    assert _value(changed, 284, 2 if planar else 1) == (2 if planar else 1) or found.dtype == pixels.dtype
    expected = np.frombuffer(stored, dtype)
    in_planes = _value(changed, 284, 2 if planar else 1) == 2
    shape = (channels, HEIGHT, WIDTH) if in_planes else (HEIGHT, WIDTH, channels)
    expected = expected.reshape(shape) if in_planes else np.moveaxis(expected.reshape(shape), -1, 0)
    np.testing.assert_array_equal(found, expected)
    bits = pixels.dtype.itemsize * 8
    assert _values(changed, 258, (bits,)) == {bits}
    assert _values(changed, 339, (3 if dtype == "float32" else 1,)) <= ({3} if dtype == "float32" else {1, 4})
    assert _value(changed, 262, 1) in {1, 2}
    assert (_value(changed, 274, 1), _value(changed, 317, 1)) == (1, 1)
    assert not {433, 50712} & {code for code, (kind, _) in changed.items() if kind != 129}


def _values(changed: Tags, code: int, usual: tuple[int, ...]) -> set[int]:
    return set(changed[code][1] if code in changed else usual)


def _value(changed: Tags, code: int, usual: int) -> int:
    return changed[code][1][0] if code in changed else usual
