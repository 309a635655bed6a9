"""The same strip, written again by other people's programs: libtiff's tools, GDAL, ImageMagick, OpenCV, tifffile.

Each `Case` says what is promised for the file: `equal` (the model gets the very same numbers), or the reason with which
it is refused. docs/tiff.md holds the same table.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import tifffile

from agent.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.strips import Pixels

EQUAL = "equal"
READ_DTYPES = ("uint8", "uint16", "float32")
REFUSED_DTYPES = ("float16", "float64", "int16", "uint32")
LOSSLESS = ("none", "packbits", "lzw", "zip", "lzma", "zstd")
LOSSY = ("jpeg", "webp", "lerc", "lerc_deflate", "lerc_zstd")
MAGICK = shutil.which("convert-im6.q16") or shutil.which("magick")
PROGRAMS = {
    "tiffcp": (shutil.which("tiffcp"), "libtiff-tools"),
    "GDAL": (shutil.which("gdal_translate"), "gdal-bin"),
    "ImageMagick": (MAGICK, "imagemagick"),
    "OpenCV": ("in this process", ""),
    "tifffile": ("in this process", ""),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One way to write the strip. `write(pixels, folder)` returns the file, None where the program itself refuses."""

    writer: str
    dtype: str
    compression: str
    options: str
    write: Callable[[Pixels, Path], Path | None]

    @property
    def promises(self) -> frozenset[str]:
        """What may become of it: equal, or the reason of its refusal."""
        if self.compression in LOSSLESS and (broken := _broken_by_its_writer(self)):
            return broken
        refusals = set() if self.compression in LOSSLESS else {str(Reason.UNSUPPORTED_CODEC)}
        refusals |= set() if self.dtype in READ_DTYPES else {str(Reason.UNSUPPORTED_DTYPE)}
        return frozenset(refusals or {EQUAL})

    @property
    def full_scale(self) -> float | None:
        """The `checks.full_scale` that such files need: ImageMagick stretches 8 bits to 16 and to 0..1."""
        return {"uint16": 65535.0, "float32": 1.0}.get(self.dtype) if self.writer == "ImageMagick" else None


def _broken_by_its_writer(case: Case) -> frozenset[str]:
    """Return how files that their own program cannot read back are refused, nothing for all others.

    libtiff 4.5 swaps the bytes before it applies the floating-point predictor when the file is big-endian; tiffcp
    writes little but zeros when it makes separate tiles of more than 8 bits.
    """
    if case.writer == "tiffcp" and case.dtype in {"uint16", "float32"} and "-p separate -t" in case.options:
        return frozenset({str(Reason.INCOMPLETE), str(Reason.LOW_CONTRAST)})
    swapped = ("-B" in case.options and ":3" in case.options) or (
        "ENDIANNESS=BIG" in case.options and "PREDICTOR=3" in case.options
    )
    return frozenset({str(Reason.UNIT_RANGE_SUSPECTED)} if swapped and case.dtype == "float32" else ())


def table() -> str:
    """Return the table of docs/tiff.md."""
    compressions: dict[tuple[str, str], set[str]] = {}
    for case in all_cases(installed=False):
        compressions.setdefault((case.writer, case.dtype), set()).add(case.compression)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for (writer, dtype), names in compressions.items():
        read, refused = "", "all of them: `unsupported_dtype` or `unsupported_codec`"
        if dtype in READ_DTYPES:
            read = ", ".join(name for name in LOSSLESS if name in names)
            refused = ", ".join(name for name in LOSSY if name in names) + ": `unsupported_codec`"
        rows.setdefault((writer, read, refused), []).append(dtype)
    lines = ["| written by | as | read: the model gets the same numbers | refused |", "|---|---|---|---|"]
    lines += [
        f"| {writer} | {', '.join(dtypes)} | {read} | {refused} |" for (writer, read, refused), dtypes in rows.items()
    ]
    return "\n".join(lines)


def all_cases(*, installed: bool = True) -> Iterator[Case]:
    """Yield every case, or every case of the writers that are installed."""
    for writer, cases in (
        ("tiffcp", _tiffcp_cases), ("GDAL", _gdal_cases), ("ImageMagick", _magick_cases), ("OpenCV", _opencv_cases),
        ("tifffile", _tifffile_cases),
    ):  # fmt: skip
        if not installed or PROGRAMS[writer][0] is not None:
            yield from cases()


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=300).returncode == 0


def _seed(pixels: Pixels, folder: Path, *, planes: bool = False, photometric: str = "minisblack") -> Path:
    """Write what the programs are given: plain and uncompressed."""
    path = folder / "seed.tif"
    if not planes:
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    planarconfig = "separate" if planes else "contig"
    tifffile.imwrite(path, pixels, photometric=photometric, planarconfig=planarconfig, metadata=None)
    return path


# -- libtiff


def _tiffcp_cases() -> Iterator[Case]:
    layouts = itertools.product(("contig", "separate"), ("-s", "-t"), ("-L", "-B"), ("", "-8"))
    for (planes, parts, order, big), dtype in itertools.product(layouts, (*READ_DTYPES, "float64", "float16")):
        predictors = ["", ":2", ":3"] if dtype == "float32" else ["", ":2"]
        codecs = [(name, "") for name in ("none", "packbits", "jpeg", "webp", "lerc")]
        codecs += itertools.product(("lzw", "zip", "zstd", "lzma"), predictors)
        for name, predictor in codecs:
            options = ["-c", f"{name}{predictor}", "-p", planes, parts, order, *([big] if big else [])]
            options += ["-w", "32", "-l", "48"] if parts == "-t" else ["-r", "7"]
            yield Case("tiffcp", dtype, name, " ".join(options), _tiffcp(options))
    for name, dtype, order in itertools.product(("none", "packbits", "lzw", "zip", "zstd"), READ_DTYPES, ("-L", "-B")):
        options = ["-f", "lsb2msb", "-c", name, order]
        yield Case("tiffcp", dtype, name, " ".join(options), _tiffcp(options))


def _tiffcp(options: list[str]) -> Callable[[Pixels, Path], Path | None]:
    def write(pixels: Pixels, folder: Path) -> Path | None:
        target = folder / "tiffcp.tif"
        seed = _seed(pixels, folder, planes="separate" in options)  # it rearranges 8 bits only
        return target if _run("tiffcp", *options, str(seed), str(target)) else None

    return write


# -- GDAL


def _gdal_cases() -> Iterator[Case]:
    names = {name: name.upper() for name in (*LOSSLESS, *LOSSY)} | {"zip": "DEFLATE"}
    layouts = itertools.product(("PIXEL", "BAND"), ("NO", "YES"), ("LITTLE", "BIG"), ("NO", "YES"))
    for (planes, tiled, order, big), dtype in itertools.product(layouts, (*READ_DTYPES, "float64", "int16", "uint32")):
        for name, gdal_name in names.items():
            predictors = ("1", "2", "3") if dtype == "float32" else ("1", "2")
            for predictor in predictors if name in {"lzw", "zip", "zstd"} else ("1",):
                options = [f"COMPRESS={gdal_name}", f"INTERLEAVE={planes}", f"TILED={tiled}", f"BIGTIFF={big}"]
                options += [f"ENDIANNESS={order}"] + ([f"PREDICTOR={predictor}"] if predictor != "1" else [])
                options += ["BLOCKXSIZE=32", "BLOCKYSIZE=48"] if tiled == "YES" else []
                yield Case("GDAL", dtype, name, " ".join(options), _gdal(options, dtype))


def _gdal(options: list[str], dtype: str) -> Callable[[Pixels, Path], Path | None]:
    types = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32", "float64": "Float64", "int16": "Int16"}

    def write(pixels: Pixels, folder: Path) -> Path | None:
        target = folder / "gdal.tif"
        told = [word for option in options for word in ("-co", option)]
        kind = types.get(dtype, "UInt32")
        done = _run("gdal_translate", "-q", "-ot", kind, *told, str(_seed(pixels, folder)), str(target))
        return target if done else None

    return write


# -- ImageMagick (three channels: for it, a fourth one is transparency)


def _magick_cases() -> Iterator[Case]:
    names = {"none": "None", "packbits": "RLE", "lzw": "LZW", "zip": "Zip", "lzma": "LZMA", "zstd": "ZSTD",
             "jpeg": "JPEG", "webp": "WebP"}  # fmt: skip
    for (name, magick_name), order, big in itertools.product(names.items(), ("lsb", "msb"), ("TIFF", "TIFF64")):
        for dtype in ("uint8", "uint16", "float32", "float64", "float16"):
            options = ["-compress", magick_name, "-endian", order, "-depth", str(np.dtype(dtype).itemsize * 8)]
            options += ["-define", "quantum:format=floating-point"] if dtype.startswith("float") else []
            for tiles in ([], ["-define", "tiff:tile-geometry=32x48"]):
                told = [*options, *tiles]
                yield Case("ImageMagick", dtype, name, " ".join([*told, big]), _magick(told, big))


def _magick(options: list[str], big: str) -> Callable[[Pixels, Path], Path | None]:
    def write(pixels: Pixels, folder: Path) -> Path | None:
        target = folder / "magick.tif"
        seed = _seed(pixels[:3], folder, photometric="rgb")
        return target if _run(str(MAGICK), str(seed), *options, f"{big}:{target}") else None

    return write


# -- OpenCV (libtiff inside; channels are given as BGR)


def _opencv_cases() -> Iterator[Case]:
    names = {"none": 1, "lzw": 5, "jpeg": 7, "zip": 8, "packbits": 32773, "lzma": 34925, "zstd": 50000}
    for (name, number), dtype in itertools.product(names.items(), (*READ_DTYPES, "float64")):
        options = [cv2.IMWRITE_TIFF_COMPRESSION, number]
        yield Case("OpenCV", dtype, name, f"imwrite, compression {number}", _opencv(options, pages=False))
        yield Case("OpenCV", dtype, name, f"imwritemulti, compression {number}", _opencv(options, pages=True))


def _opencv(options: list[int], *, pages: bool) -> Callable[[Pixels, Path], Path | None]:
    def write(pixels: Pixels, folder: Path) -> Path | None:
        target = str(folder / "opencv.tif")
        try:
            if pages:
                done = cv2.imwritemulti(target, list(pixels[:3]), options)
            else:
                done = cv2.imwrite(target, np.ascontiguousarray(np.moveaxis(pixels[2::-1], 0, -1)), options)
        except cv2.error:
            return None
        return folder / "opencv.tif" if done else None

    return write


# -- tifffile, and through it ImageJ's stacks


def _tifffile_cases() -> Iterator[Case]:
    names = {"none": None, "lzw": "lzw", "zip": "deflate", "packbits": "packbits", "lzma": "lzma", "zstd": "zstd",
             "jpeg": "jpeg", "webp": "webp", "lerc": "lerc"}  # fmt: skip
    for (name, codec), order, big, dtype in itertools.product(
        names.items(), "<>", (False, True), (*READ_DTYPES, *REFUSED_DTYPES)
    ):
        for tile in (None, (48, 32)):
            options: dict[str, Any] = {"compression": codec, "tile": tile, "metadata": None}
            told = f"byteorder {order}, bigtiff {big}, tile {tile}"
            yield Case("tifffile", dtype, name, told, _tifffile(options, byteorder=order, bigtiff=big))
    for dtype in ("uint8", "uint16", "float32"):
        yield Case("tifffile", dtype, "none", "ImageJ hyperstack", _tifffile({}, imagej=True))


def _tifffile(options: dict[str, Any], **whole_file: Any) -> Callable[[Pixels, Path], Path | None]:
    def write(pixels: Pixels, folder: Path) -> Path | None:
        target = folder / "tifffile.tif"
        planes: dict[str, Any] = {} if whole_file.get("imagej") else {"planarconfig": "separate"}
        try:
            with tifffile.TiffWriter(target, **whole_file) as writer:
                writer.write(pixels, photometric="minisblack", **planes, **options)
        except (ValueError, KeyError, RuntimeError, TypeError, NotImplementedError):
            return None
        return target

    return write


if __name__ == "__main__":
    print(table())  # noqa: T201 - for docs/tiff.md
