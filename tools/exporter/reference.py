"""The truth: layers 2 and 3 of the contract in torch, patch by patch, as plainly as they can be written."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.exporter.graph import Array
    from tools.exporter.layout import Layout


@torch.no_grad()
def reference_heatmap(network: torch.nn.Module, layout: Layout, strip: Array, *, double: bool = False) -> Array:
    """(3, H, W) float32 in 0..1 -> (H, W) float32 in 0..1: softmax's channel 1 of each patch, its centre kept.

    `double` computes in float64, to see how far torch's own single precision is off.
    """
    if double:
        network = copy.deepcopy(network).double()
    heatmap = np.zeros((layout.height, layout.width), np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(strip, np.float64 if double else np.float32))[None]
    for row, column in layout.windows:
        bottom, right = row.start + layout.patch_height, column.start + layout.patch_width
        patch = pixels[:, :, row.start : bottom, column.start : right]
        defect = torch.softmax(network(patch), 1)[0, 1].numpy()
        heatmap[
            row.start + row.keep_start : row.start + row.keep_stop,
            column.start + column.keep_start : column.start + column.keep_stop,
        ] = defect[row.keep_start : row.keep_stop, column.keep_start : column.keep_stop]
    return heatmap


def torch_heat(network: torch.nn.Module) -> Callable[[Array], Array]:
    """Give the function patches (N, 3, h, w) float32 in 0..1 -> defect probability (N, h, w)."""

    @torch.no_grad()
    def heat_of(patches: Array) -> Array:
        pixels = torch.from_numpy(np.ascontiguousarray(patches, np.float32))
        heat: Array = torch.softmax(network(pixels), 1)[:, 1].numpy()
        return heat

    return heat_of
