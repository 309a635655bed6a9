"""Where the patches of a sliding window lie on a strip, and what of each goes into the heatmap. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from tools.exporter.errors import ExportError

SMALLEST_OVERLAP = 6  # neighbouring patches overlap by at least a sixth of a patch unless a grid is asked for


@dataclass(frozen=True, slots=True)
class Window:
    """One patch along one axis: where it starts in the strip, and which of its pixels are kept (end excluded)."""

    start: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True, slots=True)
class Layout:
    """All patches of a strip of `height` x `width` pixels; every pixel is kept from exactly one patch."""

    height: int
    width: int
    patch_height: int
    patch_width: int
    rows: tuple[Window, ...]
    columns: tuple[Window, ...]

    @property
    def windows(self) -> list[tuple[Window, Window]]:
        """(row, column) of every patch in row-major order."""
        return [(row, column) for row in self.rows for column in self.columns]

    @staticmethod
    def kept(row: Window, column: Window) -> tuple[slice, slice]:
        """Give the pixels of the strip that are kept from this patch."""
        return (
            slice(row.start + row.keep_start, row.start + row.keep_stop),
            slice(column.start + column.keep_start, column.start + column.keep_stop),
        )

    def describe(self) -> str:
        """Tell a person where the patches are."""
        rows = f"rows {_positions(self.rows)}"
        columns = f"columns {_positions(self.columns)}"
        patch = f"{self.patch_height} x {self.patch_width}"
        grid = f"{len(self.rows)} x {len(self.columns)}"
        return f"{grid} patches of {patch} on {self.height} x {self.width}: {rows}; {columns}"


def make_layout(
    image_size: tuple[int, int], patch_size: tuple[int, int], grid: tuple[int, int] | None = None
) -> Layout:
    """Lay patches of (height, width) over a strip of (height, width); `grid` is (rows, columns), derived when None.

    Patches are spaced evenly. Of the overlap of two neighbours, each gives up half; where the halves are not equal the
    later patch wins. Raises ExportError when the patches do not cover the strip.
    """
    rows, columns = (
        _make_windows(length, patch, count, axis)
        for length, patch, count, axis in zip(
            image_size, patch_size, grid or (None, None), ("rows", "columns"), strict=True
        )
    )
    return Layout(*image_size, *patch_size, rows, columns)


def _make_windows(length: int, patch: int, count: int | None, axis: str) -> tuple[Window, ...]:
    if patch < 1 or length < patch:
        raise ExportError(
            f"A patch of {patch} pixels does not fit into {length} {axis}: give --image-size and --patch."
        )
    count = count or _smallest_count(length, patch)
    slack = length - patch
    if count == 1:
        if slack:
            raise ExportError(f"One patch of {patch} does not cover {length} {axis}: ask for more with --grid.")
        return (Window(0, 0, patch),)
    starts = [index * slack // (count - 1) for index in range(count)]
    overlap = patch - max(later - earlier for earlier, later in pairwise(starts))
    if overlap < 0 or len(set(starts)) < count:
        raise ExportError(f"{count} patches of {patch} do not fit {length} {axis}: ask for another --grid.")
    bounds = [0, *(start + overlap // 2 for start in starts[1:]), length]
    return tuple(
        Window(start, begin - start, end - start)
        for start, begin, end in zip(starts, bounds[:-1], bounds[1:], strict=True)
    )


def _smallest_count(length: int, patch: int) -> int:
    count = 1
    while count * patch - (count - 1) * (patch // SMALLEST_OVERLAP) < length:
        count += 1
    return count


def _positions(windows: tuple[Window, ...]) -> str:
    return ", ".join(f"{window.start}[{window.keep_start}:{window.keep_stop}]" for window in windows)
