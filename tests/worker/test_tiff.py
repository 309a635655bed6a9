"""Reading strips: every layout that cameras write, and nothing that could hurt."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from agent.config import ChecksSection
from agent.errors import AgentError, Blame, Reason, Reject, Retry
from agent.regular_files import read_regular_file
from agent.worker.checks import check_strip
from agent.worker.tiff import read_strip
from tests.helpers.bad_strips import BAD_STRIPS, READABLE_BY_ROOT, craft_tiff
from tests.helpers.strips import HEIGHT, WIDTH, Layout, Pixels, encode, make_pixels, write_strip

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"height": 48, "width": 32}


def _small(dtype: str, channels: int = 4) -> Pixels:
    pixels: Pixels = make_pixels(channels=channels, height=48, width=32).round().astype(dtype)
    return pixels


def _refusal(data: bytes) -> Retry | Reject | None:
    """Return how a small strip is refused, None if it is read."""
    try:
        found = read_strip(data, **SMALL)
    except (Retry, Reject) as error:
        return error
    assert found.shape in {(3, 48, 32), (4, 48, 32)}
    assert found.dtype.name in {"float32", "uint8", "uint16"}
    return None


def _judge(folder: Path) -> None:
    data, _, _ = read_regular_file(str(folder), "a.tif", max_bytes=64 << 20)
    check_strip(read_strip(data, height=HEIGHT, width=WIDTH), ChecksSection())


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize("layout", ["planar", "interleaved", "pages", "imagej", "one_directory"])
def test_every_layout_gives_the_same_pixels(layout: Layout, dtype: str, channels: int) -> None:
    """Planes, interleaved samples, pages and both kinds of ImageJ stacks come out channels first, as stored."""
    pixels = _small(dtype, channels)
    found = read_strip(encode(pixels, layout=layout), **SMALL)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7}], ids=["whole", "tiled", "stripped"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "lzma", "zstd", "png"])
@pytest.mark.parametrize("layout", ["planar", "interleaved", "pages"])
def test_every_lossless_compression_is_read(layout: Layout, compression: str | None, options: dict[str, Any]) -> None:
    """Each accepted compression gives back the exact pixels, in strips and in tiles."""
    pixels = _small("uint8" if compression == "png" else "uint16")
    data = encode(pixels, layout=layout, compression=compression, **options)
    np.testing.assert_array_equal(read_strip(data, **SMALL), pixels)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd"])
def test_predictors_are_undone(compression: str, dtype: str) -> None:
    """Horizontal differences and the floating-point predictor leave no trace."""
    pixels = _small(dtype)
    data = encode(pixels, compression=compression, predictor=True)
    np.testing.assert_array_equal(read_strip(data, **SMALL), pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_both_byte_orders_and_bigtiff(byteorder: str, bigtiff: bool, compression: str | None) -> None:
    """The machine that wrote the file does not matter."""
    pixels = _small("float32")
    data = encode(pixels, byteorder=byteorder, bigtiff=bigtiff, compression=compression)
    np.testing.assert_array_equal(read_strip(data, **SMALL), pixels)


def test_a_square_image_is_read_too() -> None:
    """Layouts are told apart by the expected size, also where height and width are equal."""
    pixels = make_pixels(channels=3, height=40, width=40)
    for layout in ("planar", "interleaved", "pages"):
        np.testing.assert_array_equal(read_strip(encode(pixels, layout=layout), height=40, width=40), pixels)


def test_a_thumbnail_beside_the_strip_is_left_out() -> None:
    """A reduced page is no channel."""
    pixels, file = _small("uint8"), BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels, photometric="minisblack", planarconfig="separate")
        writer.write(np.zeros((8, 8), np.uint8), subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(read_strip(file.getvalue(), **SMALL), pixels)


def _with_values(data: bytes, page: int, tag: int, values: dict[int, int]) -> bytes:
    """Replace some values of a page's tag (those that lie outside of the directory) by others."""
    with tifffile.TiffFile(BytesIO(data)) as file:
        found = file.pages[page].aspage().tags[tag]
        stored = np.frombuffer(data, f"<u{found.valuebytecount // found.count}", found.count, found.valueoffset).copy()
    for index, value in values.items():
        stored[index] = value
    return data[: found.valueoffset] + stored.tobytes() + data[found.valueoffset + found.valuebytecount :]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", ["planar", "interleaved", "pages"])
def test_no_bytes_are_two_parts_of_the_image(layout: Layout, compression: str | None) -> None:
    """One place of the board would be shown where another should be: a strip that nobody has photographed."""
    data = encode(_small("uint8"), layout=layout, compression=compression, rowsperstrip=12)
    last = 3 if layout == "pages" else 0
    with tifffile.TiffFile(BytesIO(data)) as file:
        first = file.pages[0].dataoffsets[0]
        before_last = file.pages[last].dataoffsets[-2]
    for another in (first, before_last, before_last + 7, 2):
        refusal = _refusal(_with_values(data, last, 273, {-1: another}))
        assert refusal is not None
        assert refusal.reason is Reason.DAMAGED_TIFF


def test_sizes_of_strips_that_are_stated_too_large_are_no_overlap() -> None:
    """Where nothing is compressed the other tags say what is needed."""
    pixels = _small("uint8")
    data = encode(pixels, rowsperstrip=12)
    np.testing.assert_array_equal(read_strip(_with_values(data, 0, 279, {3: 400, 7: 390}), **SMALL), pixels)


@pytest.mark.parametrize("other", ["16 bits", "colours", "transparency"])
def test_a_png_that_holds_other_pixels_than_the_tags_say_is_refused(other: str) -> None:
    """The decoder goes by the PNG, and what it gives would be cut and scaled until it fits."""
    data = encode(_small("uint8", 3), compression="png", rowsperstrip=48)
    start = data.index(b"IHDR")
    header = {"16 bits": b"\x10\x00", "colours": b"\x08\x02", "transparency": b"\x08\x04"}[other]
    assert _refusal(data) is None
    refusal = _refusal(data[: start + 12] + header + data[start + 14 :])
    assert refusal is not None
    assert "where the tags say 8 and 0" in refusal.detail


def test_special_values_survive(tmp_path: Path) -> None:
    """NaN and infinity are read as they are; judging them is not the reader's business."""
    pixels = _small("float32")
    pixels[0, 0, :3] = [np.nan, np.inf, -np.inf]
    (tmp_path / "a.tif").write_bytes(encode(pixels))
    np.testing.assert_array_equal(read_strip((tmp_path / "a.tif").read_bytes(), **SMALL), pixels)


def test_other_files_named_in_the_metadata_are_not_opened(tmp_path: Path) -> None:
    """OME metadata may point to siblings; the strip is what is in this file."""
    pixels = _small("uint8", 3)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_strip((tmp_path / "a.ome.tif").read_bytes(), **SMALL), pixels)


@pytest.mark.parametrize("name", BAD_STRIPS)
def test_a_bad_strip_is_refused_with_its_own_reason(tmp_path: Path, name: str) -> None:
    """Read, decoded and checked as the worker does it, each bad file ends with its own reason."""
    build, reason = BAD_STRIPS[name]
    build(tmp_path / "a.tif")
    if name in READABLE_BY_ROOT:
        try:
            (tmp_path / "a.tif").read_bytes()
            pytest.skip("root reads it; tests/e2e: test_a_service_that_may_not_read_a_strip is for this")
        except PermissionError:
            pass
    with pytest.raises((Retry, Reject)) as caught:
        _judge(tmp_path)
    assert isinstance(caught.value, (Retry, Reject))
    assert caught.value.reason is reason
    assert caught.value.detail
    if isinstance(caught.value, Retry):
        assert caught.value.blame is Blame.FILE


def test_a_good_strip_passes_where_the_bad_ones_fail(tmp_path: Path) -> None:
    """The same way, a good strip is accepted: its fourth channel is all zero."""
    for dtype in ("float32", "uint8", "uint16"):
        stored = write_strip(tmp_path / "a.tif", dtype=dtype, defect=True)
        _judge(tmp_path)
        found = read_strip((tmp_path / "a.tif").read_bytes(), height=HEIGHT, width=WIDTH)
        np.testing.assert_array_equal(found, stored)
        assert not found[3].any()


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("layout", ["planar", "pages"])
def test_a_file_that_is_cut_anywhere_is_waited_for(layout: Layout, compression: str | None) -> None:
    """Whatever the point at which a writer is interrupted, the file is not refused for good and never accepted."""
    data = encode(_small("uint8"), layout=layout, compression=compression)
    for end in range(1, len(data), 13):
        assert isinstance(_refusal(data[:end]), Retry), end


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_reserved_space_that_is_not_written_yet_is_waited_for(compression: str | None) -> None:
    """A file of its final size whose rest is still zeros is never refused for good by the reader."""
    data = encode(_small("uint8"), compression=compression)
    for end in range(0, len(data) - 13, 29):
        refusal = _refusal(data[:end].ljust(len(data), b"\0"))
        if refusal is None:  # uncompressed zeros are pixels; the check for zero rows is for them
            assert compression is None
        assert not isinstance(refusal, Reject), end


BOMBS = [name for name in BAD_STRIPS if "bomb" in name] + ["tags of six megabytes"]

MEASURE = """
import resource, sys
from agent.errors import AgentError
from agent.worker.tiff import read_strip
read_strip(open(sys.argv[1], "rb").read(), height=976, width=176)
datas = [open(name, "rb").read() for name in sys.argv[2:]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in datas:
    try:
        read_strip(data, height=976, width=176)
        raise SystemExit("a bomb was read")
    except AgentError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    """After a good strip, no bomb raises the process's memory by more than a few strips."""
    write_strip(tmp_path / "good.tif", height=976, width=176)
    for number, name in enumerate(BOMBS):
        BAD_STRIPS[name][0](tmp_path / f"bomb{number}.tif")
    files = [str(tmp_path / "good.tif"), *(str(path) for path in sorted(tmp_path.glob("bomb*")))]
    done = subprocess.run([sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 * 1024, "KiB"


@pytest.mark.parametrize("layout", ["planar", "pages"])
def test_nothing_keeps_a_files_bytes_once_it_is_read(layout: Layout) -> None:
    """The bytes go with the strip and not when the garbage collector next comes by: a strip's are megabytes."""
    data = encode(_small("float32"), layout=layout)
    holders = sys.getrefcount(data)
    gc.disable()
    try:
        read_strip(data, **SMALL)
        assert sys.getrefcount(data) == holders
        assert _refusal(data[: len(data) // 2]) is not None
        assert sys.getrefcount(data) == holders
    finally:
        gc.enable()


@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_give_a_strip_or_a_reason_and_nothing_else(seed: int) -> None:
    """Random damage, most of it in the tags, ends in Retry, Reject or a whole strip, in bounded memory."""
    rng = np.random.default_rng(seed)
    compression = [None, "zlib", "lzw", "packbits", "lzma", "zstd", "png", None][seed]
    layout: Layout = "pages" if seed % 2 else "planar"
    options = {"tile": (16, 16)} if seed > 5 else {}
    data = encode(_small("uint8"), layout=layout, compression=compression, **options)
    tracemalloc.start()
    try:
        for _ in range(60):
            damaged = bytearray(data)
            reach = len(data) if rng.random() < 0.3 else min(len(data), 400)
            for place in rng.integers(0, reach, rng.integers(1, 6)):
                damaged[place] = rng.choice(np.array([0, 1, 2, 4, 255, rng.integers(256)]))
            _refusal(bytes(damaged))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_the_detail_says_what_was_found_and_what_is_accepted() -> None:
    """An operator can act on the sentence alone."""
    with pytest.raises(Reject, match=r"pixels are float64; accepted are float32, uint8, uint16"):
        read_strip(encode(_small("float64")), **SMALL)
    with pytest.raises(Reject, match=r"4 x 48 x 32; needed are 3 or 4 channels of 50 x 32"):
        read_strip(encode(_small("uint8")), height=50, width=32)
    with pytest.raises(Reject, match=r"compression 4242; accepted are none, LZW"):
        read_strip(craft_tiff([b"x"] * 4, {259: (3, (4242,))}), height=HEIGHT, width=WIDTH)


def test_the_reason_is_told_without_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Each bad file gives one reason, not a line of tifffile's for each odd tag."""
    data = bytearray(encode(_small("uint8")))
    data[10:14] = b"\xff\xff\x03\0"
    with pytest.raises(AgentError):
        read_strip(bytes(data), **SMALL)
    assert not caplog.records


def test_lack_of_memory_is_the_boxs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip is not refused because the box has no memory just now."""

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tifffile.TiffPage, "asarray", no_memory)
    with pytest.raises(Retry) as caught:
        read_strip(encode(_small("uint8")), **SMALL)
    assert (caught.value.reason, caught.value.blame) == (Reason.NO_MEMORY, Blame.BOX)
