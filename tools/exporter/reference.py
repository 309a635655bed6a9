"""The truth: layers 2 and 3 of the contract in torch, patch by patch, as plainly as they can be written."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from tools.exporter.side_by_side import has_no_state, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tools.exporter.graph import Array
    from tools.exporter.layout import Layout


Seen = dict[bytes, "Array"]  # what a patch gives, (h, w), by its digest


@torch.no_grad()
def reference_heatmap(
    network: torch.nn.Module, layout: Layout, strip: Array, *, double: bool = False, seen: Seen | None = None
) -> Array:
    """(3, H, W) float32 in 0..1 -> (H, W) float32 in 0..1: softmax's channel 1 of each patch, its centre kept.

    `double` computes in float64, to see how far torch's own single precision is off. What `seen` holds is not computed
    again, and what is computed is added: a spot in a strip changes few of its patches.
    """
    if double:
        network = copy.deepcopy(network).double()
    heatmap = np.zeros((layout.height, layout.width), np.float32)
    patches = patches_of(np.ascontiguousarray(strip, np.float64 if double else np.float32), layout)
    digests = [digest_of(patch) for patch in patches]
    seen = {} if seen is None else seen
    new = {digest: patch for digest, patch in zip(digests, patches, strict=True) if digest not in seen}
    seen.update(zip(new, _heats(network, list(new.values())), strict=True))
    for (row, column), digest in zip(layout.windows, digests, strict=True):
        kept = seen[digest][row.keep_start : row.keep_stop, column.keep_start : column.keep_stop]
        heatmap[layout.kept(row, column)] = kept
    return heatmap


def patches_of(strip: Array, layout: Layout) -> list[Array]:
    """(3, H, W) -> (3, h, w) for each window."""
    return [
        strip[:, row.start : row.start + layout.patch_height, column.start : column.start + layout.patch_width]
        for row, column in layout.windows
    ]


def digest_of(patch: Array) -> bytes:
    """Name a patch in `Seen`."""
    return hashlib.blake2b(patch.tobytes()).digest()


def torch_heat(network: torch.nn.Module) -> Callable[[Array], Array]:
    """Give the function patches (N, 3, h, w) float32 in 0..1 -> defect probability (N, h, w)."""

    def heat_of(patches: Array) -> Array:
        return np.stack(_heats(network, list(np.asarray(patches, np.float32))))

    return heat_of


@torch.no_grad()
def _heats(network: torch.nn.Module, patches: Sequence[Array]) -> list[Array]:
    def heat(patch: Array) -> Array:
        found: Array = torch.softmax(network(torch.from_numpy(np.ascontiguousarray(patch))[None]), 1)[0, 1].numpy()
        return found

    return side_by_side(heat, patches) if has_no_state(network) else [heat(patch) for patch in patches]
