"""Cut each stage to the region that has to be computed; its place is looked up by the patch's number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tools.exporter.graph import Carried
from tools.exporter.regions import Shared, Span, plan_axis, plan_sharing, resize_roi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.exporter.graph import Graph
    from tools.exporter.layout import Layout

Region = tuple[Span, Span]  # rows, columns


class Crops:
    """The regions of every patch, and the nodes that cut to them; one object for one body of the loop."""

    def __init__(self, graph: Graph, layout: Layout, index: str) -> None:
        self.graph = graph
        self.layout = layout
        self.index = index
        self._tables: dict[type, dict[tuple[tuple[float, ...], ...], str]] = {}
        self.kept: list[Region] = [
            (Span(row.keep_start, row.keep_stop), Span(column.keep_start, column.keep_stop))
            for row, column in layout.windows
        ]

    def plan(self, convolutions: Sequence[int]) -> list[list[Region]]:
        """Give the region of every patch for each stage, deepest first; see `regions.plan_axis`."""
        rows = plan_axis(self.layout.rows, self.layout.patch_height, convolutions)
        columns = plan_axis(self.layout.columns, self.layout.patch_width, convolutions)
        return [
            [(row, column) for row in rows_of_stage for column in columns_of_stage]
            for rows_of_stage, columns_of_stage in zip(rows, columns, strict=True)
        ]

    def whole(self, stages_above: int) -> list[Region]:
        """Region of every patch that is all of it, `stages_above` halvings below full size."""
        height, width = self.layout.patch_height >> stages_above, self.layout.patch_width >> stages_above
        return [(Span(0, height), Span(0, width))] * len(self.kept)

    def cut(self, tensor: str, regions: Sequence[Region], within: Sequence[Region]) -> str:
        """Cut (N, C, h, w), which covers `within` of the patch, to `regions`."""
        if list(regions) == list(within):
            return tensor
        starts = [
            [at.start - base.start for at, base in zip(*pair, strict=True)] for pair in self._pairs(regions, within)
        ]
        stops = [
            [at.stop - base.start for at, base in zip(*pair, strict=True)] for pair in self._pairs(regions, within)
        ]
        graph = self.graph
        return graph.slice(tensor, self._of_this_patch(starts), self._of_this_patch(stops), graph.ints(2, 3))

    def upsample(
        self, tensor: str, size: tuple[str, int], regions: Sequence[Region], below: Sequence[Region], whole: Region
    ) -> str:
        """Upsample by 2 with aligned corners from `below` to `regions`, parts of a stage that is `whole`.

        `size` is a tensor of as many images, and how many channels there are: to ask `tensor` itself for its shape
        would make onnxruntime keep a copy of it in float and in torch's order.
        """
        graph = self.graph
        half = tuple(Span(0, span.stop // 2) for span in whole)
        if all(region == whole for region in regions) and all(region == half for region in below):
            return align_corners_upsample(graph, tensor)
        sizes = [[span.stop - span.start for span in region] for region in regions]
        roi = []
        for pair in self._pairs(regions, below):
            ends = [resize_roi(span, base, full.stop) for span, base, full in zip(*pair, whole, strict=True)]
            roi.append([0, 0, *(start for start, _ in ends), 1, 1, *(stop for _, stop in ends)])
        like, channels = size
        batch = graph.slice(graph.add("Shape", [like]), graph.ints(0), graph.ints(1), graph.ints(0))
        target = graph.add("Concat", [batch, graph.ints(channels), self._of_this_patch(sizes)], axis=0)
        no_scales = graph.constant(np.zeros(0, np.float32))
        return graph.add(
            "Resize",
            [tensor, self._of_this_patch(roi, np.float32), no_scales, target],
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
        )

    def sharing(self, convolutions: Sequence[int]) -> list[Shared]:
        """Give what each encoder level shares with the patch on the left; see `regions.plan_sharing`."""
        return plan_sharing(self.layout.columns, self.layout.patch_width, convolutions)

    def leave_out(self, tensor: str, shared: Shared) -> str:
        """Cut the columns out of (N, C, h, w) that are taken from the patch on the left later."""
        graph = self.graph
        left = graph.cut(tensor, 3, 0, shared.left_out[0].start)
        stops = graph.ints(shared.length)
        right = graph.slice(tensor, self._of_this_column([span.stop for span in shared.left_out]), stops, graph.ints(3))
        return graph.add("Concat", [left, right], axis=3)

    def take_over(self, tensor: str, shared: Shared, channels: int, height: int) -> str:
        """Put the columns of the patch on the left into (N, channels, height, w), and carry the whole to the next."""
        graph = self.graph
        before = graph.name("carried")
        left = graph.cut(tensor, 3, 0, shared.rim)
        places = zip(shared.taken, shared.shifts, strict=True)
        start = [span.start + shift if shift else shared.length for span, shift in places]
        stop = graph.ints(shared.length - shared.rim)
        middle = graph.slice(before, self._of_this_column(start), stop, graph.ints(3))
        pairs = zip(shared.taken, shared.left_out, strict=True)
        start = [taken.stop - (left_out.stop - left_out.start) for taken, left_out in pairs]
        right = graph.slice(tensor, self._of_this_column(start), graph.ints(shared.length), graph.ints(3))
        whole = graph.add("Concat", [left, middle, right], axis=3)
        graph.carried.append(Carried(before, whole, height, channels))
        return whole

    def pad_to_largest(self, heat: str) -> str:
        """Pad what a patch keeps at the bottom and right, so that all patches give the same shape."""
        tallest = max(row.stop - row.start for row, _ in self.kept)
        widest = max(column.stop - column.start for _, column in self.kept)
        pads = [
            [0, 0, 0, 0, 0, 0, tallest - (row.stop - row.start), widest - (column.stop - column.start)]
            for row, column in self.kept
        ]
        if not any(any(pad) for pad in pads):
            return heat
        return self.graph.add("Pad", [heat, self._of_this_patch(pads)])

    @staticmethod
    def _pairs(regions: Sequence[Region], others: Sequence[Region]) -> list[tuple[Region, Region]]:
        return list(zip(regions, others, strict=True))

    def _of_this_column(self, places: Sequence[int]) -> str:
        """Look up one whole number by the patch's place in its row."""
        return self._of_this_patch([[place] for place in places] * len(self.layout.rows))

    def _of_this_patch(self, table: Sequence[Sequence[float]], dtype: type = np.int64) -> str:
        """Look up this patch's row of a table."""
        if all(row == table[0] for row in table):
            return self.graph.constant(np.array(table[0], dtype))
        known = self._tables.setdefault(dtype, {})
        rows = tuple(tuple(row) for row in table)
        if rows not in known:
            known[rows] = self.graph.name("of_this_patch")
        return known[rows]

    def look_up(self) -> None:
        """Put in front of everything else what looks up all the tables at once: a node for each would take longer."""
        graph, first = self.graph, len(self.graph.nodes)
        for dtype, tables in self._tables.items():
            every = np.concatenate([np.array(rows, dtype) for rows in tables], axis=1)
            sizes = [len(rows[0]) for rows in tables]
            graph.split(graph.add("Gather", [graph.constant(every), self.index], axis=0), sizes, list(tables.values()))
        graph.nodes[:] = graph.nodes[first:] + graph.nodes[:first]


def align_corners_upsample(graph: Graph, tensor: str) -> str:
    """Upsample by 2, bilinear with aligned corners."""
    scales, no_roi = graph.constant([1, 1, 2, 2], np.float32), graph.constant(np.zeros(0, np.float32))
    return graph.add("Resize", [tensor, no_roi, scales], mode="linear", coordinate_transformation_mode="align_corners")
