"""Is this a strip that can be judged, what the model is fed, and is what it gives back a heatmap.

Channel 0 is the target, 1 and 2 are references; a fourth one is never examined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agent.contract.exposure import WHITE
from agent.errors import Blame, Reason, Reject, Retry
from agent.worker.light import USED, contrast

if TYPE_CHECKING:
    from agent.config import ChecksSection
    from agent.contract.exposure import Exposure

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]
Float32 = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

CONSTANT = 0.5  # times the contrast of noise alone, where the noise is known; less is no picture, and no blank field
OF_NOISE = 1.645  # contrast of noise alone, for each of its standard deviations
LEAST = 0.1  # grey levels, where the calibration strips had no noise
_PLAIN_SCALES = (1e-30, 1e30)  # a division by what lies between is exact enough in float32, and never overflows
OUTPUT_TOLERANCE = 1e-4  # rounding of a softmax; clipped away


def check_strip(pixels: Pixels, checks: ChecksSection, exposure: Exposure | None = None) -> None:
    """Refuse pixels that no model can judge: (3 or 4, height, width), any accepted dtype.

    In this order: finite; written to the end (the last row of no used channel is all zero); not in 0..1; one of the
    used channels is not constant (an evenly lit blank field shows noise, and is judged); target and references differ.
    `exposure` is what the model's file says about its calibration strips.

    Raises Reject(NON_FINITE, UNIT_RANGE_SUSPECTED, LOW_CONTRAST, TARGET_EQUALS_REFERENCE) and Retry(INCOMPLETE).
    """
    used = pixels[: len(USED)]
    low, high = float(used.min()), float(used.max())  # not a number if any pixel is
    if not (np.isfinite(low) and np.isfinite(high)):
        count = used.size - np.count_nonzero(np.isfinite(used))
        raise Reject(Reason.NON_FINITE, f"{count} pixels are not a finite number")
    if checks.zero_rows == "reject":
        _refuse_zero_rows(used)
    if used.dtype.kind == "f" and high <= 1.0 and checks.full_scale is None:
        detail = (
            f"grey levels are {low:g}..{high:g}; 0..{WHITE:g} is expected. If 1.0 is white, set checks.full_scale: 1"
        )
        raise Reject(Reason.UNIT_RANGE_SUSPECTED, detail)
    _refuse_low_contrast(used, low, high, checks, exposure)
    for name, reference in zip(USED[1:], used[1:], strict=True):
        if np.array_equal(used[0], reference):
            raise Reject(Reason.TARGET_EQUALS_REFERENCE, f"the target is identical to {name}: nothing can differ")


def _refuse_zero_rows(used: Pixels) -> None:
    """Space that was reserved and not written reads as zeros, and a decoder does not mind."""
    for name, channel in zip(USED, used, strict=True):
        if not channel[-1].any():
            rows = int(np.argmax(np.append(channel.any(axis=1)[::-1], True)))
            detail = f"the last {rows} rows of the {name} are all zero; if that is right, set checks.zero_rows: accept"
            raise Retry(Reason.INCOMPLETE, detail, Blame.FILE)


def _refuse_low_contrast(
    used: Pixels, low: float, high: float, checks: ChecksSection, exposure: Exposure | None
) -> None:
    """Measure the contrast as the model will see it: enough in one channel, and none is lost where it is stretched.

    One hot pixel, or a channel of another scale, would otherwise leave the model a black picture, and that is "ok".
    """
    full = _full_scale(checks)
    span = full
    if checks.out_of_range == "rescale" and (low < 0 or high > full):
        span = max(high - low, full)
    elif checks.out_of_range == "clip" and (low < 0 or high > full):
        used = np.clip(used, 0, full)
    limit = checks.min_contrast
    if exposure is not None:
        limit = min(limit, max(CONSTANT * OF_NOISE * exposure.noise, LEAST))
    seen = []
    for name, channel in zip(USED, used, strict=True):
        found = contrast(channel) / span * WHITE
        if found >= limit and span == full:
            return
        seen.append(found)
        if found < limit <= found * span / full:
            detail = (
                f"stretched to the strip's largest value {high:g}, the {name} is constant ({found:.2g} grey levels)"
            )
            raise Reject(Reason.LOW_CONTRAST, f"{detail}; set checks.full_scale to the camera's white")
    found = max(seen)
    if found >= limit:
        return
    detail = f"target and references are constant: their contrast is at most {found:.2g} grey levels"
    raise Reject(Reason.LOW_CONTRAST, f"{detail}; from {limit:.2g} on a strip is judged")


def _full_scale(checks: ChecksSection) -> float:
    return WHITE if checks.full_scale is None else checks.full_scale


def to_model_input(
    pixels: Pixels, checks: ChecksSection, input_scale: Literal["unit", "gray8"]
) -> tuple[Float32, bool]:
    """Return the model's input, (1, 3, height, width) float32, C-contiguous, and whether it was stretched.

    Full scale (`checks.full_scale`, else 255 whatever the dtype) becomes 1.0 for `unit` and 255.0 for `gray8`. Grey
    levels below 0 or above full scale follow `checks.out_of_range`; 12- or 16-bit data without a `full_scale` is
    simply out of range. `rescale` takes minimum and maximum over channels 0 to 2 jointly, so that target and
    references stay comparable.

    Raises Reject(OUT_OF_RANGE).
    """
    used = pixels[: len(USED)]
    full = _full_scale(checks)
    top = 1.0 if input_scale == "unit" else WHITE
    low, high = float(used.min()), float(used.max())
    outside = low < 0 or high > full
    if outside and checks.out_of_range == "reject":
        detail = (
            f"grey levels are {low:g}..{high:g}, outside 0..{full:g}; see checks.full_scale and checks.out_of_range"
        )
        raise Reject(Reason.OUT_OF_RANGE, detail)
    strip = np.empty((1, *used.shape), np.float32)
    if outside and checks.out_of_range == "rescale":
        # In float64: the span of two float32 may exceed float32, and large offsets would eat the grey levels.
        strip[0] = (used - np.float64(low)) / ((high - low) or 1.0) * top
        return strip, True
    if outside or not _PLAIN_SCALES[0] < full / top < _PLAIN_SCALES[1]:
        strip[0] = np.clip(used, 0, full, dtype=np.float64) / full * top
    elif top == full:
        strip[0] = used
    else:
        strip[0] = used  # first: to convert while dividing takes four times as long
        strip /= np.float32(full / top)
    return strip, False


def check_output(output: Pixels, height: int, width: int) -> Float32:
    """Return the heatmap, (height, width) float32 in 0..1, out of a model's output (1, 3, height, width).

    Raises Reject(OUTPUT_WRONG_SHAPE, OUTPUT_NON_FINITE, OUTPUT_OUT_OF_RANGE), each the model's fault.
    """
    if output.shape != (1, 3, height, width) or output.dtype != np.float32:
        detail = f"the model gave {output.shape} {output.dtype}; (1, 3, {height}, {width}) float32 is the contract"
        raise Reject(Reason.OUTPUT_WRONG_SHAPE, detail, model_fault=True)
    heatmap = output[0, 0]
    low, high = float(heatmap.min()), float(heatmap.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = heatmap.size - np.count_nonzero(np.isfinite(heatmap))
        detail = f"{count} pixels of the heatmap are not a finite number"
        raise Reject(Reason.OUTPUT_NON_FINITE, detail, model_fault=True)
    if low < -OUTPUT_TOLERANCE or high > 1 + OUTPUT_TOLERANCE:
        detail = f"the heatmap is {low:g}..{high:g}; 0..1 is the contract"
        raise Reject(Reason.OUTPUT_OUT_OF_RANGE, detail, model_fault=True)
    return np.ascontiguousarray(heatmap if low >= 0 and high <= 1 else np.clip(heatmap, 0, 1))
