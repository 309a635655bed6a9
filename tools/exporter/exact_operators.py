"""The operators that double precision needs and onnx's own evaluator lacks, gets wrong or takes minutes for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as PlainResize
from torch.nn import functional

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from tools.exporter.graph import Array

UPSAMPLING: dict[tuple[Any, ...], dict[str, Any]] = {  # mode, coordinate_transformation_mode, nearest_mode
    ("linear", "align_corners", None): {"mode": "bilinear", "align_corners": True},
    ("linear", "half_pixel", None): {"mode": "bilinear", "align_corners": False},
    ("linear", "pytorch_half_pixel", None): {"mode": "bilinear", "align_corners": False},
    ("nearest", "asymmetric", "floor"): {"mode": "nearest"},
}
IMAGES = 4  # axes: batch, channels, rows, columns


class NotExactError(ExportError):
    """This network cannot be computed in double precision."""


class Conv(OpRun):
    """Convolution by torch: onnx's own needs minutes."""

    op_domain = ""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        sides = weight.ndim - 2
        pads = attributes.get("pads") or [0] * (2 * sides)
        around = [pad for axis in reversed(range(sides)) for pad in (pads[axis], pads[axis + sides])]
        if attributes.get("auto_pad") not in (None, "NOTSET"):
            raise NotExactError(f"a convolution pads by auto_pad {attributes['auto_pad']}")
        strides, dilations = attributes.get("strides") or [1] * sides, attributes.get("dilations") or [1] * sides
        groups = attributes.get("group") or 1
        padded, kernel, shift = _torch(x), _torch(weight), None if bias is None else _torch(bias)
        if sides == 2 and groups == 1 and set(strides) == {1}:  # noqa: PLR2004 - rows, columns
            return (_convolve(padded, kernel, shift, around, dilations).numpy(),)
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[sides]
        found = convolve(
            functional.pad(padded, around), kernel, shift, stride=strides, dilation=dilations, groups=groups
        )
        return (found.numpy(),)


class ConvTranspose(OpRun):
    """Transposed convolution by torch, for the same reason."""

    op_domain = ""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        pads = attributes.get("pads") or [0] * 4
        known = attributes.get("auto_pad") in (None, "NOTSET") and not attributes.get("output_shape")
        if not known or x.ndim != IMAGES or pads[:2] != pads[2:]:
            raise NotExactError("a transposed convolution has more or fewer than two sides, or unequal edges")
        found = functional.conv_transpose2d(
            _torch(x),
            _torch(weight),
            None if bias is None else _torch(bias),
            attributes.get("strides") or 1,
            pads[:2],
            attributes.get("output_padding") or 0,
            attributes.get("group") or 1,
            attributes.get("dilations") or 1,
        )
        return (found.numpy(),)


class MaxPool(OpRun):
    """Pooling by torch, for the same reason."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        pads = attributes.get("pads") or [0] * 4
        plain = attributes.get("auto_pad") in (None, "NOTSET") and not attributes.get("ceil_mode")
        if not plain or x.ndim != IMAGES or pads[:2] != pads[2:]:
            raise NotExactError("a pooling rounds its edge up (ceil_mode), or has unequal edges")
        strides, dilations = attributes.get("strides") or 1, attributes.get("dilations") or 1
        sides = attributes["kernel_shape"]
        return (functional.max_pool2d(_torch(x), sides, strides, pads[:2], dilations).numpy(),)


class Resize(PlainResize):
    """What torch's upsampling becomes, by torch; every other kind as onnx does it."""

    op_domain = ""

    def _run(  # type: ignore[override]  # what it is called with
        self, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None, **how: Any
    ) -> tuple[Array]:
        kind = UPSAMPLING.get((how.get("mode"), how.get("coordinate_transformation_mode"), how.get("nearest_mode")))
        if kind is None or x.ndim != IMAGES:
            found: tuple[Array] = super()._run(x, roi, scales, sizes, **how)
            return found
        if sizes is None or not len(sizes):
            sizes = np.floor(np.array(x.shape) * np.asarray(scales, np.float64)).astype(np.int64)
        return (functional.interpolate(_torch(x), [int(side) for side in sizes[2:]], **kind).numpy(),)


class QuantizeLinear(OpRun):
    """Round half to even, as onnxruntime does."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, zero: Array, axis: int = 1, **_: Any) -> tuple[Array]:
        levels = np.iinfo(zero.dtype)
        whole = np.asarray(x / _along(scale, x, axis))
        np.rint(whole, out=whole)
        whole += _along(zero, x, axis)
        np.clip(whole, levels.min, levels.max, out=whole)
        return (whole.astype(zero.dtype),)


class DequantizeLinear(OpRun):
    """Whole numbers times their scale."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, zero: Array, axis: int = 1, **_: Any) -> tuple[Array]:
        found = np.asarray(x.astype(np.float64))
        found -= _along(zero, x, axis)
        found *= _along(scale, x, axis)
        return (found,)


OWN_OPS = [Conv, ConvTranspose, MaxPool, Resize, QuantizeLinear, DequantizeLinear]


def _along(parameter: Array, x: Array, axis: int) -> Array:
    """Shape a parameter for each index of one axis so that it can be combined with `x`."""
    if parameter.ndim == 0:
        return parameter
    return parameter.reshape([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])


def _torch(array: Array) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # constants cannot be written, and nobody does
        return torch.from_numpy(np.ascontiguousarray(array))


def _convolve(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, around: list[int], dilations: list[int]
) -> torch.Tensor:
    """Convolve in steps of one pixel: a product of matrices for each tap, over the flat and shifted image.

    torch's own copies every pixel once for each tap first, and takes twice the processor time. Rows are as long as
    the padded ones; what belongs to no pixel is cut off at the end.
    """
    filters, _, taps_down, taps_right = kernel.shape
    down, right = dilations
    padded = functional.pad(x, around)
    images, channels, rows, columns = padded.shape
    height, width = rows - (taps_down - 1) * down, columns - (taps_right - 1) * right
    last_tap = (taps_down - 1) * down * columns + (taps_right - 1) * right
    flat = functional.pad(padded.reshape(images, channels, rows * columns), [0, last_tap])
    found = torch.zeros(images, filters, height * columns, dtype=x.dtype)
    if bias is not None:
        found += bias[:, None]
    for image, result in zip(flat, found, strict=True):
        for row in range(taps_down):
            for column in range(taps_right):
                start = row * down * columns + column * right
                result.addmm_(kernel[:, :, row, column], image[:, start : start + height * columns])
    return found.reshape(images, filters, height, columns)[..., :width].contiguous()
