"""Put a mask into the fourth channel of a strip; `python -m agent.worker.masking MEMORY_MIB` does it on request.

One JSON object per line on standard input names files: `strip`, `heatmap` ("": the strip has no defect), `out`, and
gives `sizes` ([height, width] that the strip may have), `pixel_threshold` and `min_area_px`. The answer is a line as
well: `{"masked_px": n, "why": ""}`; nothing is written where `why` says so.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import tifffile

from agent.errors import Reject, Retry
from agent.worker.memory import set_limit
from agent.worker.tiff import read_strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.worker.tiff import Pixels

DEFECT = 255  # in the fourth channel, whatever its type; 0 elsewhere
CHANNELS = 3


def with_mask(strip: Pixels, mask: Pixels) -> bytes:
    """Return a TIFF of the strip, (3 or 4, height, width), whose fourth channel is the mask, (height, width) bool."""
    fourth = mask.astype(strip.dtype) * strip.dtype.type(DEFECT)
    stack = np.concatenate([strip[:CHANNELS], fourth[None]])
    file = BytesIO()
    tifffile.imwrite(file, stack, photometric="minisblack", planarconfig="separate", metadata=None, software=False)
    return file.getvalue()


def regions_of(heatmap: Pixels, pixel_threshold: float, min_area_px: int) -> Pixels:
    """Return where the regions of a heatmap are, (height, width) bool: those that count when it is scored."""
    found = (heatmap >= pixel_threshold).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8, ltype=cv2.CV_32S)
    counted = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    counted[0] = False  # the background
    mask: Pixels = counted[labels]
    return mask


def _read(data: bytes, sizes: Sequence[tuple[int, int]]) -> Pixels:
    """Read the strip at the first of the sizes that it has. Raises Reject, Retry."""
    refusal: Reject | Retry | None = None
    for height, width in sizes:
        try:
            return read_strip(data, height=height, width=width)
        except (Reject, Retry) as error:
            refusal = error
    raise refusal or ValueError("nobody knows the size of the strip")


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        sizes = [(int(height), int(width)) for height, width in asked["sizes"]]
        heatmap = tifffile.imread(asked["heatmap"]) if asked["heatmap"] else None
        if heatmap is not None:
            sizes = [heatmap.shape]
        strip = _read(Path(asked["strip"]).read_bytes(), sizes)
        if heatmap is None:
            mask = np.zeros(strip.shape[1:], np.bool_)
        else:
            mask = regions_of(heatmap, asked["pixel_threshold"], asked["min_area_px"])
            if not mask.any():
                return {"masked_px": 0, "why": "its heatmap has no region at scoring.pixel_threshold"}
        Path(asked["out"]).write_bytes(with_mask(strip, mask))
        return {"masked_px": int(mask.sum()), "why": ""}
    except (Reject, Retry, OSError, ValueError, MemoryError) as error:
        return {"masked_px": 0, "why": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer until nobody asks any more."""
    set_limit(int(sys.argv[1]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
